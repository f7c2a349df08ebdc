// SPDX-License-Identifier: Apache-2.0

package evaluate

import (
	"errors"
	"fmt"
	"math/rand/v2"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/selector/output"
	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/policies"
)

// target is the policy that is judged.
type target struct {
	policy       policy.Policy
	panel        *policy.Panel
	spec         output.Spec
	models       map[string]int
	defaultValue policy.Value
	threshold    float64
	priorWeight  float64
	contextual   bool

	// An ensemble asks all its members, always.
	ensemble bool
	members  []policy.Choice

	frozen  *policy.State // nil for a policy that learns
	shared  policy.Sums
	own     map[string]*policy.Sums
	guesses *rewards
	seen    []bool // models that the log has asked
}

func newTarget(app *clipperv1.Application, o Options) (*target, error) {
	if app.GetPolicy().GetName() == "custom" {
		return nil, errors.New("a custom policy is another program, which cannot be replayed")
	}
	chosen, err := policies.New(app.GetPolicy().GetName(), app.GetPolicy().GetParameters())
	if err != nil {
		return nil, err
	}
	if n := len(app.GetModels()); n == 0 || n > policy.MaxModels {
		return nil, fmt.Errorf("the application has %d models, want 1 to %d", n, policy.MaxModels)
	}
	t := &target{
		policy: chosen, spec: output.New(app.GetOutput()), models: map[string]int{},
		threshold: app.GetConfidenceThreshold(), priorWeight: app.GetPriorWeight(),
	}
	_, t.contextual = chosen.(policy.Contextual)
	members := make([]policy.Member, len(app.GetModels()))
	weightless := true
	for i, m := range app.GetModels() {
		t.models[key(m)] = i
		members[i] = policy.Member{Weight: m.GetWeight(), Group: m.GetGroup(), Shadow: m.GetShadow()}
		weightless = weightless && m.GetWeight() == 0
	}
	for i := range members {
		if weightless { // As a selector completes it.
			members[i].Weight = 1
		}
	}
	var ok bool
	if t.panel, ok = policy.NewPanel(chosen, members); !ok {
		return nil, errors.New("no model of the application has a weight and may answer")
	}
	if t.defaultValue, err = t.spec.Output(app.GetDefaultOutput()); err != nil {
		return nil, fmt.Errorf("the application's default output: %w", err)
	}
	t.reset()
	probabilities, sum := make([]float64, len(members)), 0.0
	chosen.Probabilities(t.state(""), probabilities)
	for i, p := range probabilities {
		sum += p
		if p > 0 {
			t.members = append(t.members, policy.Choice{Model: i, Propensity: 1})
		}
	}
	t.ensemble = sum > 1.5
	if o.Frozen != nil {
		t.frozen = &policy.State{Priors: t.priors(), Statistics: t.matrix(app, o.Frozen)}
	}
	return t, nil
}

// key is how an application lists a model.
func key(m *clipperv1.ApplicationModel) string {
	if m.GetVersion() == "" {
		return m.GetModel()
	}
	return m.GetModel() + ":" + m.GetVersion()
}

func (t *target) priors() []float64 { return t.panel.Priors() }

// matrix reads the statistics that the policy wants of a state; those it has not are 0.
func (t *target) matrix(app *clipperv1.Application, state *clipperv1.GetSelectionStateResponse) []float64 {
	names := t.policy.Statistics()
	matrix := make([]float64, len(app.GetModels())*len(names))
	for _, m := range state.GetModels() {
		if i, ok := t.models[m.GetModel()]; ok {
			for j, name := range names {
				matrix[i*len(names)+j] = m.GetStatistics()[name]
			}
		}
	}
	return matrix
}

// reset forgets what was learned.
func (t *target) reset() {
	t.shared = t.nothing()
	t.own = map[string]*policy.Sums{}
}

func (t *target) nothing() policy.Sums {
	return policy.Sums{Statistics: make([]float64, len(t.priors())*len(t.policy.Statistics()))}
}

// state returns what the policy knows for a context, as a selector derives it.
func (t *target) state(context string) *policy.State {
	if t.frozen != nil {
		return t.frozen
	}
	s := &policy.State{}
	if context == "" {
		t.panel.Derive(&t.shared, nil, 0, s)
	} else {
		t.panel.Derive(t.own[context], &t.shared, t.priorWeight, s)
	}
	return s
}

// learn adds an observation to a context and to the shared state. What is added depends on what it is added to,
// without the prior, as in a selector.
func (t *target) learn(context string, o policy.Observation) {
	if t.frozen != nil || len(t.shared.Statistics) == 0 {
		return
	}
	deltas := make([]float64, len(t.shared.Statistics))
	add := func(sums *policy.Sums) {
		t.policy.Observe(&policy.State{Priors: t.priors(), Statistics: sums.Statistics}, o, deltas)
		sums.Observations++
		for i, d := range deltas {
			sums.Statistics[i] += d
		}
	}
	if context != "" {
		if t.own[context] == nil {
			own := t.nothing()
			t.own[context] = &own
		}
		add(t.own[context])
	}
	add(&t.shared)
}

