// SPDX-License-Identifier: Apache-2.0

// Package delay measures what it gains to hold batches back until more queries have come.
package delay

import (
	"context"
	"fmt"
	"io"
	"math"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/layer"
	"github.com/clipper-serving/clipper/bench/load"
	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Experiment is the experiment.
var Experiment = experiment.Experiment{
	Name:    "delay",
	Summary: "throughput over the time that batches are held back, for a model with a high fixed cost and one without (figure 5)",
	Run:     layer.Run(run),
}

const (
	// offered is the paper's load.
	offered = 20000
	// callers wait for their answers, so that a small batch keeps most of them waiting.
	callers = 64
	// patience is the time that a caller gives a query: much longer than any of the batches takes.
	patience = 250 * time.Millisecond
	rounds   = 3
	window   = 2 * time.Second
	// auto is the setting that decides by what the layer has learned.
	auto = "auto"
)

var (
	profiles = []string{"linear_svm", "spark_svm"}
	// settings are the delays in order.
	settings = []string{"0s", "1ms", "2ms", "4ms", auto}

	// paperQPS is figure 5, by profile and delay.
	paperQPS = map[string]map[string]float64{
		"linear_svm": {"0s": 5510, "1ms": 16452, "2ms": 18454},
		"spark_svm":  {"0s": 18300, "1ms": 18300, "2ms": 18300, "4ms": 18300},
	}
)

// batching returns the batching with a setting.
func batching(setting string) (*clipperv1.Batching, error) {
	b := layer.Policy("slo")
	if setting == auto {
		b.AutoDelay = true
		return b, nil
	}
	d, err := time.ParseDuration(setting)
	b.MaxDelay = durationpb.New(d)
	return b, err
}

// figures are the medians of the rounds with one setting.
type figures struct{ open, openP99, openRows, closed, closedP99, closedRows float64 }

func run(ctx context.Context, b system.Binaries, log io.Writer) (*experiment.Result, error) {
	r := &experiment.Result{
		Load: fmt.Sprintf("beside the layer, 16 floats a query, one replica, slo; offered: Poisson arrivals, %d/s, those answered in %v count; callers: %d who give a query %v and ask again when they are answered; %d rounds of %v of every setting in turn, medians. The paper offered %d/s",
			offered, layer.Objective, callers, patience, rounds, window, offered),
		Columns: []string{"profile", "delay", "offered: answered/s", "p99 ms", "rows/batch", "callers: answered/s", "p99 ms of callers", "rows/batch of callers", "callers over no delay", "paper/s", "paper over no delay"},
		Plot:    &experiment.Plot{Title: "Throughput of callers who wait, over the delay", Y: "queries/s", Names: settings},
	}
	gain, least, decided := 0.0, math.Inf(1), 0.0
	for _, profile := range profiles {
		all, err := measure(ctx, layer.Synthetic(b.Synthetic, profile), log)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", profile, err)
		}
		series := experiment.Series{Name: profile}
		base := all[0]
		for i, s := range settings {
			f := all[i]
			paper, paperRatio := any("-"), any("-")
			if qps, ok := paperQPS[profile][s]; ok {
				paper, paperRatio = qps, qps/paperQPS[profile]["0s"]
			}
			r.Rows = append(r.Rows, []any{profile, s, f.open, f.openP99, f.openRows, f.closed, f.closedP99, f.closedRows, f.closed / base.closed, paper, paperRatio})
			series.Y = append(series.Y, f.closed)
			switch {
			case profile == "linear_svm":
				gain = max(gain, f.closed/base.closed, f.open/base.open)
			case s == auto:
				decided = f.closed / base.closed
				fallthrough
			default:
				least = min(least, f.open/base.open)
			}
		}
		r.Plot.Series = append(r.Plot.Series, series)
	}
	r.Bars = []experiment.Bar{
		experiment.AtLeast("throughput with the best delay over none, linear_svm", gain, "x", 3.3),
		experiment.AtLeast("answered of those offered with the worst delay over none, spark_svm", least, "x", 0.97),
		experiment.AtLeast("throughput of callers with auto over none, spark_svm", decided, "x", 0.97),
	}
	return r, nil
}

func measure(ctx context.Context, command []string, log io.Writer) ([]figures, error) {
	layers := make([]*layer.Layer, len(settings))
	for i, s := range settings {
		b, err := batching(s)
		if err != nil {
			return nil, err
		}
		if layers[i], err = layer.Start(ctx, layer.Config{Containers: [][]string{command}, Batching: b}); err != nil {
			return nil, err
		}
		defer layers[i].Stop()
	}
	all := make([]struct{ open, openP99, openRows, closed, closedP99, closedRows []float64 }, len(settings))
	for round := range rounds {
		for i, l := range layers {
			a := &all[i]
			rows, err := rowsPerBatch(l, func() error {
				m, err := l.Measure(ctx, load.Poisson, offered, window, 400+uint64(round))
				a.open, a.openP99 = append(a.open, m.Goodput()), append(a.openP99, m.P99.Seconds()*1e3)
				return err
			})
			if err != nil {
				return nil, err
			}
			a.openRows = append(a.openRows, rows)
			var asked atomic.Int64
			rows, err = rowsPerBatch(l, func() error {
				m := load.Closed(ctx, callers, window, func(ctx context.Context) error { return l.Ask(ctx, int(asked.Add(1)), patience) })
				a.closed, a.closedP99 = append(a.closed, m.Throughput), append(a.closedP99, m.P99.Seconds()*1e3)
				return m.FirstError
			})
			if err != nil {
				return nil, err
			}
			a.closedRows = append(a.closedRows, rows)
			_, _ = fmt.Fprintf(log, "round %d of %d, delay %s: offered %.0f/s, callers %.0f/s\n", round+1, rounds, settings[i], a.open[round], a.closed[round])
		}
	}
	medians := make([]figures, len(settings))
	for i, a := range all {
		m := experiment.Median
		medians[i] = figures{m(a.open), m(a.openP99), m(a.openRows), m(a.closed), m(a.closedP99), m(a.closedRows)}
	}
	return medians, nil
}

// rowsPerBatch returns the mean size of the batches while do runs.
func rowsPerBatch(l *layer.Layer, do func() error) (float64, error) {
	batches, rows, err := l.Batches()
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	batchesAfter, rowsAfter, err := l.Batches()
	return (rowsAfter - rows) / max(1, batchesAfter-batches), err
}
