// SPDX-License-Identifier: Apache-2.0

// Package canary says whether a model is worse than another, at any time and however often it is
// asked. It is pure: sums in, bounds out.
//
// Values are in [0, 1] and less is better. The traffic comes in stages, in each of which the shares
// of the two models are constant, so that both see a random part of the same traffic. Stages are never
// added up, since a share that grows while the world changes would let the world look like the model
// (Simpson's paradox): each stage compares its own means, and what is combined is the evidence.
//
// For one model in one stage, with n values of the sum S and the mean μ,
//
//	M(μ) = B(ρμ + S, ρ(1 − μ) + n − S) / (B(ρμ, ρ(1 − μ)) · μ^S · (1 − μ)^(n − S))
//
// is the mixture of likelihood ratios over a Beta prior around μ that weighs ρ values. For the true μ
// it is a supermartingale that begins at 1: for values that are 0 or 1 by the beta-binomial mixture
// (Robbins 1970; Howard, Ramdas, McAuliffe, Sekhon: Time-uniform, nonparametric, nonasymptotic
// confidence sequences, Annals of Statistics 49, 2021, proposition 7), and for any in [0, 1] because a
// 0-or-1 value of the same mean has the larger exponential moments (Hoeffding 1963). Every value is
// of one model, so the product for two models is one, too. The least that this product can be while the
// difference of the means, canary less baseline, is at most d is evidence for a difference above d,
// and by Ville's inequality it exceeds 1/α with probability at most α, ever. It needs no variance and no
// sample size that is fixed beforehand, and is sums of two numbers for each model.
//
// Evidence of several stages is multiplied: it speaks against the difference being d or less in all
// of them. A canary that becomes worse only when it has more to do must not hide behind its earlier merits,
// so the evidence is the mean over where it begins: with weight 4/5 at the first stage, and with weight
// 1/5 · 1/(j(j − 1)) at stage j, 1 before that begins.
//
// Assumed is that a model's mean stays the same within a stage, and that whether and when a value becomes
// known does not depend on the model.
package canary

import "math"

// Arm is the values of one model in one stage.
type Arm struct {
	// Count is how many there are.
	Count float64
	// Sum is their sum, from 0 to Count.
	Sum float64
}

// Mean returns the mean of the values, 0 when there are none.
func (a Arm) Mean() float64 {
	if a.Count <= 0 {
		return 0
	}
	return a.Sum / a.Count
}

// Stage is the values of both models while their shares were constant.
type Stage struct {
	Canary, Baseline Arm
	// Odds is the baseline's share divided by the canary's, above 0. It scales the weight of the
	// baseline's prior, as it does its number of values.
	Odds float64
}

// Test is a metric of the two models.
type Test struct {
	// Stages are in the order of time.
	Stages []Stage
	// Margin is by how much the canary's mean may be more than the baseline's.
	Margin float64
	// Alpha is the probability with which each of the two bounds may be wrong, ever.
	Alpha float64
}

// Verdict is what a test says.
type Verdict int

// The verdicts.
const (
	// Undecided means that the difference may be on either side of the margin.
	Undecided Verdict = iota
	// NotWorse means that the canary is not worse by more than the margin.
	NotWorse
	// Worse means that it is.
	Worse
)

// Verdict returns what the test says now. When stages contradict each other, it is Worse.
func (t Test) Verdict() Verdict {
	fits := fitAll(t.Stages)
	switch {
	case logEvidence(fits, t.Margin, above) >= -math.Log(t.Alpha):
		return Worse
	case logEvidence(fits, t.Margin, below) >= -math.Log(t.Alpha):
		return NotWorse
	}
	return Undecided
}

// Bounds returns the least and the most that the difference of the means, canary less baseline, is:
// what the evidence does not exclude, in [−1, 1].
func (t Test) Bounds() (lower, upper float64) {
	fits := fitAll(t.Stages)
	return t.bound(fits, above), t.bound(fits, below)
}

// precision is how far a bound may be too wide.
const precision = 1e-6

// bound bisects for where the evidence begins to be enough; it falls with the distance.
func (t Test) bound(fits []fit, s side) float64 {
	excluded, open := -1.0, 1.0
	if s == below {
		excluded, open = open, excluded
	}
	wide := excluded
	if logEvidence(fits, excluded, s) < -math.Log(t.Alpha) {
		return wide
	}
	for math.Abs(open-excluded) > precision {
		if middle := (open + excluded) / 2; logEvidence(fits, middle, s) >= -math.Log(t.Alpha) {
			excluded = middle
		} else {
			open = middle
		}
	}
	return excluded
}

