// SPDX-License-Identifier: Apache-2.0

// Package loadgen generates load and measures what a server makes of it.
//
// An open loop sends queries when they are due, however long the answers take, and counts latency from the
// moment when a query was due. A server that stalls, or a generator that is late, is therefore in the
// figures: there is no coordinated omission. A closed loop has callers who wait for an answer before they
// ask again; its latencies are those of such callers only, and it is labelled as what it is.
package loadgen

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clipper-serving/clipper/internal/pause"
)

// Answer is what came back for a query.
type Answer struct {
	// Default is why the default output was the answer; empty when it was not.
	Default string
	// Cached says that no model had to be asked.
	Cached bool
	// FeedbackID is what feedback names; empty when there can be none.
	FeedbackID string
}

// Sender asks a server. It is safe for concurrent use. An error that is a [*Failure] has its reason.
type Sender interface {
	// Query makes query i ready, before it is due, and returns what sends it and waits for the answer.
	Query(i int) func(context.Context) (Answer, error)
	// Feedback says what was true for query i, to which id belongs.
	Feedback(ctx context.Context, i int, id string) error
}

// Failure is an error of a query.
type Failure struct {
	// Reason is one of the API's error reasons, or another short name.
	Reason string
	// Message is for people.
	Message string
}

func (f *Failure) Error() string { return f.Message }

// Reasons of failures that the generator itself names.
const (
	// Timeout: the generator gave up waiting for a query.
	Timeout = "TIMEOUT"
	// Unanswered: there was no answer when the run ended.
	Unanswered = "UNANSWERED"
	// Unsent: the query was due and could not be sent until the run ended, since as many as allowed were
	// in flight.
	Unsent = "UNSENT"
	other  = "OTHER"
)

// Config is what a run does. Exactly one of Stages, Times and Concurrency is set.
type Config struct {
	// Stages and Arrivals make the arrivals of an open loop.
	Stages   []Stage
	Arrivals Arrivals
	// Times are those of an open loop's arrivals, ascending, since the begin.
	Times []time.Duration
	// Concurrency is the number of callers of a closed loop; it lasts for Duration.
	Concurrency int
	Duration    time.Duration
	// WarmUp comes before all that: at the first rate, or with the same callers. Nothing of it counts.
	// A replay of times has none.
	WarmUp time.Duration
	// Timeout is how long the answer to a query is awaited.
	Timeout time.Duration
	// MaxInFlight bounds what an open loop has in flight; what is due then waits, and its time runs.
	MaxInFlight int
	// Feedback is the share of answers that get feedback, FeedbackDelay after they came.
	Feedback      float64
	FeedbackDelay time.Duration
	// Seed makes random choices repeatable.
	Seed uint64

	// until waits for a moment; a test's clock is not the machine's.
	until func(time.Time)
}

// Length returns how long the part of the run that counts lasts.
func (c *Config) Length() time.Duration {
	switch {
	case c.Concurrency > 0:
		return c.Duration
	case len(c.Times) > 0:
		return c.Times[len(c.Times)-1] + time.Nanosecond
	}
	return total(c.Stages)
}

// plan returns the stages with the warm-up in front.
func (c *Config) plan() []Stage {
	if c.WarmUp == 0 {
		return c.Stages
	}
	rate := c.Stages[0].From
	if rate == 0 {
		rate = c.Stages[0].To / 10
	}
	return append([]Stage{{From: rate, To: rate, Duration: c.WarmUp}}, c.Stages...)
}

// run is a run that is under way.
type run struct {
	Config
	sender Sender
	record *recorder
	begin  time.Time
	// ended says that the time for answers is over.
	ended atomic.Bool
	wg    sync.WaitGroup
}

// Run sends what c says, calls show about every second with how it goes, and returns what it measured, in
// full when ctx ends early. It returns when nothing is in flight any more.
func Run(ctx context.Context, c Config, sender Sender, show func(Progress)) *Report {
	if c.until == nil {
		c.until = pause.Until
	}
	begin := time.Now()
	r := &run{Config: c, sender: sender, begin: begin, record: newRecorder(&c, begin)}
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := make(chan struct{})
	finished := make(chan struct{})
	go func() {
		defer close(watched)
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-finished:
				return
			case <-ticker.C:
				show(r.record.progress(time.Since(begin)))
			}
		}
	}()
	if c.Concurrency > 0 {
		r.closed(work)
	} else {
		r.open(work)
	}
	r.settle(work, cancel)
	close(finished)
	<-watched
	return r.record.report(ctx.Err() != nil, time.Since(begin))
}

// settle waits for what is in flight, and ends it when that takes too long.
func (r *run) settle(ctx context.Context, cancel func()) {
	done := make(chan struct{})
	go func() {
		r.wg.Wait()
		close(done)
	}()
	timer := time.NewTimer(r.Timeout + r.FeedbackDelay)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		r.ended.Store(true)
		cancel()
		<-done
	case <-ctx.Done():
		<-done
	}
}

