// SPDX-License-Identifier: Apache-2.0

package majority_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/majority"
	"github.com/clipper-serving/clipper/selector/policy/policytest"
)

func TestConformance(t *testing.T) {
	p, err := majority.New(nil)
	require.NoError(t, err)
	policytest.Conformance(t, p)
}

func BenchmarkPolicy(b *testing.B) {
	p, err := majority.New(nil)
	require.NoError(b, err)
	policytest.Benchmark(b, p)
}

func TestCombine(t *testing.T) {
	p, err := majority.New(nil)
	require.NoError(t, err)
	s := &policy.State{Priors: []float64{0.4, 0.2, 0.2, 0.2}}
	choices := []policy.Choice{{Model: 0, Propensity: 1}, {Model: 1, Propensity: 1}, {Model: 2, Propensity: 1}, {Model: 3, Propensity: 1}}
	none, vector := policy.Value{}, func(xs ...float64) policy.Value { return policy.Vector(xs) }
	for _, test := range []struct {
		name        string
		kind        policy.Kind
		predictions []policy.Value
		want        policy.Value
		confidence  float64
	}{
		{"labels", policy.Label, []policy.Value{policy.Integer(1), policy.Integer(2), policy.Integer(2), policy.Integer(2)}, policy.Integer(2), 0.6},
		{"one that is far off changes nothing", policy.Number, []policy.Value{policy.Real(4), policy.Real(5), policy.Real(1e9), policy.Real(5)}, policy.Real(5), 0.4*0.9 + 0.4},
		{"half is enough", policy.Number, []policy.Value{policy.Real(4), none, none, policy.Real(8)}, policy.Real(4), 0.4 + 0.2*0.6},
		{"no number", policy.Number, []policy.Value{none, none, none, none}, none, 0},
		{"being sure does not count", policy.Scores, []policy.Value{vector(1, 0), vector(0.4, 0.6), vector(0.4, 0.6), vector(0.4, 0.6)}, vector(0.4, 0.6), 0.6},
		{"missing and of another length", policy.Scores, []policy.Value{none, vector(0.4, 0.6), vector(1), vector(0.9, 0.1)}, vector(0.5, 0.5), 0.2},
		{"no scores", policy.Scores, []policy.Value{none, none, none, none}, none, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := p.Combine(s, policy.Task{Kind: test.kind, Min: 0, Max: 10}, choices, test.predictions, nil)
			require.Equal(t, test.want.Missing(), got.Value.Missing())
			require.InDelta(t, test.confidence, got.Confidence, 1e-12)
			require.True(t, test.want.Equal(got.Value))
			want, _ := test.want.Real()
			number, _ := got.Value.Real()
			require.Equal(t, want, number)
			wantScores, _ := test.want.Vector()
			scores, _ := got.Value.Vector()
			require.InDeltaSlice(t, wantScores, scores, 1e-12)
		})
	}
}
