// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// testCanary lets in a model that is as good as the one before and one that is wrong, over gRPC, and looks at
// them over REST and from the command line.
func testCanary(t *testing.T, s *system) {
	s.deploy(t, "canary-old", nil)
	s.deploy(t, "canary-good", nil)
	s.deploy(t, "canary-bad", environment{"BIAS": "1"})
	for _, test := range []struct {
		app, model string
		want       clipperv1.CanaryState
		share      float64
	}{
		{"canary-up", "canary-good", clipperv1.CanaryState_CANARY_STATE_PROMOTED, 1},
		{"canary-down", "canary-bad", clipperv1.CanaryState_CANARY_STATE_ROLLED_BACK, 0},
	} {
		app := application(test.app, "static", "canary-old", test.model)
		app.Canary = &clipperv1.Canary{
			Model: test.model, InitialShare: 0.5, Step: 2, MinFeedbacks: 20, LossMargin: 0.25, ErrorMargin: 0.25, LatencyMargin: 0.5,
		}
		created := s.create(t, app)
		require.Equal(t, "canary-old", created.Canary.Baseline)
		var r *clipperv1.GetCanaryResponse
		for i := range 5000 {
			s.learn(t, test.app, s.ask(t, test.app, float64(i%7), 0), float64(i%7))
			if i%20 > 0 {
				continue
			}
			var err error
			r, err = s.applications.GetCanary(t.Context(), &clipperv1.GetCanaryRequest{Application: test.app})
			require.NoError(t, err)
			if r.State != clipperv1.CanaryState_CANARY_STATE_RUNNING {
				break
			}
		}
		require.Equal(t, test.want, r.State, "%v", r)
		require.InDelta(t, test.share, r.Share, 1e-9)
		require.NotEmpty(t, r.Steps[0].Reason)

		response, err := http.Get(s.adminURL + "/v1/applications/" + test.app + "/canary")
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		var object map[string]any
		require.NoError(t, json.Unmarshal(body, &object), "%s", body)
		require.Equal(t, test.want.String(), object["state"])
		out, code := s.clipper(t, "", "app", "canary", test.app)
		require.Zero(t, code)
		require.Contains(t, out, r.Steps[0].Reason[:9])
	}
}

// TestCanary_kill kills the selector while a canary grows: no step is lost or made twice.
func TestCanary_kill(t *testing.T) {
	for _, b := range []backend{embedded, redis} {
		t.Run(string(b), func(t *testing.T) {
			s := start(t, three, b)
			s.deploy(t, "old", nil)
			s.deploy(t, "new", nil)
			app := application("a", "static", "old", "new")
			app.Canary = &clipperv1.Canary{
				Model: "new", InitialShare: 0.1, Step: 2, MinFeedbacks: 20, LossMargin: 0.25, ErrorMargin: 0.25, LatencyMargin: 0.5,
			}
			s.create(t, app)
			l := s.load(t, "a")
			var r *clipperv1.GetCanaryResponse
			awaitSteps := func(n int) {
				require.EventuallyWithT(t, func(c *assertCollect) {
					var err error
					r, err = s.applications.GetCanary(t.Context(), &clipperv1.GetCanaryRequest{Application: "a"})
					require.NoError(c, err)
					require.GreaterOrEqual(c, len(r.Steps), n)
				}, patience, poll)
			}
			for _, steps := range []int{1, 2, 3, 4} {
				awaitSteps(steps)
				s.kill(t, selector)
				s.start(t, selector)
				s.awaitReady(t, selector)
			}
			awaitSteps(5)
			l.end()
			require.Equal(t, clipperv1.CanaryState_CANARY_STATE_PROMOTED, r.State, "%v", r)
			want := []float64{0, 0.1, 0.2, 0.4, 0.8, 1}
			require.Len(t, r.Steps, len(want)-1)
			for i, step := range r.Steps { // The newest first.
				at := len(want) - 1 - i
				require.InDelta(t, want[at-1], step.From, 1e-9)
				require.InDelta(t, want[at], step.To, 1e-9)
			}
		})
	}
}
