// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"time"

	"github.com/clipper-serving/clipper/abstraction/batching"
	"github.com/clipper-serving/clipper/abstraction/metrics"
	"github.com/clipper-serving/clipper/abstraction/prediction"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	minRetryAfter     = 5 * time.Millisecond
	maxRetryAfter     = 10 * time.Second
	unknownRetryAfter = time.Second

	// probeEvery is the time after which a request is let in that seems hopeless, since what was
	// learned may not be true any more.
	probeEvery = 100 * time.Millisecond
	// patience is how long batches must have been kept small by late rows before the queue sheds and
	// refuses, as a share of the time that queries have. A burst that the replicas can work off is
	// over by then.
	patience = 0.5
	// reserve is the part of what a batch may take longer than in the mean that a row must have left to
	// be let in under overload. More refuses rows that would have been in time, less answers rows late.
	reserve = 0.5
	// calm is how long nothing must have been refused or shed for the overload to be over, in the same
	// unit.
	calm = 2
	// sampled is the number of entries of the heap that are looked at to estimate how many are more
	// urgent than a new one.
	sampled = 16
)

// load is what the queue knows of how much comes and how much can be answered. All is under the
// queue's lock.
//
// What will probably be late is refused when it comes, since nobody is served by waiting for a refusal.
// There is overload when for longer than a burst lasts the most urgent row cannot afford the batch that
// is to be made: late rows then keep the batches small, which makes more rows late. Shedding only when
// that persists is CoDel's idea (Nichols and Jacobson, "Controlling Queue Delay", ACM Queue 2012).
// Under overload batches have the size that they are to have, and rows are let in with some reserve.
type load struct {
	// fine is when batches were last as large as they are to be, or all that waited.
	fine int64
	// overloaded is true while requests are refused; strained is when one last was, or was shed.
	overloaded bool
	strained   int64
	// budget is the time that the most urgent request of the last batch had when it came.
	budget int64
	// lost is true when rows have become hopeless while they waited, since the last batch was made.
	lost bool
	// drain is the rows per second that the replicas answer at their target sizes.
	drain float64
	// fastest is the shortest time in which a replica answers one row; 0 when one is not known.
	fastest int64
	// probed is when a request was last let in that seemed hopeless.
	probed int64
}

// admit decides about a request that has just come. It reports whether it may be pushed. What gives
// way to it, or else the request itself, is put on the list of what is to be answered. The lock is
// held.
func (q *Queue) admit(it *Item, now int64, gone *drops) bool {
	if it.deadline != noDeadline && it.deadline-now < q.load.fastest {
		if now-q.load.probed < int64(probeEvery) || !q.idle() {
			q.drop(gone, it.Request, metrics.DropHopeless, prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE,
				"the query had %v left, and the model takes %v for one row: allow more time", round(it.deadline-now), round(q.load.fastest)))
			return false
		}
		q.load.probed, it.probe = now, true
	}
	if len(q.items) >= q.maxRows && !q.outrank(it, gone) {
		err := prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_OVERLOADED, "the model's queue is full: %d rows wait", len(q.items))
		err.RetryAfter = q.retryAfter()
		q.drop(gone, it.Request, metrics.DropFull, err)
		return false
	}
	over := q.excess(it, now)
	if over <= 0 {
		return true
	}
	q.load.strained = now
	if q.load.overloaded && q.outrank(it, gone) {
		return true
	}
	err := prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_OVERLOADED, "the model is overloaded: behind the %d rows that wait, the query would be late", len(q.items))
	err.RetryAfter = min(max(time.Duration(over), minRetryAfter), maxRetryAfter)
	q.drop(gone, it.Request, metrics.DropOverloaded, err)
	return false
}

// idle reports whether a replica would take a row at once. The lock is held.
func (q *Queue) idle() bool {
	for _, p := range q.waiting {
		if p.batches == 0 {
			return len(q.items) == 0
		}
	}
	return false
}

func round(d int64) time.Duration { return time.Duration(d).Round(10 * time.Microsecond) }

// excess returns by how much longer than it can afford the request would wait for a replica; 0 or
// less when it can be answered in time. The lock is held.
//
// It goes with the batch that is made when those before it have been taken, by the replica that would
// answer first. A replica that is idle, perhaps since it holds rows back, can have it at once. It is refused
// when it will be late by the mean, since it then is as likely late as not. Under overload it must have
// some reserve.
func (q *Queue) excess(it *Item, now int64) int64 {
	l := &q.load
	if it.deadline == noDeadline {
		return 0
	}
	if l.overloaded && now-l.strained > calm*l.budget {
		l.overloaded, l.fine = false, now
	}
	left := it.deadline - now
	var next *Puller
	free := int64(noDeadline)
	for _, p := range q.pullers {
		able := p.one <= left || p.one <= l.fastest
		if p.mean == 0 || able && p.batches == 0 && p.waiting {
			return 0
		}
		if until := max(p.until-now, 0); next == nil || until+p.mean < free+next.mean {
			next, free = p, until
		}
	}
	if next == nil {
		return 0
	}
	if len(q.items) >= next.target {
		if before := q.ahead(it) / next.target * next.target; before > 0 && !next.holds(before+1, now+free) {
			free += int64(float64(before) / l.drain * float64(time.Second))
		}
	}
	late := free + next.mean - left
	if l.overloaded {
		late += int64(reserve * float64(next.tail-next.mean))
	}
	return late
}

