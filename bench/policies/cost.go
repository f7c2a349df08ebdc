// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/selector/policy"
)

const (
	models      = 5
	costRounds  = 9
	costQueries = 20000
)

// cost is of a query with its feedback.
type cost struct{ microseconds, allocations float64 }

func costOf(p policy.Policy) cost {
	s := &policy.State{Priors: make([]float64, models), Statistics: make([]float64, models*len(p.Statistics()))}
	predictions := make([]policy.Value, models)
	for i := range models {
		s.Priors[i], predictions[i] = 1.0/models, policy.Integer(int64(i/2))
	}
	q := &policy.Query{Random: rand.New(rand.NewPCG(1, 1))}
	if contextual, ok := p.(policy.Contextual); ok {
		q.Features = make([]float64, contextual.Dimension())
		for i := range q.Features {
			q.Features[i] = 1 / float64(i+1)
		}
	}
	t := policy.Task{Kind: policy.Label}
	o := policy.Observation{Choices: make([]policy.Choice, 0, models), Losses: make([]float64, 0, models), Features: q.Features}
	deltas := make([]float64, len(s.Statistics))
	play := func() {
		for range costQueries {
			o.Choices, o.Losses = p.Select(s, q, o.Choices[:0]), o.Losses[:0]
			c := p.Combine(s, t, o.Choices, predictions[:len(o.Choices)], nil)
			for i := range o.Choices {
				o.Losses = append(o.Losses, t.Loss(c.Value, predictions[i]))
			}
			p.Observe(s, o, deltas)
		}
	}
	play() // So that everything is in the caches.
	var before, after runtime.MemStats
	times := make([]float64, costRounds)
	runtime.ReadMemStats(&before)
	for round := range times {
		start := time.Now()
		play()
		times[round] = float64(time.Since(start).Nanoseconds()) / 1000 / costQueries
	}
	runtime.ReadMemStats(&after)
	return cost{
		microseconds: experiment.Median(times),
		// The odd one is of the runtime itself.
		allocations: float64((after.Mallocs - before.Mallocs) / (costRounds * costQueries)),
	}
}
