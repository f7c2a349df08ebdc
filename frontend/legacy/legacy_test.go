// SPDX-License-Identifier: Apache-2.0

package legacy

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/inprocess"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// services is what is behind the API: an application "a" of each input type by its name, whose outputs are
// its inputs. It remembers what it was called with.
type services struct {
	clipperv1.UnimplementedQueryServiceServer
	clipperv1.UnimplementedApplicationServiceServer
	clipperv1.UnimplementedModelServiceServer
	err      error
	batches  []int
	metadata metadata.MD
}

func (s *services) Application(name string) (*clipperv1.Application, error) {
	for _, t := range inputTypes {
		if string(t) == name {
			app := &clipperv1.Application{Name: name, Inputs: []*clipperv1.TensorSpec{t.input()}}
			textual(app, "no answer")
			return app, nil
		}
	}
	return nil, status.Error(codes.NotFound, "there is none")
}

func (s *services) Query(ctx context.Context, r *clipperv1.QueryRequest) (*clipperv1.QueryResponse, error) {
	s.metadata, _ = metadata.FromIncomingContext(ctx)
	return &clipperv1.QueryResponse{Outputs: r.GetInputs()}, s.err
}

func (s *services) QueryBatch(_ context.Context, r *clipperv1.QueryBatchRequest) (*clipperv1.QueryBatchResponse, error) {
	s.batches = append(s.batches, len(r.GetQueries()))
	response := &clipperv1.QueryBatchResponse{}
	for _, q := range r.GetQueries() {
		result := &clipperv1.QueryResult{Result: &clipperv1.QueryResult_Response{Response: &clipperv1.QueryResponse{Outputs: q.GetInputs()}}}
		if s.err != nil {
			result.Result = &clipperv1.QueryResult_Error{Error: apierror.ToProto(s.err)}
		}
		response.Results = append(response.Results, result)
	}
	return response, nil
}

func (s *services) GetApplication(context.Context, *clipperv1.GetApplicationRequest) (*clipperv1.GetApplicationResponse, error) {
	return nil, s.err
}

func (s *services) ListModels(context.Context, *clipperv1.ListModelsRequest) (*clipperv1.ListModelsResponse, error) {
	return nil, s.err
}

func frontends(t *testing.T, s *services, limits Limits) (query, admin http.Handler) {
	t.Helper()
	conn := inprocess.New([]grpc.UnaryServerInterceptor{}, nil)
	clipperv1.RegisterQueryServiceServer(conn, s)
	clipperv1.RegisterApplicationServiceServer(conn, s)
	clipperv1.RegisterModelServiceServer(conn, s)
	return NewQueryFrontend(QueryDeps{Limits: limits, Applications: s, Queries: clipperv1.NewQueryServiceClient(conn), Models: clipperv1.NewModelServiceClient(conn)}),
		NewAdminFrontend(AdminDeps{Limits: limits, Applications: clipperv1.NewApplicationServiceClient(conn), Models: clipperv1.NewModelServiceClient(conn)})
}

var wide = Limits{MaxBody: 1 << 20, BodyTimeout: time.Minute}

func post(t *testing.T, h http.Handler, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body)))
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	return w
}

