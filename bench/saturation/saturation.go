// SPDX-License-Identifier: Apache-2.0

// Package saturation measures the controllers of batches as the paper did for its figure 4: more
// queries wait than the replica can answer, and the objective is that of a batch.
package saturation

import (
	"context"
	"fmt"
	"io"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/clipper-serving/clipper/bench/batching"
	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/layer"
	"github.com/clipper-serving/clipper/bench/system"
	"github.com/clipper-serving/clipper/internal/tensor"
)

const (
	// climb is the time that aimd needs to get from one row to a thousand.
	climb  = 12 * time.Second
	settle = 2 * time.Second
	window = 4 * time.Second
)

// Experiment is the experiment.
var Experiment = experiment.Experiment{
	Name:    "saturation",
	Summary: "throughput of each batch controller when more waits than can be answered, batches of 20 ms (figure 4)",
	Run:     layer.Run(run),
}

// outstanding is more than two of the largest batches that the objective allows.
func outstanding(profile string) int {
	if profile == "kernel_svm" { // Batches of two.
		return 64
	}
	return 4096
}

var controllers = []string{"none", "aimd", "quantile", "slo"}

func run(ctx context.Context, b system.Binaries, log io.Writer) (*experiment.Result, error) {
	r := &experiment.Result{
		Load: fmt.Sprintf("closed loop beside the layer, %d queries of 16 floats outstanding (kernel_svm: %d), one replica; latency objective of a batch %v, queries have a minute; %v each after %v (aimd, quantile: %v)",
			outstanding("noop"), outstanding("kernel_svm"), layer.Objective, window, settle, climb),
		Columns: []string{"profile", "controller", "queries/s", "rows/batch", "batches within 20 ms %", "over none", "paper/s", "paper over none"},
		Plot:    &experiment.Plot{Title: "Throughput, batches of 20 ms", Y: "queries/s", Names: batching.Profiles, LogY: true},
	}
	rates := map[string]map[string]float64{}
	within := math.Inf(1)
	series := make([]experiment.Series, len(controllers))
	for _, profile := range batching.Profiles {
		rates[profile] = map[string]float64{}
		for i, c := range controllers {
			m, err := measure(ctx, b, profile, c)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", profile, c, err)
			}
			_, _ = fmt.Fprintf(log, "%s: %s: %.0f/s\n", profile, c, m.rate)
			rates[profile][c] = m.rate
			series[i].Name = c
			series[i].Y = append(series[i].Y, m.rate)
			paper, paperRatio := any("-"), any("-")
			if qps, ok := batching.PaperQPS[profile][c]; ok {
				paper, paperRatio = qps, qps/batching.PaperQPS[profile]["none"]
			}
			r.Rows = append(r.Rows, []any{profile, c, m.rate, m.rows, 100 * m.within, m.rate / rates[profile]["none"], paper, paperRatio})
			if c == "slo" && m.rows > 1.5 { // Of single rows the controller can make no faster ones.
				within = min(within, m.within)
			}
		}
	}
	r.Plot.Series = series
	over := func(profile string) float64 { return rates[profile]["slo"] / rates[profile]["none"] }
	r.Bars = []experiment.Bar{
		experiment.AtLeast("slo over none, linear_svm", over("linear_svm"), "x", 26),
		experiment.AtLeast("slo over none, rf", over("rf"), "x", 70),
		experiment.AtLeast("batches of slo within 20 ms, the profile where they are fewest", 100*within, "%", 99),
	}
	return r, nil
}

// measured is what one controller did with one profile.
type measured struct{ rate, rows, within float64 }

func measure(ctx context.Context, b system.Binaries, profile, controller string) (m measured, err error) {
	policy := layer.Policy(controller)
	policy.LatencyObjective = durationpb.New(layer.Objective)
	l, err := layer.Start(ctx, layer.Config{Containers: [][]string{layer.Synthetic(b.Synthetic, profile)}, Batching: policy})
	if err != nil {
		return m, err
	}
	defer l.Stop()
	warm := settle
	if controller == "aimd" || controller == "quantile" {
		warm = climb
	}
	var before, after layer.BatchCounts
	var beforeErr, afterErr error
	m.rate, _, err = l.Saturate(ctx, layer.Saturation{
		Outstanding: outstanding(profile), Warm: warm, For: window,
		Input: func(n int64) *tensor.Input { return tensor.FromTensors(l.Rows[n%int64(len(l.Rows))]) },
		Begin: func() { before, beforeErr = l.BatchCounts() },
		End:   func() { after, afterErr = l.BatchCounts() },
	})
	for _, e := range []error{err, beforeErr, afterErr} {
		if e != nil {
			return m, e
		}
	}
	n := max(1, after.Batches-before.Batches)
	m.rows, m.within = (after.Rows-before.Rows)/n, (after.InTime-before.InTime)/n
	return m, nil
}
