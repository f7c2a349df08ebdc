// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/stretchr/testify/require"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// TestRepository deploys what is in a folder and what is in a bucket.
func TestRepository(t *testing.T) {
	serves := "command: [" + programs.container + "]\n"
	for name, start := range map[string]func(*testing.T) (location string, write func(path, text string), remove func(path string)){
		"folder": func(t *testing.T) (string, func(string, string), func(string)) {
			dir := t.TempDir()
			return dir, func(path, text string) {
					file := filepath.Join(dir, path)
					require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
					require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
				}, func(path string) {
					require.NoError(t, os.Remove(filepath.Join(dir, path)))
				}
		},
		"bucket": func(t *testing.T) (string, func(string, string), func(string)) {
			backend := s3mem.New()
			require.NoError(t, backend.CreateBucket("models"))
			server := httptest.NewServer(gofakes3.New(backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server())
			t.Cleanup(server.Close)
			t.Setenv("AWS_ENDPOINT_URL", server.URL)
			t.Setenv("AWS_REGION", "us-east-1")
			t.Setenv("AWS_ACCESS_KEY_ID", "key")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "hushhush")
			return "s3://models", func(path, text string) {
					_, err := backend.PutObject("models", path, map[string]string{"Last-Modified": "Wed, 25 Nov 2026 10:00:00 GMT"}, bytes.NewReader([]byte(text)), int64(len(text)), nil)
					require.NoError(t, err)
				}, func(path string) {
					_, err := backend.DeleteObject("models", path)
					require.NoError(t, err)
				}
		},
	} {
		t.Run(name, func(t *testing.T) {
			location, write, remove := start(t)
			write("good/clipper.yaml", serves+"versions: {latest: 2}\nwarm_up: {samples: [[1, 2]]}\n")
			write("good/1/clipper.yaml", "environment: {BIAS: '100'}")
			write("typo/clipper.yaml", "comand: [x]")
			write("typo/1/weights", "w")
			write("dies/1/clipper.yaml", "command: [sh, -c, 'echo weights are missing >&2; exit 3']")
			s := install(t, one, embedded)
			s.settings[all] = append(s.settings[all], "--model-repository="+location, "--model-repository-poll=100ms")
			s.start(t, all)
			s.awaitReady(t, all)
			answers := func(want int64) {
				t.Helper()
				require.EventuallyWithT(t, func(c *assertCollect) {
					r, err := s.queries.Query(t.Context(), &clipperv1.QueryRequest{Application: "good", Inputs: input(1, 0)})
					require.NoError(c, err)
					require.False(c, r.IsDefault)
					require.Equal(c, want, label(c, r.Outputs))
				}, patience, poll)
			}
			s.awaitState(t, "good", "1", clipperv1.ModelState_MODEL_STATE_READY)
			s.create(t, application("good", "", "good"))
			answers(101)

			// What is broken says so and holds up nothing.
			dead := s.awaitState(t, "dies", "1", clipperv1.ModelState_MODEL_STATE_FAILED)
			require.Contains(t, dead.StateMessage, "exited with code 3")
			require.Contains(t, dead.StateMessage, "weights are missing")
			state := func() string {
				r, err := s.models.GetModelRepository(t.Context(), &clipperv1.GetModelRepositoryRequest{})
				require.NoError(t, err)
				require.Empty(t, r.Failure)
				var text strings.Builder
				for _, v := range r.Versions {
					text.WriteString(v.Model + ":" + v.Version + " " + v.State.String() + " " + v.Message + "\n")
				}
				return text.String()
			}
			require.Contains(t, state(), "typo: REPOSITORY_STATE_FAILED typo/clipper.yaml: line 1: comand is no setting")

			// A new version takes over, the old one stays warm, and going back starts nothing.
			write("good/2/clipper.yaml", "environment: {BIAS: '200'}")
			answers(201)
			_, err := s.models.SetCurrentVersion(t.Context(), &clipperv1.SetCurrentVersionRequest{Model: "good", Version: "1"})
			require.NoError(t, err)
			answers(101)
			// After a restart everything is as it was.
			s.kill(t, all)
			s.start(t, all)
			s.awaitReady(t, all)
			answers(101)
			// What is gone is undeployed.
			remove("good/1/clipper.yaml")
			answers(201)
			remove("good/2/clipper.yaml")
			require.EventuallyWithT(t, func(c *assertCollect) {
				_, err := s.models.GetModel(t.Context(), &clipperv1.GetModelRequest{Model: "good"})
				require.ErrorContains(c, err, "there is no model")
			}, patience, poll)
			for _, p := range s.logs {
				require.NotContains(t, p.output.String(), "hushhush")
			}
		})
	}
}
