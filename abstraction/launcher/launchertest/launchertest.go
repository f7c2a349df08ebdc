// SPDX-License-Identifier: Apache-2.0

// Package launchertest has the suite that every launcher passes. It tests with a
// program of its own, which is the test binary started again: see [Main].
package launchertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/abstraction/launcher"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// EnvBehaviour holds the [Behaviour] of the suite's program. The launcher under test
// must pass it on, as it does any other variable.
const EnvBehaviour = "LAUNCHERTEST_BEHAVIOUR"

// Behaviour is what the suite's program does.
type Behaviour string

const (
	serve  Behaviour = "serve"  // greets who connects with its environment; exits with 0 on SIGTERM
	ignore Behaviour = "ignore" // as serve, but does nothing on SIGTERM
	never  Behaviour = "never"  // writes 20 lines and exits with launcher.ExitNever
	crash  Behaviour = "crash"  // ends itself with SIGKILL
	eat    Behaviour = "eat"    // takes 1 GiB of memory and exits with 0
)

// Suite is what a launcher brings to the test.
type Suite struct {
	// New returns a new launcher with that grace period.
	New func(t *testing.T, grace time.Duration) launcher.Launcher
	// Container returns a container whose program is this test binary, or one like it
	// whose main function is [Main], with nothing in its environment.
	Container func(t *testing.T) *clipperv1.Container
	// Unlimited is why the launcher cannot hold replicas to limits on this machine; empty when it can. What
	// needs limits is skipped then, or fails where CLIPPER_REQUIRE_LIMITS is set.
	Unlimited string
}

// Main runs the suite's program when this process was started as that, and returns the code
// with which it must exit then. Call it first in TestMain.
func Main() (code int, ran bool) {
	b := Behaviour(os.Getenv(EnvBehaviour))
	if b == "" {
		return 0, false
	}
	return run(b), true
}

func run(b Behaviour) int {
	switch b {
	case never:
		for i := range 20 {
			fmt.Fprintln(os.Stderr, "line", i)
		}
		fmt.Fprintln(os.Stderr, "the model cannot be read")
		return launcher.ExitNever
	case crash:
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		// The first process of a container is spared its own signals. This is what the engine would say.
		return 128 + int(syscall.SIGKILL)
	case eat:
		const block, page = 1 << 20, 4 << 10
		var eaten [][]byte
		for range 1 << 10 {
			b := make([]byte, block)
			for i := 0; i < block; i += page {
				b[i] = 1 // Memory that is not written to is not there.
			}
			eaten = append(eaten, b)
		}
		runtime.KeepAlive(eaten)
		return 0
	}

	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)
	network, address := "tcp", os.Getenv(launcher.EnvAddress)
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), network, address)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprintln(conn, strings.Join(os.Environ(), "\n"))
			_ = conn.Close()
		}
	}()
	parent := make(chan struct{})
	if os.Getenv(launcher.EnvExitWithParent) == "1" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			close(parent)
		}()
	}
	fmt.Println("serving")
	for {
		select {
		case <-parent:
			return 3
		case <-terminate:
			if b == serve {
				return 0
			}
			fmt.Println("ignored")
		}
	}
}

// A launcher that is right makes no test wait for the long grace period.
const (
	longGrace  = time.Minute
	shortGrace = time.Second
)

