// SPDX-License-Identifier: Apache-2.0

package legacy

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Sizes of the samples that histograms are made of, and how often rates are renewed, as in the original.
const (
	sampleSize      = 4096
	delaySampleSize = 2056
	tick            = 5 * time.Second
)

// metrics are those of the original, of the queries that come through this API. Safe for concurrent use.
type metrics struct {
	mu         sync.Mutex
	start      time.Time
	all        tally // of all models
	throughput *meter
	apps       map[string]*appMetrics
	models     map[version]*modelMetrics
}

type version struct{ model, version string }

func (v version) String() string { return "model:" + v.model + ":" + v.version }

// tally counts predictions, and those that came from the cache.
type tally struct{ total, hits int64 }

type appMetrics struct {
	predictions, defaults int64
	throughput            *meter
	latency               *histogram
}

type modelMetrics struct {
	tally
	throughput *meter
	latency    *histogram
}

func newMetrics() *metrics {
	now := time.Now()
	return &metrics{start: now, throughput: newMeter(now), apps: map[string]*appMetrics{}, models: map[version]*modelMetrics{}}
}

// run renews the rates until ctx is done.
func (m *metrics) run(ctx context.Context) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			m.tick()
		}
	}
}

func (m *metrics) tick() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.throughput.tick()
	for _, a := range m.apps {
		a.throughput.tick()
	}
	for _, v := range m.models {
		v.throughput.tick()
	}
}

// observe counts answers that were given together.
func (m *metrics) observe(app string, answers []answer, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, micros := time.Now(), float64(took.Microseconds())
	a := m.apps[app]
	if a == nil {
		a = &appMetrics{throughput: newMeter(now), latency: newHistogram(sampleSize)}
		m.apps[app] = a
	}
	for _, answer := range answers {
		a.predictions++
		if answer.explanation != "" {
			a.defaults++
		}
		a.throughput.mark()
		a.latency.add(micros)
		for _, p := range answer.predictions {
			if p.GetVersion() == "" || p.GetModel() == unlinked {
				continue
			}
			m.predicted(p, now, micros)
		}
	}
}

func (m *metrics) predicted(p *clipperv1.ModelPrediction, now time.Time, micros float64) {
	key := version{p.GetModel(), p.GetVersion()}
	v := m.models[key]
	if v == nil {
		v = &modelMetrics{throughput: newMeter(now), latency: newHistogram(sampleSize)}
		m.models[key] = v
	}
	for _, t := range []*tally{&m.all, &v.tally} {
		t.total++
		if p.GetCached() {
			t.hits++
		}
	}
	if p.GetStatus() == clipperv1.PredictionStatus_PREDICTION_STATUS_OK {
		v.throughput.mark()
		v.latency.add(micros)
		m.throughput.mark()
	}
}

func (m *metrics) seen() []version {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]version, 0, len(m.models))
	for v := range m.models {
		list = append(list, v)
	}
	return list
}

// metricsJSON returns the metrics as the original writes them: every leaf is a string. What is known of
// batches is asked of our services; who may not ask them sees none.
func (f *QueryFrontend) metricsJSON(ctx context.Context) []byte {
	sizes := map[version]*histogram{}
	delays := newHistogram(delaySampleSize)
	for _, v := range f.metrics.seen() {
		sizes[v] = newHistogram(sampleSize)
		response, err := f.deps.Models.GetBatching(ctx, &clipperv1.GetBatchingRequest{Model: v.model, Version: v.version})
		if err != nil {
			continue
		}
		for _, r := range response.GetReplicas() {
			for _, d := range r.GetDecisions() {
				sizes[v].add(float64(d.GetRows()))
			}
		}
		delays.add(float64(response.GetQueue().GetDelay().AsDuration().Microseconds()))
	}
	return f.metrics.json(sizes, delays)
}

