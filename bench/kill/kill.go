// SPDX-License-Identifier: Apache-2.0

// Package kill kills containers under load and counts what their queries notice.
package kill

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/layer"
	"github.com/clipper-serving/clipper/bench/load"
	"github.com/clipper-serving/clipper/bench/system"
)

// Experiment is the experiment.
var Experiment = experiment.Experiment{
	Name:    "kill",
	Summary: "one of two replicas is killed under load, twenty times: what becomes of the queries",
	Run:     layer.Run(run),
}

const (
	replicas = 2
	kills    = 20
	rate     = 8000
	// deadline leaves time for another try: a batch takes about 6 ms.
	deadline = 250 * time.Millisecond
	// before is the time under load before each kill, after that until the window's end.
	before = 150 * time.Millisecond
	after  = 350 * time.Millisecond
)

func run(ctx context.Context, b system.Binaries, log io.Writer) (*experiment.Result, error) {
	command := layer.Synthetic(b.Synthetic, "linear_svm")
	l, err := layer.Start(ctx, layer.Config{Containers: [][]string{command, command}, Batching: layer.Policy("slo")})
	if err != nil {
		return nil, err
	}
	defer l.Stop()
	warm, err := measure(ctx, l, 0)
	if err != nil {
		return nil, err
	}
	_, _ = fmt.Fprintf(log, "both replicas: p99 %v\n", warm.P99)

	r := &experiment.Result{
		Load: fmt.Sprintf("Poisson arrivals beside the layer, %d/s, 16 floats a query, deadline %v, slo, %d replicas with the paper's linear_svm profile; %d times one of them gets SIGKILL %v into a window of %v and is started again at once. The paper has no such experiment",
			rate, deadline, replicas, kills, before, before+after),
		Columns: []string{"kill", "replica", "queries", "answered", "late", "refused", "errors", "lost", "tried again", "p99 ms", "longest ms"},
		Plot:    &experiment.Plot{Title: "Longest time of a query while a replica is killed", X: "kill", Y: "ms"},
	}
	var total load.OpenMeasurement
	longest := experiment.Series{Name: "longest"}
	retried, hit := 0.0, 0
	for i := range kills {
		victim := i % replicas
		retriesBefore, err := l.Counter("clipper_model_retried_rows_total")
		if err != nil {
			return nil, err
		}
		killed := make(chan error, 1)
		go func() {
			select {
			case <-time.After(before):
			case <-ctx.Done():
			}
			l.Container(victim).Kill()
			killed <- l.Launch(victim)
		}()
		m, err := measure(ctx, l, uint64(i)+1)
		if err := <-killed; err != nil {
			return nil, fmt.Errorf("start again: %w", err)
		}
		// A query with an error is a result here.
		if m.Offered == 0 {
			return nil, err
		}
		if err != nil {
			_, _ = fmt.Fprintf(log, "kill %d: %v\n", i+1, err)
		}
		retriesAfter, err := l.Counter("clipper_model_retried_rows_total")
		if err != nil {
			return nil, err
		}
		again := retriesAfter - retriesBefore
		retried += again
		if again > 0 {
			hit++
		}
		if err := l.AwaitReady(ctx); err != nil {
			return nil, err
		}
		total.Offered, total.InTime, total.Late = total.Offered+m.Offered, total.InTime+m.InTime, total.Late+m.Late
		total.Refused, total.Failed, total.Lost = total.Refused+m.Refused, total.Failed+m.Failed, total.Lost+m.Lost
		r.Rows = append(r.Rows, []any{i + 1, victim, m.Offered, m.InTime, m.Late, m.Refused, m.Failed, m.Lost, again, m.P99.Seconds() * 1e3, m.Max.Seconds() * 1e3})
		longest.X, longest.Y = append(longest.X, float64(i+1)), append(longest.Y, m.Max.Seconds()*1e3)
	}
	r.Plot.Series = []experiment.Series{longest}
	r.Rows = append(r.Rows, []any{"all", "-", total.Offered, total.InTime, total.Late, total.Refused, total.Failed, total.Lost, retried, "-", "-"})
	r.Bars = []experiment.Bar{
		experiment.AtMost("queries lost", float64(total.Lost), "", 0),
		experiment.AtMost("queries answered with an error", float64(total.Failed), "", 0),
		experiment.AtMost("queries refused or late", float64(total.Refused+total.Late), "", 0),
		experiment.AtLeast("kills that met a batch under way, whose queries were tried again", float64(hit), "", kills/2),
	}
	return r, nil
}

func measure(ctx context.Context, l *layer.Layer, seed uint64) (load.OpenMeasurement, error) {
	return l.Open(ctx, load.OpenConfig{Schedule: load.Schedule(load.Poisson, rate, before+after, seed), Objective: deadline})
}