// Every type of input is read as the original reads it.
func TestInputs(t *testing.T) {
	h, _ := frontends(t, &services{}, wide)
	for _, tc := range []struct{ app, body, want string }{
		{"integers", `{"input":[1,-2]}`, `"output":[1,-2],"default":false}`},
		{"integers", `{"input":[1.0]}`, `Array input of type Number is not of type int. `},
		{"integers", `{"input":[2147483648]}`, `Array input of type Number is not of type int. `},
		{"integers", `{"input":[true]}`, `Array input of type True is not of type int. `},
		{"floats", `{"input":[1.5,2e0]}`, `"output":[1.5,2],"default":false}`},
		{"floats", `{"input":[1]}`, `Array input of type Number is not of type float. `},
		{"floats", `{"input":[1e39]}`, `Array input of type Number is not of type float. `},
		{"doubles", `{"input":[1e39,18446744073709551616]}`, `"output":[1e+39,18446744073709552000],"default":false}`},
		{"doubles", `{"input":[18446744073709551615]}`, `Array input of type Number is not of type double. `},
		{"doubles", `{"input":[null]}`, `Array input of type Null is not of type double. `},
		{"doubles", `{"input":[{}]}`, `Array input of type Object is not of type double. `},
		{"strings", `{"input":"a\u00e9"}`, `"output":"aé","default":false}`},
		{"strings", `{"input":"[1, {\"b\" : -1.0}]"}`, `"output":[1,{"b":-1.0}],"default":false}`},
		{"strings", `{"input":"-1.0"}`, `"output":-1.0,"default":false}`},
		{"strings", `{"input":"NaN"}`, `"output":"NaN","default":false}`},
		{"strings", `{"input":"\"x\" \u0001\b/"}`, `"output":"\"x\" \u0001\b/","default":false}`},
		{"strings", `{"input":["a"]}`, `Type mismatch! JSON key input expected type Stringbut found type Array. `},
		{"strings", `{"input_batch":["a",1]}`, `Array input of type Number is not of type string. `},
		{"strings", `{"input_batch":["a","a"],"input":null}`, `Type mismatch! JSON key input expected type Stringbut found type Null. `},
		{"strings", `{"input_batch":"a"}`, `Type mismatch! JSON key input_batch expected type Arraybut found type String. `},
		{"strings", `{"input":"a","input":7}`, `"output":"a","default":false}`},
		{"strings", `{"input":"a","version":1}`, `Type mismatch! JSON key version expected type Stringbut found type Number. `},
		{"bytes", `{"input":"aGk="}`, `"output":"hi","default":false}`},
		{"bytes", `{"input":"aGk"}`, `"output":"hi","default":false}`},
		{"bytes", `{"input":"%%"}`, `Input of JSON key input is not base64. `},
		{"bytes", `{"input":[1]}`, `Type mismatch! JSON key input expected type Stringbut found type Array. `},
	} {
		w := post(t, h, "/"+tc.app+"/predict", tc.body)
		require.True(t, json.Valid(w.Body.Bytes()), w.Body)
		if strings.HasPrefix(tc.want, `"output"`) {
			require.Equal(t, http.StatusOK, w.Code)
			_, after, _ := strings.Cut(w.Body.String(), ",")
			require.Equal(t, tc.want, after)
			continue
		}
		require.Equal(t, http.StatusBadRequest, w.Code, tc.body)
		var answer struct{ Error, Cause string }
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer))
		require.Equal(t, "Json error", answer.Error)
		require.Equal(t, "Error parsing JSON: "+tc.want+"Expected JSON schema: "+querySchema, answer.Cause, tc.body)
	}
}

// The ids of queries count inputs, also those of batches, which our services get in parts.
func TestIDs(t *testing.T) {
	s := &services{}
	h, _ := frontends(t, s, wide)
	for _, call := range [][2]string{
		{`{"input":"x"}`, `{"query_id":0,"output":"x","default":false}`},
		{`{"input_batch":["x","y"]}`, `{"batch_predictions":[{"query_id":1,"output":"x","default":false},{"query_id":2,"output":"y","default":false}]}`},
	} {
		require.Equal(t, call[1], post(t, h, "/strings/predict", call[0]).Body.String())
	}
	large := post(t, h, "/strings/predict", `{"input_batch":["x"`+strings.Repeat(`,"x"`, 20_001)+`]}`)
	require.Equal(t, http.StatusOK, large.Code)
	require.Contains(t, large.Body.String(), `{"query_id":20004,"output":"x","default":false}]}`)
	require.Equal(t, []int{2, 10_000, 10_000, 2}, s.batches)
}

// What our services refuse has the status that the original would have had, or that of HTTP.
func TestRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		err   error
		code  int
		query string
		admin string
	}{
		"bad":             {status.Error(codes.InvalidArgument, "too much"), 400, `{"error":"Query processing error","cause":"too much"}`, "{}"},
		"unauthenticated": {status.Error(codes.Unauthenticated, "who?"), 401, `{"error":"Query processing error","cause":"who?"}`, "who?"},
		"not allowed":     {status.Error(codes.PermissionDenied, "no"), 403, `{"error":"Query processing error","cause":"no"}`, "no"},
		"overloaded":      {apierror.Overloaded(1500*time.Millisecond, "later"), 429, `{"error":"Query processing error","cause":"later"}`, "later"},
		"unavailable":     {status.Error(codes.Unavailable, "gone"), 503, `{"error":"Query processing error","cause":"gone"}`, "gone"},
		"internal":        {status.Error(codes.Internal, "secret"), 500, unexpected, unexpected},
	} {
		t.Run(name, func(t *testing.T) {
			query, admin := frontends(t, &services{err: tc.err}, wide)
			for _, body := range []string{`{"input":"x"}`, `{"input_batch":["x","y"]}`} {
				w := post(t, query, "/strings/predict", body)
				require.Equal(t, tc.code, w.Code)
				require.Equal(t, tc.query, w.Body.String())
			}
			w := post(t, admin, "/admin/get_application", `{"name":"a"}`)
			require.Equal(t, tc.admin, w.Body.String())
			added := post(t, admin, "/admin/add_app", `{"name":"a","input_type":"d","default_output":"","latency_slo_micros":1}`).Body.String()
			switch tc.code {
			case 400: // As of a name that no application has, it goes on.
			case 503:
				require.Equal(t, "Error adding application 'a' to Redis", added)
			default:
				require.Equal(t, tc.admin, added)
			}
			switch tc.code {
			case 401:
				require.Equal(t, "Bearer", w.Header().Get("WWW-Authenticate"))
			case 429:
				require.Equal(t, "2", w.Header().Get("Retry-After"))
			}
		})
	}
}

