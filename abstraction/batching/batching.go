// SPDX-License-Identifier: Apache-2.0

// Package batching decides how many rows go into the next batch of a replica. Each replica has a
// controller and a model of its latency of its own, since each may run on a different machine.
package batching

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// The defaults and limits of a version's batching.
const (
	DefaultPolicy       = "slo"
	DefaultMaxBatchRows = 4096
	DefaultMaxInFlight  = 2
	DefaultMaxQueueRows = 65536
	// MaxBatchRows is the most that max_batch_rows may be.
	MaxBatchRows = 65536
	// MaxInFlight is the most that max_in_flight may be.
	MaxInFlight = 2
)

// defaultObjective holds until a query with a deadline has come.
const defaultObjective = 50 * time.Millisecond

// Backlog is what waits when a replica can take a batch.
type Backlog struct {
	// Rows is the number of rows that wait, at least 1.
	Rows int
	// HeadSlack is the time that the most urgent row has left when the replica can begin; 0 when it
	// has no deadline. It may be negative.
	HeadSlack time.Duration
	// HeadBudget is the time that it had when it came; 0 when it has no deadline.
	HeadBudget time.Duration
	// Replicas is the number of replicas that take batches from this queue, at least 1; 0 means 1.
	Replicas int
	// Rate is the number of rows that come per second; 0 when it is not known.
	Rate float64
}

// Decision is what a controller makes of a backlog.
type Decision struct {
	// Rows is the most that the next batch may have, at least 1.
	Rows int
	// Target is the size at which the replica answers the most queries in time when enough waits, at
	// least 1. 0 means that the controller has no such plan; then nothing is refused or shed for it.
	Target int
	// Why is what set Rows.
	Why Reason
}

// Reason is what set the size of a batch.
type Reason uint8

// The reasons.
const (
	// Deadline: more rows would make the most urgent one late.
	Deadline Reason = iota + 1
	// Objective: more rows would take longer than the latency objective.
	Objective
	// Probing: no batch of more than half the size has been seen.
	Probing
	// Climbing: the controller is on its way to a larger size.
	Climbing
	// Maximum: the configuration or the container allows no more.
	Maximum
)

// Observation is what became of a batch.
type Observation struct {
	// Rows is its size.
	Rows int
	// Latency is the time from when the container could begin with it, which is when it was sent or
	// when the batch before it was answered, to its answer.
	Latency time.Duration
	// Predict is the time that the model itself took, as the container says; 0 when it does not, and
	// for a batch that was sent while another was under way.
	Predict time.Duration
}

// Controller sets the size of one replica's batches. Safe for concurrent use. Both methods are
// called on the path of every batch, Next with the queue locked: they must be short.
type Controller interface {
	// Next decides on the next batch. It may be asked more often than batches are sent.
	Next(Backlog) Decision
	// Observe learns from a batch that was answered. The model has learned from it before.
	Observe(Observation)
}

// settings are what a policy is made of.
type settings struct {
	maxRows   int
	objective time.Duration // 0: by the queries' deadlines
	model     *Model
}

// policies are the controllers by name.
var policies = map[string]func(settings) Controller{
	"slo":      func(s settings) Controller { return &slo{s} },
	"aimd":     func(s settings) Controller { return newAIMD(s) },
	"quantile": func(s settings) Controller { return newQuantile(s) },
	"fixed":    func(s settings) Controller { return fixed(s.maxRows) },
	"none":     func(settings) Controller { return fixed(1) },
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

// New returns a controller of the configured policy for a replica with that model of its latency,
// which outlives the controller. containerRows is the most rows that the container takes; 0 means no
// limit.
func New(cfg *clipperv1.Batching, containerRows int, m *Model) (Controller, error) {
	name := cfg.GetPolicy()
	if name == "" {
		name = DefaultPolicy
	}
	policy, ok := policies[name]
	if !ok {
		return nil, fmt.Errorf("batching policy %q is not known; there are %s", name, strings.Join(Policies(), ", "))
	}
	return policy(settings{maxRows: MaxRows(cfg, containerRows), objective: cfg.GetLatencyObjective().AsDuration(), model: m}), nil
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

// Plan returns the batches that each of some replicas, at least 1, is to have over and over when there is
// more to do than it can: the largest that fit into the time that queries have by the rule of the slo
// policy (see slo), whatever was seen, and how long they take in the mean; with the policies "fixed" and
// "none", the size that these have. A budget of 0 is no deadline. Both are 0 when nothing is known.
// containerRows is as for New.
func Plan(cfg *clipperv1.Batching, containerRows int, m *Model, budget time.Duration, replicas int) (rows int, mean time.Duration) {
	rows = MaxRows(cfg, containerRows)
	if policy := cfg.GetPolicy(); policy != "fixed" && policy != "none" {
		objective := cfg.GetLatencyObjective().AsDuration()
		if budget <= 0 {
			budget = 2 * cmp.Or(objective, defaultObjective)
		}
		rows = m.fits(budget, objective, float64(replicas), rows)
	}
	if mean = m.Mean(rows); mean == 0 {
		return 0, 0
	}
	return rows, mean
}

// fixed is the policies "fixed", whatever waits up to a size that is set by hand, and "none", one
// row at a time.
type fixed int

// Next implements Controller.
func (f fixed) Next(Backlog) Decision { return Decision{Rows: int(f), Why: Maximum} }

// Observe implements Controller.
func (f fixed) Observe(Observation) {}
