// SPDX-License-Identifier: Apache-2.0

package thompson_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/policytest"
	"github.com/clipper-serving/clipper/selector/policy/thompson"
)

func TestConformance(t *testing.T) {
	for name, gaussian := range map[string]float64{"beta": 0, "gaussian": 1} {
		t.Run(name, func(t *testing.T) {
			p, err := thompson.New(map[string]float64{"gaussian": gaussian})
			require.NoError(t, err)
			policytest.Conformance(t, p)
		})
	}
}

func BenchmarkPolicy(b *testing.B) {
	for name, gaussian := range map[string]float64{"beta": 0, "gaussian": 1} {
		b.Run(name, func(b *testing.B) {
			p, err := thompson.New(map[string]float64{"gaussian": gaussian})
			require.NoError(b, err)
			policytest.Benchmark(b, p)
		})
	}
}

func TestProbabilities(t *testing.T) {
	for _, test := range []struct {
		name               string
		priors, statistics []float64
		want               []float64
	}{
		// Two of one group have the weight of one.
		{"nothing known: by weight", []float64{0.25, 0.25, 0.5}, make([]float64, 6), []float64{0.25, 0.25, 0.5}},
		// P(Beta(2, 1) > Beta(1, 1)) is 2/3.
		{"one was right", []float64{0.5, 0.5}, []float64{1, 0, 0, 0}, []float64{2.0 / 3, 1.0 / 3}},
		{"the weight stays a factor", []float64{0.2, 0.8}, []float64{1, 0, 0, 0}, []float64{1.0 / 3, 2.0 / 3}},
		{"no part in it", []float64{0, 1}, []float64{9, 0, 9, 9}, []float64{0, 1}},
		// Half right in part is as good as half right.
		{"losses in part", []float64{0.5, 0.5}, []float64{2, 1, 2, 1}, []float64{0.5, 0.5}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := thompson.New(nil)
			require.NoError(t, err)
			got := make([]float64, len(test.priors))
			p.Probabilities(&policy.State{Priors: test.priors, Statistics: test.statistics}, got)
			require.InDeltaSlice(t, test.want, got, 2e-4)
		})
	}
}

// TestProbabilities_extremes says that no counts make nonsense.
func TestProbabilities_extremes(t *testing.T) {
	counts := []float64{0, 1e-300, 1e-9, 0.5, 3, 1e6, 1e9, 1e12, 1e15, 1e18}
	for _, gaussian := range []float64{0, 1} {
		p, err := thompson.New(map[string]float64{"gaussian": gaussian})
		require.NoError(t, err)
		for _, n := range counts {
			for _, m := range counts {
				for _, share := range []float64{0, 1e-9, 0.3, 1} {
					for _, other := range []float64{0, 1e-9, 0.3, 1} {
						s := &policy.State{Priors: []float64{0.5, 0.5}, Statistics: []float64{n, n * share, m, m * other}}
						got := make([]float64, 2)
						p.Probabilities(s, got)
						require.False(t, math.IsNaN(got[0]), "%v", s.Statistics)
						require.InDelta(t, 1, got[0]+got[1], 1e-9, "%v", s.Statistics)
					}
				}
			}
		}
	}
}
