// SPDX-License-Identifier: Apache-2.0

package oip_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/clipper-serving/clipper/frontend/oip"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/gen/go/inference"
	"github.com/clipper-serving/clipper/gen/go/inference/modelrepository"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/inprocess"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	fp32s  = clipperv1.DataType_DATA_TYPE_FLOAT32
	labels = clipperv1.DataType_DATA_TYPE_INT64
)

// applications are those of the tests.
type applications map[string]*clipperv1.Application

func (a applications) Application(name string) (*clipperv1.Application, error) {
	if app := a[name]; app != nil {
		return app, nil
	}
	return nil, apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, "application", "there is no application %q", name)
}

func (a applications) Applications() []string {
	var names []string
	for name := range a {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (applications) Ready(context.Context) error { return nil }

// services is what is behind the protocol. It remembers what it was asked.
type services struct {
	clipperv1.UnimplementedQueryServiceServer
	clipperv1.UnimplementedModelServiceServer

	mu       sync.Mutex
	queries  []*clipperv1.QueryRequest
	batches  []*clipperv1.QueryBatchRequest
	rows     []*clipperv1.PredictModelRequest
	metadata metadata.MD
	looked   int // how often a model was looked up
	model    *clipperv1.Model
	predict  func(row int) *clipperv1.ModelPrediction // nil: the input
}

// Query answers with the number of the first element, as a label of shape [1].
func (s *services) Query(ctx context.Context, req *clipperv1.QueryRequest) (*clipperv1.QueryResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queries = append(s.queries, req)
	s.metadata, _ = metadata.FromIncomingContext(ctx)
	return answer(req.GetInputs()), nil
}

func answer(inputs []*clipperv1.Tensor) *clipperv1.QueryResponse {
	first := math.Float32frombits(binary.LittleEndian.Uint32(inputs[0].GetData()))
	response := &clipperv1.QueryResponse{
		Outputs:    []*clipperv1.Tensor{{DataType: labels, Shape: []int64{1}, Data: binary.LittleEndian.AppendUint64(nil, uint64(int64(first)))}},
		Confidence: 0.5, FeedbackId: fmt.Sprint("id-", first),
	}
	if first < 0 {
		response.IsDefault, response.DefaultReason = true, clipperv1.DefaultReason_DEFAULT_REASON_LOW_CONFIDENCE
	}
	return response
}

func (s *services) QueryBatch(_ context.Context, req *clipperv1.QueryBatchRequest) (*clipperv1.QueryBatchResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batches = append(s.batches, req)
	res := &clipperv1.QueryBatchResponse{}
	for _, q := range req.GetQueries() {
		res.Results = append(res.Results, &clipperv1.QueryResult{Result: &clipperv1.QueryResult_Response{Response: answer(q.GetInputs())}})
	}
	return res, nil
}

func (s *services) PredictModel(_ context.Context, req *clipperv1.PredictModelRequest) (*clipperv1.PredictModelResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows = append(s.rows, req)
	res := &clipperv1.PredictModelResponse{}
	for i, row := range req.GetRows() {
		p := &clipperv1.ModelPrediction{Status: clipperv1.PredictionStatus_PREDICTION_STATUS_OK, Outputs: row.GetInputs()}
		if s.predict != nil {
			p = s.predict(i)
		}
		p.Version = "v1.2"
		res.Predictions = append(res.Predictions, p)
	}
	return res, nil
}

func (s *services) GetModel(_ context.Context, req *clipperv1.GetModelRequest) (*clipperv1.GetModelResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looked++
	if s.model.GetName() != req.GetModel() {
		return nil, apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND, "model", "there is no model %q", req.GetModel())
	}
	return &clipperv1.GetModelResponse{Model: s.model}, nil
}

func (s *services) GetBatching(_ context.Context, req *clipperv1.GetBatchingRequest) (*clipperv1.GetBatchingResponse, error) {
	if req.GetVersion() != "v1.2" {
		return nil, apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND, "version", "gone")
	}
	return &clipperv1.GetBatchingResponse{Counters: &clipperv1.ModelCounters{
		Batches: 3, Rows: 9, BatchTime: durationpb.New(time.Second), QueuedRows: 9, QueueTime: durationpb.New(time.Minute), CacheHits: 4, CacheMisses: 5,
	}}, nil
}

func (s *services) ListModels(context.Context, *clipperv1.ListModelsRequest) (*clipperv1.ListModelsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &clipperv1.ListModelsResponse{Models: []*clipperv1.Model{s.model}}, nil
}

