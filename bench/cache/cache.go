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

	missWindow = time.Second
	missRounds = 9
)

// paperQPS is throughput over hit rate in %, Spark SVM with one replica; measured for the paper and not
// printed in it.
var paperQPS = map[int]float64{0: 7800, 50: 14800, 80: 38000, 90: 80000}

func run(ctx context.Context, b system.Binaries, log io.Writer) (*experiment.Result, error) {
	r := &experiment.Result{
		Load: fmt.Sprintf("beside the layer, 16 floats a query. Hit rates: %d queries always under way, spark_svm, slo, windows of %v. Misses: a container that does nothing, all inputs new, cache on and off in turn, %d rounds of %v, median of the rounds' ratios. Feedback: over gRPC to one process, %d batches of %d always under way, four models (rf, spark_svm, linear_svm, log_reg), exp4, each feedback names an input that was asked before",
			outstanding, hitWindow, missRounds, missWindow, feedbackCallers, feedbackBatch),
		Columns: []string{"measured", "per second", "of its base", "paper/s", "paper of its base"},
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
		r.Rows = append(r.Rows, []any{fmt.Sprintf("%d %% hits", percent), rate, rate / base, paperQPS[percent], paperQPS[percent] / paperQPS[0]})
		ours.X, ours.Y = append(ours.X, float64(percent)), append(ours.Y, rate/base)
		paper.X, paper.Y = append(paper.X, float64(percent)), append(paper.Y, paperQPS[percent]/paperQPS[0])
	}
	r.Plot.Series = []experiment.Series{ours, paper}

	off, on, cost, err := misses(ctx, b, log)
	if err != nil {
		return nil, fmt.Errorf("misses: %w", err)
	}
	r.Rows = append(r.Rows, []any{"no-op, cache off", off, 1.0, "-", "-"}, []any{"no-op, cache on, only misses", on, on / off, "-", "-"})

	without, err := feedback(ctx, b, false)
	if err != nil {
		return nil, fmt.Errorf("feedback without the cache: %w", err)
	}
	with, err := feedback(ctx, b, true)
	if err != nil {
		return nil, fmt.Errorf("feedback with the cache: %w", err)
	}
	r.Rows = append(r.Rows, []any{"feedback, cache off", without, 1.0, 6708.0, 1.0}, []any{"feedback, cache on", with, with / without, 10929.0, 10929.0 / 6708})
	r.Bars = []experiment.Bar{
		experiment.AtMost("throughput lost to the cache when nothing is in it", 100*cost, "%", 3),
		experiment.AtLeast("feedback with the cache over that without", with/without, "x", 1.6),
	}
	return r, nil
}

// fresh returns an input that no other query has.
func fresh(n int64) *tensor.Input {
	data := make([]byte, 64)
	binary.LittleEndian.PutUint64(data, uint64(n)+1<<32)
	return tensor.FromTensors([]*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{16}, Data: data}})
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
			return fresh(n)
		},
	})
	return rate, err
}

// misses returns the median throughputs with the cache off and on, when no query finds anything in it,
// and the median of the shares that were lost to it.
func misses(ctx context.Context, b system.Binaries, log io.Writer) (off, on, cost float64, err error) {
	var layers [2]*layer.Layer
	for i := range layers {
		layers[i], err = layer.Start(ctx, layer.Config{Containers: [][]string{{b.Noop}}, Batching: layer.Policy("slo"), Cached: i == 1})
		if err != nil {
			return 0, 0, 0, err
		}
		defer layers[i].Stop()
	}
	var rates [2][]float64
	var costs []float64
	var asked int64
	for round := range missRounds {
		for i := range layers {
			// Which one comes first changes, so that neither gains by the order.
			i = (i + round) % 2
			begin := asked
			rate, answers, err := layers[i].Saturate(ctx, layer.Saturation{
				Outstanding: outstanding, Warm: missWindow / 4, For: missWindow,
				Input: func(n int64) *tensor.Input { return fresh(begin + n) },
			})
			if err != nil {
				return 0, 0, 0, err
			}
			asked += 4*answers + outstanding // More than there were.
			rates[i] = append(rates[i], rate)
		}
		costs = append(costs, 1-rates[1][round]/rates[0][round])
		_, _ = fmt.Fprintf(log, "misses, round %d of %d: off %.0f/s, on %.0f/s\n", round+1, missRounds, rates[0][round], rates[1][round])
	}
	return experiment.Median(rates[0]), experiment.Median(rates[1]), experiment.Median(costs), nil
}
