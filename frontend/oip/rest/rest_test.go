// SPDX-License-Identifier: Apache-2.0

package rest_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/clipper-serving/clipper/frontend/oip/rest"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/gen/go/inference"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/inprocess"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is a service that answers with the inputs: input "a" becomes output "a".
type service struct {
	inference.UnimplementedGRPCInferenceServiceServer
	infer  func(context.Context, *inference.ModelInferRequest) (*inference.ModelInferResponse, error)
	inputs []*inference.ModelMetadataResponse_TensorMetadata
	down   bool
}

func echo(_ context.Context, q *inference.ModelInferRequest) (*inference.ModelInferResponse, error) {
	answer := &inference.ModelInferResponse{ModelName: q.ModelName, ModelVersion: q.ModelVersion, Id: q.Id, Parameters: q.Parameters, RawOutputContents: q.RawInputContents}
	for _, in := range q.Inputs {
		answer.Outputs = append(answer.Outputs, &inference.ModelInferResponse_InferOutputTensor{Name: in.Name, Datatype: in.Datatype, Shape: in.Shape, Parameters: in.Parameters})
	}
	return answer, nil
}

func (s *service) ModelInfer(ctx context.Context, q *inference.ModelInferRequest) (*inference.ModelInferResponse, error) {
	return s.infer(ctx, q)
}

func (s *service) ServerLive(context.Context, *inference.ServerLiveRequest) (*inference.ServerLiveResponse, error) {
	return &inference.ServerLiveResponse{Live: !s.down}, nil
}

func (s *service) ServerReady(context.Context, *inference.ServerReadyRequest) (*inference.ServerReadyResponse, error) {
	return &inference.ServerReadyResponse{Ready: !s.down}, nil
}

func (s *service) ModelReady(_ context.Context, q *inference.ModelReadyRequest) (*inference.ModelReadyResponse, error) {
	if q.Name == "unknown" {
		return nil, apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND, "", "there is no model %q", q.Name)
	}
	return &inference.ModelReadyResponse{Ready: !s.down}, nil
}

func (s *service) ServerMetadata(context.Context, *inference.ServerMetadataRequest) (*inference.ServerMetadataResponse, error) {
	return &inference.ServerMetadataResponse{Name: "clipper", Version: "1", Extensions: []string{"statistics"}}, nil
}

func (s *service) ModelMetadata(_ context.Context, q *inference.ModelMetadataRequest) (*inference.ModelMetadataResponse, error) {
	return &inference.ModelMetadataResponse{Name: q.Name, Versions: []string{q.Version}, Platform: "clipper", Inputs: s.inputs}, nil
}

func (s *service) ModelConfig(_ context.Context, q *inference.ModelConfigRequest) (*inference.ModelConfigResponse, error) {
	return &inference.ModelConfigResponse{Config: &inference.ModelConfig{
		Name: q.Name, MaxBatchSize: 8, Input: []*inference.ModelInput{{Name: "x", DataType: inference.DataType_TYPE_FP32, Dims: []int64{-1}}},
		SchedulingChoice: &inference.ModelConfig_DynamicBatching{DynamicBatching: &inference.ModelDynamicBatching{PriorityLevels: 8}},
	}}, nil
}

func (s *service) ModelStatistics(_ context.Context, q *inference.ModelStatisticsRequest) (*inference.ModelStatisticsResponse, error) {
	return &inference.ModelStatisticsResponse{ModelStats: []*inference.ModelStatistics{{
		Name: q.Name, Version: q.Version, InferenceCount: math.MaxUint64,
		InferenceStats: &inference.InferStatistics{Success: &inference.StatisticDuration{Count: 3, Ns: 5}},
	}}}, nil
}

func (s *service) RepositoryIndex(_ context.Context, q *inference.RepositoryIndexRequest) (*inference.RepositoryIndexResponse, error) {
	list := &inference.RepositoryIndexResponse{Models: []*inference.RepositoryIndexResponse_ModelIndex{
		{Name: "a", Version: "1", State: "READY"}, {Name: "a", Version: "2", State: "UNAVAILABLE", Reason: "it failed"}, {Name: "b", State: "READY"},
	}}
	if q.Ready {
		list.Models = list.Models[:1]
	}
	return list, nil
}

func (s *service) RepositoryModelLoad(_ context.Context, q *inference.RepositoryModelLoadRequest) (*inference.RepositoryModelLoadResponse, error) {
	if len(q.Parameters) > 0 {
		return nil, status.Errorf(codes.InvalidArgument, "%s %v %v %v %q", q.ModelName, q.Parameters["b"].GetBoolParam(), q.Parameters["i"].GetInt64Param(),
			q.Parameters["config"].GetStringParam(), q.Parameters["file:1/m"].GetBytesParam())
	}
	return &inference.RepositoryModelLoadResponse{}, nil
}

func (s *service) RepositoryModelUnload(context.Context, *inference.RepositoryModelUnloadRequest) (*inference.RepositoryModelUnloadResponse, error) {
	return &inference.RepositoryModelUnloadResponse{}, nil
}

const maxBody = 64 << 10

