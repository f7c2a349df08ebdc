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
