// SPDX-License-Identifier: Apache-2.0

package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/clipper-serving/clipper/internal/app"
	"github.com/clipper-serving/clipper/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const grace = 10 * time.Second

func options() app.Options {
	return app.Options{
		Name:     "test",
		Log:      slog.New(slog.DiscardHandler),
		Registry: prometheus.NewRegistry(),
		Shutdown: app.ShutdownConfig{Grace: grace},
	}
}

// start runs an app until the returned function is called, which waits for its
// end and returns what Run did. The app is built when start returns.
func start(t *testing.T, o app.Options, build func(a *app.App) error) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	built, result := make(chan struct{}), make(chan error, 1)
	go func() {
		result <- app.Run(ctx, o, func(a *app.App) error {
			defer close(built)
			return build(a)
		})
	}()
	<-built
	stop = sync.OnceValue(func() error {
		cancel()
		return <-result
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

// events is a list that several goroutines write.
type events struct {
	mu   sync.Mutex
	list []string
}

func (e *events) add(event string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, event)
}

func (e *events) loop(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		<-ctx.Done()
		time.Sleep(time.Second) // The next loop must not be told before this one has ended.
		e.add("loop " + name)
		return ctx.Err()
	}
}

func (e *events) close(name string) func() error {
	return func() error {
		e.add("close " + name)
		return nil
	}
}

func TestRun_stopsInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got events
		stop := start(t, options(), func(a *app.App) error {
			a.Go("1", got.loop("1"))
			a.Defer("1", got.close("1"))
			a.Go("2", got.loop("2"))
			a.Defer("2", got.close("2"))
			a.Go("short", func(context.Context) error { return nil })
			return nil
		})
		synctest.Wait()
		require.Empty(t, got.list)
		require.NoError(t, stop())
		require.Equal(t, []string{"loop 2", "loop 1", "close 2", "close 1"}, got.list)
	})
}

func TestRun_failedLoopStopsTheApp(t *testing.T) {
	var got events
	broken := errors.New("broken")
	err := app.Run(t.Context(), options(), func(a *app.App) error {
		a.Defer("store", got.close("store"))
		a.Go("good", func(ctx context.Context) error { <-ctx.Done(); return nil })
		a.Go("bad", func(context.Context) error { return broken })
		return nil
	})
	require.ErrorIs(t, err, broken)
	require.EqualError(t, err, "run bad: broken")
	require.Equal(t, []string{"close store"}, got.list)
}

func TestRun_errorsOfStoppingAreJoined(t *testing.T) {
	first, second, third := errors.New("first"), errors.New("second"), errors.New("third")
	stop := start(t, options(), func(a *app.App) error {
		a.Defer("a", func() error { return first })
		a.Defer("b", func() error { return second })
		a.Go("c", func(ctx context.Context) error { <-ctx.Done(); return third })
		return nil
	})
	err := stop()
	for _, want := range []error{first, second, third} {
		require.ErrorIs(t, err, want)
	}
}

func TestRun_failedBuildClosesWhatItOpened(t *testing.T) {
	var got events
	broken := errors.New("broken")
	var address string
	err := app.Run(t.Context(), options(), func(a *app.App) error {
		a.Defer("1", got.close("1"))
		a.Defer("2", got.close("2"))
		a.Go("loop", func(context.Context) error { got.add("loop started"); return nil })
		server, err := a.GRPC("server", grpcConfig(t))
		require.NoError(t, err)
		address = server.Address()
		_, err = a.HTTP("ops", httpConfig(t), a.Ops())
		require.NoError(t, err)
		return broken
	})
	require.ErrorIs(t, err, broken)
	require.Equal(t, []string{"close 2", "close 1"}, got.list)

	// The address is free again.
	cfg := grpcConfig(t)
	cfg.Listen = address
	stop := start(t, options(), func(a *app.App) error {
		_, err := a.GRPC("server", cfg)
		return err
	})
	require.NoError(t, stop())
}

