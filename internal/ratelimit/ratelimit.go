// SPDX-License-Identifier: Apache-2.0

// Package ratelimit bounds how many queries come in a second and how many are in flight at once, for one
// key or one application on one instance.
package ratelimit

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Largest limits. Above them, arithmetic is no longer exact.
const (
	maxRate  = 1e9
	maxCount = 1e9
)

// busyRetry is when to come back after too many in flight: nobody knows when one of them ends.
const busyRetry = 100 * time.Millisecond

// Check reports what is wrong with limits, and in which field.
func Check(l *clipperv1.Limits) (field string, err error) {
	r := l.GetQueriesPerSecond()
	switch {
	case !(r >= 0 && r <= maxRate):
		return "queries_per_second", fmt.Errorf("it is %v, want 0 (no limit) to %v", r, maxRate)
	case l.GetBurst() > maxCount:
		return "burst", fmt.Errorf("it is %d, want at most %d", l.GetBurst(), int(maxCount))
	case l.GetBurst() > 0 && r == 0:
		return "burst", fmt.Errorf("it is %d without queries_per_second", l.GetBurst())
	case l.GetConcurrency() > maxCount:
		return "concurrency", fmt.Errorf("it is %d, want at most %d", l.GetConcurrency(), int(maxCount))
	}
	return "", nil
}

// Limit is what has been reached.
type Limit string

// The limits.
const (
	Rate        Limit = "rate"
	Concurrency Limit = "concurrency"
)

// Refusal says why queries are not let in.
type Refusal struct {
	Limit Limit
	// Most is how many queries the limit lets in at once.
	Most int
	// RetryAfter is the earliest time at which a repetition may succeed; 0 when it never can, since
	// there are more queries than Most.
	RetryAfter time.Duration
}

// Limiter bounds queries. A nil Limiter bounds nothing. Safe for concurrent use.
type Limiter struct {
	limits   *clipperv1.Limits
	rate     *rate.Limiter // Nil when there is no limit.
	inFlight atomic.Int64
}

// New returns a limiter, or nil when there are no limits, which are taken as checked. If old has the same
// limits it goes on, so that a change of something else gives nobody a second burst.
func New(limits *clipperv1.Limits, old *Limiter) *Limiter {
	if limits.GetQueriesPerSecond() == 0 && limits.GetConcurrency() == 0 {
		return nil
	}
	if old != nil && proto.Equal(old.limits, limits) {
		return old
	}
	l := &Limiter{limits: limits}
	if r := limits.GetQueriesPerSecond(); r > 0 {
		burst := int(limits.GetBurst())
		if burst == 0 {
			burst = max(1, int(math.Ceil(r)))
		}
		l.rate = rate.NewLimiter(rate.Limit(r), burst)
	}
	return l
}

// Acquire lets n queries in, all or none. It returns nil when they are, and then Release must be called
// with the same n when they are done.
func (l *Limiter) Acquire(n int) *Refusal {
	if l == nil {
		return nil
	}
	if most := int64(l.limits.GetConcurrency()); most > 0 {
		if l.inFlight.Add(int64(n)) > most {
			l.inFlight.Add(int64(-n))
			r := &Refusal{Limit: Concurrency, Most: int(most)}
			if n <= r.Most {
				r.RetryAfter = busyRetry
			}
			return r
		}
	}
	if l.rate == nil {
		return nil
	}
	now := time.Now()
	if l.rate.AllowN(now, n) {
		return nil
	}
	l.Release(n)
	r := &Refusal{Limit: Rate, Most: l.rate.Burst()}
	if n <= r.Most {
		lacking := float64(n) - l.rate.TokensAt(now)
		r.RetryAfter = max(time.Duration(lacking/float64(l.rate.Limit())*float64(time.Second)), time.Millisecond)
	}
	return r
}

// Release ends n queries that were let in.
func (l *Limiter) Release(n int) {
	if l != nil && l.limits.GetConcurrency() > 0 {
		l.inFlight.Add(int64(-n))
	}
}
