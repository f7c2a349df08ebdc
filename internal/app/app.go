// SPDX-License-Identifier: Apache-2.0

// Package app is the lifecycle of a process that runs one or more services:
// what is opened, started, watched and stopped, and in which order.
//
// A program describes its parts in a function; Run starts them and, when its
// context ends or a part fails, stops them:
//
//	ctx, stop := app.SignalContext(context.Background())
//	defer stop()
//	err := app.Run(ctx, app.Options{Name: "selector", Log: log, Registry: registry, Shutdown: cfg.Shutdown},
//		func(a *app.App) error {
//			if _, err := a.HTTP("ops", cfg.Ops, a.Ops()); err != nil {
//				return err
//			}
//			store, err := storebolt.Open(cfg.Path)
//			if err != nil {
//				return err
//			}
//			a.Defer("store", store.Close)
//			server, err := a.GRPC("selector", cfg.GRPC)
//			if err != nil {
//				return err
//			}
//			service, err := selector.New(cfg.Selector, selector.Deps{Store: store, Draining: server.Draining()})
//			if err != nil {
//				return err
//			}
//			service.Register(server)
//			a.Go("selector sync", service.Run)
//			a.Ready("abstraction", service.Reachable)
//			return nil
//		})
//
// Several services in one process are one function that adds the parts of each.
//
// # Start
//
// A server listens from the moment it is added, so its address is known even
// when the port was left to the system, and answers once the function has
// returned. Loops start before servers. If the function fails, what it had
// opened is closed again and nothing has been started.
//
// # Readiness
//
// The app is ready when every check passes. Checks run once a second; their
// result is what /readyz and grpc.health.v1 (for each service and for the server
// as a whole) say until the next time.
//
// # Stop
//
// Stopping has five phases. Within each, parts are stopped one after another, in
// the reverse of the order in which they were added.
//
//  1. The app says that it is not ready, and waits for the configured delay, so
//     that load balancers can notice.
//  2. What is served is handed over to other processes, while the servers still
//     answer.
//  3. Each server's Draining channel is closed, which long-lived streams watch to
//     end in good order; it accepts no more calls and finishes those in flight.
//     What is still in flight when the grace period is over is cancelled.
//  4. Each loop's context is cancelled and its end awaited.
//  5. What was deferred is closed.
//
// Phases 2 to 5 have the grace period each. A part that takes longer is left
// behind and reported; no part can keep the process from ending. Thus a part may
// use the parts added before it until its own end, and a call in flight may use
// everything.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/clipper-serving/clipper/internal/telemetry"
)

// ErrGraceExceeded says that a part had not stopped when the grace period was over.
var ErrGraceExceeded = errors.New("still busy at the end of the grace period")

// Options are what an app is made with. All but Shutdown are required.
type Options struct {
	Name     string               // The name of the app, for its log lines.
	Log      *slog.Logger         // Where the app and its servers log.
	Registry *prometheus.Registry // Where metrics are registered, and what /metrics shows.
	Shutdown ShutdownConfig
}

// App collects the parts of a process. Its methods are for the function given to
// Run, and not safe for concurrent use.
type App struct {
	// Log is the logger given in the options.
	Log *slog.Logger
	// Registry is the metrics registry given in the options.
	Registry *prometheus.Registry
	// RPC observes the calls of all gRPC servers of the app. It is here so that
	// in-process connections can have the same interceptors.
	RPC *telemetry.RPC

	name      string
	shutdown  ShutdownConfig
	readiness *readiness
	servers   []server
	leavers   []func(context.Context)
	loops     []*loop
	closers   []closer

	mu       sync.Mutex
	failures []error
}

// server is a gRPC or HTTP server.
type server interface {
	// serve answers until the server is stopped, which is not an error.
	serve() error
	// stop ends the server: in good order until ctx ends, then by force.
	stop(ctx context.Context) error
	// abandon closes a server that never served.
	abandon()
	// setReady announces whether the app is ready.
	setReady(ready bool)
	// drain announces that the app is not ready, for good.
	drain()
}

type closer struct {
	name  string
	close func() error
}

