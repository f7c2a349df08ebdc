// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/gen/go/inference"
)

// testOpenInference asks over the Open Inference Protocol: an application, a model itself, and for both
// what there is to know of them.
func testOpenInference(t *testing.T, s *system) {
	s.deploy(t, "oip-model", nil)
	s.create(t, application("oip-app", "", "oip-model"))
	client, admin := inference.NewGRPCInferenceServiceClient(s.queryConn), inference.NewGRPCInferenceServiceClient(s.adminConn)
	ask := func(name string, rows ...float64) (*inference.ModelInferResponse, error) {
		var raw []byte
		for _, x := range rows {
			raw = append(raw, input(x, 0)[0].Data...)
		}
		return client.ModelInfer(t.Context(), &inference.ModelInferRequest{
			ModelName: name, RawInputContents: [][]byte{raw},
			Inputs: []*inference.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP64", Shape: []int64{int64(len(rows)), 2}}},
		})
	}
	for _, name := range []string{"oip-app", "oip-model"} {
		res, err := ask(name, 3, 4)
		require.NoError(t, err)
		require.Equal(t, []int64{2}, res.Outputs[0].Shape)
		require.Equal(t, binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, 3), 4), res.RawOutputContents[0])
		require.Equal(t, name == "oip-app", res.Parameters["feedback_id"] != nil)

		metadata, err := client.ModelMetadata(t.Context(), &inference.ModelMetadataRequest{Name: name})
		require.NoError(t, err)
		require.Equal(t, []int64{-1, 2}, metadata.Inputs[0].Shape)
	}
	_, err := ask("oip-model", 5, -1)
	require.Equal(t, codes.Unknown, status.Code(err), "a row that the model refuses")
	require.ErrorContains(t, err, "row 1")

	stats, err := client.ModelStatistics(t.Context(), &inference.ModelStatisticsRequest{Name: "oip-model"})
	require.NoError(t, err)
	require.EqualValues(t, 2, stats.ModelStats[0].InferenceCount)
	require.NotZero(t, stats.ModelStats[0].InferenceStats.ComputeInfer.Ns, "from where the model runs")

	_, err = admin.RepositoryModelUnload(t.Context(), &inference.RepositoryModelUnloadRequest{ModelName: "oip-model"})
	require.NoError(t, err)
	s.awaitState(t, "oip-model", "1", clipperv1.ModelState_MODEL_STATE_STOPPED)
	_, err = ask("oip-model", 6)
	require.Equal(t, codes.Unavailable, status.Code(err))
	_, err = admin.RepositoryModelLoad(t.Context(), &inference.RepositoryModelLoadRequest{ModelName: "oip-model"})
	require.NoError(t, err)
	_, err = ask("oip-model", 6)
	require.NoError(t, err)
}
