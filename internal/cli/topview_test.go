// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/internal/top"
)

func snapshot() *top.Snapshot {
	f := func(x float64) *float64 { return &x }
	n := func(x uint32) *uint32 { return &x }
	return &top.Snapshot{
		Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Seconds: 2,
		Notes: []string{"metrics: http://127.0.0.1:1368/metrics cannot be read: connection refused"},
		Models: []top.Model{
			{
				Model: "svm", Version: "1", Current: true, State: "ready", Ready: 2, Wanted: 2, QueueRows: n(0), InFlightRows: n(12),
				BatchRows: f(31.27), RowsPerSecond: f(12345), P50: f(1.234), P99: f(17.06), CacheHitRate: f(.9999), DroppedPerSecond: f(0),
			},
			{
				Model: "forest", Version: "2", Current: true, State: "degraded", Ready: 1, Wanted: 3, Restarts: 4, QueueRows: n(4711), Overloaded: true,
				BatchRows: f(512), RowsPerSecond: f(2345678), P50: f(120), P99: f(431), CacheHitRate: f(0), DroppedPerSecond: f(310.4),
				Replicas: []top.Replica{{ID: "0", State: "ready"}, {ID: "1", State: "failed", Restarts: 4}, {ID: "2", State: "starting"}},
			},
			{Model: "knn", Version: "1", State: "starting", Wanted: 1},
		},
		Applications: []top.Application{{
			Application: "digits", QueriesPerSecond: f(9876.5), P50: f(3.2), P99: f(21), Objective: 50, InTime: f(.98765), DefaultRate: f(.0124), RefusedPerSecond: f(0),
			Policy: "exp4", Weights: []top.Weight{{Model: "svm", Weight: .71}, {Model: "forest", Weight: .29}},
		}, {Application: "new", Objective: 20, Policy: "single"}},
	}
}

func TestTop_frame(t *testing.T) {
	for name, text := range map[string]string{
		"frame":         frame(snapshot(), order{}, false),
		"frame-colored": frame(snapshot(), order{column: 5, reversed: true}, true),
		"frame-empty":   frame(&top.Snapshot{Time: snapshot().Time}, order{}, false),
	} {
		path := filepath.Join("testdata", "top-"+name+".golden")
		if flag.Lookup("update").Value.String() == "true" {
			require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		}
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, string(want), text)
	}
	// All but a part of the weights is within 80 columns.
	for line := range strings.Lines(frame(snapshot(), order{}, false)) {
		if !strings.HasPrefix(line, "digits") {
			require.LessOrEqual(t, len([]rune(strings.TrimSpace(line))), 80, line)
		}
	}
}

func press(v *topView, keys ...string) (last tea.Cmd) {
	for _, key := range keys {
		k := tea.KeyPressMsg{Code: []rune(key)[0], Text: key}
		switch key {
		case "down":
			k = tea.KeyPressMsg{Code: tea.KeyDown}
		case "up":
			k = tea.KeyPressMsg{Code: tea.KeyUp}
		}
		_, last = v.Update(k)
	}
	return last
}

func TestTop_view(t *testing.T) {
	v := &topView{interval: time.Second}
	require.Contains(t, v.content(), "reading")
	_, again := v.Update(topRead{snapshot: snapshot()})
	require.NotNil(t, again, "it reads again")
	first := func() string {
		for line := range strings.Lines(v.content()) {
			for _, name := range []string{"svm:", "forest:", "knn:"} {
				if strings.HasPrefix(line, name) {
					return name
				}
			}
		}
		return ""
	}
	require.Equal(t, "forest:", first())
	press(v, "r")
	require.Equal(t, "svm:", first(), "by name, the other way round")
	press(v, "r", "s", "s", "s", "s", "s", "s", "s", "s", "s", "s")
	require.Equal(t, "forest:", first(), "once round the columns")
	press(v, "S", "S", "S", "S") // P50
	require.Equal(t, "forest:", first())

	// A small window shows a part, and scrolls no further than the end.
	v.Update(tea.WindowSizeMsg{Width: 40, Height: 5})
	require.Equal(t, 5, strings.Count(v.content(), "\n")+1)
	require.Contains(t, v.content(), "clipper top")
	press(v, strings.Split(strings.Repeat("down ", 100)+"down", " ")...)
	require.Contains(t, v.content(), "Times in milliseconds")
	require.Equal(t, 5, strings.Count(v.content(), "\n")+1)
	press(v, "up")
	require.NotContains(t, v.content(), "Times in milliseconds")

	// Paused, what is read is not shown; what cannot be read is said, and what was read stays.
	press(v, "p")
	v.Update(topRead{snapshot: &top.Snapshot{}})
	require.Contains(t, v.content(), "paused")
	v.Update(tea.WindowSizeMsg{Width: 80, Height: 50})
	require.Contains(t, v.content(), "svm:1")
	press(v, "p")
	v.Update(topRead{err: errors.New("it is gone")})
	require.Contains(t, v.content(), "svm:1")
	require.Contains(t, v.content(), "! it is gone")
	require.Equal(t, tea.Quit(), press(v, "q")())

	// One that can read nothing at all ends with the error.
	v = &topView{}
	_, quit := v.Update(topRead{err: errors.New("nobody there")})
	require.Equal(t, tea.Quit(), quit())
	require.EqualError(t, v.fatal, "nobody there")
}