// Run builds an app and runs it until ctx ends or one of its parts fails; then
// it stops all parts. It returns nil when ctx ended and all parts stopped well,
// and otherwise everything that went wrong, joined.
func Run(ctx context.Context, o Options, build func(*App) error) error {
	defer paceCollector()()
	rpc, err := telemetry.NewRPC(o.Log, o.Registry)
	if err != nil {
		return fmt.Errorf("start %s: %w", o.Name, err)
	}
	a := &App{
		Log:       o.Log,
		Registry:  o.Registry,
		RPC:       rpc,
		name:      o.Name,
		shutdown:  o.Shutdown,
		readiness: newReadiness(o.Log),
	}
	if err := build(a); err != nil {
		a.fail(fmt.Errorf("start %s: %w", o.Name, err))
		for _, s := range slices.Backward(a.servers) {
			s.abandon()
		}
		a.close()
		return a.err()
	}
	a.run(ctx)
	return a.err()
}

// Go adds a loop that runs in the background from the start of the app until its
// context is cancelled. An error that it returns before that stops the app; a
// loop that returns nil has simply come to its end.
func (a *App) Go(name string, run func(context.Context) error) {
	a.loops = append(a.loops, &loop{name: name, run: run, done: make(chan struct{})})
}

// Defer adds what is to be closed when all servers and loops have ended.
func (a *App) Defer(name string, closing func() error) {
	a.closers = append(a.closers, closer{name, closing})
}

// Leave adds what is done before the servers stop, and while everything still runs.
// It must return when its context ends.
func (a *App) Leave(leave func(context.Context)) {
	a.leavers = append(a.leavers, leave)
}

// Ready adds a condition of readiness. The check returns nil when it is met, and
// otherwise says what is missing. It must return when its context ends.
func (a *App) Ready(name string, check func(context.Context) error) {
	a.readiness.checks = append(a.readiness.checks, readyCheck{name, check})
}

func (a *App) run(ctx context.Context) {
	running, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	fail := func(err error) {
		a.fail(err)
		cancel(err)
	}

	// Loops outlive ctx: calls that are in flight when it ends may need them.
	background := context.WithoutCancel(ctx)
	watch := &loop{name: "readiness", done: make(chan struct{}), run: func(ctx context.Context) error {
		a.readiness.watch(ctx, a.servers)
		return nil
	}}
	a.loops = append([]*loop{watch}, a.loops...)
	for _, l := range a.loops {
		l.start(background, fail)
	}
	for _, s := range a.servers {
		go func() {
			if err := s.serve(); err != nil {
				fail(err)
			}
		}()
	}
	a.Log.Info("started", "app", a.name)

	<-running.Done()
	a.Log.Info("stopping", "app", a.name, "cause", context.Cause(running))
	a.stop()
	a.Log.Info("stopped", "app", a.name)
}

func (a *App) stop() {
	a.readiness.drain(a.servers)
	time.Sleep(a.shutdown.Delay)
	a.phase(func(ctx context.Context) {
		for _, leave := range slices.Backward(a.leavers) {
			leave(ctx)
		}
	})
	a.phase(func(ctx context.Context) {
		for _, s := range slices.Backward(a.servers) {
			a.fail(s.stop(ctx))
		}
	})
	a.phase(func(ctx context.Context) {
		for _, l := range slices.Backward(a.loops) {
			a.fail(l.stop(ctx))
		}
	})
	a.close()
}

func (a *App) close() {
	a.phase(func(ctx context.Context) {
		for _, c := range slices.Backward(a.closers) {
			done := make(chan error, 1)
			go func() { done <- c.close() }()
			var err error
			select {
			case err = <-done:
			case <-ctx.Done():
				err = ErrGraceExceeded
			}
			if err != nil {
				a.fail(fmt.Errorf("close %s: %w", c.name, err))
			}
		}
	})
}

// phase runs a phase of stopping with the grace period as its time.
func (a *App) phase(run func(context.Context)) {
	ctx, cancel := context.WithTimeout(context.Background(), a.shutdown.Grace)
	defer cancel()
	run(ctx)
}

// fail records what went wrong, if anything.
func (a *App) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failures = append(a.failures, err)
}

func (a *App) err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return errors.Join(a.failures...)
}

// loop is a function that runs in the background.
type loop struct {
	name   string
	run    func(context.Context) error
	cancel context.CancelFunc
	done   chan struct{}
}

func (l *loop) start(ctx context.Context, fail func(error)) {
	ctx, l.cancel = context.WithCancel(ctx)
	go func() {
		defer close(l.done)
		err := l.run(ctx)
		if err == nil || ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return
		}
		fail(fmt.Errorf("run %s: %w", l.name, err))
	}()
}

func (l *loop) stop(ctx context.Context) error {
	l.cancel()
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop %s: %w", l.name, ErrGraceExceeded)
	}
}
