// SPDX-License-Identifier: Apache-2.0

// Package batching decides how many rows go into the next batch of a replica. Each replica has a
// controller of its own, since each may run on a different machine.
package batching

import (
	"fmt"
	"slices"
	"strings"
	"time"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// The defaults and limits of a version's batching.
const (
	DefaultPolicy       = "aimd"
	DefaultMaxBatchRows = 4096
	DefaultMaxInFlight  = 2
	DefaultMaxQueueRows = 65536

	// MaxBatchRows is the most that max_batch_rows may be.
	MaxBatchRows = 65536
	// MaxInFlight is the most that max_in_flight may be.
	MaxInFlight = 2
)

// Backlog is what waits when a replica can take a batch.
type Backlog struct {
	// Rows is the number of rows that wait, at least 1.
	Rows int
	// HeadSlack is the time that the most urgent row has left; 0 when it has no deadline.
	HeadSlack time.Duration
	// HeadBudget is the time that it had when it came; 0 when it has no deadline.
	HeadBudget time.Duration
}

// Observation is what became of a batch.
type Observation struct {
	// Rows is its size.
	Rows int
	// Latency is the time from when the container could begin with it, which is when it was sent or
	// when the batch before it was answered, to its answer.
	Latency time.Duration
}

// Controller sets the size of one replica's batches. Safe for concurrent use. Both methods are
// called on the path of every batch, Next with the queue locked: they must be short.
type Controller interface {
	// Next returns the most rows that the next batch may have, at least 1. It may be asked more
	// often than batches are sent.
	Next(Backlog) int
	// Observe learns from a batch that was answered.
	Observe(Observation)
}

// policies are the controllers by name.
var policies = map[string]func(maxRows int, objective time.Duration) Controller{
	"aimd":  func(maxRows int, objective time.Duration) Controller { return newAIMD(maxRows, objective) },
	"fixed": func(maxRows int, _ time.Duration) Controller { return fixed(maxRows) },
	"none":  func(int, time.Duration) Controller { return fixed(1) },
}

// Policies returns the names of the policies, sorted.
func Policies() []string {
	names := make([]string, 0, len(policies))
	for name := range policies {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// New returns a controller of the configured policy. containerRows is the most rows that the
// container takes; 0 means no limit.
func New(cfg *clipperv1.Batching, containerRows int) (Controller, error) {
	name := cfg.GetPolicy()
	if name == "" {
		name = DefaultPolicy
	}
	policy, ok := policies[name]
	if !ok {
		return nil, fmt.Errorf("batching policy %q is not known; there are %s", name, strings.Join(Policies(), ", "))
	}
	rows := MaxRows(cfg, containerRows)
	return policy(rows, cfg.GetLatencyObjective().AsDuration()), nil
}

// MaxRows returns the most rows that a batch may have, whatever a controller says. containerRows is
// as for New.
func MaxRows(cfg *clipperv1.Batching, containerRows int) int {
	if cfg.GetPolicy() == "none" {
		return 1
	}
	rows := int(cfg.GetMaxBatchRows())
	if rows == 0 {
		rows = DefaultMaxBatchRows
	}
	rows = min(rows, MaxBatchRows)
	if containerRows > 0 {
		rows = min(rows, containerRows)
	}
	return rows
}

// fixed is the policies "fixed", whatever waits up to a size that is set by hand, and "none", one
// row at a time.
type fixed int

// Next implements Controller.
func (f fixed) Next(Backlog) int { return int(f) }

// Observe implements Controller.
func (f fixed) Observe(Observation) {}
