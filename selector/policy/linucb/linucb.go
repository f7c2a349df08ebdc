// SPDX-License-Identifier: Apache-2.0

// Package linucb asks the model that may be the best for this input: LinUCB with a linear model of the reward for
// each model (Li, Chu, Langford and Schapire, "A contextual-bandit approach to personalized news article
// recommendation", 2010, algorithm 1).
//
// x is the query's features, of which the last is the constant 1. With the sums of model i over its known losses,
//
//	G_i = Σ x xᵀ    and    b_i = Σ (1 − loss) · x ,    A_i = ridge · I + G_i ,    θ_i = A_i⁻¹ b_i ,
//
// it asks the model with the largest
//
//	θ_i · x + alpha · √(xᵀ A_i⁻¹ x)
//
// and models that are equal are drawn by weight. Otherwise weights say nothing, and the models of a group are
// models of their own. G_i, of which the lower triangle is kept, and b_i are sums, so that feedback may come late, in
// any order, and to any instance. Feedback for an answer that was given under another policy, or another
// dimension, has no such features and teaches only the count and the loss of package tally.
//
// The choice is certain, so its propensity is 1 and that of every other model 0: what others would
// have answered cannot be estimated from the answers given. With epsilon > 0, that share of the queries explores
// by weight, and every propensity is positive.
//
// Regret: Õ(d √T) against the best choice for each input where rewards are linear in x (Abbasi-Yadkori, Pál and
// Szepesvári, "Improved algorithms for linear stochastic bandits", 2011, for alpha as there). Nothing is forgotten.
//
// A state has (dimension + 1)(dimension + 4)/2 + 2 sums for each model, 56 of dimension 8 and 596 of dimension 32.
//
// Parameters:
//
//	dimension  how many features are made of the input, a whole number from 1 to 32, default 8
//	alpha      width of the confidence bounds, 0 to 10, default 0.5
//	ridge      strength of the prior that rewards are 0, 0.001 to 1000, default 1
//	epsilon    share of the queries that explore, 0 to 1, default 0
package linucb

import (
	"fmt"
	"math"

	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/internal/tally"
)

// maxDimension is the most features, with the constant.
const maxDimension = 32 + 1

// Policy is LinUCB.
type Policy struct {
	d                     int // with the constant
	alpha, ridge, epsilon float64
	statistics            []string
}

var _ policy.Contextual = (*Policy)(nil)

// New returns the policy with the parameters of the package comment.
func New(parameters map[string]float64) (*Policy, error) {
	p, dimension := &Policy{}, 0.0
	err := policy.Read(parameters,
		policy.Parameter{Name: "dimension", Default: 8, Min: 1, Max: maxDimension - 1, Value: &dimension},
		policy.Parameter{Name: "alpha", Default: 0.5, Min: 0, Max: 10, Value: &p.alpha},
		policy.Parameter{Name: "ridge", Default: 1, Min: 0.001, Max: 1000, Value: &p.ridge},
		policy.Parameter{Name: "epsilon", Default: 0, Min: 0, Max: 1, Value: &p.epsilon},
	)
	if err != nil {
		return nil, err
	}
	if dimension != math.Trunc(dimension) {
		return nil, &policy.ParameterError{Name: "dimension", Problem: fmt.Sprintf("is %v, want a whole number from 1 to %d", dimension, maxDimension-1)}
	}
	p.d = int(dimension) + 1
	p.statistics = append(p.statistics, tally.Statistics...)
	// The features of another dimension are others, and so must be the names of their sums.
	for i := range p.d {
		for j := range i + 1 {
			p.statistics = append(p.statistics, fmt.Sprintf("gram%d_%d_%d", int(dimension), i, j))
		}
	}
	for i := range p.d {
		p.statistics = append(p.statistics, fmt.Sprintf("reward%d_%d", int(dimension), i))
	}
	return p, nil
}

// Dimension implements [policy.Contextual].
func (p *Policy) Dimension() int { return p.d }

// Statistics implements [policy.Policy].
func (p *Policy) Statistics() []string { return p.statistics }

