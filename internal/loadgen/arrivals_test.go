// SPDX-License-Identifier: Apache-2.0

package loadgen

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParseStages(t *testing.T) {
	for text, want := range map[string][]Stage{
		"100":               {{100, 100, 9 * time.Second}},
		"0..1e3":            {{0, 1000, 9 * time.Second}},
		"1,2, 3":            {{1, 1, 3 * time.Second}, {2, 2, 3 * time.Second}, {3, 3, 3 * time.Second}},
		"1..5@1m,5@10s":     {{1, 5, time.Minute}, {5, 5, 10 * time.Second}},
		"100@1s,200,300@2s": {{100, 100, time.Second}, {200, 200, 9 * time.Second}, {300, 300, 2 * time.Second}},
	} {
		got, err := ParseStages(text, 9*time.Second)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "fast", "0", "-1", "1..", "..1", "1@", "1@0s", "1@-1s", "NaN", "1e9", "Inf", "1,,2"} {
		_, err := ParseStages(text, time.Second)
		require.ErrorContains(t, err, "is no rate", text)
	}
}

func TestSchedule(t *testing.T) {
	const length = 40 * time.Second
	for _, a := range []Arrivals{Poisson, Constant, Bursty} {
		for name, tc := range map[string]struct {
			stages    []Stage
			want      float64
			firstHalf float64 // Its share.
		}{
			"level": {[]Stage{{500, 500, length}}, 20_000, 0.5},
			"ramp":  {[]Stage{{0, 1000, length}}, 20_000, 0.25},
			"down":  {[]Stage{{1000, 0, length}}, 20_000, 0.75},
			"steps": {[]Stage{{250, 250, length / 2}, {750, 750, length / 2}}, 20_000, 0.25},
		} {
			t.Run(string(a)+"/"+name, func(t *testing.T) {
				all := Moments(tc.stages, a, 1)
				require.True(t, slices.Equal(all, Moments(tc.stages, a, 1)), "the same seed")
				require.True(t, slices.IsSorted(all))
				require.Less(t, all[len(all)-1], length+time.Millisecond)
				// 400 phases of a burst: their mean length varies by 5 %.
				near := map[Arrivals]float64{Poisson: 0.03, Constant: 1e-3, Bursty: 0.15}[a]
				require.InEpsilon(t, tc.want, len(all), near)
				half := 0
				for _, at := range all {
					if at < length/2 {
						half++
					}
				}
				require.InDelta(t, tc.firstHalf, float64(half)/float64(len(all)), near)

				// The variance over the mean of the number in windows of 100 ms.
				if name != "level" {
					return
				}
				counts := make([]float64, length/(100*time.Millisecond))
				for _, at := range all {
					counts[at/(100*time.Millisecond)]++
				}
				mean, squares := 50.0, 0.0
				for _, c := range counts {
					squares += (c - mean) * (c - mean)
				}
				dispersion := squares / float64(len(counts)) / mean
				switch a {
				case Poisson:
					require.InDelta(t, 1, dispersion, 0.3)
				case Constant:
					require.Less(t, dispersion, 0.05)
				default:
					require.Greater(t, dispersion, 10.0)
				}
			})
		}
	}
}

func TestSchedule_constant(t *testing.T) {
	require.Equal(t, []time.Duration{250 * time.Millisecond, 750 * time.Millisecond}, Moments([]Stage{{2, 2, time.Second}}, Constant, 1))
}
