// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/durationpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Counters returns what the series have counted.
func (v *Version) Counters() *clipperv1.ModelCounters {
	batchTime, batches := histogram(v.BatchLatency)
	rows, _ := histogram(v.BatchRows)
	queueTime, queued := histogram(v.QueueDelay)
	return &clipperv1.ModelCounters{
		Batches:     batches,
		Rows:        uint64(rows),
		BatchTime:   durationpb.New(seconds(batchTime)),
		QueuedRows:  queued,
		QueueTime:   durationpb.New(seconds(queueTime)),
		CacheHits:   counter(v.CacheHits),
		CacheMisses: counter(v.CacheMisses),
	}
}

// AddCounters adds the counters of another instance.
func AddCounters(sum, one *clipperv1.ModelCounters) {
	sum.Batches += one.GetBatches()
	sum.Rows += one.GetRows()
	sum.BatchTime = durationpb.New(sum.GetBatchTime().AsDuration() + one.GetBatchTime().AsDuration())
	sum.QueuedRows += one.GetQueuedRows()
	sum.QueueTime = durationpb.New(sum.GetQueueTime().AsDuration() + one.GetQueueTime().AsDuration())
	sum.CacheHits += one.GetCacheHits()
	sum.CacheMisses += one.GetCacheMisses()
}

// histogram returns the sum of the observations and their number.
func histogram(o prometheus.Observer) (sum float64, count uint64) {
	h := read(o).GetHistogram()
	return h.GetSampleSum(), h.GetSampleCount()
}

func counter(c prometheus.Counter) uint64 { return uint64(read(c).GetCounter().GetValue()) }

// read returns a series as it is now; empty for one of a test that cannot be read.
func read(series any) *dto.Metric {
	m := &dto.Metric{}
	if s, ok := series.(prometheus.Metric); ok && s.Write(m) == nil {
		return m
	}
	return &dto.Metric{}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
