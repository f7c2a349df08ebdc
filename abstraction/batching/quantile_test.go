// SPDX-License-Identifier: Apache-2.0

package batching

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRegress: the loss of the line is that of the best line through two of the points, one of which
// is always optimal.
func TestRegress(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 5))
	for range 200 {
		n := 3 + random.IntN(30)
		points := make([]point, n)
		for i := range points {
			points[i] = point{float64(1 + random.IntN(20)), random.Float64()}
		}
		points[0].x, points[1].x = 1, 2 // Not all are equal.
		tau := []float64{0.5, 0.9, 0.99}[random.IntN(3)]
		best := math.Inf(1)
		for i, a := range points {
			for _, b := range points[:i] {
				if a.x != b.x {
					slope := (a.y - b.y) / (a.x - b.x)
					best = min(best, pinball(points, slope, a.y-slope*a.x, tau))
				}
			}
		}
		slope, intercept, _ := regress(points, tau, nil)
		require.InDelta(t, best, pinball(points, slope, intercept, tau), 1e-9)
	}
}

func TestQuantile_findsTheObjective(t *testing.T) {
	random := rand.New(rand.NewPCG(6, 6))
	c := newQuantile(settings{maxRows: 4096, objective: 10 * time.Millisecond})
	late := 0
	for i := range 3000 {
		rows := c.Next(Backlog{Rows: 9999}).Rows
		if i > 1000 && random.IntN(2) == 0 {
			rows = 1 + random.IntN(rows) // Not every batch is full.
		}
		latency := time.Duration((1e6 + 1e5*float64(rows)) * math.Exp(0.1*random.NormFloat64()))
		if i > 1000 && latency > 10*time.Millisecond {
			late++
		}
		c.Observe(Observation{Rows: rows, Latency: latency})
	}
	rows := c.Next(Backlog{Rows: 9999}).Rows
	require.InEpsilon(t, 70, rows, 0.15, "1 ms and 0.1 ms a row, times 1.26, is 10 ms at 69 rows")
	require.Less(t, late, 60, "of 2000 batches, half of them full")
}

func TestQuantile_oneSizeIsNoLine(t *testing.T) {
	c := newQuantile(settings{maxRows: 4096, objective: 10 * time.Millisecond})
	for range 200 {
		c.Observe(Observation{Rows: 7, Latency: time.Millisecond})
	}
	require.False(t, c.fitted)
	require.Positive(t, c.Next(Backlog{Rows: 1}).Rows)
}