// Run runs the suite.
func Run(t *testing.T, s Suite) {
	start := func(t *testing.T, b Behaviour, grace time.Duration) launcher.Instance {
		t.Helper()
		l := s.New(t, grace)
		i, err := l.Start(t.Context(), s.spec(t, b))
		require.NoError(t, err)
		return i
	}

	t.Run("a replica serves at its address until it is stopped", func(t *testing.T) {
		i := start(t, serve, longGrace)
		env := Greeting(t, i)
		require.Contains(t, env, launcher.EnvModelName+"=digits")
		require.Contains(t, env, launcher.EnvModelVersion+"=v1")
		require.Contains(t, env, "GREETING=hello world")
		require.Zero(t, i.Exit())
		i.Stop(t.Context())
		requireDone(t, i)
		require.Equal(t, launcher.Exit{Code: 0}, i.Exit())
		i.Stop(t.Context())
	})

	t.Run("two replicas have addresses of their own", func(t *testing.T) {
		l := s.New(t, longGrace)
		spec := s.spec(t, serve)
		a, err := l.Start(t.Context(), spec)
		require.NoError(t, err)
		spec.Replica = "1"
		b, err := l.Start(t.Context(), spec)
		require.NoError(t, err)
		require.NotEqual(t, a.Address(), b.Address())
		Greeting(t, a)
		a.Stop(t.Context())
		Greeting(t, b)
	})

	t.Run("a replica that ends tells its code and its last lines", func(t *testing.T) {
		i := start(t, never, longGrace)
		<-i.Done()
		require.Equal(t, launcher.Exit{Code: launcher.ExitNever}, i.Exit())
		require.True(t, i.Exit().Never())
		require.Equal(t, []string{"line 18", "line 19", "the model cannot be read"}, i.Logs(3))
	})

	t.Run("a replica that a signal ends tells which", func(t *testing.T) {
		i := start(t, crash, longGrace)
		<-i.Done()
		require.False(t, i.Exit().Never())
		require.NotZero(t, i.Exit().Code)
		require.Contains(t, i.Exit().String(), "killed")
	})

	t.Run("a replica that uses more memory than it may tells so", func(t *testing.T) {
		if s.Unlimited != "" {
			if os.Getenv("CLIPPER_REQUIRE_LIMITS") != "" {
				require.Fail(t, "no limits", s.Unlimited)
			}
			t.Skip(s.Unlimited)
		}
		spec := s.spec(t, eat)
		spec.Container.Resources = &clipperv1.Resources{MemoryBytes: 128 << 20, Cpus: 1}
		i, err := s.New(t, longGrace).Start(t.Context(), spec)
		require.NoError(t, err)
		<-i.Done()
		require.True(t, i.Exit().OutOfMemory, i.Exit().String())
		require.Equal(t, "was killed by the kernel: out of memory, limit 128 MiB", i.Exit().String())
	})

	t.Run("a replica that ignores the signal is killed after the grace period", func(t *testing.T) {
		i := start(t, ignore, shortGrace)
		Greeting(t, i)
		i.Stop(t.Context())
		requireDone(t, i)
		require.NotZero(t, i.Exit().Code)
		require.Contains(t, i.Logs(10), "ignored")
	})

	t.Run("a replica that ignores the signal is killed when the caller will not wait", func(t *testing.T) {
		i := start(t, ignore, longGrace)
		Greeting(t, i)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		i.Stop(ctx)
		requireDone(t, i)
		require.NotZero(t, i.Exit().Code)
	})

	t.Run("close stops every replica and starts none", func(t *testing.T) {
		l := s.New(t, longGrace)
		spec := s.spec(t, ignore)
		i, err := l.Start(t.Context(), spec)
		require.NoError(t, err)
		Greeting(t, i)
		require.NoError(t, l.Close())
		requireDone(t, i)
		_, err = l.Start(t.Context(), spec)
		require.Error(t, err)
		require.NoError(t, l.Close())
	})

	t.Run("a replica name is used again", func(t *testing.T) {
		l := s.New(t, longGrace)
		for range 3 {
			i, err := l.Start(t.Context(), s.spec(t, serve))
			require.NoError(t, err)
			Greeting(t, i)
			i.Stop(t.Context())
		}
	})

	t.Run("logs are those of the last run, or of the one before", func(t *testing.T) {
		l := s.New(t, longGrace)
		first, err := l.Start(t.Context(), s.spec(t, never))
		require.NoError(t, err)
		<-first.Done()
		q := launcher.LogQuery{Model: "digits", Version: "v1", Replica: "0", Tail: 3}
		ended := []string{"line 18", "line 19", "the model cannot be read"}
		lines, err := read(t, l, q)
		require.NoError(t, err)
		require.Equal(t, ended, texts(lines))
		q.Tail = 100
		lines, err = read(t, l, q)
		require.NoError(t, err)
		require.Len(t, lines, 21)
		require.True(t, slices.IsSortedFunc(lines, func(a, b launcher.Line) int { return a.Time.Compare(b.Time) }))
		require.NotEqual(t, lines[0].Time, lines[1].Time)
		q.Since = lines[17].Time
		lines, err = read(t, l, q)
		require.NoError(t, err)
		require.Equal(t, ended, texts(lines))
		// It has ended, so there is nothing to wait for.
		q.Follow = true
		lines, err = read(t, l, q)
		require.NoError(t, err)
		require.Equal(t, ended, texts(lines))
		q = launcher.LogQuery{Model: "digits", Version: "v1", Replica: "0", Tail: 3, Previous: true}
		_, err = read(t, l, q)
		require.ErrorIs(t, err, launcher.ErrNoLog)

		second, err := l.Start(t.Context(), s.spec(t, serve))
		require.NoError(t, err)
		Greeting(t, second)
		lines, err = read(t, l, q)
		require.NoError(t, err)
		require.Equal(t, ended, texts(lines))
		q.Previous = false
		lines, err = read(t, l, q)
		require.NoError(t, err)
		require.Equal(t, []string{"serving"}, texts(lines))
	})

	t.Run("a log is followed until the run ends, or the reader does", func(t *testing.T) {
		l := s.New(t, shortGrace)
		i, err := l.Start(t.Context(), s.spec(t, ignore))
		require.NoError(t, err)
		q := launcher.LogQuery{Model: "digits", Version: "v1", Replica: "0", Tail: 10, Follow: true}
		lines := make(chan string, 10)
		done := make(chan error, 1)
		go func() {
			done <- l.Logs(t.Context(), q, func(line launcher.Line) error {
				lines <- line.Text
				return nil
			})
		}()
		require.Equal(t, "serving", <-lines)
		ctx, leave := context.WithCancel(t.Context())
		require.ErrorIs(t, l.Logs(ctx, q, func(launcher.Line) error { leave(); return nil }), context.Canceled)
		broken := errors.New("the reader has had enough")
		require.ErrorIs(t, l.Logs(t.Context(), q, func(launcher.Line) error { return broken }), broken)
		i.Stop(t.Context())
		require.Equal(t, "ignored", <-lines)
		require.NoError(t, <-done)
	})

	t.Run("a replica that never was has no log", func(t *testing.T) {
		_, err := read(t, s.New(t, longGrace), launcher.LogQuery{Model: "digits", Version: "v1", Replica: "7", Tail: 1, Follow: true})
		require.ErrorIs(t, err, launcher.ErrNoLog)
	})

	t.Run("a container of no kind is another's business", func(t *testing.T) {
		l := s.New(t, longGrace)
		require.ErrorIs(t, l.Check(&clipperv1.Container{}), launcher.ErrUnsupported)
		_, err := l.Start(t.Context(), launcher.Spec{Model: "digits", Version: "v1", Replica: "0", Container: &clipperv1.Container{}})
		require.ErrorIs(t, err, launcher.ErrUnsupported)
		require.NoError(t, l.Check(s.spec(t, serve).Container))
	})

	t.Run("nothing is started for a caller who has gone", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := s.New(t, longGrace).Start(ctx, s.spec(t, serve))
		require.ErrorIs(t, err, context.Canceled)
	})
}