func TestCredentialsTravel(t *testing.T) {
	s := &services{}
	h, _ := frontends(t, s, wide)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/strings/predict", strings.NewReader(`{"input":"x"}`))
	r.Header = http.Header{"Authorization": {"Bearer a"}, "X-Api-Key": {"b"}, "Cookie": {"c"}}
	h.ServeHTTP(httptest.NewRecorder(), r)
	require.Equal(t, metadata.Pairs("authorization", "Bearer a", "x-api-key", "b"), s.metadata)
}

func TestLimits(t *testing.T) {
	query, admin := frontends(t, &services{}, Limits{MaxBody: 16, BodyTimeout: time.Minute})
	w := post(t, query, "/strings/predict", `{"input":"0123456789"}`)
	require.Equal(t, http.StatusBadRequest, w.Code)
	require.Contains(t, w.Body.String(), `Error parsing JSON: the request body has more than 16 bytes, the limit. `)
	require.Contains(t, post(t, admin, "/admin/get_state", `{"app_name":"0123456789"}`).Body.String(), "more than 16 bytes")
}

// A body that does not arrive is given up.
func TestSlowBody(t *testing.T) {
	query, _ := frontends(t, &services{}, Limits{MaxBody: 16, BodyTimeout: time.Nanosecond})
	server := httptest.NewServer(query)
	defer server.Close()
	never, end := io.Pipe()
	defer end.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/strings/predict", never)
	require.NoError(t, err)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Do(r)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusBadRequest, response.StatusCode)
	require.Contains(t, string(text), "did not arrive whole within 1ns")
}

func TestDefaultReasons(t *testing.T) {
	app, err := (&services{}).Application("strings")
	require.NoError(t, err)
	for reason, want := range map[clipperv1.DefaultReason]string{
		clipperv1.DefaultReason_DEFAULT_REASON_NO_REPLICA:     explainNoModel,
		clipperv1.DefaultReason_DEFAULT_REASON_DEADLINE:       explainLate,
		clipperv1.DefaultReason_DEFAULT_REASON_MODELS_FAILED:  explainLate,
		clipperv1.DefaultReason_DEFAULT_REASON_LOW_CONFIDENCE: explainConfidence,
	} {
		a, err := answerOf(app, &clipperv1.QueryResponse{IsDefault: true, DefaultReason: reason})
		require.NoError(t, err)
		require.Equal(t, `{"query_id":7,"output":"no answer","default":true,"default_explanation":"`+want+`"}`, string(a.append(nil, 7)))
	}
}

// fit makes of the text of a default output what a model's outputs can be, and textual makes it undone.
func TestFit(t *testing.T) {
	number := clipperv1.OutputKind_OUTPUT_KIND_NUMBER
	label := clipperv1.OutputKind_OUTPUT_KIND_LABEL
	scores := clipperv1.OutputKind_OUTPUT_KIND_SCORES
	double, long := clipperv1.DataType_DATA_TYPE_FLOAT64, clipperv1.DataType_DATA_TYPE_INT64
	for _, tc := range []struct {
		registered string
		gives      *clipperv1.TensorSpec
		kind       clipperv1.OutputKind
		want       any
	}{
		{"7", nil, label, "7"},
		{"7", &clipperv1.TensorSpec{DataType: clipperv1.DataType_DATA_TYPE_STRING}, label, "7"},
		{"7", &clipperv1.TensorSpec{DataType: double, AnyShape: true}, label, "7"},
		{"7", &clipperv1.TensorSpec{DataType: long}, label, 7.0},
		{"7.5", &clipperv1.TensorSpec{DataType: long}, label, 0.0},
		{"None", &clipperv1.TensorSpec{DataType: long}, label, 0.0},
		{"7.5", &clipperv1.TensorSpec{DataType: double, Shape: []int64{1}}, number, 7.5},
		{"", &clipperv1.TensorSpec{DataType: double}, number, 0.0},
		{"[1, 2]", &clipperv1.TensorSpec{DataType: double, Shape: []int64{2}}, scores, []any{1.0, 2.0}},
		{`["a"]`, &clipperv1.TensorSpec{DataType: double, Shape: []int64{-1}}, scores, []any{0.0}},
		{"[]", &clipperv1.TensorSpec{DataType: double, Shape: []int64{-1}}, scores, []any{0.0}},
	} {
		app := &clipperv1.Application{}
		textual(app, tc.registered)
		var gives []*clipperv1.TensorSpec
		if tc.gives != nil {
			gives = append(gives, tc.gives)
		}
		fit(app, gives)
		require.Equal(t, tc.kind, app.Output.Kind, tc)
		require.Equal(t, tc.want, app.DefaultOutput.AsInterface(), tc)
		require.Equal(t, tc.registered, defaultText(app), tc)
		textual(app, defaultText(app))
		require.Equal(t, tc.registered, app.DefaultOutput.GetStringValue(), tc)
	}
	require.Equal(t, "[1]", defaultText(&clipperv1.Application{DefaultOutput: structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewNumberValue(1)}})}))
}

