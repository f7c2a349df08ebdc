// SPDX-License-Identifier: Apache-2.0

// Package overload measures what is left of the service when more is asked than it can bear.
package overload

import (
	"context"
	"fmt"
	"io"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/layer"
	"github.com/clipper-serving/clipper/bench/load"
	"github.com/clipper-serving/clipper/bench/system"
)

// Experiment is the experiment.
var Experiment = experiment.Experiment{
	Name:    "overload",
	Summary: "queries answered in time at 1.5 times the capacity, and how fast the others are refused",
	Run:     layer.Run(run),
}

const (
	factor = 1.5
	rounds = 3
)

var (
	// profiles are those with a capacity to speak of: rf and kernel_svm take half of the objective for one row.
	profiles    = []string{"linear_svm", "spark_svm"}
	controllers = []string{"aimd", "slo"}
)

func run(ctx context.Context, b system.Binaries, log io.Writer) (*experiment.Result, error) {
	r := &experiment.Result{
		Load: fmt.Sprintf("open load beside the layer, 16 floats a query, one replica, %g times the capacity that each controller has at %.0f %% in %v with the same kind of arrivals; %d rounds of 2 s, medians. The paper has no such experiment",
			factor, 100*layer.Target, layer.Objective, rounds),
		Columns: []string{"profile", "controller", "arrivals", "capacity/s", "offered/s", "in time %", "refused %", "late %", "refused within ms (p99)", "p99 ms"},
		Plot:    &experiment.Plot{Title: "Answered in time at 1.5 times the capacity", Y: "% of the offered queries"},
	}
	series := make([]experiment.Series, len(controllers))
	for _, profile := range profiles {
		for i, c := range controllers {
			series[i].Name = c
			rows, err := measure(ctx, layer.Config{Containers: [][]string{layer.Synthetic(b.Synthetic, profile)}, Batching: layer.Policy(c)}, log)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", profile, c, err)
			}
			for _, f := range rows {
				r.Rows = append(r.Rows, append([]any{profile, c}, f.cells()...))
				series[i].Y = append(series[i].Y, 100*f.inTime)
				if c == "slo" {
					r.Bars = append(r.Bars,
						experiment.AtLeast(fmt.Sprintf("in time, slo, %s, %v", profile, f.arrivals), 100*f.inTime, "%", 60),
						experiment.AtMost(fmt.Sprintf("time to be refused (p99), slo, %s, %v", profile, f.arrivals), f.refusedP99, "ms", 5))
				}
			}
		}
		for _, a := range []load.Arrivals{load.Poisson, load.Bursty} {
			r.Plot.Names = append(r.Plot.Names, fmt.Sprintf("%s, %v", profile, a))
		}
	}
	r.Plot.Series = series
	return r, nil
}

// figures are those of one kind of arrivals: shares of the offered queries, and milliseconds.
type figures struct {
	arrivals              load.Arrivals
	capacity, offered     float64
	inTime, refused, late float64
	refusedP99, p99       float64
}

func (f figures) cells() []any {
	return []any{f.arrivals, f.capacity, f.offered, 100 * f.inTime, 100 * f.refused, 100 * f.late, f.refusedP99, f.p99}
}

func measure(ctx context.Context, cfg layer.Config, log io.Writer) ([]figures, error) {
	l, err := layer.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer l.Stop()
	var all []figures
	for _, a := range []load.Arrivals{load.Poisson, load.Bursty} {
		capacity, _, err := l.Capacity(ctx, a, load.Search{From: 512, Step: 2, Precision: 0.03, Probes: 20})
		if err != nil {
			return nil, err
		}
		_, _ = fmt.Fprintf(log, "%v: %s, %v: capacity %.0f/s\n", cfg.Containers[0][2], cfg.Batching.Policy, a, capacity)
		var inTime, refused, late, refusedP99, p99 []float64
		for seed := range uint64(rounds) {
			m, err := l.Measure(ctx, a, factor*capacity, 2*layer.Window(capacity), 300+seed)
			if err != nil {
				return nil, err
			}
			n := float64(m.Offered)
			inTime, refused, late = append(inTime, m.Fraction()), append(refused, float64(m.Refused)/n), append(late, float64(m.Late)/n)
			refusedP99, p99 = append(refusedP99, m.RefusedP99.Seconds()*1e3), append(p99, m.P99.Seconds()*1e3)
		}
		all = append(all, figures{
			arrivals: a, capacity: capacity, offered: factor * capacity,
			inTime: experiment.Median(inTime), refused: experiment.Median(refused), late: experiment.Median(late),
			refusedP99: experiment.Median(refusedP99), p99: experiment.Median(p99),
		})
	}
	return all, nil
}
