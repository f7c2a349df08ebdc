// SPDX-License-Identifier: Apache-2.0

// Command noop is a model container that computes nothing: it answers every row with the same
// number. It measures what everything around a model costs.
package main

import (
	"context"

	container "github.com/clipper-serving/clipper/containerrpc/go"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

func main() {
	container.Main(func(string) (container.Model, error) { return noop{}, nil })
}

// noop answers 0 to everything.
type noop struct{}

// Parallel implements container.ParallelModel.
func (noop) Parallel() {}

// Describe implements container.Model.
func (noop) Describe() *clipperv1.DescribeResponse {
	return &clipperv1.DescribeResponse{
		Signature: &clipperv1.Signature{
			Outputs: []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_INT64}},
		},
		Properties: map[string]string{"runtime": "clipper-go", "language": "go", "framework": "none"},
	}
}

// Predict implements container.Model.
func (noop) Predict(_ context.Context, b *container.Batch) (*container.Result, error) {
	return &container.Result{Outputs: []*clipperv1.BatchTensor{{
		DataType: clipperv1.DataType_DATA_TYPE_INT64,
		Data:     make([]byte, 8*b.Rows),
	}}}, nil
}
