// SPDX-License-Identifier: Apache-2.0

// Package exp4 asks all models and combines them by weights that it learns: the ensemble of section
// 5.2 of the Clipper paper, which is Exp4 (Auer, Cesa-Bianchi, Freund and Schapire, "The nonstochastic
// multiarmed bandit problem", 2002) with every model's loss observed, that is, exponential
// weights.
//
// With weights s_i, labels are combined by weighted vote and numbers and scores by weighted average.
// When the losses are known,
//
//	s_i ← s_i · exp(−eta · loss_i).
//
// What is added to the log weights is −eta · (loss_i − the mean of the known losses), which changes
// no share. So a model whose prediction is missing is treated as an average one.
//
// Regret against the best model, over T queries: at most ln K/eta + eta·T/8 for the weighted average
// under the absolute loss.
//
// Parameters:
//
//	eta    learning rate, 0 to 10, default 0.2
//	floor  the least that a learned weight may be, as a share of the best, 1e-9 to 1, default 0.001.
//	       It bounds the time that a model which has failed needs to come back.
package exp4

import (
	"math"

	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/internal/hedge"
)

// Policy is Exp4.
type Policy struct {
	eta, gap float64
}

var _ policy.Policy = (*Policy)(nil)

var statistics = []string{hedge.Statistic}

// New returns the policy with the parameters of the package comment.
func New(parameters map[string]float64) (*Policy, error) {
	p, floor := &Policy{}, 0.0
	err := policy.Read(parameters,
		policy.Parameter{Name: "eta", Default: 0.2, Min: 0, Max: 10, Value: &p.eta},
		policy.Parameter{Name: "floor", Default: 0.001, Min: 1e-9, Max: 1, Value: &floor},
	)
	p.gap = -math.Log(floor)
	return p, err
}

// Statistics implements [policy.Policy].
func (p *Policy) Statistics() []string { return statistics }

// Shares implements [policy.Policy].
func (p *Policy) Shares(s *policy.State, dst []float64) { hedge.Shares(s, p.gap, dst) }

// Probabilities implements [policy.Policy]: every model with a prior is always asked.
func (p *Policy) Probabilities(s *policy.State, dst []float64) {
	for i, prior := range s.Priors {
		dst[i] = 0
		if prior > 0 {
			dst[i] = 1
		}
	}
}

// Select implements [policy.Policy].
func (p *Policy) Select(s *policy.State, _ *policy.Query, dst []policy.Choice) []policy.Choice {
	for i, prior := range s.Priors {
		if prior > 0 {
			dst = append(dst, policy.Choice{Model: i, Propensity: 1})
		}
	}
	return dst
}

// Combine implements [policy.Policy].
func (p *Policy) Combine(s *policy.State, t policy.Task, choices []policy.Choice, predictions []policy.Value, dst []float64) policy.Combined {
	var buffer [policy.MaxModels]float64
	shares := buffer[:len(s.Priors)]
	hedge.Shares(s, p.gap, shares)
	return policy.Vote(t, shares, choices, predictions, dst)
}

// Observe implements [policy.Policy].
func (p *Policy) Observe(s *policy.State, o policy.Observation, dst []float64) {
	clear(dst)
	mean, n := hedge.Mean(s, o)
	if n == 0 {
		return
	}
	for i, c := range o.Choices {
		if o.Losses[i] >= 0 && s.Priors[c.Model] > 0 {
			dst[c.Model] = -p.eta * (o.Losses[i] - mean)
		}
	}
	hedge.Limit(s, p.gap, dst)
}