func read(t *testing.T, l launcher.Launcher, q launcher.LogQuery) (lines []launcher.Line, err error) {
	t.Helper()
	err = l.Logs(t.Context(), q, func(line launcher.Line) error {
		lines = append(lines, line)
		return nil
	})
	return lines, err
}

func texts(lines []launcher.Line) []string {
	all := make([]string, len(lines))
	for i, l := range lines {
		all[i] = l.Text
	}
	return all
}

func (s Suite) spec(t *testing.T, b Behaviour) launcher.Spec {
	c := s.Container(t)
	c.Environment = map[string]string{
		EnvBehaviour: string(b), "GREETING": "hello world",
		"GORACE": "atexit_sleep_ms=0", // a program with the race detector would sleep a second before it ends
	}
	return launcher.Spec{Model: "digits", Version: "v1", Replica: "0", Container: c}
}

// Greeting waits until the suite's program serves and returns its environment.
func Greeting(t *testing.T, i launcher.Instance) []string {
	t.Helper()
	network, address := "tcp", i.Address()
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	retry := time.NewTicker(5 * time.Millisecond)
	defer retry.Stop()
	for {
		if conn, err := new(net.Dialer).DialContext(t.Context(), network, address); err == nil {
			defer func() { _ = conn.Close() }()
			text, err := io.ReadAll(conn)
			require.NoError(t, err)
			return strings.Split(strings.TrimSpace(string(text)), "\n")
		}
		select {
		case <-i.Done():
			require.Fail(t, "the replica has ended", "%v: %v", i.Exit(), i.Logs(10))
		case <-retry.C:
		}
	}
}

func requireDone(t *testing.T, i launcher.Instance) {
	t.Helper()
	select {
	case <-i.Done():
	default:
		require.Fail(t, "Stop returned before the replica had ended")
	}
}
