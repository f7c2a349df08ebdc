// SPDX-License-Identifier: Apache-2.0

// Package top is what `clipper top` shows: what models and applications do right now. States, queues and weights
// come from the administration, rates and latencies from the metrics of the processes, as differences of two
// readings.
package top

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Snapshot is what was seen at one time. What is not known is nil.
type Snapshot struct {
	Time time.Time `json:"time"`
	// Seconds is the time over which rates and latencies were measured; 0 when they are not known.
	Seconds float64 `json:"seconds"`
	// Notes say what is not known, and why.
	Notes        []string      `json:"notes"`
	Models       []Model       `json:"models"`
	Applications []Application `json:"applications"`
}

// Model is a version of a model.
type Model struct {
	Model   string `json:"model"`
	Version string `json:"version"`
	Current bool   `json:"current"`
	State   string `json:"state"`
	// Ready and Wanted are numbers of replicas.
	Ready    int       `json:"ready"`
	Wanted   int       `json:"wanted"`
	Restarts int       `json:"restarts"`
	Replicas []Replica `json:"replicas"`
	// QueueRows wait, InFlightRows are with replicas.
	QueueRows    *uint32 `json:"queue_rows"`
	InFlightRows *uint32 `json:"in_flight_rows"`
	Overloaded   bool    `json:"overloaded"`
	// BatchRows is the mean size of a batch.
	BatchRows     *float64 `json:"batch_rows"`
	RowsPerSecond *float64 `json:"rows_per_second"`
	// P50 and P99 are of the time that a batch takes, in milliseconds.
	P50 *float64 `json:"p50_ms"`
	P99 *float64 `json:"p99_ms"`
	// CacheHitRate is the share of predictions that were remembered.
	CacheHitRate *float64 `json:"cache_hit_rate"`
	// DroppedPerSecond counts rows that left the queue without a prediction.
	DroppedPerSecond *float64 `json:"dropped_rows_per_second"`
}

// Replica is a replica of a version.
type Replica struct {
	ID       string `json:"id"`
	State    string `json:"state"`
	Restarts int    `json:"restarts"`
}

// Application is an application.
type Application struct {
	Application      string   `json:"application"`
	QueriesPerSecond *float64 `json:"queries_per_second"`
	// P50 and P99 are of the time to the answer, Objective is what the application promises, in milliseconds.
	P50       *float64 `json:"p50_ms"`
	P99       *float64 `json:"p99_ms"`
	Objective float64  `json:"objective_ms"`
	// InTime is the share of answers that were not the default output for want of time or replicas.
	InTime *float64 `json:"in_time"`
	// DefaultRate is the share of answers that were the default output, for whatever reason.
	DefaultRate      *float64 `json:"default_rate"`
	RefusedPerSecond *float64 `json:"refused_per_second"`
	Policy           string   `json:"policy"`
	Weights          []Weight `json:"weights"`
}

// Weight is a model's share of the weight in an application.
type Weight struct {
	Model  string  `json:"model"`
	Weight float64 `json:"weight"`
}

// Source is where snapshots come from. It is not for concurrent use.
type Source struct {
	Models       clipperv1.ModelServiceClient
	Applications clipperv1.ApplicationServiceClient
	// Own are the metrics of this process; nil when they are not of interest.
	Own prometheus.Gatherer
	// Metrics are the addresses of processes' metrics.
	Metrics []string
	// Key is the API key or token that the metrics are asked for with; may be empty.
	Key string
	// HTTP is what metrics are read with; nil is http.DefaultClient.
	HTTP *http.Client

	before  series
	at      time.Time
	answers []string // the addresses that before is from
}

// late are the reasons of default outputs that mean that the objective was missed.
var late = []string{"deadline", "overloaded", "no_replica", "unavailable"}

// Read returns what is to be seen now. Rates are since the Read before. The error is the administration's.
func (s *Source) Read(ctx context.Context) (*Snapshot, error) {
	snapshot := &Snapshot{Time: time.Now(), Notes: []string{}, Models: []Model{}, Applications: []Application{}}
	now := series{}
	var answers []string
	if s.Own != nil {
		families, err := s.Own.Gather()
		if err != nil {
			return nil, fmt.Errorf("gather metrics: %w", err)
		}
		for _, family := range families {
			now.family(family)
		}
	}
	for _, address := range s.Metrics {
		if err := now.scrape(ctx, cmp.Or(s.HTTP, http.DefaultClient), address, s.Key); err != nil {
			snapshot.Notes = append(snapshot.Notes, cause(err))
			continue
		}
		answers = append(answers, address)
	}
	if !slices.Equal(answers, s.answers) {
		s.before = nil // The sums are of other processes, so their difference means nothing.
	}
	w := window{before: s.before, now: now, seconds: snapshot.Time.Sub(s.at).Seconds()}
	if s.before != nil {
		snapshot.Seconds = w.seconds
	}
	models, err := s.models(ctx, w)
	if err != nil {
		return nil, err
	}
	applications, err := s.applications(ctx, w)
	if err != nil {
		return nil, err
	}
	snapshot.Models, snapshot.Applications = append(snapshot.Models, models...), append(snapshot.Applications, applications...)
	if len(snapshot.Notes) == 0 && len(models) > 0 && now["clipper_model_batch_rows"] == nil {
		snapshot.Notes = append(snapshot.Notes, "no process named by --metrics has those of models: add the abstraction services'")
	}
	s.before, s.at, s.answers = now, snapshot.Time, answers
	return snapshot, nil
}

