// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"math"
	"time"
)

const (
	// autoShare is the part of a request's time that is waited at most.
	autoShare = 10
	// rateMemory is the time over which the rate of arrivals is averaged.
	rateMemory = 100 * time.Millisecond
)

// pace is what is needed to hold batches back. All is under the queue's lock.
type pace struct {
	// oldest is when the oldest row came that waits; kept only while batches may be held back.
	oldest int64
	// rate is the mean number of rows that come per second.
	rate float64
	// last and since are the number and the time of the last measurement of it.
	last  uint64
	since int64

	timer *time.Timer
	armed int64 // when the timer fires; noDeadline when it does not
}

// taken finds the oldest row again after a batch was made. The lock is held.
func (c *pace) taken(q *Queue) {
	c.oldest = noDeadline
	for i := range q.items {
		c.oldest = min(c.oldest, q.items[i].arrived)
	}
}

// measure follows the rate of arrivals. The lock is held.
func (c *pace) measure(q *Queue, now int64) {
	passed := now - c.since
	if passed < int64(time.Millisecond) {
		return
	}
	rate := float64(q.lastSeq-c.last) / time.Duration(passed).Seconds()
	c.rate += (rate - c.rate) * -math.Expm1(-float64(passed)/float64(rateMemory))
	c.last, c.since = q.lastSeq, now
}

// hold reports whether the batch of a replica with nothing under way is held back, and then sees to
// it that it is made in time. limit is the most rows that it may have. The lock is held.
//
// With AutoDelay it is held back while fewer rows wait than come during the fixed part of a batch's
// time: waiting one moment longer costs a moment, and saves the fixed part of a batch for every batch
// that need not be made. With n rows waiting, r coming per second and f that part, the time per row
// falls while r·f > n. It is never held back for longer than it takes itself, or for a good part of
// the time that the most urgent row had. Else it is held back until it is full.
func (p *Puller) hold(now int64, limit int) bool {
	q, l := p.queue, &p.limits
	rows := len(q.items)
	if l.MaxDelay == 0 && !l.AutoDelay || rows >= limit || rows >= q.maxRows {
		return false
	}
	head := &q.items[0]
	longest := l.MaxDelay
	if l.AutoDelay {
		fixed, _ := l.Model.Line()
		if float64(rows) >= q.pace.rate*fixed.Seconds() {
			return false
		}
		gain := l.Model.Mean(rows)
		if head.deadline != noDeadline {
			gain = min(gain, time.Duration(head.deadline-head.arrived)/autoShare)
		}
		if longest == 0 || gain < longest {
			longest = gain
		}
	}
	until := q.pace.oldest + int64(longest)
	if head.deadline != noDeadline {
		until = min(until, head.deadline-int64(l.Model.Tail(rows)))
	}
	if until <= now {
		return false
	}
	if until < q.pace.armed {
		q.pace.armed = until
		if q.pace.timer == nil {
			q.pace.timer = time.AfterFunc(time.Duration(until-now), q.release)
		} else {
			q.pace.timer.Reset(time.Duration(until - now))
		}
	}
	return true
}

// release lets the replicas look again at what is held back.
func (q *Queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pace.armed = noDeadline
	q.wake()
}
