// SPDX-License-Identifier: Apache-2.0

package queue_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/clipper-serving/clipper/abstraction/batching"
	"github.com/clipper-serving/clipper/abstraction/metrics"
	"github.com/clipper-serving/clipper/abstraction/prediction"
	"github.com/clipper-serving/clipper/abstraction/queue"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newQueue(t require.TestingT, maxRows int) *queue.Queue {
	m, err := metrics.New(prometheus.NewRegistry())
	require.NoError(t, err)
	return queue.New(maxRows, m.Version("m", "1"))
}

// size is a controller that always says the same.
type size int

func (s size) Next(batching.Backlog) batching.Decision { return batching.Decision{Rows: int(s)} }
func (s size) Observe(batching.Observation)            {}

func limits(rows, inFlight int) queue.Limits {
	return queue.Limits{Controller: size(rows), Bytes: 1 << 20, InFlight: inFlight}
}

// sink collects results.
type sink struct {
	mu      sync.Mutex
	results map[int][]prediction.Result
}

func (s *sink) Receive(tag int, r prediction.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.results == nil {
		s.results = map[int][]prediction.Result{}
	}
	s.results[tag] = append(s.results[tag], r)
}

func (s *sink) status(tag int) clipperv1.PredictionStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.results[tag]) == 0 {
		return clipperv1.PredictionStatus_PREDICTION_STATUS_UNSPECIFIED
	}
	if err := s.results[tag][0].Err; err != nil {
		return err.Status
	}
	return clipperv1.PredictionStatus_PREDICTION_STATUS_OK
}

// all returns the results of a request.
func (s *sink) all(tag int) []prediction.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.results[tag]
}

func request(s *sink, tag int, deadline time.Time) *prediction.Request {
	return &prediction.Request{
		Context:  context.Background(),
		Input:    tensor.FromTensors([]*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_UINT8, Shape: []int64{1}, Data: []byte{byte(tag)}}}),
		Deadline: deadline, Receiver: s, Tag: tag,
	}
}

func tags(items []queue.Item) []int {
	out := make([]int, len(items))
	for i, it := range items {
		out[i] = it.Request.Tag
	}
	return out
}

// puller is a replica's place at the queue with a channel that gets its batches, however they come.
type puller struct {
	*queue.Puller
	batches chan []queue.Item
}

func newPuller(q *queue.Queue, l queue.Limits) *puller {
	p := &puller{batches: make(chan []queue.Item, 100)}
	p.Puller = q.NewPuller("a", l, p.begin)
	return p
}

func (p *puller) begin(items *[]queue.Item) { p.batches <- slices.Clone(*items) }

// run pulls until ctx ends.
func (p *puller) run(ctx context.Context) {
	for {
		items, err := p.Pull(ctx, nil)
		if err != nil {
			return
		}
		p.batches <- items
	}
}

func answer(p *puller, items []queue.Item) {
	for _, it := range items {
		it.Request.Reply(prediction.Result{})
	}
	if next := p.Done(len(items)); next != nil {
		p.begin(next)
	}
}

// pulling starts to pull and returns the channel that gets the batches.
func pulling(t *testing.T, p *puller) <-chan []queue.Item {
	go p.run(t.Context())
	synctest.Wait()
	return p.batches
}

func got(t *testing.T, ch <-chan []queue.Item) []queue.Item {
	t.Helper()
	synctest.Wait()
	select {
	case items := <-ch:
		return items
	default:
		return nil
	}
}

func TestPull_mostUrgentFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s, now := newQueue(t, 10), &sink{}, time.Now()
		for tag, d := range []time.Duration{3 * time.Second, 0, time.Second, 2 * time.Second, time.Second} {
			r := request(s, tag, now.Add(d))
			if d == 0 {
				r.Deadline = time.Time{} // No deadline: last.
			}
			q.Submit(r)
		}
		p := newPuller(q, limits(10, 1))
		items, err := p.Pull(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, []int{2, 4, 3, 0, 1}, tags(items))
		answer(p, items)
		time.Sleep(time.Hour)
	})
}

func TestSubmit_expiresWithoutAReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s, begin := newQueue(t, 10), &sink{}, time.Now()
		q.Submit(request(s, 0, begin.Add(2*time.Second)))
		q.Submit(request(s, 1, begin.Add(time.Second)))
		q.Submit(request(s, 2, begin))
		require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE, s.status(2), "at once")
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE, s.status(1))
		require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_UNSPECIFIED, s.status(0))
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE, s.status(0))
		require.Zero(t, q.Len())
	})
}

