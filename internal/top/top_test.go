// SPDX-License-Identifier: Apache-2.0

package top

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

type models struct {
	clipperv1.ModelServiceClient
	err error
}

func (m models) ListModels(context.Context, *clipperv1.ListModelsRequest, ...grpc.CallOption) (*clipperv1.ListModelsResponse, error) {
	return &clipperv1.ListModelsResponse{Models: []*clipperv1.Model{{Name: "svm", CurrentVersion: "2", Versions: []*clipperv1.ModelVersion{
		{Version: "1", State: clipperv1.ModelState_MODEL_STATE_STOPPED, Replicas: proto.Uint32(0)},
		{Version: "2", State: clipperv1.ModelState_MODEL_STATE_DEGRADED, Replicas: proto.Uint32(2), ReplicaStatus: []*clipperv1.Replica{
			{Id: "0", State: clipperv1.ReplicaState_REPLICA_STATE_READY}, {Id: "1", State: clipperv1.ReplicaState_REPLICA_STATE_FAILED, Restarts: 3},
		}},
	}}}}, m.err
}

func (models) GetBatching(context.Context, *clipperv1.GetBatchingRequest, ...grpc.CallOption) (*clipperv1.GetBatchingResponse, error) {
	return &clipperv1.GetBatchingResponse{Queue: &clipperv1.QueueStatus{Rows: 7, InFlightRows: 9, Overloaded: true}}, nil
}

type applications struct {
	clipperv1.ApplicationServiceClient
}

func (applications) ListApplications(context.Context, *clipperv1.ListApplicationsRequest, ...grpc.CallOption) (*clipperv1.ListApplicationsResponse, error) {
	return &clipperv1.ListApplicationsResponse{Applications: []*clipperv1.Application{{
		Name: "digits", Policy: &clipperv1.Policy{Name: "exp4"}, LatencyObjective: durationpb.New(50 * time.Millisecond),
	}}}, nil
}

func (applications) GetSelectionState(context.Context, *clipperv1.GetSelectionStateRequest, ...grpc.CallOption) (*clipperv1.GetSelectionStateResponse, error) {
	return &clipperv1.GetSelectionStateResponse{Models: []*clipperv1.ModelSelectionState{{Model: "a", Weight: .3}, {Model: "b", Weight: .7}}}, nil
}

// process serves metrics like those of the services.
type process struct {
	*httptest.Server
	rows, latency, queries *prometheus.HistogramVec
	hits, misses, outcomes *prometheus.CounterVec
	reasons                *prometheus.CounterVec
}

func start(t *testing.T) *process {
	t.Helper()
	counter := func(name string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name}, labels)
	}
	histogram := func(name string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Buckets: []float64{.001, .01, .1}}, labels)
	}
	p := &process{
		rows: histogram("clipper_model_batch_rows", "model", "version"), latency: histogram("clipper_model_batch_latency_seconds", "model", "version"),
		hits: counter("clipper_model_cache_hits_total", "model", "version"), misses: counter("clipper_model_cache_misses_total", "model", "version"),
		queries: histogram("clipper_frontend_query_seconds", "application"), outcomes: counter("clipper_frontend_queries_total", "application", "outcome"),
		reasons: counter("clipper_frontend_default_outputs_total", "application", "reason"),
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(p.rows, p.latency, p.queries, p.hits, p.misses, p.outcomes, p.reasons)
	p.Server = httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	t.Cleanup(p.Close)
	return p
}

// work is what happens between two readings: 10 batches of 30 rows, 100 queries.
func (p *process) work() {
	for range 10 {
		p.rows.WithLabelValues("svm", "2").Observe(30)
		p.latency.WithLabelValues("svm", "2").Observe(.005)
	}
	p.hits.WithLabelValues("svm", "2").Add(25)
	p.misses.WithLabelValues("svm", "2").Add(75)
	p.outcomes.WithLabelValues("digits", "answered").Add(80)
	p.outcomes.WithLabelValues("digits", "default").Add(20)
	p.outcomes.WithLabelValues("digits", "refused").Add(5)
	p.reasons.WithLabelValues("digits", "deadline").Add(8)
	p.reasons.WithLabelValues("digits", "low_confidence").Add(12)
	p.queries.WithLabelValues("digits").Observe(.02)
}

