// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"math"
	"slices"
	"sort"
	"time"
)

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

func mean(p Point) float64   { return p.MeanMicros }
func median(p Point) float64 { return p.MedianMicros }

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
	n := largest(points, micros(slo)/(1+1/k))
	if n == 0 {
		return Batch{}
	}
	t := at(points, n, tail)
	return Batch{
		Rows: n, P99Micros: t, WaitMicros: t / k, RowsPerSecond: float64(n) / at(points, n, mean) * 1e6,
		Largest: n == points[len(points)-1].Rows,
	}
}

// largest returns the largest size whose 99th percentile is at most so many microseconds; 0 when there
// is none.
func largest(points []Point, longest float64) int {
	for i := len(points) - 1; i >= 0; i-- {
		a := points[i]
		if tail(a) > longest {
			continue
		}
		if i == len(points)-1 {
			return a.Rows
		}
		b := points[i+1] // It takes too long, so the end is between.
		return a.Rows + int((longest-tail(a))/(tail(b)-tail(a))*float64(b.Rows-a.Rows))
	}
	return 0
}
