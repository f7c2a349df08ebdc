// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"math"
	"time"

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
	// tolerance is the share of its target that a batch must reach under overload for nothing to be
	// shed. Below, a late row costs more than itself.
	tolerance = 0.5
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
// There is overload when, for longer than a burst lasts, more rows wait than a batch is to have and
// the most urgent one cannot afford such a batch: late rows then keep the batches small, which makes
// more rows late. Shedding only when that persists is CoDel's idea (Nichols and Jacobson,
// "Controlling Queue Delay", ACM Queue 2012). What cannot be answered in time is then refused when it
// comes, since nobody is served by waiting for a refusal.
type load struct {
	// fine is when batches were last as large as they are to be, or all that waited.
	fine int64
	// overloaded is true while requests are refused; strained is when one last was, or was shed.
	overloaded bool
	strained   int64
	// budget is the time that the most urgent request of the last batch had when it came.
	budget int64
	// target is the size that the last batch was to have, mean and tail the mean and the 99th percentile
	// of its time.
	target     int
	mean, tail int64
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
		if now-q.load.probed < int64(probeEvery) {
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
	if q.outrank(it, gone) {
		return true
	}
	err := prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_OVERLOADED, "the model is overloaded: behind the %d rows that wait, the query would be late", len(q.items))
	err.RetryAfter = min(max(time.Duration(over), minRetryAfter), maxRetryAfter)
	q.drop(gone, it.Request, metrics.DropOverloaded, err)
	return false
}

func round(d int64) time.Duration { return time.Duration(d).Round(10 * time.Microsecond) }

// excess returns, under overload, by how much longer than it can afford the request would wait for a
// replica; 0 or less when it can be answered in time. The lock is held.
func (q *Queue) excess(it *Item, now int64) int64 {
	l := &q.load
	if !l.overloaded || it.deadline == noDeadline || l.drain <= 0 || l.tail <= 0 {
		return 0
	}
	if now-l.strained > calm*l.budget {
		l.overloaded, l.fine = false, now
		return 0
	}
	free := int64(noDeadline)
	for _, p := range q.pullers {
		if len(q.items) == 0 && p.batches == 0 && p.waiting {
			return 0
		}
		free = min(free, max(p.until-now, 0))
	}
	// It goes with the batch that is made when those before it have been taken.
	before := q.ahead(it) / l.target * l.target
	wait := free + int64(float64(before)/l.drain*float64(time.Second))
	// The batch under way and its own may take longer than they do in the mean. With more replicas the
	// next one that is free is sooner, and what one leaves over goes with the next.
	k, spread := float64(len(q.pullers)), float64(l.tail-l.mean)
	wait += int64(spread / k)
	return wait + l.mean + int64(spread/math.Sqrt(k)) - (it.deadline - now)
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
		if d.Target > 0 {
			p.aim(d.Target)
		} else {
			p.aim(d.Rows)
		}
		switch {
		case d.Target == 0 || b.HeadBudget == 0 || d.Rows >= min(d.Target, b.Rows):
			l.fine = now
			return d
		case l.overloaded && float64(d.Rows) >= tolerance*float64(min(d.Target, b.Rows)):
			return d
		case !l.overloaded && (b.Rows <= d.Target || float64(now-l.fine) <= patience*float64(l.budget)):
			return d
		}
		l.overloaded, l.strained = true, now
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

// aim notes the size that a replica's batches are to have. The lock is held.
func (p *Puller) aim(target int) {
	l := &p.queue.load
	p.target, p.rate = target, 0
	if mean := p.limits.Model.Mean(target); mean > 0 {
		l.target, l.mean, l.tail = target, int64(mean), int64(p.limits.Model.Tail(target))
		p.rate = float64(target) / mean.Seconds()
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
		if i == 0 || one < q.load.fastest {
			q.load.fastest = one
		}
	}
}
