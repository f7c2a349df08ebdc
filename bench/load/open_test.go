// SPDX-License-Identifier: Apache-2.0

package load

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// sleepUntil is for tests: the exact pause does not know the clock of synctest.
func sleepUntil(t time.Time) { time.Sleep(time.Until(t)) }

func TestOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var schedule []time.Duration
		for i := range 1000 {
			schedule = append(schedule, time.Duration(i)*time.Millisecond)
		}
		o := NewOpen(OpenConfig{Schedule: schedule, WarmUp: 500 * time.Millisecond, Objective: 20 * time.Millisecond})
		o.until = sleepUntil
		m := o.Run(t.Context(), func(i int, due time.Time) {
			require.WithinDuration(t, time.Now(), due, tick)
			took, outcome := 10*time.Millisecond, Answered
			switch i % 10 {
			case 1:
				took = 30 * time.Millisecond // Late.
			case 2:
				took, outcome = 20*time.Millisecond, Expired
			case 3:
				took, outcome = time.Millisecond, Refused
			case 4:
				outcome = Failed
			case 5:
				return // Lost.
			}
			time.AfterFunc(time.Until(due)+took, func() { o.Done(i, outcome) })
		})
		require.Equal(t, 500, m.Offered)
		require.Equal(t, 250, m.InTime)
		require.Equal(t, 100, m.Late)
		require.Equal(t, 50, m.Refused)
		require.Equal(t, 50, m.Failed)
		require.Equal(t, 50, m.Lost)
		require.Equal(t, 0.5, m.Fraction())
		require.InEpsilon(t, 10*time.Millisecond, m.P50, 0.001)
		require.InEpsilon(t, 30*time.Millisecond, m.P99, 0.001)
		require.InEpsilon(t, time.Millisecond, m.RefusedP99, 0.001)
		require.LessOrEqual(t, m.Lag, tick)
	})
}

// A system that holds up the generator does not make the latencies look better.
func TestOpen_noCoordinatedOmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var schedule []time.Duration
		for i := range 100 {
			schedule = append(schedule, time.Duration(i)*time.Millisecond)
		}
		o := NewOpen(OpenConfig{Schedule: schedule, Objective: 20 * time.Millisecond})
		o.until = sleepUntil
		m := o.Run(t.Context(), func(i int, _ time.Time) {
			if i == 0 {
				time.Sleep(100 * time.Millisecond) // Everything else is due when this returns.
			}
			o.Done(i, Answered)
		})
		require.Equal(t, 20, m.InTime, "those that were due in the last 20 ms of the hold-up")
		require.InDelta(t, 50*time.Millisecond, m.P50, float64(2*time.Millisecond))
		require.Greater(t, m.Lag, 90*time.Millisecond)
	})
}

func TestOpen_empty(t *testing.T) {
	m := NewOpen(OpenConfig{}).Run(t.Context(), nil)
	require.Zero(t, m.Offered)
	require.Zero(t, m.Fraction())
}

// BenchmarkOpen is what a query costs the generator at 100,000 a second. The time of an operation is
// that of a second of load.
func BenchmarkOpen(b *testing.B) {
	schedule := Schedule(Poisson, 100_000, time.Second, 1)
	var lag time.Duration
	for b.Loop() {
		o := NewOpen(OpenConfig{Schedule: schedule, Objective: 20 * time.Millisecond})
		lag = max(lag, o.Run(b.Context(), func(i int, _ time.Time) { o.Done(i, Answered) }).Lag)
	}
	b.ReportMetric(float64(lag.Microseconds()), "us-lag-p99")
}
