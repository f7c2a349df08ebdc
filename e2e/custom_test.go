// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/selector/custom/customtest"
)

// testCustomPolicy serves with a policy that is a program of its own, and kills it. Administration is over
// REST and the command line.
func testCustomPolicy(t *testing.T, s *system) {
	p := customtest.Start(t)
	s.deploy(t, "custom-good", nil)
	s.deploy(t, "custom-bad", environment{"BIAS": "1"})
	const app = "custom"
	applications := s.adminURL + "/v1/applications"
	body := `{"name": "custom", "default_output": -1, "latency_objective": "20s",
		"models": [{"model": "custom-good", "weight": 1}, {"model": "custom-bad", "weight": 3}],
		"policy": {"name": "custom", "address": "` + p.Address + `"}}`
	status, created := rest{method: http.MethodPost, url: applications, body: body}.call(t)
	require.Equal(t, http.StatusOK, status, created)
	out, code := s.clipper(t, "", "app", "show", app)
	require.Zero(t, code)
	require.Contains(t, out, "custom at "+p.Address)
	require.Contains(t, out, "tries, regret")

	answer := s.post(t, app, "query", `{"input": [3, 0]}`)
	require.EqualValues(t, 3, answer["output"], "the policy takes the first")
	require.EqualValues(t, 0.75, answer["confidence"])
	s.post(t, app, "feedback", `{"feedback_id": "`+answer["feedback_id"].(string)+`", "truth": 3}`)
	state := s.awaitObservations(t, app, "", 1)
	require.Equal(t, 1.0, state.Models[1].Statistics["regret"])

	p.Kill()
	answer = s.post(t, app, "query", `{"input": [3, 0]}`)
	require.EqualValues(t, 4, answer["output"], "the models' weights decide")
	id := answer["feedback_id"].(string)
	feedback := rest{method: http.MethodPost, url: s.queryURL + "/v1/applications/custom/feedback", body: `{"feedback_id": "` + id + `", "truth": 3}`}
	status, refused := feedback.call(t)
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Equal(t, "POLICY_FAILED", refused["reason"])
	_, code = s.clipper(t, "", "app", "update", app, "--description", "x")
	require.NotZero(t, code, "its policy cannot describe itself")

	p.Revive(t)
	require.EventuallyWithT(t, func(c *assertCollect) {
		require.EqualValues(c, 3, predicted(c, s.ask(t, app, 3, 0)))
	}, patience, poll)
	s.post(t, app, "feedback", feedback.body)
	require.Equal(t, 2.0, s.awaitObservations(t, app, "", 2).Models[1].Statistics["tries"])

	_, code = s.clipper(t, "", "app", "update", app, "--policy", "exp4")
	require.Zero(t, code)
	require.Len(t, s.ask(t, app, 3, 0).Predictions, 2)

	other := `{"name": "elsewhere", "default_output": -1, "models": [{"model": "custom-good"}], "policy": {"name": "custom", "address": "policy.example:7100"}}`
	status, refused = rest{method: http.MethodPost, url: applications, body: other}.call(t)
	require.Equal(t, http.StatusBadRequest, status)
	require.Equal(t, "policy.address", refused["field"])
}
