// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// testFeedback gives feedback in every way that there is, and sees each counted once.
func testFeedback(t *testing.T, s *system) {
	s.deploy(t, "feedback-good", nil)
	s.deploy(t, "feedback-bad", environment{"BIAS": "1"})
	const app = "feedback"
	s.create(t, application(app, "exp4", "feedback-good", "feedback-bad"))
	before := s.state(t, app, "")
	require.Equal(t, "exp4", before.Policy)
	require.Zero(t, before.Observations)
	require.InDelta(t, 0.5, weights(before)["feedback-good"], 1e-9)
	losses := map[string]float64{"feedback-good": 0, "feedback-bad": 1}
	counted := 0

	t.Run("by feedback_id", func(t *testing.T) {
		answer := s.ask(t, app, 1, 0)
		response := s.learn(t, app, answer, 1)
		require.False(t, response.Duplicate)
		require.Equal(t, losses, lossOf(response))
		counted++
		s.awaitObservations(t, app, "", counted)

		require.True(t, s.learn(t, app, answer, 1).Duplicate, "the same again")
		require.True(t, s.learn(t, app, answer, 2).Duplicate, "another truth for the same answer")
		s.awaitObservations(t, app, "", counted)
	})
	t.Run("by input", func(t *testing.T) {
		request := &clipperv1.FeedbackRequest{Application: app, Inputs: input(2, 0), Observation: truth(2), Id: "by input"}
		response, err := s.feedback.Feedback(t.Context(), request)
		require.NoError(t, err)
		require.False(t, response.Duplicate)
		require.Equal(t, losses, lossOf(response))
		counted++

		response, err = s.feedback.Feedback(t.Context(), request)
		require.NoError(t, err)
		require.True(t, response.Duplicate)

		request.Id = "" // Every call counts.
		for range 2 {
			response, err = s.feedback.Feedback(t.Context(), request)
			require.NoError(t, err)
			require.False(t, response.Duplicate)
			counted++
		}
		s.awaitObservations(t, app, "", counted)
	})
	t.Run("by an input that is remembered", func(t *testing.T) {
		require.Eventually(t, func() bool { // A prediction is remembered after the answer has gone out.
			predictions := s.ask(t, app, 23, 0).Predictions
			return !slices.ContainsFunc(predictions, func(p *clipperv1.ModelPrediction) bool { return !p.Cached })
		}, patience, poll)
		before := s.sum(t, abstraction, `clipper_model_cache_hits_total\{model="feedback-`)
		response, err := s.feedback.Feedback(t.Context(), &clipperv1.FeedbackRequest{Application: app, Inputs: input(23, 0), Observation: truth(23)})
		require.NoError(t, err)
		require.Equal(t, losses, lossOf(response))
		counted++
		require.InDelta(t, before+2, s.sum(t, abstraction, `clipper_model_cache_hits_total\{model="feedback-`), 0, "neither model was asked again")
	})
	t.Run("reward", func(t *testing.T) {
		_, err := s.feedback.Feedback(t.Context(), &clipperv1.FeedbackRequest{
			Application: app, FeedbackId: s.ask(t, app, 3, 0).FeedbackId, Observation: &clipperv1.FeedbackRequest_Reward{Reward: 1},
		})
		require.NoError(t, err)
		counted++
		s.awaitObservations(t, app, "", counted)
	})
	t.Run("REST", func(t *testing.T) {
		id := s.post(t, app, "query", `{"input": [4, 0]}`)["feedback_id"].(string)
		body := fmt.Sprintf(`{"feedback_id": %q, "truth": 4}`, id)
		answer := s.post(t, app, "feedback", body)
		require.Equal(t, false, answer["duplicate"])
		require.Equal(t, []any{
			map[string]any{"model": "feedback-good", "loss": 0.0}, map[string]any{"model": "feedback-bad", "loss": 1.0},
		}, answer["losses"])
		require.Equal(t, true, s.post(t, app, "feedback", body)["duplicate"])
		counted++

		answer = s.post(t, app, "feedback-batch", `{"items": [{"input": [5, 0], "truth": 5}, {"input": [6, 0], "truth": "six"}]}`)
		results := answer["results"].([]any)
		require.Len(t, results, 2)
		require.Contains(t, results[0], "response")
		require.Equal(t, "TRUTH_INVALID", results[1].(map[string]any)["error"].(map[string]any)["reason"])
		counted++
		s.awaitObservations(t, app, "", counted)
	})
	t.Run("batch", func(t *testing.T) {
		request := &clipperv1.FeedbackBatchRequest{Application: app}
		for i := range 20 {
			request.Items = append(request.Items, &clipperv1.FeedbackRequest{FeedbackId: s.ask(t, app, float64(i), 0).FeedbackId, Observation: truth(float64(i))})
		}
		request.Items = append(request.Items, request.Items[0])
		response, err := s.feedback.FeedbackBatch(t.Context(), request)
		require.NoError(t, err)
		require.Len(t, response.Results, 21)
		duplicates := 0
		for _, r := range response.Results {
			require.NotNil(t, r.GetResponse(), r)
			if r.GetResponse().Duplicate {
				duplicates++
			}
		}
		require.Equal(t, 1, duplicates)
		counted += 20
		s.awaitObservations(t, app, "", counted)
	})
	t.Run("stream", func(t *testing.T) {
		stream, err := s.feedback.FeedbackStream(t.Context())
		require.NoError(t, err)
		const n = 20
		for i := range uint64(n) {
			require.NoError(t, stream.Send(&clipperv1.FeedbackStreamRequest{Sequence: i, Feedback: &clipperv1.FeedbackRequest{
				Application: app, FeedbackId: s.ask(t, app, float64(i), 0).FeedbackId, Observation: truth(float64(i)),
			}}))
		}
		require.NoError(t, stream.CloseSend())
		seen := map[uint64]bool{}
		for {
			message, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			require.NotNil(t, message.Result.GetResponse(), message)
			seen[message.Sequence] = true
		}
		require.Len(t, seen, n)
		counted += n
		s.awaitObservations(t, app, "", counted)
	})
	t.Run("it is learned", func(t *testing.T) {
		after := weights(s.awaitObservations(t, app, "", counted))
		require.Greater(t, after["feedback-good"], 0.95)
		require.InDelta(t, 1, after["feedback-good"]+after["feedback-bad"], 1e-9)
		require.EventuallyWithT(t, func(c *assertCollect) { // The copy that queries read follows.
			r, err := s.queries.Query(t.Context(), &clipperv1.QueryRequest{Application: app, Inputs: input(7, 0)})
			require.NoError(c, err)
			require.EqualValues(c, 7, predicted(c, r))
			require.Greater(c, r.Confidence, 0.95)
		}, patience, poll)
	})
}

