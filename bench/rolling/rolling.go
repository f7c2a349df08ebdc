// SPDX-License-Identifier: Apache-2.0

// Package rolling rolls a model to its next version and back under load, again and again, with each
// launcher.
package rolling

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/layer"
	"github.com/clipper-serving/clipper/bench/load"
	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Experiment is the experiment.
var Experiment = experiment.Experiment{
	Name:    "rolling",
	Summary: "from one version to the next and back, twenty times under load, with each launcher; p99 over that without",
	Run:     layer.Run(run),
}

const (
	model  = "model"
	rate   = 1000
	rolls  = 20
	window = 4 * time.Second
	// begin is the time under load before a roll begins.
	begin = 300 * time.Millisecond
	// deadline is far enough to see how long queries take that a roll holds up.
	deadline = 250 * time.Millisecond
)

func run(ctx context.Context, b system.Binaries, log io.Writer) (*experiment.Result, error) {
	command := layer.Steady(b.Synthetic, "linear_svm")
	result := &experiment.Result{
		Load: fmt.Sprintf("Poisson arrivals, %d/s, 16 floats a query, deadline %v, the service called in its process; one replica with the paper's linear_svm profile, 10 %% of noise and no stalls, for each version; %d rounds of three windows of %v with the same load: nothing changes, a version is deployed, becomes current, the one before is made current and the new one is deleted, nothing changes. The p99 of all rounds together. The paper has no such experiment",
			rate, deadline, rolls, window),
		Columns: []string{"launcher", "window", "p99 ms", "over the first", "roll and back took ms"},
		Plot:    &experiment.Plot{Title: "p99 while versions roll", Y: "ms"},
	}
	process, err := layer.StartService(ctx)
	if err != nil {
		return nil, err
	}
	err = measure(ctx, log, result, "process", process, &clipperv1.Container{
		Source: &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: command}},
	})
	process.Stop()
	if err != nil {
		return nil, err
	}
	engine, err := layer.FindEngine(ctx)
	if err != nil {
		_, _ = fmt.Fprintf(log, "without Docker: %v\n", err)
		result.Rows = append(result.Rows, []any{"docker", "not measured: no engine", "-", "-", "-"})
		return result, nil
	}
	defer engine.Stop()
	image, err := engine.Image(ctx, command)
	if err != nil {
		return nil, err
	}
	inDocker, err := layer.StartService(ctx, engine.Launcher)
	if err != nil {
		return nil, err
	}
	defer inDocker.Stop()
	return result, measure(ctx, log, result, "docker", inDocker, &clipperv1.Container{
		Source: &clipperv1.Container_Image{Image: &clipperv1.Image{Reference: image}},
	})
}

// measure rolls and adds what came out.
func measure(ctx context.Context, log io.Writer, result *experiment.Result, launcher string, s *layer.Service, c *clipperv1.Container) error {
	deploy := func(ctx context.Context, version string) error {
		_, err := s.Models.DeployModel(ctx, &clipperv1.DeployModelRequest{Version: &clipperv1.ModelVersion{
			Model: model, Version: version, Container: c, Cache: &clipperv1.Cache{Disabled: true},
			Signature: &clipperv1.Signature{Inputs: []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{16}}}},
		}})
		if err != nil {
			return fmt.Errorf("deploy version %s: %w", version, err)
		}
		return s.Await(ctx, model, version, clipperv1.ModelState_MODEL_STATE_READY, true)
	}
	if err := deploy(ctx, "1"); err != nil {
		return err
	}
	quiet, rolling, again := newWindow(), newWindow(), newWindow()
	var took []float64
	within := 0 // rolls that ended while the load lasted
	total := load.OpenMeasurement{}
	under := func(into *hdrhistogram.Histogram, seed uint64, change func(context.Context) error) error {
		changed := make(chan error, 1)
		go func() {
			select {
			case <-time.After(begin):
			case <-ctx.Done():
			}
			changed <- change(ctx)
		}()
		m, err := s.Open(ctx, model, load.OpenConfig{
			Schedule: load.Schedule(load.Poisson, rate, begin+window, seed), WarmUp: begin, Objective: deadline,
		}, nil)
		if err := <-changed; err != nil {
			return err
		}
		if m.Offered == 0 && err != nil {
			return err
		}
		if err != nil { // A result, not the end.
			_, _ = fmt.Fprintf(log, "%v\n", err)
		}
		total.Offered, total.Late, total.Refused = total.Offered+m.Offered, total.Late+m.Late, total.Refused+m.Refused
		total.Failed, total.Lost = total.Failed+m.Failed, total.Lost+m.Lost
		into.Merge(m.Latencies)
		return nil
	}
	nothing := func(context.Context) error { return nil }
	for round := range rolls {
		next, seed := strconv.Itoa(round+2), uint64(round)+1
		roll := func(ctx context.Context) error {
			since := time.Now()
			if err := deploy(ctx, next); err != nil {
				return err
			}
			if _, err := s.Models.SetCurrentVersion(ctx, &clipperv1.SetCurrentVersionRequest{Model: model, Version: "1"}); err != nil {
				return err
			}
			_, err := s.Models.DeleteModelVersion(ctx, &clipperv1.DeleteModelVersionRequest{Model: model, Version: next})
			if time.Since(since) < window {
				within++
			}
			took = append(took, time.Since(since).Seconds()*1e3)
			return err
		}
		for _, part := range []struct {
			into   *hdrhistogram.Histogram
			change func(context.Context) error
		}{{quiet, nothing}, {rolling, roll}, {again, nothing}} {
			if err := under(part.into, seed, part.change); err != nil {
				return err
			}
		}
		_, _ = fmt.Fprintf(log, "%s: %d of %d, p99 so far %.2f ms, %.2f ms while rolling, %.2f ms\n", launcher, round+1, rolls, p99(quiet), p99(rolling), p99(again))
	}
	over := func(w *hdrhistogram.Histogram) float64 { return p99(w) / p99(quiet) }
	result.Rows = append(result.Rows,
		[]any{launcher, "nothing changes", p99(quiet), 1., "-"},
		[]any{launcher, "to the next version and back", p99(rolling), over(rolling), experiment.Median(took)},
		[]any{launcher, "nothing changes, again: how far two measurements of the same are apart", p99(again), over(again), "-"})
	result.Plot.Names = append(result.Plot.Names, launcher, launcher+", rolling")
	result.Plot.Values = append(result.Plot.Values, p99(quiet), p99(rolling))
	result.Bars = append(result.Bars,
		experiment.AtMost(launcher+": p99 while versions roll, over that of the same load without", over(rolling), "x", 1.1),
		experiment.AtMost(fmt.Sprintf("%s: of %d queries answered with an error or lost", launcher, total.Offered), float64(total.Failed+total.Lost), "", 0),
		experiment.AtMost(fmt.Sprintf("%s: of %d queries refused or not answered by their deadline", launcher, total.Offered), float64(total.Refused+total.Late), "", 0),
		experiment.AtLeast(launcher+": rolls that ended while the load lasted", float64(within), "", rolls))
	return nil
}

// newWindow returns a histogram of latencies in nanoseconds, for the same window in all rounds.
func newWindow() *hdrhistogram.Histogram {
	return hdrhistogram.New(int64(time.Microsecond), int64(time.Minute), 3)
}

// p99 returns its 99th percentile in milliseconds.
func p99(h *hdrhistogram.Histogram) float64 {
	return time.Duration(h.ValueAtQuantile(99)).Seconds() * 1e3
}
