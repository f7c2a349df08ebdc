// SPDX-License-Identifier: Apache-2.0

package frontend_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
)

func TestPredictModel(t *testing.T) {
	f := start(t, newSelector(digits()))
	client := clipperv1.NewQueryServiceClient(f.conn)
	row := func(shape ...int64) *clipperv1.ModelRow {
		return &clipperv1.ModelRow{Inputs: []*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_UINT8, Shape: shape, Data: []byte{1, 2}}}}
	}
	answer, err := client.PredictModel(t.Context(), &clipperv1.PredictModelRequest{Model: "m", Version: "2", Rows: []*clipperv1.ModelRow{row(2), row(2, 1)}})
	require.NoError(t, err)
	require.Len(t, answer.Predictions, 2)
	require.Equal(t, "2", answer.Predictions[0].Version)
	require.Equal(t, []int64{2, 1}, answer.Predictions[1].Outputs[0].Shape, "in the order of the rows")

	for name, tc := range map[string]struct {
		request *clipperv1.PredictModelRequest
		reason  clipperv1.ErrorReason
		field   string
	}{
		"no model": {&clipperv1.PredictModelRequest{Rows: []*clipperv1.ModelRow{row(2)}}, clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, "model"},
		"no row":   {&clipperv1.PredictModelRequest{Model: "m"}, clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, "rows"},
		"no input": {&clipperv1.PredictModelRequest{Model: "m", Rows: []*clipperv1.ModelRow{{}}}, clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, "rows[0].inputs"},
		"shape":    {&clipperv1.PredictModelRequest{Model: "m", Rows: []*clipperv1.ModelRow{row(2), row(3)}}, clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE, "rows[1].inputs[0]"},
		"priority": {&clipperv1.PredictModelRequest{Model: "m", Rows: []*clipperv1.ModelRow{row(2)}, Priority: 9}, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "priority"},
		"timeout":  {&clipperv1.PredictModelRequest{Model: "m", Rows: []*clipperv1.ModelRow{row(2)}, Timeout: durationpb.New(-1)}, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "timeout"},
		"too many": {&clipperv1.PredictModelRequest{Model: "m", Rows: make([]*clipperv1.ModelRow, 10_001)}, clipperv1.ErrorReason_ERROR_REASON_TOO_LARGE, "rows"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := client.PredictModel(t.Context(), tc.request)
			require.Equal(t, tc.reason, apierror.Reason(err), "%v", err)
			require.Equal(t, tc.field, apierror.ToProto(err).GetField())
		})
	}

	f.selector.predict = func(*internalv1.ModelReference) (*clipperv1.ModelPrediction, error) {
		return nil, status.Error(codes.Unavailable, "connection refused")
	}
	_, err = client.PredictModel(t.Context(), &clipperv1.PredictModelRequest{Model: "m", Rows: []*clipperv1.ModelRow{row(2)}})
	require.Equal(t, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, apierror.Reason(err))
}
