// SPDX-License-Identifier: Apache-2.0

// Package offpolicy holds the intervals of off-policy estimates against streams whose truth is known.
package offpolicy

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/clipper-serving/clipper/bench/experiment"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/selector/decisionlog"
	"github.com/clipper-serving/clipper/selector/evaluate"
	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/policies"
)

// Experiment is the experiment.
var Experiment = experiment.Experiment{
	Name:    "offpolicy",
	Summary: "how often the 95 % intervals of off-policy estimates hold the truth",
	Run:     run,
}

const (
	// The coverage of 500 runs has a standard deviation of 1 %, so that of the thirteen bars below one would
	// often be missed by chance; that of 2,000 has half of it.
	runs      = 2000
	decisions = 1000
)

// A query has a feature x, uniform in [-1, 1]; model m is right with the probability means[m] + slopes[m]*x,
// so that its mean reward is means[m].
var (
	names  = []string{"a", "b", "c"}
	means  = []float64{0.8, 0.6, 0.5}
	slopes = []float64{-0.15, 0.3, 0.45}
)

// stream is a logging policy and a target.
type stream struct {
	name       string
	log        string // the policy that logs
	parameters map[string]float64
	weights    []float64 // of the logging policy's models
	target     []float64 // weights of the static target
	features   bool
}

var streams = []stream{
	{name: "A/B test", log: "static", weights: []float64{0.6, 0.3, 0.1}, target: []float64{0.2, 0.3, 0.5}},
	{name: "A/B test, features", log: "static", weights: []float64{0.6, 0.3, 0.1}, target: []float64{0.2, 0.3, 0.5}, features: true},
	{name: "Exp3 that learns", log: "exp3", parameters: map[string]float64{"eta": 0.02, "gamma": 0.2}, weights: []float64{1, 1, 1}, target: []float64{0.2, 0.3, 0.5}},
	{name: "one model", log: "static", weights: []float64{0.2, 0.3, 0.5}, target: []float64{1, 0, 0}},
	{name: "ensemble", log: "exp4", weights: []float64{1, 1, 1}, target: []float64{0.2, 0.3, 0.5}},
}

func run(ctx context.Context, log io.Writer) (*experiment.Result, error) {
	r := &experiment.Result{
		Load:    fmt.Sprintf("%d logs of %d decisions each for every stream, seeds 0 to %d; three models that are right with a probability which depends on the query; the target asks them by fixed weights, and its mean reward is known", runs, decisions, runs-1),
		Columns: []string{"log", "estimate", "truth", "mean", "mean width of the interval", "coverage %"},
		Plot:    &experiment.Plot{Title: "95 % intervals that hold the truth", Y: "%"},
	}
	for _, s := range streams {
		if err := s.measure(ctx, r); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		_, _ = fmt.Fprintf(log, "%s: done\n", s.name)
	}
	return r, nil
}

func (s stream) measure(ctx context.Context, r *experiment.Result) error {
	truth := 0.0
	for m, w := range s.target {
		truth += w * means[m]
	}
	app := application("static", s.target)
	type tally struct{ covered, reward, width float64 }
	tallies := map[string]*tally{}
	var order []string
	for seed := range uint64(runs) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		log, err := s.logOf(rand.New(rand.NewPCG(seed, 17)))
		if err != nil {
			return err
		}
		report, err := evaluate.Run(app, log, evaluate.Options{})
		if err != nil {
			return err
		}
		for _, e := range report.Estimates {
			t := tallies[e.Name]
			if t == nil {
				t = &tally{}
				tallies[e.Name], order = t, append(order, e.Name)
			}
			if e.Lower <= truth && truth <= e.Upper {
				t.covered++
			}
			t.reward += e.Reward / runs
			t.width += (e.Upper - e.Lower) / runs
		}
	}
	for _, name := range order {
		t := tallies[name]
		coverage := 100 * t.covered / runs
		r.Rows = append(r.Rows, []any{s.name, name, truth, t.reward, t.width, coverage})
		r.Bars = append(r.Bars, experiment.Bar{Name: s.name + ", " + name, Value: coverage, Unit: "%", Want: "93 to 97", OK: coverage >= 93 && coverage <= 97})
		r.Plot.Names = append(r.Plot.Names, s.name+" "+name)
		r.Plot.Values = append(r.Plot.Values, coverage)
	}
	return nil
}

func application(name string, weights []float64) *clipperv1.Application {
	app := &clipperv1.Application{
		Name: "stream", Policy: &clipperv1.Policy{Name: name}, DefaultOutput: structpb.NewNumberValue(-1),
		Output: &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_LABEL, DataType: clipperv1.DataType_DATA_TYPE_INT64},
	}
	for m, w := range weights {
		app.Models = append(app.Models, &clipperv1.ApplicationModel{Model: names[m], Weight: w})
	}
	return app
}

// logOf runs the logging policy on a stream and returns what a selector would log.
func (s stream) logOf(random *rand.Rand) ([]decisionlog.Record, error) {
	p, err := policies.New(s.log, s.parameters)
	if err != nil {
		return nil, err
	}
	members := make([]policy.Member, len(names))
	for m, w := range s.weights {
		members[m].Weight = w
	}
	panel, _ := policy.NewPanel(p, members)
	state := &policy.State{Priors: panel.Priors(), Statistics: make([]float64, len(names)*len(p.Statistics()))}
	deltas := make([]float64, len(state.Statistics))
	log := make([]decisionlog.Record, decisions)
	for i := range log {
		at := time.Unix(int64(i), 0).UTC()
		x := 2*random.Float64() - 1
		d := decisionlog.Record{ID: strconv.Itoa(i), Time: at, Application: "stream", Policy: s.log, Feedback: &decisionlog.Feedback{Time: at, Truth: "1"}}
		if s.features {
			d.Features = []float64{x, 1}
		}
		var right [3]bool
		for m := range right {
			right[m] = random.Float64() < means[m]+slopes[m]*x
		}
		choices, _ := panel.Select(state, &policy.Query{Random: random, Features: d.Features}, nil)
		var losses []float64
		for _, c := range choices {
			label, loss := 1, 0.0
			if !right[c.Model] {
				label, loss = 2+c.Model, 1
			}
			losses = append(losses, loss)
			d.Models = append(d.Models, decisionlog.Model{Model: names[c.Model], Propensity: c.Propensity, Prediction: decisionlog.JSON(strconv.Itoa(label))})
			d.Feedback.Losses = append(d.Feedback.Losses, decisionlog.Loss{Model: names[c.Model], Loss: loss})
		}
		log[i] = d
		p.Observe(state, policy.Observation{Choices: choices, Losses: losses, Features: d.Features}, deltas)
		for j, delta := range deltas {
			state.Statistics[j] += delta
		}
	}
	return log, nil
}