func (s *services) GetModelVersion(_ context.Context, req *clipperv1.GetModelVersionRequest) (*clipperv1.GetModelVersionResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.version(req.GetVersion())
	if v.State == clipperv1.ModelState_MODEL_STATE_STARTING {
		v.State = clipperv1.ModelState_MODEL_STATE_READY // The second look finds it ready.
		return &clipperv1.GetModelVersionResponse{Version: &clipperv1.ModelVersion{Version: v.Version, State: clipperv1.ModelState_MODEL_STATE_STARTING}}, nil
	}
	return &clipperv1.GetModelVersionResponse{Version: v}, nil
}

func (s *services) UpdateModelVersion(_ context.Context, req *clipperv1.UpdateModelVersionRequest) (*clipperv1.UpdateModelVersionResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.version(req.GetVersion())
	v.Replicas = req.Replicas
	v.State = clipperv1.ModelState_MODEL_STATE_STOPPED
	if v.GetReplicas() > 0 {
		v.State = clipperv1.ModelState_MODEL_STATE_STARTING
	}
	return &clipperv1.UpdateModelVersionResponse{Version: proto.CloneOf(v)}, nil
}

func (s *services) version(name string) *clipperv1.ModelVersion {
	for _, v := range s.model.GetVersions() {
		if v.GetVersion() == name {
			return v
		}
	}
	return nil
}

// fixture is a server of the protocol, and what is behind it.
type fixture struct {
	behind   *services
	server   *oip.Server
	query    *inprocess.Conn
	admin    *inprocess.Conn
	draining chan struct{}
	inference.GRPCInferenceServiceClient
}

func start(t *testing.T, dialect string) *fixture {
	t.Helper()
	behind := &services{model: &clipperv1.Model{Name: "m", CurrentVersion: "v1.2", Versions: []*clipperv1.ModelVersion{
		{Model: "m", Version: "v1.2", Current: true, State: clipperv1.ModelState_MODEL_STATE_READY, Replicas: proto.Uint32(2), Signature: &clipperv1.Signature{
			Inputs:  []*clipperv1.TensorSpec{{Name: "a", DataType: fp32s, Shape: []int64{2}}, {Name: "b", DataType: clipperv1.DataType_DATA_TYPE_STRING}},
			Outputs: []*clipperv1.TensorSpec{{Name: "y", DataType: fp32s, Shape: []int64{-1}}},
		}},
		{Model: "m", Version: "any", State: clipperv1.ModelState_MODEL_STATE_FAILED, StateMessage: "it broke", Replicas: proto.Uint32(1)},
	}}}
	f := &fixture{behind: behind, query: inprocess.New(nil, nil), admin: inprocess.New(nil, nil), draining: make(chan struct{})}
	clipperv1.RegisterQueryServiceServer(f.query, behind)
	clipperv1.RegisterModelServiceServer(f.admin, behind)
	f.server = oip.New(oip.Deps{
		Applications: applications{"digits": {
			Name: "digits", Inputs: []*clipperv1.TensorSpec{{DataType: fp32s, Shape: []int64{2}}},
			Output: &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_LABEL, DataType: labels},
		}},
		Query:  clipperv1.NewQueryServiceClient(f.query),
		Admin:  clipperv1.NewModelServiceClient(f.admin),
		Models: clipperv1.NewModelServiceClient(f.admin),
		// A stream of the tests has fewer at once than it asks.
		Draining: f.draining, Dialect: dialect, StreamInFlight: 2, Version: "1.0",
	})
	f.server.RegisterQuery(f.query)
	f.server.RegisterAdmin(f.admin)
	f.GRPCInferenceServiceClient = inference.NewGRPCInferenceServiceClient(f.query)
	return f
}

