// SPDX-License-Identifier: Apache-2.0

package ucb1_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/policytest"
	"github.com/clipper-serving/clipper/selector/policy/ucb1"
)

func TestConformance(t *testing.T) {
	for name, epsilon := range map[string]float64{"certain": 0, "exploring": 0.1} {
		t.Run(name, func(t *testing.T) {
			p, err := ucb1.New(map[string]float64{"epsilon": epsilon})
			require.NoError(t, err)
			policytest.Conformance(t, p)
		})
	}
}

func BenchmarkPolicy(b *testing.B) {
	p, err := ucb1.New(nil)
	require.NoError(b, err)
	policytest.Benchmark(b, p)
}

// TestProbabilities_formula holds the choice against the formula of the paper.
func TestProbabilities_formula(t *testing.T) {
	unknown := []float64{0, 0}
	for _, test := range []struct {
		name       string
		parameters map[string]float64
		statistics [][]float64 // count and loss of each model
		want       []float64
	}{
		{"what is not known is asked, by weight", nil, [][]float64{{9, 0}, unknown, unknown}, []float64{0, 0.6, 0.4}},
		// .5 + √(2 ln 108 / 100) = .806, .4 + √(2 ln 108 / 8) = 1.482 and nothing for a model without a weight.
		{"the bound counts", nil, [][]float64{{100, 50}, {8, 4.8}, {0.01, 0}}, []float64{0, 1, 0}},
		{"the bound is narrower", map[string]float64{"scale": 0.05}, [][]float64{{100, 50}, {8, 4.8}, {8, 4.8}}, []float64{1, 0, 0}},
		{"exploring is by weight", map[string]float64{"scale": 0, "epsilon": 0.5}, [][]float64{{100, 50}, {8, 4.8}, {8, 4.8}}, []float64{0.75, 0.15, 0.1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := ucb1.New(test.parameters)
			require.NoError(t, err)
			s := &policy.State{Priors: []float64{0.5, 0.3, 0.2}}
			if test.name == "the bound counts" {
				s.Priors = []float64{0.5, 0.5, 0}
			}
			for _, row := range test.statistics {
				s.Statistics = append(s.Statistics, row...)
			}
			got := make([]float64, 3)
			p.Probabilities(s, got)
			require.InDeltaSlice(t, test.want, got, 1e-12)
		})
	}
}
