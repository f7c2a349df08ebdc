// SPDX-License-Identifier: Apache-2.0

// Package reload deploys a new version under load, lets it become current, and goes back.
package reload

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

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
	rounds = 7
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
			Container: &clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: layer.Synthetic(b.Synthetic, "linear_svm")}}},
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

	var quiet, switched, back, switchRatios, backRatios, switchTimes, backTimes []float64
	total := load.OpenMeasurement{}
	measure := func(seed uint64, change func(context.Context) error, to string) (p99, took float64, err error) {
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
			return 0, 0, err
		}
		if m.Offered == 0 && err != nil {
			return 0, 0, err
		}
		if err != nil { // A result, not the end.
			_, _ = fmt.Fprintf(log, "change to version %s: %v\n", to, err)
		}
		total.Offered, total.Late, total.Refused = total.Offered+m.Offered, total.Late+m.Late, total.Refused+m.Refused
		total.Failed, total.Lost = total.Failed+m.Failed, total.Lost+m.Lost
		return m.P99.Seconds() * 1e3, float64(first.Load()-asked.Load()) / 1e6, nil
	}
	nothing := func(context.Context) error { return nil }
	for round := range rounds {
		next := fmt.Sprint(round + 2)
		seed := uint64(round) + 1
		// The same load in each of the three windows.
		q, _, err := measure(seed, nothing, "1")
		if err != nil {
			return nil, err
		}
		w, took, err := measure(seed, func(ctx context.Context) error { return deploy(ctx, next) }, next)
		if err != nil {
			return nil, err
		}
		r, tookBack, err := measure(seed, func(ctx context.Context) error {
			_, err := s.Models.SetCurrentVersion(ctx, &clipperv1.SetCurrentVersionRequest{Model: model, Version: "1"})
			return err
		}, "1")
		if err != nil {
			return nil, err
		}
		if _, err := s.Models.DeleteModelVersion(ctx, &clipperv1.DeleteModelVersionRequest{Model: model, Version: next}); err != nil {
			return nil, err
		}
		_, _ = fmt.Fprintf(log, "round %d of %d: p99 %.2f ms, during a new version %.2f, during the rollback %.2f\n", round+1, rounds, q, w, r)
		quiet, switched, back = append(quiet, q), append(switched, w), append(back, r)
		switchRatios, backRatios = append(switchRatios, w/q), append(backRatios, r/q)
		switchTimes, backTimes = append(switchTimes, took), append(backTimes, tookBack)
	}
	med := experiment.Median
	return &experiment.Result{
		Load: fmt.Sprintf("Poisson arrivals, %d/s, 16 floats a query, deadline %v, the service called in its process; one replica with the paper's linear_svm profile for each version; %d rounds of three windows of %v with the same load, medians. The paper has no such experiment",
			rate, deadline, rounds, window),
		Columns: []string{"window", "p99 ms", "first answer of the version asked for after ms"},
		Rows: [][]any{
			{"nothing changes", med(quiet), "-"},
			{"a new version is deployed and becomes current", med(switched), med(switchTimes)},
			{"back to the version before", med(back), med(backTimes)},
		},
		Plot: &experiment.Plot{Title: "p99 while versions change", Y: "ms", Names: []string{"nothing changes", "new version", "rollback"}, Values: []float64{med(quiet), med(switched), med(back)}},
		Bars: []experiment.Bar{
			experiment.AtMost("p99 while a new version is deployed and becomes current, over that of the same load without a change", med(switchRatios), "x", 1.1),
			experiment.AtMost("p99 while the version before becomes current again, over the same", med(backRatios), "x", 1.1),
			experiment.AtMost(fmt.Sprintf("of %d queries answered with an error, refused or lost", total.Offered), float64(total.Failed+total.Refused+total.Lost), "", 0),
			experiment.AtMost(fmt.Sprintf("of %d queries not answered by their deadline", total.Offered), float64(total.Late), "", 0),
		},
	}, nil
}
