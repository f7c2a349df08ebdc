// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// exactly returns the profile of a container that takes fixed + row·n microseconds each time.
func exactly(fixed, row float64, largest int) *Profile {
	p := &Profile{}
	for n := 1; n <= largest; n *= 2 {
		t := fixed + row*float64(n)
		p.Points = append(p.Points, Point{Rows: n, MeanMicros: t, MedianMicros: t, P99Micros: t, Tail: 1, RowsPerSecond: float64(n) / t * 1e6})
	}
	p.Line = fit(p.Points)
	return p
}

func TestFit(t *testing.T) {
	l := exactly(2000, 20, 4096).Line
	require.InDelta(t, 2000, l.FixedMicros, 1e-6)
	require.InDelta(t, 20, l.RowMicros, 1e-6)
	require.Less(t, l.Deviation, 1e-9)

	l = exactly(300, 0, 1).Line
	require.Equal(t, 300.0, l.FixedMicros, "one size says nothing about rows")
	require.Zero(t, l.RowMicros)

	l = fit([]Point{{Rows: 1, MedianMicros: 1}, {Rows: 2, MedianMicros: 4}, {Rows: 4, MedianMicros: 16}})
	require.Zero(t, l.FixedMicros, "no time is negative")
	require.Positive(t, l.RowMicros)
	require.Greater(t, l.Deviation, 0.2)

	l = fit([]Point{{Rows: 1, MedianMicros: 5}, {Rows: 2, MedianMicros: 4}})
	require.Zero(t, l.RowMicros)
	require.InDelta(t, 4.4, l.FixedMicros, 0.1)
}

func TestPlan(t *testing.T) {
	p := exactly(2000, 20, 1024)
	b := p.Plan(20 * time.Millisecond) // A batch may take 10 ms.
	require.Equal(t, 400, b.Rows)
	require.InDelta(t, 10000, b.P99Micros, 1e-6)
	require.InDelta(t, 10000, b.WaitMicros, 1e-6)
	require.InDelta(t, 40000, b.RowsPerSecond, 1e-6)
	require.False(t, b.Largest)

	require.Equal(t, 566, p.batch(20*time.Millisecond, 2).Rows, "two take turns")
	require.Equal(t, Batch{}, p.Plan(4*time.Millisecond), "2 · 2.02 ms is more")
	require.Equal(t, 1, p.batch(4*time.Millisecond, 3).Rows/32, "three can: 47 rows")
	require.True(t, p.Plan(time.Second).Largest)

	p.Points[5].Error = "no" // 32 rows
	require.Equal(t, 16, p.Plan(20*time.Millisecond).Rows, "nothing is said beyond a size that fails")

	p = exactly(2000, 20, 1024)
	for i := range p.Points {
		p.Points[i].Tail = 2
	}
	require.Equal(t, 150, p.Plan(20*time.Millisecond).Rows, "it is the tail that counts")
}

// TestLate: with batches of one on one replica the simulation has the waiting times of the M/D/1 queue, of
// which P(wait ≤ x) = (1-ρ)·exp(λx) for x below the time of a batch.
func TestLate(t *testing.T) {
	p := exactly(1000, 0, 1)
	const load, wait = 0.5, 600.0 // per batch; microseconds
	slo := time.Duration((1000 + wait) * float64(time.Microsecond))
	p.Points[0].Tail = 0.8 // So that the plan has a batch at all; the time is the median all the same.
	got := p.late(slo, load*1000, 1, 1)
	require.InDelta(t, 1-(1-load)*math.Exp(load*wait/1000), got, 0.01)
}

// TestNeed: without headroom for chance objectives are missed, with that which Need asks for they are kept.
func TestNeed(t *testing.T) {
	missed := 0
	for _, tc := range []struct {
		fixed, row float64
		slo        time.Duration
		rate       float64
	}{
		{2000, 20, 20 * time.Millisecond, 100_000},
		{2000, 20, 20 * time.Millisecond, 3_000},
		{2000, 20, 5 * time.Millisecond, 20_000},
		{6000, 4930, 30 * time.Millisecond, 500},
		{6000, 4930, 100 * time.Millisecond, 2000},
		{100, 1000, 10 * time.Millisecond, 5000},
		{10_000, 0, 30 * time.Millisecond, 50_000},
	} {
		for _, burstiness := range []float64{1, 4, 10} {
			t.Run(fmt.Sprint(tc, burstiness), func(t *testing.T) {
				p := exactly(tc.fixed, tc.row, 1024)
				even := p.Need(tc.slo, tc.rate, 0)
				need := p.Need(tc.slo, tc.rate, burstiness)
				require.Positive(t, even.Replicas)
				require.LessOrEqual(t, even.Busy, 1.0)
				require.LessOrEqual(t, even.Replicas, need.Replicas)
				require.LessOrEqual(t, p.late(tc.slo, tc.rate, burstiness, need.Replicas), lateShare)
				without := p.late(tc.slo, tc.rate, burstiness, even.Replicas)
				t.Logf("%d replicas, %.2f busy; %d without headroom, %.2f busy, %.4f late", need.Replicas, need.Busy, even.Replicas, even.Busy, without)
				if without > lateShare {
					missed++
				}
			})
		}
	}
	require.GreaterOrEqual(t, missed, 10)
}

// TestNeed_large: the more bursty and the more queries, the more replicas, also where nothing is simulated.
func TestNeed_large(t *testing.T) {
	p := exactly(6000, 4930, 64)
	for i := range p.Points {
		p.Points[i].Tail = 1.1
	}
	last := 0
	for _, rate := range []float64{1000, 10_000, 100_000, 1_000_000} {
		most := last
		for _, burstiness := range []float64{0, 1, 4, 100} {
			need := p.Need(100*time.Millisecond, rate, burstiness)
			require.GreaterOrEqual(t, need.Replicas, most, "%g a second, burstiness %g", rate, burstiness)
			require.LessOrEqual(t, need.Busy, 1.0)
			most = need.Replicas
		}
		last = p.Need(100*time.Millisecond, rate, 0).Replicas
	}
	require.Zero(t, p.Need(100*time.Millisecond, 1e9, 1).Replicas)
}

func TestNeed_impossible(t *testing.T) {
	require.Zero(t, exactly(2000, 20, 64).Need(2*time.Millisecond, 10, 1).Replicas)
	n := exactly(2000, 20, 64).Need(2100*time.Microsecond, 10, 1) // The wait must be short.
	require.Positive(t, n.Replicas)
	require.False(t, math.IsNaN(n.Busy))
}

func TestNeed_memory(t *testing.T) {
	p := exactly(2000, 20, 1024)
	p.Memory = &Memory{PeakBytes: 1000}
	need := p.Need(20*time.Millisecond, 200_000, 1)
	require.Greater(t, need.Replicas, 3)
	require.EqualValues(t, 1000*need.Replicas, need.MemoryBytes)
}

func TestQuantile(t *testing.T) {
	values := []float64{}
	for i := range 100 {
		values = append(values, float64(i+1))
	}
	require.True(t, slices.IsSorted(values))
	require.Equal(t, 50.0, quantile(values, 0.5))
	require.Equal(t, 99.0, quantile(values, 0.99))
	require.Equal(t, 3.0, quantile([]float64{3}, 0.01))
}
