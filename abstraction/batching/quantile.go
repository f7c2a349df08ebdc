// SPDX-License-Identifier: Apache-2.0

package batching

import (
	"cmp"
	"math"
	"slices"
	"sync"
)

const (
	// window is the number of batches that the regression looks at.
	window = 500
	// warmup is how many of them there must be before it decides. The paper collects as many by AIMD.
	warmup = 50
	// refit is the number of batches after which the line is fitted again.
	refit = 25
	// pivots bounds the search for the line. Each is O(window log window), and a search that begins at
	// the line before rarely needs more than four.
	pivots = 50
)

// quantile is quantile regression: section 4.3.1 of Crankshaw et al., "Clipper", NSDI 2017. It fits
// the 99th percentile of a batch's latency as a line of the batch's size, α·rows + β, over the last
// batches, and with T the objective takes
//
//	rows = (T − β)/α
//
// Until there are enough batches, and while they are all of one size, it goes on as aimd, from which
// it also has its objective. A fit is only believed up to twice the largest size in the window.
//
// The line is the one that minimizes the sum of the pinball losses (Koenker and Bassett, "Regression
// Quantiles", Econometrica 1978). Some line through two of the points does; it is found by exact
// descent, turning the line about one point at a time, where the best slope is a weighted quantile of
// the slopes to the other points (the algorithm of Barrodale and Roberts, SIAM J. Numer. Anal. 1973,
// in two dimensions).
type quantile struct {
	maxRows int
	climb   *aimd

	mu          sync.Mutex
	points      []point // a ring of the last batches
	next        int
	since       int // batches since the last fit
	fitted      bool
	alpha, beta float64
	largest     float64
	slopes      []weighted // scratch of fit
}

// point is a batch: its rows and its latency in seconds.
type point struct{ x, y float64 }

// weighted is a slope, how much it counts, and which point it is of.
type weighted struct {
	slope, weight float64
	point         int
}

func newQuantile(s settings) *quantile { return &quantile{maxRows: s.maxRows, climb: newAIMD(s)} }

// Next implements Controller.
func (c *quantile) Next(b Backlog) Decision {
	d := c.climb.Next(b)
	c.climb.mu.Lock()
	objective := c.climb.goal.objective.Seconds()
	c.climb.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.fitted {
		return d
	}
	limit := min(float64(c.maxRows), trustedGrowth*c.largest)
	rows := limit
	if c.alpha > 0 {
		rows = (objective - c.beta) / c.alpha
	}
	switch {
	case rows < limit:
		return Decision{Rows: max(1, int(rows)), Why: Objective}
	case limit < float64(c.maxRows):
		return Decision{Rows: max(1, int(limit)), Why: Probing}
	}
	return Decision{Rows: c.maxRows, Why: Maximum}
}

// Observe implements Controller.
func (c *quantile) Observe(o Observation) {
	c.climb.Observe(o)
	c.mu.Lock()
	defer c.mu.Unlock()
	p := point{float64(o.Rows), o.Latency.Seconds()}
	if len(c.points) < window {
		c.points = append(c.points, p)
	} else {
		c.points[c.next] = p
		c.next = (c.next + 1) % window
	}
	if c.since++; len(c.points) >= warmup && c.since >= refit {
		c.since = 0
		c.fit()
	}
}

// fit finds the line of the 99th percentile, or none when all sizes are equal.
func (c *quantile) fit() {
	lowest, highest := c.points[0].x, c.points[0].x
	for _, p := range c.points {
		lowest, highest = min(lowest, p.x), max(highest, p.x)
	}
	if c.fitted = highest > lowest; !c.fitted {
		return
	}
	c.largest = highest
	c.alpha, c.beta, c.slopes = regress(c.points, tailQuantile, c.slopes)
	if c.alpha < 0 { // Noise: larger batches are not faster.
		c.alpha, c.beta = 0, 0
	}
}

// regress returns the line slope·x + intercept that minimizes the pinball losses of the points for
// the quantile tau. Not all x are equal. scratch is memory that may be used again.
func regress(points []point, tau float64, scratch []weighted) (slope, intercept float64, _ []weighted) {
	pivot := 0
	for i, p := range points {
		if p.y > points[pivot].y {
			pivot = i
		}
	}
	best := math.Inf(1)
	for range pivots {
		turned, to := turn(points, pivot, tau, &scratch)
		if to < 0 {
			break
		}
		at := points[pivot].y - turned*points[pivot].x
		loss := pinball(points, turned, at, tau)
		if loss >= best*(1-1e-12) {
			break
		}
		best, slope, intercept, pivot = loss, turned, at, to
	}
	return slope, intercept, scratch
}

// turn returns the best slope of a line through a point, and another point on that line; -1 when
// there is none. The loss is convex in the slope and bends at the slope to each point, by the
// distance along x.
func turn(points []point, pivot int, tau float64, scratch *[]weighted) (slope float64, other int) {
	s := (*scratch)[:0]
	p := points[pivot]
	gradient := 0.0 // of the loss, at a slope of minus infinity
	for i, o := range points {
		dx := o.x - p.x
		if dx == 0 {
			continue
		}
		s = append(s, weighted{(o.y - p.y) / dx, math.Abs(dx), i})
		if dx > 0 {
			gradient -= tau * dx
		} else {
			gradient += (1 - tau) * dx
		}
	}
	*scratch = s
	if len(s) == 0 {
		return 0, -1
	}
	slices.SortFunc(s, func(a, b weighted) int { return cmp.Compare(a.slope, b.slope) })
	for _, w := range s {
		if gradient += w.weight; gradient >= 0 {
			return w.slope, w.point
		}
	}
	return s[len(s)-1].slope, s[len(s)-1].point
}

// pinball returns the sum of the losses.
func pinball(points []point, slope, intercept, tau float64) float64 {
	sum := 0.0
	for _, p := range points {
		if r := p.y - slope*p.x - intercept; r >= 0 {
			sum += tau * r
		} else {
			sum += (tau - 1) * r
		}
	}
	return sum
}
