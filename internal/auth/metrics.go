// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/clipper-serving/clipper/internal/ratelimit"
)

type metrics struct {
	refused *prometheus.CounterVec
	limited *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "clipper_auth_refused_total",
			Help: "Calls, and messages on streams, that were refused for their credentials, by the reason.",
		}, []string{"reason"}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "clipper_rate_limited_queries_total",
			Help: "Queries that a limit refused, by whose limit it is (key, application) and which (rate, concurrency).",
		}, []string{"scope", "limit"}),
	}
	for _, c := range []prometheus.Collector{m.refused, m.limited} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	// They are there before there is anything to count.
	for _, reason := range []string{refusedMissing, refusedInvalid, refusedExpired, refusedUnavailable, refusedDenied} {
		m.refused.WithLabelValues(reason)
	}
	for _, scope := range []string{"key", "application"} {
		for _, limit := range []ratelimit.Limit{ratelimit.Rate, ratelimit.Concurrency} {
			m.limited.WithLabelValues(scope, string(limit))
		}
	}
	return m, nil
}

func (m *metrics) refuse(reason string) { m.refused.WithLabelValues(reason).Inc() }

func (m *metrics) limit(scope string, limit ratelimit.Limit, queries int) {
	m.limited.WithLabelValues(scope, string(limit)).Add(float64(queries))
}
