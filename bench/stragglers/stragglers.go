// SPDX-License-Identifier: Apache-2.0

// Package stragglers measures what it costs to wait for the slowest of an ensemble, and what it costs
// not to.
package stragglers

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/layer"
	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Experiment is the experiment.
var Experiment = experiment.Experiment{
	Name:    "stragglers",
	Summary: "ensembles of 1 to 16 models with stalls: latency and accuracy with answers at the deadline, early, and when all have answered (figure 9)",
	Run:     layer.Run(run),
}

// The containers. The profile rf is that of forests of 50 trees; those of figure 9 have 10, and answered in
// 9.7 ms in the mean when asked alone, which is one and a half batches of 0.6 of the profile's time. A
// stall is what the paper's figures for waiting say: 150 ms and more at 1 % of the queries of an ensemble of
// 8, and less than 1 % of those of a single model.
const (
	factor     = 0.6
	stall      = 38   // times the time of a batch: some 220 ms
	stallEvery = 5300 // batches: some 31 s
	// Errors of a model, as if it were one forest of 10 trees: 21.3 %, of which an ensemble can correct
	// 13.3 %, so that it comes to 8 %. The paper has 21.3 % for one, and 8.6 % for 16.
	independentErrors = 0.145
	commonErrors      = 0.08
)

const (
	// rate of the queries of each mode; both are asked at the same time.
	rate   = 500
	warm   = 2 * time.Second
	window = 30 * time.Second
	// earlyWindow is shorter: early answers are no rarer than others.
	earlyWindow = 3 * time.Second
	patience    = 10 * time.Second
)

// paper has the figures of the paper by the size of the ensemble; -1 where it has none. Latencies are the
// 99th percentile, in milliseconds.
var paper = []struct {
	size                                   int
	mitigated, blocking, missing, accuracy float64
}{
	{1, 17.0, 17.7, 1, 0.787},
	{2, -1, -1, -1, 0.758},
	{4, 17.1, 129, 12, 0.858},
	{8, 17.5, 152, 15, 0.894},
	{12, -1, -1, 39, -1},
	{16, 23.0, 154, 71, 0.914},
}

// A mode is an application for each size.
const (
	atDeadline = "deadline"
	early      = "early"
	blocking   = "blocking"
)

func run(ctx context.Context, b system.Binaries, log io.Writer) (*experiment.Result, error) {
	c, err := system.StartClipper(b, false)
	if err != nil {
		return nil, err
	}
	defer c.Stop()
	if err := deploy(ctx, c, b); err != nil {
		return nil, err
	}
	r := &experiment.Result{
		Load: fmt.Sprintf("the whole of Clipper in one process, asked over gRPC streams: %d queries/s (Poisson, 16 floats) with an objective of %v, and at the same time %d/s that wait for all models; %v for each size. Containers: profile rf x %g, 10 %% of noise, one batch in %d takes %d times as long; labels are generated, %.1f %% wrong, %.0f %% in common. Cache off. The paper offered 15,000/s",
			rate, layer.Objective, rate, window, factor, stallEvery, stall, 100*(1-(1-commonErrors)*(1-independentErrors)), 100*commonErrors),
		Columns: []string{
			"models", "p50 ms", "p99 ms", "in 20 ms %", "inside %", "p99 ms, paper", "early p50 ms", "early p99 ms", "blocking p99 ms", "blocking, paper",
			"missing %", "missing, paper", "accuracy", "accuracy, all", "accuracy, paper",
		},
		Plot: &experiment.Plot{Title: "Latency of ensembles with stragglers", X: "models", Y: "p99, ms", LogY: true, Series: make([]experiment.Series, 3)},
	}
	for i, name := range []string{atDeadline, early, blocking} {
		r.Plot.Series[i].Name = name
	}
	plot := func(series, size int, y time.Duration) {
		s := &r.Plot.Series[series]
		s.X, s.Y = append(s.X, float64(size)), append(s.Y, ms(y))
	}
	for _, p := range paper {
		both, err := ask(ctx, c, window, p.size, atDeadline, blocking)
		if err != nil {
			return nil, fmt.Errorf("%d models: %w", p.size, err)
		}
		soon, err := ask(ctx, c, earlyWindow, p.size, early)
		if err != nil {
			return nil, fmt.Errorf("%d models, early: %w", p.size, err)
		}
		given, all := both[0], both[1]
		inside, err := within(ctx, c, application(atDeadline, p.size))
		if err != nil {
			return nil, err
		}
		_, _ = fmt.Fprintf(log, "%d models: p99 %.2f ms, of which the generator at most %.2f; blocking %.1f ms; missing %.2f %%\n", p.size, ms(given.P99), ms(given.Lag), ms(all.P99), 100*given.missing)
		r.Rows = append(r.Rows, []any{
			p.size, ms(given.P50), ms(given.P99), 100 * given.Fraction(), 100 * inside, known(p.mitigated), ms(soon[0].P50), ms(soon[0].P99), ms(all.P99), known(p.blocking),
			100 * given.missing, known(p.missing), given.accuracy, all.accuracy, known(p.accuracy),
		})
		plot(0, p.size, given.P99)
		plot(1, p.size, soon[0].P99)
		plot(2, p.size, all.P99)
		r.Bars = append(r.Bars, experiment.AtMost(fmt.Sprintf("p99, %d models", p.size), ms(given.P99), "ms", ms(layer.Objective)))
		if p.size >= 4 {
			r.Bars = append(r.Bars, experiment.AtLeast(fmt.Sprintf("blocking p99, %d models", p.size), ms(all.P99), "ms", 100))
		}
		if p.missing >= 0 {
			r.Bars = append(r.Bars, experiment.AtMost(fmt.Sprintf("missing, %d models", p.size), 100*given.missing, "%", p.missing))
		}
	}
	return r, nil
}

