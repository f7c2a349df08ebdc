// SPDX-License-Identifier: Apache-2.0

package policytest

import (
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/clipper-serving/clipper/selector/policy"
)

// decides says that an answer which is decided by the shares does not change, whatever comes later:
// neither its value nor on which side of the threshold its confidence is. It holds for every policy
// that combines by its shares, or asks one model.
func decides(t *rapid.T, p policy.Policy) {
	s := state(t, p)
	kind := kinds().Draw(t, "kind")
	choices := p.Select(s, query(p, rapid.Uint64().Draw(t, "seed")), nil)
	threshold := rapid.OneOf(rapid.Just(0.0), rapid.Just(0.5), rapid.Just(1.0), rapid.Float64Range(0, 1)).Draw(t, "threshold")
	weights := make([]float64, len(s.Priors))
	p.Shares(s, weights)

	predictions := make([]policy.Value, len(choices))
	pending := make([]bool, len(choices))
	for i := range predictions {
		if pending[i] = rapid.Bool().Draw(t, "pending"); !pending[i] {
			predictions[i] = value(t, kind)
		}
	}
	if !policy.Decided(task(kind), threshold, weights, choices, predictions, pending) {
		return
	}
	early := p.Combine(s, task(kind), choices, predictions, nil)
	for range 20 {
		final := make([]policy.Value, len(choices))
		copy(final, predictions)
		for i := range final {
			if pending[i] {
				final[i] = value(t, kind)
			}
		}
		late := p.Combine(s, task(kind), choices, final, nil)
		require.Equal(t, early.Confidence < threshold, late.Confidence < threshold, "the threshold %v: %v and %v", threshold, early, late)
		require.Equal(t, early.Value.Missing(), late.Value.Missing())
		if early.Confidence >= threshold {
			require.Equal(t, early.Value, late.Value)
		}
	}
}
