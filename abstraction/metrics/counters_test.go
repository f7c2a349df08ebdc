// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/clipper-serving/clipper/abstraction/metrics"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

func TestCounters(t *testing.T) {
	m, err := metrics.New(prometheus.NewRegistry())
	require.NoError(t, err)
	v := m.Version("m", "1")
	for _, rows := range []float64{3, 4} {
		v.BatchRows.Observe(rows)
		v.BatchLatency.Observe(0.25)
	}
	v.QueueDelay.Observe(0.5)
	v.CacheHits.Add(2)
	v.CacheMisses.Inc()
	want := &clipperv1.ModelCounters{
		Batches: 2, Rows: 7, BatchTime: durationpb.New(500 * time.Millisecond),
		QueuedRows: 1, QueueTime: durationpb.New(500 * time.Millisecond), CacheHits: 2, CacheMisses: 1,
	}
	got := v.Counters()
	require.True(t, proto.Equal(want, got), "%v", got)

	metrics.AddCounters(got, want)
	require.Equal(t, uint64(14), got.Rows)
	require.Equal(t, time.Second, got.BatchTime.AsDuration())
	require.Equal(t, uint64(4), got.CacheHits)
}
