// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// ask queries and tells the truth, so many times.
func (b *bench) ask(t testing.TB, times int, app, userContext string, label float64) {
	for range times {
		_, err := b.Feedback(t.Context(), truth(app, b.query(t, app, userContext).FeedbackId, label), nil)
		require.NoError(t, err)
	}
}

func (b *bench) setPolicy(t testing.TB, reset bool, name string, parameters map[string]float64) {
	_, err := b.admin.UpdateApplication(t.Context(), &clipperv1.UpdateApplicationRequest{
		Application: &clipperv1.Application{Name: "app", Policy: &clipperv1.Policy{Name: name, Parameters: parameters}}, ResetState: reset,
	})
	require.NoError(t, err)
}

// TestUpdateApplication_policy changes the policy of an application that has learned.
func TestUpdateApplication_policy(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 2}, "c": {label: 3}})
	app := minimal("app", "a", "b", "c")
	app.PriorWeight = 5
	b.create(t, app)
	b.ask(t, 20, "app", "", 2)
	b.ask(t, 10, "app", "ann", 3)
	before := b.state(t, "app", "")
	require.Equal(t, "exp4", before.Policy)
	require.Greater(t, weight(before, "b"), 0.8)
	late := b.query(t, "app", "").FeedbackId

	// A bandit knows at once whom to ask, from what all policies count.
	b.setPolicy(t, false, "epsilon-greedy", map[string]float64{"epsilon": 0.3})
	state := b.state(t, "app", "")
	require.Equal(t, "epsilon-greedy", state.Policy)
	require.Equal(t, 30.0, state.Observations, "what was observed stays observed")
	require.Equal(t, 10.0, state.Models[1].Statistics["loss"])
	require.InDelta(t, 0.8, state.Models[1].Probability, 1e-9, "1 - epsilon and its part of epsilon")
	require.InDelta(t, 0.8, b.state(t, "app", "ann").Models[2].Probability, 1e-9, "contexts keep theirs")

	// An answer of the policy before still teaches, all three models.
	f, err := b.Feedback(t.Context(), truth("app", late, 2), nil)
	require.NoError(t, err)
	require.Len(t, f.Losses, 3)
	state = b.state(t, "app", "")
	require.Equal(t, 31.0, state.Observations)
	for i, loss := range []float64{31, 10, 21} {
		require.Equal(t, 31.0, state.Models[i].Statistics["count"])
		require.Equal(t, loss, state.Models[i].Statistics["loss"])
	}

	// UCB1 and Thompson sampling go on from the same sums, and count one model for each answer.
	for i, name := range []string{"ucb1", "thompson"} {
		b.setPolicy(t, false, name, nil)
		require.Equal(t, 31.0+float64(i), b.state(t, "app", "").Observations)
		b.ask(t, 1, "app", "", 2)
		counts := 0.0
		for _, m := range b.state(t, "app", "").Models {
			counts += m.Statistics["count"]
		}
		require.Equal(t, 94.0+float64(i), counts)
	}

	// The log weights that exp4 left are still there, and exp3 reads the same.
	b.setPolicy(t, false, "exp3", nil)
	require.Greater(t, weight(b.state(t, "app", ""), "b"), 0.8)
	require.Equal(t, 33.0, b.state(t, "app", "").Observations)

	// Only a reset forgets: the shared state, that of contexts, and answers given before.
	late = b.query(t, "app", "").FeedbackId
	b.setPolicy(t, true, "exp3", nil)
	for _, userContext := range []string{"", "ann"} {
		state = b.state(t, "app", userContext)
		require.Zero(t, state.Observations)
		require.Zero(t, state.Models[1].Statistics["count"])
		require.InDelta(t, 1.0/3, state.Models[1].Weight, 1e-9)
	}
	_, err = b.Feedback(t.Context(), truth("app", late, 2), nil)
	requireError(t, err, codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_EXPIRED, "feedback_id")
	keys, err := b.deps.Sums.Keys(t.Context(), "selection/app/", "", 10)
	require.NoError(t, err)
	require.Empty(t, keys, "nothing is left behind")
	b.ask(t, 1, "app", "", 2)
	require.Equal(t, 1.0, b.state(t, "app", "").Observations)
}