// exact reports whether every decision asked all models that the target may ask for certain.
func (t *target) exact(samples []sample) bool {
	may := t.members
	if !t.ensemble && len(t.policy.Statistics()) > 0 {
		may = nil
		for i, p := range t.priors() {
			if p > 0 {
				may = append(may, policy.Choice{Model: i})
			}
		}
	}
	for i := range samples {
		for _, c := range may {
			if !samples[i].certain(c.Model) {
				return false
			}
		}
	}
	return true
}

// allAsked reports whether a decision asked all members of the ensemble for certain.
func (t *target) allAsked(s *sample) bool {
	for _, c := range t.members {
		if !s.certain(c.Model) {
			return false
		}
	}
	return true
}

// walk goes through the decisions in order, lets the policy decide and learn, and tells what each of them
// says. random is for choices of its own, in an exact replay; without it the policy learns from the log's.
func (t *target) walk(samples []sample, random *rand.Rand, tell func(int, term)) {
	dimension := 0
	for i := range samples {
		if n := len(samples[i].features); n > 0 {
			dimension = n
			break
		}
	}
	t.guesses = newRewards(len(t.priors()), dimension)
	t.seen = make([]bool, len(t.priors()))
	for i := range samples {
		for _, a := range samples[i].asked {
			t.seen[a.model] = true
		}
	}
	for i := range samples {
		s := &samples[i]
		state := t.state(s.context)
		if t.ensemble {
			if reward := t.answer(state, s, t.members); reward != unknown {
				tell(i, term{reward: reward, weight: 1, robust: reward, largest: 1})
			}
			t.learn(s.context, t.observation(s, t.members))
			continue
		}
		tell(i, t.choose(state, s))
		switch {
		case random != nil:
			own := t.policy.Select(state, &policy.Query{Random: random, Features: s.features}, nil)
			t.learn(s.context, t.observation(s, own))
		default:
			var logged []policy.Choice
			for _, a := range s.asked {
				logged = append(logged, policy.Choice{Model: a.model, Propensity: a.propensity})
			}
			t.learn(s.context, t.observation(s, logged))
		}
	}
}

// choose returns what a decision says of a policy that asks one model.
func (t *target) choose(state *policy.State, s *sample) (x term) {
	var buffer [policy.MaxModels]float64
	p := buffer[:len(t.priors())]
	if contextual, ok := t.policy.(policy.Contextual); ok {
		contextual.ProbabilitiesFor(state, s.features, p)
	} else {
		t.policy.Probabilities(state, p)
	}
	for model, probability := range p {
		if probability <= 0 {
			continue
		}
		guess := t.guesses.guess(model, s.features)
		x.robust += probability * guess
		if !t.seen[model] {
			x.unsupported += probability
		}
		if a := s.find(model); a != nil {
			weight := probability / a.propensity
			x.weight += weight
			x.reward += weight * (1 - a.loss)
			x.robust += weight * (1 - a.loss - guess)
			x.largest = max(x.largest, weight)
		}
	}
	for _, a := range s.asked {
		t.guesses.learn(a.model, s.features, 1-a.loss)
	}
	return x
}

// observation returns what is learned when these models are asked.
func (t *target) observation(s *sample, choices []policy.Choice) policy.Observation {
	o := policy.Observation{Choices: choices, Features: s.features}
	for _, c := range choices {
		loss := unknown
		// A model that said nothing is not learned about.
		if a := s.find(c.Model); a != nil && !a.value.Missing() {
			loss = a.loss
		}
		o.Losses = append(o.Losses, loss)
	}
	return o
}

// answer combines what models said, puts the default output in the place of an answer that is missing or
// not trusted, and returns the reward; unknown if that cannot be told.
func (t *target) answer(state *policy.State, s *sample, choices []policy.Choice) float64 {
	values := make([]policy.Value, len(choices))
	for i, c := range choices {
		values[i] = s.find(c.Model).value
	}
	combined := t.policy.Combine(state, t.spec.Task, choices, values, nil)
	given := combined.Value
	if given.Missing() || combined.Confidence < t.threshold {
		given = t.defaultValue
	}
	if loss := t.spec.Task.Loss(s.truth, given); loss >= 0 {
		return 1 - loss
	}
	// Without the truth, a model that said the same tells.
	for i, c := range choices {
		if a := s.find(c.Model); t.spec.Task.Kind == policy.Label && values[i].Equal(given) && a.loss >= 0 {
			return 1 - a.loss
		}
	}
	return unknown
}
