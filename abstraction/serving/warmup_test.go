// SPDX-License-Identifier: Apache-2.0

package serving_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/clipper-serving/clipper/abstraction/serving"
	"github.com/clipper-serving/clipper/containerrpc/containertest"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// samples is a warm-up with rows of one byte each.
func samples(values ...byte) *clipperv1.WarmUp {
	w := &clipperv1.WarmUp{}
	for _, v := range values {
		w.Samples = append(w.Samples, &clipperv1.WarmUpSample{Tensors: tensorsOf(row(v))})
	}
	return w
}

func tensorsOf(in *tensor.Input) []*clipperv1.Tensor {
	tensors, err := in.Tensors()
	if err != nil {
		panic(err)
	}
	return tensors
}

// takesRow is the signature of rows of one byte.
func takesRow() *clipperv1.Signature {
	return &clipperv1.Signature{Inputs: []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_UINT8, Shape: []int64{1}}}}
}

func sizes(calls []*clipperv1.PredictRequest) []int {
	var rows []int
	for _, c := range calls {
		rows = append(rows, int(c.Rows))
	}
	return rows
}

// TestWarmUp_beforeQueries: what comes meanwhile is held, and finds a controller that has learned.
func TestWarmUp_beforeQueries(t *testing.T) {
	open := make(chan struct{})
	c := containertest.Start(t, containertest.Gate(open, containertest.Echo))
	h := start(t, serving.Config{WarmUp: samples(7, 8, 9), Batching: &clipperv1.Batching{Policy: "aimd", MaxBatchRows: 6, MaxInFlight: 1}})
	h.Connect("a", c.Address())
	for h.Replicas()[0].Message != "warming up" {
		<-h.changes
	}
	require.Equal(t, clipperv1.ReplicaState_REPLICA_STATE_STARTING, h.Replicas()[0].State)
	a := newAnswers(t)
	for i := range 4 {
		h.submit(a, i, row(byte(i)), patience)
	}
	close(open)
	for i, r := range a.wait(4) {
		require.Nil(t, r.Err)
		require.Equal(t, []byte{byte(i)}, r.Outputs[0].Data)
	}
	require.Empty(t, h.await("a", clipperv1.ReplicaState_REPLICA_STATE_READY).Message)
	calls := c.Calls()
	require.Equal(t, []int{1, 1, 2, 2, 4, 4, 6, 6, 4}, sizes(calls))
	require.Equal(t, []byte{7, 8, 9, 7}, calls[4].Inputs[0].Data)
	require.Positive(t, calls[0].TimeoutMicros)

	require.InDelta(t, 4, h.counter("clipper_model_cache_misses_total"), 0, "samples are no queries")
	_, found := h.cache.Lookup("m", "1", row(7))
	require.False(t, found, "and their predictions are not remembered")
	require.InDelta(t, 1, h.counter("clipper_model_warm_ups_total"), 0)
}

