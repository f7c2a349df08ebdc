// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"time"
)

const (
	// MostReplicas is the most that Need looks at.
	MostReplicas = 10_000
	// certainty is how many standard deviations a normal variable exceeds its mean by in one of 100 cases.
	certainty = 2.326
	// lateShare is the share of queries that may be late.
	lateShare = 0.01
	// cycles is how often in a simulation each replica has a batch at least; fewestQueries and mostPlaces
	// bound it: more queries than these under way at once are too many for chance to matter much.
	cycles, fewestQueries, mostPlaces = 50, 100_000, 10_000
)

// Need is what a load needs.
type Need struct {
	// Burstiness is the variance of the number of queries that come in a short time, relative to its
	// mean: 0 for queries at equal distances, 1 for a Poisson process, more for bursts.
	Burstiness float64 `json:"burstiness"`
	// Replicas is the number; 0: no number up to MostReplicas is enough.
	Replicas int `json:"replicas"`
	// Batch is what each replica is to have.
	Batch Batch `json:"batch"`
	// Busy is the load as a share of what the replicas can answer.
	Busy float64 `json:"busy"`
	// MemoryBytes is that of all replicas; 0 when it is not known.
	MemoryBytes uint64 `json:"memory_bytes,omitempty"`
}

// Need returns the fewest replicas that answer 99 % of so many queries a second within an objective.
//
// While each of k replicas has a batch of n rows, k·n queries may come. As many come as m, rate times
// the mean time of a batch, with variance b·m for a burstiness of b: so k·n ≥ m + 2.33·sqrt(b·m),
// which is exceeded in one of 100 cases when numbers are normal. This is square-root staffing (Halfin
// and Whitt, "Heavy-Traffic Limits for Queues with Many Exponential Servers", 1981), with k·n places
// as the servers. Where numbers are too small for that, or replicas do not take turns as evenly as the
// batch's size supposes, a simulation asks for more.
func (p *Profile) Need(slo time.Duration, rate, burstiness float64) Need {
	need := Need{Burstiness: burstiness}
	enough := func(k int) bool {
		b := p.batch(slo, k)
		if b.Rows == 0 {
			return false
		}
		m := rate * float64(b.Rows) / b.RowsPerSecond
		return float64(k)*float64(b.Rows) >= m+certainty*math.Sqrt(burstiness*m) &&
			(burstiness == 0 || k*b.Rows > mostPlaces || p.late(slo, rate, burstiness, k) <= lateShare)
	}
	high := 1
	for ; !enough(high); high = min(2*high, MostReplicas) {
		if high == MostReplicas {
			return need
		}
	}
	low := high/2 + 1 // Half as many were too few.
	need.Replicas = low + sort.Search(high-low, func(i int) bool { return enough(low + i) })
	need.Batch = p.batch(slo, need.Replicas)
	need.Busy = rate / (float64(need.Replicas) * need.Batch.RowsPerSecond)
	if p.Memory != nil {
		need.MemoryBytes = p.Memory.PeakBytes * uint64(need.Replicas) //nolint:gosec // Positive.
	}
	return need
}

// late simulates replicas under a load and returns the share of the queries that are late. Replicas begin by
// turns. Queries come in groups at random, of sizes whose mean is the burstiness. A replica that is free takes
// what waits, up to what the oldest query has time for, as the slo policy does, or else up to the planned
// size. The time of a batch is lognormal with the median and the 99th percentile that were measured.
func (p *Profile) late(slo time.Duration, rate, burstiness float64, replicas int) float64 {
	points, plan, budget := p.good(), p.batch(slo, replicas).Rows, micros(slo)
	queries := max(fewestQueries, cycles*replicas*plan)
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // A simulation.
	came := make([]float64, 0, queries)
	for now := 0.0; len(came) < queries; {
		now += random.ExpFloat64() * burstiness / rate * 1e6
		group := int(burstiness)
		if random.Float64() < burstiness-math.Floor(burstiness) {
			group++
		}
		came = append(came, slices.Repeat([]float64{now}, min(group, queries-len(came)))...)
	}
	free := make([]float64, replicas) // A heap of when each is.
	for i := range free {
		free[i] = at(points, plan, median) * float64(i) / float64(replicas)
	}
	count := 0
	for head := 0; head < len(came); {
		start := max(free[0], came[head])
		limit, rows := max(plan, largest(points, budget-(start-came[head]))), 0
		for rows < limit && head+rows < len(came) && came[head+rows] <= start {
			rows++
		}
		sigma := math.Log(max(1, at(points, rows, tail)/at(points, rows, median))) / certainty
		end := start + at(points, rows, median)*math.Exp(sigma*random.NormFloat64())
		for _, t := range came[head : head+rows] {
			if end-t > budget {
				count++
			}
		}
		head += rows
		free[0] = end
		sink(free)
	}
	return float64(count) / float64(len(came))
}

// sink restores a heap whose first element has grown.
func sink(heap []float64) {
	for i := 0; 2*i+1 < len(heap); {
		child := 2*i + 1
		if child+1 < len(heap) && heap[child+1] < heap[child] {
			child++
		}
		if heap[i] <= heap[child] {
			return
		}
		heap[i], heap[child] = heap[child], heap[i]
		i = child
	}
}
