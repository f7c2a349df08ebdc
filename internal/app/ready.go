// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// readyInterval is both how often checks run and how long they may take.
const readyInterval = time.Second

type readyCheck struct {
	name string
	run  func(context.Context) error
}

// readiness evaluates the checks and remembers what they said.
type readiness struct {
	log    *slog.Logger
	checks []readyCheck
	report atomic.Pointer[readyReport]
}

// readyReport is the answer of /readyz.
type readyReport struct {
	Ready  bool              `json:"ready"`
	Reason string            `json:"reason,omitempty"` // Why not, when it is not for a check.
	Checks map[string]string `json:"checks,omitempty"` // For each check, "ok" or what is missing.
	final  bool              // The app is stopping: nothing follows.
}

func newReadiness(log *slog.Logger) *readiness {
	r := &readiness{log: log}
	r.report.Store(&readyReport{Reason: "starting"})
	return r
}

// watch evaluates the checks until ctx ends, and tells the servers.
func (r *readiness) watch(ctx context.Context, servers []server) {
	tick := time.NewTicker(readyInterval)
	defer tick.Stop()
	for {
		before, now := r.report.Load(), r.evaluate(ctx)
		if before.final || !r.report.CompareAndSwap(before, now) {
			return
		}
		r.logChange(before, now)
		for _, s := range servers {
			s.setReady(now.Ready)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (r *readiness) evaluate(ctx context.Context) *readyReport {
	ctx, cancel := context.WithTimeout(ctx, readyInterval)
	defer cancel()
	results := make([]error, len(r.checks))
	var wg sync.WaitGroup
	for i, check := range r.checks {
		wg.Go(func() { results[i] = check.run(ctx) })
	}
	wg.Wait()
	report := &readyReport{Ready: true, Checks: make(map[string]string, len(r.checks))}
	for i, err := range results {
		report.Checks[r.checks[i].name] = "ok"
		if err != nil {
			report.Checks[r.checks[i].name] = err.Error()
			report.Ready = false
		}
	}
	return report
}

func (r *readiness) logChange(before, now *readyReport) {
	switch {
	case now.Ready && !before.Ready:
		r.log.Info("ready")
	case !now.Ready && (before.Ready || before.Reason != ""):
		r.log.Warn("not ready", "checks", now.Checks)
	}
}

// drain says, for good, that the app is not ready.
func (r *readiness) drain(servers []server) {
	r.report.Store(&readyReport{Reason: "stopping", final: true})
	for _, s := range servers {
		s.drain()
	}
}

// ServeHTTP answers /readyz: 200 when ready, else 503, and why, as JSON.
func (r *readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	report := r.report.Load()
	w.Header().Set("Content-Type", "application/json")
	if !report.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(report) // It fails only when the client has gone.
}
