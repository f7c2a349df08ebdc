// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

func TestWrite(t *testing.T) {
	var out bytes.Buffer
	l, err := Open("stderr", &out, quiet)
	require.NoError(t, err)
	l.Write(t.Context(), &Entry{Caller: "key:a", Name: "ci\n{", Method: "/m", Outcome: "OK", Took: 1500 * time.Microsecond})
	var line map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &line))
	require.NotEmpty(t, line["time"])
	delete(line, "time")
	require.Equal(t, map[string]any{"level": "INFO", "msg": "audit", "caller": "key:a", "name": "ci\n{", "method": "/m", "outcome": "OK", "took_ms": 1.5}, line)
}

func TestOpen_none(t *testing.T) {
	l, err := Open("", nil, quiet)
	require.NoError(t, err)
	l.Write(t.Context(), &Entry{})
	require.NoError(t, l.Run(t.Context()))
	require.NoError(t, l.Close())
	_, err = Open(filepath.Join(t.TempDir(), "no", "such"), nil, quiet)
	require.Error(t, err)
}

func TestRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l, err := Open(path, nil, quiet)
	require.NoError(t, err)
	l.Write(t.Context(), &Entry{Caller: "first"})
	require.NoError(t, os.Rename(path, path+".1"))
	l.Write(t.Context(), &Entry{Caller: "second"})

	ctx, cancel := context.WithCancel(t.Context())
	hangup, done := make(chan os.Signal), make(chan error)
	go func() { done <- l.follow(ctx, hangup) }()
	hangup <- syscall.SIGHUP
	cancel()
	require.NoError(t, <-done)
	l.Write(t.Context(), &Entry{Caller: "third"})
	require.NoError(t, l.Close())

	old, err := os.ReadFile(path + ".1")
	require.NoError(t, err)
	require.Contains(t, string(old), "second")
	next, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(next), "third")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
}
