// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"context"
	"fmt"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/clipper-serving/clipper/bench/load"
)

const (
	// Objective is the latency that every experiment asks for; it is the paper's.
	Objective = 20 * time.Millisecond
	// Target is the share of the queries that is to be answered within the objective.
	Target = 0.99

	// Warm is the time that a controller has to settle at a rate before queries count.
	Warm = 600 * time.Millisecond
	// A window is long enough for some queries, within these limits.
	windowQueries = 2000
	minWindow     = time.Second
	maxWindow     = 8 * time.Second
	// A share this far from the target needs no second window.
	surely, surelyNot = 0.996, 0.97
	// A window in which the generator itself was late is measured again, up to so often: something
	// else kept the machine busy.
	maxLag      = 2 * time.Millisecond
	maxAttempts = 3
)

// Synthetic returns the command of a container with one of the paper's profiles, 10 % of lognormal
// noise, and one batch in 500 that takes three times as long.
func Synthetic(program, profile string, more ...string) []string {
	return append([]string{program, "--profile", profile, "--noise", "0.1", "--stall-chance", "0.002", "--stall", "3"}, more...)
}

// Steady is Synthetic without the batches that take three times as long.
func Steady(program, profile string) []string {
	return []string{program, "--profile", profile, "--noise", "0.1"}
}

// Window returns how long a rate is measured.
func Window(rate float64) time.Duration {
	return min(max(time.Duration(windowQueries/rate*float64(time.Second)), minWindow), maxWindow)
}

// Measure puts an open load on the layer after a warm-up and measures it. The same seed is the same
// load, whatever is measured.
func (l *Layer) Measure(ctx context.Context, a load.Arrivals, rate float64, window time.Duration, seed uint64) (m load.OpenMeasurement, err error) {
	for range maxAttempts {
		m, err = l.Open(ctx, load.OpenConfig{Schedule: load.Schedule(a, rate, Warm+window, seed), WarmUp: Warm, Objective: Objective})
		if err != nil || m.Lag <= maxLag {
			break
		}
	}
	return m, err
}

// Bears reports whether the target is met at a rate: in one window when that is clear, or else in
// two of three.
func (l *Layer) Bears(ctx context.Context, a load.Arrivals, rate float64) (m load.OpenMeasurement, ok bool, err error) {
	met, missed := 0, 0
	for seed := uint64(1); met < 2 && missed < 2; seed++ {
		last, err := l.Measure(ctx, a, rate, Window(rate), seed)
		if err != nil {
			return m, false, err
		}
		f := last.Fraction()
		if f >= Target {
			met++
			m = last
		} else {
			missed++
		}
		if f >= surely || f < surelyNot {
			return last, f >= Target, nil
		}
	}
	return m, met > missed, nil
}

// Capacity returns the highest rate at which the target is met, and a measurement at it.
func (l *Layer) Capacity(ctx context.Context, a load.Arrivals, s load.Search) (float64, load.OpenMeasurement, error) {
	rate, m, err := load.Capacity(s, func(rate float64) (load.OpenMeasurement, bool, error) { return l.Bears(ctx, a, rate) })
	if err == nil && rate == 0 {
		err = fmt.Errorf("the target is not met at any rate that was tried, the first of them %.0f/s", s.From)
	}
	return rate, m, err
}

// Batches returns how many batches have been answered and how many rows they had.
func (l *Layer) Batches() (batches, rows float64, err error) {
	err = l.each("clipper_model_batch_rows", func(m *dto.Metric) {
		batches += float64(m.GetHistogram().GetSampleCount())
		rows += m.GetHistogram().GetSampleSum()
	})
	return batches, rows, err
}

// BatchCounts are the batches that have been answered so far.
type BatchCounts struct {
	Batches, Rows float64
	// InTime are the batches that took no longer than the objective.
	InTime float64
}

// BatchCounts returns them.
func (l *Layer) BatchCounts() (c BatchCounts, err error) {
	if c.Batches, c.Rows, err = l.Batches(); err != nil {
		return c, err
	}
	err = l.each("clipper_model_batch_latency_seconds", func(m *dto.Metric) {
		for _, b := range m.GetHistogram().GetBucket() {
			if b.GetUpperBound() == Objective.Seconds() {
				c.InTime += float64(b.GetCumulativeCount())
			}
		}
	})
	return c, err
}

// Counter returns a counter of the layer, all its labels together.
func (l *Layer) Counter(name string) (sum float64, err error) {
	err = l.each(name, func(m *dto.Metric) { sum += m.GetCounter().GetValue() })
	return sum, err
}

func (l *Layer) each(name string, visit func(*dto.Metric)) error {
	families, err := l.Registry.Gather()
	if err != nil {
		return err
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				visit(m)
			}
			return nil
		}
	}
	return fmt.Errorf("the layer has no metric %s", name)
}
