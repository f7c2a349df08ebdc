// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/clipper-serving/clipper/selector/policy"
)

func TestDecided(t *testing.T) {
	label, number := policy.Task{Kind: policy.Label}, policy.Task{Kind: policy.Number, Min: 0, Max: 1}
	one, two, no := policy.Integer(1), policy.Integer(2), policy.Value{}
	quarters := []float64{.25, .25, .25, .25}
	for _, test := range []struct {
		name        string
		task        policy.Task
		threshold   float64
		weights     []float64
		predictions []policy.Value
		pending     []int
		want        bool
	}{
		{"all are there", label, 0, quarters, []policy.Value{one, one, two, two}, nil, true},
		{"those that failed do not come", label, 0.9, quarters, []policy.Value{one, no, no, no}, nil, true},
		{"nobody is there", label, 0, quarters, []policy.Value{no, no, no, no}, []int{0, 1, 2, 3}, false},
		{"three of four", label, 0, quarters, []policy.Value{one, one, one, no}, []int{3}, true},
		{"an unknown label could be as many, and smaller", label, 0, quarters, []policy.Value{one, one, no, no}, []int{2, 3}, false},
		{"the tie goes to the smaller, which leads", label, 0, quarters, []policy.Value{one, one, two, no}, []int{3}, true},
		{"the tie goes to the smaller, which follows", label, 0, quarters, []policy.Value{two, two, one, no}, []int{3}, false},
		{"as many fail as could still change it", label, 0, quarters, []policy.Value{one, one, no, no}, []int{3}, true},
		{"one that outweighs the others", label, 0, []float64{.1, .1, .1, .7}, []policy.Value{one, one, one, no}, []int{3}, false},
		{"one that outweighs the others came first", label, 0, []float64{.1, .1, .1, .7}, []policy.Value{no, no, no, two}, []int{0, 1, 2}, true},
		{"the threshold is not reached yet", label, 0.8, quarters, []policy.Value{one, one, one, no}, []int{3}, false},
		{"the threshold is reached", label, 0.7, quarters, []policy.Value{one, one, one, no}, []int{3}, true},
		{"on the threshold, but for rounding", label, 0.75, quarters, []policy.Value{one, one, one, no}, []int{3}, false},
		{"no label can reach the threshold", label, 0.9, quarters, []policy.Value{one, one, two, no}, []int{3}, true},
		{"a label can reach the threshold", label, 0.75, quarters, []policy.Value{one, one, two, no}, []int{3}, false},
		{"numbers", number, 0, quarters, []policy.Value{policy.Real(0), policy.Real(0), policy.Real(0), no}, []int{3}, false},
		{"all numbers", number, 0, quarters, []policy.Value{policy.Real(0), policy.Real(0), policy.Real(0), no}, nil, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			choices, pending := make([]policy.Choice, 4), make([]bool, 4)
			for i := range choices {
				choices[i].Model = i
			}
			for _, i := range test.pending {
				pending[i] = true
			}
			require.Equal(t, test.want, policy.Decided(test.task, test.threshold, test.weights, choices, test.predictions, pending))
		})
	}
}

// TestDecided_vote tries every completion with the labels that were said, a smaller and a larger one,
// and none: an answer that is decided stays, and one that is not decided can become another one.
func TestDecided_vote(t *testing.T) {
	label := policy.Task{Kind: policy.Label}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(t, "models")
		threshold := rapid.SampledFrom([]float64{0, 0.3, 0.55, 0.9}).Draw(t, "threshold")
		weights, choices := make([]float64, n), make([]policy.Choice, n)
		predictions, pending := make([]policy.Value, n), make([]bool, n)
		var open []int
		for i := range n {
			weights[i] = rapid.Float64Range(0.01, 1).Draw(t, "weight")
			choices[i].Model = i
			switch rapid.IntRange(0, 4).Draw(t, "prediction") {
			case 0:
				pending[i] = true
				open = append(open, i)
			case 1: // It has failed.
			default:
				predictions[i] = policy.Integer(rapid.Int64Range(1, 2).Draw(t, "label"))
			}
		}
		early := policy.Vote(label, weights, choices, predictions, nil)
		stays := true
		final := append([]policy.Value(nil), predictions...)
		var complete func(k int)
		complete = func(k int) {
			if k == len(open) {
				late := policy.Vote(label, weights, choices, final, nil)
				// Nothing to answer with is another reason for the default than a low confidence.
				same := late.Value.Missing() == early.Value.Missing() && (late.Confidence < threshold) == (early.Confidence < threshold) &&
					(late.Value.Equal(early.Value) || early.Confidence < threshold)
				stays = stays && same
				return
			}
			for _, v := range []policy.Value{{}, policy.Integer(0), policy.Integer(1), policy.Integer(2), policy.Integer(3)} {
				final[open[k]] = v
				complete(k + 1)
			}
		}
		complete(0)
		decided := policy.Decided(label, threshold, weights, choices, predictions, pending)
		if decided {
			require.True(t, stays)
			return
		}
		// A default that is certain while more is open than has come is not looked for.
		if early.Confidence >= threshold {
			require.False(t, stays)
		}
	})
}