// floats is an FP32 input, raw.
func floats(name string, shape []int64, values ...float32) (*inference.ModelInferRequest_InferInputTensor, []byte) {
	var raw []byte
	for _, v := range values {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	return &inference.ModelInferRequest_InferInputTensor{Name: name, Datatype: "FP32", Shape: shape}, raw
}

func digits(shape []int64, values ...float32) *inference.ModelInferRequest {
	in, raw := floats("whatever", shape, values...)
	return &inference.ModelInferRequest{
		ModelName: "digits", Id: "mine",
		Inputs: []*inference.ModelInferRequest_InferInputTensor{in}, RawInputContents: [][]byte{raw},
	}
}

// anyInput is a request to the version that takes any input.
func anyInput(datatype string, shape []int64, contents *inference.InferTensorContents) *inference.ModelInferRequest {
	return &inference.ModelInferRequest{ModelName: "m", ModelVersion: "any", Inputs: []*inference.ModelInferRequest_InferInputTensor{
		{Name: "x", Datatype: datatype, Shape: shape, Contents: contents},
	}}
}

func int64s(values ...int64) (b []byte) {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	return b
}

func TestApplication_oneRow(t *testing.T) {
	f := start(t, oip.Triton)
	for name, shape := range map[string][]int64{"with a batch dimension": {1, 2}, "without": {2}} {
		t.Run(name, func(t *testing.T) {
			res, err := f.ModelInfer(t.Context(), digits(shape, 7, 1))
			require.NoError(t, err)
			require.Equal(t, "mine", res.Id)
			require.Equal(t, "digits", res.ModelName)
			require.Equal(t, "1", res.ModelVersion)
			require.Len(t, res.Outputs, 1)
			require.Equal(t, "output", res.Outputs[0].Name)
			require.Equal(t, "INT64", res.Outputs[0].Datatype)
			require.Equal(t, []int64{1}, res.Outputs[0].Shape)
			require.Equal(t, [][]byte{int64s(7)}, res.RawOutputContents)
			require.Equal(t, "0.5", res.Parameters["confidence"].GetStringParam())
			require.Equal(t, "id-7", res.Parameters["feedback_id"].GetStringParam())
			require.False(t, res.Parameters["is_default"].GetBoolParam())
			require.NotContains(t, res.Parameters, "default_reason")
			require.Equal(t, []int64{2}, f.behind.queries[len(f.behind.queries)-1].Inputs[0].Shape)
		})
	}
	res, err := f.ModelInfer(t.Context(), digits([]int64{2}, -1, 1))
	require.NoError(t, err)
	require.True(t, res.Parameters["is_default"].GetBoolParam())
	require.Equal(t, "LOW_CONFIDENCE", res.Parameters["default_reason"].GetStringParam())
}

func TestApplication_rowsAreABatch(t *testing.T) {
	f := start(t, oip.Triton)
	res, err := f.ModelInfer(t.Context(), digits([]int64{3, 2}, 5, 0, -6, 0, 7, 0))
	require.NoError(t, err)
	require.Equal(t, []int64{3}, res.Outputs[0].Shape)
	require.Equal(t, int64s(5, -6, 7), res.RawOutputContents[0])
	require.Equal(t, `["id-5","id--6","id-7"]`, res.Parameters["feedback_id"].GetStringParam())
	require.Equal(t, `[false,true,false]`, res.Parameters["is_default"].GetStringParam())
	require.Equal(t, `["","LOW_CONFIDENCE",""]`, res.Parameters["default_reason"].GetStringParam())
	require.Equal(t, `[0.5,0.5,0.5]`, res.Parameters["confidence"].GetStringParam())
	require.Len(t, f.behind.batches, 1)
	require.Len(t, f.behind.batches[0].Queries, 3)
}

// A client of KServe knows no double and no uint64; MLServer's and KServe's metadata differ in field 6.
func TestResponses_haveNothingThatAClientCannotRead(t *testing.T) {
	f := start(t, oip.Triton)
	for _, req := range []*inference.ModelInferRequest{digits([]int64{2}, 1, 1), digits([]int64{2, 2}, 1, 1, 1, 1)} {
		res, err := f.ModelInfer(t.Context(), req)
		require.NoError(t, err)
		for name, p := range res.Parameters {
			switch p.GetParameterChoice().(type) {
			case *inference.InferParameter_StringParam, *inference.InferParameter_BoolParam, *inference.InferParameter_Int64Param:
			default:
				t.Errorf("%s is a %T", name, p.GetParameterChoice())
			}
		}
	}
	fields := (&inference.ModelMetadataResponse{}).ProtoReflect().Descriptor().Fields()
	require.Nil(t, fields.ByNumber(6))
	require.Nil(t, (&inference.ModelMetadataResponse_TensorMetadata{}).ProtoReflect().Descriptor().Fields().ByNumber(4))
}

func TestParameters(t *testing.T) {
	p := func(choice any) *inference.InferParameter {
		switch v := choice.(type) {
		case int64:
			return &inference.InferParameter{ParameterChoice: &inference.InferParameter_Int64Param{Int64Param: v}}
		case uint64:
			return &inference.InferParameter{ParameterChoice: &inference.InferParameter_Uint64Param{Uint64Param: v}}
		case float64:
			return &inference.InferParameter{ParameterChoice: &inference.InferParameter_DoubleParam{DoubleParam: v}}
		case bool:
			return &inference.InferParameter{ParameterChoice: &inference.InferParameter_BoolParam{BoolParam: v}}
		}
		return &inference.InferParameter{ParameterChoice: &inference.InferParameter_StringParam{StringParam: choice.(string)}}
	}
	f := start(t, oip.Triton)
	for _, timeout := range []any{int64(1500), uint64(1500), 1500.0, "1500"} {
		req := digits([]int64{2}, 1, 1)
		req.Parameters = map[string]*inference.InferParameter{"timeout": p(timeout), "priority": p(uint64(3)), "context": p("ann"), "sequence_id": p(int64(7)), "theirs": p(true)}
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer k")
		_, err := f.ModelInfer(ctx, req)
		require.NoError(t, err)
		asked := f.behind.queries[len(f.behind.queries)-1]
		require.Equal(t, 1500*time.Microsecond, asked.Timeout.AsDuration(), "%T", timeout)
		require.Equal(t, uint32(3), asked.Priority)
		require.Equal(t, "ann", asked.Context)
		require.Equal(t, []string{"Bearer k"}, f.behind.metadata.Get("authorization"), "the caller's credentials go along")
	}
	req := digits([]int64{2}, 1, 1)
	req.Parameters = map[string]*inference.InferParameter{"timeout": p(int64(0)), "priority": p(uint64(99))}
	_, err := f.ModelInfer(t.Context(), req)
	require.NoError(t, err)
	asked := f.behind.queries[len(f.behind.queries)-1]
	require.Nil(t, asked.Timeout)
	require.Equal(t, uint32(8), asked.Priority, "less than ours can say is our least")

	for name, bad := range map[string]any{"timeout": int64(-1), "priority": "high", "context": true} {
		req.Parameters = map[string]*inference.InferParameter{name: p(bad)}
		_, err := f.ModelInfer(t.Context(), req)
		require.Equal(t, fmt.Sprintf("parameters[%q]", name), apierror.ToProto(err).GetField(), "%v", err)
	}
	for _, bad := range []any{0.5, math.Inf(1), math.NaN(), uint64(math.MaxUint64)} {
		req.Parameters = map[string]*inference.InferParameter{"timeout": p(bad)}
		_, err := f.ModelInfer(t.Context(), req)
		require.Equal(t, codes.InvalidArgument, status.Code(err), "%v", bad)
	}
}

func TestModel_severalInputsByName(t *testing.T) {
	f := start(t, oip.Triton)
	a, raw := floats("a", []int64{2, 2}, 1, 2, 3, 4)
	text := &inference.ModelInferRequest_InferInputTensor{Name: "b", Datatype: "BYTES", Shape: []int64{2, 1}}
	req := &inference.ModelInferRequest{
		ModelName: "m", Inputs: []*inference.ModelInferRequest_InferInputTensor{text, a},
		RawInputContents: [][]byte{{1, 0, 0, 0, 'x', 0, 0, 0, 0}, raw},
		Outputs:          []*inference.ModelInferRequest_InferRequestedOutputTensor{{Name: "b"}},
	}
	res, err := f.ModelInfer(t.Context(), req)
	require.NoError(t, err)
	require.Equal(t, "v1.2", res.ModelVersion, "of the model that answered")
	rows := f.behind.rows[0].Rows
	require.Len(t, rows, 2)
	require.Equal(t, []string{"a", "b"}, []string{rows[1].Inputs[0].Name, rows[1].Inputs[1].Name}, "in the signature's order")
	require.Equal(t, []string{""}, rows[1].Inputs[1].Strings)
	require.Empty(t, rows[0].Inputs[1].Shape, "Triton's clients have no scalars")
	require.Len(t, res.Outputs, 1)
	require.Equal(t, "b", res.Outputs[0].Name)
	require.Equal(t, []int64{2}, res.Outputs[0].Shape)
	require.Equal(t, []byte{1, 0, 0, 0, 'x', 0, 0, 0, 0}, res.RawOutputContents[0])

	req.Inputs[0].Shape = nil
	req.RawInputContents[0] = []byte{1, 0, 0, 0, 'x'}
	_, err = f.ModelInfer(t.Context(), req)
	require.ErrorContains(t, err, "same batch dimension")
}

func TestModel_anyInputHasABatchDimension(t *testing.T) {
	f := start(t, oip.Triton)
	_, err := f.ModelInfer(t.Context(), anyInput("BYTES", []int64{2}, &inference.InferTensorContents{BytesContents: [][]byte{{0xff}, {}}}))
	require.NoError(t, err)
	require.Len(t, f.behind.rows[0].Rows, 2)
	require.Equal(t, clipperv1.DataType_DATA_TYPE_BYTES, f.behind.rows[0].Rows[0].Inputs[0].DataType)

	req := anyInput("BYTES", nil, &inference.InferTensorContents{BytesContents: [][]byte{[]byte("x")}})
	req.Inputs[0].Parameters = map[string]*inference.InferParameter{"content_type": {ParameterChoice: &inference.InferParameter_StringParam{StringParam: "str"}}}
	_, err = f.ModelInfer(t.Context(), req)
	require.NoError(t, err)
	require.Equal(t, []string{"x"}, f.behind.rows[1].Rows[0].Inputs[0].Strings)
	require.Empty(t, f.behind.rows[1].Rows[0].Inputs[0].Name)
}

// Triton's clients read raw contents only; MLServer's want what they sent.
func TestDialects_encodeAnswers(t *testing.T) {
	typed := anyInput("FP32", []int64{1, 2}, &inference.InferTensorContents{Fp32Contents: []float32{1, 2}})
	half := anyInput("FP16", []int64{1, 1}, nil)
	half.RawInputContents = [][]byte{{0, 0x3c}}
	for name, tc := range map[string]struct {
		dialect, chosen string
		request         *inference.ModelInferRequest
		raw             bool
	}{
		"triton":          {oip.Triton, "", typed, true},
		"mlserver":        {oip.MLServer, "", typed, false},
		"chosen":          {oip.Triton, oip.MLServer, typed, false},
		"chosen triton":   {oip.MLServer, oip.Triton, typed, true},
		"mlserver raw":    {oip.MLServer, "", digits([]int64{2}, 1, 2), true},
		"has only raw":    {oip.MLServer, "", half, true},
		"triton raw":      {oip.Triton, "", digits([]int64{2}, 1, 2), true},
		"nothing is said": {"", "", typed, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, tc.dialect)
			ctx := t.Context()
			if tc.chosen != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, oip.DialectKey, tc.chosen)
			}
			res, err := f.ModelInfer(ctx, tc.request)
			require.NoError(t, err)
			require.Equal(t, tc.raw, len(res.RawOutputContents) == 1)
			require.Equal(t, tc.raw, res.Outputs[0].Contents == nil, "never both")
		})
	}
}

