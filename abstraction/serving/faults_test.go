// SPDX-License-Identifier: Apache-2.0

package serving_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/clipper-serving/clipper/abstraction/prediction"
	"github.com/clipper-serving/clipper/abstraction/serving"
	"github.com/clipper-serving/clipper/containerrpc/containertest"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// background asks from several goroutines' worth of callers, each again when it is answered, until
// stop is called, which returns how often which status was answered.
func (h *harness) background(callers int, budget time.Duration) (stop func() map[clipperv1.PredictionStatus]int) {
	b := &loadReceiver{h: h, budget: budget, counts: map[clipperv1.PredictionStatus]*atomic.Int64{}, ended: make(chan struct{}, callers)}
	for s := range clipperv1.PredictionStatus_name {
		b.counts[clipperv1.PredictionStatus(s)] = &atomic.Int64{}
	}
	for range callers {
		go b.next() // On a goroutine, since an answer may come before Submit returns.
	}
	return func() map[clipperv1.PredictionStatus]int {
		b.stopped.Store(true)
		timeout := time.After(patience)
		for range callers {
			select {
			case <-b.ended:
			case <-timeout:
				require.FailNow(h.t, "requests were not answered")
			}
		}
		counts := map[clipperv1.PredictionStatus]int{}
		for s, n := range b.counts {
			if n.Load() > 0 {
				counts[s] = int(n.Load())
			}
		}
		return counts
	}
}

type loadReceiver struct {
	h       *harness
	budget  time.Duration
	number  atomic.Uint32
	counts  map[clipperv1.PredictionStatus]*atomic.Int64
	stopped atomic.Bool
	ended   chan struct{}
}

func (b *loadReceiver) next() {
	if b.stopped.Load() {
		b.ended <- struct{}{}
		return
	}
	n := b.number.Add(1)
	b.h.Submit(&prediction.Request{
		Context: context.Background(), Input: row(byte(n), byte(n>>8), byte(n>>16)), Deadline: time.Now().Add(b.budget), Receiver: b,
	})
}

func (b *loadReceiver) Receive(_ int, r prediction.Result) {
	b.counts[status(r)].Add(1)
	go b.next()
}

// TestFaults_othersNoticeNothing plays every container that misbehaves beside one that is well. What
// the bad one answers wrongly fails with a reason; everything else is answered, and it serves again as
// soon as it is well.
func TestFaults_othersNoticeNothing(t *testing.T) {
	for name, tc := range map[string]struct {
		behavior containertest.Behavior
		fails    bool // what it answers is the answer
	}{
		"wrong number of rows": {containertest.WrongRows, true},
		"no rows":              {func(c *containertest.Call) { c.Send(&clipperv1.PredictResponse{Id: c.Request.Id}) }, true},
		"wrong type":           {containertest.WrongType, true},
		"error":                {containertest.FailBatch(codes.Internal, "out of memory"), true},
		"garbage":              {containertest.Garbage, false},
		"another batch":        {containertest.UnknownID, false},
		"twice":                {containertest.Twice, false},
		"slowly":               {containertest.Slow(20*time.Millisecond, containertest.Echo), false},
		"ends the stream":      {func(c *containertest.Call) { c.Break(codes.OK, "") }, false},
		"breaks the stream":    {func(c *containertest.Call) { c.Break(codes.Internal, "lost my mind") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			// A query is lost at most three times; so the bad one misbehaves only now and then.
			well := containertest.Start(t, containertest.Linear(time.Millisecond, 0))
			bad := containertest.Start(t, func(c *containertest.Call) {
				if c.Number%5 == 4 {
					tc.behavior(c)
					return
				}
				containertest.Echo(c)
			})
			h := start(t, serving.Config{Batching: &clipperv1.Batching{Policy: "fixed", MaxBatchRows: 4}})
			h.connect("well", well)
			h.connect("bad", bad)
			stop := h.background(16, patience)
			require.Eventually(t, func() bool { return len(bad.Calls()) > 20 }, patience, time.Millisecond)
			counts := stop()
			require.Positive(t, counts[ok])
			delete(counts, ok)
			if tc.fails {
				require.Positive(t, counts[failed])
				delete(counts, failed)
			}
			require.Empty(t, counts)

			bad.Behave(containertest.Echo)
			h.await("bad", clipperv1.ReplicaState_REPLICA_STATE_READY)
			h.Disconnect(t.Context(), "well")
			require.Nil(t, h.ask(row(1, 2, 3, 4), patience).Err, "it is not wedged")
		})
	}
}

// TestFaults_flapping: a container that dies again and again costs no query, while another is well.
func TestFaults_flapping(t *testing.T) {
	h := start(t, serving.Config{Batching: &clipperv1.Batching{Policy: "fixed", MaxBatchRows: 4}})
	h.connect("well", containertest.Start(t, containertest.Linear(time.Millisecond, 0)))
	c := containertest.Start(t, containertest.Linear(time.Millisecond, 0))
	h.connect("flaps", c)
	stop := h.background(16, patience)
	for range 4 {
		served := len(c.Calls())
		require.Eventually(t, func() bool { return len(c.Calls()) > served }, patience, time.Millisecond)
		c.Kill()
		h.await("flaps", clipperv1.ReplicaState_REPLICA_STATE_STARTING)
		c.Start()
		h.await("flaps", clipperv1.ReplicaState_REPLICA_STATE_READY)
	}
	counts := stop()
	require.Positive(t, counts[ok])
	delete(counts, ok)
	require.Empty(t, counts)
}

