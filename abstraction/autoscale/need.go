// SPDX-License-Identifier: Apache-2.0

package autoscale

import (
	"math"
	"sort"
	"time"
)

const (
	// MostReplicas is the most that a version may have.
	MostReplicas = 256
	// certainty is how many standard deviations a normal variable exceeds its mean by in one of 100 cases.
	certainty = 2.326
)

// Batch is what a replica does over and over. The zero value is not known.
type Batch struct {
	// Rows is the largest size that fits into the time that queries have.
	Rows int
	// Time is the mean time that it takes.
	Time time.Duration
}

// Rate returns the rows per second of one replica.
func (b Batch) Rate() float64 {
	if b.Time <= 0 {
		return 0
	}
	return float64(b.Rows) / b.Time.Seconds()
}

// Plan returns the batch that each of some replicas, at least 1, is to have: with more of them a query
// that just missed a batch waits for a shorter time, and batches may be larger.
type Plan func(replicas int) Batch

// Load is rows that come and how: the rows per second, and the variance of the rows in a tenth of a
// second, relative to its mean.
type Load struct{ Rate, Burstiness float64 }

// Ratio returns the load relative to what k replicas can take: at most 1 when they are enough, as in
// the plan of `clipper profile` (containerrpc/profile.Need). While each has a batch of n rows, k·n rows may
// come. As many come as m, rate times the time of a batch, with variance b·m; that is exceeded in one of
// 100 cases by m + 2.33·sqrt(b·m) (square-root staffing, after Halfin and Whitt, "Heavy-Traffic Limits
// for Queues with Many Exponential Servers", 1981). And m itself may be the share target of it, since
// what was learned of a replica is not exact. 0 when the batch is not known.
func (l Load) Ratio(k int, b Batch, target float64) float64 {
	places, m := float64(k*b.Rows), l.Rate*b.Time.Seconds()
	if places <= 0 || m <= 0 {
		return 0
	}
	return max(m/target, m+certainty*math.Sqrt(l.within(b.Time)*m)) / places
}

// within is the burstiness of a shorter time than a tenth of a second. What varies from one tenth to the
// next is taken to be constant within each, and the rest to be chance.
func (l Load) within(t time.Duration) float64 {
	if share := t.Seconds() / binWidth.Seconds(); l.Burstiness > 1 && share < 1 {
		return 1 + (l.Burstiness-1)*share
	}
	return l.Burstiness
}

// Need returns the fewest replicas that can take a load, at most MostReplicas; 0 when nothing comes or
// nothing is known.
func (l Load) Need(plan Plan, target float64) int {
	if l.Rate <= 0 || plan(1).Rate() == 0 {
		return 0
	}
	return min(1+sort.Search(MostReplicas, func(i int) bool { return l.Ratio(i+1, plan(i+1), target) <= 1 }), MostReplicas)
}