// coarse is how far ahead of a moment the machine's timer is precise enough; until does the rest.
const coarse = 5 * time.Millisecond

// await waits until t and reports whether ctx is still alive.
func (r *run) await(ctx context.Context, t time.Time) bool {
	if left := time.Until(t); left > 2*coarse {
		timer := time.NewTimer(left - coarse)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return false
		}
	}
	r.until(t)
	return ctx.Err() == nil
}

// arrivals returns what yields the arrivals of an open loop.
func (r *run) arrivals() func() (time.Duration, bool) {
	if len(r.Times) == 0 {
		return newSchedule(r.plan(), r.Arrivals, r.Seed).next
	}
	i := -1
	return func() (time.Duration, bool) {
		if i++; i < len(r.Times) {
			return r.Times[i], true
		}
		return 0, false
	}
}

func (r *run) open(ctx context.Context) {
	next := r.arrivals()
	slots := make(chan struct{}, r.MaxInFlight)
	last := r.begin.Add(r.WarmUp + r.Length() + r.Timeout)
	for i := 0; ; i++ {
		due, ok := next()
		if !ok {
			return
		}
		send := r.sender.Query(i)
		if !r.await(ctx, r.begin.Add(due)) {
			return
		}
		held := false
		select {
		case slots <- struct{}{}:
		default:
			held = true
			if !hold(ctx, slots, last) {
				if ctx.Err() == nil {
					r.unsent(due, next)
				}
				return
			}
		}
		r.wg.Go(func() {
			defer func() { <-slots }()
			r.query(ctx, i, send, due, held)
		})
	}
}

// hold waits for a slot until a moment, and reports whether there was one.
func hold(ctx context.Context, slots chan<- struct{}, until time.Time) bool {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case slots <- struct{}{}:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// unsent records the arrivals from due on as not sent.
func (r *run) unsent(due time.Duration, next func() (time.Duration, bool)) {
	now := time.Since(r.begin)
	for ok := true; ok; due, ok = next() {
		r.record.query(event{due: due, sent: -1, end: now, held: true, reason: Unsent, message: "as many queries as allowed were in flight until the run ended"})
	}
}

func (r *run) closed(ctx context.Context) {
	var count atomic.Int64
	end := r.WarmUp + r.Duration
	var callers sync.WaitGroup
	for range r.Concurrency {
		callers.Go(func() {
			for ctx.Err() == nil {
				i := int(count.Add(1) - 1)
				send := r.sender.Query(i)
				now := time.Since(r.begin)
				if now >= end {
					return
				}
				r.query(ctx, i, send, now, false)
			}
		})
	}
	callers.Wait()
}

// query sends query i, which is due since the begin, and the feedback for it.
func (r *run) query(ctx context.Context, i int, send func(context.Context) (Answer, error), due time.Duration, held bool) {
	e := event{due: due, sent: time.Since(r.begin), held: held}
	r.record.start(e)
	limited, cancel := context.WithTimeout(ctx, r.Timeout)
	answer, err := send(limited)
	late := limited.Err() != nil
	cancel()
	e.end = time.Since(r.begin)
	e.answer = answer
	if err != nil {
		if e.reason, e.message = r.reason(ctx, err, late); e.reason == "" {
			r.record.drop()
			return
		}
	}
	r.record.query(e)
	if err != nil || answer.FeedbackID == "" || r.Feedback == 0 {
		return
	}
	if random := rand.New(rand.NewPCG(r.Seed, uint64(i)+1)); random.Float64() >= r.Feedback { //nolint:gosec // A sample.
		return
	}
	r.wg.Go(func() { r.feedback(ctx, i, due, e.end+r.FeedbackDelay, answer.FeedbackID) })
}

func (r *run) feedback(ctx context.Context, i int, query, due time.Duration, id string) {
	timer := time.NewTimer(time.Until(r.begin.Add(due)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return // Never sent, and so not counted.
	}
	e := event{due: query, sent: due}
	limited, cancel := context.WithTimeout(ctx, r.Timeout)
	err := r.sender.Feedback(limited, i, id)
	late := limited.Err() != nil
	cancel()
	e.end = time.Since(r.begin)
	if err != nil {
		if e.reason, e.message = r.reason(ctx, err, late); e.reason == "" {
			return
		}
	}
	r.record.feedback(e)
}

// reason returns the reason and the message of an error; none when it is that the user ended the run.
func (r *run) reason(ctx context.Context, err error, late bool) (reason, message string) {
	switch f := (*Failure)(nil); {
	case ctx.Err() != nil && r.ended.Load():
		return Unanswered, "no answer until the run ended"
	case ctx.Err() != nil:
		return "", ""
	case late:
		return Timeout, "no answer within " + r.Timeout.String()
	case errors.As(err, &f):
		return f.Reason, f.Message
	}
	return other, err.Error()
}
