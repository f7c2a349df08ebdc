// SPDX-License-Identifier: Apache-2.0

// Package cost measures what a query costs in the abstraction layer itself.
package cost

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"time"

	container "github.com/clipper-serving/clipper/containerrpc/go"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/layer"
	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// Experiment is the experiment.
var Experiment = experiment.Experiment{
	Name:    "cost",
	Summary: "processor time and allocations of a query in the layer itself, at full batches",
	Run:     layer.Run(run),
}

const (
	rows        = 512
	outstanding = 4 * rows
	rounds      = 5
	warm        = 500 * time.Millisecond
	window      = 2 * time.Second
	// ProfileVariable names the file that the CPU profile of the last round is written to.
	ProfileVariable = "CLIPPER_BENCH_PROFILE"
)

func run(ctx context.Context, b system.Binaries, log io.Writer) (*experiment.Result, error) {
	var all []shares
	var batch []float64
	for round := range rounds {
		s, perBatch, err := processor(ctx)
		if err != nil {
			return nil, fmt.Errorf("processor time: %w", err)
		}
		_, _ = fmt.Fprintf(log, "round %d of %d: %.2f us a query in the layer, %.1f rows a batch\n", round+1, rounds, s.perQuery(layerPart)+s.perQuery(runtimePart), perBatch)
		all, batch = append(all, s), append(batch, perBatch)
	}
	allocations, generator, err := allocations(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("allocations: %w", err)
	}
	r := &experiment.Result{
		Load: fmt.Sprintf("%d queries of 16 floats always under way, cache off, fixed batches of %d rows (%.0f in the mean); %d rounds of %v, medians. Processor time: the no-op container serves a unix socket in this process, and the samples of a CPU profile are told apart by labels that the goroutines of container and layer carry, and by the innermost function of Clipper: what the generator does is its own, though it runs on the layer's goroutines. What carries no label is the runtime's, garbage collection and scheduling, and is counted to the layer in full. Allocations: the container is a process of its own, the generator's are counted beforehand",
			outstanding, rows, experiment.Median(batch), rounds, window),
		Columns: []string{"part", "us of CPU a query", "allocations a query"},
		Plot:    &experiment.Plot{Title: "Processor time of a query", Y: "us"},
	}
	spent := func(p part) float64 {
		var figures []float64
		for _, s := range all {
			figures = append(figures, s.perQuery(p))
		}
		return experiment.Median(figures)
	}
	for _, p := range []part{layerPart, runtimePart, containerPart, generatorPart} {
		cells := []any{p.String(), spent(p), "-"}
		switch p {
		case layerPart:
			cells[2] = allocations
		case generatorPart:
			cells[2] = generator
		}
		r.Rows = append(r.Rows, cells)
		r.Plot.Names = append(r.Plot.Names, p.String())
		r.Plot.Values = append(r.Plot.Values, spent(p))
	}
	var inLayer []float64
	for _, s := range all {
		inLayer = append(inLayer, s.perQuery(layerPart)+s.perQuery(runtimePart))
	}
	r.Bars = []experiment.Bar{
		experiment.AtMost("CPU of a query in the layer and the runtime", experiment.Median(inLayer), "us", 4),
		experiment.AtMost("allocations of a query in the layer", allocations, "", 6),
	}
	if file := os.Getenv(ProfileVariable); file != "" {
		if err := os.WriteFile(file, all[rounds-1].raw, 0o600); err != nil {
			return nil, err
		}
		_, _ = fmt.Fprintf(log, "CPU profile of the last round in %s\n", file)
	}
	return r, nil
}

// batching makes every batch full.
var batching = &clipperv1.Batching{Policy: "fixed", MaxBatchRows: rows}

// saturation is the load. Each query has an Input of its own, which is hashed and read anew.
func saturation(l *layer.Layer) layer.Saturation {
	return layer.Saturation{
		Outstanding: outstanding, Warm: warm, For: window,
		Input: func(n int64) *tensor.Input { return input(l, n) },
	}
}

func input(l *layer.Layer, n int64) *tensor.Input {
	return tensor.FromTensors(l.Rows[n%int64(len(l.Rows))])
}

// processor profiles a layer with a container in this process.
func processor(ctx context.Context) (s shares, perBatch float64, err error) {
	folder, err := os.MkdirTemp("", "clipper-bench-")
	if err != nil {
		return s, 0, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", filepath.Join(folder, "container"))
	if err != nil {
		return s, 0, err
	}
	serving, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	// Goroutines inherit the labels of the one that starts them.
	go pprof.Do(serving, pprof.Labels(partLabel, containerPart.String()), func(ctx context.Context) {
		served <- container.Serve(ctx, container.Config{}, listener, noop{})
	})
	defer func() {
		stop()
		if e := <-served; err == nil {
			err = e
		}
	}()

	pprof.Do(ctx, pprof.Labels(partLabel, layerPart.String()), func(ctx context.Context) {
		var l *layer.Layer
		l, err = layer.Start(ctx, layer.Config{Addresses: []string{"unix:" + listener.Addr().String()}, Batching: batching})
		if err != nil {
			return
		}
		defer l.Stop()
		var profile bytes.Buffer
		load := saturation(l)
		load.Begin = func() { err = pprof.StartCPUProfile(&profile) }
		load.End = pprof.StopCPUProfile
		_, answers, loadErr := l.Saturate(ctx, load)
		if err == nil {
			err = loadErr
		}
		if err != nil {
			return
		}
		batches, answered, batchErr := l.Batches()
		if err = batchErr; err != nil {
			return
		}
		perBatch = answered / batches
		s, err = readProfile(profile.Bytes(), answers)
	})
	return s, perBatch, err
}

// noop answers 0 to every row, as the container of the same name does.
type noop struct{}

// Describe implements container.Model.
func (noop) Describe() *clipperv1.DescribeResponse {
	return &clipperv1.DescribeResponse{Signature: &clipperv1.Signature{
		Outputs: []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_INT64}},
	}}
}

// Predict implements container.Model.
func (noop) Predict(_ context.Context, b *container.Batch) (*container.Result, error) {
	return &container.Result{Outputs: []*clipperv1.BatchTensor{{DataType: clipperv1.DataType_DATA_TYPE_INT64, Data: make([]byte, 8*b.Rows)}}}, nil
}

// allocations returns how many objects a query allocates in the layer, and in the generator.
func allocations(ctx context.Context, b system.Binaries) (inLayer, generator float64, err error) {
	l, err := layer.Start(ctx, layer.Config{Containers: [][]string{{b.Noop}}, Batching: batching})
	if err != nil {
		return 0, 0, err
	}
	defer l.Stop()
	const samples = 10000
	var before, after runtime.MemStats
	kept := make([]*tensor.Input, samples)
	runtime.ReadMemStats(&before)
	for i := range kept {
		kept[i] = input(l, int64(i))
	}
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(kept)
	generator = float64(after.Mallocs-before.Mallocs) / samples

	load := saturation(l)
	load.Begin = func() { runtime.ReadMemStats(&before) }
	load.End = func() { runtime.ReadMemStats(&after) }
	_, answers, err := l.Saturate(ctx, load)
	if err != nil {
		return 0, 0, err
	}
	return float64(after.Mallocs-before.Mallocs)/float64(answers) - generator, generator, nil
}
