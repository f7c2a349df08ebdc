// SPDX-License-Identifier: Apache-2.0

// Package coalesce lets equal requests that are under way at the same time share one prediction.
package coalesce

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/zeebo/xxh3"

	"github.com/clipper-serving/clipper/abstraction/prediction"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// Group is a Predictor that passes on the first of equal requests and gives its result to those
// that come before it is there. Safe for concurrent use.
type Group struct {
	next   prediction.Predictor
	shared prometheus.Counter

	mu      sync.Mutex
	flights map[xxh3.Uint128]*flight
}

// New returns a group in front of next, for one model version. shared counts the requests that
// joined another.
func New(next prediction.Predictor, shared prometheus.Counter) *Group {
	return &Group{next: next, shared: shared, flights: map[xxh3.Uint128]*flight{}}
}

// Submit implements prediction.Predictor.
//
// A request joins a flight with an equal input unless that flight's deadline has passed. A flight
// is cancelled only when every one that waits for it is. When a flight fails for its own deadline,
// which is that of its first request, those that have time left are submitted again together.
func (g *Group) Submit(r *prediction.Request) {
	hash := r.Input.Hash()
	g.mu.Lock()
	f := g.flights[hash]
	if f != nil && tensor.Equal(f.request.Input, r.Input) && (f.request.Deadline.IsZero() || time.Now().Before(f.request.Deadline)) {
		f.more = append(f.more, r)
		g.mu.Unlock()
		g.shared.Inc()
		return
	}
	// Another flight of this hash is over time, or of another input: this one takes its place.
	f = &flight{group: g, hash: hash, first: r, request: *r}
	f.request.Context, f.request.Receiver = waiters{f}, f
	g.flights[hash] = f
	g.mu.Unlock()
	g.next.Submit(&f.request)
}

// flight is one prediction that is under way.
type flight struct {
	group   *Group
	hash    xxh3.Uint128
	request prediction.Request // what was submitted
	first   *prediction.Request
	more    []*prediction.Request // under the group's lock
}

// Receive implements prediction.Receiver.
func (f *flight) Receive(_ int, res prediction.Result) {
	g := f.group
	g.mu.Lock()
	if g.flights[f.hash] == f {
		delete(g.flights, f.hash)
	}
	more := f.more
	g.mu.Unlock()

	f.first.Reply(res)
	if len(more) == 0 {
		return
	}
	if res.Err == nil || res.Err.Status != clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE {
		for _, r := range more {
			r.Reply(res)
		}
		return
	}
	now := time.Now()
	for _, r := range more {
		if r.Context.Err() != nil || (!r.Deadline.IsZero() && !r.Deadline.After(now)) {
			r.Reply(res)
			continue
		}
		g.Submit(r)
	}
}

// waiters is the context of a flight: done when every context of those that wait is. It is only
// ever polled with Err, by the queue, so it has no channel; watching one for each of those that
// wait would cost a goroutine.
type waiters struct{ *flight }

// Deadline implements context.Context. The request's own field has the deadline.
func (waiters) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements context.Context.
func (waiters) Done() <-chan struct{} { return nil }

// Err implements context.Context.
func (w waiters) Err() error {
	err := w.first.Context.Err()
	if err == nil {
		return nil
	}
	w.group.mu.Lock()
	defer w.group.mu.Unlock()
	for _, r := range w.more {
		if r.Context.Err() == nil {
			return nil
		}
	}
	return err
}

// Value implements context.Context.
func (w waiters) Value(key any) any { return w.first.Context.Value(key) }

var _ context.Context = waiters{}
