// SPDX-License-Identifier: Apache-2.0

package app

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxScrapes limits how many requests gather metrics at a time.
const maxScrapes = 4

// Ops returns the handler for those who operate the process, to be served on a
// listener of its own: /metrics (Prometheus), /healthz (200 while the process
// lives), /readyz (200 when every check passes, else 503; JSON that says which
// do not) and /debug/pprof/, but not its command line, which may have secrets.
func (a *App) Ops() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.Registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(a.Log.Handler(), slog.LevelError),
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
		Registry:            a.Registry,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.Handle("GET /readyz", a.readiness)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	return mux
}