func (m *metrics) json(sizes map[version]*histogram, delays *histogram) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	counters := map[string][]field{
		"internal:prediction_cache_lookups":  {{"count", whole(m.all.total)}},
		"internal:aggregate_num_predictions": {{"count", whole(m.all.total)}},
	}
	ratios := map[string][]field{"internal:prediction_cache_hit_ratio": {{"ratio", ratio(m.all.hits, m.all.total)}}}
	meters := map[string][]field{"internal:aggregate_model_throughput": m.throughput.fields(now)}
	histograms := map[string][]field{"internal:rpc_request_queueing_delay": delays.fields("microseconds")}
	for name, a := range m.apps {
		prefix := "app:" + name
		counters[prefix+":num_predictions"] = []field{{"count", whole(a.predictions)}}
		ratios[prefix+":default_prediction_ratio"] = []field{{"ratio", ratio(a.defaults, a.predictions)}}
		meters[prefix+":prediction_throughput"] = a.throughput.fields(now)
		histograms[prefix+":prediction_latency"] = a.latency.fields("microseconds")
	}
	for v, mm := range m.models {
		prefix := v.String()
		counters[prefix+":num_predictions"] = []field{{"count", whole(mm.total)}}
		ratios[prefix+":cache_hit_ratio"] = []field{{"ratio", ratio(mm.hits, mm.total)}}
		meters[prefix+":prediction_throughput"] = mm.throughput.fields(now)
		histograms[prefix+":prediction_latency"] = mm.latency.fields("microseconds")
		if size := sizes[v]; size != nil {
			histograms[prefix+":batch_size"] = size.fields("queries")
		}
	}
	b := []byte{'{'}
	for _, group := range []struct {
		name    string
		metrics map[string][]field
	}{{"counters", counters}, {"ratio_counters", ratios}, {"meters", meters}, {"histograms", histograms}} {
		names := make([]string, 0, len(group.metrics))
		for name := range group.metrics {
			names = append(names, name)
		}
		slices.Sort(names)
		b = appendList(appendKey(b, group.name), names, func(b []byte, name string) []byte {
			b = append(appendString(append(b, '{'), name), ':', '{')
			for _, f := range group.metrics[name] {
				b = appendMember(b, f.key, f.value)
			}
			return append(b, '}', '}')
		})
	}
	return append(b, '}')
}

// field is a leaf.
type field struct{ key, value string }

func whole(n int64) string { return strconv.FormatInt(n, 10) }

func decimal(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }

func ratio(part, all int64) string {
	if all == 0 {
		return "nan"
	}
	return decimal(float64(part) / float64(all))
}

// meter is a rate: over all time, and averages that weigh events by their age.
type meter struct {
	start     time.Time
	count     int64
	sinceTick int64
	rates     [3]float64
	ticked    bool
}

// horizons are the ages of the averages.
var horizons = [3]time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute}

func newMeter(now time.Time) *meter { return &meter{start: now} }

func (m *meter) mark() {
	m.count++
	m.sinceTick++
}

func (m *meter) tick() {
	rate := float64(m.sinceTick) / tick.Seconds()
	m.sinceTick = 0
	for i, horizon := range horizons {
		if !m.ticked {
			m.rates[i] = rate
			continue
		}
		m.rates[i] += (1 - math.Exp(-tick.Seconds()/horizon.Seconds())) * (rate - m.rates[i])
	}
	m.ticked = true
}

func (m *meter) fields(now time.Time) []field {
	rate := 0.0
	if age := now.Sub(m.start).Seconds(); age > 0 {
		rate = float64(m.count) / age
	}
	return []field{
		{"unit", "events per second"},
		{"rate", decimal(rate)},
		{"rate_1min", decimal(m.rates[0])},
		{"rate_5min", decimal(m.rates[1])},
		{"rate_15min", decimal(m.rates[2])},
	}
}

// histogram is a sample of all values, each of which is in it with the same probability (Vitter's
// algorithm R).
type histogram struct {
	size   int
	seen   int64
	sample []float64
}

func newHistogram(size int) *histogram { return &histogram{size: size} }

func (h *histogram) add(x float64) {
	h.seen++
	if len(h.sample) < h.size {
		h.sample = append(h.sample, x)
	} else if at := rand.Int64N(h.seen); at < int64(h.size) {
		h.sample[at] = x
	}
}

func (h *histogram) fields(unit string) []field {
	sorted := slices.Sorted(slices.Values(h.sample))
	n := len(sorted)
	var least, most, mean, deviation float64
	if n > 0 {
		least, most = sorted[0], sorted[n-1]
		for _, x := range sorted {
			mean += x / float64(n)
		}
		for _, x := range sorted {
			deviation += (x - mean) * (x - mean) / float64(n)
		}
	}
	percentile := func(p float64) string {
		if n == 0 {
			return "0"
		}
		// Between the two values that are nearest.
		at := min(max(p*float64(n+1)-1, 0), float64(n-1))
		low := int(at)
		high := min(low+1, n-1)
		return decimal(sorted[low] + (at-float64(low))*(sorted[high]-sorted[low]))
	}
	return []field{
		{"unit", unit},
		{"size", whole(int64(n))},
		{"min", decimal(least)},
		{"max", decimal(most)},
		{"mean", decimal(mean)},
		{"std_dev", decimal(math.Sqrt(deviation))},
		{"p50", percentile(0.5)},
		{"p95", percentile(0.95)},
		{"p99", percentile(0.99)},
	}
}
