// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"errors"
	"sync"

	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/selector/canary"
)

// canaries is what this instance has counted of the canaries and not stored yet. Safe for concurrent
// use.
type canaries struct {
	flushing sync.Mutex // held by who flushes

	mu      sync.Mutex
	tallies map[string]*canaryTally // by the key of the sums
}

func newCanaries() *canaries {
	return &canaries{tallies: map[string]*canaryTally{}}
}

// tally returns the one of a run, which lasts while the application is otherwise changed.
func (c *canaries) tally(sumsKey string) *canaryTally {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tallies[sumsKey]
	if t == nil {
		t = &canaryTally{}
		c.tallies[sumsKey] = t
	}
	t.ended = false
	return t
}

// flush adds everything to the sums. Runs that are not current are forgotten the second time: the first
// time they may be about to be.
func (c *canaries) flush(ctx context.Context, sums store.Sums, current map[string]bool) error {
	c.flushing.Lock()
	defer c.flushing.Unlock()
	c.mu.Lock()
	due := map[string]*canaryTally{}
	for key, t := range c.tallies {
		switch {
		case current[key]:
			due[key] = t
		case t.ended:
			delete(c.tallies, key)
		default:
			t.ended = true
		}
	}
	c.mu.Unlock()
	var problems error
	for key, t := range due {
		problems = errors.Join(problems, t.flush(ctx, sums, key))
	}
	return problems
}

// canaryTally is the errors and latencies of one run. Safe for concurrent use.
type canaryTally struct {
	ended bool // guarded by canaries.mu

	mu     sync.Mutex
	stages []canaryCounts // by stage; those of the past get what comes late

	sending *addition // until it is known to be made; guarded by canaries.flushing
}

// canaryCounts is of one stage.
type canaryCounts [arms]struct{ queries, errors, latency float64 }

// add counts one query that asked one of the two; latency is in [0, 1].
func (t *canaryTally) add(stage, arm int, failed bool, latency float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.stages) <= stage {
		t.stages = append(t.stages, canaryCounts{})
	}
	c := &t.stages[stage][arm]
	c.queries++
	c.latency += latency
	if failed {
		c.errors++
	}
}

// take returns what was counted as deltas, and counts from 0 again.
func (t *canaryTally) take() map[string]float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	deltas := map[string]float64{}
	for stage := range t.stages {
		for arm, c := range t.stages[stage] {
			if c.queries > 0 {
				addTo(deltas, stage, arm, metricErrors, canary.Arm{Count: c.queries, Sum: c.errors})
				addTo(deltas, stage, arm, metricLatency, canary.Arm{Count: c.queries, Sum: c.latency})
			}
		}
		t.stages[stage] = canaryCounts{}
	}
	return deltas
}

// flush adds what was counted to the sums, once however often it has to be tried.
func (t *canaryTally) flush(ctx context.Context, sums store.Sums, key string) error {
	if t.sending == nil {
		deltas := t.take()
		if len(deltas) == 0 {
			return nil
		}
		t.sending = newAddition(key, deltas)
	}
	err := t.sending.add(ctx, sums)
	if !errors.Is(err, store.ErrUnavailable) {
		t.sending = nil
	}
	return err
}