func TestRun_nothingHoldsUpTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		var got events
		stop := start(t, options(), func(a *app.App) error {
			a.Defer("first", got.close("first"))
			a.Defer("stuck closer", func() error { <-release; return nil })
			a.Go("stuck loop", func(context.Context) error { <-release; return nil })
			return nil
		})
		began := time.Now()
		err := stop()
		require.ErrorIs(t, err, app.ErrGraceExceeded)
		require.ErrorContains(t, err, "stop stuck loop")
		require.ErrorContains(t, err, "close stuck closer")
		require.Equal(t, 2*grace, time.Since(began), "the two phases have the grace period each")
		synctest.Wait()
		require.Equal(t, []string{"close first"}, got.list)
	})
}

func TestRun_twoAppsOnOneRegistry(t *testing.T) {
	o := options()
	require.NoError(t, start(t, o, func(*app.App) error { return nil })())
	err := app.Run(t.Context(), o, func(*app.App) error { return nil })
	require.ErrorContains(t, err, "start test: register RPC metrics")
}

// readyz asks an ops handler, as an orchestrator would.
func readyz(t *testing.T, ops http.Handler) (code int, body map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	ops.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
	return w.Code, body
}

func TestReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ops http.Handler
		var mu sync.Mutex
		missing := errors.New("connection refused")
		o := options()
		o.Shutdown.Delay = 3 * time.Second
		stop := start(t, o, func(a *app.App) error {
			ops = a.Ops()
			code, body := readyz(t, ops)
			require.Equal(t, http.StatusServiceUnavailable, code)
			require.Equal(t, "starting", body["reason"])
			a.Ready("store", func(context.Context) error { return nil })
			a.Ready("selector", func(context.Context) error {
				mu.Lock()
				defer mu.Unlock()
				return missing
			})
			a.Ready("slow", func(ctx context.Context) error {
				select {
				case <-time.After(time.Millisecond):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			return nil
		})
		time.Sleep(10 * time.Millisecond)
		code, body := readyz(t, ops)
		require.Equal(t, http.StatusServiceUnavailable, code)
		require.Equal(t, map[string]any{
			"ready":  false,
			"checks": map[string]any{"store": "ok", "selector": "connection refused", "slow": "ok"},
		}, body)

		mu.Lock()
		missing = nil
		mu.Unlock()
		time.Sleep(time.Second)
		code, body = readyz(t, ops)
		require.Equal(t, http.StatusOK, code)
		require.Equal(t, true, body["ready"])

		stopped := make(chan error, 1)
		go func() { stopped <- stop() }()
		time.Sleep(time.Second)
		code, body = readyz(t, ops)
		require.Equal(t, http.StatusServiceUnavailable, code)
		require.Equal(t, "stopping", body["reason"], "during the delay, before anything stops")
		require.NoError(t, <-stopped)
	})
}

func TestReady_aCheckThatHangsIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ops http.Handler
		stop := start(t, options(), func(a *app.App) error {
			ops = a.Ops()
			a.Ready("hangs", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
			return nil
		})
		time.Sleep(1500 * time.Millisecond)
		code, body := readyz(t, ops)
		require.Equal(t, http.StatusServiceUnavailable, code)
		require.Equal(t, map[string]any{"hangs": "context deadline exceeded"}, body["checks"])
		require.NoError(t, stop())
	})
}

func TestOps(t *testing.T) {
	var ops http.Handler
	stop := start(t, options(), func(a *app.App) error {
		ops = a.Ops()
		counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "clipper_test_things_total", Help: "Things."})
		counter.Inc()
		return a.Registry.Register(counter)
	})
	tests := []struct {
		method, path string
		code         int
		contains     string
	}{
		{http.MethodGet, "/healthz", http.StatusOK, "ok"},
		{http.MethodGet, "/metrics", http.StatusOK, "clipper_test_things_total 1"},
		{http.MethodGet, "/debug/pprof/", http.StatusOK, "goroutine"},
		{http.MethodGet, "/debug/pprof/goroutine?debug=1", http.StatusOK, "goroutine profile"},
		{http.MethodPost, "/metrics", http.StatusMethodNotAllowed, ""},
		{http.MethodGet, "/", http.StatusNotFound, ""},
	}
	for _, tt := range tests {
		w := httptest.NewRecorder()
		ops.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), tt.method, tt.path, nil))
		require.Equal(t, tt.code, w.Code, tt.path)
		require.Contains(t, w.Body.String(), tt.contains)
	}
	require.NoError(t, stop())
}

