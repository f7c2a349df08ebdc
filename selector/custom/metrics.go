// SPDX-License-Identifier: Apache-2.0

package custom

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// method is a call of the service.
type method uint8

const (
	describeCall method = iota
	selectCall
	combineCall
	observeCall
	methods
)

var methodNames = [methods]string{"describe", "select", "combine", "observe"}

// Why a call failed.
const (
	reasonLate        = "late"        // the time was up
	reasonUnavailable = "unavailable" // there is no connection
	reasonInvalid     = "invalid"     // it answered what it must not
	reasonFailed      = "failed"      // it answered with another error
)

var reasons = []string{reasonLate, reasonUnavailable, reasonInvalid, reasonFailed}

// logEvery is how often one call of one application is logged at most.
const logEvery = 10 * time.Second

// metrics are the measurements of all applications.
type metrics struct {
	duration *prometheus.HistogramVec
	failures *prometheus.CounterVec
	known    map[string]string // the applications that were in use last; guarded by Policies.mu
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "clipper_selector_policy_call_duration_seconds",
			Help:    "Time of a call to a custom policy, also of one that failed, by call.",
			Buckets: prometheus.ExponentialBuckets(0.0000625, 2, 16), // 62.5 us to 2 s
		}, []string{"application", "call"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "clipper_selector_policy_failures_total",
			Help: "Calls to a custom policy that failed, by call and reason: late, unavailable, invalid or failed.",
		}, []string{"application", "call", "reason"}),
		known: map[string]string{},
	}
	return m, errors.Join(r.Register(m.duration), r.Register(m.failures))
}

// retain forgets the applications that are not in use.
func (m *metrics) retain(use map[string]string) {
	for application := range m.known {
		if _, ok := use[application]; !ok {
			m.duration.DeletePartialMatch(prometheus.Labels{"application": application})
			m.failures.DeletePartialMatch(prometheus.Labels{"application": application})
		}
	}
	m.known = maps.Clone(use)
}

// observer measures and logs the calls of one application.
type observer struct {
	log      *slog.Logger
	duration [methods]prometheus.Observer
	failures [methods]map[string]prometheus.Counter
	lines    [methods]line
}

// line is when a call was last logged.
type line struct{ last, silent atomic.Int64 }

func (m *metrics) observer(log *slog.Logger, application, address string) *observer {
	o := &observer{log: log.With("application", application, "address", address)}
	for call := range methods {
		o.duration[call] = m.duration.WithLabelValues(application, methodNames[call])
		o.failures[call] = make(map[string]prometheus.Counter, len(reasons))
		for _, reason := range reasons {
			o.failures[call][reason] = m.failures.WithLabelValues(application, methodNames[call], reason)
		}
	}
	return o
}

// done counts a call. A caller who has left is no failure of the policy.
func (o *observer) done(ctx context.Context, call method, begin time.Time, err error) {
	o.duration[call].Observe(time.Since(begin).Seconds())
	if err == nil || errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	reason := reasonOf(ctx, err)
	o.failures[call][reason].Inc()
	now, l := time.Now().UnixNano(), &o.lines[call]
	last := l.last.Load()
	if last != 0 && now-last < int64(logEvery) || !l.last.CompareAndSwap(last, now) {
		l.silent.Add(1)
		return
	}
	o.log.Warn("custom policy failed", "call", methodNames[call], "reason", reason, "error", shorten(err.Error()), "not_logged", l.silent.Swap(0))
}

func reasonOf(ctx context.Context, err error) string {
	var refused *RefusedError
	switch {
	case errors.Is(err, errInvalid), errors.As(err, &refused):
		return reasonInvalid
	case ctx.Err() != nil:
		return reasonLate
	}
	switch status.Code(err) {
	case codes.DeadlineExceeded:
		return reasonLate
	case codes.Unavailable:
		return reasonUnavailable
	}
	return reasonFailed
}
