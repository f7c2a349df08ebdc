// SPDX-License-Identifier: Apache-2.0

package queue_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/abstraction/batching"
	"github.com/clipper-serving/clipper/abstraction/queue"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	unanswered = clipperv1.PredictionStatus_PREDICTION_STATUS_UNSPECIFIED
	deadline   = clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE
	overloaded = clipperv1.PredictionStatus_PREDICTION_STATUS_OVERLOADED
)

// knowing returns limits with a model that takes fixed + perRow·rows, to 200 rows, and the controller
// slo.
func knowing(t *testing.T, fixed, perRow time.Duration) queue.Limits {
	l := limits(1, 1)
	l.Model = batching.NewModel(batching.Learned{})
	for range 5 {
		for n := 1; n <= 200; n++ {
			l.Model.Observe(batching.Observation{Rows: n, Latency: fixed + time.Duration(n)*perRow})
		}
	}
	var err error
	l.Controller, err = batching.New(nil, 0, l.Model)
	require.NoError(t, err)
	return l
}

func TestSubmit_hopelessIsRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s := newQueue(t, 100), &sink{}
		time.Sleep(time.Hour) // Nothing was let in for a while.
		p := newPuller(q, knowing(t, 10*time.Millisecond, time.Millisecond))
		batches := pulling(t, p)
		q.Submit(request(s, 0, time.Now().Add(5*time.Millisecond)))
		require.Len(t, got(t, batches), 1, "now and then one is tried all the same")
		q.Submit(request(s, 1, time.Now().Add(5*time.Millisecond)))
		require.Equal(t, deadline, s.status(1))
		require.Contains(t, s.all(1)[0].Err.Message, "had 5ms left, and the model takes")
		q.Submit(request(s, 2, time.Now().Add(time.Second)))
		require.Equal(t, unanswered, s.status(2))
		require.EqualValues(t, 1, q.Status().Dropped["hopeless"])
	})
}

// overload brings a queue with one replica, which takes 1 ms + 0.1 ms a row, into overload: 40 rows a
// millisecond come, of which it can answer 10.
func overload(t *testing.T, q *queue.Queue, s *sink, p *puller, rank uint8) (next int) {
	ctx, cancel := context.WithCancel(t.Context())
	var replica sync.WaitGroup
	replica.Go(func() {
		for {
			select {
			case items := <-p.batches:
				time.Sleep(time.Millisecond + time.Duration(len(items))*100*time.Microsecond)
				answer(p, items)
			case <-ctx.Done():
				return
			}
		}
	})
	for range 100 {
		for range 40 {
			r := request(s, next, time.Now().Add(20*time.Millisecond))
			r.Priority = rank
			q.Submit(r)
			next++
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	replica.Wait()
	require.True(t, q.Status().Overloaded)
	for n := 0; s.status(next-1) != overloaded || q.Len() < 50; n++ { // Until there is no room for one more.
		require.Less(t, n, 1000)
		if s.status(next-1) == overloaded {
			time.Sleep(time.Millisecond)
		}
		r := request(s, next, time.Now().Add(20*time.Millisecond))
		r.Priority = rank
		q.Submit(r)
		next++
	}
	return next
}

func TestSubmit_refusesUnderOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s := newQueue(t, 10000), &sink{}
		p := newPuller(q, knowing(t, time.Millisecond, 100*time.Microsecond))
		pulling(t, p)
		last := overload(t, q, s, p, 0)
		refused := s.all(last - 1)[0].Err
		require.Positive(t, refused.RetryAfter)
		require.Less(t, refused.RetryAfter, 40*time.Millisecond)
		q.Submit(request(s, last+1, time.Now().Add(time.Minute)))
		require.Equal(t, unanswered, s.status(last+1), "it has time")
		q.Submit(request(s, last+2, time.Time{}))
		require.Equal(t, unanswered, s.status(last+2), "it has no deadline")
		late := q.Status().Dropped
		require.Greater(t, late["overloaded"], 3*(late["shed"]+late["expired"]), "%v", late)
	})
}

func TestSubmit_higherPrioritiesComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s := newQueue(t, 10000), &sink{}
		p := newPuller(q, knowing(t, time.Millisecond, 100*time.Microsecond))
		pulling(t, p)
		last := overload(t, q, s, p, 5)
		for tag := range 20 {
			r := request(s, last+tag, time.Now().Add(20*time.Millisecond))
			r.Priority = 2
			q.Submit(r)
			require.Equal(t, unanswered, s.status(last+tag), "it takes the place of another")
		}
		r := request(s, last+20, time.Now().Add(20*time.Millisecond))
		r.Priority = 6
		q.Submit(r)
		require.Equal(t, overloaded, s.status(last+20))
		require.Positive(t, q.Status().Dropped["outranked"])
	})
}

func TestSubmit_fullQueueKeepsWhatMattersMore(t *testing.T) {
	q, s := newQueue(t, 2), &sink{}
	for tag, rank := range []uint8{4, 8, 1, 5, 1} {
		r := request(s, tag, time.Time{})
		r.Priority = rank
		q.Submit(r)
	}
	for tag, want := range []clipperv1.PredictionStatus{overloaded, overloaded, unanswered, overloaded, unanswered} {
		require.Equal(t, want, s.status(tag), "%d", tag)
	}
	require.Equal(t, 2, q.Len())
	q.Refuse(errGone)
}