func TestRead(t *testing.T) {
	a, b := start(t), start(t)
	a.work()
	b.work()
	s := &Source{Models: models{}, Applications: applications{}, Metrics: []string{a.URL, b.URL}}
	first, err := s.Read(t.Context())
	require.NoError(t, err)
	require.Zero(t, first.Seconds)
	require.Nil(t, first.Models[1].RowsPerSecond, "a counter says nothing of now")
	require.Nil(t, first.Applications[0].QueriesPerSecond)
	require.Equal(t, []Weight{{"b", .7}, {"a", .3}}, first.Applications[0].Weights)

	a.work()
	b.work()
	got, err := s.Read(t.Context())
	require.NoError(t, err)
	require.Empty(t, got.Notes)
	stopped, m := got.Models[0], got.Models[1]
	require.Nil(t, stopped.QueueRows)
	require.Equal(t, "stopped", stopped.State)
	require.Equal(t, Model{
		Model: "svm", Version: "2", Current: true, State: "degraded", Ready: 1, Wanted: 2, Restarts: 3,
		Replicas: []Replica{{"0", "ready", 0}, {"1", "failed", 3}}, QueueRows: m.QueueRows, InFlightRows: m.InFlightRows, Overloaded: true,
		BatchRows: m.BatchRows, RowsPerSecond: m.RowsPerSecond, P50: m.P50, P99: m.P99, CacheHitRate: m.CacheHitRate, DroppedPerSecond: nil,
	}, m)
	require.EqualValues(t, 7, *m.QueueRows)
	require.InDelta(t, 30, *m.BatchRows, 1e-9)
	require.InDelta(t, 600, *m.RowsPerSecond*got.Seconds, 1e-6, "of both processes")
	require.InDelta(t, 5.5, *m.P50, 1e-9, "the middle of the bucket from 1 to 10 ms")
	require.InDelta(t, .25, *m.CacheHitRate, 1e-9)
	app := got.Applications[0]
	require.InDelta(t, 210, *app.QueriesPerSecond*got.Seconds, 1e-6)
	require.InDelta(t, 10, *app.RefusedPerSecond*got.Seconds, 1e-6)
	require.InDelta(t, .2, *app.DefaultRate, 1e-9)
	require.InDelta(t, .92, *app.InTime, 1e-9, "low confidence is no lateness")
	require.InDelta(t, 50, app.Objective, 1e-9)

	// Nothing happens: rates are 0, shares and quantiles of nothing are not known.
	got, err = s.Read(t.Context())
	require.NoError(t, err)
	require.Zero(t, *got.Models[1].RowsPerSecond)
	require.Nil(t, got.Models[1].BatchRows)
	require.Nil(t, got.Models[1].P99)
	require.Nil(t, got.Applications[0].InTime)

	// A process goes: the sums are others', and their difference is nothing to show. Then the other alone is measured.
	b.Close()
	got, err = s.Read(t.Context())
	require.NoError(t, err)
	require.Len(t, got.Notes, 1)
	require.Contains(t, got.Notes[0], b.URL+" cannot be read")
	require.Nil(t, got.Models[1].RowsPerSecond)
	a.work()
	got, err = s.Read(t.Context())
	require.NoError(t, err)
	require.InDelta(t, 300, *got.Models[1].RowsPerSecond*got.Seconds, 1e-6)
}

func TestReadSaysWhatIsMissing(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/text":
			_, _ = fmt.Fprint(w, "<html>")
		case "/none":
			_, _ = fmt.Fprintln(w, "up 1")
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(other.Close)
	for path, want := range map[string]string{"/": "answered 404", "/text": "gives none", "/none": "add the abstraction services'"} {
		s := &Source{Models: models{}, Applications: applications{}, Metrics: []string{other.URL + path}}
		got, err := s.Read(t.Context())
		require.NoError(t, err)
		require.Len(t, got.Notes, 1)
		require.Contains(t, got.Notes[0], want)
	}
	_, err := (&Source{Models: models{err: errors.New("nobody there")}, Applications: applications{}}).Read(t.Context())
	require.EqualError(t, err, "nobody there")
}

// A process that was started anew counts from 0.
func TestGrown(t *testing.T) {
	require.InDelta(t, 3, grown(5, 8), 0)
	require.InDelta(t, 2, grown(5, 2), 0)
}

func TestQuantile(t *testing.T) {
	v := value{count: 100, buckets: []bucket{{1, 50}, {2, 100}, {math.Inf(1), 100}}}
	require.InDelta(t, 1, v.quantile(.5), 1e-9)
	require.InDelta(t, 1.98, v.quantile(.99), 1e-9)
	beyond := value{count: 100, buckets: []bucket{{1, 50}, {2, 60}, {math.Inf(1), 100}}}
	require.InDelta(t, 2, beyond.quantile(.99), 1e-9, "the last bound that is known")
	require.True(t, math.IsNaN(value{}.quantile(.5)))
}
