// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// metrics counts what became of queries and feedback. Its labels are the applications that exist,
// never a name that a client sends.
type metrics struct {
	queries  *prometheus.CounterVec
	duration *prometheus.HistogramVec
	defaults *prometheus.CounterVec
	feedback *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		queries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "clipper_frontend_queries_total",
			Help: "Queries to an application by outcome: answered, default (the default output) or refused (an error).",
		}, []string{"application", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "clipper_frontend_query_seconds",
			Help:    "Time from a query's arrival to its answer, batches and streams included.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10},
		}, []string{"application"}),
		defaults: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "clipper_frontend_default_outputs_total",
			Help: "Default outputs by the reason for which they were given.",
		}, []string{"application", "reason"}),
		feedback: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "clipper_frontend_feedback_total",
			Help: "Feedback to an application by outcome: counted, duplicate, buffered or refused.",
		}, []string{"application", "outcome"}),
	}
	for _, c := range []prometheus.Collector{m.queries, m.duration, m.defaults, m.feedback} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register frontend metrics: %w", err)
		}
	}
	return m, nil
}

// forget drops the series of an application that is gone.
func (m *metrics) forget(application string) {
	labels := prometheus.Labels{"application": application}
	m.queries.DeletePartialMatch(labels)
	m.duration.DeletePartialMatch(labels)
	m.defaults.DeletePartialMatch(labels)
	m.feedback.DeletePartialMatch(labels)
}

// applicationMetrics holds the series of one application.
type applicationMetrics struct {
	answered, defaulted, refused           prometheus.Counter
	duration                               prometheus.Observer
	reasons                                []prometheus.Counter // By DefaultReason.
	counted, duplicate, buffered, rejected prometheus.Counter
}

func (m *metrics) of(application string) applicationMetrics {
	a := applicationMetrics{
		answered:  m.queries.WithLabelValues(application, "answered"),
		defaulted: m.queries.WithLabelValues(application, "default"),
		refused:   m.queries.WithLabelValues(application, "refused"),
		duration:  m.duration.WithLabelValues(application),
		reasons:   make([]prometheus.Counter, len(reasonNames)),
		counted:   m.feedback.WithLabelValues(application, "counted"),
		duplicate: m.feedback.WithLabelValues(application, "duplicate"),
		buffered:  m.feedback.WithLabelValues(application, "buffered"),
		rejected:  m.feedback.WithLabelValues(application, "refused"),
	}
	for reason, name := range reasonNames {
		a.reasons[reason] = m.defaults.WithLabelValues(application, name)
	}
	return a
}

// reasonNames are the values of the label "reason".
var reasonNames = [...]string{
	clipperv1.DefaultReason_DEFAULT_REASON_UNSPECIFIED:    "unspecified",
	clipperv1.DefaultReason_DEFAULT_REASON_DEADLINE:       "deadline",
	clipperv1.DefaultReason_DEFAULT_REASON_LOW_CONFIDENCE: "low_confidence",
	clipperv1.DefaultReason_DEFAULT_REASON_MODELS_FAILED:  "models_failed",
	clipperv1.DefaultReason_DEFAULT_REASON_NO_REPLICA:     "no_replica",
	clipperv1.DefaultReason_DEFAULT_REASON_OVERLOADED:     "overloaded",
	clipperv1.DefaultReason_DEFAULT_REASON_UNAVAILABLE:    "unavailable",
}

// observe accounts for an answer.
func (a *applicationMetrics) observe(response *clipperv1.QueryResponse, err error, seconds float64) {
	switch {
	case err != nil:
		a.refused.Inc()
		return
	case response.GetIsDefault():
		a.defaulted.Inc()
		if r := int(response.GetDefaultReason()); r >= 0 && r < len(a.reasons) {
			a.reasons[r].Inc()
		}
	default:
		a.answered.Inc()
	}
	a.duration.Observe(seconds)
}
