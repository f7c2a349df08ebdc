// SPDX-License-Identifier: Apache-2.0

// Package single asks one model: the first that has a weight. It learns nothing.
package single

import "github.com/clipper-serving/clipper/selector/policy"

// Policy asks the first model.
type Policy struct{}

var _ policy.Policy = Policy{}

// New returns the policy. It has no parameters.
func New(parameters map[string]float64) (Policy, error) {
	return Policy{}, policy.Read(parameters)
}

// Statistics implements [policy.Policy].
func (Policy) Statistics() []string { return nil }

// Shares implements [policy.Policy]: the first model has all.
func (Policy) Shares(s *policy.State, dst []float64) {
	clear(dst)
	dst[first(s)] = 1
}

// Probabilities implements [policy.Policy].
func (p Policy) Probabilities(s *policy.State, dst []float64) { p.Shares(s, dst) }

// Select implements [policy.Policy].
func (Policy) Select(s *policy.State, _ *policy.Query, dst []policy.Choice) []policy.Choice {
	return append(dst, policy.Choice{Model: first(s), Propensity: 1})
}

// Combine implements [policy.Policy].
func (Policy) Combine(s *policy.State, t policy.Task, choices []policy.Choice, predictions []policy.Value, dst []float64) policy.Combined {
	return policy.Vote(t, s.Priors, choices, predictions, dst)
}

// Observe implements [policy.Policy].
func (Policy) Observe(_ *policy.State, _ policy.Observation, dst []float64) { clear(dst) }

func first(s *policy.State) int {
	for i, prior := range s.Priors {
		if prior > 0 {
			return i
		}
	}
	return 0
}