// Standardised returns the means of both models over the canary's traffic: the canary's own, and the
// baseline's with each stage weighed as it weighs for the canary. Stages without a value of either are left
// out.
func (t Test) Standardised() (canary, baseline float64) {
	n := 0.0
	for _, s := range t.Stages {
		if s.Canary.Count > 0 && s.Baseline.Count > 0 {
			n += s.Canary.Count
			canary += s.Canary.Sum
			baseline += s.Canary.Count * s.Baseline.Mean()
		}
	}
	if n == 0 {
		return 0, 0
	}
	return canary / n, baseline / n
}

// side is on which side of a value the difference is to be shown to be.
type side bool

const (
	below side = false
	above side = true
)

// priorWeight is ρ of the canary. The bounds are tightest after some ten times as many values.
const priorWeight = 100

// Means are looked for in [edge, 1 − edge]; at 0 and 1 the logarithms end.
const edge = 1e-12

// fit is a stage with the means that its values fit best, whatever their difference.
type fit struct {
	canary, baseline         arm
	canaryMean, baselineMean float64
	least                    float64 // the product's logarithm there
}

func fitAll(stages []Stage) []fit {
	fits := make([]fit, len(stages))
	for i, s := range stages {
		f := fit{canary: newArm(s.Canary, priorWeight), baseline: newArm(s.Baseline, priorWeight*s.Odds)}
		var c, b float64
		f.canaryMean, c = minimum(f.canary.logMixture, edge, 1-edge)
		f.baselineMean, b = minimum(f.baseline.logMixture, edge, 1-edge)
		f.least = c + b
		fits[i] = f
	}
	return fits
}

// logEvidence returns the logarithm of the evidence that the difference is above or below d.
func logEvidence(fits []fit, d float64, s side) float64 {
	const first = 0.8
	k := float64(len(fits))
	sum, logs := 0.0, make([]float64, 0, len(fits)+1)
	logs = append(logs, math.Log((1-first)/max(k, 1))) // the stages to come
	for i := len(fits) - 1; i >= 0; i-- {
		sum += fits[i].logEvidence(d, s)
		weight := first
		if i > 0 {
			weight = (1 - first) / float64(i*(i+1))
		}
		logs = append(logs, math.Log(weight)+sum)
	}
	return logSum(logs)
}

// logEvidence does so for one stage: the least of the product where the difference is not on that
// side of d.
func (f fit) logEvidence(d float64, s side) float64 {
	if difference := f.canaryMean - f.baselineMean; s == above && difference <= d || s == below && difference >= d {
		return f.least
	}
	low, high := max(d, 0)+edge, min(1+d, 1)-edge
	if low >= high {
		low = (low + high) / 2
		high = low
	}
	_, least := minimum(func(mean float64) float64 {
		return f.canary.logMixture(mean) + f.baseline.logMixture(clamp(mean-d))
	}, low, high)
	return least
}

func clamp(mean float64) float64 { return min(max(mean, edge), 1-edge) }

// arm is an Arm as its mixture needs it.
type arm struct {
	count, sum, prior float64
	constant          float64 // what of the logarithm does not depend on the mean
}

func newArm(a Arm, prior float64) arm {
	n := max(a.Count, 0)
	return arm{count: n, sum: min(max(a.Sum, 0), n), prior: prior, constant: logGamma(prior) - logGamma(prior+n)}
}

// logMixture returns log M(μ), which is convex in μ for whole sums.
func (a arm) logMixture(mean float64) float64 {
	alpha, beta, rest := a.prior*mean, a.prior*(1-mean), a.count-a.sum
	return a.constant + logGamma(alpha+a.sum) - logGamma(alpha) + logGamma(beta+rest) - logGamma(beta) -
		a.sum*math.Log(mean) - rest*math.Log1p(-mean)
}

func logGamma(x float64) float64 {
	y, _ := math.Lgamma(x)
	return y
}

// minimum returns where a convex function is least between two places, and its value there, by
// golden section.
func minimum(f func(float64) float64, low, high float64) (at, least float64) {
	const ratio = 0.6180339887498949
	a, b := high-ratio*(high-low), low+ratio*(high-low)
	fa, fb := f(a), f(b)
	for range 48 { // 0.618^48 < 1e-10
		if fa <= fb {
			high, b, fb = b, a, fa
			a = high - ratio*(high-low)
			fa = f(a)
		} else {
			low, a, fa = a, b, fb
			b = low + ratio*(high-low)
			fb = f(b)
		}
	}
	at, least = a, fa
	// Near an end, which golden section never reaches.
	for _, x := range []float64{b, low, high} {
		if y := f(x); y < least {
			at, least = x, y
		}
	}
	return at, least
}

// logSum returns the logarithm of the sum of what has these logarithms.
func logSum(logs []float64) float64 {
	most := math.Inf(-1)
	for _, x := range logs {
		most = max(most, x)
	}
	sum := 0.0
	for _, x := range logs {
		sum += math.Exp(x - most)
	}
	return most + math.Log(sum)
}
