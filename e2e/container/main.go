// SPDX-License-Identifier: Apache-2.0

// Command container is the model that the end-to-end tests deploy. Its input is two numbers, a
// float64[2], and its label is the first of them, as an integer, plus a bias.
//
// A query steers it: a first number below 0 is an error of that row, and a batch takes as many
// milliseconds as the largest second number of its rows says. So do variables of its environment:
// BIAS is the bias, DELAY a duration that every batch takes, and FAIL the message with which every
// batch fails. With FINISH set, a batch is finished also when nobody waits for it any more. With HOG set, a batch takes
// all the memory there is.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	container "github.com/clipper-serving/clipper/containerrpc/go"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	m := model{failure: os.Getenv("FAIL"), finish: os.Getenv("FINISH") != "", hog: os.Getenv("HOG") != ""}
	var err error
	if text := os.Getenv("BIAS"); text != "" {
		if m.bias, err = strconv.ParseInt(text, 10, 64); err != nil {
			return fmt.Errorf("read BIAS: %w", err)
		}
	}
	if text := os.Getenv("DELAY"); text != "" {
		if m.delay, err = time.ParseDuration(text); err != nil {
			return fmt.Errorf("read DELAY: %w", err)
		}
	}
	return container.Run(ctx, container.ConfigFromEnvironment(), m)
}

type model struct {
	bias    int64
	delay   time.Duration
	failure string
	finish  bool
	hog     bool
}

// width is the number of elements of a row.
const width = 2

// Parallel implements container.ParallelModel: a slow batch does not hold up the next.
func (model) Parallel() {}

// Describe implements container.Model.
func (model) Describe() *clipperv1.DescribeResponse {
	return &clipperv1.DescribeResponse{
		Signature: &clipperv1.Signature{
			Inputs:  []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT64, Shape: []int64{width}}},
			Outputs: []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_INT64}},
		},
	}
}

// Predict implements container.Model.
func (m model) Predict(ctx context.Context, b *container.Batch) (*container.Result, error) {
	if m.failure != "" {
		return nil, errors.New(m.failure)
	}
	for hoard := [][]byte(nil); m.hog; {
		hoard = append(hoard, bytes.Repeat([]byte{1}, 1<<20))
		runtime.KeepAlive(hoard)
	}
	data := b.Inputs[0].Data
	labels := make([]byte, 0, 8*b.Rows)
	rowErrors := map[int]error{}
	took := m.delay
	for row := range b.Rows {
		at := func(i int) float64 {
			return math.Float64frombits(binary.LittleEndian.Uint64(data[8*(width*row+i):]))
		}
		if at(0) < 0 {
			rowErrors[row] = fmt.Errorf("the first number is %v, below 0", at(0))
		}
		labels = binary.LittleEndian.AppendUint64(labels, uint64(int64(at(0))+m.bias))
		took = max(took, time.Duration(at(1)*float64(time.Millisecond)))
	}
	if m.finish {
		ctx = context.WithoutCancel(ctx)
	}
	select {
	case <-time.After(took):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return &container.Result{
		Outputs:   []*clipperv1.BatchTensor{{DataType: clipperv1.DataType_DATA_TYPE_INT64, Data: labels}},
		RowErrors: rowErrors,
	}, nil
}
