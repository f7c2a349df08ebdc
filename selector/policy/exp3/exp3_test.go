// SPDX-License-Identifier: Apache-2.0

package exp3_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/exp3"
	"github.com/clipper-serving/clipper/selector/policy/policytest"
)

func TestConformance(t *testing.T) {
	p, err := exp3.New(nil)
	require.NoError(t, err)
	policytest.Conformance(t, p)
}

func BenchmarkPolicy(b *testing.B) {
	p, err := exp3.New(nil)
	require.NoError(b, err)
	policytest.Benchmark(b, p)
}

func TestRecovery(t *testing.T) {
	p, err := exp3.New(nil)
	require.NoError(t, err)
	policytest.Recovery(t, p, 1000)
}

// TestObserve_formula holds what is added against the formula of the paper.
func TestObserve_formula(t *testing.T) {
	p, err := exp3.New(map[string]float64{"eta": 0.1, "gamma": 0})
	require.NoError(t, err)
	s := &policy.State{Priors: []float64{0.5, 0.25, 0.25}, Statistics: []float64{0, 0, 0}}
	deltas := make([]float64, 3)
	p.Observe(s, policy.Observation{Choices: []policy.Choice{{Model: 1, Propensity: 0.25}}, Losses: []float64{0.5}}, deltas)
	for i := range deltas {
		s.Statistics[i] += deltas[i]
	}
	got := make([]float64, 3)
	p.Shares(s, got)
	weights := []float64{0.5, 0.25 * math.Exp(-0.1*0.5/0.25), 0.25}
	sum := weights[0] + weights[1] + weights[2]
	require.InDeltaSlice(t, []float64{weights[0] / sum, weights[1] / sum, weights[2] / sum}, got, 1e-12)
}