func handler(t testing.TB, s *service) http.Handler {
	if s.infer == nil {
		s.infer = echo
	}
	conn := inprocess.New(nil, nil)
	inference.RegisterGRPCInferenceServiceServer(conn, s)
	h, err := rest.New(rest.Config{MaxBody: maxBody, BodyTimeout: 30 * time.Second}, conn, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return h
}

func call(h http.Handler, method, path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestRoutes(t *testing.T) {
	h := handler(t, &service{})
	const good = `{"inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1]}]}`
	for _, tt := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/v2", "", 200, `{"name":"clipper","version":"1","extensions":["statistics","binary_tensor_data"]}`},
		{"GET", "/v2/", "", 200, `{"name":"clipper","version":"1","extensions":["statistics","binary_tensor_data"]}`},
		{"GET", "/v2/health/live", "", 200, `{"live":true}`},
		{"HEAD", "/v2/health/live", "", 200, `{"live":true}`}, // The server leaves the body out.
		{"GET", "/v2/health/ready", "", 200, `{"ready":true,"live":true}`},
		{"GET", "/v2/models/m", "", 200, `{"name":"m","versions":[""],"platform":"clipper","inputs":[],"outputs":[]}`},
		{"GET", "/v2/models/m/", "", 200, `{"name":"m","versions":[""],"platform":"clipper","inputs":[],"outputs":[]}`},
		{"GET", "/v2/models/m/versions/v1.2.3", "", 200, `{"name":"m","versions":["v1.2.3"],"platform":"clipper","inputs":[],"outputs":[]}`},
		{"GET", "/v2/models/m/ready", "", 200, `{"name":"m","ready":true}`},
		{"GET", "/v2/models/m/versions/1/ready", "", 200, `{"name":"m","ready":true}`},
		{"GET", "/v2/models/unknown/ready", "", 404, `{"error":"there is no model \"unknown\""}`},
		{"POST", "/v2/models/m/infer", good, 200, `{"model_name":"m","outputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1]}]}`},
		{"POST", "/v2/models/m/versions/2/infer", good, 200, `{"model_name":"m","model_version":"2","outputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1]}]}`},
		{"POST", "/v2/models/a%2Fb%20%C3%A9%25/infer", good, 200, `{"model_name":"a/b é%","outputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1]}]}`},
		{"POST", "/v2/models/infer/infer", good, 200, `{"model_name":"infer","outputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1]}]}`},
		{"POST", "/v2/models/%2E%2E/infer", good, 200, `{"model_name":"..","outputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1]}]}`},
		{"POST", "/v2/models/m/versions/..%2F1/infer", good, 200, `{"model_name":"m","model_version":"../1","outputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1]}]}`},
		{"POST", "/v2/models/%FF/infer", good, 400, `{"error":"the path cannot be read: \"%FF\" is not UTF-8 in percent-encoding"}`},
		{"GET", "/v2/models/m/infer", "", 405, `{"error":"/v2/models/m/infer cannot be used with GET, only with POST"}`},
		{"POST", "/v2/health/live", "", 405, `{"error":"/v2/health/live cannot be used with POST, only with GET"}`},
		{"GET", "/v2/models/m/config", "", 200, `{"name":"m","platform":"","max_batch_size":8,"input":[{"name":"x","data_type":"TYPE_FP32","dims":[-1],"optional":false}],"output":[],"dynamic_batching":{"preserve_ordering":false,"priority_levels":8,"default_priority_level":0},"backend":""}`},
		{"GET", "/v2/models/m/versions/1/config", "", 200, ""},
		{"GET", "/v2/models/m/versions/3/stats", "", 200, `{"model_stats":[{"name":"m","version":"3","last_inference":0,"inference_count":18446744073709551615,"execution_count":0,"inference_stats":{"success":{"count":3,"ns":5}},"batch_stats":[]}]}`},
		{"GET", "/v2/models/stats", "", 200, `{"model_stats":[{"name":"","version":"","last_inference":0,"inference_count":18446744073709551615,"execution_count":0,"inference_stats":{"success":{"count":3,"ns":5}},"batch_stats":[]}]}`},
		{"GET", "/v2/models", "", 200, `{"models":["a","b"]}`},
		{"POST", "/v2/repository/index", "", 200, `[{"name":"a","version":"1","state":"READY","reason":""},{"name":"a","version":"2","state":"UNAVAILABLE","reason":"it failed"},{"name":"b","version":"","state":"READY","reason":""}]`},
		{"POST", "/v2/repository/index", `{"ready":true,"more":1}`, 200, `[{"name":"a","version":"1","state":"READY","reason":""}]`},
		{"POST", "/v2/repository/index", `{"ready":1}`, 400, `{"error":"ready: is a number, expected true or false (at byte 9)"}`},
		{"POST", "/v2/repository/index", `{"ready":true,"ready":true}`, 400, `{"error":"ready: is there twice (at byte 22)"}`},
		{"POST", "/v2/repository/index", `{"ready":true} x`, 400, ""},
		{"POST", "/v2/repository/index", `[]`, 400, ""},
		{"POST", "/v2/repository/models/m/load", "", 200, `{"name":"m","load":true}`},
		{"POST", "/v2/repository/models/m/load", `{"parameters":{"b":true,"i":7,"config":"{}","file:1/m":"AQI="}}`, 400, `{"error":"m true 7 {} \"\\x01\\x02\""}`},
		{"POST", "/v2/repository/models/m/load", `{"parameters":{"file:1/m":"!"}}`, 400, `{"error":"parameters: \"file:1/m\" is not base64 (at byte 14)"}`},
		{"POST", "/v2/repository/models/m/load", `{"parameters":{"f":0.5}}`, 400, ""},
		{"POST", "/v2/repository/models/a%2Fb/unload", `{"parameters":{"unload_dependents":false}}`, 200, `{"name":"a/b","unload":true}`},
		{"GET", "/v2/repository/index", "", 405, ""},
		{"GET", "/v2/health", "", 404, ""},
		{"GET", "/v2//health/live", "", 404, ""},
		{"GET", "/v2/health%2Flive", "", 404, ""},
		{"POST", "/v2/models//infer", good, 404, ""},
		{"POST", "/v2/models/m/generate", good, 404, ""},
		{"POST", "/v2/models/m/versions/1/infer/more", good, 404, ""},
		{"GET", "/v2/" + strings.Repeat("x/", 5000), "", 404, ""},
	} {
		t.Run(tt.method+" "+tt.path[:min(len(tt.path), 60)], func(t *testing.T) {
			w := call(h, tt.method, tt.path, tt.body)
			require.Equal(t, tt.status, w.Code, w.Body)
			require.Equal(t, "application/json", w.Header().Get("Content-Type"))
			if tt.want != "" {
				require.Equal(t, tt.want, w.Body.String())
			}
			if tt.status != http.StatusOK {
				var body map[string]string
				require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
				require.Len(t, body, 1)
				require.NotEmpty(t, body["error"])
				require.Less(t, w.Body.Len(), 300)
			}
		})
	}
	require.Equal(t, "POST", call(h, "GET", "/v2/models/m/infer", "").Header().Get("Allow"))
	for path, want := range map[string]bool{"/v2": true, "/v2/x": true, "/v2x": false, "/v1/v2": false, "/": false} {
		require.Equal(t, want, rest.Serves(path), path)
	}
}

func TestNotReady(t *testing.T) {
	h := handler(t, &service{down: true})
	for _, path := range []string{"/v2/health/live", "/v2/health/ready", "/v2/models/m/ready"} {
		w := call(h, "GET", path, "")
		require.Equal(t, http.StatusServiceUnavailable, w.Code)
		require.Contains(t, w.Body.String(), `{"error":"`)
	}
}

// little encodes as the protocol's raw contents.
func little(values any) string {
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, values); err != nil {
		panic(err)
	}
	return b.String()
}