func TestPull_dropsWhatNobodyWaitsFor(t *testing.T) {
	q, s := newQueue(t, 10), &sink{}
	ctx, cancel := context.WithCancel(t.Context())
	for tag := range 4 {
		r := request(s, tag, time.Time{})
		if tag%2 == 0 {
			r.Context = ctx
		}
		q.Submit(r)
	}
	cancel()
	p := newPuller(q, limits(10, 1))
	items, err := p.Pull(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, []int{1, 3}, tags(items))
	require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE, s.status(0))
	require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE, s.status(2))
}

func TestSubmit_fullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s := newQueue(t, 2), &sink{}
		q.Submit(request(s, 0, time.Time{}))
		time.Sleep(300 * time.Millisecond)
		p := newPuller(q, limits(1, 2))
		_, err := p.Pull(t.Context(), nil)
		require.NoError(t, err)
		q.Submit(request(s, 1, time.Now().Add(time.Second)))
		q.Submit(request(s, 2, time.Time{}))
		q.Submit(request(s, 3, time.Time{}))
		require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_OVERLOADED, s.status(3))
		require.Equal(t, 300*time.Millisecond, s.all(3)[0].Err.RetryAfter, "as long as the last one waited")
		time.Sleep(time.Second)
		q.Submit(request(s, 4, time.Time{}))
		require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_UNSPECIFIED, s.status(4), "what has expired makes room")
	})
}

func TestPull_sharesABurstAmongIdleReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s := newQueue(t, 100), &sink{}
		for tag := range 10 {
			q.Submit(request(s, tag, time.Time{}))
		}
		lost := newPuller(q, limits(100, 2))
		items := got(t, pulling(t, lost))
		require.Len(t, items, 10)
		pulls := []<-chan []queue.Item{lost.batches}
		for range 3 {
			pulls = append(pulls, pulling(t, newPuller(q, limits(100, 2))))
		}
		lost.Return(items, "it died") // A burst in one moment.
		var sizes []int
		for _, ch := range pulls {
			sizes = append(sizes, len(got(t, ch)))
		}
		require.Equal(t, 10, sizes[0]+sizes[1]+sizes[2]+sizes[3])
		require.LessOrEqual(t, slices.Max(sizes), 3, "%v", sizes)
		require.GreaterOrEqual(t, slices.Min(sizes), 2, "%v", sizes)
	})
}

func TestPull_idleReplicasBeforeBusyOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s := newQueue(t, 100), &sink{}
		busy, idle := newPuller(q, limits(4, 2)), newPuller(q, limits(4, 2))
		q.Submit(request(s, 0, time.Time{}))
		batches := pulling(t, busy)
		require.Len(t, got(t, batches), 1)
		other := pulling(t, idle)
		q.Submit(request(s, 1, time.Time{}))
		require.Equal(t, []int{1}, tags(got(t, other)))
		require.Empty(t, got(t, batches))
		q.Submit(request(s, 2, time.Time{}))
		require.Equal(t, []int{2}, tags(got(t, batches)), "when none is idle, the next batch is sent ahead")
	})
}

// TestSubmit_begins: the goroutine that brings a request begins the batch of an idle replica itself.
func TestSubmit_begins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s := newQueue(t, 100), &sink{}
		p := newPuller(q, limits(4, 2))
		batches := pulling(t, p)
		q.Submit(request(s, 0, time.Time{}))
		select {
		case items := <-batches:
			require.Equal(t, []int{0}, tags(items))
		default:
			t.Fatal("the batch has not begun when Submit returns")
		}
	})
}

func TestPull_sendsAheadOnlyWhatIsWorthIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s := newQueue(t, 100), &sink{}
		p := newPuller(q, limits(8, 2))
		for tag := range 3 {
			q.Submit(request(s, tag, time.Time{}))
		}
		batches := pulling(t, p)
		first := got(t, batches)
		require.Len(t, first, 3)
		q.Submit(request(s, 3, time.Time{}))
		q.Submit(request(s, 4, time.Time{}))
		require.Empty(t, got(t, batches), "a smaller batch waits while the container is busy")
		q.Submit(request(s, 5, time.Time{}))
		require.Equal(t, []int{3, 4, 5}, tags(got(t, batches)))
		for tag := 6; tag < 20; tag++ {
			q.Submit(request(s, tag, time.Time{}))
		}
		require.Empty(t, got(t, batches), "two are under way")
		answer(p, first)
		require.Len(t, got(t, batches), 8)
	})
}

func TestPull_becomesIdleWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s := newQueue(t, 100), &sink{}
		p := newPuller(q, limits(8, 2))
		q.Submit(request(s, 0, time.Time{}))
		q.Submit(request(s, 1, time.Time{}))
		batches := pulling(t, p)
		first := got(t, batches)
		q.Submit(request(s, 2, time.Time{}))
		require.Empty(t, got(t, batches))
		answer(p, first)
		require.Equal(t, []int{2}, tags(got(t, batches)), "nothing waits while a replica is idle")
	})
}

