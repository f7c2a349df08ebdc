// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"math"
	"time"
)

// Scenario is a load and the replicas that are to bear it.
type Scenario struct {
	Name    string
	Load    Load
	Replica Replica
	// Steps are the moments at which the load changes at once.
	Steps []time.Duration
}

const (
	phase  = time.Minute // of a step's three loads
	base   = 150         // queries per second
	factor = 5           // from the lowest load to the highest
	budget = 150 * time.Millisecond
)

// Scenarios returns the loads that are looked at: steps from 1x to 5x and back, the same bursty and with
// replicas that take three seconds to start, and a day in four minutes. Replicas take 20 ms and 5 ms for each
// row, and answer some 150 queries a second each. Bars of the issue: 97 % in time, and replicas follow
// within 10 s.
func Scenarios(seed uint64) []Scenario {
	step := Load{
		Rate: func(at time.Duration) float64 {
			if at >= phase && at < 2*phase {
				return factor * base
			}
			return base
		},
		Highest: factor * base, Duration: 3 * phase, Budget: budget, Seed: seed,
	}
	bursty, day := step, step
	bursty.Bursty = true
	day.Duration = 4 * phase
	day.Rate = func(at time.Duration) float64 {
		return base * (1 + (factor-1)*(1-math.Cos(2*math.Pi*at.Seconds()/day.Duration.Seconds()))/2)
	}
	quick := Replica{Fixed: 20 * time.Millisecond, Row: 5 * time.Millisecond, Start: 500 * time.Millisecond}
	slow := quick
	slow.Start = 3 * time.Second
	steps := []time.Duration{phase, 2 * phase}
	return []Scenario{
		{Name: "step", Load: step, Replica: quick, Steps: steps},
		{Name: "bursty step", Load: bursty, Replica: quick, Steps: steps},
		{Name: "step, slow start", Load: step, Replica: slow, Steps: steps},
		{Name: "day", Load: day, Replica: slow},
	}
}