// sums returns G and b of one model.
func (p *Policy) sums(statistics []float64, model int) (gram, rewards []float64) {
	columns := len(p.statistics)
	row := statistics[model*columns+len(tally.Statistics) : (model+1)*columns]
	return row[:len(row)-p.d], row[len(row)-p.d:]
}

// Shares implements [policy.Policy]: the model with the least mean loss over all inputs has all.
func (p *Policy) Shares(s *policy.State, dst []float64) { tally.Best(s, len(p.statistics), dst) }

// Probabilities implements [policy.Policy]: those of an input of which nothing is known but the constant.
func (p *Policy) Probabilities(s *policy.State, dst []float64) { p.ProbabilitiesFor(s, nil, dst) }

// ProbabilitiesFor implements [policy.Contextual].
func (p *Policy) ProbabilitiesFor(s *policy.State, features, dst []float64) {
	var constant [maxDimension]float64
	if len(features) != p.d {
		constant[p.d-1] = 1
		features = constant[:p.d]
	}
	for i, prior := range s.Priors {
		if prior > 0 {
			gram, rewards := p.sums(s.Statistics, i)
			dst[i] = p.bound(gram, rewards, features)
		}
	}
	tally.Largest(s, dst)
	tally.Explore(s, p.epsilon, dst)
}

// bound returns θ · x + alpha · √(xᵀ A⁻¹ x). With the Cholesky decomposition A = L Lᵀ, y = L⁻¹ x and z = L⁻¹ b it is
// z · y + alpha · |y|, and one pass makes a row of L and an element of y and z each.
func (p *Policy) bound(gram, b, x []float64) float64 {
	var lower [maxDimension * (maxDimension + 1) / 2]float64 // L, row by row
	var inverse, y, z [maxDimension]float64                  // inverse is 1 / L_ii
	mean, variance := 0.0, 0.0
	at := 0
	for i := range p.d {
		row := lower[at : at+i+1]
		from := 0
		for j := range i {
			sum := gram[at+j]
			for k, l := range lower[from : from+j] {
				sum -= row[k] * l
			}
			row[j] = sum * inverse[j]
			from += j + 1
		}
		pivot, right, reward := gram[at+i]+p.ridge, x[i], b[i]
		for k, l := range row[:i] {
			pivot -= l * l
			right -= l * y[k]
			reward -= l * z[k]
		}
		// It is at least the ridge but for rounding.
		inverse[i] = 1 / math.Sqrt(max(pivot, p.ridge))
		row[i] = 1 / inverse[i]
		y[i], z[i] = right*inverse[i], reward*inverse[i]
		mean += y[i] * z[i]
		variance += y[i] * y[i]
		at += i + 1
	}
	bound := mean + p.alpha*math.Sqrt(variance)
	if math.IsNaN(bound) { // Sums that are no sums of products: nothing is known.
		return 0
	}
	return bound
}

// Select implements [policy.Policy].
func (p *Policy) Select(s *policy.State, q *policy.Query, dst []policy.Choice) []policy.Choice {
	var buffer [policy.MaxModels]float64
	probabilities := buffer[:len(s.Priors)]
	p.ProbabilitiesFor(s, q.Features, probabilities)
	return tally.Draw(q, probabilities, dst)
}

// Combine implements [policy.Policy]: the answer is the prediction of the model that was asked.
func (p *Policy) Combine(s *policy.State, t policy.Task, choices []policy.Choice, predictions []policy.Value, dst []float64) policy.Combined {
	return policy.Vote(t, s.Priors, choices, predictions, dst)
}

// Observe implements [policy.Policy].
func (p *Policy) Observe(s *policy.State, o policy.Observation, dst []float64) {
	clear(dst)
	tally.Observe(s, len(p.statistics), o, dst)
	if len(o.Features) != p.d {
		return
	}
	for i, c := range o.Choices {
		if o.Losses[i] < 0 || s.Priors[c.Model] <= 0 {
			continue
		}
		gram, rewards := p.sums(dst, c.Model)
		at := 0
		for k, x := range o.Features {
			for _, y := range o.Features[:k+1] {
				gram[at] += x * y
				at++
			}
			rewards[k] += (1 - o.Losses[i]) * x
		}
	}
}