// Every data type, nested and flat, from JSON to what the service gets, and back.
func TestInfer_dataTypes(t *testing.T) {
	for _, tt := range []struct{ datatype, shape, data, raw, back string }{
		{"BOOL", "[2]", "[true,false]", "\x01\x00", ""},
		{"UINT8", "[2]", "[0,255]", "\x00\xff", ""},
		{"UINT16", "[1]", "[65535]", "\xff\xff", ""},
		{"UINT32", "[1]", "[4294967295]", "\xff\xff\xff\xff", ""},
		{"UINT64", "[1]", "[18446744073709551615]", strings.Repeat("\xff", 8), ""},
		{"INT8", "[2]", "[-128,127]", "\x80\x7f", ""},
		{"INT16", "[1]", "[-2]", "\xfe\xff", ""},
		{"INT32", "[1]", "[-2147483648]", "\x00\x00\x00\x80", ""},
		{"INT64", "[2]", "[-9223372036854775808,9223372036854775807]", little([]int64{math.MinInt64, math.MaxInt64}), ""},
		{"FP16", "[2]", "[1.5,-0.25]", "\x00\x3e\x00\xb4", ""},
		{"BF16", "[1]", "[-1.5]", "\xc0\xbf", ""},
		{"FP32", "[3]", "[0.1,-1e30,3]", little([]float32{.1, -1e30, 3}), "[0.1,-1e+30,3]"},
		{"FP64", "[2]", "[0.1,1e300]", little([]float64{.1, 1e300}), "[0.1,1e+300]"},
		{"BYTES", "[3]", `["","é\n","\u0041"]`, "\x00\x00\x00\x00\x03\x00\x00\x00é\n\x01\x00\x00\x00A", `["","é\n","A"]`},
		{"FP32", "[2,2]", " [ [1, 2] , [3, 4] ] ", little([]float32{1, 2, 3, 4}), "[1,2,3,4]"},
		{"FP32", "[2,2]", "[1,2,3,4]", little([]float32{1, 2, 3, 4}), ""},
		{"INT8", "[1,2,1,2]", "[[[[1,2]],[[3,4]]]]", "\x01\x02\x03\x04", "[1,2,3,4]"},
		{"BYTES", "[1,2]", `[["a","b"]]`, "\x01\x00\x00\x00a\x01\x00\x00\x00b", `["a","b"]`},
		{"INT8", "[]", "7", "\x07", "[7]"},
		{"INT8", "[]", "[7]", "\x07", ""},
		{"INT8", "[0]", "[]", "", ""},
		{"INT8", "[2,0]", "[[],[]]", "", "[]"},
	} {
		for _, order := range []string{`"datatype":%q,"shape":%s,"data":%s`, `"data":%[3]s,"shape":%[2]s,"datatype":%[1]q`} {
			t.Run(tt.datatype+" "+tt.data, func(t *testing.T) {
				var got *inference.ModelInferRequest
				h := handler(t, &service{infer: func(ctx context.Context, q *inference.ModelInferRequest) (*inference.ModelInferResponse, error) {
					got = q
					return echo(ctx, q)
				}})
				w := call(h, "POST", "/v2/models/m/infer", `{"id":"7","inputs":[{"name":"x",`+fmt.Sprintf(order, tt.datatype, tt.shape, tt.data)+`}]}`)
				require.Equal(t, http.StatusOK, w.Code, w.Body)
				require.Equal(t, tt.raw, string(got.RawInputContents[0]))
				require.Nil(t, got.Inputs[0].Contents)
				back := tt.back
				if back == "" {
					back = tt.data
				}
				require.JSONEq(t, fmt.Sprintf(`{"model_name":"m","id":"7","outputs":[{"name":"x","datatype":%q,"shape":%s,"data":%s}]}`, tt.datatype, tt.shape, back), w.Body.String())
			})
		}
	}
}