// cause leaves out what is the same in all errors of HTTP.
func cause(err error) string {
	if e := (*url.Error)(nil); errors.As(err, &e) {
		return "metrics: " + e.URL + " cannot be read: " + e.Err.Error()
	}
	return err.Error()
}

func (s *Source) models(ctx context.Context, w window) ([]Model, error) {
	var all []Model
	for request := (&clipperv1.ListModelsRequest{}); ; {
		page, err := s.Models.ListModels(ctx, request)
		if err != nil {
			return nil, err
		}
		for _, m := range page.GetModels() {
			for _, v := range m.GetVersions() {
				all = append(all, modelOf(m, v, w))
			}
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			break
		}
	}
	// What waits is asked of a few versions at a time.
	limit := make(chan struct{}, 8)
	var asking sync.WaitGroup
	for i := range all {
		m := &all[i]
		if m.Wanted == 0 {
			continue
		}
		limit <- struct{}{}
		asking.Go(func() {
			defer func() { <-limit }()
			// It fails for one that does not run, which its state says.
			if b, err := s.Models.GetBatching(ctx, &clipperv1.GetBatchingRequest{Model: m.Model, Version: m.Version}); err == nil {
				rows, inFlight := b.GetQueue().GetRows(), b.GetQueue().GetInFlightRows()
				m.QueueRows, m.InFlightRows, m.Overloaded = &rows, &inFlight, b.GetQueue().GetOverloaded()
			}
		})
	}
	asking.Wait()
	return all, nil
}

func modelOf(m *clipperv1.Model, v *clipperv1.ModelVersion, w window) Model {
	one := Model{
		Model: m.GetName(), Version: v.GetVersion(), Current: m.GetCurrentVersion() == v.GetVersion(),
		State:  words(v.GetState().String(), "MODEL_STATE_"),
		Wanted: int(v.GetReplicas()), Replicas: []Replica{},
	}
	for _, r := range v.GetReplicaStatus() {
		one.Restarts += int(r.GetRestarts())
		if r.GetState() == clipperv1.ReplicaState_REPLICA_STATE_READY {
			one.Ready++
		}
		one.Replicas = append(one.Replicas, Replica{r.GetId(), words(r.GetState().String(), "REPLICA_STATE_"), int(r.GetRestarts())})
	}
	of := subject{one.Model, one.Version}
	if batches, ok := w.histogram("clipper_model_batch_rows", of); ok {
		one.RowsPerSecond = known(batches.number / w.seconds)
		one.BatchRows = known(batches.number / batches.count)
	}
	if latency, ok := w.histogram("clipper_model_batch_latency_seconds", of); ok {
		one.P50, one.P99 = known(1000*latency.quantile(.5)), known(1000*latency.quantile(.99))
	}
	hits, ok := w.counter("clipper_model_cache_hits_total", of)
	if misses, ok2 := w.counter("clipper_model_cache_misses_total", of); ok && ok2 {
		one.CacheHitRate = known(hits / (hits + misses))
	}
	if dropped, ok := w.counter("clipper_model_dropped_rows_total", of); ok {
		one.DroppedPerSecond = known(dropped / w.seconds)
	}
	return one
}

func (s *Source) applications(ctx context.Context, w window) ([]Application, error) {
	var all []Application
	for request := (&clipperv1.ListApplicationsRequest{}); ; {
		page, err := s.Applications.ListApplications(ctx, request)
		if err != nil {
			return nil, err
		}
		for _, a := range page.GetApplications() {
			one := applicationOf(a, w)
			// It fails while the store is away, which leaves the weights unknown.
			if state, err := s.Applications.GetSelectionState(ctx, &clipperv1.GetSelectionStateRequest{Application: a.GetName()}); err == nil {
				for _, m := range state.GetModels() {
					one.Weights = append(one.Weights, Weight{m.GetModel(), m.GetWeight()})
				}
				slices.SortStableFunc(one.Weights, func(a, b Weight) int {
					switch {
					case a.Weight > b.Weight:
						return -1
					case a.Weight < b.Weight:
						return 1
					}
					return 0
				})
			}
			all = append(all, one)
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return all, nil
		}
	}
}

func applicationOf(a *clipperv1.Application, w window) Application {
	one := Application{
		Application: a.GetName(), Policy: a.GetPolicy().GetName(), Weights: []Weight{},
		Objective: float64(a.GetLatencyObjective().AsDuration()) / float64(time.Millisecond),
	}
	of := subject{name: one.Application}
	const queries = "clipper_frontend_queries_total"
	answered, ok := w.counter(queries, of, "answered")
	if !ok {
		return one
	}
	defaults, _ := w.counter(queries, of, "default")
	refused, _ := w.counter(queries, of, "refused")
	missed, _ := w.counter("clipper_frontend_default_outputs_total", of, late...)
	one.QueriesPerSecond, one.RefusedPerSecond = known((answered+defaults+refused)/w.seconds), known(refused/w.seconds)
	one.DefaultRate, one.InTime = known(defaults/(answered+defaults)), known(1-missed/(answered+defaults))
	if latency, ok := w.histogram("clipper_frontend_query_seconds", of); ok {
		one.P50, one.P99 = known(1000*latency.quantile(.5)), known(1000*latency.quantile(.99))
	}
	return one
}

// known returns nil for what is no number: a share or a quantile of nothing.
func known(x float64) *float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	return &x
}

// words returns an enum's value as words.
func words(value, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(value, prefix)), "_", " ")
}