func TestPull_keepsUnlikeInputsApart(t *testing.T) {
	q, s := newQueue(t, 100), &sink{}
	for tag := range 6 {
		r := request(s, tag, time.Time{})
		if tag%2 == 1 {
			r.Input = tensor.FromTensors([]*clipperv1.Tensor{{Name: "x", DataType: clipperv1.DataType_DATA_TYPE_UINT8, Shape: []int64{1}, Data: []byte{1}}})
		}
		q.Submit(r)
	}
	p := newPuller(q, limits(100, 2))
	items, err := p.Pull(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, []int{0, 2, 4}, tags(items))
	items, err = p.Pull(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, []int{1, 3, 5}, tags(items))
}

func TestReturn_keepsTheOrderAndCountsAttempts(t *testing.T) {
	q, s, now := newQueue(t, 100), &sink{}, time.Now()
	p := newPuller(q, limits(1, 2))
	q.Submit(request(s, 0, now.Add(time.Hour)))
	for attempt := range 3 {
		q.Submit(request(s, 1+attempt, now.Add(2*time.Hour)))
		items, err := p.Pull(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, []int{0}, tags(items))
		require.Equal(t, attempt < 2, p.Return(items, "it died") == 1)
	}
	require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_UNAVAILABLE, s.status(0))
	require.Contains(t, s.all(0)[0].Err.Message, "it died")
	require.Equal(t, 3, q.Len())
	q.Close(cancelled(t), errGone)
}

var errGone = prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA, "gone")

func cancelled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestRefuse_answersWhatWaitsAndWhatComes(t *testing.T) {
	q, s := newQueue(t, 100), &sink{}
	q.Submit(request(s, 0, time.Time{}))
	q.Refuse(errGone)
	q.Submit(request(s, 1, time.Time{}))
	require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA, s.status(0))
	require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA, s.status(1))
	q.Refuse(nil)
	q.Submit(request(s, 2, time.Time{}))
	require.Equal(t, 1, q.Len())
}

func TestClose_waitsForWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s := newQueue(t, 100), &sink{}
		p := newPuller(q, limits(1, 1))
		q.Submit(request(s, 0, time.Time{}))
		items := got(t, pulling(t, p))
		closed := false
		go func() {
			q.Close(t.Context(), errGone)
			closed = true
		}()
		synctest.Wait()
		require.False(t, closed)
		q.Refuse(nil) // Does not open what is closed.
		q.Submit(request(s, 1, time.Time{}))
		require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA, s.status(1))
		answer(p, items)
		synctest.Wait()
		require.True(t, closed)
	})
}

func TestPull_endsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t, 1)
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() {
			_, err := newPuller(q, limits(1, 1)).Pull(ctx, nil)
			failed <- err
		}()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-failed, context.Canceled)
	})
}

// TestQueue_properties plays random requests, cancellations, replicas that come, die and answer, in
// random order, and checks what must always hold: each request is answered exactly once, a batch is
// in the order of deadlines, is no larger than its limits, holds inputs of one kind and nothing
// that had expired, and nothing waits while a replica has nothing to do.
func TestQueue_properties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var failure any // Of rapid, which shrinks only what fails outside of the bubble.
		synctest.Test(t, func(t *testing.T) {
			defer func() { failure = recover() }()
			play(t, rt)
		})
		if failure != nil {
			panic(failure)
		}
	})
}

