// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"context"
	"slices"
	"time"

	"github.com/clipper-serving/clipper/abstraction/batching"
	"github.com/clipper-serving/clipper/abstraction/metrics"
	"github.com/clipper-serving/clipper/abstraction/prediction"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// maxSkipped bounds the requests that are passed over in one pull because they cannot share the
// batch, so that a mixed queue does not make a pull long.
const maxSkipped = 64

// Limits bound what a puller takes.
type Limits struct {
	// Controller sets the rows of a batch.
	Controller batching.Controller
	// Model is what is known of the replica's latency. nil is a model that knows nothing.
	Model *batching.Model
	// Bytes is the size of a batch's elements; a single row may be larger. At least 1.
	Bytes int
	// InFlight is the number of batches under way, at least 1.
	InFlight int
	// MaxDelay is how long a batch that is not full is held back for more rows while the replica has
	// nothing under way, from the arrival of the oldest row; 0: not at all.
	MaxDelay time.Duration
	// AutoDelay holds back only as far as it gains throughput, for no longer than the batch takes, or a
	// share of the time that the most urgent request had, or MaxDelay when that is not 0.
	AutoDelay bool
}

// Puller is one replica's place at the queue. It knows what the replica has under way, so that the
// queue can serve those first that have nothing. One goroutine pulls; the other methods are safe
// for concurrent use.
//
// A replica gets batches in two ways. When it has nothing under way, the goroutine that brings a
// request, or that reports the end of the batch before, begins the next one itself: that is the
// shortest way, and cannot block, since the replica's connection has nothing to carry. The batch
// that follows while one is under way is pulled, by a goroutine that may wait for the connection.
type Puller struct {
	queue *Queue
	ready chan struct{}
	begin func(*[]Item)
	next  []Item // the batch to begin; used only while the replica has nothing under way
	id    string

	// Under the queue's lock:
	limits  Limits
	waiting bool
	called  bool    // ready has been signalled and not been seen yet
	batches int     // under way
	rows    int     // of those batches
	until   int64   // when they are expected to be answered
	target  int     // the size that a batch is to have
	rate    float64 // rows per second at that size
	// How long such a batch takes, as the model says; 0 when nothing is to be refused for it.
	mean, tail int64
	one        int64 // how long one row takes at best
	probed     int64 // when it last took a row that it will be late with
	history    history
}

// NewPuller returns the place of the replica with that id. While a goroutine is inside Pull and the
// replica has nothing under way, begin may be called with a batch, which is in flight from then on, by
// any goroutine and at most once at a time. It must not block. Before it sends the batch it takes the
// slice and leaves another in its place, whose memory the next batch may use. The place is kept until
// Pull fails.
func (q *Queue) NewPuller(id string, l Limits, begin func(*[]Item)) *Puller {
	p := &Puller{queue: q, ready: make(chan struct{}, 1), begin: begin, id: id}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pullers = append(q.pullers, p)
	p.setLimits(l)
	return p
}

// SetLimits changes the limits from the next pull on.
func (p *Puller) SetLimits(l Limits) {
	p.queue.mu.Lock()
	defer p.queue.mu.Unlock()
	p.setLimits(l)
	p.queue.wake()
}

func (p *Puller) setLimits(l Limits) {
	if l.Model == nil {
		l.Model = batching.NewModel(batching.Learned{})
	}
	p.limits = l
	p.queue.learned()
}

// Pull waits until there is a batch for the replica and returns its requests, the most urgent
// first, appended to dst. They are in flight until Done or Return. It fails only when ctx ends.
//
// A replica with nothing under way gets what waits at once, or its share of it when others can help
// to have it answered sooner, so that a burst takes the time of its n-th part. A replica that has a
// batch under way may get the next one ahead; see mayTakeAhead.
func (p *Puller) Pull(ctx context.Context, dst []Item) ([]Item, error) {
	q := p.queue
	for {
		if err := ctx.Err(); err != nil {
			p.leave()
			return dst, err
		}
		var gone drops
		q.mu.Lock()
		p.called = false
		now := q.now()
		dst = p.take(now, dst, &gone)
		if len(dst) > 0 {
			p.stopWaiting()
			q.wake()
		} else if !p.waiting {
			p.waiting = true
			q.waiting = append(q.waiting, p)
		}
		q.mu.Unlock()
		gone.reply()
		if len(dst) > 0 {
			q.observe(dst, now)
			return dst, nil
		}
		select {
		case <-p.ready:
		case <-ctx.Done():
		}
	}
}

// observe measures how long the requests of a batch have waited.
func (q *Queue) observe(batch []Item, now int64) {
	for i := range batch {
		q.metrics.QueueDelay.Observe(time.Duration(now - batch[i].arrived).Seconds())
	}
}

func (p *Puller) leave() {
	p.queue.mu.Lock()
	defer p.queue.mu.Unlock()
	q := p.queue
	p.stopWaiting()
	q.pullers = slices.DeleteFunc(q.pullers, func(o *Puller) bool { return o == p })
	q.learned()
	q.sumRates()
	q.wake() // Another may take what this one was called for.
}

// stopWaiting takes the puller off the list. The lock is held.
func (p *Puller) stopWaiting() {
	if p.waiting {
		p.waiting = false
		p.queue.waiting = slices.DeleteFunc(p.queue.waiting, func(w *Puller) bool { return w == p })
	}
}