func lossOf(response *clipperv1.FeedbackResponse) map[string]float64 {
	of := map[string]float64{}
	for _, l := range response.Losses {
		of[l.Model] = l.Loss
	}
	return of
}

// testContexts sees users for whom different models are right get different answers.
func testContexts(t *testing.T, s *system) {
	s.deploy(t, "contexts-a", nil)
	s.deploy(t, "contexts-b", environment{"BIAS": "1"})
	const app, n = "contexts", 30
	s.create(t, application(app, "exp4", "contexts-a", "contexts-b"))
	for i := range n {
		x := float64(i)
		s.learn(t, app, s.askAs(t, app, "ann", x, 0), x)
		s.learn(t, app, s.askAs(t, app, "bob", x, 0), x+1)
	}
	require.Greater(t, weights(s.awaitObservations(t, app, "ann", n))["contexts-a"], 0.9)
	require.Greater(t, weights(s.awaitObservations(t, app, "bob", n))["contexts-b"], 0.9)
	shared := weights(s.awaitObservations(t, app, "", 2*n))
	require.InDelta(t, 0.5, shared["contexts-a"], 0.1)
	require.EventuallyWithT(t, func(c *assertCollect) {
		for user, want := range map[string]int64{"ann": 7, "bob": 8} {
			r, err := s.queries.Query(t.Context(), &clipperv1.QueryRequest{Application: app, Context: user, Inputs: input(7, 0)})
			require.NoError(c, err)
			require.EqualValues(c, want, predicted(c, r), user)
		}
	}, patience, poll)
}