func TestInfer_numbersThatJSONHasNot(t *testing.T) {
	h := handler(t, &service{})
	raw := little([]float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))})
	head := `{"inputs":[{"name":"x","datatype":"FP32","shape":[3],"parameters":{"binary_data_size":12}}]}`
	w := call(h, "POST", "/v2/models/m/infer", head+raw, "Inference-Header-Content-Length", strconv.Itoa(len(head)))
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	require.Contains(t, w.Body.String(), `"data":["NaN","Infinity","-Infinity"]`)
}

func TestInfer_parameters(t *testing.T) {
	var got *inference.ModelInferRequest
	h := handler(t, &service{infer: func(ctx context.Context, q *inference.ModelInferRequest) (*inference.ModelInferResponse, error) {
		got = q
		return echo(ctx, q)
	}})
	w := call(h, "POST", "/v2/models/m/infer", `{"model_name":"m","parameters":{"timeout":5000,"b":true,"f":0.5,"s":"t\"","n":null,"u":18446744073709551615,"binary_data_output":false},
		"inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1],"parameters":{"content_type":"np"}}],"outputs":[{"name":"x","parameters":{"classification":2,"binary_data":false}}],"more":[{"of":{}}]}`)
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	require.JSONEq(t, `{"model_name":"m","parameters":{"b":true,"f":0.5,"s":"t\"","timeout":5000,"u":18446744073709551615},"outputs":[{"name":"x","datatype":"INT8","shape":[1],"parameters":{"content_type":"np"},"data":[1]}]}`, w.Body.String())
	require.Equal(t, int64(5000), got.Parameters["timeout"].GetInt64Param())
	require.Len(t, got.Outputs, 1)
	require.Len(t, got.Outputs[0].Parameters, 1)
	require.Equal(t, int64(2), got.Outputs[0].Parameters["classification"].GetInt64Param())
}

func TestInfer_binary(t *testing.T) {
	h := handler(t, &service{})
	for _, tt := range []struct {
		name, head, tail, want, parts string
	}{
		{
			"in and out",
			`{"parameters":{"binary_data_output":true},"inputs":[{"name":"x","datatype":"INT16","shape":[2],"parameters":{"binary_data_size":4}}]}`, "\x01\x00\x02\x00",
			`{"model_name":"m","outputs":[{"name":"x","datatype":"INT16","shape":[2],"parameters":{"binary_data_size":4}}]}`, "\x01\x00\x02\x00",
		},
		{
			"in only",
			`{"inputs":[{"name":"x","datatype":"INT16","shape":[2],"parameters":{"binary_data_size":4}}]}`, "\x01\x00\x02\x00",
			`{"model_name":"m","outputs":[{"name":"x","datatype":"INT16","shape":[2],"data":[1,2]}]}`, "",
		},
		{
			"an output says itself, other than all",
			`{"parameters":{"binary_data_output":true},"outputs":[{"name":"x","parameters":{"binary_data":false}},{"name":"y"}],"inputs":[{"name":"x","datatype":"INT8","shape":[1],"parameters":{"binary_data_size":1}},{"name":"y","datatype":"INT8","shape":[1],"data":[5]}]}`, "\x04",
			`{"model_name":"m","outputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[4]},{"name":"y","datatype":"INT8","shape":[1],"parameters":{"binary_data_size":1}}]}`, "\x05",
		},
		{
			"one output only",
			`{"outputs":[{"name":"y","parameters":{"binary_data":true}}],"inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[5]},{"name":"y","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":9}}]}`, "\x00\x00\x00\x00\x01\x00\x00\x00\xff",
			`{"model_name":"m","outputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[5]},{"name":"y","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":9}}]}`, "\x00\x00\x00\x00\x01\x00\x00\x00\xff",
		},
		{
			"no bytes",
			`{"parameters":{"binary_data_output":true},"inputs":[{"name":"x","datatype":"INT8","shape":[0],"parameters":{"binary_data_size":0}}]}`, "",
			`{"model_name":"m","outputs":[{"name":"x","datatype":"INT8","shape":[0],"parameters":{"binary_data_size":0}}]}`, "",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := call(h, "POST", "/v2/models/m/infer", tt.head+tt.tail, "Inference-Header-Content-Length", strconv.Itoa(len(tt.head)), "Content-Type", "application/octet-stream")
			require.Equal(t, http.StatusOK, w.Code, w.Body)
			require.Equal(t, tt.want+tt.parts, w.Body.String())
			if !strings.Contains(tt.want, "binary_data_size") {
				require.Empty(t, w.Header().Get("Inference-Header-Content-Length"))
				require.Equal(t, "application/json", w.Header().Get("Content-Type"))
				return
			}
			require.Equal(t, strconv.Itoa(len(tt.want)), w.Header().Get("Inference-Header-Content-Length"))
			require.Equal(t, "application/octet-stream", w.Header().Get("Content-Type"))
		})
	}
}

