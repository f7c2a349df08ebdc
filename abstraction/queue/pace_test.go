// SPDX-License-Identifier: Apache-2.0

package queue_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/clipper-serving/clipper/abstraction/prediction"
	"github.com/clipper-serving/clipper/abstraction/queue"
)

// TestHold_nothingWaitsLongerThanAllowed: rows come at any times to a replica that is always idle, since
// it answers at once. None waits longer than the delay says: with auto, than the batch takes, and with
// a deadline, than leaves the batch its time.
func TestHold_nothingWaitsLongerThanAllowed(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := knowing(t, 8*time.Millisecond, 10*time.Microsecond)
		l.MaxDelay = time.Duration(rapid.IntRange(0, 10).Draw(rt, "max delay in ms")) * time.Millisecond
		l.AutoDelay = rapid.Bool().Draw(rt, "auto")
		gaps := rapid.SliceOfN(rapid.IntRange(0, 300), 50, 200).Draw(rt, "microseconds between rows")
		budget := time.Duration(rapid.SampledFrom([]int{0, 20, 60000}).Draw(rt, "budget in ms")) * time.Millisecond
		longest := l.MaxDelay
		if tail := l.Model.Tail(200); l.AutoDelay && (longest == 0 || tail < longest) {
			longest = tail
		}
		if budget > 0 {
			longest = min(longest, budget-l.Model.Tail(1))
		}
		m := &meter{queries: make([]query, len(gaps))}
		synctest.Test(t, func(t *testing.T) {
			m.begin = time.Now()
			q := newQueue(t, 1000)
			ctx, cancel := context.WithCancel(t.Context())
			p := &instant{}
			p.Puller = q.NewPuller("a", l, p.begin)
			var pulls sync.WaitGroup
			pulls.Go(func() {
				for items, err := p.Pull(ctx, nil); err == nil; items, err = p.Pull(ctx, nil) {
					p.begin(&items)
				}
			})
			for i, gap := range gaps {
				time.Sleep(time.Duration(gap) * time.Microsecond)
				synctest.Wait()
				m.queries[i].sent = time.Since(m.begin)
				r := request(nil, i, time.Time{})
				if r.Receiver = m; budget > 0 {
					r.Deadline = time.Now().Add(budget)
				}
				q.Submit(r)
			}
			time.Sleep(time.Minute)
			cancel()
			pulls.Wait()
		})
		for i, x := range m.queries {
			require.Equal(rt, 1, x.answers, "row %d", i)
			require.Equal(rt, unanswered, x.status, "row %d", i)
			require.LessOrEqual(rt, x.answered-x.sent, longest, "row %d", i)
		}
	})
}

// instant is a replica that answers a batch at once.
type instant struct{ *queue.Puller }

func (p *instant) begin(items *[]queue.Item) {
	for ; items != nil; items = p.Done(len(*items)) {
		for _, it := range *items {
			it.Request.Reply(prediction.Result{})
		}
	}
}
