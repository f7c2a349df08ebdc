// SPDX-License-Identifier: Apache-2.0

package batching

import "time"

// slo takes the largest batch that the head of the queue can afford. With t(n) the 99th percentile
// of the latency of n rows that the replica's Model expects, S the time that the most urgent query
// has left, B what it had at first, and k the number of replicas,
//
//	rows   = the largest n with t(n) ≤ S
//	target = the largest n with t(n) + min(t(n)/k, max(n/λ, s(n)/k)) ≤ B
//
// The target is the size at which batches follow each other for ever. A query that just missed a
// batch waits t/k at most for the next, since the k replicas are staggered, and then takes t
// (Shen et al., "Nexus", SOSP 2019, has it for one accelerator; Chen et al., "Symphony",
// arXiv:2308.07470, for several). When λ queries come per second, more than can be answered,
// batches may be larger: it is enough that n of them come within the time that a query can wait
// before such a batch; s(n), by which t(n) is above the mean, is kept for the batch before.
//
// When S is even shorter than t(1), the most urgent query may be late whatever is done, and the others
// are not to wait for it: then t(n) may be a little longer than t(1).
//
// Both are at most twice the largest size seen, since what lies beyond is a guess, and t(n) is at
// most the latency objective where one is configured.
type slo struct{ settings }

// Next implements Controller.
func (c *slo) Next(b Backlog) Decision {
	slack, budget, why := b.HeadSlack, b.HeadBudget, Deadline
	if budget <= 0 {
		slack, budget, why = c.ceiling(), 2*c.ceiling(), Objective
	}
	if c.objective > 0 && c.objective < slack {
		slack, why = c.objective, Objective
	}
	d := Decision{
		Rows:   c.model.affordable(slack, c.maxRows),
		Target: c.model.sustained(budget, c.objective, float64(max(1, b.Replicas)), b.Rate, c.maxRows),
		Why:    why,
	}
	switch {
	case d.Rows >= c.maxRows:
		d.Why = Maximum
	case d.Rows >= c.model.trusted():
		d.Why = Probing
	}
	return d
}

// ceiling is the time that a batch may take when nobody says how long it may.
func (c *slo) ceiling() time.Duration {
	if c.objective > 0 {
		return c.objective
	}
	return defaultObjective
}

// Observe implements Controller. The model learns by itself.
func (c *slo) Observe(Observation) {}