// A body without JSON is the one input.
func TestInfer_wholeBody(t *testing.T) {
	for _, tt := range []struct {
		name, datatype string
		shape          []int64
		body           string
		status         int
		want           string
	}{
		{"fixed", "INT16", []int64{2}, "\x01\x00\x02\x00", 200, `"shape":[2],"parameters":{"binary_data_size":4}}]}` + "\x01\x00\x02\x00"},
		{"batch", "INT8", []int64{-1, 2}, "\x01\x02", 200, `"shape":[1,2],"parameters":{"binary_data_size":2}}]}` + "\x01\x02"},
		{"batch and an open dimension", "INT8", []int64{-1, -1}, "\x01\x02\x03", 200, `"shape":[1,3],"parameters":{"binary_data_size":3}}]}` + "\x01\x02\x03"},
		{"bytes", "BYTES", []int64{1}, "ab", 200, `"shape":[1],"parameters":{"binary_data_size":6}}]}` + "\x02\x00\x00\x00ab"},
		{"bytes of a batch", "BYTES", []int64{-1}, "ab", 200, `"shape":[1],"parameters":{"binary_data_size":6}}]}` + "\x02\x00\x00\x00ab"},
		{"too few", "INT16", []int64{2}, "\x01\x00", 400, `{"error":"the body has 2 bytes, which is no tensor of INT16 and shape [2]; send JSON that says the shape"}`},
		{"half an element", "INT16", []int64{-1}, "\x01\x00\x02", 400, "3 bytes"},
		{"two open dimensions", "INT8", []int64{2, -1, -1}, "\x01\x02", 400, "says the shape"},
		{"nothing fits", "INT8", []int64{0, -1}, "\x01", 400, "says the shape"},
		{"overflow", "INT8", []int64{math.MaxInt64, 2}, "\x01", 400, "says the shape"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := handler(t, &service{inputs: []*inference.ModelMetadataResponse_TensorMetadata{{Name: "x", Datatype: tt.datatype, Shape: tt.shape}}})
			w := call(h, "POST", "/v2/models/m/infer", tt.body, "Inference-Header-Content-Length", "0")
			require.Equal(t, tt.status, w.Code, w.Body)
			require.Contains(t, w.Body.String(), tt.want)
		})
	}
	w := call(handler(t, &service{}), "POST", "/v2/models/m/infer", "x", "Inference-Header-Content-Length", "0")
	require.Equal(t, http.StatusBadRequest, w.Code)
	require.Contains(t, w.Body.String(), "has 0 inputs")
}

