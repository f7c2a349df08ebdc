// SPDX-License-Identifier: Apache-2.0

// Package policytest says in tests what package policy says in words. Every policy runs
// [Conformance]; a policy that forgets also runs [Recovery]. What is proven about the regret of policies is in package
// simulation.
package policytest

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/simulation"
)

const tolerance = 1e-9

// task is one of the three kinds, with numbers from 0 to 1.
func task(kind policy.Kind) policy.Task { return policy.Task{Kind: kind, Min: 0, Max: 1} }

func kinds() *rapid.Generator[policy.Kind] {
	return rapid.SampledFrom([]policy.Kind{policy.Label, policy.Number, policy.Scores})
}

// value draws a prediction, one in four missing.
func value(t *rapid.T, kind policy.Kind) policy.Value {
	if rapid.IntRange(0, 3).Draw(t, "missing") == 0 {
		return policy.Value{}
	}
	switch kind {
	case policy.Label:
		if rapid.Bool().Draw(t, "text") {
			return policy.Text(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "label"))
		}
		return policy.Integer(rapid.Int64Range(0, 2).Draw(t, "label"))
	case policy.Number:
		return policy.Real(rapid.Float64Range(-1, 2).Draw(t, "number"))
	}
	return policy.Vector([]float64{rapid.Float64Range(0, 1).Draw(t, "s0"), rapid.Float64Range(0, 1).Draw(t, "s1"), rapid.Float64Range(0, 1).Draw(t, "s2")})
}

// state draws a state that sums may well have, however far apart.
func state(t *rapid.T, p policy.Policy) *policy.State {
	n := rapid.IntRange(1, 6).Draw(t, "models")
	members := make([]policy.Member, n)
	for i := range members {
		members[i].Weight = float64(rapid.IntRange(0, 3).Draw(t, "weight"))
	}
	members[rapid.IntRange(0, n-1).Draw(t, "positive")].Weight = 1
	panel, ok := policy.NewPanel(p, members)
	require.True(t, ok)
	s := &policy.State{Priors: panel.Priors(), Statistics: make([]float64, n*len(p.Statistics()))}
	count := 0.0
	for i := range s.Statistics {
		switch p.Statistics()[i%len(p.Statistics())] {
		case "count": // Of a context, it may be any part of the shared one.
			count = max(rapid.Float64Range(-1, 1e6).Draw(t, "count"), 0)
			s.Statistics[i] = count
		case "loss":
			s.Statistics[i] = count * rapid.Float64Range(0, 1).Draw(t, "mean loss")
		default:
			s.Statistics[i] = rapid.Float64Range(-1e6, 1e6).Draw(t, "statistic")
		}
	}
	return s
}

// query draws features when the policy wants some.
func query(p policy.Policy, seed uint64) *policy.Query {
	q := &policy.Query{Random: rand.New(rand.NewPCG(seed, 1))}
	if contextual, ok := p.(policy.Contextual); ok {
		q.Features = features(contextual, q.Random)
	}
	return q
}

// features draws numbers of a norm of at most 1, and the constant.
func features(p policy.Contextual, random *rand.Rand) []float64 {
	n := p.Dimension()
	f := make([]float64, n)
	for i := range f {
		f[i] = (2*random.Float64() - 1) / math.Sqrt(float64(n))
	}
	f[n-1] = 1
	return f
}

// probabilities are those of a query.
func probabilities(p policy.Policy, s *policy.State, q *policy.Query) []float64 {
	dst := make([]float64, len(s.Priors))
	if contextual, ok := p.(policy.Contextual); ok {
		contextual.ProbabilitiesFor(s, q.Features, dst)
	} else {
		p.Probabilities(s, dst)
	}
	return dst
}

// Conformance runs the properties that every policy has.
func Conformance(t *testing.T, p policy.Policy) {
	t.Run("shares and probabilities", rapid.MakeCheck(func(t *rapid.T) { shares(t, p) }))
	t.Run("select", rapid.MakeCheck(func(t *rapid.T) { selects(t, p) }))
	t.Run("combine", rapid.MakeCheck(func(t *rapid.T) { combines(t, p) }))
	t.Run("decided", rapid.MakeCheck(func(t *rapid.T) { decides(t, p) }))
	t.Run("permutation", rapid.MakeCheck(func(t *rapid.T) { permutes(t, p) }))
	t.Run("observe", rapid.MakeCheck(func(t *rapid.T) { observes(t, p) }))
	t.Run("order", rapid.MakeCheck(func(t *rapid.T) { commutes(t, p) }))
	t.Run("propensities are frequencies", func(t *testing.T) { frequencies(t, p) })
	t.Run("no allocation", func(t *testing.T) { allocations(t, p) })
}

