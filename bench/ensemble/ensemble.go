// SPDX-License-Identifier: Apache-2.0

// Package ensemble is figure 7 of the Clipper paper through the running system: what several models together
// get wrong, and how much less that is where they agree.
package ensemble

import (
	"context"
	"fmt"
	"io"
	"math"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/clipper-serving/clipper/bench/cifar"
	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/layer"
	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Experiment is the experiment.
var Experiment = experiment.Experiment{
	Name:    "ensemble",
	Summary: "figure 7: errors of an ensemble of five models, where they agree, and above a confidence",
	Run:     layer.Run(run),
}

// The paper's figures: each network's error, sorted; the ensemble's; and error and share of the queries
// where four, or five, agree.
var (
	paperSingles  = []float64{.46, .346, .243, .168, .0915}
	paperEnsemble = .0845
	paperAgree    = map[int]struct{ err, share, rest float64 }{4: {.0610, .80, .181}, 5: {.0235, .405, .126}}
)

// floors are the settings among which the training half chooses, the policy's default first.
var floors = []float64{0.001, 0.05, 0.1, 0.2}

// thresholds are where confidence is cut. The agreement of four of five is a confidence of 0.8, but for
// rounding.
var thresholds = []float64{0, 0.3, 0.5, 0.7, 0.75, 0.79, 0.85, 0.9, 0.95, 0.99}

const (
	fourAgree = 0.79
	fiveAgree = 0.99
)

func run(ctx context.Context, b system.Binaries, log io.Writer) (*experiment.Result, error) {
	c, err := cifar.Start(ctx, b)
	if err != nil {
		return nil, err
	}
	defer c.Stop()
	s := &suite{System: c, models: map[string][]*clipperv1.ApplicationModel{}, queries: clipperv1.NewQueryServiceClient(c.Conn), feedback: clipperv1.NewFeedbackServiceClient(c.Conn)}
	for _, output := range []string{"labels", "softmax"} {
		if s.models[output], err = c.DeployNetworks(ctx, output); err != nil {
			return nil, err
		}
	}
	// Without learning, exp4's weights stay equal.
	majority := &panel{name: "majority vote", output: "labels"}
	mean := &panel{name: "mean of scores", output: "softmax"}
	vote := &panel{name: "learned vote (exp4, defaults)", output: "labels", learns: true}
	panels := []*panel{majority, mean, vote}
	var weighted []*panel
	for _, floor := range floors {
		name := "learned mean of scores (exp4, floor " + strconv.FormatFloat(floor, 'g', -1, 64) + ")"
		weighted = append(weighted, &panel{name: name, output: "softmax", learns: true, floor: floor})
	}
	panels = append(panels, weighted...)
	group, working := errgroup.WithContext(ctx)
	for i, p := range panels {
		group.Go(func() error { return s.prepare(working, "ensemble-"+strconv.Itoa(i), p) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	_, _ = fmt.Fprintln(log, "learned on each half")

	// Each half chooses by what it learned from.
	chosen := &panel{name: "of these, the best on the training half", output: "softmax"}
	for half := range chosen.apps {
		least := 2.0
		for _, p := range weighted {
			replies, err := s.ask(ctx, p.apps[half], s.half(half))
			if err != nil {
				return nil, err
			}
			if e := s.score(replies).err; e < least {
				least, chosen.apps[half] = e, p.apps[half]
			}
		}
	}
	return s.report(ctx, append(panels, chosen), majority, chosen)
}

func (s *suite) report(ctx context.Context, panels []*panel, majority, chosen *panel) (*experiment.Result, error) {
	r := &experiment.Result{
		Load:    fmt.Sprintf("the %d test images of CIFAR-10 to the whole of Clipper in one process, five replay containers with what the paper's authors recorded of their networks, in batches of %d; what learns did so on one half, one image after the other with the truth after each, and is tested on the other half, both ways round, so that no image is judged by what was learned from it. \"Rest\" are the images that get the default output for want of confidence; its error is that of the last ensemble. The recorded networks err more than those of the figure do, which stand beside them", len(s.Truth), batch),
		Columns: []string{"answers", "confidence from", "share answered", "wrong", "error of those", "error of the rest", "paper: share", "error", "rest"},
		Plot:    &experiment.Plot{Title: "Error of what is answered", X: "share answered", Y: "error"},
	}
	whole := map[*panel][]reply{}
	for _, p := range panels {
		replies, err := s.test(ctx, p, 0)
		if err != nil {
			return nil, err
		}
		whole[p] = replies
	}
	best := 1.0
	for network := range s.Networks {
		single := s.single(whole[majority], network)
		best = min(best, single)
		r.Rows = append(r.Rows, []any{fmt.Sprintf("network %d alone", network+1), "-", 1.0, int(math.Round(single * float64(len(s.Truth)))), single, "-", "-", s.paperSingle(network), "-"})
	}
	for _, p := range panels {
		got := s.score(whole[p])
		r.Rows = append(r.Rows, []any{p.name, 0.0, got.share, got.wrong, got.err, "-", "-", paperEnsemble, "-"})
	}
	together := s.score(whole[chosen]).err
	r.Bars = append(r.Bars,
		experiment.AtMost("error of the ensemble that the training half chooses", together, "", paperEnsemble),
		experiment.AtMost("the same less the best network's", together-best, "", 0))

	for _, p := range []*panel{majority, chosen} {
		all := s.score(whole[p])
		curve := experiment.Series{Name: p.name, X: []float64{all.share}, Y: []float64{all.err}}
		for _, threshold := range thresholds[1:] {
			replies, err := s.test(ctx, p, threshold)
			if err != nil {
				return nil, err
			}
			got := s.score(replies)
			rest := s.score(unanswered(replies, whole[chosen]))
			cells := []any{p.name, threshold, got.share, got.wrong, got.err, rest.err, "-", "-", "-"}
			for agree, at := range map[int]float64{4: fourAgree, 5: fiveAgree} {
				if p != majority || threshold != at {
					continue
				}
				paper := paperAgree[agree]
				cells = append(cells[:6], paper.share, paper.err, paper.rest)
				name := fmt.Sprintf("%d of 5 agree: ", agree)
				r.Bars = append(r.Bars, experiment.AtMost(name+"error", got.err, "", paper.err), experiment.AtLeast(name+"share of the queries", got.share, "", paper.share))
			}
			r.Rows = append(r.Rows, cells)
			curve.X, curve.Y = append(curve.X, got.share), append(curve.Y, got.err)
		}
		r.Plot.Series = append(r.Plot.Series, curve)
	}
	return r, nil
}
