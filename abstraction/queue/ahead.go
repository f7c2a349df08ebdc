// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"math"
	"time"
)

const (
	// worthHiding is the share of a batch's time from which on the way there and back is worth hiding.
	worthHiding = 0.1
	// mostlyWay is the share from which on a batch is mostly way.
	mostlyWay = 0.5
	// defaultHop is what the way there and back takes when the container does not tell.
	defaultHop = 200 * time.Microsecond
	// shareBelow is the share of what the replicas can answer from which on none leaves rows to others:
	// smaller batches would have them answered sooner, but fewer of them.
	shareBelow = 0.5
	// muchSlower is the factor from the fastest replica's time on which a replica sheds nothing.
	muchSlower = 2
	// slowProbeEvery is the time after which a replica that leaves rows to faster ones takes one.
	slowProbeEvery = 500 * time.Millisecond
	// sharing is the number of bisections that find how rows are shared among replicas.
	sharing = 16
)

// mayTake reports whether a puller may have a batch now, when something waits. The lock is held.
func (p *Puller) mayTake(now int64) bool {
	switch {
	case p.batches >= p.limits.InFlight:
		return false
	case p.batches == 0:
		return !p.leaves(now)
	}
	return p.mayTakeAhead(now)
}

// leaves reports whether the puller leaves what waits to faster ones, since it would be late with the
// most urgent row and they need not be. Now and then it takes a row all the same, to learn whether it
// is still slow, and after one that it answered fast at once the next. The lock is held.
func (p *Puller) leaves(now int64) bool {
	q := p.queue
	if p.one <= q.items[0].deadline-now || p.one == q.load.fastest {
		return false
	}
	every := slowProbeEvery
	if q.load.overloaded { // What it takes would be refused.
		every = probeEvery
	}
	return now-p.probed < int64(every)
}

// slow reports whether another replica is much faster, so that what is lost to this one is not to it.
// The lock is held.
func (p *Puller) slow() bool { return p.one > muchSlower*p.queue.load.fastest }

// mayTakeAhead reports whether a replica that is busy may be sent its next batch, so that it is there
// when the one before is done. That hides the way there and back, but the rows are then bound to this
// replica, and rows that come meanwhile cannot join them. So it is done only when
//
//   - the way is a good part of a batch's time;
//   - as much waits as the next batch is to have, so that nothing could join it anyway; or as many rows
//     as are under way, and the way is most of a batch's time. With c for the model's own time and h
//     for the way, a row that just missed a batch takes 2(c+h) at most in the one case, 3c+h when its
//     batch is sent ahead: less only when c < h;
//   - no other replica is idle, or expected to be free sooner.
//
// The lock is held.
func (p *Puller) mayTakeAhead(now int64) bool {
	q := p.queue
	worth := worthHiding
	if p.target == 0 || len(q.items) < p.target {
		if len(q.items) < p.rows {
			return false
		}
		worth = mostlyWay
	}
	if mean := p.limits.Model.Mean(p.rows); mean > 0 {
		hop := p.limits.Model.Hop()
		if hop == 0 {
			hop = defaultHop
		}
		if float64(hop) < worth*float64(mean) {
			return false
		}
	}
	for _, o := range q.pullers {
		if o != p && (o.batches == 0 && o.waiting || o.batches > 0 && max(o.until, now) < p.until) {
			return false
		}
	}
	return true
}

// share returns how many of the rows that wait a puller is to take so that all are answered soonest,
// given when the other replicas will be free and how long each is expected to take. It is the
// puller's part of what all can answer until the earliest time by which all rows can be. Where
// batches cost the same whatever their size, one takes all; where each row costs the same, each
// takes its part. Under load each takes what it can. The lock is held.
func (p *Puller) share(now int64) int {
	q := p.queue
	rows := len(q.items)
	if len(q.pullers) == 1 || rows == 1 || p.batches > 0 || q.pace.rate > shareBelow*q.load.drain && q.load.drain > 0 {
		return rows
	}
	alone := p.takes(rows)
	if alone == 0 { // Nothing is known: equal parts for those that are idle.
		idle := 1
		for _, o := range q.pullers {
			if o != p && o.batches == 0 && o.waiting {
				idle++
			}
		}
		return (rows + idle - 1) / idle
	}
	low, high := time.Duration(0), alone
	for range sharing {
		middle := (low + high) / 2
		if q.answered(now, middle, rows) >= float64(rows) {
			high = middle
		} else {
			low = middle
		}
	}
	if high == alone { // The others cannot help.
		return rows
	}
	return min(rows, max(1, int(math.Ceil(p.answers(high)))))
}

// answered returns how many rows the replicas can answer within a time from now, at most about limit.
func (q *Queue) answered(now int64, within time.Duration, limit int) float64 {
	n := 0.0
	for _, o := range q.pullers {
		if o.batches > 0 {
			left := o.until - now
			if left < 0 {
				left = -left // What is late already may be as late again.
			}
			n += o.answers(within - time.Duration(left))
		} else if o.waiting {
			n += o.answers(within)
		}
		if n >= float64(limit) {
			break
		}
	}
	return n
}

// takes returns how long the replica is expected to take for a batch, by its line; 0 when nothing is
// known.
func (p *Puller) takes(rows int) time.Duration {
	fixed, row := p.limits.Model.Line()
	return fixed + time.Duration(rows)*row
}

// answers returns how many rows the replica can answer in one batch in this time, as a real number.
func (p *Puller) answers(within time.Duration) float64 {
	fixed, row := p.limits.Model.Line()
	if within < fixed+row {
		return 0
	}
	return float64(within-fixed) / float64(max(row, 1))
}
