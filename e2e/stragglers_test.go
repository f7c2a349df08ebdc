// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// testStragglers answers without models that are late, at the deadline and before, and learns from
// what they say in the end.
func testStragglers(t *testing.T, s *system) {
	const ok = clipperv1.PredictionStatus_PREDICTION_STATUS_OK
	s.deploy(t, "stragglers-a", nil)
	s.deploy(t, "stragglers-b", nil)
	late := func(t *testing.T, name, delay string) {
		v := version(name, "1", environment{"BIAS": "1", "DELAY": delay, "FINISH": "1"})
		v.WarmUp = &clipperv1.WarmUp{Disabled: true}
		s.deployVersion(t, v)
	}
	// learnLater tells the truth when the late model has answered, and requires that it is known to be wrong.
	learnLater := func(t *testing.T, app, model string, r *clipperv1.QueryResponse) {
		t.Helper()
		require.EventuallyWithT(t, func(c *assertCollect) {
			require.InDelta(c, 1, s.sum(t, abstraction, `clipper_model_cache_stores_total\{model="`+model+`"`), 0)
		}, patience, poll)
		require.Equal(t, map[string]float64{"stragglers-a": 0, "stragglers-b": 0, model: 1}, lossOf(s.learn(t, app, r, 5)))
		learned := weights(s.awaitObservations(t, app, "", 1))
		require.Less(t, learned[model], learned["stragglers-a"])
	}

	t.Run("deadline", func(t *testing.T) {
		// What has taken too long once is not tried again, so each attempt has a model of its own.
		for i := range 10 {
			app, model := fmt.Sprintf("stragglers-%d", i), fmt.Sprintf("stragglers-late-%d", i)
			late(t, model, "400ms")
			created := application(app, "exp4", "stragglers-a", "stragglers-b", model)
			created.LatencyObjective = durationpb.New(200 * time.Millisecond)
			s.create(t, created)
			r := s.ask(t, app, 5, 0)
			if len(r.Predictions) == 0 { // The machine has paused: see askSelector.
				continue
			}
			require.EqualValues(t, 5, predicted(t, r))
			require.Equal(t, []clipperv1.PredictionStatus{ok, ok, clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE}, statuses(r))
			require.InDelta(t, 2.0/3, r.Confidence, 1e-9)
			learnLater(t, app, model, r)
			require.InDelta(t, 1, s.sum(t, abstraction, `clipper_model_late_predictions_total\{model="`+model+`"`), 0)
			return
		}
		require.FailNow(t, "the selector has not answered in time, ten times")
	})
	t.Run("early", func(t *testing.T) {
		const app, model = "stragglers-early", "stragglers-slow"
		late(t, model, "2s")
		created := application(app, "exp4", "stragglers-a", "stragglers-b", model)
		created.AnswerEarly = true
		require.True(t, s.create(t, created).AnswerEarly)
		r := s.ask(t, app, 5, 0)
		require.EqualValues(t, 5, predicted(t, r))
		require.Equal(t, []clipperv1.PredictionStatus{ok, ok, clipperv1.PredictionStatus_PREDICTION_STATUS_PENDING}, statuses(r))
		require.InDelta(t, 1, s.sum(t, selector, `clipper_selector_early_answers_total\{application="`+app+`"`), 0)
		learnLater(t, app, model, r)
		require.InDelta(t, 1, s.sum(t, selector, `clipper_selector_late_predictions_recalled_total\{application="`+app+`"`), 0)
	})
	t.Run("early, REST", func(t *testing.T) {
		const app, model = "stragglers-rest", "stragglers-slower"
		late(t, model, "2s")
		status, body := rest{method: http.MethodPost, url: s.adminURL + "/v1/applications", body: `{"name": "` + app + `", "models": [
			{"model": "stragglers-a"}, {"model": "stragglers-b"}, {"model": "` + model + `"}], "default_output": -1,
			"latency_objective": "20s", "answer_early": true}`}.call(t)
		require.Equal(t, http.StatusOK, status, body)
		predictions := s.post(t, app, "query", `{"input": [6, 0]}`)["predictions"].([]any)
		require.Equal(t, "PREDICTION_STATUS_PENDING", predictions[2].(map[string]any)["status"])
	})
}