func TestInfer_refused(t *testing.T) {
	input := func(s string) string {
		return `{"inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1]},{` + s + `}]}`
	}
	h := handler(t, &service{})
	for _, tt := range []struct{ name, body, length, want string }{
		{"nothing", "", "", "ends too early, expected an object with the member"},
		{"a list", "[]", "", "is a list, expected an object"},
		{"not JSON", "{inputs", "", `unexpected 'i', expected a key in quotes (at byte 1)`},
		{"more behind", `{"inputs":[]} x`, "", "expected nothing more (at byte 14)"},
		{"no inputs", "{}", "", "inputs: is missing"},
		{"inputs twice", `{"inputs":[],"inputs":[]}`, "", "inputs: is there twice (at byte 22)"},
		{"inputs an object", `{"inputs":{}}`, "", "inputs: is an object, expected a list (at byte 10)"},
		{"id a number", `{"id":1}`, "", "id: is a number, expected a string (at byte 6)"},
		{"no name", input(`"datatype":"INT8","shape":[1],"data":[1]`), "", "inputs[1]: has no name"},
		{"no datatype", input(`"name":"y","shape":[1],"data":[1]`), "", "inputs[1]: has no datatype"},
		{"no shape", input(`"name":"y","datatype":"INT8","data":[1]`), "", "inputs[1]: has no shape"},
		{"no data", input(`"name":"y","datatype":"INT8","shape":[1]`), "", "inputs[1]: has no data"},
		{"shared memory", input(`"name":"y","datatype":"INT8","shape":[1],"parameters":{"shared_memory_region":"r"}`), "", "shared memory is not served"},
		{"datatype in lower case", input(`"name":"y","datatype":"int8"`), "", `inputs[1].datatype: is \"int8\", expected one of BOOL,`},
		{"a dimension below 0", input(`"shape":[1,-1]`), "", "inputs[1].shape: dimension 1 is -1, expected an integer that is not negative"},
		{"a dimension too large", input(`"shape":[99999999999999999999]`), "", "dimension 0 is 99999999999999999999, expected an integer"},
		{"too many elements", input(`"name":"y","datatype":"INT8","shape":[9999999999,9999999999],"data":[1]`), "", "shape [9999999999, 9999999999] is not allowed"},
		{"too many dimensions", input(`"shape":[` + strings.Repeat("1,", 32) + `1]`), "", "has more than 32 dimensions"},
		{"too few", input(`"name":"y","datatype":"INT8","shape":[3],"data":[1,2]`), "", "inputs[1].data: has 2 elements, expected 3 by shape [3]"},
		{"too few, data first", input(`"data":[1,2],"name":"y","datatype":"INT8","shape":[3]`), "", "inputs[1].data: has 2 elements, expected 3 by shape [3]"},
		{"too many", input(`"name":"y","datatype":"INT8","shape":[1],"data":[1,2]`), "", "inputs[1].data: has more than 1 elements, expected 1 by shape [1]"},
		{"ragged", input(`"name":"y","datatype":"INT8","shape":[2,2],"data":[[1,2],[3]]`), "", "inputs[1].data[1]: has 1 elements, expected 2 by shape [2, 2]"},
		{"flat within nested", input(`"name":"y","datatype":"INT8","shape":[2,2],"data":[[1,2],3,4]`), "", "inputs[1].data[1]: is a number, expected a list"},
		{"deeper than the shape", input(`"name":"y","datatype":"INT8","shape":[1],"data":[[1]]`), "", "inputs[1].data[0]: is a list, expected int8"},
		{"very deep", input(`"name":"y","datatype":"INT8","shape":[1,1],"data":` + strings.Repeat("[", 10000) + strings.Repeat("]", 10000)), "", "inputs[1].data[0][0]: is a list, expected int8"},
		{"out of range", input(`"name":"y","datatype":"INT8","shape":[2],"data":[1,300]`), "", "inputs[1].data[1]: 300 is out of the range of int8"},
		{"not an integer", input(`"name":"y","datatype":"INT8","shape":[2],"data":[1,0.5]`), "", "inputs[1].data[1]: 0.5 is not an integer"},
		{"a string for a number", input(`"name":"y","datatype":"FP32","shape":[1],"data":["1"]`), "", "inputs[1].data[0]: is a string, expected float32"},
		{"null", input(`"name":"y","datatype":"FP32","shape":[1],"data":[null]`), "", "inputs[1].data[0]: is null, expected float32"},
		{"NaN", input(`"name":"y","datatype":"FP32","shape":[1],"data":[NaN]`), "", "inputs[1].data[0]: unexpected 'N'"},
		{"a number for a string", input(`"name":"y","datatype":"BYTES","shape":[1],"data":[1]`), "", "inputs[1].data[0]: is a number, expected string"},
		{"a number for a boolean", input(`"name":"y","datatype":"BOOL","shape":[1],"data":[1]`), "", "is a number, expected bool"},
		{"a parameter that is an object", input(`"name":"y","parameters":{"p":{}}`), "", "inputs[1].parameters.p: is an object, expected true, false, a number or a string"},
		{"a parameter twice", input(`"name":"y","parameters":{"p":1,"p":2}`), "", "inputs[1].parameters.p: is there twice"},
		{"a member that is no JSON", input(`"name":"y","more":[}]`), "", "is not JSON"},
		{"binary_data no boolean", `{"outputs":[{"name":"y","parameters":{"binary_data":1}}]}`, "", "outputs[0].parameters.binary_data: is a number, expected true or false"},
		{"an output without a name", `{"outputs":[{}],"inputs":[]}`, "", "outputs[0]: has no name"},
		{"a size, no header", input(`"name":"y","datatype":"INT8","shape":[1],"parameters":{"binary_data_size":1}`), "", "no header Inference-Header-Content-Length"},
		{"a size below 0", input(`"name":"y","parameters":{"binary_data_size":-1}`), "", "binary_data_size: is -1, expected a number of bytes"},
		{"a huge size", `{"inputs":[{"name":"y","datatype":"INT8","shape":[1],"parameters":{"binary_data_size":9223372036854775807}}]}`, "all", "binary_data_size is 9223372036854775807, but only 0 bytes are left"},
		{"size and data", `{"inputs":[{"name":"y","datatype":"INT8","shape":[1],"data":[1],"parameters":{"binary_data_size":0}}]}`, "all", "has data and a binary_data_size"},
		{"bytes left", `{"inputs":[]}` + "\x01", "13", "1 bytes of binary data follow"},
		{"a header that is too long", `{}`, "3", "is 3, but the body has only 2 bytes"},
		{"a header that is no number", `{}`, "+1", `Inference-Header-Content-Length is \"[+1]\"`},
		{"a header below 0", `{}`, "-1", `Inference-Header-Content-Length is \"[-1]\"`},
		{"a huge header", `{}`, "18446744073709551616", "expected the number of bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var header []string
			switch tt.length {
			case "":
			case "all":
				header = []string{"Inference-Header-Content-Length", strconv.Itoa(len(tt.body))}
			default:
				header = []string{"Inference-Header-Content-Length", tt.length}
			}
			w := call(h, "POST", "/v2/models/m/infer", tt.body, header...)
			require.Equal(t, http.StatusBadRequest, w.Code, w.Body)
			require.Contains(t, w.Body.String(), tt.want)
			require.True(t, strings.HasPrefix(w.Body.String(), `{"error":"`))
			require.Less(t, w.Body.Len(), 400)
		})
	}
}

