// SPDX-License-Identifier: Apache-2.0

package top

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

const (
	// scrapeTimeout bounds the reading of one process's metrics.
	scrapeTimeout = 2 * time.Second
	// maxMetrics is the most bytes of them.
	maxMetrics = 64 << 20
)

// subject is what a series is about: a model and its version, or an application.
type subject struct{ name, version string }

// series are the sums of a metric over processes and labels that are not of interest, by subject and by the value
// of one label that is: an outcome or a reason.
type series map[string]map[subject]map[string]*value

// value is a counter's or a gauge's value, or a histogram.
type value struct {
	number  float64 // of a histogram: the sum
	count   float64
	buckets []bucket
}

// bucket is a cumulative bucket.
type bucket struct{ bound, count float64 }

// scrape adds the metrics of a process.
func (s series) scrape(ctx context.Context, web *http.Client, address, key string) error {
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	res, err := web.Do(req)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("metrics: %s answered %s", address, res.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(res.Body, maxMetrics))
	if err != nil {
		return fmt.Errorf("metrics: %s gives none: %w", address, err)
	}
	for _, family := range families {
		s.family(family)
	}
	return nil
}

// family adds a metric, if it is one that is shown.
func (s series) family(f *dto.MetricFamily) {
	if name := f.GetName(); strings.HasPrefix(name, "clipper_model_") || strings.HasPrefix(name, "clipper_frontend_") {
		for _, m := range f.Metric {
			s.add(name, m)
		}
	}
}

func (s series) add(name string, m *dto.Metric) {
	var of subject
	kind := ""
	for _, l := range m.Label {
		switch l.GetName() {
		case "model", "application":
			of.name = l.GetValue()
		case "version":
			of.version = l.GetValue()
		case "outcome", "reason":
			kind = l.GetValue()
		}
	}
	if s[name] == nil {
		s[name] = map[subject]map[string]*value{}
	}
	if s[name][of] == nil {
		s[name][of] = map[string]*value{}
	}
	v := s[name][of][kind]
	if v == nil {
		v = &value{}
		s[name][of][kind] = v
	}
	v.number += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetHistogram().GetSampleSum()
	v.count += float64(m.GetHistogram().GetSampleCount())
	buckets := m.GetHistogram().GetBucket()
	if n := len(buckets); n > 0 && !math.IsInf(buckets[n-1].GetUpperBound(), 1) {
		// Only the text form has the last bucket, that of all values.
		infinite, all := math.Inf(1), m.GetHistogram().GetSampleCount()
		buckets = append(slices.Clip(buckets), &dto.Bucket{UpperBound: &infinite, CumulativeCount: &all})
	}
	for _, b := range buckets {
		i := slices.IndexFunc(v.buckets, func(o bucket) bool { return o.bound == b.GetUpperBound() })
		if i < 0 {
			v.buckets = append(v.buckets, bucket{bound: b.GetUpperBound()})
			i = len(v.buckets) - 1
		}
		v.buckets[i].count += float64(b.GetCumulativeCount())
	}
}

// window is what has changed between two readings.
type window struct {
	before, now series
	seconds     float64
}

// counter returns by how much a counter has grown for a subject, over the given kinds or all; false when it is not
// there, or not yet for the second time. One that has become less was started anew.
func (w window) counter(name string, of subject, kinds ...string) (sum float64, ok bool) {
	if w.before[name] == nil || w.now[name] == nil {
		return 0, false
	}
	for kind, v := range w.now[name][of] {
		if len(kinds) == 0 || slices.Contains(kinds, kind) {
			sum += grown(w.old(name, of, kind).number, v.number)
		}
	}
	return sum, true
}

func grown(before, now float64) float64 {
	if now < before {
		return now
	}
	return now - before
}

func (w window) old(name string, of subject, kind string) *value {
	if v := w.before[name][of][kind]; v != nil {
		return v
	}
	return &value{}
}

// histogram returns the histogram of what came in between, or false.
func (w window) histogram(name string, of subject) (value, bool) {
	now := w.now[name][of][""]
	if w.before[name] == nil || now == nil {
		return value{}, false
	}
	before := w.old(name, of, "")
	if now.count < before.count {
		before = &value{}
	}
	v := value{number: now.number - before.number, count: now.count - before.count}
	for _, b := range now.buckets {
		for _, o := range before.buckets {
			if o.bound == b.bound {
				b.count -= o.count
			}
		}
		v.buckets = append(v.buckets, b)
	}
	slices.SortFunc(v.buckets, func(a, b bucket) int {
		if a.bound < b.bound {
			return -1
		}
		return 1
	})
	return v, true
}

// quantile returns about the q-quantile, as Prometheus's histogram_quantile does: evenly spread within a bucket,
// and the last finite bound beyond it. NaN when there is nothing.
func (v value) quantile(q float64) float64 {
	if v.count <= 0 {
		return math.NaN()
	}
	rank := q * v.count
	lower, below := 0.0, 0.0
	for _, b := range v.buckets {
		if b.count >= rank && !math.IsInf(b.bound, 1) {
			return lower + (b.bound-lower)*(rank-below)/max(b.count-below, 1e-9)
		}
		if !math.IsInf(b.bound, 1) {
			lower, below = b.bound, b.count
		}
	}
	return lower
}
