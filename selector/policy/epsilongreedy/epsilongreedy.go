// SPDX-License-Identifier: Apache-2.0

// Package epsilongreedy asks the model that has been the best so far, and sometimes another: epsilon-greedy
// (Watkins, "Learning from delayed rewards", 1989; analysed by Auer, Cesa-Bianchi and Fischer, "Finite-time
// analysis of the multiarmed bandit problem", 2002).
//
// With n_i known losses of model i, whose sum is l_i, and weights w_i, the probability of asking it is
//
//	p_i = epsilon · w_i + (1 − epsilon) · [i has the least (l_i + ½) / (n_i + 1)]
//
// and models that are equally good share by weight. So a weight says how often a model is tried, not how
// good it is held to be, and models of a group are tried as often as one.
//
// Regret against the best model grows with T for ever, since exploring goes on: about
// epsilon · T · the mean distance to the best. Nothing is forgotten; see package tally.
//
// Parameters:
//
//	epsilon  share of the queries that explore, 0 to 1, default 0.1
package epsilongreedy

import (
	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/internal/tally"
)

// Policy is epsilon-greedy.
type Policy struct {
	epsilon float64
}

var _ policy.Policy = (*Policy)(nil)

// New returns the policy with the parameters of the package comment.
func New(parameters map[string]float64) (*Policy, error) {
	p := &Policy{}
	return p, policy.Read(parameters, policy.Parameter{Name: "epsilon", Default: 0.1, Min: 0, Max: 1, Value: &p.epsilon})
}

// Statistics implements [policy.Policy].
func (p *Policy) Statistics() []string { return tally.Statistics }

// Shares implements [policy.Policy]: the best model has all.
func (p *Policy) Shares(s *policy.State, dst []float64) { tally.Best(s, len(tally.Statistics), dst) }

// Probabilities implements [policy.Policy].
func (p *Policy) Probabilities(s *policy.State, dst []float64) {
	tally.Best(s, len(tally.Statistics), dst)
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
