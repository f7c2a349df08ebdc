// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/selector/canary"
)

// canaryMetrics are the measurements of canaries. Labels are bounded by the applications that have one.
type canaryMetrics struct {
	share      *prometheus.GaugeVec
	state      *prometheus.GaugeVec
	difference *prometheus.GaugeVec
	steps      *prometheus.CounterVec
}

var canaryStates = map[clipperv1.CanaryState]string{
	clipperv1.CanaryState_CANARY_STATE_RUNNING:     "running",
	clipperv1.CanaryState_CANARY_STATE_PROMOTED:    "promoted",
	clipperv1.CanaryState_CANARY_STATE_ROLLED_BACK: "rolled_back",
}

func newCanaryMetrics() canaryMetrics {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "clipper_canary_" + name, Help: help}, labels)
	}
	return canaryMetrics{
		share:      gauge("share", "Share of the queries that ask the canary.", "application"),
		state:      gauge("state", "1 for what the canary is doing, else 0.", "application", "state"),
		difference: gauge("difference", "Mean of the canary less that of its baseline, by metric.", "application", "metric"),
		steps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "clipper_canary_steps_total", Help: "Changes of the canary's share that this instance has made, up or down to 0.",
		}, []string{"application", "direction"}),
	}
}

func (m canaryMetrics) register(r prometheus.Registerer) error {
	return errors.Join(r.Register(m.share), r.Register(m.state), r.Register(m.difference), r.Register(m.steps))
}

// forget removes what belongs to an application.
func (m canaryMetrics) forget(application string) {
	labels := prometheus.Labels{"application": application}
	m.share.DeletePartialMatch(labels)
	m.state.DeletePartialMatch(labels)
	m.difference.DeletePartialMatch(labels)
	m.steps.DeletePartialMatch(labels)
}

// show sets what a canary is doing.
func (m canaryMetrics) show(app *application) {
	m.share.WithLabelValues(app.name).Set(app.panel.Priors()[app.trial.models[armCanary]])
	for state, name := range canaryStates {
		value := 0.0
		if state == app.trial.progress.State {
			value = 1
		}
		m.state.WithLabelValues(app.name, name).Set(value)
	}
}

// compare sets how far the two models are apart.
func (m canaryMetrics) compare(application string, tests [metricCount]canary.Test) {
	for i, test := range tests {
		own, baseline := test.Standardised()
		m.difference.WithLabelValues(application, metricNames[i]).Set(own - baseline)
	}
}

// moved counts a step.
func (m canaryMetrics) moved(application string, s canaryStep) {
	direction := "up"
	if s.To < s.From {
		direction = "down"
	}
	m.steps.WithLabelValues(application, direction).Inc()
}
