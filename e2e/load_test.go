// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/cli"
	"github.com/clipper-serving/clipper/internal/loadgen"
	"github.com/clipper-serving/clipper/internal/telemetry"
)

// TestLoad sends load in every protocol and looks at what the generator says of it, and at what the server
// has counted.
func TestLoad(t *testing.T) {
	s := start(t, one, embedded)
	load := func(t *testing.T, wantCode int, args ...string) (*loadgen.Report, string) {
		t.Helper()
		var out, errs bytes.Buffer
		code := cli.Run(t.Context(), cli.Terminal{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs}, telemetry.Build{Version: "test"}, append([]string{
			"load", "--json", "--address", s.grpc[all], "--http-address", strings.TrimPrefix(s.queryURL, "http://"), "--warm-up", "0s",
		}, args...))
		require.Equal(t, wantCode, code, errs.String())
		var r loadgen.Report
		if out.Len() > 0 {
			require.NoError(t, json.Unmarshal(out.Bytes(), &r))
		}
		return &r, errs.String()
	}
	s.deploy(t, "load", nil)
	s.create(t, application("load", "exp3", "load"))
	s.deploy(t, "slow", environment{"DELAY": "500ms"})
	slow := application("slow", "", "slow")
	slow.LatencyObjective = durationpb.New(50 * time.Millisecond)
	s.create(t, slow)

	// The tests' model gives the first number of a row.
	file := filepath.Join(t.TempDir(), "inputs.jsonl")
	var lines strings.Builder
	for i := range 50 {
		fmt.Fprintf(&lines, `{"input": [%d, 0.5], "truth": %d, "at": %g, "context": "load-e2e"}`+"\n", i, i, float64(i)/100)
	}
	require.NoError(t, os.WriteFile(file, []byte(lines.String()), 0o600))

	protocols := []string{"grpc", "stream", "rest", "oip-grpc", "oip-rest", "oip-binary"}
	for k, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			r, _ := load(t, 0, "load", "--protocol", protocol, "--rate", "100", "--arrivals", "constant", "--duration", "500ms", "--priority", "2", "--contexts", "3", "--timeout", "20s", "--slo", "errors=0,defaults=0")
			require.Equal(t, 50, r.Counts.Asked)
			require.Equal(t, 50, r.Counts.Answered)
			require.Equal(t, 50, r.Latency.Count)
			require.Positive(t, r.Latency.Min)
			require.Len(t, r.Objectives, 2)

			r, _ = load(t, 0, "load", "--protocol", protocol, "--file", file, "--replay", "--feedback", "1")
			require.Equal(t, 50, r.Counts.Answered)
			require.Equal(t, 50, r.Feedback.Accepted, r.Feedback.Errors)
			state := s.awaitObservations(t, "load", "load-e2e", 50*(k+1))
			require.NotEmpty(t, state.GetModels())

			r, _ = load(t, 0, "load", "--protocol", protocol, "--concurrency", "2", "--duration", "200ms")
			require.Equal(t, "closed", r.Loop)
			require.Positive(t, r.Counts.Answered)

			r, _ = load(t, 6, "slow", "--protocol", protocol, "--rate", "100", "--arrivals", "constant", "--duration", "200ms", "--slo", "defaults=10%")
			require.Equal(t, 20, r.Counts.Defaults)
			total := 0
			for reason, n := range r.Defaults {
				require.NotEmpty(t, reason)
				total += n
			}
			require.Equal(t, 20, total)

			_, said := load(t, 3, "nothing", "--protocol", protocol, "--file", file)
			require.Contains(t, said, "nothing")
		})
	}
	t.Run("a model itself", func(t *testing.T) {
		for _, protocol := range protocols[3:] {
			r, _ := load(t, 0, "slow", "--protocol", protocol, "--rate", "100", "--duration", "50ms")
			require.Positive(t, r.Counts.Defaults, "an application hides the model of its name")
			s.deploy(t, "alone-"+protocol, nil)
			r, _ = load(t, 0, "alone-"+protocol, "--model-version", "1", "--protocol", protocol, "--rate", "100", "--arrivals", "constant", "--duration", "200ms")
			require.Equal(t, 20, r.Counts.Answered)
			require.Zero(t, r.Counts.Defaults)
		}
	})
	t.Run("errors by reason", func(t *testing.T) {
		bad := filepath.Join(t.TempDir(), "bad.jsonl")
		require.NoError(t, os.WriteFile(bad, []byte("[1, 2]\n[1]\n"), 0o600))
		for _, protocol := range protocols[:3] {
			r, _ := load(t, 6, "load", "--protocol", protocol, "--file", bad, "--rate", "100", "--arrivals", "constant", "--duration", "200ms", "--slo", "errors=1%")
			require.Equal(t, 10, r.Counts.Answered)
			require.Len(t, r.Errors, 1)
			require.Equal(t, strings.TrimPrefix(clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE.String(), "ERROR_REASON_"), r.Errors[0].Reason)
			require.Equal(t, 10, r.Errors[0].Count)
			require.Contains(t, r.Errors[0].Example, "expected 2")
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		for _, protocol := range protocols {
			_, said := load(t, 4, "load", "--protocol", protocol, "--file", file, "--address", freeAddress(t), "--http-address", freeAddress(t))
			require.Contains(t, said, "cannot reach")
		}
	})
}
