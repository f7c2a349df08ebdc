// SPDX-License-Identifier: Apache-2.0

package loadgen

import (
	"fmt"
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Report is what a run measured. Latencies are in milliseconds, rates in queries per second.
type Report struct {
	// Version is that of the program, Started when the run did.
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	// Settings say what was asked, in words; runs with the same ones can be compared.
	Settings []Setting `json:"settings"`
	// Loop is "open" or "closed".
	Loop string `json:"loop"`
	// Seconds is how long the part that counts lasted.
	Seconds     float64 `json:"seconds"`
	Interrupted bool    `json:"interrupted,omitempty"`
	Rates       Rates   `json:"rates"`
	Counts      Counts  `json:"counts"`
	// Latency is that of answers, and of queries that had none in time; Distribution is the same as a curve.
	Latency      Latency    `json:"latency"`
	Distribution []Quantile `json:"distribution"`
	Generator    Generator  `json:"generator"`
	// Defaults are default answers by reason, Errors the most frequent first.
	Defaults map[string]int `json:"defaults"`
	Errors   []ErrorCount   `json:"errors"`
	Stages   []StageReport  `json:"stages,omitempty"`
	// Interval is the time between two points of the time line, in seconds.
	Interval float64         `json:"interval_seconds"`
	Timeline []Point         `json:"timeline"`
	Feedback *FeedbackReport `json:"feedback,omitempty"`
	// Warnings say what makes the figures doubtful.
	Warnings   []string    `json:"warnings"`
	Objectives []Objective `json:"objectives,omitempty"`
	Comparison *Comparison `json:"comparison,omitempty"`
}

// Setting is something that was asked of a run.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Rates are means over the part of a run that counts.
type Rates struct {
	// Asked is what was planned, Sent what went out, Answered what came back in that time.
	Asked    float64 `json:"asked"`
	Sent     float64 `json:"sent"`
	Answered float64 `json:"answered"`
}

// Counts are numbers of queries.
type Counts struct {
	Asked int `json:"asked"`
	Sent  int `json:"sent"`
	// Answered have an output, Defaults of them the default one, and Cached of them one for which no model was
	// asked; nil where the protocol does not say.
	Answered int  `json:"answered"`
	Defaults int  `json:"defaults"`
	Cached   *int `json:"cached,omitempty"`
	Errors   int  `json:"errors"`
}

// Latency is a distribution, in milliseconds.
type Latency struct {
	Count int     `json:"count"`
	Mean  float64 `json:"mean_ms"`
	Min   float64 `json:"min_ms"`
	P50   float64 `json:"p50_ms"`
	P75   float64 `json:"p75_ms"`
	P90   float64 `json:"p90_ms"`
	P95   float64 `json:"p95_ms"`
	P99   float64 `json:"p99_ms"`
	P999  float64 `json:"p999_ms"`
	P9999 float64 `json:"p9999_ms"`
	Max   float64 `json:"max_ms"`
}

// Quantile is a point of a distribution.
type Quantile struct {
	Percent float64 `json:"percent"`
	Latency float64 `json:"ms"`
}

// Generator says how well the generator kept to its plan.
type Generator struct {
	// Lag is how late queries started, whatever the cause.
	Lag Latency `json:"lag"`
	// Late is how many started more than a millisecond late. Held of all could not be sent when they were due,
	// since as many as allowed were in flight.
	Late int `json:"late"`
	Held int `json:"held"`
}

// ErrorCount is how often there was an error, with the text of the first.
type ErrorCount struct {
	Reason  string `json:"reason"`
	Count   int    `json:"count"`
	Example string `json:"example"`
}

// StageReport is about the queries that were due in a stage.
type StageReport struct {
	Stage    string  `json:"stage"`
	Rates    Rates   `json:"rates"`
	Defaults int     `json:"defaults"`
	Errors   int     `json:"errors"`
	Latency  Latency `json:"latency"`
}

// Point is an interval of the time line.
type Point struct {
	// Seconds is when it begins, since the end of the warm-up.
	Seconds float64 `json:"seconds"`
	Rates   Rates   `json:"rates"`
	// Defaults and Errors are per second, and like the latencies those of the queries that were due then.
	Defaults float64 `json:"defaults"`
	Errors   float64 `json:"errors"`
	P50      float64 `json:"p50_ms"`
	P99      float64 `json:"p99_ms"`
	Max      float64 `json:"max_ms"`
}

// FeedbackReport is about the feedback for queries that count.
type FeedbackReport struct {
	Sent     int          `json:"sent"`
	Accepted int          `json:"accepted"`
	Errors   []ErrorCount `json:"errors"`
	Latency  Latency      `json:"latency"`
}

func milliseconds(ns float64) float64 { return math.Round(ns/1e3) / 1e3 }

func newLatency(h *hdrhistogram.Histogram) Latency {
	at := func(p float64) float64 { return milliseconds(float64(h.ValueAtPercentile(p))) }
	l := Latency{Count: int(h.TotalCount())}
	if l.Count > 0 {
		l.Mean, l.Min, l.Max = milliseconds(h.Mean()), milliseconds(float64(h.Min())), milliseconds(float64(h.Max()))
		l.P50, l.P75, l.P90, l.P95, l.P99, l.P999, l.P9999 = at(50), at(75), at(90), at(95), at(99), at(99.9), at(99.99)
	}
	return l
}

// distribution returns the curve of a histogram, which ends where a single query is left.
func distribution(h *hdrhistogram.Histogram) []Quantile {
	curve := []Quantile{}
	n := float64(h.TotalCount())
	for nines := 0.0; n > 0 && math.Pow(10, -nines)*n >= 1; nines += 0.1 {
		p := 100 * (1 - math.Pow(10, -nines))
		curve = append(curve, Quantile{Percent: p, Latency: milliseconds(float64(h.ValueAtPercentile(p)))})
	}
	if n > 0 {
		curve = append(curve, Quantile{Percent: 100, Latency: milliseconds(float64(h.Max()))})
	}
	return curve
}

// per returns n per second, to three digits behind the point.
func per(n int, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return math.Round(1e3*float64(n)/d.Seconds()) / 1e3
}

func (t *tally) rates(d time.Duration) Rates {
	return Rates{Asked: per(t.asked, d), Sent: per(t.sent, d), Answered: per(t.answered, d)}
}

// report returns the report of a run that lasted until now.
func (r *recorder) report(interrupted bool, now time.Duration) *Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	span := r.to - r.from
	if interrupted {
		span = max(0, min(span, now-r.from))
	}
	out := &Report{
		Started: r.begin.UTC(), Loop: "open", Seconds: span.Seconds(), Interrupted: interrupted,
		Rates:   Rates{Asked: per(r.all.asked, span), Sent: per(r.sentInTime, span), Answered: per(r.answeredInTime, span)},
		Counts:  Counts{Asked: r.all.asked, Sent: r.all.sent, Answered: r.all.answered, Defaults: r.all.defaults, Cached: &r.cached, Errors: r.all.errors},
		Latency: newLatency(r.all.latency), Distribution: distribution(r.all.latency),
		Generator: Generator{Lag: newLatency(r.lag), Late: r.late, Held: r.held},
		Defaults:  r.defaults, Errors: sorted(r.errors), Interval: r.interval.Seconds(), Timeline: []Point{}, Warnings: []string{},
	}
	if r.config.Concurrency > 0 {
		out.Loop = "closed"
	}
	for i := range r.line {
		at := time.Duration(i) * r.interval
		p, d := &r.line[i], min(r.interval, span-at)
		if d <= 0 {
			break
		}
		l := newLatency(p.latency)
		out.Timeline = append(out.Timeline, Point{
			Seconds: at.Seconds(), Rates: p.rates(d), Defaults: per(p.defaults, d), Errors: per(p.errors, d), P50: l.P50, P99: l.P99, Max: l.Max,
		})
	}
	begin := time.Duration(0)
	for i := range r.stages {
		s, stage := &r.stages[i], r.config.Stages[i]
		if d := min(stage.Duration, span-begin); d > 0 {
			out.Stages = append(out.Stages, StageReport{Stage: stage.String(), Rates: s.rates(d), Defaults: s.defaults, Errors: s.errors, Latency: newLatency(s.latency)})
		}
		begin += stage.Duration
	}
	if r.config.Feedback > 0 {
		out.Feedback = &FeedbackReport{Sent: r.learned.asked, Accepted: r.learned.answered, Errors: sorted(r.learnedErrors), Latency: newLatency(r.learned.latency)}
	}
	out.warn(r.config)
	return out
}

// warn says what makes the figures doubtful.
func (r *Report) warn(c *Config) {
	add := func(format string, args ...any) { r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...)) }
	if r.Interrupted {
		add("the run was interrupted: what was in flight then is not in the figures")
	}
	g := &r.Generator
	if r.Loop == "closed" {
		add("this was a closed loop: callers wait for an answer before they ask again, so that a slow server is asked less; the latencies are not those under a given rate")
	}
	if g.Held > 0 {
		add("%d queries had to wait in the generator, since %d were in flight; their latency has that time", g.Held, c.MaxInFlight)
	}
	// With queries held, it is the server that makes others start late.
	if g.Held == 0 && g.Lag.P99 > max(1, r.Latency.P50/10) {
		add("the generator was late: 1%% of the queries started more than %.3gms after they were due. That time is in the latencies, and this machine, not the server, may be the limit", g.Lag.P99)
	}
	if n := *r.Counts.Cached; n > 0 && 10*n >= r.Counts.Answered {
		add("%.0f%% of the answers came from the cache, since inputs were repeated", 100*float64(n)/float64(r.Counts.Answered))
	}
	if n := r.Latency.Count; n > 0 && n < 1000 {
		add("%d latencies are too few for percentiles beyond p99", n)
	}
}
