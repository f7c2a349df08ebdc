// SPDX-License-Identifier: Apache-2.0

// Package cache measures what the prediction cache gives and costs.
package cache

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/layer"
	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// Experiment is the experiment.
var Experiment = experiment.Experiment{
	Name:    "cache",
	Summary: "throughput over the cache's hit rate, what a miss costs, and how much faster feedback joins its predictions",
	Run:     layer.Run(run),
}

const (
	outstanding = 1024
	hitWindow   = 2 * time.Second
	// hot is the number of inputs that come again and again.
	hot = 1024
)

// paperQPS is throughput over hit rate in %, Spark SVM with one replica; measured for the paper and not
// printed in it.
var paperQPS = map[int]float64{0: 7800, 50: 14800, 80: 38000, 90: 80000}

func run(ctx context.Context, b system.Binaries, log io.Writer) (*experiment.Result, error) {
	r := &experiment.Result{
		Load: fmt.Sprintf("beside the layer, 16 floats a query. Hit rates: %d queries always under way, spark_svm, slo, windows of %v. Misses: a container that does nothing and inputs that are all new, cache off and on in turn, %d rounds of %v, medians, the processor time that the cache adds by pairs; over gRPC to one process, %d callers on one connection, and beside the layer, %d queries always under way, the generator's processor time included. Feedback: over gRPC to one process, %d batches of %d always under way, four models (rf, spark_svm, linear_svm, log_reg), exp4, each feedback names an input that was asked before",
			outstanding, hitWindow, missRounds, missWindow, missCallers, outstanding, feedbackCallers, feedbackBatch),
		Columns: []string{"measured", "per second", "of its base", "us of CPU a query", "paper/s", "paper of its base"},
		Plot:    &experiment.Plot{Title: "Throughput over hit rate", X: "hit rate %", Y: "times that without hits"},
	}
	ours, paper := experiment.Series{Name: "Clipper (Go)"}, experiment.Series{Name: "paper"}
	var base float64
	for _, percent := range []int{0, 50, 80, 90} {
		rate, err := hits(ctx, b, percent)
		if err != nil {
			return nil, fmt.Errorf("%d %% hits: %w", percent, err)
		}
		_, _ = fmt.Fprintf(log, "%d %% hits: %.0f/s\n", percent, rate)
		if percent == 0 {
			base = rate
		}
		r.Rows = append(r.Rows, []any{fmt.Sprintf("%d %% hits", percent), rate, rate / base, "-", paperQPS[percent], paperQPS[percent] / paperQPS[0]})
		ours.X, ours.Y = append(ours.X, float64(percent)), append(ours.Y, rate/base)
		paper.X, paper.Y = append(paper.X, float64(percent)), append(paper.Y, paperQPS[percent]/paperQPS[0])
	}
	r.Plot.Series = []experiment.Series{ours, paper}

	whole, err := missesOutside(ctx, b, log)
	if err != nil {
		return nil, fmt.Errorf("misses over gRPC: %w", err)
	}
	inside, err := missesInside(ctx, b, log)
	if err != nil {
		return nil, fmt.Errorf("misses beside the layer: %w", err)
	}
	r.Rows = append(r.Rows,
		[]any{"no-op over gRPC, cache off", whole.off, 1.0, 1e6 * whole.offCPU, "-", "-"},
		[]any{"no-op over gRPC, cache on, only misses", whole.on, whole.on / whole.off, 1e6 * whole.onCPU, "-", "-"},
		[]any{"no-op beside the layer, cache off", inside.off, 1.0, 1e6 * inside.offCPU, "-", "-"},
		[]any{"no-op beside the layer, cache on, only misses", inside.on, inside.on / inside.off, 1e6 * inside.onCPU, "-", "-"})

	without, err := feedback(ctx, b, false)
	if err != nil {
		return nil, fmt.Errorf("feedback without the cache: %w", err)
	}
	with, err := feedback(ctx, b, true)
	if err != nil {
		return nil, fmt.Errorf("feedback with the cache: %w", err)
	}
	r.Rows = append(r.Rows, []any{"feedback, cache off", without, 1.0, "-", 6708.0, 1.0}, []any{"feedback, cache on", with, with / without, "-", 10929.0, 10929.0 / 6708})
	r.Bars = []experiment.Bar{
		experiment.AtMost("CPU of a query over gRPC that the cache adds when it never hits", 100*whole.added, "%", 3),
		experiment.AtMost("CPU of a query at the layer's limit that the cache adds when it never hits", 100*inside.added, "%", 3),
		experiment.AtLeast("feedback with the cache over that without", with/without, "x", 1.6),
	}
	return r, nil
}

// freshTensors returns an input that differs from those of every other n and from the layer's rows.
func freshTensors(n int64) []*clipperv1.Tensor {
	data := make([]byte, 64)
	binary.LittleEndian.PutUint64(data, uint64(n)|1<<62) // Finite numbers.
	return []*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{16}, Data: data}}
}

// hits returns the throughput when so many in a hundred queries are answered from the cache.
func hits(ctx context.Context, b system.Binaries, percent int) (float64, error) {
	l, err := layer.Start(ctx, layer.Config{
		Containers: [][]string{layer.Synthetic(b.Synthetic, "spark_svm")}, Batching: layer.Policy("slo"), Cached: true,
	})
	if err != nil {
		return 0, err
	}
	defer l.Stop()
	// 37 has no factor in common with 100, so that hits and misses are spread evenly; each input that
	// comes again has been asked many times before the measurement begins.
	rate, _, err := l.Saturate(ctx, layer.Saturation{
		Outstanding: outstanding, Warm: hitWindow / 2, For: hitWindow,
		Input: func(n int64) *tensor.Input {
			if n*37%100 < int64(percent) {
				return tensor.FromTensors(l.Rows[n%hot])
			}
			return tensor.FromTensors(freshTensors(n))
		},
	})
	return rate, err
}
