// SPDX-License-Identifier: Apache-2.0

package epsilongreedy_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/epsilongreedy"
	"github.com/clipper-serving/clipper/selector/policy/policytest"
)

func TestConformance(t *testing.T) {
	p, err := epsilongreedy.New(nil)
	require.NoError(t, err)
	policytest.Conformance(t, p)
}

func BenchmarkPolicy(b *testing.B) {
	p, err := epsilongreedy.New(nil)
	require.NoError(b, err)
	policytest.Benchmark(b, p)
}

func TestProbabilities_formula(t *testing.T) {
	p, err := epsilongreedy.New(map[string]float64{"epsilon": 0.2})
	require.NoError(t, err)
	for name, test := range map[string]struct{ statistics, want []float64 }{
		"nothing known":                 {[]float64{0, 0, 0, 0, 0, 0}, []float64{0.5, 0.3, 0.2}},
		"one is the best":               {[]float64{10, 4, 10, 3, 10, 5}, []float64{0.1, 0.86, 0.04}},
		"unknown is better than bad":    {[]float64{10, 6, 10, 7, 0, 0}, []float64{0.1, 0.06, 0.84}},
		"unknown is worse than good":    {[]float64{10, 4, 10, 7, 0, 0}, []float64{0.9, 0.06, 0.04}},
		"equal ones share by weight":    {[]float64{10, 4, 10, 4, 10, 5}, []float64{0.6, 0.36, 0.04}},
		"sums that overlap are bounded": {[]float64{-1, 4, 10, 40, 10, 5}, []float64{0.1 + 0.8*0.5/0.7, 0.06, 0.04 + 0.8*0.2/0.7}},
	} {
		t.Run(name, func(t *testing.T) {
			got := make([]float64, 3)
			p.Probabilities(&policy.State{Priors: []float64{0.5, 0.3, 0.2}, Statistics: test.statistics}, got)
			require.InDeltaSlice(t, test.want, got, 1e-12)
		})
	}
}
