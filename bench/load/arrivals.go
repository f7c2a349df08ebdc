// SPDX-License-Identifier: Apache-2.0

package load

import (
	"math/rand/v2"
	"time"
)

// Arrivals is how queries are spread over time. Both kinds have the same mean rate.
type Arrivals int

const (
	// Poisson arrivals are independent of each other: those of many users.
	Poisson Arrivals = iota
	// Bursty arrivals are Poisson in phases of 1.8 and 0.2 times the rate, whose lengths are
	// exponential with a mean of 100 ms.
	Bursty
)

const (
	burstHigh  = 1.8
	burstLow   = 0.2
	burstPhase = 100 * time.Millisecond
)

// String returns the name.
func (a Arrivals) String() string {
	if a == Bursty {
		return "bursty"
	}
	return "Poisson"
}

// Schedule returns the moments of arrivals at a mean rate per second, as times since the begin, for
// d. The same seed gives the same schedule.
func Schedule(a Arrivals, rate float64, d time.Duration, seed uint64) []time.Duration {
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // A simulation.
	schedule := make([]time.Duration, 0, int(1.1*rate*d.Seconds())+16)
	// Arrivals come at the events of a Poisson process of rate 1 whose clock goes with the phases.
	for at, high := time.Duration(0), true; at < d; high = !high {
		end, factor := d, 1.0
		if a == Bursty {
			end = min(d, at+time.Duration(random.ExpFloat64()*float64(burstPhase)))
			if factor = burstLow; high {
				factor = burstHigh
			}
		}
		for {
			// What is left of a gap at the end of a phase is drawn again: the process has no memory.
			at += time.Duration(random.ExpFloat64() / (factor * rate) * float64(time.Second))
			if at >= end {
				break
			}
			schedule = append(schedule, at)
		}
		at = end
	}
	return schedule
}