func TestInfer_bad(t *testing.T) {
	f := start(t, oip.Triton)
	other := func(change func(*inference.ModelInferRequest)) *inference.ModelInferRequest {
		req := digits([]int64{1, 2}, 1, 2)
		change(req)
		return req
	}
	wants := func(name, parameter string) func(*inference.ModelInferRequest) {
		return func(r *inference.ModelInferRequest) {
			w := &inference.ModelInferRequest_InferRequestedOutputTensor{Name: name}
			if parameter != "" {
				w.Parameters = map[string]*inference.InferParameter{parameter: {}}
			}
			r.Outputs = append(r.Outputs, w)
		}
	}
	for name, tc := range map[string]struct {
		request *inference.ModelInferRequest
		code    codes.Code
		field   string
		says    string
	}{
		"no name":         {other(func(r *inference.ModelInferRequest) { r.ModelName = "" }), codes.InvalidArgument, "model_name", "missing"},
		"no model":        {other(func(r *inference.ModelInferRequest) { r.ModelName = "Digits" }), codes.NotFound, "model_name", `no application and no model "Digits"`},
		"app's version":   {other(func(r *inference.ModelInferRequest) { r.ModelVersion = "2" }), codes.NotFound, "model_version", "is an application"},
		"model's version": {other(func(r *inference.ModelInferRequest) { r.ModelName, r.ModelVersion = "m", "2" }), codes.NotFound, "model_version", `no version "2"`},
		"shape":           {digits([]int64{3}, 1, 2, 3), codes.InvalidArgument, "inputs[0].shape", "expected [-1 2]"},
		"rank":            {digits([]int64{1, 1, 2}, 1, 2), codes.InvalidArgument, "inputs[0].shape", "expected [-1 2]"},
		"no rows":         {digits([]int64{0, 2}), codes.InvalidArgument, "inputs[0].shape", "no rows"},
		"too many rows":   {digits([]int64{10_001, 2}, make([]float32, 20_002)...), codes.InvalidArgument, "inputs[0].shape", "at most 10000 rows"},
		"type":            {other(func(r *inference.ModelInferRequest) { r.Inputs[0].Datatype = "INT32" }), codes.InvalidArgument, "inputs[0].datatype", "expected FP32"},
		"an input less":   {other(func(r *inference.ModelInferRequest) { r.ModelName = "m" }), codes.InvalidArgument, "inputs", "expected 2"},
		"output":          {other(wants("probabilities", "")), codes.InvalidArgument, "outputs[0].name", `"output"`},
		"output twice":    {other(func(r *inference.ModelInferRequest) { wants("output", "")(r); wants("output", "")(r) }), codes.InvalidArgument, "outputs[1].name", "once"},
		"classification":  {other(wants("output", "classification")), codes.InvalidArgument, "outputs[0].parameters", "classification"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.ModelInfer(t.Context(), tc.request)
			require.Equal(t, tc.code, status.Code(err), "%v", err)
			require.Equal(t, tc.field, apierror.ToProto(err).GetField())
			require.ErrorContains(t, err, tc.says)
		})
	}
}