func play(t *testing.T, rt *rapid.T) {
	const maxRows = 20
	q, s := newQueue(rt, maxRows), &sink{}
	type replica struct {
		puller   *puller
		limits   queue.Limits
		stop     context.CancelFunc
		inFlight [][]queue.Item
		rows     int
	}
	var replicas []*replica
	submitted, returned := 0, 0
	cancels := map[int]context.CancelFunc{}
	settle := func() {
		for again := true; again; {
			again = false
			synctest.Wait()
			for _, r := range replicas {
				select {
				case items := <-r.puller.batches:
					again = true
					if len(items) == 0 || len(items) > int(r.limits.Controller.(size)) {
						rt.Fatalf("a batch of %d rows, the limit is %d", len(items), r.limits.Controller)
					}
					for i, it := range items {
						if i > 0 && before(it.Request.Deadline, items[i-1].Request.Deadline) {
							rt.Fatalf("the batch is not in the order of deadlines: %v", tags(items))
						}
						if d := it.Request.Deadline; !d.IsZero() && !d.After(time.Now()) {
							rt.Fatalf("request %d had expired", it.Request.Tag)
						}
						if kind(it) != kind(items[0]) {
							rt.Fatalf("unlike inputs share a batch")
						}
					}
					r.inFlight = append(r.inFlight, items)
					r.rows += len(items)
					if len(r.inFlight) > r.limits.InFlight {
						rt.Fatalf("%d batches under way, the limit is %d", len(r.inFlight), r.limits.InFlight)
					}
				default:
				}
			}
		}
		if q.Len() > maxRows+returned { // What was admitted once is not refused later.
			rt.Fatalf("%d rows wait, the limit is %d", q.Len(), maxRows)
		}
		for _, r := range replicas {
			if len(r.inFlight) == 0 && q.Len() > 0 {
				rt.Fatalf("%d rows wait while a replica is idle", q.Len())
			}
		}
	}
	for range rapid.IntRange(1, 60).Draw(rt, "steps") {
		switch rapid.SampledFrom([]string{"submit", "submit", "submit", "connect", "answer", "die", "cancel", "sleep", "retune"}).Draw(rt, "step") {
		case "submit":
			for range rapid.IntRange(1, 15).Draw(rt, "requests") {
				r := request(s, submitted, time.Time{})
				r.Priority = uint8(rapid.IntRange(0, prediction.MaxPriority).Draw(rt, "priority"))
				if rapid.Bool().Draw(rt, "has deadline") {
					r.Deadline = time.Now().Add(time.Duration(rapid.IntRange(-1, 50).Draw(rt, "budget")) * time.Millisecond)
				}
				if rapid.IntRange(0, 3).Draw(rt, "kind") == 0 {
					r.Input = tensor.FromTensors([]*clipperv1.Tensor{{Name: "other", DataType: clipperv1.DataType_DATA_TYPE_BOOL, Data: []byte{1}}})
				}
				r.Context, cancels[submitted] = context.WithCancel(t.Context())
				submitted++
				q.Submit(r)
			}
		case "connect":
			l := limits(rapid.IntRange(1, 8).Draw(rt, "rows"), rapid.IntRange(1, 2).Draw(rt, "in flight"))
			r := &replica{puller: newPuller(q, l), limits: l}
			replicas = append(replicas, r)
			var ctx context.Context
			ctx, r.stop = context.WithCancel(t.Context())
			go r.puller.run(ctx)
		case "answer":
			for _, r := range replicas {
				if len(r.inFlight) > 0 && rapid.Bool().Draw(rt, "answers") {
					answer(r.puller, r.inFlight[0])
					r.inFlight = r.inFlight[1:]
				}
			}
		case "die":
			if len(replicas) > 0 {
				settle()
				r := replicas[0]
				replicas = replicas[1:]
				r.stop()
				synctest.Wait()
				for len(r.puller.batches) > 0 {
					r.inFlight = append(r.inFlight, <-r.puller.batches)
				}
				for _, items := range r.inFlight {
					returned += r.puller.Return(items, "it died")
				}
			}
		case "cancel":
			if submitted > 0 {
				cancels[rapid.IntRange(0, submitted-1).Draw(rt, "request")]()
			}
		case "sleep":
			time.Sleep(time.Duration(rapid.IntRange(1, 30).Draw(rt, "ms")) * time.Millisecond)
		case "retune":
			for _, r := range replicas {
				settle()
				r.limits = limits(rapid.IntRange(1, 8).Draw(rt, "rows"), 2)
				r.puller.SetLimits(r.limits)
			}
		}
		settle()
	}
	for _, r := range replicas {
		r.stop()
	}
	synctest.Wait()
	for _, r := range replicas {
		for _, items := range r.inFlight {
			answer(r.puller, items)
		}
		for len(r.puller.batches) > 0 {
			answer(r.puller, <-r.puller.batches)
		}
	}
	q.Close(cancelled(t), errGone)
	for tag := range submitted {
		cancels[tag]()
		if n := len(s.all(tag)); n != 1 {
			rt.Fatalf("request %d was answered %d times", tag, n)
		}
	}
}

func before(a, b time.Time) bool {
	if a.IsZero() || b.IsZero() {
		return !a.IsZero() && b.IsZero()
	}
	return a.Before(b)
}

func kind(it queue.Item) string {
	tensors, _ := it.Request.Input.Tensors()
	return fmt.Sprint(tensors[0].Name, tensors[0].DataType)
}

// BenchmarkQueue is what a request costs in the queue, from Submit to Done, in full batches.
func BenchmarkQueue(b *testing.B) {
	for _, rows := range []int{1, 64, 1024} {
		b.Run(fmt.Sprint(rows), func(b *testing.B) {
			q, s := newQueue(b, 1<<20), &sink{}
			p := newPuller(q, limits(rows, 1))
			r := request(s, 0, time.Now().Add(time.Hour))
			var items []queue.Item
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				q.Submit(r)
				if n++; n%rows == 0 {
					items, _ = p.Pull(b.Context(), items[:0])
					p.Done(len(items))
				}
			}
			q.Refuse(errGone)
		})
	}
}
