// SPDX-License-Identifier: Apache-2.0

// Package policies measures the selection policies by themselves: their regret against what is proven about it and
// against an implementation of their papers, and what a query and its feedback cost.
package policies

import (
	"context"
	"fmt"
	"io"
	"math"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/system"
	"github.com/clipper-serving/clipper/selector/policy/policies"
	"github.com/clipper-serving/clipper/selector/policy/simulation"
)

// Experiment is the experiment.
var Experiment = experiment.Experiment{
	Name:    "policies",
	Summary: "regret of each selection policy against its bound and a reference, and its cost",
	Run:     run,
}

const (
	seeds = 100
	// costLimit is in microseconds.
	costLimit = 2
)

func run(ctx context.Context, log io.Writer) (*experiment.Result, error) {
	python, err := reference(ctx, log)
	if err != nil {
		return nil, err
	}
	_, _ = fmt.Fprintf(log, "playing %d cases of %d seeds\n", len(simulation.Suite()), seeds)
	pairs, err := simulation.Agreement(ctx, python, seeds)
	if err != nil {
		return nil, err
	}
	of := map[string]simulation.Pair{}
	for _, p := range pairs {
		of[p.Case.Name()] = p
	}
	r := &experiment.Result{
		Load: fmt.Sprintf("regret: the mean over %d seeds, on streams of numbers whose loss is the model's; the bound is what is proven, see package simulation. Reference: the papers in numpy, with its own random numbers. Cost: Select, Combine and Observe of one query on 5 models of which nothing is known, on one core, the median of %d rounds of %d",
			seeds, costRounds, costQueries),
		Columns: []string{"policy and stream", "steps", "regret", "bound", "reference", "standard errors apart", "us/query", "allocs/query"},
	}
	ofBound, apart := 0.0, 0.0
	var names []string
	var regrets, bounds []float64
	for _, c := range simulation.Suite() {
		row := []any{c.Name(), c.Steps, 0.0, c.Bound, "-", "-", "-", "-"}
		if p, ok := of[c.Name()]; ok {
			row[2], row[4], row[5] = p.Mean, p.ReferenceMean, p.Apart()
			apart = max(apart, math.Abs(p.Apart()))
		} else {
			all, err := c.Regrets(seeds)
			if err != nil {
				return nil, err
			}
			row[2], _ = simulation.Mean(all)
		}
		regret, _ := row[2].(float64)
		r.Rows = append(r.Rows, row)
		if c.Bound > 0 {
			ofBound = max(ofBound, regret/c.Bound)
			names, regrets, bounds = append(names, c.Name()), append(regrets, max(regret, 1)), append(bounds, c.Bound)
		} else if regret > 0 {
			ofBound = math.Inf(1)
		}
	}
	r.Bars = []experiment.Bar{
		experiment.AtMost("largest regret as a share of its bound", ofBound, "", 1),
		experiment.AtMost("furthest from the reference", apart, "standard errors", simulation.Noise),
	}
	if err := costs(r, log); err != nil {
		return nil, err
	}
	r.Plot = &experiment.Plot{
		Title: "Regret and its bound", Y: "regret", Names: names, LogY: true,
		Series: []experiment.Series{{Name: "measured", Y: regrets}, {Name: "bound", Y: bounds}},
	}
	return r, nil
}

// costs adds a row for each policy and the bars.
func costs(r *experiment.Result, log io.Writer) error {
	slowest, allocated := 0.0, 0.0
	for _, name := range policies.Names() {
		p, err := policies.New(name, nil)
		if err != nil {
			return err
		}
		c := costOf(p)
		_, _ = fmt.Fprintf(log, "%s: %.3f us\n", name, c.microseconds)
		r.Rows = append(r.Rows, []any{name + ", cost", costQueries, "-", "-", "-", "-", c.microseconds, c.allocations})
		allocated = max(allocated, c.allocations)
		if name == "thompson" { // It integrates; the others do not.
			continue
		}
		slowest = max(slowest, c.microseconds)
	}
	r.Bars = append(r.Bars,
		experiment.AtMost("slowest policy but thompson", slowest, "us a query", costLimit),
		experiment.AtMost("allocations", allocated, "a query", 0),
	)
	return nil
}

// reference returns a Python that has what the reference implementation needs.
func reference(ctx context.Context, log io.Writer) (string, error) {
	root, err := system.Root(ctx)
	if err != nil {
		return "", err
	}
	command := exec.CommandContext(ctx, filepath.Join(root, "tools", "venv.sh"), "reference", "selector/policy/simulation/requirements.txt")
	command.Dir, command.Stderr = root, log
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("make the Python environment: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}