func shares(t *rapid.T, p policy.Policy) {
	s := state(t, p)
	dst := make([]float64, len(s.Priors))
	p.Shares(s, dst)
	sum := 0.0
	for i, x := range dst {
		require.True(t, x >= 0 && x <= 1+tolerance, "share %v", x)
		if s.Priors[i] == 0 {
			require.Zero(t, x)
		}
		sum += x
	}
	require.InDelta(t, 1, sum, tolerance)

	p.Probabilities(s, dst)
	some := false
	for i, x := range dst {
		require.True(t, x >= 0 && x <= 1+tolerance, "probability %v", x)
		if s.Priors[i] == 0 {
			require.Zero(t, x)
		}
		some = some || x > 0
	}
	require.True(t, some)
}

func selects(t *rapid.T, p policy.Policy) {
	s := state(t, p)
	seed := rapid.Uint64().Draw(t, "seed")
	choices := p.Select(s, query(p, seed), nil)
	require.NotEmpty(t, choices)
	probabilities := probabilities(p, s, query(p, seed))
	last := -1
	for _, c := range choices {
		require.Greater(t, c.Model, last, "rising order")
		last = c.Model
		require.Positive(t, s.Priors[c.Model])
		require.True(t, c.Propensity > 0 && c.Propensity <= 1, "propensity %v", c.Propensity)
		require.InDelta(t, probabilities[c.Model], c.Propensity, tolerance)
		require.False(t, c.Shadow)
	}
	require.Equal(t, choices, p.Select(s, query(p, seed), nil), "the same randomness gives the same choice")
	head := []policy.Choice{{Model: 77}}
	require.Equal(t, append(head, choices...), p.Select(s, query(p, seed), head[:1]), "appends")

	// Without features, a contextual policy is what Probabilities says.
	p.Probabilities(s, probabilities)
	for _, c := range p.Select(s, &policy.Query{Random: query(p, seed).Random}, nil) {
		require.InDelta(t, probabilities[c.Model], c.Propensity, tolerance)
	}
}

func combines(t *rapid.T, p policy.Policy) {
	s := state(t, p)
	kind := kinds().Draw(t, "kind")
	choices := p.Select(s, query(p, rapid.Uint64().Draw(t, "seed")), nil)
	predictions := make([]policy.Value, len(choices))
	arrived := 0
	for i := range predictions {
		predictions[i] = value(t, kind)
		if !predictions[i].Missing() {
			arrived++
		}
	}
	c := p.Combine(s, task(kind), choices, predictions, nil)
	require.True(t, c.Confidence >= 0 && c.Confidence <= 1, "confidence %v", c.Confidence)
	require.Equal(t, arrived == 0, c.Value.Missing())
	switch {
	case arrived == 0:
		require.Zero(t, c.Confidence)
	case arrived == len(choices) && unanimous(predictions):
		require.InDelta(t, 1, c.Confidence, 1e-6)
	}
	if x, ok := c.Value.Real(); ok {
		low, high := math.Inf(1), math.Inf(-1)
		for _, v := range predictions {
			if y, ok := v.Real(); ok {
				low, high = min(low, y), max(high, y)
			}
		}
		require.True(t, x >= low-tolerance && x <= high+tolerance, "%v is not between %v and %v", x, low, high)
	}
	if xs, ok := c.Value.Vector(); ok {
		for _, x := range xs {
			require.True(t, x >= 0 && x <= 1+tolerance, "score %v", x)
		}
	}
	if len(choices) > 1 {
		// All the same but for one that is missing: as sure as the weight of the others.
		for i := range predictions {
			predictions[i] = policy.Integer(1)
		}
		predictions[0] = policy.Value{}
		weights := make([]float64, len(s.Priors))
		p.Shares(s, weights)
		rest := 0.0
		for _, c := range choices[1:] {
			rest += weights[c.Model]
		}
		if rest > 0.01 {
			require.InDelta(t, rest, p.Combine(s, task(policy.Label), choices, predictions, nil).Confidence, 1e-6)
		}
	}
}

func unanimous(predictions []policy.Value) bool {
	for _, v := range predictions {
		x, _ := v.Real()
		y, _ := predictions[0].Real()
		a, _ := v.Class()
		b, _ := predictions[0].Class()
		if !v.Equal(predictions[0]) || x != y || a != b {
			return false
		}
	}
	return true
}

