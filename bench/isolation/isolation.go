// SPDX-License-Identifier: Apache-2.0

// Package isolation measures what a model notices of a neighbour that takes all it can get.
package isolation

import (
	"context"
	"fmt"
	"io"
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
	Name:    "isolation",
	Summary: "a model under load beside a container that takes all the processor and memory it can get; p99 over that without",
	Run:     layer.Run(run),
}

const (
	model, neighbour = "model", "neighbour"
	rate             = 200
	rounds           = 10
	window           = 4 * time.Second
	warmUp           = time.Second
	deadline         = 250 * time.Millisecond
	// limit is the most that p99 may rise.
	limit = 1.15
)

// limits are what the neighbour may use.
var limits = &clipperv1.Resources{Cpus: 0.5, MemoryBytes: 256 << 20}

func run(ctx context.Context, b system.Binaries, log io.Writer) (*experiment.Result, error) {
	busy := []string{b.Synthetic, "--fixed", "2ms", "--per-row", "100us", "--busy"}
	hog := []string{b.Synthetic, "--hog"}
	result := &experiment.Result{
		Load: fmt.Sprintf("Poisson arrivals, %d/s, 16 floats a query, the service called in its process; one replica that computes for 2 ms + 0.1 ms a row. %d rounds of two windows of %v with the same load: alone, and beside a container on all processors that takes 64 MiB more each second, held to %g processors and %d MiB, and started again whenever the kernel has killed it. The p99 of all rounds together. The paper argues for containers with this and has no figure",
			rate, rounds, window, limits.Cpus, limits.MemoryBytes>>20),
		Columns: []string{"launcher", "window", "p50 ms", "p99 ms", "p99 over alone", "late, refused or lost"},
		Plot:    &experiment.Plot{Title: "p99 beside a greedy neighbour", Y: "ms"},
	}
	engine, err := layer.FindEngine(ctx)
	if err != nil {
		return nil, &experiment.SkipError{Reason: err.Error()}
	}
	defer engine.Stop()
	s, err := layer.StartService(ctx, engine.Launcher)
	if err != nil {
		return nil, err
	}
	defer s.Stop()
	var containers []*clipperv1.Container
	for _, command := range [][]string{busy, hog} {
		image, err := engine.Image(ctx, command)
		if err != nil {
			return nil, err
		}
		containers = append(containers, &clipperv1.Container{Source: &clipperv1.Container_Image{Image: &clipperv1.Image{Reference: image}}})
	}
	return result, measure(ctx, log, result, "docker", s, containers[0], containers[1])
}

// measure adds what the model's queries see alone and beside the neighbour.
func measure(ctx context.Context, log io.Writer, result *experiment.Result, launcher string, s *layer.Service, busy, hog *clipperv1.Container) error {
	deploy := func(name string, c *clipperv1.Container) error {
		_, err := s.Models.DeployModel(ctx, &clipperv1.DeployModelRequest{Version: &clipperv1.ModelVersion{
			Model: name, Version: "1", Container: c, Cache: &clipperv1.Cache{Disabled: true},
			Signature: &clipperv1.Signature{Inputs: []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{16}}}},
		}})
		return err
	}
	if err := deploy(model, busy); err != nil {
		return err
	}
	if err := s.Await(ctx, model, "1", clipperv1.ModelState_MODEL_STATE_READY, true); err != nil {
		return err
	}
	hog.Resources = limits
	var alone, beside seen
	for round := range rounds {
		seed := uint64(round) + 1
		if err := alone.window(ctx, s, seed); err != nil {
			return err
		}
		if err := deploy(neighbour, hog); err != nil {
			return err
		}
		if err := s.Await(ctx, neighbour, "1", clipperv1.ModelState_MODEL_STATE_READY, true); err != nil {
			return err
		}
		if err := beside.window(ctx, s, seed); err != nil {
			return err
		}
		if _, err := s.Models.DeleteModel(ctx, &clipperv1.DeleteModelRequest{Model: neighbour}); err != nil {
			return err
		}
		_, _ = fmt.Fprintf(log, "%s: %d of %d, p99 so far %.2f ms alone, %.2f ms beside the neighbour\n", launcher, round+1, rounds, alone.quantile(99), beside.quantile(99))
	}
	over := beside.quantile(99) / alone.quantile(99)
	result.Rows = append(result.Rows,
		[]any{launcher, "alone", alone.quantile(50), alone.quantile(99), 1., alone.missed},
		[]any{launcher, "beside the neighbour", beside.quantile(50), beside.quantile(99), over, beside.missed})
	result.Plot.Names = append(result.Plot.Names, launcher+", alone", launcher+", beside")
	result.Plot.Values = append(result.Plot.Values, alone.quantile(99), beside.quantile(99))
	result.Bars = append(result.Bars,
		experiment.AtMost(launcher+": p99 beside a greedy neighbour over that alone", over, "x", limit),
		experiment.AtMost(launcher+": queries late, refused or lost beside it", float64(beside.missed), "", float64(alone.missed)))
	return nil
}

// seen is what queries have seen in windows of a kind.
type seen struct {
	latencies *hdrhistogram.Histogram
	missed    int
}

func (w *seen) window(ctx context.Context, s *layer.Service, seed uint64) error {
	m, err := s.Open(ctx, model, load.OpenConfig{
		Schedule: load.Schedule(load.Poisson, rate, warmUp+window, seed), WarmUp: warmUp, Objective: deadline,
	}, nil)
	if m.Offered == 0 {
		return err
	}
	if w.latencies == nil {
		w.latencies = hdrhistogram.New(int64(time.Microsecond), int64(time.Minute), 3)
	}
	w.latencies.Merge(m.Latencies)
	w.missed += m.Late + m.Refused + m.Failed + m.Lost
	return nil
}

// quantile returns a quantile in milliseconds.
func (w *seen) quantile(percent float64) float64 {
	return time.Duration(w.latencies.ValueAtQuantile(percent)).Seconds() * 1e3
}
