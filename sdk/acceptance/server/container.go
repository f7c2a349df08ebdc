// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	container "github.com/clipper-serving/clipper/containerrpc/go"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/app"
)

// serveModel runs this program as a model's container: of a kind, and perhaps with a bias.
//
//	label   two float64: the first, as a whole number, plus the bias; below 0 the row fails
//	number  any float64: their sum
//	scores  two float32: themselves
//	text    any strings: one, in upper case, joined by "|"
//	echo    anything: the label 1, and the inputs as further outputs
//	hold    two float64: no answer
func serveModel(args []string) int {
	bias := 0
	if len(args) > 1 {
		var err error
		if bias, err = strconv.Atoi(args[1]); err != nil {
			fmt.Fprintln(os.Stderr, "read the bias:", err)
			return 2
		}
	}
	ctx, stop := app.SignalContext(context.Background())
	defer stop()
	if err := container.Run(ctx, container.ConfigFromEnvironment(), &model{kind: args[0], bias: bias}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

type model struct {
	kind string
	bias int
}

// Parallel implements container.ParallelModel.
func (*model) Parallel() {}

// Describe implements container.Model.
func (m *model) Describe() *clipperv1.DescribeResponse {
	spec := func(t clipperv1.DataType, shape ...int64) []*clipperv1.TensorSpec {
		return []*clipperv1.TensorSpec{{DataType: t, Shape: shape}}
	}
	pair := spec(clipperv1.DataType_DATA_TYPE_FLOAT64, 2)
	s := &clipperv1.Signature{Inputs: pair, Outputs: spec(clipperv1.DataType_DATA_TYPE_INT64)}
	switch m.kind {
	case "number":
		s.Inputs = []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT64, AnyShape: true}}
		s.Outputs = spec(clipperv1.DataType_DATA_TYPE_FLOAT64)
	case "scores":
		s.Inputs = spec(clipperv1.DataType_DATA_TYPE_FLOAT32, 2)
		s.Outputs = s.Inputs
	case "text":
		s.Inputs = spec(clipperv1.DataType_DATA_TYPE_STRING, -1)
		s.Outputs = spec(clipperv1.DataType_DATA_TYPE_STRING)
	case "echo":
		s = nil
	}
	return &clipperv1.DescribeResponse{Signature: s, MaxInFlight: 1}
}

// Predict implements container.Model.
func (m *model) Predict(ctx context.Context, b *container.Batch) (*container.Result, error) {
	r := &container.Result{RowErrors: map[int]error{}}
	switch m.kind {
	case "hold":
		<-ctx.Done()
		return nil, ctx.Err()
	case "scores":
		r.Outputs = b.Inputs
		return r, nil
	case "echo":
		ones := make([]int64, b.Rows)
		for i := range ones {
			ones[i] = 1
		}
		r.Outputs = append(r.Outputs, container.Output("label", ones))
		for _, t := range b.Inputs {
			if t.Name == "" {
				t.Name = "echo"
			}
			r.Outputs = append(r.Outputs, t)
		}
		return r, nil
	case "text":
		rows, err := container.Rows(b.Inputs[0], b.Inputs[0].Strings, b.Rows)
		if err != nil {
			return nil, err
		}
		out := &clipperv1.BatchTensor{DataType: clipperv1.DataType_DATA_TYPE_STRING}
		for _, row := range rows {
			out.Strings = append(out.Strings, strings.ToUpper(strings.Join(row, "|")))
		}
		r.Outputs = append(r.Outputs, out)
		return r, nil
	}
	elements, err := container.Values[float64](b.Inputs[0])
	if err != nil {
		return nil, err
	}
	rows, err := container.Rows(b.Inputs[0], elements, b.Rows)
	if err != nil {
		return nil, err
	}
	out := &clipperv1.BatchTensor{DataType: clipperv1.DataType_DATA_TYPE_INT64}
	for i, row := range rows {
		if m.kind == "number" {
			sum := 0.0
			for _, x := range row {
				sum += x
			}
			out.DataType = clipperv1.DataType_DATA_TYPE_FLOAT64
			out.Data = binary.LittleEndian.AppendUint64(out.Data, math.Float64bits(sum))
			continue
		}
		if row[0] < 0 {
			r.RowErrors[i] = fmt.Errorf("the first number is %v, below 0", row[0])
		}
		out.Data = binary.LittleEndian.AppendUint64(out.Data, uint64(int64(row[0])+int64(m.bias)))
	}
	r.Outputs = append(r.Outputs, out)
	return r, nil
}
