// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/internal/store/journal"
)

const (
	// clearTimeout is the least time without an answer after which the store counts as away: callers
	// with less have only been in a hurry.
	clearTimeout = 250 * time.Millisecond
	// The wait before the store is asked again doubles from minProbe to maxProbe.
	minProbe = 50 * time.Millisecond
	maxProbe = time.Second
	// probeLifetime is how long the store remembers the additions of nothing by which it is asked.
	probeLifetime = time.Second
)

// outage is what is known of the store's being away. While it is, nobody waits for it: queries are
// answered from the last known state, and feedback is buffered or refused at once. Safe for concurrent
// use.
type outage struct {
	mu    sync.Mutex
	since time.Time     // zero while the store answers
	wake  chan struct{} // gets a signal when there is something to heal
}

func newOutage() *outage { return &outage{wake: make(chan struct{}, 1)} }

// known reports whether the store is away.
func (o *outage) known() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.since.IsZero()
}

// begin notes that the store has not answered, and reports whether that is news.
func (o *outage) begin() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.since.IsZero() {
		return false
	}
	o.since = time.Now()
	o.signal()
	return true
}

// signal wakes who heals.
func (o *outage) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// end notes that the store answers, and returns for how long it did not.
func (o *outage) end() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	lasted := time.Since(o.since)
	o.since = time.Time{}
	return lasted
}

// missed notes that the store has failed a call that it had the given time for.
func (s *Service) missed(had time.Duration, err error) {
	hurry := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) && had < min(clearTimeout, s.cfg.FeedbackWait)
	if errors.Is(err, store.ErrUnavailable) && !hurry && s.ctx.Err() == nil && s.outage.begin() {
		s.metrics.outage.Set(1)
		s.log.Warn("the store does not answer; going on with the last known state", "feedback", s.feedbackMeanwhile(), "error", err)
	}
}

func (s *Service) feedbackMeanwhile() string {
	if s.buffer == nil {
		return "refused"
	}
	return "buffered"
}

// add adds to the sums as [store.Sums] does, and waits for the store at most as long as feedback may and
// three quarters of the caller's time, so that there is time left to do without it. While the store is
// known to be away it fails at once.
func (s *Service) add(ctx context.Context, once string, remember time.Duration, updates []store.Update) (bool, error) {
	if s.outage.known() {
		return false, fmt.Errorf("%w: it has not answered before", store.ErrUnavailable)
	}
	wait := s.cfg.FeedbackWait
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)*3/4)
	}
	bounded, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	applied, err := s.deps.Sums.Add(bounded, once, remember, updates...)
	if err != nil {
		s.missed(wait, err)
	}
	return applied, err
}

// heal waits for outages and sees to their end: it asks the store until it answers, and then hands over
// what was buffered.
func (s *Service) heal() {
	// What is buffered is for applications, which have to be known.
	for !s.apps.Snapshot().Synced() {
		select {
		case <-s.ctx.Done():
			return
		case <-s.apps.Snapshot().Replaced():
		}
	}
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.outage.wake:
		}
		if !s.awaitStore() {
			return
		}
		if s.buffer != nil && !s.replay() {
			return
		}
	}
}

// awaitStore returns true when the store answers, and false when the service ends.
func (s *Service) awaitStore() bool {
	for wait := minProbe; s.outage.known(); wait = min(2*wait, maxProbe) {
		// Feedback is a write, and a store that can be read may still refuse those.
		ctx, cancel := context.WithTimeout(s.ctx, s.cfg.FeedbackWait)
		_, err := s.deps.Sums.Add(ctx, "probe/"+crand.Text(), probeLifetime)
		cancel()
		if err == nil {
			lasted := s.outage.end()
			s.metrics.outage.Set(0)
			s.log.Info("the store answers again", "after", lasted.Round(time.Millisecond))
			return true
		}
		if !s.sleep(wait/2 + rand.N(wait)) {
			return false
		}
	}
	return s.ctx.Err() == nil
}

// identity is that of a feedback in the store.
type identity struct {
	name     string        // empty when every call counts
	remember time.Duration // how long the store remembers it
	expires  time.Time     // until when it cannot have been forgotten
}

// outcome is what became of an addition.
type outcome int

const (
	counted  outcome = iota // the store has it
	repeated                // the store had it before
	buffered                // the store will get it
)

// store adds to the sums or, while the store cannot be reached, puts the addition into the buffer, if there is
// one. It returns when that is durable.
func (s *Service) store(ctx context.Context, app *application, once identity, updates []store.Update) (outcome, error) {
	if once.name == "" && s.buffer != nil {
		// It may be sent to the store twice: before it is buffered, and after.
		once.name = "buffer/" + crand.Text()
	}
	applied, err := s.add(ctx, once.name, once.remember, updates)
	switch {
	case err == nil && applied:
		return counted, nil
	case err == nil:
		return repeated, nil
	case s.buffer == nil || !errors.Is(err, store.ErrUnavailable) || ctx.Err() != nil:
		return 0, err
	}
	if err := s.buffer.keep(ctx, app, once, updates); err != nil {
		if ctx.Err() == nil && !errors.Is(err, journal.ErrFull) && !errors.Is(err, journal.ErrClosed) {
			s.log.Error("feedback cannot be buffered", "error", err)
		}
		return 0, fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	s.metrics.buffered.Inc()
	if !s.outage.known() {
		s.outage.signal()
	}
	return buffered, nil
}
