// SPDX-License-Identifier: Apache-2.0

package batching

import (
	"sync"
	"time"
)

const (
	// increase is what is added to the size after a full batch that was fast enough.
	increase = 2
	// headroom is the share of the objective from which on the size is held.
	headroom = 0.9
	// backOff is the factor after a batch that was too slow.
	backOff = 0.9
	// defaultObjective holds until a query with a deadline has come.
	defaultObjective = 50 * time.Millisecond
)

// aimd is additive increase, multiplicative decrease: section 4.3.1 of Crankshaw et al., "Clipper: A
// Low-Latency Online Prediction Serving System", NSDI 2017, with the constants of its
// implementation. With L the latency of a batch and T the objective,
//
//	size ← size + 2      if the batch was full and L < 0.9·T
//	size ← 0.9·size      if L > T
//
// The back-off is small because the best size of a model hardly moves. A batch that was not full
// says nothing about larger ones, so it never raises the size.
type aimd struct {
	maxRows    int
	configured time.Duration

	mu        sync.Mutex
	rows      int
	objective time.Duration
}

func newAIMD(maxRows int, objective time.Duration) *aimd {
	c := &aimd{maxRows: maxRows, configured: objective, rows: 1, objective: objective}
	if objective <= 0 {
		c.objective = defaultObjective
	}
	return c
}

// Next implements Controller. Without a configured objective, a batch may take half of the time
// that its most urgent query has: the query may have just missed the batch before.
func (c *aimd) Next(b Backlog) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.configured <= 0 && b.HeadBudget > 0 {
		c.objective = b.HeadBudget / 2
	}
	return c.rows
}

// Observe implements Controller.
func (c *aimd) Observe(o Observation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case o.Latency > c.objective:
		c.rows = max(1, int(backOff*float64(c.rows)))
	case o.Rows >= c.rows && o.Latency < time.Duration(headroom*float64(c.objective)):
		c.rows = min(c.maxRows, c.rows+increase)
	}
}
