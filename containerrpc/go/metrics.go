// SPDX-License-Identifier: Apache-2.0

package container

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are those of docs/containers.md.
type metrics struct {
	registry        *prometheus.Registry
	batches         *prometheus.CounterVec
	rows, rowErrors prometheus.Counter
	seconds         prometheus.Histogram
	batchRows       prometheus.Histogram
	inFlight, ready prometheus.Gauge
}

func newMetrics() *metrics {
	m := &metrics{
		registry:  prometheus.NewRegistry(),
		batches:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "clipper_container_batches_total", Help: "Batches answered."}, []string{"result"}),
		rows:      prometheus.NewCounter(prometheus.CounterOpts{Name: "clipper_container_rows_total", Help: "Rows predicted."}),
		rowErrors: prometheus.NewCounter(prometheus.CounterOpts{Name: "clipper_container_row_errors_total", Help: "Rows that failed one by one."}),
		seconds:   prometheus.NewHistogram(prometheus.HistogramOpts{Name: "clipper_container_predict_seconds", Help: "Time that the model took for a batch.", Buckets: prometheus.ExponentialBuckets(1e-4, 2, 18)}),
		batchRows: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "clipper_container_batch_rows", Help: "Rows of a batch.", Buckets: prometheus.ExponentialBuckets(1, 2, 17)}),
		inFlight:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "clipper_container_in_flight", Help: "Batches that wait or are being predicted."}),
		ready:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "clipper_container_ready", Help: "1 while the container can predict."}),
	}
	m.registry.MustRegister(m.batches, m.rows, m.rowErrors, m.seconds, m.batchRows, m.inFlight, m.ready)
	return m
}

// predicted counts a batch that the model was given.
func (m *metrics) predicted(rows int, took time.Duration, r *Result, err error) {
	m.seconds.Observe(took.Seconds())
	m.batchRows.Observe(float64(rows))
	if err != nil {
		m.batches.WithLabelValues("error").Inc()
		return
	}
	m.batches.WithLabelValues("ok").Inc()
	m.rows.Add(float64(rows))
	m.rowErrors.Add(float64(len(r.RowErrors)))
}

// serve serves /metrics until end is called.
func (m *metrics) serve(ctx context.Context, address string) (end func(), err error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	return func() {
		_ = server.Close()
		<-done
	}, nil
}
