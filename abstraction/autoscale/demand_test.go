// SPDX-License-Identifier: Apache-2.0

package autoscale_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/abstraction/autoscale"
)

// come counts rows that come as the gaps between them say, from a time to another.
func come(a *autoscale.Arrivals, from, to, budget time.Duration, gap func() time.Duration) {
	for now := from + gap(); now < to; now += gap() {
		a.Add(now, budget)
	}
}

func every(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

func TestArrivals(t *testing.T) {
	var a autoscale.Arrivals
	d := a.Demand(time.Minute)
	require.Equal(t, autoscale.Demand{Burstiness: 1, Idle: -1}, d)

	a.Add(time.Minute, 20*time.Millisecond)
	require.Zero(t, a.Demand(time.Minute+time.Millisecond).Idle-time.Millisecond, "the first tenth of a second is not over")

	// Constant, and at once more.
	come(&a, time.Minute, time.Minute+30*time.Second, 20*time.Millisecond, every(10*time.Millisecond))
	d = a.Demand(90 * time.Second)
	require.InDelta(t, 100, d.Rate, 1)
	require.InDelta(t, 0, d.Burstiness, 0.1)
	require.Equal(t, 20*time.Millisecond, d.Budget())

	come(&a, 90*time.Second, 91*time.Second, 0, every(2*time.Millisecond))
	d = a.Demand(91 * time.Second)
	require.InDelta(t, 500, d.Rate, 5)
	require.Less(t, d.Burstiness, 3.0, "a step is no burst")

	// It is forgotten, but for how much time queries have.
	d = a.Demand(100 * time.Second)
	require.Zero(t, d.Rate)
	require.InDelta(t, 9, d.Idle.Seconds(), 0.01)
	d = a.Demand(time.Hour)
	require.Zero(t, d.Rate)
}

// TestArrivals_burstiness: a Poisson process has 1, and one that comes in heaps has their mean size.
func TestArrivals_burstiness(t *testing.T) {
	for heap, want := range map[int]float64{1: 1, 10: 10} {
		random := rand.New(rand.NewPCG(1, 2))
		var a autoscale.Arrivals
		sum, n := 0.0, 0
		for now := time.Duration(0); now < 10*time.Minute; now += time.Duration(float64(heap) * random.ExpFloat64() * float64(time.Millisecond)) {
			for range heap {
				a.Add(now, 0)
			}
			if int(now/(10*time.Second)) > n {
				n++
				sum += a.Demand(now).Burstiness
			}
		}
		require.InEpsilon(t, want, sum/float64(n), 0.15)
	}
}

// TestDemand_Add: two instances are one.
func TestDemand_Add(t *testing.T) {
	sum := autoscale.Demand{Rate: 100, Burstiness: 1, Urgency: 100 / 0.1, Waiting: 3, Idle: -1}
	sum.Add(autoscale.Demand{Rate: 300, Burstiness: 5, Urgency: 300 / 0.02, Waiting: 4, Idle: time.Second})
	require.Equal(t, autoscale.Demand{Rate: 400, Burstiness: 4, Urgency: 16000, Waiting: 7, Idle: time.Second}, sum)
	require.Equal(t, 25*time.Millisecond, sum.Budget(), "short times count most")
	require.Zero(t, (&autoscale.Demand{Rate: 5}).Budget())
}
