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
	"slices"
	"sync"
	"time"

	"github.com/clipper-serving/clipper/abstraction/metrics"
	"github.com/clipper-serving/clipper/abstraction/prediction"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

const (
	// maxAttempts is how often a request may be sent to a replica that is then lost, so that an input
	// that kills its container does not kill them all for ever.
	maxAttempts = 3
	// noDeadline sorts behind every deadline.
	noDeadline = math.MaxInt64

	minRetryAfter     = 10 * time.Millisecond
	maxRetryAfter     = 10 * time.Second
	unknownRetryAfter = time.Second
)

// Item is a request in the queue, or taken from it.
type Item struct {
	// Request is what was submitted.
	Request *prediction.Request

	seq      uint64 // the order of arrival
	deadline int64  // nanoseconds since the queue's epoch
	arrived  int64  // the same
	key      uint64 // requests of different keys cannot share a batch
	bytes    int    // the size of the elements
	attempts int    // the replicas that were lost with it
}

// Bytes returns the size of the input's elements, about as they are encoded.
func (it *Item) Bytes() int { return it.bytes }

// InputBytes returns the same for an input that can be read.
func InputBytes(in *tensor.Input) int {
	tensors, _ := in.Tensors()
	return size(tensors)
}

// Queue is the queue of one model version. Safe for concurrent use.
type Queue struct {
	metrics *metrics.Version
	epoch   time.Time

	mu       sync.Mutex
	items    heap
	lastSeq  uint64
	maxRows  int
	waiting  []*Puller // those inside Pull, longest first
	inFlight int       // rows that pullers have and have not finished
	delay    time.Duration
	refusal  *prediction.Error
	closed   bool
	settled  chan struct{} // closed when nothing waits and nothing is in flight; nil unless closing
	timer    *time.Timer
	armed    int64 // when the timer fires; noDeadline when it does not
}

var _ prediction.Predictor = (*Queue)(nil)

// New returns an empty queue for at most maxRows rows.
func New(maxRows int, m *metrics.Version) *Queue {
	return &Queue{metrics: m, epoch: time.Now(), maxRows: maxRows, armed: noDeadline}
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

// Submit implements prediction.Predictor. A request for which there is no room is refused at once,
// with the time after which there may be.
func (q *Queue) Submit(r *prediction.Request) {
	tensors, err := r.Input.Tensors()
	if err != nil || len(tensors) == 0 {
		r.Reply(prediction.Result{Err: prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_FAILED, "the input has no tensor that can be read")})
		return
	}
	now := q.now()
	it := Item{Request: r, arrived: now, deadline: noDeadline, key: batchKey(tensors), bytes: size(tensors)}
	if !r.Deadline.IsZero() {
		it.deadline = int64(r.Deadline.Sub(q.epoch))
	}
	var (
		gone  drops
		given *Puller
	)
	q.mu.Lock()
	q.lastSeq++
	it.seq = q.lastSeq
	if len(q.items) >= q.maxRows {
		q.dropHeads(now, &gone)
	}
	switch {
	case q.refusal != nil:
		q.metrics.DroppedNoReplica.Inc()
		gone.add(r, q.refusal)
	case q.hopeless(&it, now, &gone):
	case len(q.items) >= q.maxRows:
		q.metrics.DroppedFull.Inc()
		full := prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_OVERLOADED, "the model's queue is full: %d rows wait", len(q.items))
		full.RetryAfter = q.retryAfter()
		gone.add(r, full)
	default:
		q.push(it)
		if i := slices.IndexFunc(q.waiting, func(p *Puller) bool { return p.batches == 0 }); i >= 0 && q.waiting[i].give(now, &gone) {
			given = q.waiting[i]
		}
		q.wake()
	}
	q.mu.Unlock()
	gone.reply()
	if given != nil {
		q.observe(given.next, now)
		given.begin(&given.next)
	}
}

// retryAfter estimates when the queue will have been worked off: a queue of constant length takes
// as long to pass through as its last row waited (Little's law).
func (q *Queue) retryAfter() time.Duration {
	if q.delay == 0 {
		return unknownRetryAfter
	}
	return min(max(q.delay, minRetryAfter), maxRetryAfter)
}

// push adds an item and sees to it that it does not outstay its deadline. The lock is held.
func (q *Queue) push(it Item) {
	q.items.push(it)
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

// dropHeads removes the most urgent requests while they are hopeless. The lock is held.
func (q *Queue) dropHeads(now int64, gone *drops) {
	for len(q.items) > 0 && q.hopeless(&q.items[0], now, gone) {
		q.pop()
	}
}

// hopeless reports whether nobody waits for the item any more, and then puts it on the list of
// what is to be answered. The lock is held.
func (q *Queue) hopeless(it *Item, now int64, gone *drops) bool {
	switch {
	case it.deadline <= now:
		q.metrics.DroppedExpired.Inc()
		gone.add(it.Request, errExpired)
	case it.Request.Context.Err() != nil:
		q.metrics.DroppedCancelled.Inc()
		gone.add(it.Request, errCancelled)
	default:
		return false
	}
	return true
}

var (
	errExpired   = prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE, "the deadline passed before a replica was free")
	errCancelled = prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE, "the caller no longer waits")
)

func (q *Queue) pop() Item {
	q.metrics.QueueRows.Dec()
	return q.items.pop()
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
		gone.add(q.items[i].Request, err)
	}
	q.metrics.DroppedNoReplica.Add(float64(len(q.items)))
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

// drops are requests to be answered once the queue is unlocked, since a receiver may submit again.
type drops []drop

type drop struct {
	request *prediction.Request
	err     *prediction.Error
}

func (d *drops) add(r *prediction.Request, err *prediction.Error) { *d = append(*d, drop{r, err}) }

func (d drops) reply() {
	for _, it := range d {
		it.request.Reply(prediction.Result{Err: it.err})
	}
}

// batchKey is equal for inputs that can share a batch: those whose tensors have the same names and
// types in the same order. Shapes may differ.
func batchKey(tensors []*clipperv1.Tensor) uint64 {
	const prime = 1099511628211 // FNV-1a
	h := uint64(14695981039346656037)
	for _, t := range tensors {
		for i := range len(t.Name) {
			h = (h ^ uint64(t.Name[i])) * prime
		}
		h = (h ^ uint64(t.DataType) ^ 1<<32) * prime
	}
	return h
}

// size returns the bytes of the elements, about as they are encoded.
func size(tensors []*clipperv1.Tensor) int {
	const header = 8
	n := 0
	for _, t := range tensors {
		n += len(t.Data) + header*(len(t.Shape)+1)
		for _, s := range t.Strings {
			n += len(s) + header
		}
		for _, s := range t.ByteStrings {
			n += len(s) + header
		}
	}
	return n
}