func TestModel_failures(t *testing.T) {
	for state, code := range map[clipperv1.PredictionStatus]codes.Code{
		clipperv1.PredictionStatus_PREDICTION_STATUS_FAILED:      codes.Unknown,
		clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE:    codes.DeadlineExceeded,
		clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA:  codes.Unavailable,
		clipperv1.PredictionStatus_PREDICTION_STATUS_UNAVAILABLE: codes.Unavailable,
		clipperv1.PredictionStatus_PREDICTION_STATUS_OVERLOADED:  codes.ResourceExhausted,
		clipperv1.PredictionStatus_PREDICTION_STATUS_NOT_FOUND:   codes.NotFound,
	} {
		t.Run(state.String(), func(t *testing.T) {
			f := start(t, oip.Triton)
			f.behind.predict = func(row int) *clipperv1.ModelPrediction {
				return &clipperv1.ModelPrediction{Status: state, Message: "the reason", RetryAfter: durationpb.New(time.Second)}
			}
			_, err := f.ModelInfer(t.Context(), anyInput("FP32", []int64{1, 1}, &inference.InferTensorContents{Fp32Contents: []float32{1}}))
			require.Equal(t, code, status.Code(err))
			require.ErrorContains(t, err, "row 0: the reason")
		})
	}
	f := start(t, oip.Triton)
	f.behind.predict = func(row int) *clipperv1.ModelPrediction {
		return &clipperv1.ModelPrediction{Status: clipperv1.PredictionStatus_PREDICTION_STATUS_OK, Outputs: []*clipperv1.Tensor{
			{DataType: clipperv1.DataType_DATA_TYPE_UINT8, Shape: []int64{int64(row)}, Data: make([]byte, row)},
		}}
	}
	_, err := f.ModelInfer(t.Context(), anyInput("FP32", []int64{2, 1}, &inference.InferTensorContents{Fp32Contents: []float32{1, 2}}))
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	require.ErrorContains(t, err, "one row at a time")
}

