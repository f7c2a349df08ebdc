// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// testAnswers asks in every way that there is.
func testAnswers(t *testing.T, s *system) {
	s.deploy(t, "answers", nil)
	created := s.create(t, application("answers", "", "answers"))
	require.Equal(t, "single", created.Policy.Name)
	require.Equal(t, clipperv1.OutputKind_OUTPUT_KIND_LABEL, created.Output.Kind)
	require.Equal(t, clipperv1.DataType_DATA_TYPE_INT64, created.Output.DataType)
	require.Len(t, created.Inputs, 1)
	require.Equal(t, []int64{2}, created.Inputs[0].Shape)

	t.Run("gRPC", func(t *testing.T) {
		response, err := s.queries.Query(t.Context(), &clipperv1.QueryRequest{Application: "answers", Inputs: input(3, 0), Id: "mine"})
		require.NoError(t, err)
		require.EqualValues(t, 3, predicted(t, response))
		require.Equal(t, "mine", response.Id)
		require.NotEmpty(t, response.FeedbackId)
		require.InDelta(t, 1, response.Confidence, 1e-9)
		require.Len(t, response.Predictions, 1)
		p := response.Predictions[0]
		require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_OK, p.Status)
		require.Equal(t, []string{"answers", "1"}, []string{p.Model, p.Version})
		require.EqualValues(t, 3, label(t, p.Outputs))
		require.InDelta(t, 1, p.Propensity, 0)
		require.False(t, p.Cached)
		require.False(t, p.Shadow)

		again := s.ask(t, "answers", 3, 0)
		require.EqualValues(t, 3, predicted(t, again))
		require.True(t, again.Predictions[0].Cached)
		require.NotEqual(t, response.FeedbackId, again.FeedbackId)
	})
	t.Run("gRPC with JSON", func(t *testing.T) {
		response, err := s.queries.Query(t.Context(), &clipperv1.QueryRequest{Application: "answers", InputJson: []byte("[4, 0]")})
		require.NoError(t, err)
		require.EqualValues(t, 4, predicted(t, response))
	})
	t.Run("REST", func(t *testing.T) {
		answer := s.post(t, "answers", "query", `{"input": [5, 0], "id": "mine", "timeout": "20s"}`)
		require.InDelta(t, 5, answer["output"], 0)
		require.Equal(t, false, answer["is_default"])
		require.InDelta(t, 1, answer["confidence"], 1e-9)
		require.Equal(t, "mine", answer["id"])
		require.NotEmpty(t, answer["feedback_id"])
		require.NotContains(t, answer, "default_reason")
		require.Equal(t, []any{map[string]any{
			"model": "answers", "version": "1", "status": "PREDICTION_STATUS_OK", "output": 5.0, "cached": false, "propensity": 1.0, "shadow": false,
		}}, answer["predictions"])
	})
	t.Run("gRPC batch", func(t *testing.T) {
		request := &clipperv1.QueryBatchRequest{Application: "answers"}
		const n = 100
		for i := range n {
			request.Queries = append(request.Queries, &clipperv1.BatchQuery{Inputs: input(float64(i), 0)})
		}
		request.Queries[7].Inputs = input(7)
		response, err := s.queries.QueryBatch(t.Context(), request)
		require.NoError(t, err)
		require.Len(t, response.Results, n)
		for i, result := range response.Results {
			if i == 7 {
				require.Equal(t, clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE, result.GetError().GetReason())
				require.EqualValues(t, codes.InvalidArgument, result.GetError().GetCode())
				continue
			}
			require.EqualValues(t, i, predicted(t, result.GetResponse()))
		}
	})
	t.Run("REST batch", func(t *testing.T) {
		answer := s.post(t, "answers", "query-batch", `{"queries": [{"input": [1, 0]}, {"input": "one"}, {"input": [2, 0], "id": "b"}]}`)
		results := answer["results"].([]any)
		require.Len(t, results, 3)
		require.InDelta(t, 1, results[0].(map[string]any)["response"].(map[string]any)["output"], 0)
		require.Equal(t, "INPUT_TYPE", results[1].(map[string]any)["error"].(map[string]any)["reason"])
		require.Equal(t, "b", results[2].(map[string]any)["response"].(map[string]any)["id"])
	})
	t.Run("stream", func(t *testing.T) {
		stream, err := s.queries.QueryStream(t.Context())
		require.NoError(t, err)
		const n = 200
		go func() {
			for i := range uint64(n) {
				q := &clipperv1.QueryRequest{Application: "answers", Inputs: input(float64(i), 0)}
				if i == 9 {
					q.Application = "nobody"
				}
				if stream.Send(&clipperv1.QueryStreamRequest{Sequence: i, Query: q}) != nil {
					return // Recv has the error.
				}
			}
			_ = stream.CloseSend()
		}()
		seen := map[uint64]bool{}
		for {
			message, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			require.False(t, seen[message.Sequence], "answered twice")
			seen[message.Sequence] = true
			if message.Sequence == 9 {
				require.Equal(t, clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, message.Result.GetError().GetReason())
				continue
			}
			require.EqualValues(t, message.Sequence, predicted(t, message.Result.GetResponse()))
		}
		require.Len(t, seen, n)
	})
}

