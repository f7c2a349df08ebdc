// SPDX-License-Identifier: Apache-2.0

package loadgen

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// longest is the longest latency that is told apart.
	longest = time.Hour
	// exact and coarser are significant digits: of the whole, and of each point of the time line.
	exact, coarser = 3, 2
	// points is the most points of the time line.
	points = 300
	// lateStart is how late a start counts as late.
	lateStart = time.Millisecond
)

// event is what became of a query. Times are since the begin of the run.
type event struct {
	due, sent, end time.Duration
	held           bool
	answer         Answer
	// reason is that of an error, empty when there was none.
	reason, message string
}

// waited reports whether the time until the end is a latency: that of an answer, or of a query that got
// none in time. A refusal that comes at once must not look like a fast answer.
func (e *event) waited() bool {
	return e.reason == "" || slices.Contains([]string{Timeout, Unanswered, Unsent, "DEADLINE", "DEADLINE_EXCEEDED"}, e.reason)
}

// tally counts queries.
type tally struct {
	asked, sent, answered, defaults, errors int
	latency                                 *hdrhistogram.Histogram
}

func newTally(digits int) tally { return tally{latency: newHistogram(digits)} }

func newHistogram(digits int) *hdrhistogram.Histogram {
	return hdrhistogram.New(int64(time.Microsecond), int64(longest), digits)
}

func observe(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(int64(min(max(d, 0), longest))) // It is in range.
}

// add counts a query that is over, by the time at which it was due.
func (t *tally) add(e *event) {
	t.asked++
	switch {
	case e.reason != "":
		t.errors++
	case e.answer.Default != "":
		t.defaults++
		fallthrough
	default:
		t.answered++
	}
	if e.waited() {
		observe(t.latency, e.end-e.due)
	}
}

// recorder gathers what became of queries. It is safe for concurrent use.
type recorder struct {
	config *Config
	begin  time.Time
	// from and to bound what counts, since the begin.
	from, to, interval time.Duration

	mu     sync.Mutex
	all    tally
	stages []tally
	line   []tally // By time due; sent and answered by the time when that was.
	// recent is what was answered since the last progress.
	recent    tally
	lastShown time.Duration
	inFlight  int
	// sentInTime and answeredInTime were so while the run went on.
	sentInTime, answeredInTime int
	lag                        *hdrhistogram.Histogram
	late, held, cached         int
	defaults                   map[string]int
	errors                     map[string]*ErrorCount
	learned                    tally
	learnedErrors              map[string]*ErrorCount
}

func newRecorder(c *Config, begin time.Time) *recorder {
	r := &recorder{
		config: c, begin: begin, from: c.WarmUp, to: c.WarmUp + c.Length(),
		all: newTally(exact), recent: newTally(coarser), lag: newHistogram(exact), learned: newTally(exact),
		defaults: map[string]int{}, errors: map[string]*ErrorCount{}, learnedErrors: map[string]*ErrorCount{},
	}
	r.interval = max(time.Second, (c.Length()/points + time.Second - 1).Truncate(time.Second))
	if c.Length() < 20*time.Second {
		r.interval = max(50*time.Millisecond, c.Length()/20)
	}
	for range (c.Length() + r.interval - 1) / r.interval {
		r.line = append(r.line, newTally(coarser))
	}
	for range c.Stages {
		r.stages = append(r.stages, newTally(exact))
	}
	return r
}

// stage returns the tally of the stage in which a moment is.
func (r *recorder) stage(at time.Duration) *tally {
	end := r.from
	for i, s := range r.config.Stages {
		if end += s.Duration; at < end {
			return &r.stages[i]
		}
	}
	return nil
}

// point returns the tally of a moment on the time line, nil for one that is not on it.
func (r *recorder) point(at time.Duration) *tally {
	if at < r.from || at >= r.to {
		return nil
	}
	return &r.line[min(int((at-r.from)/r.interval), len(r.line)-1)]
}

// counts reports whether what is due at a time is in the figures.
func (r *recorder) counts(due time.Duration) bool { return due >= r.from && due < r.to }

func (r *recorder) start(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inFlight++
	r.recent.sent++
	if !r.counts(e.due) {
		return
	}
	lag := e.sent - e.due
	observe(r.lag, lag)
	if lag > lateStart {
		r.late++
	}
	r.all.sent++
	if s := r.stage(e.due); s != nil {
		s.sent++
	}
	if p := r.point(e.sent); p != nil {
		p.sent++
		r.sentInTime++
	}
}

// drop forgets a query that the user's end of the run cut off.
func (r *recorder) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inFlight--
}

func (r *recorder) query(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.sent >= 0 {
		r.inFlight--
	}
	r.recent.add(&e)
	if !r.counts(e.due) {
		return
	}
	r.all.add(&e)
	if s := r.stage(e.due); s != nil {
		s.add(&e)
	}
	p := r.point(e.due)
	answered := p.answered
	p.add(&e)
	p.answered = answered
	if e.held {
		r.held++
	}
	if e.reason != "" {
		count(r.errors, &e)
		return
	}
	if p := r.point(e.end); p != nil {
		p.answered++
		r.answeredInTime++
	}
	if e.answer.Cached {
		r.cached++
	}
	if e.answer.Default != "" {
		r.defaults[e.answer.Default]++
	}
}

func (r *recorder) feedback(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.counts(e.due) {
		return
	}
	e.due = e.sent
	r.learned.add(&e)
	if e.reason != "" {
		count(r.learnedErrors, &e)
	}
}

func count(errors map[string]*ErrorCount, e *event) {
	c := errors[e.reason]
	if c == nil {
		c = &ErrorCount{Reason: e.reason, Example: e.message}
		errors[e.reason] = c
	}
	c.Count++
}

func sorted(errors map[string]*ErrorCount) []ErrorCount {
	list := []ErrorCount{}
	for _, c := range errors {
		list = append(list, *c)
	}
	slices.SortFunc(list, func(a, b ErrorCount) int {
		if a.Count != b.Count {
			return b.Count - a.Count
		}
		return strings.Compare(a.Reason, b.Reason)
	})
	return list
}

// Progress is how a run goes; rates and latencies are those since the last one.
type Progress struct {
	// Elapsed is the time since the begin, Length that of the whole run, with the warm-up.
	Elapsed, Length time.Duration
	WarmingUp       bool
	// Sent and Answered are in queries per second.
	Sent, Answered   float64
	P50, P99         time.Duration
	Errors, Defaults int
	InFlight         int
}

func (r *recorder) progress(now time.Duration) Progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	span := (now - r.lastShown).Seconds()
	p := Progress{
		Elapsed: now, Length: r.to, WarmingUp: now < r.from, InFlight: r.inFlight, Errors: r.all.errors, Defaults: r.all.defaults,
		Sent: float64(r.recent.sent) / span, Answered: float64(r.recent.answered) / span,
		P50: time.Duration(r.recent.latency.ValueAtPercentile(50)), P99: time.Duration(r.recent.latency.ValueAtPercentile(99)),
	}
	r.recent, r.lastShown = newTally(coarser), now
	return p
}
