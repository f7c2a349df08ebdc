// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"time"

	"github.com/clipper-serving/clipper/abstraction/autoscale"
	"github.com/clipper-serving/clipper/abstraction/prediction"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Demand returns what comes, refused or not.
func (q *Queue) Demand() autoscale.Demand {
	q.mu.Lock()
	defer q.mu.Unlock()
	d := q.arrivals.Demand(time.Duration(q.now()))
	d.Waiting = len(q.items)
	return d
}

// budget returns the time that the item had when it came; 0 when it has no deadline.
func (it *Item) budget() time.Duration {
	if it.deadline == noDeadline {
		return 0
	}
	return time.Duration(it.deadline - it.arrived)
}

// SetFirst says that the first replica cannot serve before a time. While there is none, requests whose
// deadline is earlier are refused at once.
func (q *Queue) SetFirst(at time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.first = int64(at.Sub(q.epoch))
}

// tooSoon is for requests that cannot wait as long as a replica takes to start at best. The lock is held.
func (q *Queue) tooSoon(now int64) *prediction.Error {
	left := time.Duration(q.first - now)
	err := prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA,
		"the model has no replica now; one is being started and needs %v more, longer than the query can wait", left.Round(10*time.Millisecond))
	err.RetryAfter = max(left, minRetryAfter)
	return err
}

// notStarted is for requests that have waited for a replica to start. The lock is held.
func (q *Queue) notStarted(now int64) *prediction.Error {
	err := prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE, "the deadline passed before the model's first replica had started")
	err.RetryAfter = unknownRetryAfter
	if left := time.Duration(q.first - now); left > 0 {
		err.RetryAfter = max(left, minRetryAfter)
	}
	return err
}
