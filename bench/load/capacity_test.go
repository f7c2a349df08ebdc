// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCapacity(t *testing.T) {
	for name, tc := range map[string]struct {
		truth, from float64
		probes      int
		want        float64 // 0 means within the precision
	}{
		"from below":     {truth: 1234, from: 10, probes: 30},
		"from above":     {truth: 1234, from: 1e5, probes: 30},
		"near":           {truth: 1234, from: 1200, probes: 10},
		"out of probes":  {truth: 1234, from: 400, probes: 2, want: 800},
		"nothing passes": {truth: 1, from: 1000, probes: 3, want: -1},
	} {
		t.Run(name, func(t *testing.T) {
			tried := 0
			got, at, err := Capacity(Search{From: tc.from, Step: 2, Precision: 0.02, Probes: tc.probes}, func(rate float64) (float64, bool, error) {
				tried++
				return rate, rate <= tc.truth, nil
			})
			require.NoError(t, err)
			require.LessOrEqual(t, tried, tc.probes)
			require.Equal(t, got, at, "the measurement is that of the best")
			switch {
			case tc.want > 0:
				require.Equal(t, tc.want, got)
			case tc.want < 0:
				require.Zero(t, got)
			default:
				require.LessOrEqual(t, got, tc.truth)
				require.Greater(t, 1.02*got, tc.truth)
			}
		})
	}
}

func TestCapacity_error(t *testing.T) {
	broken := errors.New("broken")
	_, _, err := Capacity(Search{From: 1, Step: 2, Probes: 3}, func(float64) (int, bool, error) { return 0, false, broken })
	require.ErrorIs(t, err, broken)
}
