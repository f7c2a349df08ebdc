// SPDX-License-Identifier: Apache-2.0

// Package autoscaling compares rules for the number of replicas, in virtual time.
package autoscaling

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/clipper-serving/clipper/abstraction/autoscale"
	"github.com/clipper-serving/clipper/abstraction/autoscale/simulation"
	"github.com/clipper-serving/clipper/bench/experiment"
)

// Experiment is the experiment.
var Experiment = experiment.Experiment{
	Name:    "autoscaling",
	Summary: "replicas under steps, bursts and a day: Clipper's rule beside fixed numbers, concurrency (Knative) and processors (Kubernetes), in virtual time",
	Run:     run,
}

const (
	least, most = 1, 30
	// largest is the batch that a replica of the scenarios can have within the budget when there are some.
	largest = 15
	// The bars: the share in time, and how long replicas may take to follow.
	inTime = 97
	follow = 10
)

// rule is one of those that are compared.
type rule struct {
	name  string
	begin int
	make  func(s simulation.Scenario) simulation.Rule
}

// rules returns them all. fewest and all are the replicas for the lowest and the highest load, as Clipper's rule
// has it.
func rules(fewest, all int) []rule {
	return []rule{
		{"clipper", fewest, func(simulation.Scenario) simulation.Rule {
			return &simulation.Latency{Settings: autoscale.Settings{Min: least, Max: most}}
		}},
		{fmt.Sprintf("fixed at %d", fewest), fewest, func(simulation.Scenario) simulation.Rule { return simulation.Fixed(fewest) }},
		{fmt.Sprintf("fixed at %d", all), all, func(simulation.Scenario) simulation.Rule { return simulation.Fixed(all) }},
		{"concurrency", fewest, func(simulation.Scenario) simulation.Rule {
			return &simulation.Concurrency{Each: largest, Min: least, Max: most}
		}},
		{"processor", fewest, func(simulation.Scenario) simulation.Rule {
			return &simulation.Processor{Min: least, Max: most}
		}},
	}
}

// figures are the means over the seeds, and the worst of what is not to happen.
type figures struct {
	inTime, replicas, changes float64
	follows                   time.Duration // negative: never, in one of them
	flaps                     int
	curve                     *simulation.Outcome // of the first
}

// resultVariable names the file that the test writes the result to.
const resultVariable = "CLIPPER_BENCH_RESULT"

// run has the simulations run by the package's test: the standard library has a virtual clock for tests
// only.
func run(ctx context.Context, log io.Writer) (*experiment.Result, error) {
	folder, err := os.MkdirTemp("", "clipper-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	file := filepath.Join(folder, "result.json")
	test := exec.CommandContext(ctx, "go", "test", "-count=1", "-timeout=1h", "-run=^TestExperiment$",
		"github.com/clipper-serving/clipper/bench/autoscaling")
	test.Env = append(os.Environ(), resultVariable+"="+file)
	test.Stdout, test.Stderr = log, log
	if err := test.Run(); err != nil {
		return nil, fmt.Errorf("run the simulations: %w", err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := &experiment.Result{}
	return r, json.Unmarshal(data, r)
}

// simulate runs every rule in every scenario. virtually calls a function in virtual time.
func simulate(virtually func(func(context.Context)), seeds []uint64) (*experiment.Result, error) {
	m := meter{virtually: virtually, seeds: seeds}
	r := &experiment.Result{
		Load: fmt.Sprintf("simulation of the real queue, batch controllers and latency models in virtual time; 150 queries per second, 750 and 150 again, for a minute each, or between the two like a day in four minutes; Poisson arrivals, or bursts of 1.8 and 0.2 times the rate; each query has 150 ms; replicas take 20 ms + 5 ms a row with 10 %% noise, and 0.5 s or 3 s to start; 1 to %d replicas; means of %d seeds, the worst of them for following and flaps. Fixed numbers are those that Clipper's rule had at the end, and the most that it had. Concurrency: Knative's pod autoscaler with its defaults, 70 %% of %d queries for each replica. Processor: Kubernetes' horizontal pod autoscaler with its defaults, 70 %%",
			most, len(seeds), largest),
		Columns: []string{"load", "rule", "in time %", "mean replicas", "changes", "follows within s", "flaps"},
		Plot:    &experiment.Plot{Title: "Replicas under bursty steps", X: "s", Y: "replicas"},
	}
	for i, s := range simulation.Scenarios(1) {
		fewest, all, err := m.bounds(i)
		if err != nil {
			return nil, err
		}
		for _, rule := range rules(fewest, all) {
			f, err := m.measure(i, rule)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", s.Name, rule.name, err)
			}
			r.Rows = append(r.Rows, []any{s.Name, rule.name, f.inTime, f.replicas, f.changes, f.followed(s), f.flaps})
			if rule.name == "clipper" {
				r.Bars = append(r.Bars, experiment.AtLeast("in time, "+s.Name, f.inTime, "%", inTime))
				if len(s.Steps) > 0 {
					seconds := f.follows.Seconds()
					if f.follows < 0 {
						seconds = s.Load.Duration.Seconds()
					}
					r.Bars = append(r.Bars, experiment.AtMost("follows, "+s.Name, seconds, "s", follow))
				}
				most := 0.0
				if s.Load.Bursty {
					most = 1
				}
				r.Bars = append(r.Bars, experiment.AtMost("flaps of one run, "+s.Name, float64(f.flaps), "", most))
			}
			if s.Load.Bursty {
				r.Plot.Series = append(r.Plot.Series, curve(rule.name, f.curve))
			}
		}
	}
	return r, nil
}

func (f figures) followed(s simulation.Scenario) any {
	switch {
	case len(s.Steps) == 0:
		return "-"
	case f.follows < 0:
		return "never"
	}
	return f.follows.Seconds()
}

func curve(name string, o *simulation.Outcome) experiment.Series {
	series := experiment.Series{Name: name}
	for _, s := range o.Samples {
		series.X = append(series.X, s.At.Seconds())
		series.Y = append(series.Y, float64(s.Ready))
	}
	return series
}

// meter runs simulations.
type meter struct {
	virtually func(func(context.Context))
	seeds     []uint64
}

// bounds returns the fewest and the most replicas that Clipper's rule has in a scenario: those at the end, and
// the most at any time.
func (m *meter) bounds(scenario int) (fewest, all int, err error) {
	f, err := m.measure(scenario, rules(least, most)[0])
	if err != nil {
		return 0, 0, err
	}
	samples := f.curve.Samples
	fewest = samples[len(samples)-1].Wanted
	for _, s := range samples {
		all = max(all, s.Wanted)
	}
	return fewest, all, nil
}

// measure runs a scenario with each seed.
func (m *meter) measure(scenario int, r rule) (figures, error) {
	var f figures
	n := float64(len(m.seeds))
	for _, seed := range m.seeds {
		s := simulation.Scenarios(seed)[scenario]
		var o *simulation.Outcome
		var err error
		m.virtually(func(ctx context.Context) { o, err = simulation.Run(ctx, s.Load, s.Replica, r.begin, r.make(s)) })
		if err != nil {
			return f, err
		}
		if f.curve == nil {
			f.curve = o
		}
		f.inTime += 100 * o.InTime / n
		f.replicas += o.ReplicaSeconds / s.Load.Duration.Seconds() / n
		f.changes += float64(o.Changes) / n
		f.flaps = max(f.flaps, o.Flaps(s.Steps...))
		if follows := o.Follows(s.Steps...); follows < 0 || f.follows < 0 {
			f.follows = -1
		} else {
			f.follows = max(f.follows, follows)
		}
	}
	return f, nil
}
