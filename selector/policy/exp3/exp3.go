// SPDX-License-Identifier: Apache-2.0

// Package exp3 asks one model and learns which one is the best: Exp3 (Auer, Cesa-Bianchi, Freund and
// Schapire, "The nonstochastic multiarmed bandit problem", 2002), as in section 5.1 of the Clipper
// paper.
//
// With weights s_i and K models, the probability of asking model i is
//
//	p_i = (1 − gamma) · s_i / Σ s + gamma / K
//
// and when the loss of the model asked is known,
//
//	s_i ← s_i · exp(−eta · loss / p_i).
//
// p_i is the probability at the time of the choice, however late the feedback comes. What is added
// to the log weights is this less the mean of the known losses times −eta, for every model, which
// changes no probability. When a query is looked at again with all models, each has p_i = 1.
//
// Regret against the best model, over T queries: at most ln K/eta + eta·K·T/2 + gamma·T in expectation.
//
// Parameters:
//
//	eta    learning rate, 0 to 10, default 0.05
//	gamma  share of the queries that explore evenly, 0 to 1, default 0.01
//	floor  the least that a learned weight may be, as a share of the best, 1e-9 to 1, default 0.0001.
//	       It bounds the time that a model which has failed needs to come back.
package exp3

import (
	"math"

	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/internal/hedge"
)

// Policy is Exp3.
type Policy struct {
	eta, gamma, gap float64
}

var _ policy.Policy = (*Policy)(nil)

var statistics = []string{hedge.Statistic}

// New returns the policy with the parameters of the package comment.
func New(parameters map[string]float64) (*Policy, error) {
	p, floor := &Policy{}, 0.0
	err := policy.Read(parameters,
		policy.Parameter{Name: "eta", Default: 0.05, Min: 0, Max: 10, Value: &p.eta},
		policy.Parameter{Name: "gamma", Default: 0.01, Min: 0, Max: 1, Value: &p.gamma},
		policy.Parameter{Name: "floor", Default: 0.0001, Min: 1e-9, Max: 1, Value: &floor},
	)
	p.gap = -math.Log(floor)
	return p, err
}

// Statistics implements [policy.Policy].
func (p *Policy) Statistics() []string { return statistics }

// Shares implements [policy.Policy].
func (p *Policy) Shares(s *policy.State, dst []float64) { hedge.Shares(s, p.gap, dst) }

// Probabilities implements [policy.Policy].
func (p *Policy) Probabilities(s *policy.State, dst []float64) {
	hedge.Shares(s, p.gap, dst)
	n := 0
	for _, prior := range s.Priors {
		if prior > 0 {
			n++
		}
	}
	for i, prior := range s.Priors {
		if prior > 0 {
			dst[i] = (1-p.gamma)*dst[i] + p.gamma/float64(n)
		}
	}
}

// Select implements [policy.Policy].
func (p *Policy) Select(s *policy.State, q *policy.Query, dst []policy.Choice) []policy.Choice {
	var buffer [policy.MaxModels]float64
	probabilities := buffer[:len(s.Priors)]
	p.Probabilities(s, probabilities)
	i := policy.Draw(q.Random, probabilities)
	return append(dst, policy.Choice{Model: i, Propensity: min(probabilities[i], 1)})
}

// Combine implements [policy.Policy]: the answer is the prediction of the model that was asked.
func (p *Policy) Combine(s *policy.State, t policy.Task, choices []policy.Choice, predictions []policy.Value, dst []float64) policy.Combined {
	return policy.Vote(t, s.Priors, choices, predictions, dst)
}

// Observe implements [policy.Policy].
func (p *Policy) Observe(s *policy.State, o policy.Observation, dst []float64) {
	clear(dst)
	mean, n := hedge.Mean(s, o)
	if n == 0 {
		return
	}
	for i, prior := range s.Priors {
		if prior > 0 {
			dst[i] = p.eta * mean
		}
	}
	for i, c := range o.Choices {
		if o.Losses[i] >= 0 && s.Priors[c.Model] > 0 {
			dst[c.Model] -= p.eta * o.Losses[i] / c.Propensity
		}
	}
	hedge.Limit(s, p.gap, dst)
}
