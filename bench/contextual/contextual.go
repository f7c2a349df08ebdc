// SPDX-License-Identifier: Apache-2.0

// Package contextual measures what a selection state per user is worth: figure 10 of the Clipper paper, with
// speakers for its dialects.
package contextual

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/system"
)

// Experiment is figure 10.
var Experiment = experiment.Experiment{
	Name:    "context",
	Summary: "error against the feedbacks of a user, one model per speaker and one for all (figure 10)",
	Run:     run,
}

const (
	// Of each digit of each speaker, the recordings of index 0 to 19 are the users', those to 24 teach the
	// shared state before, and the rest is what the models were trained with.
	users, earlier = 20, 25
	// rounds is how often a speaker's recordings are dealt anew to users, who learn from the first
	// recordings and are asked the others.
	rounds, learned, asked = 40, 8, 20
)

// feedbacks are the points at which a user is asked.
var feedbacks = []int{0, 1, 2, 4, 8}

// paper is figure 10: the error of Clipper by feedbacks, of the model without a dialect, and of the user's own.
var (
	paper                    = map[int]float64{0: 0.362, 1: 0.312, 8: 0.300}
	paperShared, paperOracle = 0.362, 0.321
)

// errors are the users' errors at one number of feedbacks.
type errors struct {
	clipper, shared, oracle []float64 // one for each user
}

func run(ctx context.Context, log io.Writer) (*experiment.Result, error) {
	root, err := system.Root(ctx)
	if err != nil {
		return nil, err
	}
	archive, err := experiment.Data(root, "fsdd/recordings.tar.gz")
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "clipper-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	data, python, err := train(ctx, root, archive, folder, log)
	if err != nil {
		return nil, err
	}
	binaries, err := system.Build(ctx, folder, log)
	if err != nil {
		return nil, err
	}
	c, err := system.StartClipper(binaries, false,
		"--abstraction-python="+python, "--abstraction-adapter-dir="+filepath.Join(root, "containerrpc", "adapters"))
	if err != nil {
		return nil, err
	}
	defer c.Stop()
	client, err := serve(ctx, c, data, folder, log)
	if err != nil {
		return nil, err
	}
	defer client.close()

	// Speakers come mixed, and nobody says who they are.
	random := rand.New(rand.NewPCG(1, 2))
	before := data.of(func(r recording) bool { return r.Index >= users && r.Index < earlier })
	random.Shuffle(len(before), func(i, j int) { before[i], before[j] = before[j], before[i] })
	for recordings := range slices.Chunk(before, 10) {
		if err := client.teach(ctx, make([]string, len(recordings)), recordings); err != nil {
			return nil, err
		}
	}
	found := make([]errors, len(feedbacks))
	for round := range rounds {
		if err := client.round(ctx, data, round, random, found); err != nil {
			return nil, err
		}
		if round%10 == 9 {
			_, _ = fmt.Fprintf(log, "%d of %d rounds\n", round+1, rounds)
		}
	}
	return result(data, found), nil
}

// round deals the recordings to users, and asks and teaches each.
func (c *client) round(ctx context.Context, data *data, round int, random *rand.Rand, found []errors) error {
	type user struct {
		name         string
		learn, asked []recording
	}
	var all []user
	for _, speaker := range data.speakers() {
		own := data.of(func(r recording) bool { return r.Speaker == speaker && r.Index < users })
		random.Shuffle(len(own), func(i, j int) { own[i], own[j] = own[j], own[i] })
		for n, part := range slices.Collect(slices.Chunk(own, learned+asked)) {
			if len(part) == learned+asked {
				all = append(all, user{fmt.Sprintf("%s-%d-%d", speaker, round, n), part[:learned], part[learned:]})
			}
		}
	}
	for n := 0; n <= learned; n++ {
		if at := slices.Index(feedbacks, n); at >= 0 {
			for _, u := range all {
				e, err := c.ask(ctx, u.name, u.asked)
				if err != nil {
					return err
				}
				found[at].clipper = append(found[at].clipper, e.clipper)
				found[at].shared = append(found[at].shared, e.shared)
				found[at].oracle = append(found[at].oracle, e.oracle)
			}
		}
		if n == learned {
			break
		}
		var names []string
		var recordings []recording
		for _, u := range all {
			names, recordings = append(names, u.name), append(recordings, u.learn[n])
		}
		if err := c.teach(ctx, names, recordings); err != nil {
			return err
		}
	}
	return nil
}

func result(data *data, found []errors) *experiment.Result {
	r := &experiment.Result{
		Load: fmt.Sprintf("%d users, a context each: the %d recordings of each of %d speakers with index 0 to %d, dealt %d times; each user is asked %d recordings, without feedback, after 0 to %d others with feedback; "+
			"index %d to %d taught the shared state before, the rest trained the models; exp4 with eta %g and prior_weight %g, chosen on the training recordings",
			len(found[0].clipper), 10*users, len(data.speakers()), users-1, rounds, asked, learned, users, earlier-1, data.Setting.Eta, data.Setting.PriorWeight),
		Columns: []string{"feedbacks", "error", "standard error", "model for all", "own model", "over own model", "paper", "paper, no dialect", "paper, own dialect"},
	}
	// The paper's errors are those of phonemes: what can be compared is each over that of the own model.
	lines := make([]experiment.Series, 4)
	for i, name := range []string{"Clipper", "model for all", "paper: Clipper", "paper: no dialect"} {
		lines[i].Name = name
	}
	point := func(line, n int, y float64) {
		lines[line].X, lines[line].Y = append(lines[line].X, float64(n)), append(lines[line].Y, y)
	}
	over := 0.0
	for i, n := range feedbacks {
		clipper, shared, oracle := mean(found[i].clipper), mean(found[i].shared), mean(found[i].oracle)
		over = clipper / oracle
		reported := any("-")
		if y, ok := paper[n]; ok {
			reported = y
			point(2, n, y/paperOracle)
		}
		r.Rows = append(r.Rows, []any{n, clipper, standardError(found[i].clipper), shared, oracle, over, reported, paperShared, paperOracle})
		for line, y := range map[int]float64{0: over, 1: shared / oracle, 3: paperShared / paperOracle} {
			point(line, n, y)
		}
	}
	r.Bars = []experiment.Bar{
		experiment.AtMost("error without feedback over that of the model for all", mean(found[0].clipper)/mean(found[0].shared), "", 1.1),
		experiment.AtMost(fmt.Sprintf("error after %d feedbacks over that of the speaker's own model", learned), over, "", 1.1),
	}
	r.Plot = &experiment.Plot{Title: "Error by feedbacks of a user", X: "feedbacks", Y: "error over that of the user's own model", Series: lines, LegendBottom: true}
	return r
}

func mean(xs []float64) float64 {
	sum := 0.0
	for _, x := range xs {
		sum += x
	}
	return sum / float64(len(xs))
}

// standardError is that of the mean over users. It says nothing of other recordings than these.
func standardError(xs []float64) float64 {
	m, sum := mean(xs), 0.0
	for _, x := range xs {
		sum += (x - m) * (x - m)
	}
	return math.Sqrt(sum / float64(len(xs)-1) / float64(len(xs)))
}
