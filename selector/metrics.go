// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/selector/policy"
)

// metrics are the service's measurements. Labels are bounded by the applications and their models; those
// of an application go with it.
type metrics struct {
	queries    *prometheus.CounterVec
	defaults   *prometheus.CounterVec
	latency    *prometheus.HistogramVec
	asked      *prometheus.CounterVec
	missing    *prometheus.CounterVec
	early      *prometheus.CounterVec
	recalled   *prometheus.CounterVec
	feedback   *prometheus.CounterVec
	duplicates *prometheus.CounterVec
	outage     prometheus.Gauge
	buffered   prometheus.Counter
	replayed   *prometheus.CounterVec
	dropped    *prometheus.CounterVec
	canary     canaryMetrics
}

func newMetrics(r prometheus.Registerer, states interface{ EstimatedSize() int }) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "clipper_selector_" + name, Help: help}, labels)
	}
	m := &metrics{
		queries:  counter("queries_total", "Queries that were answered.", "application"),
		defaults: counter("defaults_total", "Answers that were the default output, by reason.", "application", "reason"),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "clipper_selector_query_duration_seconds",
			Help: "Time from the arrival of a query to its answer.",
			// The bounds are what people take for objectives, so that the share within one can be read.
			Buckets: []float64{.0002, .0005, .001, .002, .005, .01, .015, .02, .03, .05, .1, .2, .5, 1, 2, 5, 10},
		}, []string{"application"}),
		asked:      counter("models_asked_total", "Queries that asked a model.", "application", "model"),
		missing:    counter("models_late_total", "Queries that were answered before a model had answered, at the deadline or early.", "application", "model"),
		early:      counter("early_answers_total", "Queries that were answered before the deadline because what was missing could not change the answer.", "application"),
		recalled:   counter("late_predictions_recalled_total", "Predictions that came too late for the answer and were there for the feedback.", "application"),
		feedback:   counter("feedback_total", "Feedback that was counted.", "application"),
		duplicates: counter("feedback_duplicates_total", "Feedback that had been counted before.", "application"),
		outage: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "clipper_selector_store_outage", Help: "1 while the store does not answer, else 0.",
		}),
		buffered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "clipper_selector_feedback_buffered_total", Help: "Feedback that was put into the feedback buffer.",
		}),
		replayed: counter("feedback_replayed_total", "Feedback of the buffer that the store has got, by result.", "result"),
		dropped:  counter("feedback_dropped_total", "Feedback of the buffer that was dropped, by reason.", "reason"),
		canary:   newCanaryMetrics(),
	}
	cached := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "clipper_selector_cached_contexts", Help: "Contexts whose selection state is in memory.",
	}, func() float64 { return float64(states.EstimatedSize()) })
	return m, errors.Join(
		r.Register(cached),
		r.Register(m.queries), r.Register(m.defaults), r.Register(m.latency),
		r.Register(m.asked), r.Register(m.missing), r.Register(m.early), r.Register(m.recalled), r.Register(m.feedback), r.Register(m.duplicates),
		r.Register(m.outage), r.Register(m.buffered), r.Register(m.replayed), r.Register(m.dropped),
		m.canary.register(r),
	)
}

// forget removes what belongs to an application.
func (m *metrics) forget(application string) {
	labels := prometheus.Labels{"application": application}
	for _, vector := range []interface {
		DeletePartialMatch(prometheus.Labels) int
	}{m.queries, m.defaults, m.latency, m.asked, m.missing, m.early, m.recalled, m.feedback, m.duplicates} {
		vector.DeletePartialMatch(labels)
	}
	m.canary.forget(application)
}

// applicationMetrics are one application's.
type applicationMetrics struct {
	queries, feedback, duplicates prometheus.Counter
	early, recalled               prometheus.Counter
	latency                       prometheus.Observer
	asked, missing                []prometheus.Counter // by model
	defaults                      map[clipperv1.DefaultReason]prometheus.Counter
}

func (m *metrics) application(app *application) *applicationMetrics {
	a := &applicationMetrics{
		queries:    m.queries.WithLabelValues(app.name),
		feedback:   m.feedback.WithLabelValues(app.name),
		duplicates: m.duplicates.WithLabelValues(app.name),
		early:      m.early.WithLabelValues(app.name),
		recalled:   m.recalled.WithLabelValues(app.name),
		latency:    m.latency.WithLabelValues(app.name),
		defaults:   map[clipperv1.DefaultReason]prometheus.Counter{},
	}
	for _, key := range app.keys {
		a.asked = append(a.asked, m.asked.WithLabelValues(app.name, key))
		a.missing = append(a.missing, m.missing.WithLabelValues(app.name, key))
	}
	for value, name := range clipperv1.DefaultReason_name {
		if reason := clipperv1.DefaultReason(value); reason != clipperv1.DefaultReason_DEFAULT_REASON_UNSPECIFIED {
			a.defaults[reason] = m.defaults.WithLabelValues(app.name, strings.ToLower(strings.TrimPrefix(name, "DEFAULT_REASON_")))
		}
	}
	return a
}

// answered counts one answer, whose predictions are of these choices.
func (a *applicationMetrics) answered(r *clipperv1.QueryResponse, choices []policy.Choice, took time.Duration) {
	early := false
	for i, p := range r.Predictions {
		if late(p.Status) {
			a.missing[choices[i].Model].Inc()
			early = early || p.Status == clipperv1.PredictionStatus_PREDICTION_STATUS_PENDING
		}
	}
	if early {
		a.early.Inc()
	}
	a.queries.Inc()
	a.latency.Observe(took.Seconds())
	if r.IsDefault {
		a.defaults[r.DefaultReason].Inc()
	}
}