// permutes says that the order of the models does not change the answer.
func permutes(t *rapid.T, p policy.Policy) {
	s := state(t, p)
	kind := kinds().Draw(t, "kind")
	n, columns := len(s.Priors), len(p.Statistics())
	var choices []policy.Choice
	for i, prior := range s.Priors {
		if prior > 0 {
			choices = append(choices, policy.Choice{Model: i, Propensity: 1})
		}
	}
	predictions := make([]policy.Value, len(choices))
	for i := range predictions {
		predictions[i] = value(t, kind)
	}
	before := p.Combine(s, task(kind), choices, predictions, nil)

	to := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "permutation"), 2)).Perm(n)
	moved := &policy.State{Priors: make([]float64, n), Statistics: make([]float64, n*columns)}
	for i := range n {
		moved.Priors[to[i]] = s.Priors[i]
		copy(moved.Statistics[to[i]*columns:(to[i]+1)*columns], s.Statistics[i*columns:])
	}
	byModel := make([]policy.Value, n)
	asked := make([]bool, n)
	for i, c := range choices {
		byModel[to[c.Model]], asked[to[c.Model]] = predictions[i], true
	}
	choices, predictions = choices[:0], predictions[:0]
	for i := range n {
		if asked[i] {
			choices = append(choices, policy.Choice{Model: i, Propensity: 1})
			predictions = append(predictions, byModel[i])
		}
	}
	// A policy that asks one model combines by the priors, so this holds for it as well.
	after := p.Combine(moved, task(kind), choices, predictions, nil)
	require.True(t, before.Value.Equal(after.Value), "%v is not %v", before, after)
	x, _ := before.Value.Real()
	y, _ := after.Value.Real()
	require.InDelta(t, x, y, tolerance)
	a, _ := before.Value.Vector()
	b, _ := after.Value.Vector()
	require.InDeltaSlice(t, a, b, tolerance)
	if kind != policy.Scores { // Two equal largest scores may change places by rounding.
		require.InDelta(t, before.Confidence, after.Confidence, 1e-6)
	}
}

// observation draws losses for a choice or for all models.
func observation(t *rapid.T, p policy.Policy, s *policy.State) policy.Observation {
	q := query(p, rapid.Uint64().Draw(t, "seed"))
	o := policy.Observation{Choices: p.Select(s, q, nil), Features: q.Features}
	if rapid.IntRange(0, 7).Draw(t, "features") == 0 {
		o.Features = []float64{1} // of another policy, as an earlier answer may have
	}
	if rapid.Bool().Draw(t, "all") {
		o.Choices = o.Choices[:0]
		for i := range s.Priors { // With shadow models, whose prior is 0.
			o.Choices = append(o.Choices, policy.Choice{Model: i, Propensity: 1, Shadow: s.Priors[i] == 0})
		}
	}
	for range o.Choices {
		loss := policy.Unknown
		if rapid.IntRange(0, 3).Draw(t, "known") > 0 {
			loss = rapid.Float64Range(0, 1).Draw(t, "loss")
		}
		o.Losses = append(o.Losses, loss)
	}
	return o
}

func observes(t *rapid.T, p policy.Policy) {
	s := state(t, p)
	columns := len(p.Statistics())
	deltas := make([]float64, len(s.Statistics))
	before, after := make([]float64, len(s.Priors)), make([]float64, len(s.Priors))
	for range 20 {
		o := observation(t, p, s)
		for i := range deltas {
			deltas[i] = math.NaN() // whatever was there
		}
		p.Shares(s, before)
		p.Observe(s, o, deltas)
		known := 0
		for i, c := range o.Choices {
			if o.Losses[i] >= 0 && s.Priors[c.Model] > 0 {
				known++
			}
		}
		for i, d := range deltas {
			require.False(t, math.IsNaN(d) || math.IsInf(d, 0), "delta %v", d)
			if s.Priors[i/max(columns, 1)] == 0 {
				require.Zero(t, d, "a model that takes no part")
			}
			if known == 0 {
				require.Zero(t, d, "nothing is known")
			}
			s.Statistics[i] += d
		}
		// The one model that is known to be wrong does not gain on those known to be right.
		p.Shares(s, after)
		for i, c := range o.Choices {
			for j, e := range o.Choices {
				if o.Losses[i] == 1 && o.Losses[j] == 0 && before[e.Model] > 0 && before[c.Model] > 0 {
					require.LessOrEqual(t, after[c.Model]*before[e.Model], before[c.Model]*after[e.Model]+1e-6)
				}
			}
		}
	}
}

