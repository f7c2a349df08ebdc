// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/clipper-serving/clipper/internal/pause"
)

// Outcome is what became of a query.
type Outcome int64

const (
	// lost is a query of which nothing was heard until the run ended.
	lost Outcome = iota
	// Answered queries have a prediction, in time or not.
	Answered
	// Refused queries were turned away because there is too much to do.
	Refused
	// Expired queries have no prediction because their deadline came first.
	Expired
	// Failed queries have an error of another kind.
	Failed

	outcomeBits = 3
)

// OpenConfig is an open-loop run: queries come when they come, however long the answers take.
type OpenConfig struct {
	// Schedule has the moments of arrival, ascending.
	Schedule []time.Duration
	// WarmUp is the time at the begin whose queries are sent but not counted.
	WarmUp time.Duration
	// Objective is the time in which a query is to be answered.
	Objective time.Duration
	// Settle is how long answers are awaited after the last arrival. Default 5 s.
	Settle time.Duration
}

// OpenMeasurement is what an open-loop run saw of the queries that count.
type OpenMeasurement struct {
	// Offered is the number of queries, Rate that per second.
	Offered int
	Rate    float64
	// InTime were answered within the objective. Late were answered after it or told that it is over.
	// Refused, Failed and Lost never got a prediction.
	InTime, Late, Refused, Failed, Lost int
	// P50, P99, P999 and Max are the latencies of all that were not refused, counted from the moment when
	// the query was to arrive: what the generator or the system did late is in them.
	P50, P99, P999, Max time.Duration
	// Latencies are all of these, in nanoseconds.
	Latencies *hdrhistogram.Histogram
	// RefusedP99 is the time after which 99 % of the refused knew it.
	RefusedP99 time.Duration
	// Lag is how late the generator submitted 99 % of the queries, at most. A run means nothing when
	// it is not small against the objective.
	Lag time.Duration
}

// Fraction returns the share of the offered queries that was answered in time.
func (m *OpenMeasurement) Fraction() float64 {
	if m.Offered == 0 {
		return 0
	}
	return float64(m.InTime) / float64(m.Offered)
}

// Goodput returns the queries per second that were answered in time.
func (m *OpenMeasurement) Goodput() float64 { return m.Rate * m.Fraction() }

// Open is an open-loop run.
//
// One goroutine submits everything that is due whenever it wakes up; a query costs the generator
// neither a goroutine nor a lock. Latency counts from the intended arrival, so that a system that
// is slow to take queries gains nothing by it (there is no coordinated omission).
type Open struct {
	cfg   OpenConfig
	begin time.Time
	// ends has for each query the nanoseconds from begin to its end, and in the low bits the Outcome;
	// 0 until then.
	ends []atomic.Int64
	lag  *hdrhistogram.Histogram
	left atomic.Int64
	done chan struct{}
	// until waits for a moment.
	until func(time.Time)
}

// tick is the least time between two wake-ups of the generator.
const tick = 100 * time.Microsecond

// NewOpen returns a run.
func NewOpen(cfg OpenConfig) *Open {
	if cfg.Settle == 0 {
		cfg.Settle = 5 * time.Second
	}
	o := &Open{
		cfg: cfg, ends: make([]atomic.Int64, len(cfg.Schedule)), lag: newHistogram(),
		done: make(chan struct{}), until: pause.Until,
	}
	o.left.Store(int64(len(cfg.Schedule)))
	return o
}

// Done takes the outcome of query i, once. Safe for concurrent use.
func (o *Open) Done(i int, outcome Outcome) {
	o.ends[i].Store(int64(time.Since(o.begin))<<outcomeBits | int64(outcome))
	if o.left.Add(-1) == 0 {
		close(o.done)
	}
}

// Run submits the queries and returns when all are done or Settle is over. submit gets the
// query's index and the moment at which it was to arrive; it must not block and sees to it that
// Done is called. An end of ctx ends the run early.
func (o *Open) Run(ctx context.Context, submit func(i int, due time.Time)) OpenMeasurement {
	o.begin = time.Now().Add(tick)
	schedule := o.cfg.Schedule
	for i := 0; i < len(schedule) && ctx.Err() == nil; {
		now := time.Since(o.begin)
		for ; i < len(schedule) && schedule[i] <= now; i++ {
			if schedule[i] >= o.cfg.WarmUp {
				_ = o.lag.RecordValue(int64(now - schedule[i]))
			}
			submit(i, o.begin.Add(schedule[i]))
		}
		if i < len(schedule) {
			o.until(o.begin.Add(max(schedule[i], now+tick)))
		}
	}
	if len(schedule) > 0 {
		settle := time.NewTimer(o.cfg.Settle)
		defer settle.Stop()
		select {
		case <-o.done:
		case <-settle.C:
		case <-ctx.Done():
		}
	}
	return o.Measure(func(int) bool { return true })
}

// Measure returns what became of the queries that are picked, when Run has ended.
func (o *Open) Measure(picked func(i int) bool) OpenMeasurement {
	latency, refused := newHistogram(), newHistogram()
	var m OpenMeasurement
	for i, due := range o.cfg.Schedule {
		if due < o.cfg.WarmUp || !picked(i) {
			continue
		}
		m.Offered++
		end := o.ends[i].Load()
		took := time.Duration(end>>outcomeBits) - due
		switch outcome := Outcome(end & (1<<outcomeBits - 1)); outcome {
		case lost:
			m.Lost++
		case Failed:
			m.Failed++
		case Refused:
			m.Refused++
			_ = refused.RecordValue(int64(took))
		default:
			_ = latency.RecordValue(int64(took))
			if outcome == Answered && took <= o.cfg.Objective {
				m.InTime++
			} else {
				m.Late++
			}
		}
	}
	if n := len(o.cfg.Schedule); n > 0 {
		m.Rate = float64(m.Offered) / (o.cfg.Schedule[n-1] - o.cfg.WarmUp).Seconds()
	}
	at := func(h *hdrhistogram.Histogram, q float64) time.Duration { return time.Duration(h.ValueAtQuantile(q)) }
	m.P50, m.P99, m.P999 = at(latency, 50), at(latency, 99), at(latency, 99.9)
	m.Max, m.Latencies = time.Duration(latency.Max()), latency
	m.RefusedP99, m.Lag = at(refused, 99), at(o.lag, 99)
	return m
}

// newHistogram returns a histogram of nanoseconds from 1 microsecond to a minute.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(int64(time.Microsecond), int64(time.Minute), 3)
}
