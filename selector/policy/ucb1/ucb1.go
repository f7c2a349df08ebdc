// SPDX-License-Identifier: Apache-2.0

// Package ucb1 asks the model that may be the best as far as one can know: UCB1 (Auer, Cesa-Bianchi and
// Fischer, "Finite-time analysis of the multiarmed bandit problem", 2002).
//
// With n_i known losses of model i, whose sum is l_i, and N = Σ n, it asks the model with the largest
//
//	1 − l_i / n_i + scale · √(2 ln N / n_i)
//
// which is infinite while nothing is known of the model. Models that are equal are drawn by weight, so that the
// queries before the first feedback are spread over all. Otherwise weights say nothing, and the models of a
// group are models of their own.
//
// The choice is certain, so its propensity is 1 and that of every other model 0: what others would
// have answered cannot be estimated from the answers given. With epsilon > 0, that share of the queries
// explores by weight, every propensity is positive, and the regret grows by epsilon · T at most.
//
// Between a choice and its feedback nothing changes, so a model of which nothing is known is asked until
// its first feedback comes; of one that never answers it never comes. epsilon or another policy helps.
//
// Regret against the best model, over T queries whose feedback comes at once:
// at most Σ 8 ln T / Δ_i + (1 + π²/3) Σ Δ_i over the models that are worse by Δ_i. Nothing is forgotten; see
// package tally.
//
// Parameters:
//
//	scale    width of the confidence bounds, 0 to 10, default 1 as in the paper
//	epsilon  share of the queries that explore, 0 to 1, default 0
package ucb1

import (
	"math"

	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/internal/tally"
)

// Policy is UCB1.
type Policy struct {
	scale, epsilon float64
}

var _ policy.Policy = (*Policy)(nil)

// New returns the policy with the parameters of the package comment.
func New(parameters map[string]float64) (*Policy, error) {
	p := &Policy{}
	return p, policy.Read(parameters,
		policy.Parameter{Name: "scale", Default: 1, Min: 0, Max: 10, Value: &p.scale},
		policy.Parameter{Name: "epsilon", Default: 0, Min: 0, Max: 1, Value: &p.epsilon},
	)
}

// Statistics implements [policy.Policy].
func (p *Policy) Statistics() []string { return tally.Statistics }

// Shares implements [policy.Policy]: the model with the least mean loss has all.
func (p *Policy) Shares(s *policy.State, dst []float64) { tally.Best(s, len(tally.Statistics), dst) }

// Probabilities implements [policy.Policy].
func (p *Policy) Probabilities(s *policy.State, dst []float64) {
	columns, total := len(tally.Statistics), 0.0
	for i, prior := range s.Priors {
		if prior > 0 {
			count, _ := tally.Of(s, columns, i)
			total += count
		}
	}
	width := p.scale * math.Sqrt(2*math.Log(max(total, 1)))
	for i := range dst {
		dst[i] = math.Inf(1)
		if count, loss := tally.Of(s, columns, i); count > 0 {
			dst[i] = 1 - loss/count + width/math.Sqrt(count)
		}
	}
	tally.Largest(s, dst)
	tally.Explore(s, p.epsilon, dst)
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
