// SPDX-License-Identifier: Apache-2.0

// Package thompson asks each model as often as it is likely to be the best: Thompson sampling (Thompson,
// "On the likelihood that one unknown probability exceeds another in view of the evidence of two samples",
// 1933; Chapelle and Li, "An empirical evaluation of Thompson sampling", 2011).
//
// With n_i known losses of model i, whose sum is l_i, what is known of its mean reward is
//
//	Beta(1 + n_i − l_i, 1 + l_i)                       or, with gaussian = 1,
//	Normal((n_i − l_i) / (n_i + 1), 1 / (n_i + 1))
//
// as in Agrawal and Goyal, "Near-optimal regret bounds for Thompson sampling" (2017). A loss between 0 and
// 1 counts in part as right and in part as wrong, instead of being drawn to be one of them, as there; the mean is
// the same and the choice has less noise. With b_i, the probability that model i is the best, and
// weights w_i, the probability of asking it is
//
//	p_i = w_i · b_i / Σ w · b
//
// which, when all weights are equal, is the probability that its sample is the largest. So at first a model is
// asked by its weight, and models of a group, which share their chance to be the best, also share a weight.
//
// The choice is drawn from these p_i rather than by drawing samples, so the propensity is exactly the probability
// of the choice. b_i is an integral that is computed on a grid, see best; its error is below 0.01, mostly far
// below. It makes the policy differ from Thompson sampling by as little, and never makes the propensity wrong.
//
// Regret: for rewards of 0 and 1 with means drawn from the uniform distribution, at most √(½ K T ln K) in
// expectation for Beta (Russo and Van Roy, "An information-theoretic analysis of Thompson sampling", 2016);
// O(√(K T ln K)) for Gaussian (Agrawal and Goyal). Nothing is forgotten; see package tally.
//
// Parameters:
//
//	gaussian  0 for Beta, 1 for Gaussian, which explores more, default 0
package thompson

import (
	"fmt"

	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/internal/tally"
)

// Policy is Thompson sampling.
type Policy struct {
	gaussian bool
}

var _ policy.Policy = (*Policy)(nil)

// New returns the policy with the parameters of the package comment.
func New(parameters map[string]float64) (*Policy, error) {
	gaussian := 0.0
	err := policy.Read(parameters, policy.Parameter{Name: "gaussian", Default: 0, Min: 0, Max: 1, Value: &gaussian})
	if err == nil && gaussian != 0 && gaussian != 1 {
		err = &policy.ParameterError{Name: "gaussian", Problem: fmt.Sprintf("is %v, want 0 for Beta or 1 for Gaussian", gaussian)}
	}
	return &Policy{gaussian: gaussian == 1}, err
}

// mostKnown is how many losses a belief is of at most: with more, a float64 no longer tells its width.
const mostKnown = 1e9

// Statistics implements [policy.Policy].
func (p *Policy) Statistics() []string { return tally.Statistics }

// Shares implements [policy.Policy]: they are the probabilities.
func (p *Policy) Shares(s *policy.State, dst []float64) { p.Probabilities(s, dst) }

// Probabilities implements [policy.Policy].
func (p *Policy) Probabilities(s *policy.State, dst []float64) {
	var buffer [policy.MaxModels]belief
	beliefs := buffer[:0]
	for i, prior := range s.Priors {
		dst[i] = 0
		if prior > 0 {
			count, loss := tally.Of(s, len(tally.Statistics), i)
			if count > mostKnown {
				count, loss = mostKnown, loss/count*mostKnown
			}
			b := betaBelief(count-loss, loss)
			if p.gaussian {
				b = normalBelief(count-loss, loss)
			}
			b.model = i
			beliefs = append(beliefs, b)
		}
	}
	best(beliefs, dst)
	total := 0.0
	for i, prior := range s.Priors {
		dst[i] *= prior
		total += dst[i]
	}
	for i := range dst {
		dst[i] /= total
	}
}

// Select implements [policy.Policy].
func (p *Policy) Select(s *policy.State, q *policy.Query, dst []policy.Choice) []policy.Choice {
	var buffer [policy.MaxModels]float64
	probabilities := buffer[:len(s.Priors)]
	p.Probabilities(s, probabilities)
	return tally.Draw(q, probabilities, dst)
}

// Combine implements [policy.Policy]: the answer is the prediction of the model that was asked.
func (p *Policy) Combine(s *policy.State, t policy.Task, choices []policy.Choice, predictions []policy.Value, dst []float64) policy.Combined {
	return policy.Vote(t, s.Priors, choices, predictions, dst)
}

// Observe implements [policy.Policy].
func (p *Policy) Observe(s *policy.State, o policy.Observation, dst []float64) {
	clear(dst)
	tally.Observe(s, len(tally.Statistics), o, dst)
}
