// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"encoding/json"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// testLearnedState lists, exports and resets what contexts have learned, in every way that there is.
func testLearnedState(t *testing.T, s *system) {
	s.deploy(t, "learned", nil)
	const app = "learned"
	message := application(app, "exp4", "learned")
	message.ContextLifetime = durationpb.New(time.Hour)
	s.create(t, message)
	teach := func(user string) {
		s.learn(t, app, s.askAs(t, app, user, 1, 0), 1)
	}
	for _, user := range []string{"ann", "ann", "user-1", "user-2", "user/3 ☃"} {
		teach(user)
	}

	t.Run("gRPC", func(t *testing.T) {
		page, err := s.applications.ListContexts(t.Context(), &clipperv1.ListContextsRequest{Application: app, PageSize: 3})
		require.NoError(t, err)
		require.Len(t, page.Contexts, 3)
		require.Equal(t, "ann", page.Contexts[0].Context)
		require.EqualValues(t, 2, page.Contexts[0].Observations)
		require.WithinRange(t, page.Contexts[0].ExpireTime.AsTime(), time.Now().Add(50*time.Minute), time.Now().Add(61*time.Minute))
		page, err = s.applications.ListContexts(t.Context(), &clipperv1.ListContextsRequest{Application: app, PageSize: 3, PageToken: page.NextPageToken})
		require.NoError(t, err)
		require.Len(t, page.Contexts, 1)
		require.Empty(t, page.NextPageToken)

		stream, err := s.applications.ExportSelectionState(t.Context(), &clipperv1.ExportSelectionStateRequest{Application: app, Context: "nobody"})
		require.NoError(t, err)
		_, err = stream.Recv()
		require.Equal(t, codes.NotFound, status.Code(err))
	})
	t.Run("REST", func(t *testing.T) {
		code, object := rest{method: http.MethodGet, url: s.adminURL + "/v1/applications/learned/contexts?prefix=user-&page_size=1"}.call(t)
		require.Equal(t, http.StatusOK, code)
		require.Len(t, object["contexts"], 1)
		require.NotEmpty(t, object["next_page_token"])

		response, err := http.Get(s.adminURL + "/v1/applications/learned/export")
		require.NoError(t, err)
		defer response.Body.Close()
		require.Equal(t, http.StatusOK, response.StatusCode)
		require.Equal(t, "application/x-ndjson", response.Header.Get("Content-Type"))
		var names []string
		for lines := bufio.NewScanner(response.Body); lines.Scan(); {
			var line struct {
				Result struct {
					Context string
					State   struct{ Observations float64 }
				}
			}
			require.NoError(t, json.Unmarshal(lines.Bytes(), &line))
			require.Positive(t, line.Result.State.Observations)
			names = append(names, line.Result.Context)
		}
		require.Equal(t, []string{"", "ann", "user-1", "user-2", "user/3 ☃"}, names)

		code, object = rest{method: http.MethodGet, url: s.adminURL + "/v1/applications/learned/export?context=nobody"}.call(t)
		require.Equal(t, http.StatusNotFound, code)
		require.Equal(t, "CONTEXT_NOT_FOUND", object["reason"])
		code, _ = rest{method: http.MethodDelete, url: s.adminURL + "/v1/applications/learned/state?context=user-2"}.call(t)
		require.Equal(t, http.StatusOK, code)
		code, _ = rest{method: http.MethodDelete, url: s.adminURL + "/v1/applications/learned/state?context=user-2"}.call(t)
		require.Equal(t, http.StatusNotFound, code)
	})
	t.Run("command line", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "learned.jsonl")
		out, code := s.clipper(t, "", "app", "export", app, "-o", file)
		require.Zero(t, code)
		require.Contains(t, out, "Exported 4 states")
		out, code = s.clipper(t, "", "app", "contexts", app)
		require.Zero(t, code)
		require.Contains(t, out, "user/3 ☃")
		require.NotContains(t, out, "user-2")
		_, code = s.clipper(t, "", "app", "reset", app, "--context", "user-2")
		require.Equal(t, 3, code)
		early := s.askAs(t, app, "ann", 2, 0)
		_, code = s.clipper(t, "", "app", "reset", app, "--all")
		require.Zero(t, code)
		out, code = s.clipper(t, "", "app", "contexts", app)
		require.Zero(t, code)
		require.Contains(t, out, "No contexts")
		require.False(t, s.learn(t, app, early, 2).Duplicate)
		s.awaitObservations(t, app, "ann", 1)
		s.awaitObservations(t, app, "", 1)
	})
}
