// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// testBandits sees that each policy that asks one model finds the one that is right.
func testBandits(t *testing.T, s *system) {
	s.deploy(t, "bandits-good", nil)
	s.deploy(t, "bandits-bad", environment{"BIAS": "1"})
	for _, policy := range []string{"epsilon-greedy", "ucb1", "thompson"} {
		t.Run(policy, func(t *testing.T) {
			app := "bandits-" + policy
			s.create(t, application(app, policy, "bandits-good", "bandits-bad"))
			const n = 60
			good := 0
			for i := range n {
				r := s.ask(t, app, float64(i%20), 0)
				require.Len(t, r.Predictions, 1)
				if r.Predictions[0].Model == "bandits-good" {
					good++
				}
				s.learn(t, app, r, float64(i%20))
			}
			state := s.awaitObservations(t, app, "", n)
			require.Greater(t, good, n*2/3)
			require.Greater(t, weights(state)["bandits-good"], 0.99)
			require.Zero(t, state.Models[0].Statistics["loss"])
			require.EqualValues(t, n, state.Models[0].Statistics["count"]+state.Models[1].Statistics["count"])
		})
	}
	t.Run("linucb", func(t *testing.T) {
		app := application("bandits-linucb", "linucb", "bandits-good", "bandits-bad")
		app.Policy.Parameters = map[string]float64{"dimension": 2}
		s.create(t, app)
		// The first is right about 0, the second, which says 2, about 1.
		const n = 40
		for i := range n {
			s.learn(t, "bandits-linucb", s.ask(t, "bandits-linucb", float64(i%2), 0), 2*float64(i%2))
		}
		s.awaitObservations(t, "bandits-linucb", "", n)
		require.Equal(t, []string{"bandits-good"}, asked(s.ask(t, "bandits-linucb", 0, 0)))
		require.Equal(t, []string{"bandits-bad"}, asked(s.ask(t, "bandits-linucb", 1, 0)))
	})
	for _, policy := range []string{"majority", "mean"} {
		t.Run(policy, func(t *testing.T) {
			app := application("bandits-"+policy, policy, "bandits-good", "bandits-bad")
			app.Models[1].Weight, app.Models[0].Weight = 1, 2
			s.create(t, app)
			r := s.ask(t, app.Name, 1, 0)
			require.Len(t, r.Predictions, 2)
			require.EqualValues(t, 1, predicted(t, r))
			require.InDelta(t, 2.0/3, r.Confidence, 1e-9)
		})
	}
}

// testPolicyChange changes the policy of a running application over REST and from the command line: it
// keeps what was learned until it is told to forget.
func testPolicyChange(t *testing.T, s *system) {
	s.deploy(t, "change-good", nil)
	s.deploy(t, "change-bad", environment{"BIAS": "1"})
	const app = "change"
	s.create(t, application(app, "exp4", "change-good", "change-bad"))
	for i := range 20 {
		s.learn(t, app, s.ask(t, app, float64(i), 0), float64(i))
	}
	s.awaitObservations(t, app, "", 20)
	late := s.ask(t, app, 3, 0)

	patch := func(query, body string) {
		t.Helper()
		code, object := rest{method: http.MethodPatch, url: s.adminURL + "/v1/applications/" + app + query, body: body}.call(t)
		require.Equal(t, http.StatusOK, code, object)
	}
	patch("", `{"policy": {"name": "ucb1", "parameters": {"scale": 0.1}}}`)
	state := s.state(t, app, "")
	require.Equal(t, "ucb1", state.Policy)
	require.EqualValues(t, 20, state.Observations)
	require.Equal(t, 1.0, state.Models[0].Probability, "it knows at once")
	require.Len(t, s.learn(t, app, late, 3).Losses, 2, "an answer of the policy before")
	s.awaitObservations(t, app, "", 21)

	_, code := s.clipper(t, "", "app", "update", app, "--policy", "thompson")
	require.Zero(t, code)
	state = s.state(t, app, "")
	require.Equal(t, "thompson", state.Policy)
	require.EqualValues(t, 21, state.Observations)
	require.EqualValues(t, 21, state.Models[1].Statistics["loss"])

	late = s.ask(t, app, 3, 0)
	patch("?reset_state=true", `{"policy": {"name": "exp3"}}`)
	require.Zero(t, s.state(t, app, "").Observations)
	_, err := s.feedback.Feedback(t.Context(), &clipperv1.FeedbackRequest{Application: app, FeedbackId: late.FeedbackId, Observation: truth(3)})
	require.Equal(t, codes.FailedPrecondition, status.Code(err), "feedback for what was forgotten: %v", err)

	s.learn(t, app, s.ask(t, app, 3, 0), 3)
	s.awaitObservations(t, app, "", 1)
	_, code = s.clipper(t, "", "app", "update", app, "--reset")
	require.Zero(t, code)
	require.Zero(t, s.state(t, app, "").Observations)
	require.Equal(t, "exp3", s.state(t, app, "").Policy)

	code, object := rest{method: http.MethodPatch, url: s.adminURL + "/v1/applications/" + app, body: `{"output": {"kind": "OUTPUT_KIND_LABEL", "loss": "LOSS_LOG"}}`}.call(t)
	require.Equal(t, http.StatusBadRequest, code)
	require.Equal(t, "output.loss", object["field"], object)
}