// What is short as text and much in memory is refused.
func TestInfer_tooMany(t *testing.T) {
	h := handler(t, &service{})
	many := func(n int, item string) string { return strings.Repeat(item+",", n-1) + item }
	var parameters []string
	for i := range 65 {
		parameters = append(parameters, fmt.Sprintf(`"%d":1`, i))
	}
	const input = `{"name":"x","datatype":"INT8","shape":[0],"data":[]}`
	for name, body := range map[string]string{
		"inputs":     `{"inputs":[` + many(257, input) + `]}`,
		"outputs":    `{"inputs":[],"outputs":[` + many(257, `{"name":"x"}`) + `]}`,
		"parameters": `{"parameters":{` + strings.Join(parameters, ",") + `}}`,
	} {
		w := call(h, "POST", "/v2/models/m/infer", body)
		require.Equal(t, http.StatusRequestEntityTooLarge, w.Code, name)
		require.Contains(t, w.Body.String(), name+": has more than")
	}
}

func TestInfer_errorsOfTheService(t *testing.T) {
	for code, want := range map[codes.Code]int{
		codes.InvalidArgument: 400, codes.FailedPrecondition: 400, codes.OutOfRange: 400, codes.AlreadyExists: 400, codes.Unauthenticated: 401,
		codes.PermissionDenied: 403, codes.NotFound: 404, codes.Aborted: 409, codes.ResourceExhausted: 429, codes.Canceled: 499, codes.Internal: 500,
		codes.Unknown: 500, codes.DataLoss: 500, codes.Unimplemented: 501, codes.Unavailable: 503, codes.DeadlineExceeded: 504,
	} {
		h := handler(t, &service{infer: func(context.Context, *inference.ModelInferRequest) (*inference.ModelInferResponse, error) {
			return nil, status.Error(code, "it \"failed\"")
		}})
		w := call(h, "POST", "/v2/models/m/infer", `{"inputs":[]}`)
		require.Equal(t, want, w.Code, code)
		require.JSONEq(t, `{"error":"it \"failed\""}`, w.Body.String())
	}
	h := handler(t, &service{infer: func(context.Context, *inference.ModelInferRequest) (*inference.ModelInferResponse, error) {
		return nil, apierror.Overloaded(1500*time.Millisecond, "busy")
	}})
	w := call(h, "POST", "/v2/models/m/infer", `{"inputs":[]}`)
	require.Equal(t, http.StatusTooManyRequests, w.Code)
	require.Equal(t, "2", w.Header().Get("Retry-After"))
}

// An answer that cannot be written is an error, and shows nothing of the inside.
func TestInfer_badAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		datatype string
		shape    []int64
		raw      [][]byte
		status   int
		want     string
	}{
		"no contents":      {"INT8", []int64{1}, nil, 500, "an internal error"},
		"too few elements": {"INT16", []int64{1}, [][]byte{{1}}, 500, "an internal error"},
		"unknown type":     {"INT9", []int64{1}, [][]byte{{1}}, 500, "an internal error"},
		"cut bytes":        {"BYTES", []int64{1}, [][]byte{{5, 0, 0, 0, 'a'}}, 500, "an internal error"},
		"cut length":       {"BYTES", []int64{1}, [][]byte{{5, 0}}, 500, "an internal error"},
		"not UTF-8":        {"BYTES", []int64{1}, [][]byte{{1, 0, 0, 0, 0xff}}, 400, "ask for the output with the parameter binary_data"},
	} {
		h := handler(t, &service{infer: func(context.Context, *inference.ModelInferRequest) (*inference.ModelInferResponse, error) {
			return &inference.ModelInferResponse{Outputs: []*inference.ModelInferResponse_InferOutputTensor{{Name: "y", Datatype: tt.datatype, Shape: tt.shape}}, RawOutputContents: tt.raw}, nil
		}})
		w := call(h, "POST", "/v2/models/m/infer", `{"inputs":[]}`)
		require.Equal(t, tt.status, w.Code, name)
		require.Contains(t, w.Body.String(), tt.want)
	}
}

func TestCredentialsAndDeadline(t *testing.T) {
	h := handler(t, &service{infer: func(ctx context.Context, _ *inference.ModelInferRequest) (*inference.ModelInferResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		return nil, status.Errorf(codes.NotFound, "%v %v %v", md["authorization"], md["x-api-key"], md["cookie"])
	}})
	w := call(h, "POST", "/v2/models/m/infer", `{"inputs":[]}`, "Authorization", "Bearer t", "X-API-Key", "k", "Cookie", "c")
	require.JSONEq(t, `{"error":"[Bearer t] [k] []"}`, w.Body.String())
}

func compress(t testing.TB, encoding, text string) string {
	var b bytes.Buffer
	var w io.WriteCloser = zlib.NewWriter(&b)
	if encoding == "gzip" {
		w = gzip.NewWriter(&b)
	}
	_, err := io.WriteString(w, text)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.String()
}

