// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/selector/policy"
)

// twoKinds keeps a log weight and a sum.
type twoKinds struct{ policy.Policy }

func (twoKinds) Statistics() []string { return []string{policy.LogWeight, "sum"} }

// TestDerive holds a context's state against the formula, for a statistic that is a log weight and one that
// is not.
func TestDerive(t *testing.T) {
	panel, ok := policy.NewPanel(twoKinds{}, []policy.Member{{Weight: 1}})
	require.True(t, ok)
	sums := func(observations, logWeight, sum float64) *policy.Sums {
		return &policy.Sums{Observations: observations, Statistics: []float64{logWeight, sum}}
	}
	var state policy.State
	for _, test := range []struct {
		name        string
		weight      float64
		own, shared *policy.Sums
		want        []float64
	}{
		{"nothing is known", 10, nil, nil, []float64{0, 0}},
		{"the shared state is not known", 10, sums(3, -1, 3), nil, []float64{-1, 3}},
		{"new", 10, nil, sums(100, -6, 80), []float64{-6, 8}},
		{"new, of few observations", 10, sums(0, 0, 0), sums(4, -6, 3), []float64{-6, 3}},
		{"as many as the prior", 10, sums(10, -2, 5), sums(110, -6, 85), []float64{-4, 13}},
		{"many", 10, sums(90, -2, 40), sums(190, -6, 120), []float64{-2.4, 48}},
		{"the only context", 10, sums(30, -2, 7), sums(30, -2, 7), []float64{-2, 7}},
		{"the shared copy is behind", 10, sums(30, -2, 7), sums(29, -1.9, 6), []float64{-2, 7}},
		{"no prior", -1, sums(1, -2, 1), sums(100, -6, 80), []float64{-2, 1}},
	} {
		panel.Derive(test.own, test.shared, test.weight, &state)
		require.InDeltaSlice(t, test.want, state.Statistics, 1e-12, test.name)
		require.Equal(t, []float64{1}, state.Priors)
	}
}
