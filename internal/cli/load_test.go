// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/internal/cli"
	"github.com/clipper-serving/clipper/internal/loadgen"
)

// briefly loads the application of the fake server for a moment.
func briefly(words ...string) []string {
	return append([]string{"load", "digits", "--file", "-", "--rate", "200", "--arrivals", "constant", "--duration", "100ms", "--warm-up", "0s"}, words...)
}

func TestLoad(t *testing.T) {
	s := start(t)
	dir := t.TempDir()
	saved, page := filepath.Join(dir, "a.json"), filepath.Join(dir, "a.html")
	code, stdout, stderr := run(t, s.address, "[1, 2]\n", briefly("--save", saved, "--html", page, "--slo", "errors=100%")...)
	require.Zero(t, code, stderr)
	for _, part := range []string{
		"protocol     grpc\n", "open loop, 200@100ms queries a second, constant", "20 asked, 20 answered", "LATENCY", "99.99%", "late starts",
		"OBJECTIVE  BAR", "errors     100%  0%        yes", "Note: 20 latencies are too few",
	} {
		require.Contains(t, stdout, part)
	}
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	require.True(t, bytes.HasPrefix(text, []byte("<!doctype html>")))

	// Against the first run, stages, and with a bar that nothing meets.
	code, stdout, stderr = run(t, s.address, "[1, 2]\n", briefly("--rate", "100,200..300", "--baseline", saved, "--slo", "rate=1000000,errors=0", "--seed", "7")...)
	require.Equal(t, cli.ExitMissed, code)
	require.Regexp(t, `^clipper: missed: rate is [0-9.]+, the bar 1000000\n$`, stderr)
	for _, part := range []string{"STAGE", "200..300@50ms", "FIGURE", "setting: load", "differs", "NO"} {
		require.Contains(t, stdout, part)
	}

	code, stdout, stderr = run(t, s.address, "[1, 2]\n", briefly("--json", "--baseline", saved)...)
	require.Zero(t, code, stderr)
	require.Empty(t, stderr)
	var r loadgen.Report
	require.NoError(t, json.Unmarshal([]byte(stdout), &r))
	require.Equal(t, 20, r.Counts.Answered)
	require.Equal(t, "v1.2.3", r.Version)
	require.Empty(t, r.Comparison.Different)
}

// TestLoad_interrupted: what was measured until the user ends a run is shown.
func TestLoad_interrupted(t *testing.T) {
	s := start(t)
	t.Setenv("CLIPPER_ADDRESS", s.address)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	var out, errs bytes.Buffer
	code := cli.Run(ctx, cli.Terminal{Stdin: strings.NewReader("[1]"), Stdout: &out, Stderr: &errs}, build, []string{"load", "digits", "--file", "-", "--warm-up", "0s"})
	require.Equal(t, cli.ExitInterrupted, code)
	require.Contains(t, out.String(), "the run was interrupted")
}

func TestLoad_usage(t *testing.T) {
	s := start(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	inputs, other := file("inputs.jsonl", "[1]\n[2]\n"), file("other.json", "{}")
	for want, args := range map[string][]string{
		"--rate":                           {"--rate", "fast"},
		"can't be used together":           {"--rate", "1", "--concurrency", "2"},
		"--duration must be positive":      {"--duration", "0s"},
		"--concurrency must be":            {"--concurrency=-1"},
		"--connections must be":            {"--connections=-1"},
		"--priority must be":               {"--priority", "9"},
		"--feedback must be from 0 to 1":   {"--feedback", "2"},
		"--feedback needs --file":          {"--feedback", "0.5"},
		`query 1 of`:                       {"--feedback", "0.5", "--file", inputs},
		"--replay needs --file":            {"--replay"},
		`have no "at"`:                     {"--replay", "--file", inputs},
		"--speed must be":                  {"--speed", "0"},
		"--model-version is for":           {"--model-version", "1"},
		"no objective":                     {"--slo", "p98=1ms"},
		"--baseline":                       {"--baseline", filepath.Join(dir, "none")},
		"is no report":                     {"--baseline", other},
		"--file: open":                     {"--file", filepath.Join(dir, "none")},
		"line 1: is not JSON":              {"--file", file("bad.jsonl", "[1")},
		"must be one of":                   {"--protocol", "carrier-pigeon"},
		"a certificate and its key belong": {"--protocol", "rest", "--tls-cert", inputs},
		"--api-key-file":                   {"--protocol", "rest", "--api-key-file", filepath.Join(dir, "none")},
	} {
		code, stdout, stderr := run(t, s.address, "", append([]string{"load", "digits"}, args...)...)
		require.Equal(t, cli.ExitUsage, code, args)
		require.Empty(t, stdout, args)
		require.Contains(t, stderr, want, args)
	}
	// The fake does not serve the Open Inference Protocol.
	code, _, stderr := run(t, s.address, "", "load", "digits")
	require.Equal(t, cli.ExitUnreachable, code)
	require.Contains(t, stderr, "does not serve this")
}