func TestModel_isLookedUpOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, oip.Triton)
		ask := func() {
			_, err := f.ModelInfer(t.Context(), anyInput("FP32", []int64{1, 1}, &inference.InferTensorContents{Fp32Contents: []float32{1}}))
			require.NoError(t, err)
		}
		ask()
		ask()
		require.Equal(t, 1, f.behind.looked)
		time.Sleep(time.Second)
		ask()
		require.Equal(t, 2, f.behind.looked)
		_, err := f.ModelReady(t.Context(), &inference.ModelReadyRequest{Name: "m"})
		require.NoError(t, err)
		require.Equal(t, 3, f.behind.looked, "what is not for inference is as it is now")
	})
}

func TestMetadata(t *testing.T) {
	f := start(t, oip.Triton)
	server, err := f.ServerMetadata(t.Context(), &inference.ServerMetadataRequest{})
	require.NoError(t, err)
	require.Equal(t, "1.0", server.Version)

	m, err := f.ModelMetadata(t.Context(), &inference.ModelMetadataRequest{Name: "m"})
	require.NoError(t, err)
	require.Equal(t, []string{"v1.2", "any"}, m.Versions)
	require.Equal(t, []int64{-1, 2}, m.Inputs[0].Shape)
	require.Equal(t, "BYTES", m.Inputs[1].Datatype)
	require.Equal(t, []int64{-1, -1}, m.Outputs[0].Shape)

	m, err = f.ModelMetadata(t.Context(), &inference.ModelMetadataRequest{Name: "m", Version: "any"})
	require.NoError(t, err)
	require.Equal(t, "FP32", m.Inputs[0].Datatype, "a type that is accepted, for clients that build requests by it")
	require.Equal(t, []int64{-1, -1}, m.Inputs[0].Shape)

	config, err := f.ModelConfig(t.Context(), &inference.ModelConfigRequest{Name: "digits"})
	require.NoError(t, err)
	require.Equal(t, int32(10_000), config.Config.MaxBatchSize)
	require.Equal(t, []int64{2}, config.Config.Input[0].Dims)
	require.Equal(t, inference.DataType_TYPE_INT64, config.Config.Output[0].DataType)
	require.False(t, config.Config.ModelTransactionPolicy.Decoupled)
	_, err = f.ModelConfig(t.Context(), &inference.ModelConfigRequest{Name: "nobody"})
	require.Equal(t, codes.NotFound, status.Code(err))

	for name, ready := range map[string]bool{"digits": true, "m": true, "nobody": false} {
		res, err := f.ModelReady(t.Context(), &inference.ModelReadyRequest{Name: name})
		require.NoError(t, err)
		require.Equal(t, ready, res.Ready, name)
	}
	res, err := f.ModelReady(t.Context(), &inference.ModelReadyRequest{Name: "m", Version: "any"})
	require.NoError(t, err)
	require.False(t, res.Ready, "it has failed")

	up, err := f.ServerReady(t.Context(), &inference.ServerReadyRequest{})
	require.NoError(t, err)
	require.True(t, up.Ready)
	close(f.draining)
	up, err = f.ServerReady(t.Context(), &inference.ServerReadyRequest{})
	require.NoError(t, err)
	require.False(t, up.Ready)
}