// TestFeedback_propensityOfThen says that feedback for an answer of an earlier policy counts with the propensity
// that the model had then.
func TestFeedback_propensityOfThen(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 1}})
	app := minimal("app", "a", "b")
	app.Policy = &clipperv1.Policy{Name: "static"}
	app.Models[0].Weight, app.Models[1].Weight = 1, 3
	b.create(t, app)
	r := b.query(t, "app", "")
	asked, propensity := r.Predictions[0].Model, r.Predictions[0].Propensity
	require.Equal(t, map[string]float64{"a": 0.25, "b": 0.75}[asked], propensity)

	b.setPolicy(t, false, "exp3", map[string]float64{"eta": 0.1, "gamma": 1}) // of which all propensities are ½
	_, err := b.Feedback(t.Context(), truth("app", r.FeedbackId, 5), nil)
	require.NoError(t, err)
	state := b.state(t, "app", "")
	difference := state.Models[0].Statistics["log_weight"] - state.Models[1].Statistics["log_weight"]
	require.InDelta(t, 0.1/propensity, math.Abs(difference), 1e-9)
}

// TestQuery_linucb learns that a is right for one kind of inputs and b for the other.
func TestQuery_linucb(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 2}})
	app := minimal("app", "a", "b")
	app.Policy = &clipperv1.Policy{Name: "linucb", Parameters: map[string]float64{"dimension": 2, "epsilon": 0.2}}
	b.create(t, app)
	inputs := []*tensor.Input{
		tensor.FromTensors([]*clipperv1.Tensor{numberTensor(0.9, 0.1)}),
		tensor.FromTensors([]*clipperv1.Tensor{numberTensor(0.1, 0.9)}),
	}
	for i := range 200 {
		r, err := b.Query(t.Context(), "app", "", inputs[i%2])
		require.NoError(t, err)
		_, err = b.Feedback(t.Context(), truth("app", r.FeedbackId, float64(1+i%2)), nil)
		require.NoError(t, err)
	}
	for i, in := range inputs {
		for {
			r, err := b.Query(t.Context(), "app", "", in)
			require.NoError(t, err)
			require.Len(t, r.Predictions, 1)
			p := r.Predictions[0]
			if p.Propensity < 0.5 { // One of the queries that explore.
				require.InDelta(t, 0.1, p.Propensity, 1e-9)
				continue
			}
			require.InDelta(t, 0.9, p.Propensity, 1e-9)
			require.Equal(t, []string{"a", "b"}[i], p.Model)
			break
		}
	}
	// By input, both models are asked and learned about with the same features.
	before := b.state(t, "app", "").Models[0].Statistics
	_, err := b.Feedback(t.Context(), truth("app", "", 1), inputs[0])
	require.NoError(t, err)
	after := b.state(t, "app", "").Models[0].Statistics
	require.InDelta(t, before["gram2_0_0"]+0.81, after["gram2_0_0"], 1e-6)
	require.InDelta(t, before["reward2_0"]+0.9, after["reward2_0"], 1e-6)
	require.InDelta(t, before["count"]+1, after["count"], 1e-9)
}

// TestFeedback_loss says that the application's loss is what is learned from.
func TestFeedback_loss(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {tensor: numberTensor(0.5, 0.5)}, "b": {tensor: numberTensor(-3, 12)}})
	for _, name := range []string{"a", "b"} {
		b.catalog.add(name, clipperv1.ModelState_MODEL_STATE_READY, &clipperv1.Signature{})
	}
	for loss, want := range map[clipperv1.Loss][]float64{
		clipperv1.Loss_LOSS_UNSPECIFIED: {1, 0},
		clipperv1.Loss_LOSS_ZERO_ONE:    {1, 0},
		clipperv1.Loss_LOSS_ABSOLUTE:    {0.5, 1},
		clipperv1.Loss_LOSS_LOG:         {math.Log(2), 1},
	} {
		app := minimal(loss.String(), "a", "b")
		app.Inputs = []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT64, Shape: []int64{3}}}
		app.Output = &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_SCORES, Classes: []string{"cat", "dog"}, Loss: loss}
		list, err := structpb.NewList([]any{1, 0})
		require.NoError(t, err)
		app.DefaultOutput = structpb.NewListValue(list)
		require.Equal(t, loss, b.create(t, app).Output.Loss)
		f, err := b.Feedback(t.Context(), truth(app.Name, b.query(t, app.Name, "").FeedbackId, 1), nil)
		require.NoError(t, err)
		for i, l := range f.Losses {
			require.InDelta(t, want[i], l.Loss, 1e-6, "%v of model %d", loss, i)
		}
	}
}
