// SPDX-License-Identifier: Apache-2.0

// Command replay is a model container that answers with recorded predictions: row i of a table for the
// input [i, 0]. For the input [i, n] with another n it does so too, unless it is told that it fails
// then: it answers with noise that depends on i, n and the seed alone, so that it is repeatable and may be
// cached.
//
//	replay --table cifar_prob_features5.npz.zip --output labels --fails
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"

	container "github.com/clipper-serving/clipper/containerrpc/go"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/recorded"
)

func main() {
	m, err := parse(os.Args[1:], os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "replay:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := container.Run(ctx, container.ConfigFromEnvironment(), m); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// parse makes the model that the command line describes.
func parse(args []string, usage io.Writer) (*model, error) {
	flags := flag.NewFlagSet("replay", flag.ContinueOnError)
	flags.SetOutput(usage)
	var (
		table  = flags.String("table", "", "`file` with the recorded predictions: a numpy array of 64-bit floats, one row for each input")
		output = flags.String("output", "labels", "labels: the place of the largest number in a row; scores: the row; softmax: the softmax of the row")
		fails  = flags.Bool("fails", false, "answer with noise when the input's second number is not 0: a draw from Dirichlet(1, ..., 1), or its label")
		seed   = flags.Uint64("seed", 1, "seed of the noise")
	)
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	m := &model{fails: *fails, seed: *seed}
	switch *output {
	case "labels":
		m.labels = true
	case "scores":
	case "softmax":
		m.softmax = true
	default:
		return nil, fmt.Errorf("--output is %q, want labels, scores or softmax", *output)
	}
	if *table == "" {
		return nil, errors.New("--table is missing")
	}
	var err error
	m.table, err = recorded.Read(*table)
	return m, err
}

// model replays a table.
type model struct {
	table           *recorded.Table
	labels, softmax bool
	fails           bool
	seed            uint64
}

var _ container.ParallelModel = (*model)(nil)

// Parallel implements container.ParallelModel.
func (*model) Parallel() {}

// Describe implements container.Model.
func (m *model) Describe() *clipperv1.DescribeResponse {
	out := &clipperv1.TensorSpec{DataType: clipperv1.DataType_DATA_TYPE_INT64}
	if !m.labels {
		out = &clipperv1.TensorSpec{DataType: clipperv1.DataType_DATA_TYPE_FLOAT64, Shape: []int64{int64(m.table.Columns())}}
	}
	return &clipperv1.DescribeResponse{
		Signature: &clipperv1.Signature{
			Inputs:  []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_INT64, Shape: []int64{2}}},
			Outputs: []*clipperv1.TensorSpec{out},
		},
		Properties: map[string]string{"runtime": "clipper-go", "language": "go", "framework": "none"},
	}
}

// Predict implements container.Model.
func (m *model) Predict(_ context.Context, b *container.Batch) (*container.Result, error) {
	const row = 2 * 8 // two integers
	if len(b.Inputs) != 1 || b.Inputs[0].DataType != clipperv1.DataType_DATA_TYPE_INT64 || len(b.Inputs[0].Data) != row*b.Rows {
		return nil, errors.New("want one input of two 64-bit integers: the row and 0, or the number of the noise")
	}
	out := &clipperv1.BatchTensor{DataType: clipperv1.DataType_DATA_TYPE_INT64}
	if !m.labels {
		out.DataType, out.Shape = clipperv1.DataType_DATA_TYPE_FLOAT64, []int64{int64(m.table.Columns())}
	}
	result := &container.Result{Outputs: []*clipperv1.BatchTensor{out}}
	scores := make([]float64, m.table.Columns())
	for r := range b.Rows {
		in := b.Inputs[0].Data[r*row:]
		i, noise := binary.LittleEndian.Uint64(in), binary.LittleEndian.Uint64(in[8:])
		if i >= uint64(m.table.Rows()) {
			if result.RowErrors == nil {
				result.RowErrors = map[int]error{}
			}
			result.RowErrors[r] = fmt.Errorf("there is no row %d, want 0 to %d", int64(i), m.table.Rows()-1)
			i, noise = 0, 0 // It still takes its place.
		}
		m.answer(int(i), noise, scores)
		if m.labels {
			out.Data = binary.LittleEndian.AppendUint64(out.Data, uint64(recorded.Largest(scores)))
			continue
		}
		for _, x := range scores {
			out.Data = binary.LittleEndian.AppendUint64(out.Data, math.Float64bits(x))
		}
	}
	return result, nil
}

// answer writes the answer to one input to dst.
func (m *model) answer(i int, noise uint64, dst []float64) {
	if noise == 0 || !m.fails {
		if copy(dst, m.table.Row(i)); m.softmax {
			recorded.Softmax(m.table.Row(i), dst)
		}
		return
	}
	// Dirichlet(1, ..., 1) is independent exponential variables divided by their sum.
	random := rand.New(rand.NewPCG(m.seed^noise<<32, uint64(i))) //nolint:gosec // A simulation.
	sum := 0.0
	for k := range dst {
		dst[k] = random.ExpFloat64()
		sum += dst[k]
	}
	for k := range dst {
		dst[k] /= sum
	}
}