// holds reports whether the puller's next batch may have so many rows when it begins at the given time:
// the most urgent one may leave time for more than a batch has that others follow for ever. The lock
// is held.
func (p *Puller) holds(rows int, start int64) bool {
	b := p.queue.backlog(start)
	return int64(b.HeadSlack) > p.tail && p.limits.Controller.Next(b).Rows >= rows
}

// ahead estimates how many rows that wait are more urgent than a request. The lock is held.
func (q *Queue) ahead(it *Item) int {
	n := len(q.items)
	if n == 0 || it.deadline < q.items[0].deadline {
		return 0
	}
	step := max(1, n/sampled)
	seen, urgent := 0, 0
	for i := 0; i < n; i += step {
		if seen++; q.items[i].deadline <= it.deadline {
			urgent++
		}
	}
	return n * urgent / seen
}

// outrank makes room for a request by dropping one that matters less, if one waits. The lock is held.
func (q *Queue) outrank(it *Item, gone *drops) bool {
	for rank := uint8(prediction.MaxPriority); rank > it.priority; rank-- {
		if q.ranks[rank] == 0 {
			continue
		}
		for i := len(q.items) - 1; i >= 0; i-- { // The last ones are not the most urgent.
			if q.items[i].priority == rank {
				err := prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_OVERLOADED, "the model is overloaded: the query made room for one of a higher priority")
				err.RetryAfter = q.retryAfter()
				q.drop(gone, q.take(i).Request, metrics.DropOutranked, err)
				return true
			}
		}
	}
	return false
}

// retryAfter estimates when the queue will have been worked off: the rows that wait by the rate at
// which replicas answer, or, while that is not known, as long as the last row waited, which is how
// long a queue of constant length takes to pass through (Little's law). The lock is held.
func (q *Queue) retryAfter() time.Duration {
	d := q.delay
	if q.load.drain > 0 {
		d = time.Duration(float64(len(q.items)) / q.load.drain * float64(time.Second))
	}
	if d == 0 {
		return unknownRetryAfter
	}
	return min(max(d, minRetryAfter), maxRetryAfter)
}

// plan notes what a controller aims for, and returns the decision for what remains after shedding,
// and how many rows were shed. The lock is held.
func (p *Puller) plan(now, start int64, gone *drops) (d decision) {
	q := p.queue
	l := &q.load
	for {
		b := q.backlog(start)
		d.Decision = p.limits.Controller.Next(b)
		d.Rows = max(1, d.Rows)
		d.slack, d.waiting = b.HeadSlack, b.Rows
		l.budget = int64(b.HeadBudget)
		p.aim(d.Decision)
		size := min(d.Target, b.Rows)
		if p.slow() {
			return d
		}
		if size == 0 || b.HeadBudget == 0 || d.Rows >= size && !l.lost {
			l.fine = now
			return d
		}
		if !l.overloaded && float64(now-l.fine) <= patience*float64(l.budget) {
			l.lost = false
			return d
		}
		l.overloaded, l.lost = true, false
		if b.HeadSlack >= p.limits.Model.Quick(size) {
			d.Rows = max(d.Rows, size)
			return d
		}
		l.strained = now
		if q.outranks(q.items[0].priority) {
			return d
		}
		q.shed(gone)
		d.shed++
		q.dropHeads(now, gone)
		if len(q.items) == 0 {
			return d
		}
	}
}

// outranks reports whether something waits that matters less. The lock is held.
func (q *Queue) outranks(priority uint8) bool {
	for _, n := range q.ranks[priority+1:] {
		if n > 0 {
			return true
		}
	}
	return false
}

// shed drops the head. The lock is held.
func (q *Queue) shed(gone *drops) {
	err := prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_OVERLOADED, "the model is overloaded: too little time was left for the query")
	err.RetryAfter = q.retryAfter()
	q.drop(gone, q.pop().Request, metrics.DropShed, err)
}

// aim notes the size that a replica's batches are to have, and how long such a batch takes. The lock is
// held.
func (p *Puller) aim(d batching.Decision) {
	p.target, p.rate, p.mean, p.tail = d.Target, 0, 0, 0
	if p.target == 0 {
		p.target = d.Rows
	}
	if mean := p.limits.Model.Mean(p.target); mean > 0 {
		p.rate = float64(p.target) / mean.Seconds()
		if d.Target > 0 {
			p.mean, p.tail = int64(mean), int64(p.limits.Model.Tail(p.target))
		}
	}
	p.queue.sumRates()
}

// sumRates adds up what the replicas can answer. The lock is held.
func (q *Queue) sumRates() {
	q.load.drain = 0
	for _, p := range q.pullers {
		q.load.drain += p.rate
	}
	q.metrics.DrainRate.Set(q.load.drain)
}

// learned notes what a replica's model says now that it has learned from a batch. The lock is held.
func (q *Queue) learned() {
	q.load.fastest = 0
	for i, p := range q.pullers {
		one := int64(p.limits.Model.Mean(1))
		if p.mean > 0 { // It refuses by prediction; what it let in gets the benefit of the doubt.
			one = int64(p.limits.Model.Quick(1))
		}
		if p.one = one; i == 0 || one < q.load.fastest {
			q.load.fastest = one
		}
	}
}
