// SPDX-License-Identifier: Apache-2.0

// Package exp is figure 8 of the Clipper paper through the running system: the best of five models fails for a
// while, and the policies Exp3 and Exp4 learn to do without it.
package exp

import (
	"context"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/clipper-serving/clipper/bench/cifar"
	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/layer"
	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Experiment is the experiment.
var Experiment = experiment.Experiment{
	Name:    "exp",
	Summary: "figure 8: Exp3 and Exp4 while the best of five models fails, beside every single model",
	Run:     layer.Run(run),
}

const (
	queries  = 20000
	failFrom = 5000
	failTo   = 10000
	seeds    = 20
	// every is how many queries lie between two points of a curve.
	every = 250
	// progressEvery is how long the log is silent.
	progressEvery = 20 * time.Second
)

// marks are the queries after which the errors are compared.
var marks = [3]int{failFrom, failTo, queries}

// setting is a policy with its parameters, and what the paper's rule reaches on the same recordings.
type setting struct {
	policy, name string
	parameters   map[string]float64
	paper        [3]float64
}

var (
	paperExp3 = [3]float64{.118, .167, .146}
	paperExp4 = [3]float64{.114, .156, .151}
	settings  = []setting{
		{"exp3", "the paper's", map[string]float64{"eta": 0.05, "gamma": 0, "floor": 1e-9}, paperExp3},
		{"exp3", "defaults", nil, paperExp3},
		{"exp4", "the paper's", map[string]float64{"eta": 0.2, "floor": 1e-9}, paperExp4},
		{"exp4", "defaults", nil, paperExp4},
	}
)

func run(ctx context.Context, b system.Binaries, log io.Writer) (*experiment.Result, error) {
	c, err := cifar.Start(ctx, b)
	if err != nil {
		return nil, err
	}
	defer c.Stop()
	models, err := c.DeployNetworks(ctx, "labels")
	if err != nil {
		return nil, err
	}

	begin := time.Now()
	var callers []*caller
	for _, s := range settings {
		for seed := range seeds {
			app := fmt.Sprintf("%s-%d-%d", s.policy, len(callers)/seeds, seed)
			err := c.CreateApplication(ctx, &clipperv1.Application{
				Name: app, Models: models,
				Policy:        &clipperv1.Policy{Name: s.policy, Parameters: s.parameters},
				DefaultOutput: structpb.NewNumberValue(-1),
				// No query is to be answered without a model: the figure is about learning, not about time.
				LatencyObjective: durationpb.New(10 * time.Second),
			})
			if err != nil {
				return nil, err
			}
			callers = append(callers, newCaller(c, app, models, uint64(seed)))
		}
	}
	if err := runAll(ctx, callers, log); err != nil {
		return nil, err
	}
	took := time.Since(begin)
	_, _ = fmt.Fprintf(log, "%d queries and as many feedbacks in %v\n", len(callers)*queries, took.Round(time.Second))
	return report(c, callers, took), nil
}

// runAll runs the callers side by side.
func runAll(ctx context.Context, callers []*caller, log io.Writer) error {
	group, calling := errgroup.WithContext(ctx)
	for _, caller := range callers {
		group.Go(func() error { return caller.run(calling) })
	}
	done := make(chan struct{})
	var progress sync.WaitGroup
	progress.Go(func() {
		for {
			select {
			case <-time.After(progressEvery):
			case <-done:
				return
			}
			asked := int64(0)
			for _, c := range callers {
				asked += c.asked.Load()
			}
			_, _ = fmt.Fprintf(log, "%d of %d queries\n", asked, len(callers)*queries)
		}
	})
	err := group.Wait()
	close(done)
	progress.Wait()
	return err
}

func report(c *cifar.System, callers []*caller, took time.Duration) *experiment.Result {
	r := &experiment.Result{
		Load: fmt.Sprintf("%d queries by each of %d callers, one for each setting and seed, side by side, each with an application, a query stream and a feedback stream of its own; a caller waits for its answer, then for the acknowledgement of its feedback, which is the truth, and then asks on. The whole of Clipper in one process, embedded store, five replay containers with the recorded answers of the paper's CIFAR-10 networks; the best one answers with Dirichlet noise from query %d to %d. %.0f queries/s and as many feedbacks/s. Errors are cumulative, in the mean of %d seeds; the paper's are those of its rule on the same recordings, and have three digits: bars compare what is rounded to as many",
			queries, len(callers), failFrom, failTo, float64(len(callers)*queries)/took.Seconds(), seeds),
		Columns: []string{"chooses", "parameters", "error at 5,000", "at 10,000", "at 20,000", "standard error at 20,000", "paper's at 5,000", "10,000", "20,000"},
		Plot:    &experiment.Plot{Title: "The best of five models fails from 5,000 to 10,000", X: "queries", Y: "cumulative error"},
	}
	defaults := 0
	for i, s := range settings {
		own := callers[i*seeds : (i+1)*seeds]
		curve := experiment.Series{Name: s.policy + ", " + s.name}
		for point := range queries / every {
			mean, _ := over(own, func(c *caller) float64 { return c.answers.curve[point] })
			curve.X, curve.Y = append(curve.X, float64((point+1)*every)), append(curve.Y, mean)
		}
		r.Plot.Series = append(r.Plot.Series, curve)
		cells := []any{s.policy, s.name}
		deviation := 0.0
		for k, mark := range marks {
			var mean float64
			mean, deviation = over(own, func(c *caller) float64 { return c.answers.at(mark) })
			cells = append(cells, mean)
			r.Bars = append(r.Bars, experiment.AtMost(fmt.Sprintf("%s, %s: error at %d", s.policy, s.name, mark), math.Round(mean*1000)/1000, "", s.paper[k]))
		}
		r.Rows = append(r.Rows, append(cells, deviation, s.paper[0], s.paper[1], s.paper[2]))
		for _, c := range own {
			defaults += c.defaults
		}
	}
	// Exp4 asks all, so that its feedback tells how each would have done alone.
	asksAll := callers[len(callers)-seeds:]
	best := math.Inf(1)
	for network := range c.Networks {
		cells := []any{fmt.Sprintf("network %d alone", network+1), "-"}
		deviation := 0.0
		for _, mark := range marks {
			var mean float64
			mean, deviation = over(asksAll, func(c *caller) float64 { return c.models[network].at(mark) })
			cells = append(cells, mean)
			if mark == queries {
				best = min(best, mean)
			}
		}
		r.Rows = append(r.Rows, append(cells, deviation, "-", "-", "-"))
	}
	for i, s := range settings {
		mean, _ := over(callers[i*seeds:(i+1)*seeds], func(c *caller) float64 { return c.answers.at(queries) })
		r.Bars = append(r.Bars, experiment.AtMost(fmt.Sprintf("%s, %s: error at %d, less the best single model's", s.policy, s.name, queries), mean-best, "", 0))
	}
	r.Bars = append(r.Bars, experiment.AtMost("default outputs", float64(defaults), "", 0))
	return r
}

// over returns the mean of a figure over callers, and the mean's standard error.
func over(callers []*caller, figure func(*caller) float64) (mean, deviation float64) {
	n, squares := float64(len(callers)), 0.0
	for _, c := range callers {
		mean += figure(c) / n
	}
	for _, c := range callers {
		squares += (figure(c) - mean) * (figure(c) - mean)
	}
	return mean, math.Sqrt(squares / (n - 1) / n)
}
