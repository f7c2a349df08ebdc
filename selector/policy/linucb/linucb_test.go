// SPDX-License-Identifier: Apache-2.0

package linucb_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/linucb"
	"github.com/clipper-serving/clipper/selector/policy/policytest"
)

func TestConformance(t *testing.T) {
	for name, parameters := range map[string]map[string]float64{
		"certain": nil, "exploring": {"epsilon": 0.1, "dimension": 1}, "large": {"dimension": 12},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := linucb.New(parameters)
			require.NoError(t, err)
			policytest.Conformance(t, p)
		})
	}
}

func BenchmarkPolicy(b *testing.B) {
	for name, dimension := range map[string]float64{"8": 8, "32": 32} {
		b.Run(name, func(b *testing.B) {
			p, err := linucb.New(map[string]float64{"dimension": dimension})
			require.NoError(b, err)
			policytest.Benchmark(b, p)
		})
	}
}

// TestObserve_formula holds the choice against the formula, computed by hand for two features: the number
// and the constant.
func TestObserve_formula(t *testing.T) {
	p, err := linucb.New(map[string]float64{"dimension": 1, "alpha": 1})
	require.NoError(t, err)
	require.Equal(t, []string{"count", "loss", "gram1_0_0", "gram1_1_0", "gram1_1_1", "reward1_0", "reward1_1"}, p.Statistics())
	s := &policy.State{Priors: []float64{0.5, 0.5}, Statistics: make([]float64, 14)}
	deltas := make([]float64, 14)
	p.Observe(s, policy.Observation{
		Choices: []policy.Choice{{Model: 1, Propensity: 1}}, Losses: []float64{0.25}, Features: []float64{0.5, 1},
	}, deltas)
	require.Equal(t, []float64{0, 0, 0, 0, 0, 0, 0, 1, 0.25, 0.25, 0.5, 1, 0.375, 0.75}, deltas)
	s.Statistics = deltas

	// Model 0 has the bound |x|. A of model 1 is [[1.25, .5], [.5, 2]], its inverse [[2, -.5], [-.5, 1.25]] / 2.25 and
	// θ = (.375, .75) / 2.25. So at x = (0, 1) its bound is .75/2.25 + √(1.25/2.25) = 1.0787, above 1.
	for _, test := range []struct {
		alpha float64
		x     []float64
		want  int
	}{
		{1, []float64{0, 1}, 1},
		{1, []float64{-1, 1}, 1}, // .375/2.25 + √(4.25/2.25) = 1.541, above √2
		{1, []float64{1, 1}, 1},  // 1.125/2.25 + √(2.25/2.25) = 1.5, above √2
		{10, []float64{1, 1}, 0}, // .5 + 10 is below 10 √2
		{10, []float64{0, 1}, 0}, // .333 + 7.454 is below 10
	} {
		q, err := linucb.New(map[string]float64{"dimension": 1, "alpha": test.alpha})
		require.NoError(t, err)
		got := make([]float64, 2)
		q.ProbabilitiesFor(s, test.x, got)
		require.Equal(t, 1.0, got[test.want], "alpha %v, x %v: %v", test.alpha, test.x, got)
	}
}

// TestObserve_otherFeatures says that what another policy saw teaches the counts only.
func TestObserve_otherFeatures(t *testing.T) {
	p, err := linucb.New(map[string]float64{"dimension": 1})
	require.NoError(t, err)
	s := &policy.State{Priors: []float64{1}, Statistics: make([]float64, 7)}
	for _, features := range [][]float64{nil, {1}, {0.1, 0.2, 1}} {
		deltas := make([]float64, 7)
		p.Observe(s, policy.Observation{Choices: []policy.Choice{{Propensity: 1}}, Losses: []float64{1}, Features: features}, deltas)
		require.Equal(t, []float64{1, 1, 0, 0, 0, 0, 0}, deltas)
	}
}

// TestLargest learns which of two models is good where the last of as many numbers as there may be is large.
func TestLargest(t *testing.T) {
	p, err := linucb.New(map[string]float64{"dimension": 32})
	require.NoError(t, err)
	require.Equal(t, 33, p.Dimension())
	columns := len(p.Statistics())
	require.Equal(t, 596, columns)
	s := &policy.State{Priors: []float64{0.5, 0.5}, Statistics: make([]float64, 2*columns)}
	deltas := make([]float64, 2*columns)
	features := func(last float64) []float64 {
		x := make([]float64, 33)
		x[31], x[32] = last, 1
		return x
	}
	for i := range 100 {
		last := float64(i%2)*2 - 1
		p.Observe(s, policy.Observation{
			Choices:  []policy.Choice{{Model: 0, Propensity: 1}, {Model: 1, Propensity: 1}},
			Losses:   []float64{(1 - last) / 2, (1 + last) / 2},
			Features: features(last),
		}, deltas)
		for k, d := range deltas {
			s.Statistics[k] += d
		}
	}
	got := make([]float64, 2)
	p.ProbabilitiesFor(s, features(1), got)
	require.Equal(t, []float64{1, 0}, got)
	p.ProbabilitiesFor(s, features(-1), got)
	require.Equal(t, []float64{0, 1}, got)
}
