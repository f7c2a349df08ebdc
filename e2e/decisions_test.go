// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/selector/decisionlog"
)

// testDecisions follows decisions to where they are explained, logged and judged: over gRPC, REST and the command
// line.
func testDecisions(t *testing.T, s *system) {
	s.deploy(t, "decisions-good", nil)
	s.deploy(t, "decisions-bad", environment{"BIAS": "1"})
	const app, queries = "decisions", 20
	logged := application(app, "exp4", "decisions-good", "decisions-bad")
	logged.DecisionLog = &clipperv1.DecisionLog{SampleRate: 1}
	s.create(t, logged)
	for i := range queries {
		s.learn(t, app, s.askAs(t, app, "ann", float64(i), 0), float64(i))
	}

	explained, err := s.applications.ExplainSelection(t.Context(), &clipperv1.ExplainSelectionRequest{Application: app, Context: "ann", Decisions: 100})
	require.NoError(t, err)
	require.EqualValues(t, queries, explained.State.Observations)
	require.Len(t, explained.Decisions, queries)
	for _, d := range explained.Decisions {
		require.Len(t, d.Models, 2)
		require.Len(t, d.Feedback.GetLosses(), 2)
		require.NotNil(t, d.Feedback.GetTruth())
	}
	get := func(path string) (object map[string]any) {
		t.Helper()
		response, err := http.Get(s.adminURL + "/v1/applications/" + app + path)
		require.NoError(t, err)
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, response.StatusCode, "%s", body)
		require.NoError(t, json.Unmarshal(body, &object))
		return object
	}
	require.Len(t, get("/explain?decisions=3")["decisions"], 3)
	pairs := get("/correlations")["pairs"].([]any)
	require.Len(t, pairs, 1)
	require.EqualValues(t, queries, pairs[0].(map[string]any)["observations"])
	out, code := s.clipper(t, "", "app", "explain", app)
	require.Zero(t, code)
	require.Contains(t, out, "decisions-bad")

	dir := filepath.Join(filepath.Dir(s.runDir), "decisions")
	require.Eventually(t, func() bool { // Lines are on their way for a second.
		log, err := decisionlog.Read(app, dir)
		if err != nil || len(log.Decisions) != queries {
			return false
		}
		for _, d := range log.Decisions {
			if d.Feedback == nil {
				return false
			}
		}
		return true
	}, patience, poll)
	out, code = s.clipper(t, "", "app", "evaluate", app, "--policy", "single", "--log", dir, "--json")
	require.Zero(t, code)
	var report struct {
		Exact     bool
		Used      int
		Estimates []struct{ Reward float64 }
	}
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	require.True(t, report.Exact)
	require.Equal(t, queries, report.Used)
	require.Equal(t, 1.0, report.Estimates[0].Reward, "the first model is always right")
}
