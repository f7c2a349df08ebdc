// SPDX-License-Identifier: Apache-2.0

// Package metrics holds the measurements of the model abstraction layer. Every series has the
// labels model and version only, and perhaps one of a few fixed words; the series of a version go
// when it does.
package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Drop is a reason for which a row leaves the queue without a prediction.
type Drop int

// The reasons.
const (
	// DropExpired: its deadline passed.
	DropExpired Drop = iota
	// DropCancelled: nobody waited for it any more.
	DropCancelled
	// DropFull: the queue was full when it came.
	DropFull
	// DropNoReplica: there was no replica that could serve.
	DropNoReplica
	// DropHopeless: it had less time left than the fastest replica needs.
	DropHopeless
	// DropOverloaded: it could not have been answered in time behind what waited when it came.
	DropOverloaded
	// DropShed: it would have kept the batches small under overload.
	DropShed
	// DropOutranked: it made room for a row that matters more.
	DropOutranked
	// Drops is the number of reasons.
	Drops
)

var dropNames = [Drops]string{"expired", "cancelled", "full", "no_replica", "hopeless", "overloaded", "shed", "outranked"}

// String returns the reason as it is in labels.
func (d Drop) String() string { return dropNames[d] }

// Metrics are the series of all versions. Safe for concurrent use.
type Metrics struct {
	queueRows    *prometheus.GaugeVec
	drainRate    *prometheus.GaugeVec
	queueDelay   *prometheus.HistogramVec
	dropped      *prometheus.CounterVec
	batchRows    *prometheus.HistogramVec
	batchLatency *prometheus.HistogramVec
	inFlight     *prometheus.GaugeVec
	failedRows   *prometheus.CounterVec
	retries      *prometheus.CounterVec
	replicas     *prometheus.GaugeVec
	warmUps      *prometheus.CounterVec
	cacheHits    *prometheus.CounterVec
	cacheMisses  *prometheus.CounterVec
	cacheStores  *prometheus.CounterVec
	late         *prometheus.CounterVec
	coalesced    *prometheus.CounterVec
	arrivals     *prometheus.GaugeVec
	desired      *prometheus.GaugeVec
	loadRatio    *prometheus.GaugeVec
}