// testPolicies sees which models each policy asks, and what it makes of their answers.
func testPolicies(t *testing.T, s *system) {
	s.deploy(t, "policies-a", nil)
	s.deploy(t, "policies-b", environment{"BIAS": "1"})
	s.deploy(t, "policies-c", environment{"BIAS": "1"})
	both := []string{"policies-a", "policies-b"}

	t.Run("single", func(t *testing.T) {
		s.create(t, application("policies-single", "single", both...))
		r := s.ask(t, "policies-single", 1, 0)
		require.Equal(t, both[:1], asked(r))
		require.EqualValues(t, 1, predicted(t, r))
	})
	t.Run("static", func(t *testing.T) {
		app := application("policies-static", "static", both...)
		app.Models[0].Weight, app.Models[1].Weight = 1, 3
		s.create(t, app)
		counts := map[string]int{}
		const n = 400
		for i := range n {
			r := s.ask(t, "policies-static", float64(i%20), 0)
			require.Len(t, r.Predictions, 1)
			p := r.Predictions[0]
			require.InDelta(t, map[string]float64{"policies-a": 0.25, "policies-b": 0.75}[p.Model], p.Propensity, 1e-9)
			counts[p.Model]++
		}
		// Within seven standard deviations.
		require.InDelta(t, n/4, counts["policies-a"], 61)
	})
	t.Run("exp3", func(t *testing.T) {
		app := application("policies-exp3", "exp3", both...)
		app.Policy.Parameters = map[string]float64{"eta": 0.3, "gamma": 0.1}
		s.create(t, app)
		n := 60
		for i := range n {
			r := s.ask(t, "policies-exp3", float64(i%20), 0)
			require.Len(t, r.Predictions, 1)
			response := s.learn(t, "policies-exp3", r, float64(i%20))
			require.Len(t, response.Losses, 1)
		}
		state := s.awaitObservations(t, "policies-exp3", "", n)
		require.Greater(t, weights(state)["policies-a"], 0.9)
		require.Greater(t, state.Models[0].Probability, 0.85)
		require.GreaterOrEqual(t, state.Models[1].Probability, 0.05, "exploration")
	})
	t.Run("exp4", func(t *testing.T) {
		app := application("policies-exp4", "exp4", "policies-a", "policies-b", "policies-c")
		s.create(t, app)
		r := s.ask(t, "policies-exp4", 1, 0)
		require.Equal(t, []string{"policies-a", "policies-b", "policies-c"}, asked(r))
		require.EqualValues(t, 2, predicted(t, r), "two of three say so")
		require.InDelta(t, 2.0/3, r.Confidence, 1e-9)
	})
	t.Run("groups", func(t *testing.T) {
		app := application("policies-groups", "exp4", "policies-a", "policies-b", "policies-c")
		app.Models[1].Group, app.Models[2].Group = "same", "same"
		app.Models[0].Weight, app.Models[1].Weight, app.Models[2].Weight = 1.5, 1, 1
		s.create(t, app)
		r := s.ask(t, "policies-groups", 1, 0)
		require.EqualValues(t, 1, predicted(t, r), "two that are one opinion do not outvote the third")
	})
	t.Run("shadow", func(t *testing.T) {
		app := application("policies-shadow", "exp4", "policies-a", "policies-b", "policies-c")
		app.Models[1].Shadow, app.Models[2].Shadow = true, true
		s.create(t, app)
		r := s.ask(t, "policies-shadow", 1, 0)
		require.EqualValues(t, 1, predicted(t, r))
		require.InDelta(t, 1, r.Confidence, 1e-9)
		require.Equal(t, []string{"policies-a", "policies-b", "policies-c"}, asked(r))
		for _, p := range r.Predictions {
			require.Equal(t, p.Model != "policies-a", p.Shadow)
			require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_OK, p.Status)
		}
	})
}
