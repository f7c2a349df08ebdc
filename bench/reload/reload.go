// SPDX-License-Identifier: Apache-2.0

// Package reload deploys a new version under load, lets it become current, and goes back.
package reload

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
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
	Name:    "reload",
	Summary: "a new version under load: warm-up, switch and rollback; what queries notice",
	Run:     layer.Run(run),
}

const (
	model  = "model"
	rate   = 2000
	rounds = 12
	window = 2 * time.Second
	// begin is the time under load before a change is made.
	begin = 300 * time.Millisecond
	// deadline is far enough to see how long queries take that a change holds up.
	deadline = 250 * time.Millisecond
)

func run(ctx context.Context, b system.Binaries, log io.Writer) (*experiment.Result, error) {
	s, err := layer.StartService(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Stop()
	deploy := func(ctx context.Context, version string) error {
		_, err := s.Models.DeployModel(ctx, &clipperv1.DeployModelRequest{Version: &clipperv1.ModelVersion{
			Model: model, Version: version,
			Signature: &clipperv1.Signature{Inputs: []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{16}}}},
			Container: &clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: layer.Steady(b.Synthetic, "linear_svm")}}},
			Cache:     &clipperv1.Cache{Disabled: true},
		}})
		if err != nil {
			return fmt.Errorf("deploy version %s: %w", version, err)
		}
		return s.Await(ctx, model, version, clipperv1.ModelState_MODEL_STATE_READY, true)
	}
	if err := deploy(ctx, "1"); err != nil {
		return nil, err
	}

	quiet, again, switched, back := newWindow(), newWindow(), newWindow(), newWindow()
	var switchTimes, backTimes []float64
	total := load.OpenMeasurement{}
	measure := func(into *hdrhistogram.Histogram, seed uint64, change func(context.Context) error, to string) (took float64, err error) {
		changed := make(chan error, 1)
		var asked, first atomic.Int64 // when the change was asked for, and when the first answer of its version came
		go func() {
			select {
			case <-time.After(begin):
			case <-ctx.Done():
			}
			asked.Store(time.Now().UnixNano())
			changed <- change(ctx)
		}()
		m, err := s.Open(ctx, model, load.OpenConfig{
			Schedule: load.Schedule(load.Poisson, rate, begin+window, seed), WarmUp: begin, Objective: deadline,
		}, func(version string) {
			if version == to && first.Load() == 0 {
				first.CompareAndSwap(0, time.Now().UnixNano())
			}
		})
		if err := <-changed; err != nil {
			return 0, err
		}
		if m.Offered == 0 && err != nil {
			return 0, err
		}
		if err != nil { // A result, not the end.
			_, _ = fmt.Fprintf(log, "change to version %s: %v\n", to, err)
		}
		total.Offered, total.Late, total.Refused = total.Offered+m.Offered, total.Late+m.Late, total.Refused+m.Refused
		total.Failed, total.Lost = total.Failed+m.Failed, total.Lost+m.Lost
		into.Merge(m.Latencies)
		_, _ = fmt.Fprintf(log, "p99 %.2f ms\n", m.P99.Seconds()*1e3)
		return float64(first.Load()-asked.Load()) / 1e6, nil
	}
	nothing := func(context.Context) error { return nil }
	for round := range rounds {
		next := fmt.Sprint(round + 2)
		seed := uint64(round) + 1
		_, _ = fmt.Fprintf(log, "round %d of %d: nothing, a new version, rollback, nothing:\n", round+1, rounds)
		// The same load in each of the four windows.
		if _, err := measure(quiet, seed, nothing, "1"); err != nil {
			return nil, err
		}
		took, err := measure(switched, seed, func(ctx context.Context) error { return deploy(ctx, next) }, next)
		if err != nil {
			return nil, err
		}
		tookBack, err := measure(back, seed, func(ctx context.Context) error {
			_, err := s.Models.SetCurrentVersion(ctx, &clipperv1.SetCurrentVersionRequest{Model: model, Version: "1"})
			return err
		}, "1")
		if err != nil {
			return nil, err
		}
		if _, err := s.Models.DeleteModelVersion(ctx, &clipperv1.DeleteModelVersionRequest{Model: model, Version: next}); err != nil {
			return nil, err
		}
		if _, err := measure(again, seed, nothing, "1"); err != nil {
			return nil, err
		}
		switchTimes, backTimes = append(switchTimes, took), append(backTimes, tookBack)
	}
	med := experiment.Median
	over := func(w *hdrhistogram.Histogram) float64 { return p99(w) / p99(quiet) }
	return &experiment.Result{
		Load: fmt.Sprintf("Poisson arrivals, %d/s, 16 floats a query, deadline %v, the service called in its process; one replica with the paper's linear_svm profile, 10 %% of noise and no stalls, for each version; %d rounds of four windows of %v with the same load, the p99 of all rounds together. The paper has no such experiment",
			rate, deadline, rounds, window),
		Columns: []string{"window", "p99 ms", "over the first", "first answer of the version asked for after ms"},
		Rows: [][]any{
			{"nothing changes", p99(quiet), 1., "-"},
			{"a new version is deployed and becomes current", p99(switched), over(switched), med(switchTimes)},
			{"back to the version before", p99(back), over(back), med(backTimes)},
			{"nothing changes, again: how far two measurements of the same are apart", p99(again), over(again), "-"},
		},
		Plot: &experiment.Plot{
			Title: "p99 while versions change", Y: "ms", Names: []string{"nothing changes", "new version", "rollback", "nothing changes"},
			Values: []float64{p99(quiet), p99(switched), p99(back), p99(again)},
		},
		Bars: []experiment.Bar{
			experiment.AtMost("p99 while a new version is deployed and becomes current, over that of the same load without a change", over(switched), "x", 1.1),
			experiment.AtMost("p99 while the version before becomes current again, over the same", over(back), "x", 1.1),
			experiment.AtMost(fmt.Sprintf("of %d queries answered with an error, refused or lost", total.Offered), float64(total.Failed+total.Refused+total.Lost), "", 0),
			experiment.AtMost(fmt.Sprintf("of %d queries not answered by their deadline", total.Offered), float64(total.Late), "", 0),
		},
	}, nil
}

// newWindow returns a histogram of latencies in nanoseconds, for the same window in all rounds.
func newWindow() *hdrhistogram.Histogram {
	return hdrhistogram.New(int64(time.Microsecond), int64(time.Minute), 3)
}

// p99 returns its 99th percentile in milliseconds.
func p99(h *hdrhistogram.Histogram) float64 {
	return time.Duration(h.ValueAtQuantile(99)).Seconds() * 1e3
}