// commutes says that feedback may come in any order: what is added depends on the choices and the
// losses, not on what was added before, as long as no limit is met.
func commutes(t *rapid.T, p policy.Policy) {
	n := rapid.IntRange(2, 5).Draw(t, "models")
	s := &policy.State{Priors: make([]float64, n), Statistics: make([]float64, n*len(p.Statistics()))}
	for i := range s.Priors {
		s.Priors[i] = 1 / float64(n)
	}
	observations := make([]policy.Observation, 4)
	for i := range observations {
		observations[i] = observation(t, p, s)
	}
	total := func(order []int) []float64 {
		sums := &policy.State{Priors: s.Priors, Statistics: make([]float64, len(s.Statistics))}
		deltas := make([]float64, len(s.Statistics))
		for _, i := range order {
			p.Observe(sums, observations[i], deltas)
			for k, d := range deltas {
				sums.Statistics[k] += d
			}
		}
		return sums.Statistics
	}
	order := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 3)).Perm(len(observations))
	require.InDeltaSlice(t, total([]int{0, 1, 2, 3}), total(order), tolerance)
}

func frequencies(t *testing.T, p policy.Policy) {
	s := &policy.State{Priors: []float64{0.5, 0.3, 0, 0.2}, Statistics: make([]float64, 4*len(p.Statistics()))}
	for i := range s.Statistics {
		s.Statistics[i] = float64(i) / 2
		if i > 0 && p.Statistics()[i%len(p.Statistics())] == "loss" {
			s.Statistics[i] /= 2
		}
	}
	q := query(p, 7)
	want := probabilities(p, s, q)
	const draws = 40000
	counts := make([]float64, 4)
	var choices []policy.Choice
	for range draws {
		choices = p.Select(s, q, choices[:0])
		for _, c := range choices {
			counts[c.Model]++
		}
	}
	for i := range counts {
		// Five standard deviations.
		require.InDelta(t, want[i], counts[i]/draws, 5*math.Sqrt(0.25/draws), "model %d", i)
	}
}

// five is what the cost of a policy is measured with.
func five(p policy.Policy) (s *policy.State, q *policy.Query, predictions []policy.Value) {
	s = &policy.State{Priors: []float64{.2, .2, .2, .2, .2}, Statistics: make([]float64, 5*len(p.Statistics()))}
	for i := range 5 {
		predictions = append(predictions, policy.Integer(int64(i/2)))
	}
	return s, query(p, 1), predictions
}

// round is one query and its feedback.
type round struct {
	choices []policy.Choice
	losses  []float64
	deltas  []float64
	scores  []float64
}

func (r *round) run(p policy.Policy, s *policy.State, q *policy.Query, predictions []policy.Value) policy.Combined {
	t := task(policy.Label)
	r.choices = p.Select(s, q, r.choices[:0])
	c := p.Combine(s, t, r.choices, predictions[:len(r.choices)], r.scores[:0])
	r.losses = r.losses[:0]
	for i := range r.choices {
		r.losses = append(r.losses, t.Loss(c.Value, predictions[i]))
	}
	p.Observe(s, policy.Observation{Choices: r.choices, Losses: r.losses, Features: q.Features}, r.deltas)
	return c
}

func allocations(t *testing.T, p policy.Policy) {
	s, q, predictions := five(p)
	r := round{choices: make([]policy.Choice, 0, 5), losses: make([]float64, 0, 5), deltas: make([]float64, len(s.Statistics))}
	require.Zero(t, testing.AllocsPerRun(100, func() { r.run(p, s, q, predictions) }))
}

// Benchmark measures Select, Combine and Observe for five models.
func Benchmark(b *testing.B, p policy.Policy) {
	s, q, predictions := five(p)
	r := round{choices: make([]policy.Choice, 0, 5), losses: make([]float64, 0, 5), deltas: make([]float64, len(s.Statistics))}
	b.ReportAllocs()
	for b.Loop() {
		r.run(p, s, q, predictions)
	}
}

// Recovery says that when the best model fails for a while the policy leaves it, and that it returns
// within the given number of steps after the model has healed: the mean loss is then below that of
// the second-best model by more than a third of the distance to the best.
func Recovery(t *testing.T, p policy.Policy, within int) {
	const from, to, window, seeds = 2000, 4000, 1000, 20
	const best, second = 0.1, 0.3
	stream := simulation.Failing(0, from, to, best, second, 0.6)
	phases := map[string][2]int{"before": {from - window, from}, "during": {to - window, to}, "after": {to + within, to + within + window}}
	means := map[string]float64{}
	for seed := range uint64(seeds) {
		simulation.Play(p, stream, to+within+window, seed, func(step int, loss float64) {
			for name, phase := range phases {
				if step >= phase[0] && step < phase[1] {
					means[name] += loss / (window * seeds)
				}
			}
		})
	}
	t.Logf("mean loss: %.3v", means)
	good := second - (second-best)/3
	require.Less(t, means["before"], good)
	require.Less(t, means["during"], (second+1)/2, "keeps trusting a model that fails")
	require.Less(t, means["after"], good, "does not come back to the best model")
}