// TestFaults_refuses: a container that refuses connections takes nothing from those that are well.
func TestFaults_refuses(t *testing.T) {
	h := start(t, serving.Config{StartTimeout: 50 * time.Millisecond})
	h.Connect("refuses", containertest.New(t, containertest.Echo).Address())
	h.connect("well", containertest.Start(t, containertest.Echo))
	stop := h.background(16, patience)
	require.NotEmpty(t, h.await("refuses", clipperv1.ReplicaState_REPLICA_STATE_FAILED).Message)
	counts := stop()
	delete(counts, ok)
	require.Empty(t, counts)
}

// TestFaults_tooLate: an answer after the deadline is an answer all the same; the one who asked
// decides. The stream goes on.
func TestFaults_tooLate(t *testing.T) {
	c := containertest.Start(t, containertest.Slow(100*time.Millisecond, containertest.Echo))
	h := start(t, serving.Config{Batching: &clipperv1.Batching{Policy: "none", MaxInFlight: 1}})
	h.connect("a", c)
	a := newAnswers(t)
	h.submit(a, 0, row(0), 10*time.Millisecond)
	require.Eventually(t, func() bool { return len(c.Calls()) == 1 }, patience, time.Millisecond)
	h.submit(a, 1, row(1), 10*time.Millisecond) // Waits behind the first until its deadline.
	h.submit(a, 2, row(2), patience)
	results := a.wait(3)
	require.Nil(t, results[0].Err)
	require.Equal(t, deadline, status(results[1]))
	require.Contains(t, results[1].Err.Message, "before a replica was free")
	require.Nil(t, results[2].Err)
	require.Equal(t, 1, c.Streams(), "slow is not dead")
	require.Len(t, c.Calls(), 2, "what is hopeless costs the container nothing")
}

// TestFaults_smallMessages: a container that takes less than it gets, and does not say so in its
// description, gets less.
func TestFaults_smallMessages(t *testing.T) {
	const most = 1000
	c := containertest.Start(t, func(c *containertest.Call) {
		if n := len(c.Request.Inputs[0].Data); n > most {
			c.Break(codes.ResourceExhausted, "Received message larger than max (5000 vs. 1000)")
			return
		}
		containertest.Echo(c)
	})
	h := start(t, serving.Config{Batching: &clipperv1.Batching{Policy: "fixed", MaxInFlight: 1}})
	h.connect("a", c)
	a := newAnswers(t)
	for i := range 20 {
		h.submit(a, i, row(append(make([]byte, 180), byte(i))...), patience)
	}
	for _, r := range a.wait(20) {
		require.Nil(t, r.Err)
	}
	r := h.ask(row(make([]byte, 2*most)...), patience)
	require.Equal(t, failed, status(r))
	require.Contains(t, r.Err.Message, "that the container takes")
	streams := c.Streams()
	require.Equal(t, failed, status(h.ask(row(append(make([]byte, 2*most), 1)...), patience)))
	require.Equal(t, streams, c.Streams(), "it is known by then")
	require.Nil(t, h.ask(row(9), patience).Err)
}

// TestFaults_emptyTensors: an input without elements is an input like any other.
func TestFaults_emptyTensors(t *testing.T) {
	c := containertest.Start(t, containertest.Echo)
	h := start(t, serving.Config{})
	h.connect("a", c)
	a := newAnswers(t)
	for i := range 20 {
		in := row()
		if i%2 == 1 {
			in = tensor.FromTensors([]*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_STRING, Shape: []int64{0, int64(i)}}})
		}
		h.submit(a, i, in, patience)
	}
	for i, r := range a.wait(20) {
		require.Nil(t, r.Err, i)
		require.Len(t, r.Outputs, 1)
		n, known := tensor.Elements(r.Outputs[0].Shape)
		require.True(t, known)
		require.Zero(t, n)
	}
	require.Nil(t, h.ask(row(1), patience).Err)
}

// TestFaults_closedUnderLoad: what is under way is answered, and what comes later gets the reason.
func TestFaults_closedUnderLoad(t *testing.T) {
	h := start(t, serving.Config{Batching: &clipperv1.Batching{Policy: "fixed", MaxBatchRows: 4}})
	h.connect("a", containertest.Start(t, containertest.Linear(time.Millisecond, 0)))
	h.connect("b", containertest.Start(t, containertest.Linear(2*time.Millisecond, 0)))
	stop := h.background(64, patience)
	require.Eventually(t, func() bool { return h.counter("clipper_model_cache_misses_total") > 500 }, patience, time.Millisecond)
	h.Close(t.Context())
	r := h.ask(row(1), patience)
	counts := stop()
	require.Positive(t, counts[ok])
	delete(counts, ok)
	delete(counts, noReplica)
	require.Empty(t, counts)
	require.Equal(t, noReplica, status(r))
	require.Contains(t, r.Err.Message, "m:1 is being removed")
}
