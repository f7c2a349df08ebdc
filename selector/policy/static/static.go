// SPDX-License-Identifier: Apache-2.0

// Package static asks one model at random, each with the probability of its weight: an A/B test, or
// a canary that gets one query in a hundred. It learns nothing.
package static

import "github.com/clipper-serving/clipper/selector/policy"

// Policy asks one model by weight.
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

// Probabilities implements [policy.Policy].
func (Policy) Probabilities(s *policy.State, dst []float64) { copy(dst, s.Priors) }

// Select implements [policy.Policy].
func (Policy) Select(s *policy.State, q *policy.Query, dst []policy.Choice) []policy.Choice {
	i := policy.Draw(q.Random, s.Priors)
	return append(dst, policy.Choice{Model: i, Propensity: s.Priors[i]})
}

// Combine implements [policy.Policy].
func (Policy) Combine(s *policy.State, t policy.Task, choices []policy.Choice, predictions []policy.Value, dst []float64) policy.Combined {
	return policy.Vote(t, s.Priors, choices, predictions, dst)
}

// Observe implements [policy.Policy].
func (Policy) Observe(_ *policy.State, _ policy.Observation, dst []float64) { clear(dst) }
