// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"math"
	"slices"
	"sort"
	"time"
)

// certainty is how many standard deviations a normal variable exceeds its mean by in one of 100 cases.
const certainty = 2.326

// Line is the time of a batch as FixedMicros + RowMicros·rows, the form that serving learns
// (abstraction/batching.Model).
type Line struct {
	FixedMicros float64 `json:"fixed_micros"`
	RowMicros   float64 `json:"row_micros"`
	// Deviation is the largest distance of a median from the line, relative to the median.
	Deviation float64 `json:"deviation"`
}

// At returns the time of a batch in microseconds.
func (l Line) At(rows float64) float64 { return l.FixedMicros + l.RowMicros*rows }

// fit is by least squares of the relative errors: small batches count as much as large ones. Neither part
// is negative.
func fit(points []Point) Line {
	var w, wn, wnn, wt, wnt float64
	for _, p := range points {
		n, t := float64(p.Rows), p.MedianMicros
		w, wn, wnn, wt, wnt = w+1/(t*t), wn+n/(t*t), wnn+n*n/(t*t), wt+1/t, wnt+n/t
	}
	var l Line
	switch spread := w*wnn - wn*wn; {
	case len(points) == 1:
		l.FixedMicros = points[0].MedianMicros
	default:
		l.RowMicros = (w*wnt - wn*wt) / spread
		l.FixedMicros = (wt - l.RowMicros*wn) / w
	}
	switch {
	case l.RowMicros < 0:
		l = Line{FixedMicros: wt / w}
	case l.FixedMicros < 0:
		l = Line{RowMicros: wnt / wnn}
	}
	for _, p := range points {
		l.Deviation = max(l.Deviation, math.Abs(l.At(float64(p.Rows))/p.MedianMicros-1))
	}
	return l
}

// good returns the points of the sizes below the first one that failed: batches are of any size up to
// the largest.
func (p *Profile) good() []Point {
	if i := slices.IndexFunc(p.Points, func(p Point) bool { return p.Error != "" }); i >= 0 {
		return p.Points[:i]
	}
	return p.Points
}

// at returns what is expected of a batch between the sizes measured, by linear interpolation. rows is from
// 1 to the largest.
func at(points []Point, rows int, of func(Point) float64) float64 {
	i := sort.Search(len(points), func(i int) bool { return points[i].Rows >= rows })
	b := points[i]
	if b.Rows == rows {
		return of(b)
	}
	a := points[i-1]
	return of(a) + (of(b)-of(a))*float64(rows-a.Rows)/float64(b.Rows-a.Rows)
}

// tail returns the 99th percentile that plans go by.
func tail(p Point) float64 { return p.MedianMicros * p.Tail }

func mean(p Point) float64 { return p.MeanMicros }

// Batch is the batch that some replicas are to have.
type Batch struct {
	// Rows is the size; 0: not even a batch of one row is quick enough.
	Rows int `json:"rows"`
	// P99Micros is the 99th percentile of its time, WaitMicros how long a query that just missed a batch
	// waits for the next.
	P99Micros  float64 `json:"p99_micros"`
	WaitMicros float64 `json:"wait_micros"`
	// RowsPerSecond is the throughput of one replica.
	RowsPerSecond float64 `json:"rows_per_second"`
	// Largest says that it is the largest size measured: a larger one might do.
	Largest bool `json:"largest"`
}

// Plan returns the largest batch with which one replica answers 99 % of queries within an objective, by
// the rule of the slo policy (abstraction/batching).
func (p *Profile) Plan(slo time.Duration) Batch { return p.batch(slo, 1) }

// batch returns the largest n with t(n) + t(n)/k ≤ slo, with t the 99th percentile and k the number of
// replicas: a query that just missed a batch waits for that of the next replica.
func (p *Profile) batch(slo time.Duration, replicas int) Batch {
	points, k := p.good(), float64(replicas)
	longest := micros(slo) / (1 + 1/k)
	for i := len(points) - 1; i >= 0; i-- {
		a := points[i]
		if tail(a) > longest {
			continue
		}
		n := a.Rows
		if i < len(points)-1 { // The end of this piece takes too long.
			b := points[i+1]
			n += int((longest - tail(a)) / (tail(b) - tail(a)) * float64(b.Rows-a.Rows))
		}
		t := at(points, n, tail)
		return Batch{Rows: n, P99Micros: t, WaitMicros: t / k, RowsPerSecond: float64(n) / at(points, n, mean) * 1e6, Largest: i == len(points)-1}
	}
	return Batch{}
}

// Need is what a load needs.
type Need struct {
	// Burstiness is the variance of the number of queries that come within the time of a batch, relative
	// to its mean: 0 for queries at equal distances, 1 for a Poisson process, more for bursts.
	Burstiness float64 `json:"burstiness"`
	// Replicas is the number; 0: no number is enough for the objective.
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
// as the servers.
func (p *Profile) Need(slo time.Duration, rate, burstiness float64) Need {
	need := Need{Burstiness: burstiness}
	busy := func(k int) float64 { return rate / (float64(k) * p.batch(slo, k).RowsPerSecond) }
	enough := func(k int) bool {
		b := p.batch(slo, k)
		m := rate * float64(b.Rows) / b.RowsPerSecond
		return b.Rows > 0 && float64(k)*float64(b.Rows) >= m+certainty*math.Sqrt(burstiness*m)
	}
	high := 1
	for ; !enough(high); high *= 2 {
		if high > 1<<30 {
			return need
		}
	}
	need.Replicas = high/2 + 1 + sort.Search(high-high/2-1, func(i int) bool { return enough(high/2 + 1 + i) })
	need.Batch, need.Busy = p.batch(slo, need.Replicas), busy(need.Replicas)
	if p.Memory != nil {
		need.MemoryBytes = p.Memory.PeakBytes * uint64(need.Replicas) //nolint:gosec // Positive.
	}
	return need
}
