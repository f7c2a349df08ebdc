// SPDX-License-Identifier: Apache-2.0

package coalesce_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/abstraction/coalesce"
	"github.com/clipper-serving/clipper/abstraction/prediction"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// next keeps what is submitted.
type next struct{ requests []*prediction.Request }

func (n *next) Submit(r *prediction.Request) { n.requests = append(n.requests, r) }

type sink struct {
	mu      sync.Mutex
	results map[int]prediction.Result
}

func (s *sink) Receive(tag int, r prediction.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.results == nil {
		s.results = map[int]prediction.Result{}
	}
	if _, twice := s.results[tag]; twice {
		panic(fmt.Sprintf("request %d was answered twice", tag))
	}
	s.results[tag] = r
}

func input(text string) *tensor.Input {
	return tensor.FromTensors([]*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_STRING, Strings: []string{text}}})
}

func request(s *sink, tag int, text string, deadline time.Time) *prediction.Request {
	return &prediction.Request{Context: context.Background(), Input: input(text), Deadline: deadline, Receiver: s, Tag: tag}
}

func newGroup() (*coalesce.Group, *next) {
	n := &next{}
	return coalesce.New(n, prometheus.NewCounter(prometheus.CounterOpts{Name: "shared_total", Help: "Shared."})), n
}

var expired = prediction.Result{Err: prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE, "too late")}

func TestGroup_computesEqualRequestsOnce(t *testing.T) {
	g, n := newGroup()
	s := &sink{}
	for tag := range 5 {
		g.Submit(request(s, tag, "a", time.Time{}))
	}
	g.Submit(request(s, 5, "b", time.Time{}))
	require.Len(t, n.requests, 2)
	want := prediction.Result{Outputs: []*clipperv1.Tensor{{Name: "x"}}}
	n.requests[0].Reply(want)
	require.Len(t, s.results, 5)
	for _, r := range s.results {
		require.Equal(t, want, r)
	}
	g.Submit(request(s, 6, "a", time.Time{}))
	require.Len(t, n.requests, 3, "what is finished is not joined")
}

func TestGroup_sharesErrors(t *testing.T) {
	g, n := newGroup()
	s := &sink{}
	g.Submit(request(s, 0, "a", time.Time{}))
	g.Submit(request(s, 1, "a", time.Time{}))
	n.requests[0].Reply(prediction.Result{Err: prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_FAILED, "no")})
	require.Equal(t, "no", s.results[1].Err.Message)
}

func TestGroup_isCancelledOnlyByAll(t *testing.T) {
	g, n := newGroup()
	s := &sink{}
	var cancels []context.CancelFunc
	for tag := range 3 {
		r := request(s, tag, "a", time.Time{})
		var cancel context.CancelFunc
		r.Context, cancel = context.WithCancel(t.Context())
		cancels = append(cancels, cancel)
		g.Submit(r)
	}
	ctx := n.requests[0].Context
	cancels[0]()
	cancels[2]()
	require.NoError(t, ctx.Err())
	cancels[1]()
	require.ErrorIs(t, ctx.Err(), context.Canceled)
}

func TestGroup_asksAgainForThoseWithTimeLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, n := newGroup()
		s, now := &sink{}, time.Now()
		g.Submit(request(s, 0, "a", now.Add(time.Second)))
		g.Submit(request(s, 1, "a", now.Add(time.Minute)))
		g.Submit(request(s, 2, "a", now.Add(500*time.Millisecond)))
		g.Submit(request(s, 3, "a", now.Add(time.Minute)))
		g.Submit(request(s, 4, "a", time.Time{}))
		gone := request(s, 5, "a", time.Time{})
		ctx, cancel := context.WithCancel(t.Context())
		gone.Context = ctx
		g.Submit(gone)
		cancel()
		time.Sleep(time.Second)
		n.requests[0].Reply(expired)
		require.Len(t, n.requests, 2, "together")
		require.Equal(t, now.Add(time.Minute), n.requests[1].Deadline)
		require.Len(t, s.results, 3)
		for _, tag := range []int{0, 2, 5} {
			require.NotNil(t, s.results[tag].Err)
		}
		n.requests[1].Reply(prediction.Result{})
		require.Len(t, s.results, 6)
		for _, tag := range []int{1, 3, 4} {
			require.Nil(t, s.results[tag].Err)
		}
	})
}

func TestGroup_doesNotJoinWhatIsOverTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, n := newGroup()
		s, now := &sink{}, time.Now()
		g.Submit(request(s, 0, "a", now.Add(time.Second)))
		time.Sleep(time.Second)
		g.Submit(request(s, 1, "a", now.Add(time.Minute)))
		require.Len(t, n.requests, 2)
		n.requests[0].Reply(expired)
		g.Submit(request(s, 2, "a", now.Add(time.Minute)))
		require.Len(t, n.requests, 2, "the old flight has not taken the new one with it")
		n.requests[1].Reply(prediction.Result{})
		require.Len(t, s.results, 3)
	})
}

// TestGroup_concurrently has many submit and many answer at once.
func TestGroup_concurrently(t *testing.T) {
	s := &sink{}
	queue := make(chan *prediction.Request, 10000)
	g := coalesce.New(submitFunc(func(r *prediction.Request) { queue <- r }), prometheus.NewCounter(prometheus.CounterOpts{Name: "shared_total", Help: "Shared."}))
	var workers, callers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for r := range queue {
				tensors, _ := r.Input.Tensors()
				r.Reply(prediction.Result{Outputs: tensors})
			}
		})
	}
	for c := range 8 {
		callers.Go(func() {
			for i := range 500 {
				g.Submit(request(s, c*500+i, fmt.Sprint(i%7), time.Time{}))
			}
		})
	}
	callers.Wait()
	close(queue) // Nothing is submitted again: there are no deadlines.
	workers.Wait()
	require.Len(t, s.results, 4000)
	for tag, r := range s.results {
		require.Equal(t, fmt.Sprint(tag%500%7), r.Outputs[0].Strings[0])
	}
}

type submitFunc func(*prediction.Request)

func (f submitFunc) Submit(r *prediction.Request) { f(r) }

// BenchmarkGroup is what coalescing costs when no two requests are equal.
func BenchmarkGroup(b *testing.B) {
	g := coalesce.New(submitFunc(func(r *prediction.Request) { r.Reply(prediction.Result{}) }), prometheus.NewCounter(prometheus.CounterOpts{Name: "shared_total", Help: "Shared."}))
	r := &prediction.Request{Context: b.Context(), Input: input("a"), Receiver: discard{}}
	b.ReportAllocs()
	for b.Loop() {
		g.Submit(r)
	}
}

type discard struct{}

func (discard) Receive(int, prediction.Result) {}
