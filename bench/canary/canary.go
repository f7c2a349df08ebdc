// SPDX-License-Identifier: Apache-2.0

// Package canary measures how soon a canary is promoted or rolled back, through the running system, and how often
// that is wrong, over many simulated ones.
package canary

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/layer"
	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Experiment is the experiment.
var Experiment = experiment.Experiment{
	Name:    "canary",
	Summary: "a good, an equal and three bad canaries: how many feedbacks until promoted or rolled back, and how often wrongly",
	Run:     layer.Run(run),
}

// What every canary begins with; the margins and the confidence are the defaults, written down since
// the simulation needs them too.
const (
	initialShare  = 0.1
	step          = 2
	minFeedbacks  = 100
	lossMargin    = 0.02
	errorMargin   = 0.02
	latencyMargin = 0.1
	confidence    = 0.95
)

// objective is the latency objective of every application.
const objective = 100 * time.Millisecond

// Of the baseline: the share of wrong labels, and the time of a batch.
const (
	baselineErrors = 0.1
	baselineTime   = 2 * time.Millisecond
)

// kind is a canary: what it does other than the baseline, and what is to become of it.
type kind struct {
	name     string
	errors   float64       // share of wrong labels
	time     time.Duration // of a batch
	failures float64       // share of queries without a prediction
	bad      string        // the metric in which it is worse by more than the margin; empty: none
}

var kinds = []kind{
	{name: "good", errors: 0.05, time: baselineTime},
	{name: "equal", errors: baselineErrors, time: baselineTime},
	{name: "wrong", errors: 0.2, time: baselineTime, bad: "loss"},
	{name: "failing", errors: baselineErrors, time: baselineTime, failures: 0.1, bad: "errors"},
	{name: "slow", errors: baselineErrors, time: 40 * time.Millisecond, bad: "latency"},
}

// want is what is to become of a kind.
func (k kind) want() clipperv1.CanaryState {
	if k.bad != "" {
		return clipperv1.CanaryState_CANARY_STATE_ROLLED_BACK
	}
	return clipperv1.CanaryState_CANARY_STATE_PROMOTED
}

func run(ctx context.Context, b system.Binaries, log io.Writer) (*experiment.Result, error) {
	lives, err := live(ctx, b, log)
	if err != nil {
		return nil, err
	}
	simulations, err := simulateAll(ctx, log)
	if err != nil {
		return nil, err
	}
	r := &experiment.Result{
		Load: fmt.Sprintf("system: the whole of Clipper in one process, embedded store; each kind has an application, asked by %d callers that each wait for the answer and for the acknowledgement of the truth, all kinds side by side; synthetic containers without cache, the baseline with %g wrong labels and %v a batch, objective %v. Simulation: %d canaries of each kind, looked at after each twelfth more feedbacks, with losses and latencies of both models that change from step to step; ended as undecided after %d feedbacks for the canary. From %g by %gx to 1, margins %g, %g, %g, confidence %g",
			callers, baselineErrors, baselineTime, objective, lifetimes, most, initialShare, float64(step), lossMargin, errorMargin, latencyMargin, confidence),
		Columns: []string{"where", "canary", "wrong labels", "failing", "ms a batch", "promoted", "rolled back", "undecided", "feedbacks of the decided (median)", "95 %", "a bound wrong, ever %", "reason"},
		Plot:    &experiment.Plot{Title: "A canary's share of the queries", X: "s", Y: "share"},
	}
	for _, l := range lives {
		r.Rows = append(r.Rows, l.row())
		r.Plot.Series = append(r.Plot.Series, l.curve())
		r.Bars = append(r.Bars, l.bar())
	}
	for _, s := range simulations {
		r.Rows = append(r.Rows, s.row())
		r.Bars = append(r.Bars, s.bars()...)
	}
	return r, nil
}