// take fills a batch, if the puller may have one now. The lock is held.
func (p *Puller) take(now int64, dst []Item, gone *drops) []Item {
	q := p.queue
	q.dropHeads(now, gone)
	q.settle()
	if len(q.items) == 0 || !p.mayTake(now) {
		return dst
	}
	q.pace.measure(q, now)
	start := now
	if p.batches > 0 {
		start = max(now, p.until)
	}
	if p.one > q.items[0].deadline-now {
		p.probed = now
	}
	d := p.plan(now, start, gone)
	if len(q.items) == 0 {
		q.settle()
		return dst
	}
	if p.batches == 0 && p.hold(now, d.Rows) {
		return dst
	}
	limit := d.Rows
	if share := p.share(now); share < min(limit, len(q.items)) {
		limit, d.shared = share, true
	}
	dst = p.fill(now, dst, gone, limit)
	if len(dst) == 0 { // Everything was cancelled in this moment.
		q.settle()
		return dst
	}
	if p.limits.MaxDelay > 0 || p.limits.AutoDelay {
		q.pace.taken(q)
	}
	d.at, d.rows, d.ahead, d.expected = now, len(dst), p.batches > 0, p.limits.Model.Tail(len(dst))
	d.full = len(dst) >= limit
	p.history.add(d)
	p.batches++
	p.rows += len(dst)
	p.until = start + int64(p.limits.Model.Mean(len(dst)))
	q.inFlight += len(dst)
	q.delay = time.Duration(now - dst[0].arrived)
	return dst
}

// backlog describes what waits to a controller whose replica can begin at the given time. The lock is
// held.
func (q *Queue) backlog(start int64) batching.Backlog {
	b := batching.Backlog{Rows: len(q.items), Replicas: len(q.pullers), Rate: q.pace.rate}
	if head := &q.items[0]; head.deadline != noDeadline {
		b.HeadSlack, b.HeadBudget = time.Duration(head.deadline-start), time.Duration(head.deadline-head.arrived)
	}
	return b
}

// fill moves up to limit requests of the head's kind from the queue to dst. The lock is held.
func (p *Puller) fill(now int64, dst []Item, gone *drops, limit int) []Item {
	q := p.queue
	var skipped []Item
	bytes, key := 0, q.items[0].key
	for len(q.items) > 0 && len(dst) < limit && len(skipped) < maxSkipped {
		if len(dst) > 0 && bytes+q.items[0].bytes > p.limits.Bytes && q.items[0].key == key {
			break
		}
		it := q.pop()
		switch {
		case q.useless(&it, now, gone):
		case it.key != key:
			skipped = append(skipped, it)
		default:
			bytes += it.bytes
			dst = append(dst, it)
		}
	}
	for _, it := range skipped {
		q.push(it)
	}
	return dst
}

// Done reports that a batch of this many rows has been answered. When the replica has nothing under
// way then and something waits, it returns the next batch, which the caller is to begin; else nil.
func (p *Puller) Done(rows int) *[]Item {
	var gone drops
	q := p.queue
	q.mu.Lock()
	now := q.now()
	p.finish(rows, now)
	given := p.waiting && p.give(now, &gone)
	q.wake()
	q.mu.Unlock()
	gone.reply()
	if !given {
		return nil
	}
	q.observe(p.next, now)
	return &p.next
}

func (p *Puller) finish(rows int, now int64) {
	if p.until-now > int64(p.limits.Model.Mean(rows))/2 {
		p.probed = now - int64(slowProbeEvery)
	}
	p.batches--
	p.rows -= rows
	p.until = now
	if p.batches > 0 {
		p.until += int64(p.limits.Model.Mean(p.rows))
	}
	p.queue.learned()
	p.queue.inFlight -= rows
	p.queue.settle()
}

// give makes a batch for a replica that has nothing under way, if there is one for it. The lock is
// held.
func (p *Puller) give(now int64, gone *drops) bool {
	if p.batches > 0 {
		return false
	}
	p.next = p.take(now, p.next[:0], gone)
	return len(p.next) > 0
}

// Return puts back a batch that was lost with its replica, for the reason given. Requests that
// cannot make their deadline any more or have been lost too often are answered; the others keep
// their place in the order. It returns how many will be tried again.
func (p *Puller) Return(items []Item, reason string) int {
	var gone drops
	retried := 0
	q := p.queue
	q.mu.Lock()
	now := q.now()
	for _, it := range items {
		it.attempts++
		switch {
		case q.useless(&it, now, &gone):
		case it.attempts >= maxAttempts:
			gone.add(it.Request, prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_UNAVAILABLE,
				"%d replicas were lost with this query, the last because: %s", it.attempts, reason))
		case q.refusal != nil:
			q.drop(&gone, it.Request, metrics.DropNoReplica, q.refusal)
		default:
			q.push(it)
			retried++
		}
	}
	q.metrics.Retries.Add(float64(retried))
	p.finish(len(items), now)
	q.wake()
	q.mu.Unlock()
	gone.reply()
	return retried
}

// wake calls the pullers that may take something: the idle ones, as many as there are rows, or
// else one that has a batch under way. What they get is decided when they come. The lock is held.
func (q *Queue) wake() {
	rows := len(q.items)
	if rows == 0 || len(q.waiting) == 0 || q.corked {
		return
	}
	idle, now := 0, q.now()
	for _, w := range q.waiting {
		if w.batches > 0 || w.leaves(now) {
			continue
		}
		w.call()
		if idle++; idle == rows {
			return
		}
	}
	if idle > 0 {
		return
	}
	for _, w := range q.waiting {
		if w.mayTake(now) {
			w.call()
			return
		}
	}
}

func (p *Puller) call() {
	if p.called {
		return
	}
	p.called = true
	select {
	case p.ready <- struct{}{}:
	default: // An earlier call is still there to be seen.
	}
}
