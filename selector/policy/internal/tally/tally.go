// SPDX-License-Identifier: Apache-2.0

// Package tally is what bandits for a stationary world learn from: of each model, how many of its
// losses are known, and their sum. Both only grow, whatever policy is learning, so that one such policy
// can take the place of another, or of any other policy, and go on from what is known.
//
// A count need not be whole: a context begins with a part of the shared sums. Nothing is forgotten.
package tally

import "github.com/clipper-serving/clipper/selector/policy"

// Names of the statistics. They are those that an application keeps of its models in any case.
const (
	Count = "count"
	Loss  = "loss"
)

// Statistics are the two columns of the state, which come first in the state of a policy that has more.
var Statistics = []string{Count, Loss}

// Of returns how many losses of a model are known, at least 0, and their sum, from 0 to the count. columns is
// how many statistics the policy has.
func Of(s *policy.State, columns, model int) (count, loss float64) {
	count = max(s.Statistics[model*columns], 0)
	return count, min(max(s.Statistics[model*columns+1], 0), count)
}

// Observe adds the losses that are known of models with a prior. It writes nothing else.
func Observe(s *policy.State, columns int, o policy.Observation, dst []float64) {
	for i, c := range o.Choices {
		if o.Losses[i] >= 0 && s.Priors[c.Model] > 0 {
			dst[c.Model*columns]++
			dst[c.Model*columns+1] += o.Losses[i]
		}
	}
}

// Best gives all to the model with the least mean loss; models that are equal share it in proportion to their
// priors. One loss of ½ is added to those that are known, so that a model of which nothing is known is
// neither the best nor the worst.
func Best(s *policy.State, columns int, dst []float64) {
	for i := range dst {
		count, loss := Of(s, columns, i)
		dst[i] = -(loss + 0.5) / (count + 1)
	}
	Largest(s, dst)
}

// Largest replaces values by 1 for the largest of a model with a prior and 0 for the others. Models that
// are equal share in proportion to their priors.
func Largest(s *policy.State, values []float64) {
	best, total := -1, 0.0
	for i, prior := range s.Priors {
		switch {
		case prior <= 0:
		case best < 0 || values[i] > values[best]:
			best, total = i, prior
		case values[i] == values[best]:
			total += prior
		}
	}
	if best < 0 {
		clear(values)
		return
	}
	most := values[best]
	for i, prior := range s.Priors {
		if prior > 0 && values[i] == most {
			values[i] = prior / total
		} else {
			values[i] = 0
		}
	}
}

// Explore mixes a share of the priors into probabilities.
func Explore(s *policy.State, epsilon float64, probabilities []float64) {
	for i, prior := range s.Priors {
		probabilities[i] = (1-epsilon)*probabilities[i] + epsilon*prior
	}
}

// Draw appends the one model that is chosen with the given probabilities to dst.
func Draw(q *policy.Query, probabilities []float64, dst []policy.Choice) []policy.Choice {
	i := policy.Draw(q.Random, probabilities)
	return append(dst, policy.Choice{Model: i, Propensity: min(probabilities[i], 1)})
}