// counter returns the sum of the series of a counter.
func (h *harness) counter(name string) float64 {
	h.t.Helper()
	families, err := h.metrics.Gather()
	require.NoError(h.t, err)
	sum := 0.0
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.Metric {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func TestWarmUp_growsToTheLimits(t *testing.T) {
	for name, tc := range map[string]struct {
		batching  *clipperv1.Batching
		container *clipperv1.DescribeResponse
		behavior  containertest.Behavior
		limit     time.Duration
		want      []int
	}{
		"no batching": {&clipperv1.Batching{Policy: "none"}, nil, containertest.Echo, 0, []int{1, 1}},
		"container":   {nil, &clipperv1.DescribeResponse{MaxBatchRows: 3}, containertest.Echo, 0, []int{1, 1, 2, 2, 3, 3}},
		"bytes":       {nil, &clipperv1.DescribeResponse{MaxMessageBytes: 8192}, containertest.Echo, 0, []int{1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32, 64, 64, 128, 128, 240, 240}},
		"latency":     {nil, nil, containertest.Linear(0, 70*time.Millisecond), 0, []int{1, 1, 2, 2}},
		"time":        {nil, nil, containertest.Linear(100*time.Millisecond, 0), 600 * time.Millisecond, []int{1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			c := containertest.New(t, tc.behavior)
			if tc.container != nil {
				c.SetDescription(tc.container)
			}
			c.Start()
			w := samples(1)
			if tc.limit > 0 {
				w.TimeLimit = durationpb.New(tc.limit)
			}
			h := start(t, serving.Config{WarmUp: w, Batching: tc.batching})
			h.connect("a", c)
			require.Equal(t, tc.want, sizes(c.Calls()))
		})
	}
}

// TestWarmUp_chosenInputs: without samples there are recent inputs, and else zeros.
func TestWarmUp_chosenInputs(t *testing.T) {
	one := &clipperv1.Batching{Policy: "none"}
	c := containertest.Start(t, containertest.Echo)
	h := start(t, serving.Config{WarmUp: &clipperv1.WarmUp{}, Batching: one, Signature: takesRow(), Recent: func() [][]*clipperv1.Tensor {
		return [][]*clipperv1.Tensor{tensorsOf(row(1, 2)), tensorsOf(row(5))}
	}})
	h.connect("a", c)
	require.Equal(t, []byte{5}, c.Calls()[1].Inputs[0].Data, "what fits the signature")

	c = containertest.Start(t, containertest.Echo)
	h = start(t, serving.Config{WarmUp: &clipperv1.WarmUp{}, Batching: one, Signature: takesRow()})
	h.connect("a", c)
	require.Equal(t, []byte{0}, c.Calls()[1].Inputs[0].Data)
	require.Nil(t, h.ask(row(6), patience).Err)
	added := containertest.Start(t, containertest.Echo)
	h.connect("b", added)
	require.Equal(t, []byte{6}, added.Calls()[1].Inputs[0].Data, "the version's own queries")

	c = containertest.Start(t, containertest.Echo)
	h = start(t, serving.Config{WarmUp: &clipperv1.WarmUp{}})
	h.connect("a", c)
	require.Empty(t, c.Calls(), "nothing is known about inputs")
}

func misbehaviors() map[string]containertest.Behavior {
	return map[string]containertest.Behavior{
		"error":     containertest.FailBatch(codes.Internal, "out of memory"),
		"row error": containertest.FailRows("bad pixel", 0),
		"wrong":     containertest.WrongRows,
		"never":     containertest.Never,
	}
}

// TestWarmUp_givenInputsMustBePredicted: the reason is shown, and goes when the cause does.
func TestWarmUp_givenInputsMustBePredicted(t *testing.T) {
	reasons := map[string]string{"error": "out of memory", "row error": "bad pixel", "wrong": "too many for 1 rows", "never": "time limit"}
	for name, b := range misbehaviors() {
		t.Run(name, func(t *testing.T) {
			c := containertest.Start(t, b)
			w := samples(1)
			w.TimeLimit = durationpb.New(100 * time.Millisecond)
			h := start(t, serving.Config{WarmUp: w})
			h.Connect("a", c.Address())
			r := h.await("a", clipperv1.ReplicaState_REPLICA_STATE_FAILED)
			require.Contains(t, r.Message, "the warm-up with the version's sample inputs failed in a batch of 1")
			require.Contains(t, r.Message, reasons[name])
			require.Equal(t, noReplica, status(h.ask(row(1), time.Hour)))
			c.Behave(containertest.Echo)
			h.await("a", clipperv1.ReplicaState_REPLICA_STATE_READY)
			require.Nil(t, h.ask(row(1), patience).Err)
		})
	}
}

// TestWarmUp_chosenInputsMayFail: what nobody asked for does no harm.
func TestWarmUp_chosenInputsMayFail(t *testing.T) {
	for name, b := range misbehaviors() {
		t.Run(name, func(t *testing.T) {
			c := containertest.Start(t, containertest.Times(1, b, containertest.Echo))
			h := start(t, serving.Config{WarmUp: &clipperv1.WarmUp{TimeLimit: durationpb.New(100 * time.Millisecond)}, Signature: takesRow()})
			h.connect("a", c)
			require.Nil(t, h.ask(row(1), patience).Err)
			require.Equal(t, []int{1, 1}, sizes(c.Calls()), "one batch to warm up and the query")
		})
	}
}

// TestWarmUp_chosenInputsThatKill: the version serves all the same.
func TestWarmUp_chosenInputsThatKill(t *testing.T) {
	c := containertest.Start(t, func(c *containertest.Call) {
		if slices.Contains(c.Request.Inputs[0].Data, 0) {
			c.Break(codes.Unavailable, "division by zero")
			return
		}
		containertest.Echo(c)
	})
	h := start(t, serving.Config{WarmUp: &clipperv1.WarmUp{}, Signature: takesRow()})
	h.connect("a", c)
	require.Nil(t, h.ask(row(1), patience).Err)
	require.Len(t, c.Calls(), 3)
}

// TestWarmUp_smallMessages: batches grow to what the container takes, though it does not say so.
func TestWarmUp_smallMessages(t *testing.T) {
	const most = 20
	c := containertest.Start(t, func(c *containertest.Call) {
		if len(c.Request.Inputs[0].Data) > most {
			c.Break(codes.ResourceExhausted, "Received message larger than max (100 vs. 20)")
			return
		}
		containertest.Echo(c)
	})
	h := start(t, serving.Config{WarmUp: samples(1)})
	h.connect("a", c)
	require.Equal(t, []int{1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 1, 1, 2, 2, 4, 4, 8, 8, 16, 16}, sizes(c.Calls()))
}

// TestWarmUp_again: another process may be behind the next connection, but not behind the next stream.
func TestWarmUp_again(t *testing.T) {
	c := containertest.Start(t, containertest.Echo)
	h := start(t, serving.Config{WarmUp: samples(1), Batching: &clipperv1.Batching{Policy: "none"}})
	h.connect("a", c)
	require.Len(t, c.Calls(), 2)
	c.Behave(containertest.Times(1, containertest.Garbage, containertest.Echo))
	require.Nil(t, h.ask(row(2), patience).Err)
	require.Len(t, c.Calls(), 4)
	require.Equal(t, 2, c.Streams())

	c.Kill()
	h.await("a", clipperv1.ReplicaState_REPLICA_STATE_STARTING)
	c.Start()
	h.await("a", clipperv1.ReplicaState_REPLICA_STATE_READY)
	require.Len(t, c.Calls(), 6)
}

func TestWarmUp_endsWithItsReplica(t *testing.T) {
	c := containertest.Start(t, containertest.Never)
	h := start(t, serving.Config{WarmUp: samples(1)})
	h.Connect("a", c.Address())
	require.Eventually(t, func() bool { return len(c.Calls()) == 1 }, patience, time.Millisecond)
	h.Disconnect(t.Context(), "a") // Without waiting for what nobody waits for.
	h.Connect("b", c.Address())
	require.Eventually(t, func() bool { return len(c.Calls()) == 2 }, patience, time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	h.Close(ctx)
	require.NoError(t, ctx.Err())
	require.Zero(t, testutil.CollectAndCount(h.metrics), "the version's series are gone")
}