// New registers the series with reg.
func New(reg prometheus.Registerer) (*Metrics, error) {
	labels := []string{"model", "version"}
	// The bounds are what people take for objectives, so that the share within one can be read.
	latency := []float64{.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5}
	gauge := func(name, help string, more ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "clipper_model_" + name, Help: help}, append(labels[:2:2], more...))
	}
	counter := func(name, help string, more ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "clipper_model_" + name, Help: help}, append(labels[:2:2], more...))
	}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "clipper_model_" + name, Help: help, Buckets: buckets}, labels)
	}
	m := &Metrics{
		queueRows:    gauge("queue_rows", "Rows that wait for a replica."),
		drainRate:    gauge("drain_rows_per_second", "Rows per second that the replicas can answer at their target sizes, as learned."),
		queueDelay:   histogram("queue_delay_seconds", "Time that a row waited for a replica.", latency),
		dropped:      counter("dropped_rows_total", "Rows that left the queue without a prediction, by reason.", "reason"),
		batchRows:    histogram("batch_rows", "Rows of a batch.", prometheus.ExponentialBuckets(1, 2, 17)),
		batchLatency: histogram("batch_latency_seconds", "Time from when the container could begin with a batch to its answer.", latency),
		inFlight:     gauge("in_flight_batches", "Batches under way at replicas."),
		failedRows:   counter("failed_rows_total", "Rows that the container answered with an error, or wrongly."),
		retries:      counter("retried_rows_total", "Rows that were lost with their replica and queued again."),
		replicas:     gauge("replicas", "Replicas, by state.", "state"),
		warmUps:      counter("warm_ups_total", "Warm-ups of replicas, by result.", "result"),
		cacheHits:    counter("cache_hits_total", "Requests that were answered from the cache."),
		cacheMisses:  counter("cache_misses_total", "Requests that the cache could not answer."),
		cacheStores:  counter("cache_stores_total", "Predictions that were remembered."),
		late:         counter("late_predictions_total", "Predictions that came when the query had been answered without them."),
		coalesced:    counter("coalesced_total", "Requests that shared the computation of an equal one in flight."),
		arrivals:     gauge("arrival_rows_per_second", "Rows per second that come to the replicas, after the cache."),
		desired:      gauge("desired_replicas", "Replicas that are to be there: as autoscaling has decided, else as many as the load needs."),
		loadRatio:    gauge("load_ratio", "Load with its margins relative to what the ready replicas can take; above 1 more are needed."),
	}
	for _, c := range m.collectors() {
		if err := reg.Register(c.(prometheus.Collector)); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// vec is what every vector of series can do.
type vec interface {
	DeletePartialMatch(prometheus.Labels) int
}

func (m *Metrics) collectors() []vec {
	return []vec{
		m.queueRows, m.drainRate, m.queueDelay, m.dropped, m.batchRows, m.batchLatency, m.inFlight,
		m.failedRows, m.retries, m.replicas, m.warmUps, m.cacheHits, m.cacheMisses, m.cacheStores, m.late, m.coalesced,
		m.arrivals, m.desired, m.loadRatio,
	}
}

// Version are the series of one model version. Safe for concurrent use.
type Version struct {
	// QueueRows is the number of rows that wait.
	QueueRows prometheus.Gauge
	// DrainRate is the number of rows per second that the replicas can answer, as learned.
	DrainRate prometheus.Gauge
	// QueueDelay is the time that a row waited, in seconds.
	QueueDelay prometheus.Observer
	// Dropped counts rows that left the queue without a prediction, by reason.
	Dropped [Drops]prometheus.Counter
	// BatchRows is the number of rows of a batch.
	BatchRows prometheus.Observer
	// BatchLatency is the time that a batch took, in seconds.
	BatchLatency prometheus.Observer
	// InFlight is the number of batches under way.
	InFlight prometheus.Gauge
	// FailedRows counts rows that the container answered with an error, or wrongly.
	FailedRows prometheus.Counter
	// Retries counts rows that were queued again.
	Retries prometheus.Counter
	// Replicas is the number of replicas by state.
	Replicas *prometheus.GaugeVec
	// WarmUpsDone and WarmUpsFailed count warm-ups that ended well and those that did not.
	WarmUpsDone, WarmUpsFailed prometheus.Counter
	// CacheHits and CacheMisses count look-ups, CacheStores predictions that were remembered.
	CacheHits, CacheMisses, CacheStores prometheus.Counter
	// Late counts predictions that came when the query had been answered without them.
	Late prometheus.Counter
	// Coalesced counts requests that shared the computation of another.
	Coalesced prometheus.Counter
}

// Version returns the series of a model version.
func (m *Metrics) Version(model, version string) *Version {
	v := &Version{
		DrainRate:     m.drainRate.WithLabelValues(model, version),
		QueueRows:     m.queueRows.WithLabelValues(model, version),
		QueueDelay:    m.queueDelay.WithLabelValues(model, version),
		BatchRows:     m.batchRows.WithLabelValues(model, version),
		BatchLatency:  m.batchLatency.WithLabelValues(model, version),
		InFlight:      m.inFlight.WithLabelValues(model, version),
		FailedRows:    m.failedRows.WithLabelValues(model, version),
		Retries:       m.retries.WithLabelValues(model, version),
		Replicas:      m.replicas.MustCurryWith(prometheus.Labels{"model": model, "version": version}),
		WarmUpsDone:   m.warmUps.WithLabelValues(model, version, "done"),
		WarmUpsFailed: m.warmUps.WithLabelValues(model, version, "failed"),
		CacheStores:   m.cacheStores.WithLabelValues(model, version),
		Late:          m.late.WithLabelValues(model, version),
		CacheHits:     m.cacheHits.WithLabelValues(model, version),
		CacheMisses:   m.cacheMisses.WithLabelValues(model, version),
		Coalesced:     m.coalesced.WithLabelValues(model, version),
	}
	for reason := range Drops {
		v.Dropped[reason] = m.dropped.WithLabelValues(model, version, reason.String())
	}
	return v
}

// SetScaling sets the series about the number of replicas. They are kept by one instance of several, for
// all.
func (m *Metrics) SetScaling(model, version string, arrivals, loadRatio float64, desired int) {
	m.arrivals.WithLabelValues(model, version).Set(arrivals)
	m.loadRatio.WithLabelValues(model, version).Set(loadRatio)
	m.desired.WithLabelValues(model, version).Set(float64(desired))
}

// DeleteScaling removes them.
func (m *Metrics) DeleteScaling(model, version string) {
	for _, g := range []*prometheus.GaugeVec{m.arrivals, m.loadRatio, m.desired} {
		g.DeleteLabelValues(model, version)
	}
}

// Delete removes the series of a model version.
func (m *Metrics) Delete(model, version string) {
	for _, c := range m.collectors() {
		c.DeletePartialMatch(prometheus.Labels{"model": model, "version": version})
	}
}
