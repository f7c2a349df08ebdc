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
	maxRows int
	goal    goal

	mu   sync.Mutex
	rows int
}

func newAIMD(s settings) *aimd { return &aimd{maxRows: s.maxRows, goal: newGoal(s.objective), rows: 1} }

// Next implements Controller.
func (c *aimd) Next(b Backlog) Decision {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.goal.follow(b)
	if c.rows == c.maxRows {
		return Decision{Rows: c.rows, Why: Maximum}
	}
	return Decision{Rows: c.rows, Why: Climbing}
}

// Observe implements Controller.
func (c *aimd) Observe(o Observation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case o.Latency > c.goal.objective:
		c.rows = max(1, int(backOff*float64(c.rows)))
	case o.Rows >= c.rows && o.Latency < time.Duration(headroom*float64(c.goal.objective)):
		c.rows = min(c.maxRows, c.rows+increase)
	}
}

// goal is the latency that a batch is to have. Without a configured objective, a batch may take half
// of the time that its most urgent query had: the query may have just missed the batch before.
type goal struct {
	configured bool
	objective  time.Duration
}

func newGoal(objective time.Duration) goal {
	if objective > 0 {
		return goal{configured: true, objective: objective}
	}
	return goal{objective: defaultObjective}
}

func (g *goal) follow(b Backlog) {
	if !g.configured && b.HeadBudget > 0 {
		g.objective = b.HeadBudget / 2
	}
}
