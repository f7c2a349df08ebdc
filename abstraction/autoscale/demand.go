// SPDX-License-Identifier: Apache-2.0

package autoscale

import (
	"math"
	"time"
)

const (
	// binWidth is the time whose rows are counted together, bins the number of such times that are
	// remembered, that which is being counted included.
	binWidth = 100 * time.Millisecond
	bins     = 61
	// fewest is the number of rows below which nothing is said about their burstiness.
	fewest = 50
	// surprise is how many standard deviations the number of rows of a window must differ from what those
	// before make expect, for the window alone to count. Chance gets there in one of some 30,000 cases.
	surprise = 4
	// memory is the time over which burstiness is averaged.
	memory = 10 * time.Second
	// window is the time over which the rate is averaged.
	window = (bins - 1) * binWidth
)

// windows are the last bins that are looked at to notice a change, shortest first.
var windows = []int64{5, 10, 20}

// Arrivals counts the rows that come to a version, over the last six seconds. Not safe for concurrent
// use: the queue counts under its lock. The zero value has counted nothing.
type Arrivals struct {
	rows    [bins]uint32
	urgency [bins]float64 // the sums of one divided by the seconds that each row had
	bin     int64         // the one that is being counted, since the epoch
	first   int64         // the first one that counts
	last    time.Duration
	any     bool
	budget  float64 // the last urgency per row that was seen

	// excess is the burstiness beyond 1, relative to the rows of a bin; averaged, last at a time.
	excess   float64
	averaged time.Duration
}

// Add counts a row that comes at a time since an epoch of the caller's, which never runs back. budget is
// the time that it has; 0 when it has no deadline.
func (a *Arrivals) Add(now, budget time.Duration) {
	a.advance(now)
	if !a.any {
		a.any, a.first = true, a.bin
	}
	a.last = now
	a.rows[a.bin%bins]++
	if budget > 0 {
		a.urgency[a.bin%bins] += 1 / budget.Seconds()
	}
}

// advance forgets what is too old.
func (a *Arrivals) advance(now time.Duration) {
	bin := int64(now / binWidth)
	for i := max(a.bin+1, bin-bins+1); i <= bin; i++ {
		a.rows[i%bins], a.urgency[i%bins] = 0, 0
	}
	a.bin = max(a.bin, bin)
}

// Demand is what comes to a version. The zero value is nothing.
type Demand struct {
	// Rate is the rows per second to count on: over the last six seconds, which chance moves little, or
	// over the last 0.5, 1 or 2 s when these differ by more than chance makes them.
	Rate float64
	// Burstiness is the variance of the rows in a tenth of a second, relative to their mean, as it was over
	// some seconds: 1 for a Poisson process, and when too few came to say.
	Burstiness float64
	// Urgency is the sum, over the rows of a second, of one divided by the seconds that each had when it
	// came. Rate/Urgency is the harmonic mean of these times: the short ones count most, but single ones do
	// not decide. 0: they have no deadline.
	Urgency float64
	// Waiting is the number of rows that wait.
	Waiting int
	// Idle is the time since the last row came; negative when none has.
	Idle time.Duration
}

// Demand returns what came until now, a time as in Add.
func (a *Arrivals) Demand(now time.Duration) Demand {
	a.advance(now)
	d := Demand{Burstiness: 1, Idle: -1}
	if !a.any {
		return d
	}
	d.Idle = now - a.last
	n := min(a.bin-a.first, bins-1) // Those that are complete.
	var rows, urgency float64
	for i := a.bin - n; i < a.bin; i++ {
		rows += float64(a.rows[i%bins])
		urgency += a.urgency[i%bins]
	}
	if n == 0 { // It has just begun.
		return Demand{Burstiness: 1, Idle: d.Idle}
	}
	if rows > 0 {
		a.budget = urgency / rows
	}
	mean := rows / float64(n)
	each := a.now(n, mean)
	if each == mean && rows >= fewest && n > windows[len(windows)-1] {
		// What varies the rate varies it by a share, so it is the excess relative to it that stays when
		// the rate changes. While it changes, the variance says nothing.
		share := -math.Expm1(-(now - a.averaged).Seconds() / memory.Seconds())
		a.excess += ((a.burstiness(n, mean)-1)/mean - a.excess) * share
		a.averaged = now
	}
	d.Burstiness = max(0, 1+a.excess*each)
	d.Rate = each / binWidth.Seconds()
	d.Urgency = a.budget * d.Rate
	return d
}

// now returns the rows of a bin to count on, given the mean of the last n. The square root of a Poisson
// variable has a standard deviation of about a half, whatever its mean (Bartlett, "The Square Root
// Transformation in Analysis of Variance", 1936), so that small numbers are no surprise too soon. What was
// before a change is forgotten.
func (a *Arrivals) now(n int64, mean float64) float64 {
	limit := surprise * math.Sqrt(1+max(a.excess, 0)*mean) / 2
	for _, w := range windows {
		if w >= n {
			break
		}
		rows := 0.0
		for i := a.bin - w; i < a.bin; i++ {
			rows += float64(a.rows[i%bins])
		}
		if math.Abs(math.Sqrt(rows)-math.Sqrt(mean*float64(w))) > limit {
			a.first = a.bin - w
			return rows / float64(w)
		}
	}
	return mean
}

// burstiness is by the mean squared difference of successive numbers (von Neumann, "Distribution of the
// Ratio of the Mean Square Successive Difference to the Variance", 1941), so that a ramp is no burst.
// The largest counts as much as the next: a step is no burst either.
func (a *Arrivals) burstiness(n int64, mean float64) float64 {
	var sum, largest, next float64
	for i := a.bin - n + 1; i < a.bin; i++ {
		d := float64(a.rows[i%bins]) - float64(a.rows[(i-1)%bins])
		sum += d * d
		if d *= d; d > largest {
			largest, next = d, largest
		} else {
			next = max(next, d)
		}
	}
	return (sum - largest + next) / (2 * float64(n-1) * mean)
}

// Add adds what comes to the same version at another instance.
func (d *Demand) Add(o Demand) {
	if all := d.Rate + o.Rate; all > 0 {
		d.Burstiness = (d.Burstiness*d.Rate + o.Burstiness*o.Rate) / all
	}
	d.Rate += o.Rate
	d.Urgency += o.Urgency
	d.Waiting += o.Waiting
	if o.Idle >= 0 && (d.Idle < 0 || o.Idle < d.Idle) {
		d.Idle = o.Idle
	}
}

// Budget returns the time that queries have; 0 when they have no deadline.
func (d *Demand) Budget() time.Duration {
	if d.Urgency <= 0 || d.Rate <= 0 {
		return 0
	}
	return time.Duration(d.Rate / d.Urgency * float64(time.Second))
}
