// SPDX-License-Identifier: Apache-2.0

package container_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	container "github.com/clipper-serving/clipper/containerrpc/go"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// TestServe_refusesInvalidRequests: the model never sees them, the stream goes on.
func TestServe_refusesInvalidRequests(t *testing.T) {
	const u8, text = clipperv1.DataType_DATA_TYPE_UINT8, clipperv1.DataType_DATA_TYPE_STRING
	pair := &clipperv1.Signature{Inputs: []*clipperv1.TensorSpec{{DataType: u8, Shape: []int64{-1}}}}
	s := run(t, container.Config{}, model{
		description: &clipperv1.DescribeResponse{Signature: pair, MaxBatchRows: 2}, predict: echo,
	}).stream(t)
	of := func(rows uint32, tensors ...*clipperv1.BatchTensor) *clipperv1.PredictRequest {
		return &clipperv1.PredictRequest{Id: 1, Rows: rows, Inputs: tensors}
	}
	shapes := func(lengths ...int64) (out []*clipperv1.Shape) {
		for _, n := range lengths {
			out = append(out, &clipperv1.Shape{Dims: []int64{n}})
		}
		return out
	}
	for name, tc := range map[string]struct {
		req     *clipperv1.PredictRequest
		message string
		reason  clipperv1.ErrorReason
	}{
		"no rows":    {of(0), "no rows", clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD},
		"many":       {of(3), "3 rows, this container takes 2", clipperv1.ErrorReason_ERROR_REASON_TOO_LARGE},
		"no input":   {of(1), "0 inputs, the model takes 1", clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD},
		"type":       {of(1, &clipperv1.BatchTensor{DataType: text, Strings: []string{"a"}, Shape: []int64{1}}), "type string, the model takes uint8", clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD},
		"shape":      {of(1, &clipperv1.BatchTensor{DataType: u8, Data: []byte{1}}), "the model takes [-1]", clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD},
		"too few":    {of(2, &clipperv1.BatchTensor{DataType: u8, Shape: []int64{2}, Data: []byte{1, 2, 3}}), "has 3 bytes", clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD},
		"negative":   {of(1, &clipperv1.BatchTensor{DataType: u8, Shape: []int64{-2}}), "not allowed", clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD},
		"huge":       {of(1, &clipperv1.BatchTensor{DataType: u8, Shape: []int64{math.MaxInt64}}), "not allowed", clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD},
		"row shapes": {of(2, &clipperv1.BatchTensor{DataType: u8, RowShapes: shapes(1), Data: []byte{1}}), "1 entries", clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD},
		"ragged":     {of(2, &clipperv1.BatchTensor{DataType: u8, RowShapes: shapes(1, 2), Data: []byte{1}}), "have 3", clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD},
	} {
		resp := exchange(t, s, tc.req)
		require.NotNil(t, resp.Error, name)
		require.Contains(t, resp.Error.Message, tc.message, name)
		require.Equal(t, tc.reason, resp.Error.Reason, name)
	}
	good := exchange(t, s, of(2, &clipperv1.BatchTensor{DataType: u8, RowShapes: shapes(1, 2), Data: []byte{1, 2, 3}}))
	require.Nil(t, good.Error)
	require.Equal(t, []byte{1, 2, 3}, good.Outputs[0].Data)
}