func TestStatistics(t *testing.T) {
	f := start(t, oip.Triton)
	for _, req := range []*inference.ModelInferRequest{digits([]int64{3, 2}, 1, 1, 1, 1, 1, 1), digits([]int64{2}, 1, 1), digits([]int64{1}, 1)} {
		_, _ = f.ModelInfer(t.Context(), req) // The last fails, and is counted.
	}
	res, err := f.ModelStatistics(t.Context(), &inference.ModelStatisticsRequest{})
	require.NoError(t, err)
	require.Len(t, res.ModelStats, 3)
	stats := res.ModelStats[0]
	require.Equal(t, "digits", stats.Name)
	require.Equal(t, uint64(4), stats.InferenceCount)
	require.Equal(t, uint64(2), stats.InferenceStats.Success.Count)
	require.Equal(t, uint64(1), stats.InferenceStats.Fail.Count)
	require.NotZero(t, stats.LastInference)
	one, err := f.ModelStatistics(t.Context(), &inference.ModelStatisticsRequest{Name: "m"})
	require.NoError(t, err)
	require.Len(t, one.ModelStats, 2)
	stats = one.ModelStats[0]
	require.Equal(t, uint64(3), stats.ExecutionCount)
	require.Equal(t, uint64(time.Minute), stats.InferenceStats.Queue.Ns)
	require.Equal(t, uint64(time.Second), stats.InferenceStats.ComputeInfer.Ns)
	require.Equal(t, uint64(4), stats.InferenceStats.CacheHit.Count)
	_, err = f.ModelStatistics(t.Context(), &inference.ModelStatisticsRequest{Name: "nobody"})
	require.Equal(t, codes.NotFound, status.Code(err))
}

func TestRepository(t *testing.T) {
	f := start(t, oip.Triton)
	index, err := f.RepositoryIndex(t.Context(), &inference.RepositoryIndexRequest{})
	require.NoError(t, err)
	var got []string
	for _, m := range index.Models {
		got = append(got, m.Name+":"+m.Version+" "+m.State+" "+m.Reason)
	}
	require.Equal(t, []string{"digits:1 READY ", "m:v1.2 READY ", "m:any UNAVAILABLE it broke"}, got)
	index, err = f.RepositoryIndex(t.Context(), &inference.RepositoryIndexRequest{Ready: true})
	require.NoError(t, err)
	require.Len(t, index.Models, 2)

	_, err = f.RepositoryModelUnload(t.Context(), &inference.RepositoryModelUnloadRequest{ModelName: "m"})
	require.ErrorContains(t, err, "listener for administration")
	_, err = modelrepository.NewModelRepositoryServiceClient(f.query).RepositoryModelLoad(t.Context(), &modelrepository.RepositoryModelLoadRequest{ModelName: "m"})
	require.ErrorContains(t, err, "listener for administration")
}

