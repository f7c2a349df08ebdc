// SPDX-License-Identifier: Apache-2.0

// Package simulation plays policies on streams of losses of which everything is known, and holds their
// regret against what is proven about it.
package simulation

import (
	"math"
	"math/rand/v2"

	"github.com/clipper-serving/clipper/selector/policy"
)

// Round is what a query of a stream is.
type Round struct {
	// Losses are those of each model, in [0, 1].
	Losses []float64
	// Means are what Losses are in expectation; nil when the losses are not drawn.
	Means []float64
	// Features are those of the input, as many as a contextual policy wants; nil when there are none.
	Features []float64
}

// Stream says what happens at each step.
type Stream func(step int, random *rand.Rand) Round

// drawn draws losses of 0 and 1 from their means.
func drawn(means []float64, random *rand.Rand) Round {
	losses := make([]float64, len(means))
	for i, mean := range means {
		if random.Float64() < mean {
			losses[i] = 1
		}
	}
	return Round{Losses: losses, Means: means}
}

// Stationary is a stream whose models are wrong with these probabilities.
func Stationary(errors ...float64) Stream {
	return func(_ int, random *rand.Rand) Round { return drawn(errors, random) }
}

// Switching is a stream in which the best model changes after each period.
func Switching(period int, good, bad float64, models int) Stream {
	return func(step int, random *rand.Rand) Round {
		errors := make([]float64, models)
		for i := range errors {
			errors[i] = bad
		}
		errors[step/period%models] = good
		return drawn(errors, random)
	}
}

// Failing is [Stationary], but from one step to another the model is always wrong.
func Failing(model, from, to int, errors ...float64) Stream {
	failed := append([]float64(nil), errors...)
	failed[model] = 1
	return func(step int, random *rand.Rand) Round {
		if step >= from && step < to {
			return drawn(failed, random)
		}
		return drawn(errors, random)
	}
}

// Trap is the stream for which following the best so far is the worst: of two models, the one that is
// ahead is wrong next.
func Trap() Stream {
	return func(step int, _ *rand.Rand) Round {
		switch {
		case step == 0:
			return Round{Losses: []float64{0.5, 0}}
		case step%2 == 1:
			return Round{Losses: []float64{0, 1}}
		}
		return Round{Losses: []float64{1, 0}}
	}
}

// Uniform is a stationary stream of models whose probabilities to be wrong are drawn at its first step.
func Uniform(models int) Stream {
	means := make([]float64, models)
	return func(step int, random *rand.Rand) Round {
		if step == 0 {
			for i := range means {
				means[i] = random.Float64()
			}
		}
		return drawn(means, random)
	}
}

// Linear is a stream whose models' rewards are linear in one feature, which is drawn evenly from −1 to 1: the first
// model is good where it is large, the second where it is small.
func Linear() Stream {
	return func(_ int, random *rand.Rand) Round {
		x := 2*random.Float64() - 1
		r := drawn([]float64{0.5 - 0.4*x, 0.5 + 0.4*x}, random)
		r.Features = []float64{x, 1}
		return r
	}
}

// Result is how a policy did on a stream.
type Result struct {
	// Loss is the sum of the losses of the answers.
	Loss float64
	// Models are the sums of the losses of each model.
	Models []float64
	// Expected is Loss with the mean of each loss in its place, where the policy asks one model.
	Expected float64
	// Oracle is the sum of the least mean at each step.
	Oracle float64
}

// Regret is the loss less that of the model that was the best in the end.
func (r Result) Regret() float64 {
	best := math.Inf(1)
	for _, l := range r.Models {
		best = min(best, l)
	}
	return r.Loss - best
}

// PseudoRegret is the expected loss less that of the model with the least mean at each step.
func (r Result) PseudoRegret() float64 { return r.Expected - r.Oracle }

// Play runs a policy on steps [0, steps) of a stream of numbers: the truth is 0 and a model's
// prediction is its loss, so that the loss of an average is the average of the losses, as the bounds
// assume. each, which may be nil, gets the loss of every answer.
func Play(p policy.Policy, stream Stream, steps int, seed uint64, each func(step int, loss float64)) Result {
	random := rand.New(rand.NewPCG(seed, 4))
	q := &policy.Query{Random: random}
	t := policy.Task{Kind: policy.Number, Min: 0, Max: 1}
	var s *policy.State
	var o policy.Observation
	var result Result
	var deltas []float64
	var predictions []policy.Value
	for step := range steps {
		round := stream(step, random)
		if s == nil {
			n := len(round.Losses)
			s = &policy.State{Priors: make([]float64, n), Statistics: make([]float64, n*len(p.Statistics()))}
			for i := range s.Priors {
				s.Priors[i] = 1 / float64(n)
			}
			result.Models, deltas = make([]float64, n), make([]float64, len(s.Statistics))
		}
		q.Features, o.Features = round.Features, round.Features
		o.Choices, o.Losses, predictions = p.Select(s, q, o.Choices[:0]), o.Losses[:0], predictions[:0]
		for _, c := range o.Choices {
			predictions = append(predictions, policy.Real(round.Losses[c.Model]))
			o.Losses = append(o.Losses, round.Losses[c.Model])
		}
		loss := t.Loss(policy.Real(0), p.Combine(s, t, o.Choices, predictions, nil).Value)
		result.add(round, loss, o.Choices)
		if each != nil {
			each(step, loss)
		}
		p.Observe(s, o, deltas)
		for i, d := range deltas {
			s.Statistics[i] += d
		}
	}
	return result
}

func (r *Result) add(round Round, loss float64, choices []policy.Choice) {
	r.Loss += loss
	for i, l := range round.Losses {
		r.Models[i] += l
	}
	if round.Means == nil || len(choices) != 1 {
		return
	}
	best := math.Inf(1)
	for _, mean := range round.Means {
		best = min(best, mean)
	}
	r.Expected += round.Means[choices[0].Model]
	r.Oracle += best
}
