// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

func shape(dims ...int64) *clipperv1.Shape { return &clipperv1.Shape{Dims: dims} }

func TestSplit(t *testing.T) {
	const u8, str = clipperv1.DataType_DATA_TYPE_UINT8, clipperv1.DataType_DATA_TYPE_STRING
	for name, tc := range map[string]struct {
		outputs []*clipperv1.BatchTensor
		specs   []*clipperv1.TensorSpec
		fault   string
	}{
		"uniform":           {[]*clipperv1.BatchTensor{{DataType: u8, Shape: []int64{2}, Data: []byte{1, 2, 3, 4}}}, nil, ""},
		"scalars":           {[]*clipperv1.BatchTensor{{DataType: str, Strings: []string{"a", "b"}}}, nil, ""},
		"ragged":            {[]*clipperv1.BatchTensor{{DataType: u8, RowShapes: []*clipperv1.Shape{shape(1), shape(3)}, Data: []byte{1, 2, 3, 4}}}, nil, ""},
		"empty rows":        {[]*clipperv1.BatchTensor{{DataType: u8, Shape: []int64{0}}}, nil, ""},
		"none":              {nil, nil, "no outputs"},
		"too few":           {[]*clipperv1.BatchTensor{{DataType: u8, Shape: []int64{2}, Data: []byte{1, 2, 3}}}, nil, "too few"},
		"too many":          {[]*clipperv1.BatchTensor{{DataType: u8, Data: []byte{1, 2, 3}}}, nil, "too many"},
		"row shapes":        {[]*clipperv1.BatchTensor{{DataType: u8, RowShapes: []*clipperv1.Shape{shape(1)}, Data: []byte{1}}}, nil, "1 rows"},
		"overflow":          {[]*clipperv1.BatchTensor{{DataType: u8, Shape: []int64{math.MaxInt64, math.MaxInt64}}}, nil, "too few"},
		"negative":          {[]*clipperv1.BatchTensor{{DataType: u8, Shape: []int64{-1}}}, nil, "too few"},
		"half an element":   {[]*clipperv1.BatchTensor{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT64, Data: make([]byte, 15)}}, nil, "whole number"},
		"elements misplace": {[]*clipperv1.BatchTensor{{DataType: str, Data: []byte{1, 2}}}, nil, "too few"},
		"name":              {[]*clipperv1.BatchTensor{{Name: "x", DataType: u8, Data: []byte{1, 2}}}, []*clipperv1.TensorSpec{{Name: "y"}}, `names it "y"`},
		"width":             {[]*clipperv1.BatchTensor{{DataType: u8, Data: []byte{1, 2}}}, make([]*clipperv1.TensorSpec, 2), "the signature 2"},
		"shape":             {[]*clipperv1.BatchTensor{{DataType: u8, Data: []byte{1, 2}}}, []*clipperv1.TensorSpec{{Shape: []int64{-1}}}, "shape"},
		"fits":              {[]*clipperv1.BatchTensor{{DataType: u8, Shape: []int64{1}, Data: []byte{1, 2}}}, []*clipperv1.TensorSpec{{DataType: u8, Shape: []int64{-1}}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			rows, err := Split(&clipperv1.PredictResponse{Outputs: tc.outputs}, 2, tc.specs)
			if tc.fault != "" {
				require.ErrorContains(t, err, tc.fault)
				return
			}
			require.NoError(t, err)
			require.Len(t, rows, 2)
			for _, r := range rows {
				require.NoError(t, tensor.Check(r))
			}
		})
	}
}

// FuzzSplit gives Split what a container might send: it refuses, or all rows are well formed.
func FuzzSplit(f *testing.F) {
	for _, m := range []*clipperv1.PredictResponse{
		{Outputs: []*clipperv1.BatchTensor{{DataType: clipperv1.DataType_DATA_TYPE_UINT8, Shape: []int64{2}, Data: []byte{1, 2, 3, 4}}}},
		{Outputs: []*clipperv1.BatchTensor{{DataType: clipperv1.DataType_DATA_TYPE_STRING, RowShapes: []*clipperv1.Shape{shape(1), shape(0)}, Strings: []string{"x"}}}},
		{RowErrors: []*clipperv1.RowError{{Row: 1}, {Row: 0}}},
	} {
		b, err := proto.Marshal(m)
		require.NoError(f, err)
		f.Add(b, 2)
	}
	f.Fuzz(func(t *testing.T, b []byte, rows int) {
		var resp clipperv1.PredictResponse
		if rows < 1 || rows > 1000 || proto.Unmarshal(b, &resp) != nil {
			return
		}
		out, err := Split(&resp, rows, nil)
		if err != nil {
			return
		}
		require.Len(t, out, rows*len(resp.Outputs))
		for _, r := range out {
			require.NoError(t, tensor.Check(r))
		}
	})
}