// TestPull_ordersByDeadlineNotByPriority: a priority decides only who is refused.
func TestPull_ordersByDeadlineNotByPriority(t *testing.T) {
	q, s, now := newQueue(t, 10), &sink{}, time.Now()
	for tag, rank := range []uint8{1, 8, 4} {
		r := request(s, tag, now.Add(time.Hour-time.Duration(tag)*time.Minute))
		r.Priority = rank
		q.Submit(r)
	}
	items, err := newPuller(q, limits(10, 1)).Pull(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, []int{2, 1, 0}, tags(items))
}

func TestHold_waitsForMoreRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s := newQueue(t, 100), &sink{}
		l := limits(3, 1)
		l.MaxDelay = 10 * time.Millisecond
		p := newPuller(q, l)
		batches := pulling(t, p)
		q.Submit(request(s, 0, time.Time{}))
		time.Sleep(9 * time.Millisecond)
		q.Submit(request(s, 1, time.Time{}))
		require.Empty(t, got(t, batches))
		time.Sleep(time.Millisecond)
		first := got(t, batches)
		require.Equal(t, []int{0, 1}, tags(first), "from the arrival of the oldest")
		for tag := range 3 {
			q.Submit(request(s, 2+tag, time.Time{}))
		}
		answer(p, first)
		second := got(t, batches)
		require.Equal(t, []int{2, 3, 4}, tags(second), "a full batch does not wait")
		q.Submit(request(s, 5, time.Now().Add(2*time.Millisecond)))
		answer(p, second)
		require.Empty(t, got(t, batches))
		l.MaxDelay = 0
		p.SetLimits(l)
		require.Equal(t, []int{5}, tags(got(t, batches)), "the delay was taken back")
	})
}

func TestHold_makesNothingLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s := newQueue(t, 100), &sink{}
		l := knowing(t, 2*time.Millisecond, 100*time.Microsecond)
		l.MaxDelay = time.Hour
		p := newPuller(q, l)
		batches := pulling(t, p)
		q.Submit(request(s, 0, time.Now().Add(20*time.Millisecond)))
		require.Empty(t, got(t, batches))
		begin := time.Now()
		items := <-batches
		require.Equal(t, []int{0}, tags(items))
		require.LessOrEqual(t, time.Since(begin)+l.Model.Tail(1), 20*time.Millisecond)
	})
}

func TestHold_autoDelaysNoLoneQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s := newQueue(t, 100), &sink{}
		l := knowing(t, 2*time.Millisecond, 100*time.Microsecond)
		l.AutoDelay = true
		batches := pulling(t, newPuller(q, l))
		time.Sleep(time.Hour)
		q.Submit(request(s, 0, time.Now().Add(20*time.Millisecond)))
		require.Len(t, got(t, batches), 1)
	})
}

// TestSubmit_sharesABurst: rows that come one by one, but together, are shared by the idle replicas.
func TestSubmit_sharesABurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s := newQueue(t, 1000), &sink{}
		var pulls []<-chan []queue.Item
		for range 4 {
			pulls = append(pulls, pulling(t, newPuller(q, limits(100, 2))))
		}
		var callers sync.WaitGroup
		for tag := range 100 {
			callers.Go(func() { q.Submit(request(s, tag, time.Time{})) })
		}
		callers.Wait()
		rows := 0
		for _, ch := range pulls {
			items := got(t, ch)
			require.NotEmpty(t, items)
			rows += len(items)
		}
		require.LessOrEqual(t, rows, 100)
	})
}

func TestStatus_explains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s := newQueue(t, 100), &sink{}
		l := knowing(t, 2*time.Millisecond, 100*time.Microsecond)
		p := newPuller(q, l)
		batches := pulling(t, p)
		for tag := range 30 {
			q.Submit(request(s, tag, time.Now().Add(20*time.Millisecond)))
			answer(p, got(t, batches))
		}
		q.Submit(request(s, 30, time.Now().Add(20*time.Millisecond)))
		q.Submit(request(s, 31, time.Now().Add(20*time.Millisecond)))
		st := q.Status()
		require.EqualValues(t, 1, st.Rows)
		require.EqualValues(t, 1, st.InFlightRows)
		require.Greater(t, st.DrainRate, 1000.0)
		r := q.Replicas()[0]
		require.Equal(t, "a", r.Replica)
		require.InEpsilon(t, 2000, r.FixedMicros, 0.1)
		require.InEpsilon(t, 100, r.RowMicros, 0.1)
		require.EqualValues(t, 200, r.LargestRows)
		require.Len(t, r.Decisions, 20)
		require.Equal(t, "all that waited", r.Decisions[0].Why)
		require.Equal(t, 20*time.Millisecond, r.Decisions[0].Slack.AsDuration())
		require.NotEmpty(t, r.Latencies)
		q.Close(cancelled(t), errGone)
	})
}
