// SPDX-License-Identifier: Apache-2.0

// Package replicas measures how the layer scales over replicas: more of them, one that is slow, and
// bursts on idle ones.
package replicas

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/layer"
	"github.com/clipper-serving/clipper/bench/load"
	"github.com/clipper-serving/clipper/bench/system"
)

// Experiment is the experiment.
var Experiment = experiment.Experiment{
	Name:    "replicas",
	Summary: "capacity with 1, 2, 4 and 8 replicas, with a slow one among four, and bursts on idle ones (figure 6)",
	Run:     layer.Run(run),
}

// The model is one whose rows weigh more than its batches, like a network on a processor: what more
// replicas gain is then theirs, not that of larger batches.
const (
	fixed  = 2 * time.Millisecond
	perRow = 300 * time.Microsecond

	slower      = 4 // times, the slow replica
	burst       = 64
	burstOn     = 4 // replicas
	bursts      = 40
	warmBursts  = 20
	burstPeriod = 60 * time.Millisecond
)

// paperQPS is figure 6: a convolutional network on 1 to 4 GPUs, on a network of 10 Gbit/s.
var paperQPS = map[int]float64{1: 19477, 2: 38538, 3: 57631, 4: 77122}

func command(b system.Binaries, more ...string) []string {
	return append([]string{b.Synthetic, "--fixed", fixed.String(), "--per-row", perRow.String()}, more...)
}

func noisy(b system.Binaries, seed int, more ...string) []string {
	return command(b, append([]string{"--noise", "0.1", "--stall-chance", "0.002", "--stall", "3", "--seed", fmt.Sprint(seed)}, more...)...)
}

func run(ctx context.Context, b system.Binaries, log io.Writer) (*experiment.Result, error) {
	r := &experiment.Result{
		Load: fmt.Sprintf("Poisson arrivals beside the layer, slo, 16 floats a query; replicas take %v + %v a row, with 10 %% noise and one batch in 500 three times as long; capacity at %.0f %% in %v, found within 2 %%",
			fixed, perRow, 100*layer.Target, layer.Objective),
		Columns: []string{"replicas", "capacity/s", "over one", "p99 ms", "paper/s", "paper over one"},
		Plot:    &experiment.Plot{Title: "Capacity over replicas", X: "replicas", Y: "times one replica"},
	}
	ours, paper := experiment.Series{Name: "Clipper (Go)"}, experiment.Series{Name: "paper, GPUs, 10 Gbit/s"}
	over := map[int]float64{}
	var one float64
	for _, n := range []int{1, 2, 4, 8} {
		var containers [][]string
		for i := range n {
			containers = append(containers, noisy(b, i+1))
		}
		rate, m, err := capacity(ctx, containers, max(500, 0.9*one*float64(n)))
		if err != nil {
			return nil, fmt.Errorf("%d replicas: %w", n, err)
		}
		_, _ = fmt.Fprintf(log, "%d replicas: %.0f/s\n", n, rate)
		if n == 1 {
			one = rate
		}
		over[n] = rate / one
		cells := []any{n, rate, over[n], m.P99.Seconds() * 1e3, "-", "-"}
		ours.X, ours.Y = append(ours.X, float64(n)), append(ours.Y, over[n])
		if qps, ok := paperQPS[n]; ok {
			cells[4], cells[5] = qps, qps/paperQPS[1]
			paper.X, paper.Y = append(paper.X, float64(n)), append(paper.Y, qps/paperQPS[1])
		}
		r.Rows = append(r.Rows, cells)
		r.Bars = append(r.Bars, experiment.AtMost(fmt.Sprintf("p99 at capacity, %d replicas", n), m.P99.Seconds()*1e3, "ms", layer.Objective.Seconds()*1e3))
	}
	r.Plot.Series = []experiment.Series{ours, paper}

	slow := noisy(b, 4, "--factor", fmt.Sprint(slower))
	alone, _, err := capacity(ctx, [][]string{slow}, one/8)
	if err != nil {
		return nil, fmt.Errorf("the slow replica: %w", err)
	}
	mixed, m, err := capacity(ctx, [][]string{noisy(b, 1), noisy(b, 2), noisy(b, 3), slow}, 3*one)
	if err != nil {
		return nil, fmt.Errorf("one slow replica of four: %w", err)
	}
	r.Rows = append(r.Rows,
		[]any{fmt.Sprintf("1, %d times slower", slower), alone, alone / one, "-", "-", "-"},
		[]any{fmt.Sprintf("4, one %d times slower", slower), mixed, mixed / one, m.P99.Seconds() * 1e3, "-", "-"})

	took, err := burstTime(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("bursts: %w", err)
	}
	part := (fixed + burst/burstOn*perRow).Seconds() * 1e3
	r.Rows = append(r.Rows, []any{fmt.Sprintf("%d, idle: a burst of %d", burstOn, burst), "-", "-", took, "-", "-"})
	r.Bars = append([]experiment.Bar{
		experiment.AtLeast("capacity of 4 replicas over 1", over[4], "x", 3.9),
		experiment.AtLeast("capacity of 8 replicas over 1", over[8], "x", 7.6),
		experiment.AtLeast(fmt.Sprintf("capacity of 4 replicas, one %d times slower, over the sum of their own", slower), mixed/(3*one+alone), "x", 0.95),
		experiment.AtMost(fmt.Sprintf("time of a burst of %d on %d idle replicas over that of a batch of %d", burst, burstOn, burst/burstOn), took/part, "x", 1.25),
	}, r.Bars...)
	return r, nil
}

func capacity(ctx context.Context, containers [][]string, from float64) (float64, load.OpenMeasurement, error) {
	l, err := layer.Start(ctx, layer.Config{Containers: containers, Batching: layer.Policy("slo")})
	if err != nil {
		return 0, load.OpenMeasurement{}, err
	}
	defer l.Stop()
	return l.Capacity(ctx, load.Poisson, load.Search{From: from, Step: 1.3, Precision: 0.02, Probes: 24})
}

// burstTime returns the median time in ms in which a burst on idle replicas is answered in full.
func burstTime(ctx context.Context, b system.Binaries) (float64, error) {
	l, err := layer.Start(ctx, layer.Config{Containers: slices.Repeat([][]string{command(b)}, burstOn), Batching: layer.Policy("slo")})
	if err != nil {
		return 0, err
	}
	defer l.Stop()
	var took []float64
	for i := range warmBursts + bursts {
		m, err := l.Open(ctx, load.OpenConfig{Schedule: make([]time.Duration, burst), Objective: burstPeriod})
		if err != nil {
			return 0, err
		}
		if i >= warmBursts {
			took = append(took, m.Max.Seconds()*1e3)
		}
	}
	return experiment.Median(took), nil
}
