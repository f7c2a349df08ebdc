// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/exp4"
	"github.com/clipper-serving/clipper/selector/policy/policies"
	"github.com/clipper-serving/clipper/selector/policy/single"
)

func TestTask_Loss(t *testing.T) {
	label := policy.Task{Kind: policy.Label}
	number := policy.Task{Kind: policy.Number, Min: -10, Max: 10}
	scores := policy.Task{Kind: policy.Scores}
	zeroOne := policy.Task{Kind: policy.Scores, Measure: policy.ZeroOne}
	absolute := policy.Task{Kind: policy.Scores, Measure: policy.Absolute}
	logarithm := policy.Task{Kind: policy.Scores, Measure: policy.Log}
	for _, test := range []struct {
		name              string
		task              policy.Task
		truth, prediction policy.Value
		want              float64
	}{
		{"right", label, policy.Integer(3), policy.Integer(3), 0},
		{"wrong", label, policy.Integer(3), policy.Integer(4), 1},
		{"text", label, policy.Text("3"), policy.Text("3"), 0},
		{"text is no integer", label, policy.Text("3"), policy.Integer(3), 1},
		{"no prediction", label, policy.Integer(3), policy.Value{}, policy.Unknown},
		{"no truth", label, policy.Value{}, policy.Integer(3), policy.Unknown},
		{"number", number, policy.Real(5), policy.Real(0), 0.25},
		{"number far off", number, policy.Real(5), policy.Real(-1000), 1},
		{"number overflows", number, policy.Real(math.MaxFloat64), policy.Real(-math.MaxFloat64), 1},
		{"number and label", number, policy.Real(5), policy.Integer(5), policy.Unknown},
		{"class right", scores, policy.Integer(1), policy.Vector([]float64{.2, .5, .3}), 0},
		{"class wrong", scores, policy.Integer(0), policy.Vector([]float64{.2, .5, .3}), 1},
		{"largest score only", scores, policy.Integer(1), policy.TopClass(1), 0},
		{"list", scores, policy.Vector([]float64{0, 1, 0}), policy.Vector([]float64{.25, .5, .25}), 0.5},
		{"list not normalised", scores, policy.Vector([]float64{0, 9}), policy.Vector([]float64{9, 0}), 1},
		{"list of another length", scores, policy.Vector([]float64{0, 1}), policy.Vector([]float64{0, 1, 0}), policy.Unknown},
		{"list and largest score only", scores, policy.Vector([]float64{0, 1}), policy.TopClass(1), policy.Unknown},
		{"zero-one by list, right", zeroOne, policy.Vector([]float64{0, 1}), policy.Vector([]float64{.4, .6}), 0},
		{"zero-one by list, wrong", zeroOne, policy.Vector([]float64{1, 0}), policy.Vector([]float64{.4, .6}), 1},
		{"zero-one by list, largest score only", zeroOne, policy.Vector([]float64{1, 0}), policy.TopClass(1), 1},
		{"zero-one by list of another length", zeroOne, policy.Vector([]float64{1, 0}), policy.Vector([]float64{.2, .2, .6}), policy.Unknown},
		{"absolute by class", absolute, policy.Integer(1), policy.Vector([]float64{.2, .5, .3}), 0.5},
		{"absolute by class that is not there", absolute, policy.Integer(3), policy.Vector([]float64{.2, .5, .3}), policy.Unknown},
		{"absolute by class, largest score only", absolute, policy.Integer(1), policy.TopClass(1), policy.Unknown},
		{"log", logarithm, policy.Integer(1), policy.Vector([]float64{.2, .5, .3}), math.Log(2)},
		{"log, sure and right", logarithm, policy.Integer(1), policy.Vector([]float64{0, 1, 0}), 0},
		{"log, sure and wrong", logarithm, policy.Integer(0), policy.Vector([]float64{0, 1, 0}), 1},
		{"log is at most 1", logarithm, policy.Integer(0), policy.Vector([]float64{.2, .5, .3}), 1},
		{"log by list", logarithm, policy.Vector([]float64{.5, .5, 0}), policy.Vector([]float64{.5, .5, 0}), math.Log(2)},
		{"log of no probabilities", logarithm, policy.Integer(1), policy.Vector([]float64{-3, 12, 1}), 1},
		{"log of negative ones", logarithm, policy.Integer(1), policy.Vector([]float64{-1, 1, 1}), 1},
		{"log of rounded ones", logarithm, policy.Integer(0), policy.Vector([]float64{1.002, -0.001}), 0},
		{"log, largest score only", logarithm, policy.Integer(1), policy.TopClass(1), policy.Unknown},
		{"log by no class", logarithm, policy.Integer(-1), policy.Vector([]float64{.5, .5}), policy.Unknown},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.InDelta(t, test.want, test.task.Loss(test.truth, test.prediction), 1e-12)
		})
	}
}

