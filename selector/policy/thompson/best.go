// SPDX-License-Identifier: Apache-2.0

package thompson

import (
	"math"
	"slices"
)

// belief is what is known of one model's mean reward: a Beta distribution, or a normal one.
type belief struct {
	model           int
	beta            bool
	right, wrong    float64 // the exponents of Beta
	mean, deviation float64
	norm            float64 // the logarithm of what the density is divided by
	from, to        float64 // where all but about 1e-5 of it is
}

func betaBelief(right, wrong float64) belief {
	a, b := right+1, wrong+1
	n := a + b
	mean := a / n
	deviation := math.Sqrt(a*b/(n+1)) / n
	if min(right, wrong) > symmetric {
		return normal(mean, deviation)
	}
	// The longer tail of a skewed one is nearly exponential.
	skew := 2 * (b - a) * math.Sqrt(n+1) / ((n + 2) * math.Sqrt(a*b))
	low := tail + longTail*min(max(-skew/2, 0), 1)
	high := tail + longTail*min(max(skew/2, 0), 1)
	return belief{
		beta: true, right: right, wrong: wrong, mean: mean, deviation: deviation, norm: logBeta(a, b),
		from: max(mean-low*deviation, 0), to: min(mean+high*deviation, 1),
	}
}

// logBeta is the logarithm of the beta function.
func logBeta(a, b float64) float64 {
	x, _ := math.Lgamma(a)
	y, _ := math.Lgamma(b)
	z, _ := math.Lgamma(a + b)
	return x + y - z
}

func normalBelief(right, wrong float64) belief {
	n := right + wrong + 1
	return normal(right/n, 1/math.Sqrt(n))
}

func normal(mean, deviation float64) belief {
	return belief{
		mean: mean, deviation: deviation, norm: math.Log(deviation * math.Sqrt(2*math.Pi)),
		from: mean - tail*deviation, to: mean + tail*deviation,
	}
}

const (
	// tail is how many standard deviations a symmetric belief reaches from its mean, and longTail how many
	// more a skewed one does.
	tail     = 4.5
	longTail = 6
	// symmetric is how often a model must have been right and wrong for its Beta to be taken as the normal
	// distribution of the same mean and deviation, whose density is then known more exactly.
	symmetric = 1e5
	// points is the size of the grid.
	points = 48
)

// best writes the probability that each model is the best to dst, by model; they sum to 1.
//
// It is ∫ f_i Π_{j≠i} F_j over the beliefs' densities f and distributions F. The integral begins at L, the largest
// of the points below which a belief has nearly nothing, as the best is at least there; models that do not reach L
// are not the best. Then a belief that is wide reaches far, and one that is narrow is near L. So the grid's
// steps grow with the distance from L exponentially, from a part of the narrowest belief's deviation, and
// each belief has enough points where it matters, with any ratio of their widths. Each step counts by
// its midpoint, to the second order; F is 1 less the sum of the f above, as there is nearly nothing above the grid.
func best(beliefs []belief, dst []float64) {
	low := math.Inf(-1)
	for i := range beliefs {
		low = max(low, beliefs[i].from)
	}
	high, narrowest, n := low, math.Inf(1), 0
	for _, b := range beliefs {
		if b.to > low {
			high, narrowest = max(high, b.to), min(narrowest, b.deviation)
			beliefs[n] = b
			n++
		}
	}
	beliefs = beliefs[:n]
	if n == 1 {
		dst[beliefs[0].model] = 1
		return
	}

	var g grid
	g.lay(low, high, 2*narrowest, beliefs)
	// The ratios of the first few beliefs are kept, those of others are computed twice: memory for all of
	// them would cost more to clear than it saves.
	var ratios [8][points]float64
	var ratio, below, all [points]float64
	for k := range all {
		all[k] = 1
	}
	for i := range beliefs {
		into := &ratio
		if i < len(ratios) {
			into = &ratios[i]
		}
		g.ratio(&beliefs[i], into, &below)
		for k, f := range below {
			all[k] *= f
		}
	}
	total := 0.0
	for i := range beliefs {
		from := &ratio
		if i < len(ratios) {
			from = &ratios[i]
		} else {
			g.ratio(&beliefs[i], from, &below)
		}
		sum := 0.0
		for k, r := range from {
			sum += r * all[k]
		}
		dst[beliefs[i].model] = sum
		total += sum
	}
	for _, b := range beliefs {
		dst[b.model] /= total
	}
}

// grid is steps, each with its midpoint x.
type grid struct {
	x, width [points]float64
	// For Beta: the logarithms of x and 1 − x, and the step divided by them.
	logX, logRest, overX, overRest [points]float64
}

// lay makes steps that begin as a part of first and grow exponentially.
func (g *grid) lay(low, high, first float64, beliefs []belief) {
	growth := math.Pow(1+(high-low)/first, 1.0/points)
	factor, edge := 1.0, low
	for k := range points {
		factor *= growth
		next := low + first*(factor-1)
		g.x[k], g.width[k] = (edge+next)/2, next-edge
		edge = next
	}
	if slices.ContainsFunc(beliefs, func(b belief) bool { return b.beta }) {
		for k, x := range g.x {
			g.logX[k], g.logRest[k] = math.Log(x), math.Log(1-x)
			g.overX[k], g.overRest[k] = g.width[k]/x, g.width[k]/(1-x)
		}
	}
}

// ratio computes a belief's F at the midpoints and, for each step, its mass divided by F.
func (g *grid) ratio(b *belief, ratio, below *[points]float64) {
	above := 0.0
	for k := points - 1; k >= 0; k-- {
		if g.x[k] > b.to {
			ratio[k], below[k] = 0, 1
			continue
		}
		// The density at the midpoint and, times the step, the first two derivatives of its logarithm.
		var density, slope, curve float64
		if b.beta {
			u, v := g.overX[k], g.overRest[k]
			density = math.Exp(b.right*g.logX[k] + b.wrong*g.logRest[k] - b.norm)
			slope, curve = b.right*u-b.wrong*v, -b.right*u*u-b.wrong*v*v
		} else {
			u := g.width[k] / b.deviation
			z := (g.x[k] - b.mean) / b.deviation
			density = math.Exp(-z*z/2 - b.norm)
			slope, curve = -z*u, -u*u
		}
		mass := density * g.width[k] * max(1+(slope*slope+curve)/24, 0)
		upper := mass / 2 * min(max(1+slope/4, 0), 2)
		// Where F is nearly 0 nothing is the best, so that the ratio does not matter.
		below[k] = max(1-above-upper, 1e-12)
		ratio[k] = mass / below[k]
		above += mass
	}
}
