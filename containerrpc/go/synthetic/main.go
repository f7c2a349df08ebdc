// SPDX-License-Identifier: Apache-2.0

// Command synthetic is a model container that takes as long as a model would and computes nothing:
// a batch of n rows is answered after fixed + per-row·n, with noise and rare stalls. It waits
// instead of computing, so that many of them run on few cores as they would on many machines; with --busy it keeps
// a processor busy instead, and with --hog all of them, and takes all the memory it can get besides. What
// it answers is 1, or with --errors or --hard a label that is right as often as is wanted; with --failures
// it answers as many rows with an error.
//
//	synthetic --profile linear_svm --noise 0.1 --stall-chance 0.002
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	container "github.com/clipper-serving/clipper/containerrpc/go"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/pause"
)

func main() {
	m, hog, err := parse(os.Args[1:], os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "synthetic:", err)
		os.Exit(2)
	}
	if hog {
		go takeEverything()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := container.Run(ctx, container.ConfigFromEnvironment(), m); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// parse makes the model that the command line describes, and says whether it is a hog.
func parse(args []string, usage io.Writer) (_ container.Model, isHog bool, _ error) {
	flags := flag.NewFlagSet("synthetic", flag.ContinueOnError)
	flags.SetOutput(usage)
	var (
		name     = flags.String("profile", "", "start from a profile: noop, linear_svm, log_reg, spark_svm, rf or kernel_svm")
		fixed    = flags.Duration("fixed", 0, "time of every batch")
		perRow   = flags.Duration("per-row", 0, "time of every row")
		factor   = flags.Float64("factor", 1, "multiplies both: a slower or faster machine")
		noise    = flags.Float64("noise", 0, "standard deviation of the logarithm of a batch's time")
		chance   = flags.Float64("stall-chance", 0, "share of batches that stall, 0 to 1")
		stall    = flags.Float64("stall", 3, "how many times as long a batch takes that stalls")
		every    = flags.Int("stall-every", 0, "one batch in so many stalls, in equal distances from a random one; 0: none")
		errors   = flags.Float64("errors", 0, "share of the rows that get a wrong label, drawn by row and seed, 0 to 1")
		hard     = flags.Float64("hard", 0, "share of the rows that get the same wrong label with every seed, 0 to 1")
		failures = flags.Float64("failures", 0, "share of the rows that fail, drawn by row and seed, 0 to 1")
		seed     = flags.Uint64("seed", 1, "seed of noise, stalls, errors and failures")
		busy     = flags.Bool("busy", false, "keep a processor busy during a batch instead of waiting")
		hog      = flags.Bool("hog", false, "keep all processors busy and take ever more memory, from the start")
		parallel = flags.Int("parallel", 1, "batches at the same time; more wait their turn")
	)
	if err := flags.Parse(args); err != nil {
		return nil, false, err
	}
	if flags.NArg() > 0 {
		return nil, false, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	var p profile
	if *name != "" {
		var err error
		if p, err = profileNamed(*name); err != nil {
			return nil, false, err
		}
	}
	flags.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "fixed":
			p.Fixed = *fixed
		case "per-row":
			p.PerRow = *perRow
		}
	})
	p.Fixed, p.PerRow = time.Duration(float64(p.Fixed)**factor), time.Duration(float64(p.PerRow)**factor)
	switch {
	case p.Fixed < 0 || p.PerRow < 0:
		return nil, false, fmt.Errorf("--fixed, --per-row and --factor must not be negative")
	case *noise < 0 || *stall < 0:
		return nil, false, fmt.Errorf("--noise and --stall must not be negative")
	case *chance < 0 || *chance > 1:
		return nil, false, fmt.Errorf("--stall-chance must be from 0 to 1")
	case *every < 0:
		return nil, false, fmt.Errorf("--stall-every must not be negative")
	case !(*errors >= 0 && *errors <= 1 && *hard >= 0 && *hard <= 1 && *failures >= 0 && *failures <= 1):
		return nil, false, fmt.Errorf("--errors, --hard and --failures must be from 0 to 1")
	case *parallel < 1:
		return nil, false, fmt.Errorf("--parallel must be at least 1")
	}
	m := &model{
		inFlight: max(2, *parallel),
		busy:     *busy,
		clock: clock{
			profile: p, Noise: *noise, StallChance: *chance, Stall: *stall, StallEvery: *every,
			random: rand.New(rand.NewPCG(*seed, 0)), untilStall: -1, //nolint:gosec // A simulation.
		},
	}
	if *errors > 0 || *hard > 0 || *failures > 0 {
		m.labels = &labels{errors: *errors, hard: *hard, failures: *failures, seed: *seed}
	}
	if *parallel > 1 {
		return parallelModel{m}, *hog, nil
	}
	return m, *hog, nil
}

// model answers every row with 1, or with its labels.
type model struct {
	inFlight int
	busy     bool
	labels   *labels // nil: 1

	mu    sync.Mutex
	clock clock
}

// parallelModel is a model that takes several batches at once.
type parallelModel struct{ *model }

// Parallel implements container.ParallelModel.
func (parallelModel) Parallel() {}

// Describe implements container.Model.
func (m *model) Describe() *clipperv1.DescribeResponse {
	return &clipperv1.DescribeResponse{
		Signature: &clipperv1.Signature{
			Outputs: []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_INT64}},
		},
		MaxInFlight: uint32(m.inFlight),
		Properties:  map[string]string{"runtime": "clipper-go", "language": "go", "framework": "none"},
	}
}

// Predict implements container.Model. The time that it takes to make the answer is part of the
// time that the batch takes.
func (m *model) Predict(_ context.Context, b *container.Batch) (*container.Result, error) {
	begin := time.Now()
	m.mu.Lock()
	d := m.clock.next(b.Rows)
	m.mu.Unlock()
	answers := make([]byte, 8*b.Rows)
	r := &container.Result{Outputs: []*clipperv1.BatchTensor{{DataType: clipperv1.DataType_DATA_TYPE_INT64, Data: answers}}}
	if m.labels == nil {
		for i := 0; i < len(answers); i += 8 {
			answers[i] = 1
		}
	} else {
		var err error
		if r.RowErrors, err = m.labels.fill(answers, b); err != nil {
			return nil, err
		}
	}
	if end := begin.Add(d); m.busy {
		for time.Now().Before(end) { // Work of no use is work too.
		}
	} else {
		pause.Until(end)
	}
	return r, nil
}

// takeEverything keeps all processors busy and takes 64 MiB of memory more every second, until the process is killed.
func takeEverything() {
	for range runtime.NumCPU() {
		go func() {
			for {
				runtime.Gosched()
			}
		}()
	}
	var taken [][]byte
	for {
		taken = append(taken, bytes.Repeat([]byte{1}, 64<<20))
		time.Sleep(time.Second)
		runtime.KeepAlive(taken)
	}
}
