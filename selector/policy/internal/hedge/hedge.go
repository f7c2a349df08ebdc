// SPDX-License-Identifier: Apache-2.0

// Package hedge is exponential weights over additive log weights (Freund and Schapire, "A
// decision-theoretic generalization of on-line learning", 1997), with a bound on how far a model
// can fall behind.
//
// A model's share is prior · exp(ℓ), normalised, where ℓ is its learned log weight, taken to be at
// least the best model's less the gap. Adding the same number to every ℓ changes no share; so
// policies add losses relative to a mean, and a model that is new, with ℓ = 0, begins as an
// average one and not above all others.
package hedge

import (
	"math"

	"github.com/clipper-serving/clipper/selector/policy"
)

// Statistic is the name of the learned log weight. It is the only column of the state.
const Statistic = policy.LogWeight

// Shares writes the models' shares to dst.
func Shares(s *policy.State, gap float64, dst []float64) {
	best := best(s, s.Statistics)
	total := 0.0
	for i, prior := range s.Priors {
		dst[i] = 0
		if prior > 0 {
			dst[i] = prior * math.Exp(max(s.Statistics[i]-best, -gap))
			total += dst[i]
		}
	}
	for i := range dst {
		dst[i] /= total
	}
}

// Limit changes deltas such that after adding them no model is further behind the best than the
// gap. A model that is further behind already, which happens when instances add at the same time,
// is taken to be at the limit; it is not lifted for it, since all instances would.
func Limit(s *policy.State, gap float64, deltas []float64) {
	var buffer [policy.MaxModels]float64
	after := buffer[:len(deltas)]
	floor := best(s, s.Statistics) - gap
	for i, l := range s.Statistics {
		after[i] = max(l, floor) + deltas[i]
	}
	newFloor := best(s, after) - gap
	for i, l := range s.Statistics {
		if s.Priors[i] > 0 {
			deltas[i] = max(after[i], newFloor) - max(l, floor)
		}
	}
}

// best returns the largest of the log weights whose model has a prior.
func best(s *policy.State, logWeights []float64) float64 {
	m := math.Inf(-1)
	for i, prior := range s.Priors {
		if prior > 0 {
			m = max(m, logWeights[i])
		}
	}
	return m
}

// Mean returns the mean of the losses that are known of models that have a prior, and how many.
func Mean(s *policy.State, o policy.Observation) (mean float64, n int) {
	for i, c := range o.Choices {
		if o.Losses[i] >= 0 && s.Priors[c.Model] > 0 {
			mean += o.Losses[i]
			n++
		}
	}
	if n > 0 {
		mean /= float64(n)
	}
	return mean, n
}