// testDefaults gives the default output for every reason, and an answer for as long as there is one.
func testDefaults(t *testing.T, s *system) {
	s.deploy(t, "defaults-fast", nil)
	s.deploy(t, "defaults-other", environment{"BIAS": "1"})
	slow := version("defaults-slow", "1", environment{"DELAY": "1h"})
	slow.WarmUp = &clipperv1.WarmUp{Disabled: true}
	s.deployVersion(t, slow)
	s.deploy(t, "defaults-failing", environment{"FAIL": "out of luck"})
	none := version("defaults-none", "1", nil)
	none.Replicas = proto.Uint32(0)
	_, err := s.models.DeployModel(t.Context(), &clipperv1.DeployModelRequest{Version: none})
	require.NoError(t, err)
	s.awaitState(t, "defaults-none", "1", clipperv1.ModelState_MODEL_STATE_STOPPED)

	// The time that those get who wait for a model that never answers.
	soon := durationpb.New(500 * time.Millisecond)
	create := func(name, policy string, change func(*clipperv1.Application), models ...string) {
		app := application("defaults-"+name, policy)
		for _, m := range models {
			app.Models = append(app.Models, &clipperv1.ApplicationModel{Model: "defaults-" + m})
		}
		if models[0] != "fast" { // What the first model takes and gives is only known of one that runs.
			app.Inputs = []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT64, Shape: []int64{2}}}
			app.Output = &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_LABEL, DataType: clipperv1.DataType_DATA_TYPE_INT64}
		}
		if change != nil {
			change(app)
		}
		s.create(t, app)
	}
	hurry := func(app *clipperv1.Application) { app.LatencyObjective = soon }
	threshold := func(c float64) func(*clipperv1.Application) {
		return func(app *clipperv1.Application) { app.ConfidenceThreshold = c }
	}

	t.Run("deadline", func(t *testing.T) {
		create("slow", "single", hurry, "slow")
		r := s.askSelector(t, "defaults-slow", 1, 0)
		require.Equal(t, clipperv1.DefaultReason_DEFAULT_REASON_DEADLINE, defaulted(t, r))
		require.Zero(t, r.Confidence)
		require.Len(t, r.Predictions, 1)
		require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE, r.Predictions[0].Status)
	})
	t.Run("the caller's time", func(t *testing.T) {
		create("patient", "single", nil, "slow")
		r, err := s.queries.Query(t.Context(), &clipperv1.QueryRequest{Application: "defaults-patient", Inputs: input(1, 0), Timeout: soon})
		require.NoError(t, err)
		require.Equal(t, clipperv1.DefaultReason_DEFAULT_REASON_DEADLINE, defaulted(t, r))
	})
	t.Run("a part is enough", func(t *testing.T) {
		create("part", "exp4", hurry, "fast", "slow")
		r := s.askSelector(t, "defaults-part", 5, 0)
		require.EqualValues(t, 5, predicted(t, r))
		require.Greater(t, r.Confidence, 0.0)
		require.Less(t, r.Confidence, 1.0, "a model is missing")
		require.Equal(t, []clipperv1.PredictionStatus{
			clipperv1.PredictionStatus_PREDICTION_STATUS_OK, clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE,
		}, statuses(r))
	})
	t.Run("low confidence", func(t *testing.T) {
		create("unsure", "exp4", threshold(0.6), "fast", "other")
		r := s.ask(t, "defaults-unsure", 5, 0)
		require.Equal(t, clipperv1.DefaultReason_DEFAULT_REASON_LOW_CONFIDENCE, defaulted(t, r))
		require.InDelta(t, 0.5, r.Confidence, 1e-9)
		require.Len(t, r.Predictions, 2)
		require.EqualValues(t, 5, label(t, r.Predictions[0].Outputs))
		require.EqualValues(t, 6, label(t, r.Predictions[1].Outputs))

		create("sure", "exp4", threshold(0.4), "fast", "other")
		require.EqualValues(t, 5, predicted(t, s.ask(t, "defaults-sure", 5, 0)), "of equal labels the smallest")
	})
	t.Run("models failed", func(t *testing.T) {
		create("failing", "single", nil, "failing")
		r := s.ask(t, "defaults-failing", 1, 0)
		require.Equal(t, clipperv1.DefaultReason_DEFAULT_REASON_MODELS_FAILED, defaulted(t, r))
		require.Equal(t, []clipperv1.PredictionStatus{clipperv1.PredictionStatus_PREDICTION_STATUS_FAILED}, statuses(r))
		require.Contains(t, r.Predictions[0].Message, "out of luck")
	})
	t.Run("a row fails alone", func(t *testing.T) {
		create("row", "single", nil, "fast")
		response, err := s.queries.QueryBatch(t.Context(), &clipperv1.QueryBatchRequest{Application: "defaults-row", Queries: []*clipperv1.BatchQuery{
			{Inputs: input(21, 0)}, {Inputs: input(-1, 0)}, {Inputs: input(22, 0)},
		}})
		require.NoError(t, err)
		require.EqualValues(t, 21, predicted(t, response.Results[0].GetResponse()))
		failed := response.Results[1].GetResponse()
		require.Equal(t, clipperv1.DefaultReason_DEFAULT_REASON_MODELS_FAILED, defaulted(t, failed))
		require.Contains(t, failed.Predictions[0].Message, "the first number is -1")
		require.EqualValues(t, 22, predicted(t, response.Results[2].GetResponse()))
	})
	t.Run("no replica", func(t *testing.T) {
		create("none", "single", nil, "none")
		r := s.ask(t, "defaults-none", 1, 0)
		require.Equal(t, clipperv1.DefaultReason_DEFAULT_REASON_NO_REPLICA, defaulted(t, r))
		require.Equal(t, []clipperv1.PredictionStatus{clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA}, statuses(r))
	})
	t.Run("REST", func(t *testing.T) {
		answer := s.post(t, "defaults-none", "query", `{"input": [1, 0]}`)
		require.InDelta(t, noLabel, answer["output"], 0)
		require.Equal(t, true, answer["is_default"])
		require.Equal(t, "DEFAULT_REASON_NO_REPLICA", answer["default_reason"])
		require.InDelta(t, 0, answer["confidence"], 0)
	})
}

// statuses are what became of the models that were asked, in order.
func statuses(r *clipperv1.QueryResponse) []clipperv1.PredictionStatus {
	var all []clipperv1.PredictionStatus
	for _, p := range r.Predictions {
		all = append(all, p.Status)
	}
	return all
}

// asked are the models that were asked, sorted.
func asked(r *clipperv1.QueryResponse) []string {
	var names []string
	for _, p := range r.Predictions {
		names = append(names, p.Model)
	}
	slices.Sort(names)
	return names
}
