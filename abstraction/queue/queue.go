// SPDX-License-Identifier: Apache-2.0

// Package queue holds the requests that wait for a replica of one model version, the most urgent
// first, and gives them out in batches to the replicas that ask.
//
// Which replica serves a request is decided when a replica is free, never before: a slow replica
// takes less, and a request waits only while every replica is busy. A request costs no goroutine
// and no timer: it is an entry of a heap, and the queue has one timer, for the most urgent of all.
package queue

import (
	"context"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/clipper-serving/clipper/abstraction/autoscale"
	"github.com/clipper-serving/clipper/abstraction/metrics"
	"github.com/clipper-serving/clipper/abstraction/prediction"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	// maxAttempts is how often a request may be sent to a replica that is then lost, so that an input
	// that kills its container does not kill them all for ever.
	maxAttempts = 3
	// noDeadline sorts behind every deadline.
	noDeadline = math.MaxInt64
)

// Queue is the queue of one model version. Safe for concurrent use.
type Queue struct {
	metrics *metrics.Version
	epoch   time.Time

	mu       sync.Mutex
	items    heap
	lastSeq  uint64
	maxRows  int
	waiting  []*Puller // those inside Pull, longest first
	pullers  []*Puller // all
	inFlight int       // rows that pullers have and have not finished
	delay    time.Duration
	refusal  *prediction.Error
	closed   bool
	settled  chan struct{} // closed when nothing waits and nothing is in flight; nil unless closing
	timer    *time.Timer
	armed    int64 // when the timer fires; noDeadline when it does not
	corked   bool  // idle replicas begin when the processor has run what brings requests

	ranks   [prediction.MaxPriority + 1]int // the rows that wait, by priority
	dropped [metrics.Drops]uint64
	load    load
	pace    pace

	arrivals autoscale.Arrivals
	first    int64 // before this time no replica serves, if there is none
}

var _ prediction.Predictor = (*Queue)(nil)

// New returns an empty queue for at most maxRows rows.
func New(maxRows int, m *metrics.Version) *Queue {
	return &Queue{metrics: m, epoch: time.Now(), maxRows: maxRows, armed: noDeadline, pace: pace{armed: noDeadline}}
}

// SetMaxRows changes the bound. What waits already stays.
func (q *Queue) SetMaxRows(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.maxRows = n
}

// Len returns the number of rows that wait.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

func (q *Queue) now() int64 { return int64(time.Since(q.epoch)) }

// Submit implements prediction.Predictor. A request that cannot be answered in time, or for which
// there is no room, is refused at once.
func (q *Queue) Submit(r *prediction.Request) {
	tensors, err := r.Input.Tensors()
	if err != nil || len(tensors) == 0 {
		r.Reply(prediction.Result{Err: prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_FAILED, "the input has no tensor that can be read")})
		return
	}
	now := q.now()
	it := Item{Request: r, arrived: now, deadline: noDeadline, key: batchKey(tensors), bytes: size(tensors), priority: r.Priority}
	if !r.Deadline.IsZero() {
		it.deadline = int64(r.Deadline.Sub(q.epoch))
	}
	if it.priority == 0 || it.priority > prediction.MaxPriority {
		it.priority = prediction.DefaultPriority
	}
	var (
		gone  drops
		given *Puller
	)
	q.mu.Lock()
	q.lastSeq++
	it.seq = q.lastSeq
	q.arrivals.Add(time.Duration(now), it.budget())
	if len(q.items) >= q.maxRows {
		q.dropHeads(now, &gone)
	}
	switch {
	case q.refusal != nil:
		q.drop(&gone, r, metrics.DropNoReplica, q.refusal)
	case q.useless(&it, now, &gone):
	case len(q.pullers) == 0 && it.deadline < q.first:
		q.drop(&gone, r, metrics.DropNoReplica, q.tooSoon(now))
	case q.admit(&it, now, &gone):
		q.push(it)
		given = q.dispatch(now, &gone)
	}
	q.mu.Unlock()
	gone.reply()
	if given != nil {
		q.observe(given.next, now)
		given.begin(&given.next)
	}
}

// dispatch sees to it that a replica takes what was just pushed. It returns the puller whose next
// batch the caller is to begin, or nil. The lock is held.
func (q *Queue) dispatch(now int64, gone *drops) *Puller {
	var first *Puller
	idle := 0
	for _, p := range q.waiting {
		if p.batches == 0 {
			if idle++; first == nil {
				first = p
			}
		}
	}
	switch {
	case idle == 1 && first.give(now, gone):
		return first
	case idle > 1 && !q.corked:
		q.corked = true
		go q.uncork()
	}
	q.wake()
	return nil
}

// uncork gives the idle replicas what waits. It lets those goroutines run before that are about to
// bring more, so that rows that come together are shared by all that are idle, and not taken one by
// one by those that are called first. When there is nothing else to run, that takes no time.
func (q *Queue) uncork() {
	for before := -1; ; {
		runtime.Gosched()
		q.mu.Lock()
		if n := len(q.items); n != before {
			before = n
			q.mu.Unlock()
			continue
		}
		break
	}
	var (
		gone  drops
		given []*Puller
	)
	q.corked = false
	now := q.now()
	for _, p := range slices.Clone(q.waiting) {
		if p.give(now, &gone) {
			given = append(given, p)
		}
	}
	q.wake()
	q.mu.Unlock()
	gone.reply()
	for _, p := range given {
		q.observe(p.next, now)
		p.begin(&p.next)
	}
}

