// SPDX-License-Identifier: Apache-2.0

package evaluate

import "math"

// normal95 is how many standard errors a mean is off at most in 95 % of all cases.
const normal95 = 1.959963984540054

// moments are of pairs (x, y), added one by one. Their squares are sums about a first guess, the first pair, so
// that little is lost to rounding.
type moments struct {
	n, x0, y0        float64
	x, y, xx, yy, xy float64
}

func (m *moments) add(x, y float64) {
	if m.n == 0 {
		m.x0, m.y0 = x, y
	}
	m.n++
	x -= m.x0
	y -= m.y0
	m.x += x
	m.y += y
	m.xx += x * x
	m.yy += y * y
	m.xy += x * y
}

func (m *moments) means() (x, y float64) { return m.x0 + m.x/m.n, m.y0 + m.y/m.n }

// variance returns that of x − v·y.
func (m *moments) variance(v float64) float64 {
	if m.n < 2 {
		return 0
	}
	squares := m.xx - 2*v*m.xy + v*v*m.yy
	sum := m.x - v*m.y
	return max(squares-sum*sum/m.n, 0) / (m.n - 1)
}

// mean returns the mean of x.
func (m *moments) mean(name string) Estimate {
	x, _ := m.means()
	return estimate(name, x, math.Sqrt(m.variance(0)/m.n))
}

// ratio returns the mean of x divided by the mean of y. By the delta method it is as far off as the mean
// of (x − ratio·y) / mean of y.
func (m *moments) ratio(name string) Estimate {
	x, y := m.means()
	return estimate(name, x/y, math.Sqrt(m.variance(x/y)/m.n)/y)
}

func estimate(name string, reward, err float64) Estimate {
	return Estimate{Name: name, Reward: reward, Lower: reward - normal95*err, Upper: reward + normal95*err, StandardError: err}
}

func meanOf(name string, xs []float64) Estimate {
	var m moments
	for _, x := range xs {
		m.add(x, 0)
	}
	if m.n == 0 {
		return Estimate{Name: name}
	}
	return m.mean(name)
}

// sums are over the terms of all decisions.
type sums struct {
	weighted, robust             moments
	weight, squares, unsupported float64
	largest                      float64
}

func (s *sums) add(_ int, t term) {
	s.weighted.add(t.reward, t.weight)
	s.robust.add(t.robust, 0)
	s.weight += t.weight
	s.squares += t.weight * t.weight
	s.largest = max(s.largest, t.largest)
	s.unsupported += t.unsupported
}

// report fills in the estimates.
func (s *sums) report(r *Report) {
	r.Used = int(s.weighted.n)
	r.LargestWeight, r.Unsupported = s.largest, s.unsupported/s.weighted.n
	if s.squares > 0 {
		r.EffectiveSamples = s.weight * s.weight / s.squares
	}
	if r.Exact {
		r.Estimates = []Estimate{s.weighted.mean(Replay)}
		return
	}
	r.Estimates = []Estimate{s.weighted.mean(IPS)}
	if s.weight > 0 {
		r.Estimates = append(r.Estimates, s.weighted.ratio(SNIPS))
	}
	r.Estimates = append(r.Estimates, s.robust.mean(DR))
}

// rewards guesses the reward of each model: by the mean of those that were seen, or by a ridge regression
// on the features. It is given each reward after it was asked for a guess.
type rewards struct {
	means  []moments
	ridges []*ridge // nil without features
}

func newRewards(models, dimension int) *rewards {
	r := &rewards{means: make([]moments, models)}
	for range models {
		if dimension > 0 {
			r.ridges = append(r.ridges, newRidge(dimension))
		}
	}
	return r
}

// guess returns a reward in [0, 1]; the middle when nothing is known.
func (r *rewards) guess(model int, features []float64) float64 {
	if r.ridges != nil && len(features) == r.ridges[model].d {
		return min(max(r.ridges[model].predict(features), 0), 1)
	}
	if m := &r.means[model]; m.n > 0 {
		x, _ := m.means()
		return x
	}
	return 0.5
}

func (r *rewards) learn(model int, features []float64, reward float64) {
	r.means[model].add(reward, 0)
	if r.ridges != nil && len(features) == r.ridges[model].d {
		r.ridges[model].learn(features, reward)
	}
}

// ridge is a linear regression with the penalty |θ|², one observation at a time: inverse is (I + Σ x xᵀ)⁻¹ by the
// formula of Sherman and Morrison, which keeps it symmetric.
type ridge struct {
	d              int
	inverse        []float64
	sum, theta, ax []float64
}

func newRidge(d int) *ridge {
	r := &ridge{d: d, inverse: make([]float64, d*d), sum: make([]float64, d), theta: make([]float64, d), ax: make([]float64, d)}
	for i := range d {
		r.inverse[i*d+i] = 1
	}
	return r
}

func (r *ridge) predict(x []float64) (y float64) {
	for i, t := range r.theta {
		y += t * x[i]
	}
	return y
}

func (r *ridge) learn(x []float64, y float64) {
	r.times(x, r.ax)
	scale := 1.0
	for i, a := range r.ax {
		scale += a * x[i]
	}
	for i := range r.d {
		r.sum[i] += y * x[i]
		for j := range r.d {
			r.inverse[i*r.d+j] -= r.ax[i] * r.ax[j] / scale
		}
	}
	r.times(r.sum, r.theta)
}

// times writes the inverse times a vector to dst.
func (r *ridge) times(x, dst []float64) {
	for i := range dst {
		dst[i] = 0
		for j, y := range x {
			dst[i] += r.inverse[i*r.d+j] * y
		}
	}
}