func TestReplicaID(t *testing.T) {
	require.Equal(t, int64(12), replicaID("12"))
	id := replicaID("worker-a")
	require.Equal(t, id, replicaID("worker-a"))
	require.NotEqual(t, id, replicaID("worker-b"))
	require.True(t, id >= 0 && id < 1<<31)
}

// The metrics have the form of the original's, leaf for leaf.
func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = m.run(ctx) }()
		const ok = clipperv1.PredictionStatus_PREDICTION_STATUS_OK
		for i := range 10 {
			p := &clipperv1.ModelPrediction{Model: "m", Version: "1", Status: ok, Cached: i == 0}
			a := answer{predictions: []*clipperv1.ModelPrediction{p, {Model: unlinked, Version: "0"}}}
			if i < 5 {
				a.explanation = explainLate
			}
			m.observe("a", []answer{a}, time.Duration(i+1)*time.Millisecond)
		}
		time.Sleep(tick)
		synctest.Wait()
		sizes := newHistogram(4)
		for _, x := range []float64{1, 3} {
			sizes.add(x)
		}
		rates := `{"unit":"events per second","rate":"2","rate_1min":"2","rate_5min":"2","rate_15min":"2"}`
		latency := `{"unit":"microseconds","size":"10","min":"1000","max":"10000","mean":"5500","std_dev":"2872.281323269014","p50":"5500","p95":"10000","p99":"10000"}`
		require.Equal(t, `{"counters":[{"app:a:num_predictions":{"count":"10"}},{"internal:aggregate_num_predictions":{"count":"10"}},`+
			`{"internal:prediction_cache_lookups":{"count":"10"}},{"model:m:1:num_predictions":{"count":"10"}}],`+
			`"ratio_counters":[{"app:a:default_prediction_ratio":{"ratio":"0.5"}},{"internal:prediction_cache_hit_ratio":{"ratio":"0.1"}},{"model:m:1:cache_hit_ratio":{"ratio":"0.1"}}],`+
			`"meters":[{"app:a:prediction_throughput":`+rates+`},{"internal:aggregate_model_throughput":`+rates+`},{"model:m:1:prediction_throughput":`+rates+`}],`+
			`"histograms":[{"app:a:prediction_latency":`+latency+`},`+
			`{"internal:rpc_request_queueing_delay":{"unit":"microseconds","size":"0","min":"0","max":"0","mean":"0","std_dev":"0","p50":"0","p95":"0","p99":"0"}},`+
			`{"model:m:1:batch_size":{"unit":"queries","size":"2","min":"1","max":"3","mean":"2","std_dev":"1","p50":"2","p95":"3","p99":"3"}},`+
			`{"model:m:1:prediction_latency":`+latency+`}]}`,
			string(m.json(map[version]*histogram{{"m", "1"}: sizes}, newHistogram(1))))
		time.Sleep(tick)
		synctest.Wait()
		require.InDelta(t, 2*0.92, m.throughput.rates[0], 0.001)
		require.Contains(t, string(newMetrics().json(nil, newHistogram(1))), `"ratio_counters":[{"internal:prediction_cache_hit_ratio":{"ratio":"nan"}}]`)
	})
}

func TestHistogramIsBounded(t *testing.T) {
	h := newHistogram(8)
	for i := range 1000 {
		h.add(float64(i))
	}
	require.Len(t, h.sample, 8)
	require.Equal(t, int64(1000), h.seen)
	require.Equal(t, field{"size", "8"}, h.fields("x")[1])
}

func TestPathsAreExact(t *testing.T) {
	query, admin := frontends(t, &services{}, wide)
	for _, path := range []string{"/", "/strings", "/strings/", "//predict", "/strings//predict", "/strings/predict//", "/string./predict", "/.*/predict", "/%2e%2e/predict", "/strings%2fpredict", "/strings/predictx"} {
		require.Equal(t, http.StatusNotFound, post(t, query, path, `{"input":"x"}`).Code, path)
	}
	for _, path := range []string{"/", "/admin", "/admin/", "/admin/add_app/", "/admin/metrics", "/add_app"} {
		w := post(t, admin, path, "{}")
		require.Equal(t, http.StatusNotFound, w.Code, path)
		require.Equal(t, fmt.Sprint("There is nothing at ", path), w.Body.String())
	}
}
