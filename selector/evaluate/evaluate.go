// SPDX-License-Identifier: Apache-2.0

// Package evaluate says what another policy would have earned on logged traffic.
//
// The reward of an answer is 1 − its loss. Decision t of the log asked model m with the propensity q_tm, which is
// known: 1 for every model of an ensemble and every shadow model. r_tm is the model's reward, known if it
// was asked and the truth, or a reward, came back. The target policy would ask model m with the probability
// p_tm. With Σ over the models whose reward is known,
//
//	IPS    mean of Σ p_tm/q_tm · r_tm
//	SNIPS  Σ_t Σ p_tm/q_tm · r_tm divided by Σ_t Σ p_tm/q_tm
//	DR     mean of Σ_all p_tm · g_tm + Σ p_tm/q_tm · (r_tm − g_tm)
//
// where g_tm is what a model of the rewards guesses: the mean of the model's rewards, or a ridge regression on the
// features when the log has them, always of the decisions before t alone. (Horvitz and Thompson, 1952; Swaminathan
// and Joachims, "The self-normalized estimator for counterfactual learning", 2015; Dudík, Langford and Li,
// "Doubly robust policy evaluation and learning", 2011.) IPS and DR have no bias as long as the log may ask whom the
// target asks. SNIPS has a small one and mostly less variance than IPS.
//
// The intervals hold the mean with 95 %: ± 1.96 standard errors, that of SNIPS by the delta method. p, g and
// the propensities of t depend on what was before t alone, so that the terms less their expectations are
// martingale differences, and the intervals are right, in the limit of many decisions, also when the log's
// policy learned and when the target does.
//
// # What is estimated
//
// A policy that learns nothing, or is frozen, has one value: the mean reward had it decided the logged queries. A
// policy that learns does so in the order of the log. When each decision asked every model for certain, as
// ensembles do, everything is known, and the estimate is an exact replay: the policy draws its choices, learns
// from them alone, and the mean is over the queries and some replays. Otherwise the policy learns from the choices
// of the log, with the propensities of the log, and is judged at each decision by what it has learned until then
// (progressive validation, nothing is rejected). So the estimate is of the mean of the values that the
// policy had at each moment, having learned from the log; not of a policy that had learned from its own choices,
// which nobody can know from the log.
//
// An ensemble can only be replayed: decisions that did not ask all of its models do not count.
//
// Decisions without feedback do not count either. The estimates are of the queries that have feedback; that is
// only the same if feedback is missing for reasons that have nothing to do with the reward.
package evaluate

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/selector/decisionlog"
	"github.com/clipper-serving/clipper/selector/policy"
)

// Options are how a policy is judged. The zero value lets it learn from nothing.
type Options struct {
	// Frozen is a state as a selector returns it, by which the target decides without learning; nil for a
	// policy that begins with nothing and learns.
	Frozen *clipperv1.GetSelectionStateResponse
	// Replays is how often an exact replay is repeated when the policy learns from its own choices; 0 means 10.
	Replays int
	// Seed is that of these choices.
	Seed uint64
}

// Names of the estimates.
const (
	Replay = "replay"
	IPS    = "ips"
	SNIPS  = "snips"
	DR     = "dr"
)

// Estimate is the mean reward, with an interval that holds the true one with 95 %.
type Estimate struct {
	Name          string  `json:"name"`
	Reward        float64 `json:"reward"`
	Lower         float64 `json:"lower"`
	Upper         float64 `json:"upper"`
	StandardError float64 `json:"standard_error"`
}

// Report is what a log says of a policy.
type Report struct {
	Application string `json:"application"`
	Policy      string `json:"policy"`
	// Learns is true when the policy learned in the order of the log.
	Learns bool `json:"learns"`
	// Exact is true when everything was known and the estimate is a replay.
	Exact bool `json:"exact"`
	// Decisions is how many the log has; Used, how many counted.
	Decisions int `json:"decisions"`
	Used      int `json:"used"`
	// Logged is what the answers that were given earned in the decisions that counted.
	Logged Estimate `json:"logged"`
	// Estimates are those of the target: the replay alone, or IPS, SNIPS and DR.
	Estimates []Estimate `json:"estimates"`
	// EffectiveSamples is how many decisions of the same weight would say as much.
	EffectiveSamples float64 `json:"effective_samples"`
	// LargestWeight is the largest p/q.
	LargestWeight float64 `json:"largest_weight"`
	// Unsupported is the share of the target's choices that are for models which the log never asked.
	Unsupported float64 `json:"unsupported"`
	// Warnings say why the estimates may be wrong or of little use.
	Warnings []string `json:"warnings"`
}

// ErrNothing says that the log does not say anything about the policy.
var ErrNothing = errors.New("the log says nothing about this policy")