// push adds an item and sees to it that it does not outstay its deadline. The lock is held.
func (q *Queue) push(it Item) {
	q.items.push(it)
	q.ranks[it.priority]++
	if len(q.items) == 1 || it.arrived < q.pace.oldest {
		q.pace.oldest = it.arrived
	}
	q.metrics.QueueRows.Inc()
	if it.deadline < q.armed {
		q.arm(it.deadline)
	}
}

func (q *Queue) arm(at int64) {
	q.armed = at
	d := time.Duration(at - q.now())
	if q.timer == nil {
		q.timer = time.AfterFunc(d, q.expire)
		return
	}
	q.timer.Reset(d)
}

// expire answers what waited until its deadline. The timer is set for the most urgent request of
// the time when it was set, not moved when that is served, and so fires rarely under load.
func (q *Queue) expire() {
	var gone drops
	q.mu.Lock()
	q.armed = noDeadline
	q.dropHeads(q.now(), &gone)
	if len(q.items) > 0 && q.items[0].deadline != noDeadline {
		q.arm(q.items[0].deadline)
	}
	q.settle()
	q.mu.Unlock()
	gone.reply()
}

// dropHeads removes the most urgent requests while nobody can use an answer to them. The lock is held.
func (q *Queue) dropHeads(now int64, gone *drops) {
	for len(q.items) > 0 {
		switch it := &q.items[0]; {
		case q.useless(it, now, gone):
			q.pop()
		case it.deadline-now < q.load.fastest && !it.probe:
			q.drop(gone, it.Request, metrics.DropHopeless, errLate)
			q.pop()
			q.load.lost = true
		default:
			return
		}
	}
}

// useless reports whether nobody can use an answer to the item any more, and then puts it on the
// list of what is to be answered. The lock is held.
func (q *Queue) useless(it *Item, now int64, gone *drops) bool {
	switch {
	case it.deadline <= now && len(q.pullers) == 0:
		q.drop(gone, it.Request, metrics.DropExpired, q.notStarted(now))
	case it.deadline <= now:
		q.drop(gone, it.Request, metrics.DropExpired, errExpired)
	case it.Request.Context.Err() != nil:
		q.drop(gone, it.Request, metrics.DropCancelled, errCancelled)
	default:
		return false
	}
	return true
}

// drop counts a request that leaves without a prediction, and puts it on the list of what is to be
// answered. The lock is held.
func (q *Queue) drop(gone *drops, r *prediction.Request, why metrics.Drop, err *prediction.Error) {
	q.dropped[why]++
	q.metrics.Dropped[why].Inc()
	gone.add(r, err)
}

var (
	errExpired   = prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE, "the deadline passed before a replica was free")
	errLate      = prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE, "when its turn came, the query had less time left than the model needs")
	errCancelled = prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE, "the caller no longer waits")
)

func (q *Queue) pop() Item { return q.take(0) }

// take removes the item at an index of the heap. The lock is held.
func (q *Queue) take(i int) Item {
	it := q.items.remove(i)
	q.ranks[it.priority]--
	q.metrics.QueueRows.Dec()
	return it
}

// Refuse answers everything that waits, and everything that comes, with err; nil lets requests in
// again. A closed queue stays as it is.
func (q *Queue) Refuse(err *prediction.Error) {
	var gone drops
	q.mu.Lock()
	if !q.closed {
		q.refusal = err
		if err != nil {
			q.flush(err, &gone)
		}
	}
	q.mu.Unlock()
	gone.reply()
}

// flush empties the queue. The lock is held.
func (q *Queue) flush(err *prediction.Error, gone *drops) {
	for i := range q.items {
		q.drop(gone, q.items[i].Request, metrics.DropNoReplica, err)
	}
	clear(q.ranks[:])
	q.metrics.QueueRows.Sub(float64(len(q.items)))
	clear(q.items)
	q.items = q.items[:0]
	q.settle()
}

// Close refuses new requests with err, waits until nothing waits and nothing is in flight, or ctx
// ends, and then answers with err what still waits. What is in flight and comes back later is
// answered with err too.
func (q *Queue) Close(ctx context.Context, err *prediction.Error) {
	q.mu.Lock()
	q.closed, q.refusal = true, err
	if q.settled == nil {
		q.settled = make(chan struct{})
	}
	settled := q.settled
	q.settle()
	q.mu.Unlock()
	select {
	case <-settled:
	case <-ctx.Done():
	}
	var gone drops
	q.mu.Lock()
	q.flush(err, &gone)
	if q.timer != nil {
		q.timer.Stop()
	}
	if q.pace.timer != nil {
		q.pace.timer.Stop()
	}
	q.mu.Unlock()
	gone.reply()
}

// settle tells Close when everything is done. The lock is held.
func (q *Queue) settle() {
	if q.settled == nil || len(q.items) > 0 || q.inFlight > 0 {
		return
	}
	select {
	case <-q.settled:
	default:
		close(q.settled)
	}
}
