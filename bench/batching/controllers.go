// SPDX-License-Identifier: Apache-2.0

// Package batching compares the controllers of batches: the rate that each bears with 99 % of the
// queries answered in 20 ms, for the profiles of the paper and for real scikit-learn models.
package batching

import (
	"context"
	"fmt"
	"io"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/layer"
	"github.com/clipper-serving/clipper/bench/load"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	// first is the rate at which the search for the first capacity begins.
	first = 64
	// share of its own capacity at which a controller is held to the objective.
	share = 0.9
	// lowShare of the capacity of none is a low load.
	lowShare = 0.3
	rounds   = 3
)

// far is a search that begins anywhere, near one that begins close to the capacity.
func far(from float64) load.Search {
	return load.Search{From: from, Step: 2, Precision: 0.1, Probes: 24}
}

func near(from float64) load.Search {
	return load.Search{From: from, Step: 1.2, Precision: 0.02, Probes: 30}
}

// measured is what one controller did with one model.
type measured struct {
	controller string
	batching   *clipperv1.Batching
	capacity   float64
	at         load.OpenMeasurement // at the capacity
	rows       float64              // of a batch, in the mean, at the share of the capacity
	fraction   float64              // in time, at the share of the capacity; the median of the rounds
	queries    int                  // of those rounds
}

// compare measures controllers with the containers of cfg, each with fresh ones.
func compare(ctx context.Context, cfg layer.Config, name string, log io.Writer, controllers ...string) (map[string]*measured, error) {
	all := map[string]*measured{}
	from, search := float64(first), far
	for _, c := range controllers {
		b := layer.Policy(c)
		if c == "fixed" {
			rows, err := bestSize(ctx, cfg, from, log)
			if err != nil {
				return nil, fmt.Errorf("%s, fixed: %w", name, err)
			}
			b.MaxBatchRows = rows
		}
		m, err := measure(ctx, cfg, b, search(from))
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", name, c, err)
		}
		m.controller = c
		all[c] = m
		_, _ = fmt.Fprintf(log, "%s: %s: %.0f/s, p99 %v; at %.0f %% of it %.2f %% in time, %.1f rows a batch\n",
			name, c, m.capacity, m.at.P99, 100*share, 100*m.fraction, m.rows)
		if c != "none" {
			from, search = m.capacity, near
		}
	}
	return all, nil
}

// measure finds the capacity and then looks at a share of it.
func measure(ctx context.Context, cfg layer.Config, b *clipperv1.Batching, s load.Search) (*measured, error) {
	cfg.Batching = b
	l, err := layer.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer l.Stop()
	m := &measured{batching: b}
	if m.capacity, m.at, err = l.Capacity(ctx, load.Poisson, s); err != nil {
		return nil, err
	}
	batches, rows, err := l.Batches()
	if err != nil {
		return nil, err
	}
	var fractions []float64
	for seed := range uint64(rounds) {
		rate := share * m.capacity
		at, err := l.Measure(ctx, load.Poisson, rate, layer.Window(rate), 100+seed)
		if err != nil {
			return nil, err
		}
		fractions = append(fractions, at.Fraction())
		m.queries += at.Offered
	}
	batchesAfter, rowsAfter, err := l.Batches()
	if err != nil {
		return nil, err
	}
	m.rows = (rowsAfter - rows) / max(1, batchesAfter-batches)
	m.fraction = experiment.Median(fractions)
	return m, nil
}

// bestSize finds the size that somebody would set by hand, who tries all the powers of two at a rate and
// takes the one with which the most is answered in time.
func bestSize(ctx context.Context, cfg layer.Config, rate float64, log io.Writer) (uint32, error) {
	best, bestShare := uint32(2), -1.0
	for rows := uint32(2); rows <= 2048; rows *= 2 {
		cfg.Batching = &clipperv1.Batching{Policy: "fixed", MaxBatchRows: rows}
		l, err := layer.Start(ctx, cfg)
		if err != nil {
			return 0, err
		}
		m, err := l.Measure(ctx, load.Poisson, rate, layer.Window(rate), 1)
		l.Stop()
		if err != nil {
			return 0, err
		}
		share := m.Fraction()
		_, _ = fmt.Fprintf(log, "  fixed to %d rows: %.2f %% in time at %.0f/s\n", rows, 100*share, rate)
		if share > bestShare {
			best, bestShare = rows, share
		}
	}
	return best, nil
}

// atLowLoad returns the median p50 of two controllers at the same rate, the same loads in turn.
func atLowLoad(ctx context.Context, cfg layer.Config, rate float64, a, b string) (p50a, p50b float64, err error) {
	cfg.Batching = layer.Policy(a)
	l, err := layer.Start(ctx, cfg)
	if err != nil {
		return 0, 0, err
	}
	defer l.Stop()
	var all [2][]float64
	for seed := range uint64(rounds) {
		for i, c := range []string{a, b} {
			if err := l.SetBatching(layer.Policy(c)); err != nil {
				return 0, 0, err
			}
			m, err := l.Measure(ctx, load.Poisson, rate, layer.Window(rate), 200+seed)
			if err != nil {
				return 0, 0, err
			}
			all[i] = append(all[i], m.P50.Seconds()*1e3)
		}
	}
	return experiment.Median(all[0]), experiment.Median(all[1]), nil
}
