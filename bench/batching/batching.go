// SPDX-License-Identifier: Apache-2.0

package batching

import (
	"context"
	"fmt"
	"io"
	"math"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/layer"
	"github.com/clipper-serving/clipper/bench/system"
)

// Experiment compares the controllers with the profiles of figure 3 of the paper.
var Experiment = experiment.Experiment{
	Name:    "batching",
	Summary: "the rate that each batch controller bears in 20 ms, for the paper's six latency profiles (figures 3 and 4)",
	Run:     layer.Run(run),
}

// controllers are in the order in which they are measured: each capacity is where the next search
// begins.
var controllers = []string{"none", "aimd", "quantile", "slo", "fixed"}

// PaperQPS is figure 4: queries per second of six models served at once, each with one replica on a
// core of its own, at 20 ms.
var PaperQPS = map[string]map[string]float64{
	"noop":       {"aimd": 48386, "quantile": 46085, "none": 8964},
	"linear_svm": {"aimd": 48934, "quantile": 47879, "none": 1921},
	"log_reg":    {"aimd": 47220, "quantile": 43954, "none": 1921},
	"spark_svm":  {"aimd": 29351, "quantile": 27743, "none": 7207},
	"rf":         {"aimd": 22859, "quantile": 19904, "none": 317},
	"kernel_svm": {"aimd": 198, "quantile": 189, "none": 203},
}

// Profiles are those of figure 3.
var Profiles = []string{"noop", "linear_svm", "log_reg", "spark_svm", "rf", "kernel_svm"}

func run(ctx context.Context, b system.Binaries, log io.Writer) (*experiment.Result, error) {
	r := &experiment.Result{
		Load: fmt.Sprintf("Poisson arrivals beside the layer, 16 floats a query, one replica; the capacity is the highest rate, found within 2 %% (none: 10 %%), at which %.0f %% of the queries are answered in %v of their arrival; windows of 1 to 8 s, the same loads for every controller",
			100*layer.Target, layer.Objective),
		Columns: []string{"profile", "controller", "capacity/s", "p50 ms", "p99 ms", "rows/batch", "over none", "paper/s", "paper over none"},
		Plot:    &experiment.Plot{Title: "Capacity at 99 % in 20 ms", Y: "queries/s", Names: Profiles, LogY: true},
	}
	series := make([]experiment.Series, len(controllers))
	var ownShare []experiment.Bar
	worst := math.Inf(1)
	results := map[string]map[string]*measured{}
	for _, profile := range Profiles {
		all, err := compare(ctx, layer.Config{Containers: [][]string{layer.Synthetic(b.Synthetic, profile)}}, profile, log, controllers...)
		if err != nil {
			return nil, err
		}
		results[profile] = all
		for i, c := range controllers {
			m := all[c]
			series[i].Name = c
			series[i].Y = append(series[i].Y, m.capacity)
			paper, paperRatio := any("-"), any("-")
			if qps, ok := PaperQPS[profile][c]; ok {
				paper, paperRatio = qps, qps/PaperQPS[profile]["none"]
			}
			r.Rows = append(r.Rows, []any{
				profile, label(m), m.capacity, ms(m.at.P50), ms(m.at.P99), m.rows, m.capacity / all["none"].capacity, paper, paperRatio,
			})
		}
		slo := all["slo"]
		ownShare = append(ownShare, experiment.AtLeast(
			fmt.Sprintf("in time at 90 %% of its capacity, slo, %s (%d queries)", profile, slo.queries), 100*slo.fraction, "%", 100*layer.Target))
		worst = min(worst, slo.capacity/all["aimd"].capacity)
	}
	r.Plot.Series = series

	low := lowShare * results["linear_svm"]["none"].capacity
	p50SLO, p50None, err := atLowLoad(ctx, layer.Config{Containers: [][]string{layer.Synthetic(b.Synthetic, "linear_svm")}}, low, "slo", "none")
	if err != nil {
		return nil, err
	}
	outside, err := fromOutside(ctx, b, results["linear_svm"]["slo"].batching)
	if err != nil {
		return nil, fmt.Errorf("from outside: %w", err)
	}
	r.Rows = append(r.Rows, outside)

	over := func(profile, a, b string) float64 { return results[profile][a].capacity / results[profile][b].capacity }
	r.Bars = append([]experiment.Bar{
		experiment.AtLeast("slo over none, linear_svm", over("linear_svm", "slo", "none"), "x", 26),
		experiment.AtLeast("slo over aimd, linear_svm", over("linear_svm", "slo", "aimd"), "x", 1.8),
		experiment.AtLeast("slo over aimd, the profile where it is least", worst, "x", 0.97),
		experiment.AtMost(fmt.Sprintf("p50 of slo over none at %.0f queries/s, linear_svm", low), p50SLO/p50None, "x", 1.05),
	}, ownShare...)
	return r, nil
}

func label(m *measured) string {
	if m.controller == "fixed" {
		return fmt.Sprintf("fixed, %d rows", m.batching.MaxBatchRows)
	}
	return m.controller
}

func ms(d interface{ Seconds() float64 }) float64 { return d.Seconds() * 1e3 }