// Run judges an application's policy, with its models and weights, by the decisions of a log of the application,
// in the order of their time. The application may be another than the one that was logged, as long as
// outputs are the same.
func Run(app *clipperv1.Application, decisions []decisionlog.Record, o Options) (*Report, error) {
	t, err := newTarget(app, o)
	if err != nil {
		return nil, err
	}
	samples, excluded := t.samples(decisions)
	r := &Report{
		Application: app.GetName(), Policy: app.GetPolicy().GetName(), Learns: o.Frozen == nil && len(t.policy.Statistics()) > 0,
		Decisions: len(decisions), Used: len(samples), Warnings: []string{},
	}
	if len(samples) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNothing, excluded.why(t, len(decisions)))
	}
	t.judge(samples, o, r)
	r.warn(t, excluded, o)
	if r.Unsupported > 0.99 {
		return nil, fmt.Errorf("%w: it asks models that the log never asked", ErrNothing)
	}
	return r, nil
}

// judge fills in the estimates.
func (t *target) judge(samples []sample, o Options, r *Report) {
	var sums sums
	r.Exact = t.exact(samples)
	if !r.Exact || !r.Learns || t.ensemble {
		t.walk(samples, nil, sums.add)
	} else {
		replays := o.Replays
		if replays <= 0 {
			replays = 10
		}
		mean := make([]term, len(samples))
		for replay := range replays {
			t.reset()
			t.walk(samples, rand.New(rand.NewPCG(o.Seed, uint64(replay))), func(i int, x term) { mean[i].merge(x, 1/float64(replays)) })
		}
		for i, x := range mean {
			sums.add(i, x)
		}
	}
	logged := make([]float64, 0, len(samples))
	for _, s := range samples {
		if s.reward >= 0 {
			logged = append(logged, s.reward)
		}
	}
	r.Logged = meanOf("logged", logged)
	sums.report(r)
}

// warn says what a reader of the report should know.
func (r *Report) warn(t *target, e excluded, o Options) {
	warn := func(format string, args ...any) { r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...)) }
	if r.Used < 100 {
		warn("only %d decisions count: the intervals are too narrow for so few", r.Used)
	}
	if e.silent*10 > r.Decisions {
		warn("%d of %d decisions have no feedback; the estimates are of those that have", e.silent, r.Decisions)
	}
	if e.unasked > 0 {
		warn("%d decisions did not ask all models of the ensemble and do not count", e.unasked)
	}
	if e.unknown > 0 {
		warn("of %d decisions the loss of a model that was asked is not known; they do not count", e.unknown)
	}
	if e.foreign > 0 {
		warn("%d decisions asked models that the policy may not ask, since the application does not have them", e.foreign)
	}
	if e.untrue > 0 && t.ensemble {
		warn("%d decisions have a reward and no truth: models that said something else than the answer count as wrong by the reward", e.untrue)
	}
	if t.contextual && e.featureless > 0 {
		warn("%d decisions have no features, since the log's policy wanted none: the policy sees the constant alone", e.featureless)
	}
	if r.Unsupported > 0 {
		warn("%.2g %% of the choices are for models that the log never asked: ips counts them as a reward of 0, snips leaves them out, dr guesses", 100*r.Unsupported)
	}
	if !r.Exact {
		enough := r.Used >= 100 // Else that was said.
		if enough && r.LargestWeight > 0.05*float64(r.Used) {
			warn("one decision has the weight %.3g, so much that the intervals cannot be trusted", r.LargestWeight)
		}
		if enough && (r.EffectiveSamples < 100 || r.EffectiveSamples < float64(r.Used)/20) {
			warn("the weights leave %.0f effective samples of %d decisions", r.EffectiveSamples, r.Used)
		}
		if r.Learns {
			warn("the policy learned from the choices of the log, not from its own")
		}
	}
	if o.Frozen != nil {
		warn("the state may have been learned from the very decisions that judge it, which flatters the policy")
		if e.contexts {
			warn("contexts are judged by the shared state")
		}
	}
}

// term is what one decision says.
type term struct {
	reward      float64 // Σ p/q · r
	weight      float64 // Σ p/q
	robust      float64 // Σ p · g + Σ p/q · (r − g)
	largest     float64 // the largest p/q
	unsupported float64
}

// merge adds a term with a weight.
func (t *term) merge(x term, weight float64) {
	t.reward += weight * x.reward
	t.weight += weight * x.weight
	t.robust += weight * x.robust
	t.largest = math.Max(t.largest, x.largest)
	t.unsupported += weight * x.unsupported
}

// unknown stands for a loss or a reward that is not known.
const unknown = policy.Unknown