// KServe has the name in the field that is the repository elsewhere, and reads an answer that is empty
// elsewhere; MLServer has a service of its own.
func TestRepository_loadsInEveryDialect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, oip.Triton)
		admin := inference.NewGRPCInferenceServiceClient(f.admin)
		mlserver := modelrepository.NewModelRepositoryServiceClient(f.admin)
		stopped := func() bool { return f.behind.model.Versions[0].GetReplicas() == 0 }

		_, err := admin.RepositoryModelUnload(t.Context(), &inference.RepositoryModelUnloadRequest{ModelName: "m"})
		require.NoError(t, err)
		require.True(t, stopped())
		loaded, err := admin.RepositoryModelLoad(t.Context(), &inference.RepositoryModelLoadRequest{RepositoryName: "m"})
		require.NoError(t, err)
		require.Equal(t, "m", loaded.ModelName)
		require.True(t, loaded.IsLoaded)
		require.False(t, stopped())
		require.Equal(t, clipperv1.ModelState_MODEL_STATE_READY, f.behind.model.Versions[0].State, "it has waited")

		_, err = mlserver.RepositoryModelUnload(t.Context(), &modelrepository.RepositoryModelUnloadRequest{ModelName: "m"})
		require.NoError(t, err)
		require.True(t, stopped())
		_, err = mlserver.RepositoryModelLoad(t.Context(), &modelrepository.RepositoryModelLoadRequest{ModelName: "m"})
		require.NoError(t, err)
		require.False(t, stopped())
		index, err := mlserver.RepositoryIndex(t.Context(), &modelrepository.RepositoryIndexRequest{Ready: true})
		require.NoError(t, err)
		require.Len(t, index.Models, 2)

		_, err = admin.RepositoryModelLoad(t.Context(), &inference.RepositoryModelLoadRequest{ModelName: "nobody"})
		require.Equal(t, codes.NotFound, status.Code(err))
		_, err = admin.RepositoryModelLoad(t.Context(), &inference.RepositoryModelLoadRequest{})
		require.Equal(t, codes.InvalidArgument, status.Code(err))
		_, err = admin.RepositoryModelLoad(t.Context(), &inference.RepositoryModelLoadRequest{ModelName: "m", Parameters: map[string]*inference.ModelRepositoryParameter{"config": {}}})
		require.ErrorContains(t, err, "deploy a new version")
	})
}

// dial serves the protocol on a connection with encoding, as streams of dialects need it.
func dial(t *testing.T, f *fixture) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	f.server.RegisterQuery(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return listener.Dial() }))
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		server.Stop()
		require.NoError(t, <-served)
	})
	return conn
}

func TestStream_answersInOrderAndSurvivesErrors(t *testing.T) {
	f := start(t, oip.Triton)
	stream, err := inference.NewGRPCInferenceServiceClient(dial(t, f)).ModelStreamInfer(t.Context())
	require.NoError(t, err)
	for i := range 10 {
		req := digits([]int64{2}, float32(i), 0)
		if req.Id = fmt.Sprint(i); i == 4 {
			req.ModelName = "nobody"
		}
		require.NoError(t, stream.Send(req))
	}
	require.NoError(t, stream.CloseSend())
	for i := range 10 {
		res, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(i), res.InferResponse.Id)
		if i == 4 {
			require.Contains(t, res.ErrorMessage, "nobody")
			continue
		}
		require.Empty(t, res.ErrorMessage)
		require.Equal(t, int64s(int64(i)), res.InferResponse.RawOutputContents[0])
	}
	_, err = stream.Recv()
	require.ErrorContains(t, err, "EOF")
}

func TestStream_inMLServersDialectIsPlain(t *testing.T) {
	f := start(t, oip.MLServer)
	stream, err := dial(t, f).NewStream(t.Context(), &inference.GRPCInferenceService_ServiceDesc.Streams[0], inference.GRPCInferenceService_ModelStreamInfer_FullMethodName)
	require.NoError(t, err)
	require.NoError(t, stream.SendMsg(digits([]int64{2}, 3, 0)))
	var res inference.ModelInferResponse
	require.NoError(t, stream.RecvMsg(&res))
	require.Equal(t, "digits", res.ModelName)
	require.Equal(t, int64s(3), res.RawOutputContents[0])
	require.NoError(t, stream.SendMsg(digits([]int64{1}, 3)))
	require.Equal(t, codes.InvalidArgument, status.Code(stream.RecvMsg(&res)))
}

func TestStream_errorsAsStatusWhenAskedFor(t *testing.T) {
	f := start(t, oip.Triton)
	stream, err := inference.NewGRPCInferenceServiceClient(dial(t, f)).ModelStreamInfer(metadata.AppendToOutgoingContext(t.Context(), "triton_grpc_error", "true"))
	require.NoError(t, err)
	require.NoError(t, stream.Send(digits([]int64{1}, 3)))
	_, err = stream.Recv()
	require.Equal(t, codes.InvalidArgument, status.Code(err))
}

func TestStream_endsWhenTheServerDrains(t *testing.T) {
	f := start(t, oip.Triton)
	stream, err := inference.NewGRPCInferenceServiceClient(dial(t, f)).ModelStreamInfer(t.Context())
	require.NoError(t, err)
	req := digits([]int64{2}, 3, 0)
	req.Parameters = map[string]*inference.InferParameter{"triton_enable_empty_final_response": {ParameterChoice: &inference.InferParameter_BoolParam{BoolParam: true}}}
	require.NoError(t, stream.Send(req))
	res, err := stream.Recv()
	require.NoError(t, err)
	require.True(t, res.InferResponse.Parameters["triton_final_response"].GetBoolParam())
	close(f.draining)
	_, err = stream.Recv()
	require.Equal(t, codes.Unavailable, status.Code(err))
}