func TestVote(t *testing.T) {
	weights := []float64{0.5, 0.3, 0.2}
	choices := []policy.Choice{{Model: 0}, {Model: 1}, {Model: 2}}
	label := policy.Task{Kind: policy.Label}
	number := policy.Task{Kind: policy.Number, Min: 0, Max: 10}
	scores := policy.Task{Kind: policy.Scores}
	none := policy.Value{}
	for _, test := range []struct {
		name        string
		task        policy.Task
		predictions []policy.Value
		want        policy.Value
		confidence  float64
	}{
		{"majority by weight", label, []policy.Value{policy.Integer(1), policy.Integer(2), policy.Integer(2)}, policy.Integer(1), 0.5},
		{"missing reduces", label, []policy.Value{none, policy.Integer(2), policy.Integer(2)}, policy.Integer(2), 0.5},
		{"all agree", label, []policy.Value{policy.Text("a"), policy.Text("a"), policy.Text("a")}, policy.Text("a"), 1},
		{"nobody", label, []policy.Value{none, none, none}, none, 0},
		{"mean", number, []policy.Value{policy.Real(0), policy.Real(10), policy.Real(10)}, policy.Real(5), 0.5},
		{"mean of those that came", number, []policy.Value{none, policy.Real(5), policy.Real(5)}, policy.Real(5), 0.5},
		{"scores", scores, []policy.Value{policy.Vector([]float64{1, 0}), policy.Vector([]float64{0, 1}), policy.Vector([]float64{0.25, 0.75})}, policy.Vector([]float64{0.55, 0.45}), 0.5},
		{"scores of another length", scores, []policy.Value{policy.Vector([]float64{1, 0}), policy.Vector([]float64{0, 1, 0}), none}, policy.Vector([]float64{1, 0}), 0.5},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := policy.Vote(test.task, weights, choices, test.predictions, nil)
			require.InDelta(t, test.confidence, got.Confidence, 1e-12)
			require.True(t, test.want.Equal(got.Value), "%v", got.Value)
			wantNumber, _ := test.want.Real()
			gotNumber, _ := got.Value.Real()
			require.InDelta(t, wantNumber, gotNumber, 1e-12)
			wantScores, _ := test.want.Vector()
			gotScores, _ := got.Value.Vector()
			require.InDeltaSlice(t, wantScores, gotScores, 1e-12)
		})
	}
}

func TestVote_withoutWeight(t *testing.T) {
	got := policy.Vote(policy.Task{Kind: policy.Label}, []float64{1, 0, 0}, []policy.Choice{{Model: 0}, {Model: 1}, {Model: 2}},
		[]policy.Value{{}, policy.Integer(4), policy.Integer(4)}, nil)
	require.True(t, got.Value.Equal(policy.Integer(4)))
	require.InDelta(t, 2.0/3, got.Confidence, 1e-12)
}

func TestPanel(t *testing.T) {
	p, err := exp4.New(nil)
	require.NoError(t, err)
	panel, ok := policy.NewPanel(p, []policy.Member{
		{Weight: 2, Group: "trees"},
		{Weight: 1, Shadow: true},
		{Weight: 2, Group: "trees"},
		{Weight: 2},
		{Weight: 0},
	})
	require.True(t, ok)
	require.InDeltaSlice(t, []float64{0.25, 0, 0.25, 0.5, 0}, panel.Priors(), 1e-12, "a group counts once")

	s := &policy.State{Priors: panel.Priors(), Statistics: make([]float64, 5)}
	choices, answering := panel.Select(s, &policy.Query{}, nil)
	require.Equal(t, 3, answering)
	require.Equal(t, policy.Choice{Model: 1, Propensity: 1, Shadow: true}, choices[3])
	eligible, answering := panel.Eligible(s, nil)
	require.Equal(t, choices, eligible)
	require.Equal(t, 3, answering)
}

func TestPanel_withoutModel(t *testing.T) {
	_, ok := policy.NewPanel(single.Policy{}, []policy.Member{{Weight: 0}, {Weight: 1, Shadow: true}})
	require.False(t, ok)
}

func TestMeasure_Allows(t *testing.T) {
	for measure, kinds := range map[policy.Measure][]policy.Kind{
		0:               {policy.Label, policy.Number, policy.Scores},
		policy.ZeroOne:  {policy.Label, policy.Scores},
		policy.Absolute: {policy.Number, policy.Scores},
		policy.Log:      {policy.Scores},
		9:               nil,
	} {
		for _, kind := range []policy.Kind{policy.Label, policy.Number, policy.Scores} {
			require.Equal(t, slices.Contains(kinds, kind), measure.Allows(kind), "measure %d, kind %d", measure, kind)
		}
	}
}

// TestPanel_Eligible says that a query that is looked at again asks all whom some query may ask: also the models
// that a policy which learns would not ask now.
func TestPanel_Eligible(t *testing.T) {
	members := []policy.Member{{Weight: 1}, {Weight: 1, Shadow: true}, {Weight: 1}, {Weight: 0}}
	for name, want := range map[string][]int{"single": {0}, "static": {0, 2}, "ucb1": {0, 2}, "mean": {0, 2}} {
		p, err := policies.New(name, nil)
		require.NoError(t, err)
		panel, ok := policy.NewPanel(p, members)
		require.True(t, ok)
		s := &policy.State{Priors: panel.Priors(), Statistics: make([]float64, 4*len(p.Statistics()))}
		for i := range s.Statistics {
			s.Statistics[i] = float64(i)
		}
		choices, answering := panel.Eligible(s, nil)
		require.Equal(t, len(want), answering, name)
		for i, model := range append(want, 1) {
			require.Equal(t, policy.Choice{Model: model, Propensity: 1, Shadow: model == 1}, choices[i], name)
		}
	}
}
