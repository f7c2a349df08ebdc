// SPDX-License-Identifier: Apache-2.0

// Package mean asks all models and takes the average of what they say, numbers and scores, each
// by its weight: a linear opinion pool (Stone, "The opinion pool", 1961). Labels have no average: they are
// voted on by weight, as in package majority. It learns nothing.
package mean

import "github.com/clipper-serving/clipper/selector/policy"

// Policy averages.
type Policy struct{}

var _ policy.Policy = Policy{}

// New returns the policy. It has no parameters.
func New(parameters map[string]float64) (Policy, error) {
	return Policy{}, policy.Read(parameters)
}

// Statistics implements [policy.Policy].
func (Policy) Statistics() []string { return nil }

// Shares implements [policy.Policy]: they are the priors.
func (Policy) Shares(s *policy.State, dst []float64) { copy(dst, s.Priors) }

// Probabilities implements [policy.Policy]: every model with a prior is always asked.
func (Policy) Probabilities(s *policy.State, dst []float64) {
	for i, prior := range s.Priors {
		dst[i] = 0
		if prior > 0 {
			dst[i] = 1
		}
	}
}

// Select implements [policy.Policy].
func (Policy) Select(s *policy.State, _ *policy.Query, dst []policy.Choice) []policy.Choice {
	for i, prior := range s.Priors {
		if prior > 0 {
			dst = append(dst, policy.Choice{Model: i, Propensity: 1})
		}
	}
	return dst
}

// Combine implements [policy.Policy].
func (Policy) Combine(s *policy.State, t policy.Task, choices []policy.Choice, predictions []policy.Value, dst []float64) policy.Combined {
	return policy.Vote(t, s.Priors, choices, predictions, dst)
}

// Observe implements [policy.Policy].
func (Policy) Observe(_ *policy.State, _ policy.Observation, dst []float64) { clear(dst) }
