// SPDX-License-Identifier: Apache-2.0

package layer_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	container "github.com/clipper-serving/clipper/containerrpc/go"

	"github.com/clipper-serving/clipper/bench/layer"
	"github.com/clipper-serving/clipper/bench/load"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// scripted answers 0 to every row, unless it is to fail.
type scripted struct{ fail bool }

func (scripted) Describe() *clipperv1.DescribeResponse { return &clipperv1.DescribeResponse{} }

func (s scripted) Predict(_ context.Context, b *container.Batch) (*container.Result, error) {
	if s.fail {
		return nil, errors.New("no")
	}
	return &container.Result{Outputs: []*clipperv1.BatchTensor{{DataType: clipperv1.DataType_DATA_TYPE_UINT8, Data: make([]byte, b.Rows)}}}, nil
}

func start(t *testing.T, m container.Model, cached bool) *layer.Layer {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- container.Serve(ctx, container.Config{}, listener, m) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-served)
	})
	l, err := layer.Start(t.Context(), layer.Config{Addresses: []string{"unix:" + listener.Addr().String()}, Batching: layer.Policy("aimd"), Cached: cached})
	require.NoError(t, err)
	t.Cleanup(l.Stop)
	return l
}

func TestOpen(t *testing.T) {
	l := start(t, scripted{}, false)
	schedule := load.Schedule(load.Poisson, 2000, 200*time.Millisecond, 1)
	m, err := l.Open(t.Context(), load.OpenConfig{Schedule: schedule, Objective: time.Minute})
	require.NoError(t, err)
	require.Equal(t, len(schedule), m.Offered)
	require.Equal(t, len(schedule), m.InTime)
	batches, rows, err := l.Batches()
	require.NoError(t, err)
	require.EqualValues(t, len(schedule), rows)
	require.Positive(t, batches)
	coalesced, err := l.Counter("clipper_model_coalesced_total")
	require.NoError(t, err)
	require.Zero(t, coalesced, "no two queries are equal")
	_, err = l.Counter("clipper_model_nothing_total")
	require.Error(t, err)
}

func TestOpen_failure(t *testing.T) {
	l := start(t, scripted{fail: true}, false)
	m, err := l.Open(t.Context(), load.OpenConfig{Schedule: make([]time.Duration, 10), Objective: time.Minute})
	require.ErrorContains(t, err, "no")
	require.Equal(t, 10, m.Failed)
	require.ErrorContains(t, l.Ask(t.Context(), 0, time.Minute), "no")
	_, _, err = l.Saturate(t.Context(), layer.Saturation{
		Outstanding: 4, For: 10 * time.Millisecond, Input: func(int64) *tensor.Input { return tensor.FromTensors(l.Rows[0]) },
	})
	require.ErrorContains(t, err, "no")
}

// Answers from the cache come before Submit returns.
func TestSaturate(t *testing.T) {
	for _, cached := range []bool{false, true} {
		l := start(t, scripted{}, cached)
		require.NoError(t, l.Ask(t.Context(), 0, time.Minute))
		began, ended := 0, 0
		rate, answers, err := l.Saturate(t.Context(), layer.Saturation{
			Outstanding: 16, Warm: 10 * time.Millisecond, For: 50 * time.Millisecond,
			Input: func(n int64) *tensor.Input { return tensor.FromTensors(l.Rows[n%2]) },
			Begin: func() { began++ }, End: func() { ended++ },
		})
		require.NoError(t, err)
		require.Positive(t, answers)
		require.Positive(t, rate)
		require.Equal(t, []int{1, 1}, []int{began, ended})
		hits, err := l.Counter("clipper_model_cache_hits_total")
		require.NoError(t, err)
		require.Equal(t, cached, hits > 0)
	}
}

func TestMakeRows(t *testing.T) {
	for _, floats := range []int{2, 16, 784} {
		seen := map[string]bool{}
		for _, row := range layer.MakeRows(floats) {
			require.NoError(t, tensor.Check(row[0]))
			seen[string(row[0].Data)] = true
		}
		require.Len(t, seen, len(layer.MakeRows(floats)))
	}
}

func TestWindow(t *testing.T) {
	require.Equal(t, 2*time.Second, layer.Window(1000))
	require.Equal(t, time.Second, layer.Window(1e6))
	require.Equal(t, 8*time.Second, layer.Window(1))
}
