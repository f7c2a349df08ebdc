// SPDX-License-Identifier: Apache-2.0

package custom

import "github.com/clipper-serving/clipper/selector/policy"

// Fallback is the policy that stands in for a custom one which does not answer, and what is known of one
// without asking it: every model with a weight is asked, and they are combined by these weights. It keeps the
// statistics of the custom policy, and adds nothing to them.
type Fallback struct{ statistics []string }

var _ policy.Policy = (*Fallback)(nil)

// NewFallback returns the stand-in of a policy that keeps these statistics.
func NewFallback(statistics []string) *Fallback { return &Fallback{statistics: statistics} }

// Statistics implements [policy.Policy].
func (f *Fallback) Statistics() []string { return f.statistics }

// Shares implements [policy.Policy].
func (*Fallback) Shares(s *policy.State, dst []float64) { copy(dst, s.Priors) }

// Probabilities implements [policy.Policy].
func (*Fallback) Probabilities(s *policy.State, dst []float64) {
	for i, prior := range s.Priors {
		dst[i] = 0
		if prior > 0 {
			dst[i] = 1
		}
	}
}

// Select implements [policy.Policy].
func (*Fallback) Select(s *policy.State, _ *policy.Query, dst []policy.Choice) []policy.Choice {
	for i, prior := range s.Priors {
		if prior > 0 {
			dst = append(dst, policy.Choice{Model: i, Propensity: 1})
		}
	}
	return dst
}

// Combine implements [policy.Policy].
func (*Fallback) Combine(s *policy.State, t policy.Task, choices []policy.Choice, predictions []policy.Value, dst []float64) policy.Combined {
	return policy.Vote(t, s.Priors, choices, predictions, dst)
}

// Observe implements [policy.Policy].
func (*Fallback) Observe(_ *policy.State, _ policy.Observation, dst []float64) { clear(dst) }
