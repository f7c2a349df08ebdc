// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// testLogs reads logs and follows one over the death of its replica.
func testLogs(t *testing.T, s *system) {
	s.deploy(t, "logs", nil)
	before := s.containers(t)
	out, code := s.clipper(t, "", "logs", "logs")
	require.Zero(t, code)
	// With a store that instances share, the replica's instance is said as well.
	require.Regexp(t, `^0(@127\.0\.0\.1:\d+)? \| .* model=logs`, out)
	require.NotEmpty(t, before)

	follower := startProcess(t, "logs", programs.clipper, "logs", "logs", "--follow", "--admin-address", s.adminConn.Target())
	t.Cleanup(func() { follower.kill(t) })
	lines := func() int { return strings.Count(follower.output.String(), "msg=serving") }
	require.Eventually(t, func() bool { return lines() == 1 }, patience, poll)
	s.killReplicaOf(t, "logs")
	require.Eventually(t, func() bool { return lines() == 2 }, patience, poll)
	out, code = s.clipper(t, "", "logs", "logs", "--previous", "--tail", "1", "--json")
	require.Zero(t, code)
	var line struct{ Replica, Text string }
	require.NoError(t, json.Unmarshal([]byte(out), &line))
	require.Equal(t, "0", line.Replica)
	follower.signal(t, syscall.SIGINT)
	require.Zero(t, follower.wait(t))

	_, code = s.clipper(t, "", "logs", "logs", "--replica", "9")
	require.Equal(t, 3, code)
	_, err := s.models.DeleteModel(t.Context(), &clipperv1.DeleteModelRequest{Model: "logs"})
	require.NoError(t, err)
}

// killReplicaOf kills the process that serves a model.
func (s *system) killReplicaOf(t *testing.T, model string) {
	t.Helper()
	for _, pid := range s.containers(t) {
		environment, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
		if err == nil && strings.Contains(string(environment), "CLIPPER_MODEL_NAME="+model+"\x00") {
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
			return
		}
	}
	require.Fail(t, "no process serves the model", model)
}

// testTop watches a model that is asked.
func testTop(t *testing.T, s *system) {
	s.deploy(t, "top", nil)
	s.create(t, application("top", "single", "top"))
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asking.Go(func() {
		for x := 0.0; ctx.Err() == nil; x++ {
			_, _ = s.queries.Query(ctx, &clipperv1.QueryRequest{Application: "top", Inputs: input(x, 0)})
		}
	})
	defer asking.Wait()
	defer cancel()
	var metrics []string
	for _, name := range s.services {
		metrics = append(metrics, s.ops[name]+"/metrics")
	}
	arguments := []string{"top", "--metrics", strings.Join(metrics, ","), "--interval", "1s"}

	out, code := s.clipper(t, "", append(arguments, "--once", "--json")...)
	require.Zero(t, code)
	var seen struct {
		Models []struct {
			Model, State  string
			RowsPerSecond float64  `json:"rows_per_second"`
			P99           *float64 `json:"p99_ms"`
		}
		Applications []struct {
			Application      string
			QueriesPerSecond float64 `json:"queries_per_second"`
			InTime           float64 `json:"in_time"`
			Weights          []struct {
				Model  string
				Weight float64
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(out), &seen))
	found := 0
	for _, m := range seen.Models {
		if m.Model == "top" {
			found++
			require.Equal(t, "ready", m.State)
			require.Positive(t, m.RowsPerSecond)
			require.NotNil(t, m.P99)
		}
	}
	for _, a := range seen.Applications {
		if a.Application == "top" {
			found++
			require.Positive(t, a.QueriesPerSecond)
			require.InDelta(t, 1, a.Weights[0].Weight, 1e-9)
		}
	}
	require.Equal(t, 2, found)
	out, code = s.clipper(t, "", append(arguments, "--once")...)
	require.Zero(t, code)
	require.Contains(t, out, "top:1*")
	require.NotContains(t, out, "\x1b")

	for _, color := range []string{"", "NO_COLOR=1"} {
		screen := s.terminal(t, color, arguments...)
		screen.await(t, "APPLICATION")
		screen.await(t, "p pause")
		screen.press(t, "p")
		screen.await(t, "paused")
		require.Equal(t, color == "", strings.Contains(screen.text(), "\x1b[32mready"))
		screen.clear()
		require.NoError(t, pty.Setsize(screen.tty, &pty.Winsize{Cols: 40, Rows: 6}))
		screen.await(t, "paused") // It is drawn anew.
		screen.press(t, "q")
		require.NoError(t, screen.cmd.Wait())
		<-screen.read
		require.Contains(t, screen.text(), "\x1b[?1049l", "the screen from before is back")
	}
}

// screen is a command in a terminal.
type screen struct {
	cmd  *exec.Cmd
	tty  *os.File
	out  output
	read chan struct{}
	from int // what was written before is not of interest
}

func (s *system) terminal(t *testing.T, variable string, arguments ...string) *screen {
	t.Helper()
	c := &screen{cmd: exec.CommandContext(t.Context(), programs.clipper, arguments...), read: make(chan struct{})}
	c.cmd.Env = []string{"TERM=xterm-256color", "CLIPPER_ADMIN_ADDRESS=" + s.adminConn.Target(), variable}
	var err error
	c.tty, err = pty.StartWithSize(c.cmd, &pty.Winsize{Cols: 80, Rows: 200})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.tty.Close() })
	go func() {
		defer close(c.read)
		_, _ = io.Copy(&c.out, c.tty) // It ends with the command.
	}()
	return c
}

func (c *screen) text() string { return c.out.String()[c.from:] }

func (c *screen) clear() { c.from = len(c.out.String()) }

func (c *screen) await(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(c.text(), text) }, patience, poll, "%q", text)
}

func (c *screen) press(t *testing.T, key string) {
	t.Helper()
	_, err := c.tty.WriteString(key)
	require.NoError(t, err)
}