func TestSignalContext(t *testing.T) {
	ctx, stop := app.SignalContext(t.Context())
	defer stop()
	require.NoError(t, ctx.Err())
	require.NoError(t, syscall.Kill(syscall.Getpid(), syscall.SIGTERM))
	<-ctx.Done()
	require.ErrorContains(t, context.Cause(ctx), "terminated")
}

func TestConfig_fromTheCommandLine(t *testing.T) {
	var cli struct {
		Log      app.LogConfig      `embed:"" prefix:"log-"`
		Shutdown app.ShutdownConfig `embed:"" prefix:"shutdown-"`
		Frontend struct {
			GRPC app.GRPCConfig `embed:"" prefix:"grpc-" set:"listen=127.0.0.1:1337"`
			Ops  app.HTTPConfig `embed:"" prefix:"ops-" set:"listen=127.0.0.1:1339"`
		} `cmd:""`
	}
	t.Setenv("CLIPPER_LOG_LEVEL", "debug")
	t.Setenv("CLIPPER_FRONTEND_GRPC_MAX_MESSAGE", "1MiB")
	parser, err := kong.New(&cli, config.Environment("CLIPPER"))
	require.NoError(t, err)
	_, err = parser.Parse([]string{"frontend", "--ops-idle-timeout=1m", "--log-format=json"})
	require.NoError(t, err)
	require.Equal(t, app.LogConfig{Level: slog.LevelDebug, Format: "json"}, cli.Log)
	require.Equal(t, app.GRPCConfig{
		Listen: "127.0.0.1:1337", MaxMessage: config.MiB, MaxConcurrentStreams: 1024,
		ConnectionTimeout: 10 * time.Second, Keepalive: 30 * time.Second,
	}, cli.Frontend.GRPC)
	require.Equal(t, app.HTTPConfig{
		Listen: "127.0.0.1:1339", HeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeader: 64 * config.KiB,
	}, cli.Frontend.Ops)
	require.Equal(t, app.ShutdownConfig{Grace: 10 * time.Second}, cli.Shutdown)

	var out bytes.Buffer
	log, err := cli.Log.New(&out)
	require.NoError(t, err)
	log.Debug("hello")
	require.Contains(t, out.String(), `"msg":"hello"`)
}

func TestConfig_refused(t *testing.T) {
	grpcCases := map[string]func(*app.GRPCConfig){
		"max-message":            func(c *app.GRPCConfig) { c.MaxMessage = 0 },
		"max-concurrent-streams": func(c *app.GRPCConfig) { c.MaxConcurrentStreams = 0 },
		"connection-timeout":     func(c *app.GRPCConfig) { c.ConnectionTimeout = 0 },
		"keepalive":              func(c *app.GRPCConfig) { c.Keepalive = time.Millisecond },
		"address is empty":       func(c *app.GRPCConfig) { c.Listen = "" },
	}
	httpCases := map[string]func(*app.HTTPConfig){
		"header-timeout":   func(c *app.HTTPConfig) { c.HeaderTimeout = 0 },
		"idle-timeout":     func(c *app.HTTPConfig) { c.IdleTimeout = -1 },
		"max-header":       func(c *app.HTTPConfig) { c.MaxHeader = 0 },
		"address is empty": func(c *app.HTTPConfig) { c.Listen = "" },
	}
	stop := start(t, options(), func(a *app.App) error {
		for want, spoil := range grpcCases {
			cfg := grpcConfig(t)
			spoil(&cfg)
			_, err := a.GRPC("server", cfg)
			require.ErrorContains(t, err, want)
		}
		for want, spoil := range httpCases {
			cfg := httpConfig(t)
			spoil(&cfg)
			_, err := a.HTTP("ops", cfg, a.Ops())
			require.ErrorContains(t, err, want)
		}
		return nil
	})
	require.NoError(t, stop())
}

// grpcConfig is the default configuration on a free port.
func grpcConfig(t *testing.T) (cfg app.GRPCConfig) {
	t.Helper()
	require.NoError(t, kong.ApplyDefaults(&cfg, kong.Vars{"listen": "127.0.0.1:0"}))
	return cfg
}

func httpConfig(t *testing.T) (cfg app.HTTPConfig) {
	t.Helper()
	require.NoError(t, kong.ApplyDefaults(&cfg, kong.Vars{"listen": "127.0.0.1:0"}))
	return cfg
}
