// SPDX-License-Identifier: Apache-2.0

// Package majority asks all models and takes what most of them say (Condorcet, "Essai sur l'application
// de l'analyse à la probabilité des décisions rendues à la pluralité des voix", 1785). A model has as many
// votes as its weight; without weights all are equal. It learns nothing.
//
// A vote is for a label; with scores it is for the class of the largest, so that a model that is very sure
// counts no more than one that is not, and the answer's scores are the shares of the votes. Of
// numbers the answer is the weighted median, the generalisation of the majority to what has an order (Black,
// "On the rationale of group decision-making", 1948): the smallest number such that at least half of the votes
// are for it or a smaller one. So one model that is far off changes nothing, unlike in package mean.
package majority

import (
	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/mean"
)

// Policy counts votes. It asks whom package mean asks.
type Policy struct{ mean.Policy }

var _ policy.Policy = Policy{}

// New returns the policy. It has no parameters.
func New(parameters map[string]float64) (Policy, error) {
	return Policy{}, policy.Read(parameters)
}

// Combine implements [policy.Policy]. The confidence is the share of the votes that were asked for which
// agrees with the answer; as in [policy.Vote], numbers agree the more the nearer they are.
func (Policy) Combine(s *policy.State, t policy.Task, choices []policy.Choice, predictions []policy.Value, dst []float64) policy.Combined {
	switch t.Kind {
	case policy.Number:
		return median(s, t, choices, predictions)
	case policy.Scores:
		return plurality(s, choices, predictions, dst)
	}
	return policy.Vote(t, s.Priors, choices, predictions, dst)
}

// median is the weighted median of numbers.
func median(s *policy.State, t policy.Task, choices []policy.Choice, predictions []policy.Value) policy.Combined {
	asked, arrived := 0.0, 0.0
	for i, c := range choices {
		asked += s.Priors[c.Model]
		if _, ok := predictions[i].Real(); ok {
			arrived += s.Priors[c.Model]
		}
	}
	if arrived <= 0 {
		return policy.Combined{}
	}
	var answer policy.Value
	for _, candidate := range predictions { // There are few: no sorting.
		x, ok := candidate.Real()
		if least, found := answer.Real(); !ok || found && x >= least {
			continue
		}
		upTo := 0.0
		for i, c := range choices {
			if y, ok := predictions[i].Real(); ok && y <= x {
				upTo += s.Priors[c.Model]
			}
		}
		if upTo >= arrived/2-rounding {
			answer = candidate
		}
	}
	agreement := 0.0
	for i, c := range choices {
		if distance := t.Loss(answer, predictions[i]); distance >= 0 {
			agreement += s.Priors[c.Model] * (1 - distance)
		}
	}
	return policy.Combined{Value: answer, Confidence: min(agreement/asked, 1)}
}

// rounding keeps half of the votes half, in whatever order they are added.
const rounding = 1e-12

// plurality is the shares of the votes for each class. As in [policy.Vote], lists that are not as long as
// the first count as missing.
func plurality(s *policy.State, choices []policy.Choice, predictions []policy.Value, dst []float64) policy.Combined {
	asked, arrived, length, from := 0.0, 0.0, -1, len(dst)
	vote := func(i int) (class int, ok bool) {
		list, _ := predictions[i].Vector()
		if len(list) == 0 || length >= 0 && len(list) != length {
			return 0, false
		}
		length = len(list)
		return predictions[i].Class()
	}
	for i, c := range choices {
		asked += s.Priors[c.Model]
		if _, ok := vote(i); ok {
			arrived += s.Priors[c.Model]
		}
	}
	if arrived <= 0 {
		return policy.Combined{}
	}
	for range length {
		dst = append(dst, 0)
	}
	shares := dst[from:]
	for i, c := range choices {
		if class, ok := vote(i); ok {
			shares[class] += s.Priors[c.Model] / arrived
		}
	}
	answer := policy.Vector(shares)
	class, _ := answer.Class()
	return policy.Combined{Value: answer, Confidence: min(shares[class]*arrived/asked, 1)}
}