// deploy runs the containers and creates the applications.
func deploy(ctx context.Context, c *system.Clipper, b system.Binaries) error {
	var models []*clipperv1.ApplicationModel
	for i := range paper[len(paper)-1].size {
		name := "forest-" + strconv.Itoa(i+1)
		command := []string{
			b.Synthetic, "--profile", "rf", "--factor", fmt.Sprint(factor), "--noise", "0.1", "--stall", strconv.Itoa(stall), "--stall-every", strconv.Itoa(stallEvery),
			"--errors", fmt.Sprint(independentErrors), "--hard", fmt.Sprint(commonErrors), "--seed", strconv.Itoa(i + 1),
		}
		err := c.Deploy(ctx, name, &clipperv1.ModelVersion{
			Container: &clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: command}}},
			Cache:     &clipperv1.Cache{Disabled: true},
			Batching:  layer.Policy("slo"),
			WarmUp:    &clipperv1.WarmUp{Disabled: true}, // Its rows would have no label.
		})
		if err != nil {
			return err
		}
		models = append(models, &clipperv1.ApplicationModel{Model: name})
	}
	for _, p := range paper {
		for mode, objective := range map[string]time.Duration{atDeadline: layer.Objective, early: layer.Objective, blocking: patience} {
			err := c.CreateApplication(ctx, &clipperv1.Application{
				Name: application(mode, p.size), Models: models[:p.size],
				Inputs:           []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{floats}}},
				Output:           &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_LABEL, DataType: clipperv1.DataType_DATA_TYPE_INT64},
				DefaultOutput:    structpb.NewNumberValue(-1),
				LatencyObjective: durationpb.New(objective),
				Policy:           &clipperv1.Policy{Name: "exp4"},
				AnswerEarly:      mode == early,
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// application is the name of the application of a mode that asks so many models.
func application(mode string, size int) string { return fmt.Sprintf("%s-%d", mode, size) }

// within returns the share of an application's queries that the selector has answered within the
// objective by its own clock.
func within(ctx context.Context, c *system.Clipper, app string) (float64, error) {
	const series = "clipper_selector_query_duration_seconds"
	answered, err := c.Metric(ctx, fmt.Sprintf(`%s_bucket{application=%q,le="%v"}`, series, app, layer.Objective.Seconds()))
	if err != nil {
		return 0, err
	}
	all, err := c.Metric(ctx, fmt.Sprintf("%s_count{application=%q}", series, app))
	if err != nil {
		return 0, err
	}
	return answered / all, nil
}

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }

// known is a cell for a figure that the paper may not have.
func known(x float64) any {
	if x < 0 {
		return "-"
	}
	return x
}