func TestCompression(t *testing.T) {
	h := handler(t, &service{})
	tail := strings.Repeat("\x01\x02", 1000)
	head := `{"parameters":{"binary_data_output":true},"inputs":[{"name":"x","datatype":"INT8","shape":[2000],"parameters":{"binary_data_size":2000}}]}`
	plain := call(h, "POST", "/v2/models/m/infer", head+tail, "Inference-Header-Content-Length", strconv.Itoa(len(head)))
	require.Equal(t, http.StatusOK, plain.Code)
	for _, encoding := range []string{"gzip", "deflate"} {
		w := call(h, "POST", "/v2/models/m/infer", compress(t, encoding, head+tail),
			"Inference-Header-Content-Length", strconv.Itoa(len(head)), "Content-Encoding", encoding, "Accept-Encoding", encoding)
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		require.Equal(t, encoding, w.Header().Get("Content-Encoding"))
		require.Equal(t, "Accept-Encoding", w.Header().Get("Vary"))
		require.Equal(t, plain.Header().Get("Inference-Header-Content-Length"), w.Header().Get("Inference-Header-Content-Length"))
		require.Less(t, w.Body.Len(), 500)
		var r io.Reader
		var err error
		if encoding == "gzip" {
			r, err = gzip.NewReader(w.Body)
		} else {
			r, err = zlib.NewReader(w.Body)
		}
		require.NoError(t, err)
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, plain.Body.String(), string(got))
	}
	for accept, want := range map[string]string{
		"": "", "identity": "", "br": "", "gzip, deflate, br": "gzip", "deflate, gzip;q=0.5": "deflate", "gzip;q=0": "", "gzip;q=0, deflate;q=0.1": "deflate",
		"gzip;q=x": "", "GZIP": "gzip", "*": "",
	} {
		w := call(h, "POST", "/v2/models/m/infer", head+tail, "Inference-Header-Content-Length", strconv.Itoa(len(head)), "Accept-Encoding", accept)
		require.Equal(t, want, w.Header().Get("Content-Encoding"), accept)
	}
	// A short answer is not worth it.
	require.Empty(t, call(h, "GET", "/v2", "", "Accept-Encoding", "gzip").Header().Get("Content-Encoding"))
}

func TestCompression_refused(t *testing.T) {
	h := handler(t, &service{})
	for _, tt := range []struct {
		encoding, body string
		status         int
		want           string
	}{
		{"br", "x", 415, "expected gzip or deflate"},
		{"gzip, gzip", "x", 415, "expected gzip or deflate"},
		{"gzip", "not gzip at all", 400, "cannot be expanded"},
		{"deflate", "not zlib at all", 400, "cannot be expanded"},
		{"gzip", "", 400, ""},
		{"gzip", compress(t, "gzip", `{"inputs":[]}`)[:15], 400, "cannot be expanded"},
		{"deflate", compress(t, "deflate", `{"inputs":[]}`)[:10], 400, "cannot be expanded"},
	} {
		w := call(h, "POST", "/v2/models/m/infer", tt.body, "Content-Encoding", tt.encoding)
		require.Equal(t, tt.status, w.Code, tt)
		require.Contains(t, w.Body.String(), tt.want)
	}
}

// A small body that expands to a large one takes no more memory than the limit of a body.
func TestCompression_bomb(t *testing.T) {
	h := handler(t, &service{})
	for _, encoding := range []string{"gzip", "deflate"} {
		bomb := compress(t, encoding, strings.Repeat(" ", 60<<20))
		require.Less(t, len(bomb), maxBody)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		w := call(h, "POST", "/v2/models/m/infer", bomb, "Content-Encoding", encoding)
		runtime.ReadMemStats(&after)
		require.Equal(t, http.StatusRequestEntityTooLarge, w.Code)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(8*maxBody))
	}
}

// The limits of a body hold on a real connection, whatever the client declares.
func TestBody(t *testing.T) {
	server := httptest.NewServer(handler(t, &service{}))
	defer server.Close()
	send := func(request string) (status int, closed bool, content string) {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		_, err = io.WriteString(conn, request)
		require.NoError(t, err)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return res.StatusCode, res.Close, string(body)
	}
	const head = "POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n"
	for _, tt := range []struct {
		request string
		status  int
		closed  bool
	}{
		{"Content-Length: 13\r\n\r\n{\"inputs\":[]}", 200, false},
		{"Transfer-Encoding: chunked\r\n\r\nd\r\n{\"inputs\":[]}\r\n0\r\n\r\n", 200, false},
		{"Content-Length: 999999999999\r\n\r\n{", 413, true},
		{"Transfer-Encoding: chunked\r\n\r\n11000\r\n" + strings.Repeat(" ", 0x11000) + "\r\n", 413, true},
		{"Content-Length: 13\r\nContent-Length: 14\r\n\r\n{\"inputs\":[]}", 400, true},
		{"Content-Length: 13\r\nTransfer-Encoding: identity, chunked\r\n\r\n{\"inputs\":[]}", 501, true},
		{"Content-Length: -1\r\n\r\n", 400, true},
	} {
		code, closed, body := send(head + tt.request)
		require.Equal(t, tt.status, code, body)
		require.Equal(t, tt.closed, closed, tt.request[:20])
	}
}

// A client that sends its body too slowly is answered and left.
func TestBody_slow(t *testing.T) {
	conn := inprocess.New(nil, nil)
	inference.RegisterGRPCInferenceServiceServer(conn, &service{infer: echo})
	h, err := rest.New(rest.Config{MaxBody: maxBody, BodyTimeout: 20 * time.Millisecond}, conn, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	server := httptest.NewServer(h)
	defer server.Close()
	client, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	defer func() { _ = client.Close() }()
	_, err = io.WriteString(client, "POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{\"inputs")
	require.NoError(t, err)
	res, err := http.ReadResponse(bufio.NewReader(client), nil)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	require.Equal(t, http.StatusBadRequest, res.StatusCode)
	require.True(t, res.Close)
}

func TestNew_refusesLimitsOfNothing(t *testing.T) {
	_, err := rest.New(rest.Config{}, inprocess.New(nil, nil), slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "want more than nothing")
}
