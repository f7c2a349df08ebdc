// SPDX-License-Identifier: Apache-2.0

package frontend_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/clipper-serving/clipper/frontend"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// vector returns a tensor of float32.
func vector(values ...float32) *clipperv1.Tensor {
	t := &clipperv1.Tensor{DataType: float32s, Shape: []int64{int64(len(values))}}
	for _, v := range values {
		t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(v))
	}
	return t
}

func label(n int64) *clipperv1.Tensor {
	return &clipperv1.Tensor{DataType: int64s, Data: binary.LittleEndian.AppendUint64(nil, uint64(n))}
}

func one(t ...*clipperv1.Tensor) []*clipperv1.Tensor { return t }

// problem is the body of an answer that is an error.
type problem struct {
	Type, Title, Detail, Code, Reason, Field string
	Status                                   int
	RetryAfterMs                             int64 `json:"retry_after_ms"`
}

func testApplications() []*clipperv1.Application {
	label, number := clipperv1.OutputKind_OUTPUT_KIND_LABEL, clipperv1.OutputKind_OUTPUT_KIND_NUMBER
	return []*clipperv1.Application{
		digits(),
		application("open", number, 0.5),
		application("text", label, "none", &clipperv1.TensorSpec{Name: "words", DataType: text, Shape: []int64{-1}}),
		application("image", label, "none", &clipperv1.TensorSpec{DataType: blob}),
		application("flag", number, 0, &clipperv1.TensorSpec{DataType: clipperv1.DataType_DATA_TYPE_BOOL, Shape: []int64{2}}),
		application("pair", clipperv1.OutputKind_OUTPUT_KIND_SCORES, []any{0.5, 0.5},
			&clipperv1.TensorSpec{Name: "a", DataType: float32s, Shape: []int64{1}}, &clipperv1.TensorSpec{Name: "b", DataType: text}),
	}
}

// Every bad input gets the same code and reason over gRPC and over REST.
func TestQuery_badInput(t *testing.T) {
	f := start(t, newSelector(testApplications()...))
	client := clipperv1.NewQueryServiceClient(f.dial(t))
	long := strings.Repeat("x", 300)
	nan := vector(1, float32(math.NaN()))
	double := &clipperv1.Tensor{DataType: float64s, Shape: []int64{2}, Data: make([]byte, 16)}
	type reason = clipperv1.ErrorReason
	const (
		malformed    = clipperv1.ErrorReason_ERROR_REASON_MALFORMED_JSON
		invalidField = clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD
		missingField = clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD
		inputType    = clipperv1.ErrorReason_ERROR_REASON_INPUT_TYPE
		inputShape   = clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE
		inputValue   = clipperv1.ErrorReason_ERROR_REASON_INPUT_VALUE
		tooLarge     = clipperv1.ErrorReason_ERROR_REASON_TOO_LARGE
		unknown      = clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND
	)
	input := func(s string) *clipperv1.QueryRequest {
		return &clipperv1.QueryRequest{Application: "digits", InputJson: []byte(s)}
	}
	tensors := func(app string, in ...*clipperv1.Tensor) *clipperv1.QueryRequest {
		return &clipperv1.QueryRequest{Application: app, Inputs: in}
	}
	tests := []struct {
		name   string
		grpc   *clipperv1.QueryRequest // Nil: REST only.
		app    string                  // Of the REST call; empty: "digits".
		rest   string                  // Empty: gRPC only.
		code   codes.Code
		http   int
		reason reason
		field  string
		want   string // A part of the message.
	}{
		{"unknown application", &clipperv1.QueryRequest{Application: "nope", InputJson: []byte("1")}, "nope", `{"input":1}`, codes.NotFound, 404, unknown, "application", `"nope"`},
		{"no application", &clipperv1.QueryRequest{InputJson: []byte("1")}, "", "", codes.InvalidArgument, 0, missingField, "application", "expected the name"},
		{"no input", &clipperv1.QueryRequest{Application: "digits"}, "", "", codes.InvalidArgument, 0, missingField, "inputs", "expected inputs or input_json"},
		{"no input", nil, "", `{}`, codes.InvalidArgument, 400, missingField, "input", "expected the query's input"},
		{"both inputs", &clipperv1.QueryRequest{Application: "digits", InputJson: []byte("1"), Inputs: one(vector(1))}, "", "", codes.InvalidArgument, 0, invalidField, "inputs", "exclude each other"},
		{"tensors over REST", nil, "", `{"inputs":[{"data_type":"DATA_TYPE_FLOAT32"}]}`, codes.InvalidArgument, 400, malformed, "inputs", `unknown key "inputs"`},

		{"malformed JSON", input("[1,"), "", `{"input":[1,`, codes.InvalidArgument, 400, malformed, "", "ends too early"},
		{"malformed input", input("[1 2]"), "", `{"input":[1 2]}`, codes.InvalidArgument, 400, malformed, "input[0]", "expected ','"},
		{"empty body", nil, "", " ", codes.InvalidArgument, 400, malformed, "", "the request body is empty"},
		{"not an object", nil, "", "[1]", codes.InvalidArgument, 400, malformed, "", "is a list, expected an object"},
		{"unknown key", nil, "", `{"input":[1,2],"inptu":3}`, codes.InvalidArgument, 400, malformed, "inptu", `unknown key "inptu", expected "input"`},
		{"repeated key", nil, "", `{"input":[1,2],"input":[1,2]}`, codes.InvalidArgument, 400, malformed, "", `key "input" is repeated`},
		{"trailing text", nil, "", `{"input":[1,2]}}`, codes.InvalidArgument, 400, malformed, "", "expected nothing more"},
		{"NaN as JSON", input("[1,NaN]"), "", `{"input":[1,NaN]}`, codes.InvalidArgument, 400, inputValue, "input[1]", "not a finite number"},
		{"out of range", input("[1,1e39]"), "", `{"input":[1,1e39]}`, codes.InvalidArgument, 400, inputValue, "input[1]", "out of the range of float32"},
		{"wrong type", input(`"text"`), "", `{"input":"text"}`, codes.InvalidArgument, 400, inputType, "input", "is a string, expected float32 of shape [2]"},
		{"wrong element", input(`[1,"2"]`), "", `{"input":[1,"2"]}`, codes.InvalidArgument, 400, inputType, "input[1]", "is a string"},
		{"null", input(`null`), "", `{"input":null}`, codes.InvalidArgument, 400, inputType, "input", "is null"},
		{"wrong shape", input("[1,2,3]"), "", `{"input":[1,2,3]}`, codes.InvalidArgument, 400, inputShape, "input", "more than 2 elements"},
		{"empty list", input("[]"), "", `{"input":[]}`, codes.InvalidArgument, 400, inputShape, "input", "has 0 elements, expected 2"},
		{"ragged", &clipperv1.QueryRequest{Application: "open", InputJson: []byte("[[1,2],[3]]")}, "open", `{"input":[[1,2],[3]]}`, codes.InvalidArgument, 400, inputShape, "input[1]", "equal length"},
		{"elements", &clipperv1.QueryRequest{Application: "open", InputJson: []byte(list(101))}, "open", `{"input":` + list(101) + `}`, codes.ResourceExhausted, 413, tooLarge, "input[100]", "more than 100 elements"},
		{"bytes", input("[1,2]" + strings.Repeat(" ", 5000)), "", "", codes.ResourceExhausted, 0, tooLarge, "input", "more than the limit of 4096"},
		{"bytes over REST", nil, "", `{"input":"` + strings.Repeat("x", 5000) + `"}`, codes.ResourceExhausted, 413, tooLarge, "input", "more than the limit of 4096"},
		{"named input", &clipperv1.QueryRequest{Application: "pair", InputJson: []byte(`{"a":[1],"c":2}`)}, "pair", `{"input":{"a":[1],"c":2}}`, codes.InvalidArgument, 400, malformed, "input.c", `expected "a", "b"`},
		{"named input missing", &clipperv1.QueryRequest{Application: "pair", InputJson: []byte(`{"a":[1]}`)}, "pair", `{"input":{"a":[1]}}`, codes.InvalidArgument, 400, missingField, "input.b", "is missing"},
		{"not base64", &clipperv1.QueryRequest{Application: "image", InputJson: []byte(`{"b64":"%"}`)}, "image", `{"input":{"b64":"%"}}`, codes.InvalidArgument, 400, inputValue, "input", "not base64"},

		{"tensor type", tensors("digits", double), "", "", codes.InvalidArgument, 0, inputType, "inputs[0].data_type", "is float64, expected float32"},
		{"tensor without a type", tensors("digits", &clipperv1.Tensor{}), "", "", codes.InvalidArgument, 0, inputType, "inputs[0].data_type", "not a type"},
		{"tensor of an unknown type", tensors("open", &clipperv1.Tensor{DataType: 99}), "", "", codes.InvalidArgument, 0, inputType, "inputs[0].data_type", "not a type"},
		{"tensor shape", tensors("digits", vector(1, 2, 3)), "", "", codes.InvalidArgument, 0, inputShape, "inputs[0].shape", "is [3], expected [2]"},
		{"tensor with too little data", tensors("digits", &clipperv1.Tensor{DataType: float32s, Shape: []int64{2}, Data: make([]byte, 7)}), "", "", codes.InvalidArgument, 0, inputShape, "inputs[0]", "data has 7 bytes"},
		{"tensor of negative shape", tensors("open", &clipperv1.Tensor{DataType: float32s, Shape: []int64{-2}}), "", "", codes.InvalidArgument, 0, inputShape, "inputs[0]", "not be negative"},
		{"tensor of overflowing shape", tensors("open", &clipperv1.Tensor{DataType: float32s, Shape: []int64{1 << 62, 1 << 62}}), "", "", codes.InvalidArgument, 0, inputShape, "inputs[0]", "not allowed"},
		{"tensor without elements", tensors("open", &clipperv1.Tensor{DataType: float32s, Shape: []int64{0}}), "", "", codes.InvalidArgument, 0, inputShape, "inputs[0]", "no elements"},
		{"tensor with NaN", tensors("digits", nan), "", "", codes.InvalidArgument, 0, inputValue, "inputs[0]", "element 1 is not a finite number"},
		{"tensor with a bad bool", tensors("flag", &clipperv1.Tensor{DataType: clipperv1.DataType_DATA_TYPE_BOOL, Shape: []int64{2}, Data: []byte{1, 2}}), "", "", codes.InvalidArgument, 0, inputValue, "inputs[0]", "element 1 is 2"},
		{"tensor of many elements", tensors("open", &clipperv1.Tensor{DataType: float32s, Shape: []int64{101}, Data: make([]byte, 404)}), "", "", codes.ResourceExhausted, 0, tooLarge, "inputs[0]", "more than 100 elements"},
		{"tensor of many bytes", tensors("image", &clipperv1.Tensor{DataType: blob, ByteStrings: [][]byte{make([]byte, 5000)}}), "", "", codes.ResourceExhausted, 0, tooLarge, "inputs[0]", "more than 4096 bytes"},
		{"too few tensors", tensors("pair", vector(1)), "", "", codes.InvalidArgument, 0, inputShape, "inputs", "has 1 tensors, expected 2"},
		{"misnamed tensor", tensors("digits", &clipperv1.Tensor{Name: "x", DataType: float32s, Shape: []int64{2}, Data: make([]byte, 8)}), "", "", codes.InvalidArgument, 0, invalidField, "inputs[0].name", `is "x"`},
		{"repeated name", tensors("open", vector(1), vector(2)), "", "", codes.InvalidArgument, 0, invalidField, "inputs[0].name", "a name of its own"},

		{"long context", &clipperv1.QueryRequest{Application: "digits", InputJson: []byte("[1,2]"), Context: long}, "", `{"input":[1,2],"context":"` + long + `"}`, codes.InvalidArgument, 400, invalidField, "context", "has 300 bytes, expected at most 256"},
		{"long id", &clipperv1.QueryRequest{Application: "digits", InputJson: []byte("[1,2]"), Id: long}, "", `{"input":[1,2],"id":"` + long + `"}`, codes.InvalidArgument, 400, invalidField, "id", "expected at most 128"},
		{"context not UTF-8", nil, "", "{\"input\":[1,2],\"context\":\"\xff\"}", codes.InvalidArgument, 400, malformed, "context", "not UTF-8"},
		{"context not a string", nil, "", `{"input":[1,2],"context":7}`, codes.InvalidArgument, 400, invalidField, "context", "is a number, expected a string"},
		{"negative timeout", &clipperv1.QueryRequest{Application: "digits", InputJson: []byte("[1,2]"), Timeout: durationpb.New(-1)}, "", `{"input":[1,2],"timeout":"-1s"}`, codes.InvalidArgument, 400, invalidField, "timeout", "greater than 0"},
		{"no time", &clipperv1.QueryRequest{Application: "digits", InputJson: []byte("[1,2]"), Timeout: &durationpb.Duration{}}, "", `{"input":[1,2],"timeout":"0s"}`, codes.InvalidArgument, 400, invalidField, "timeout", "greater than 0"},
		{"overflowing timeout", &clipperv1.QueryRequest{Application: "digits", InputJson: []byte("[1,2]"), Timeout: &durationpb.Duration{Seconds: math.MaxInt64}}, "", "", codes.InvalidArgument, 0, invalidField, "timeout", "not a duration"},
		{"timeout as a number", nil, "", `{"input":[1,2],"timeout":5}`, codes.InvalidArgument, 400, invalidField, "timeout", `as in "0.05s"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.grpc != nil {
				_, err := client.Query(t.Context(), tt.grpc)
				e := apierror.ToProto(err)
				require.Equal(t, tt.code, codes.Code(e.GetCode()), e)
				require.Equal(t, tt.reason, e.Reason, e)
				require.Contains(t, e.Message, tt.want)
				if tt.field != "" {
					require.Equal(t, tt.field, e.Field)
				}
			}
			if tt.rest != "" {
				app := tt.app
				if app == "" {
					app = "digits"
				}
				w := call(f.query, "POST", "/v1/applications/"+app+"/query", tt.rest)
				var e problem
				require.NoError(t, json.Unmarshal(w.Body.Bytes(), &e), w.Body)
				require.Equal(t, tt.http, w.Code, w.Body)
				require.Equal(t, tt.http, e.Status)
				require.Equal(t, strings.TrimPrefix(tt.reason.String(), "ERROR_REASON_"), e.Reason, w.Body)
				require.Equal(t, tt.field, e.Field)
				require.Contains(t, e.Detail, tt.want)
				require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
				require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
			}
		})
	}
}

// list returns a JSON list of n zeros.
func list(n int) string { return "[" + strings.TrimSuffix(strings.Repeat("0,", n), ",") + "]" }

func TestQuery_deadlinePassed(t *testing.T) {
	f := start(t, newSelector(digits()))
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	w := call(f.query, "POST", "/v1/applications/digits/query", `{"input":[1,2]}`, "Grpc-Timeout", "1n")
	require.Equal(t, http.StatusGatewayTimeout, w.Code, w.Body)
	require.Contains(t, w.Body.String(), `"reason":"DEADLINE"`)
	_, err := clipperv1.NewQueryServiceClient(f.conn).Query(ctx, &clipperv1.QueryRequest{Application: "digits", InputJson: []byte("[1,2]")})
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))

	w = call(f.query, "POST", "/v1/applications/digits/query", `{"input":[1,2]}`, "Grpc-Timeout", "soon")
	require.Equal(t, http.StatusBadRequest, w.Code, w.Body)
	require.Contains(t, w.Body.String(), `"reason":"INVALID_FIELD"`)
}

// What the selector gets is what the caller meant, whichever way it came.
func TestQuery_reachesSelector(t *testing.T) {
	type seen struct {
		application, context string
		tensors              []*clipperv1.Tensor
	}
	var last seen
	selector := newSelector(testApplications()...)
	selector.query = func(_ context.Context, application, userContext string, in *tensor.Input) (*clipperv1.QueryResponse, error) {
		tensors, err := in.Tensors()
		last = seen{application, userContext, tensors}
		return &clipperv1.QueryResponse{Outputs: one(label(7)), Confidence: .75, FeedbackId: "f"}, err
	}
	f := start(t, selector)
	client := clipperv1.NewQueryServiceClient(f.conn)
	words := &clipperv1.Tensor{Name: "words", DataType: text, Shape: []int64{2}, Strings: []string{"a", "b"}}
	unnamed := &clipperv1.Tensor{DataType: text, Shape: []int64{2}, Strings: []string{"a", "b"}}
	a := &clipperv1.Tensor{Name: "a", DataType: float32s, Shape: []int64{1}, Data: make([]byte, 4)}
	b := &clipperv1.Tensor{Name: "b", DataType: text, Strings: []string{"x"}}
	for _, tt := range []struct {
		app  string
		json string
		in   []*clipperv1.Tensor
		want []*clipperv1.Tensor
	}{
		{"digits", "[0.5,2]", one(vector(.5, 2)), one(vector(.5, 2))},
		{"text", `["a","b"]`, one(unnamed), one(words)},
		{"text", `{"words":["a","b"]}`, one(words), one(words)},
		{"pair", `{"b":"x","a":[0]}`, one(b, a), one(a, b)},
		{"image", `{"b64":"AQI="}`, one(&clipperv1.Tensor{DataType: blob, ByteStrings: [][]byte{{1, 2}}}), one(&clipperv1.Tensor{DataType: blob, ByteStrings: [][]byte{{1, 2}}})},
		{"open", `"x"`, one(&clipperv1.Tensor{DataType: text, Strings: []string{"x"}}), one(&clipperv1.Tensor{DataType: text, Strings: []string{"x"}})},
		{"open", `{"a":[0.0],"b":"x"}`, one(b, a), nil},
	} {
		for _, req := range []*clipperv1.QueryRequest{{InputJson: []byte(tt.json)}, {Inputs: tt.in}} {
			req.Application, req.Context, req.Id = tt.app, "ada", "q1"
			last = seen{}
			res, err := client.Query(t.Context(), req)
			require.NoError(t, err)
			require.Equal(t, "q1", res.Id)
			require.Equal(t, tt.app, last.application)
			require.Equal(t, "ada", last.context)
			if tt.want != nil {
				require.Empty(t, cmp.Diff(tt.want, last.tensors, protocmp.Transform()), tt.json)
			}
		}
		w := call(f.query, "POST", "/v1/applications/"+tt.app+"/query", `{"input":`+tt.json+`,"context":"ada","id":"q1","timeout":"5s"}`, "Content-Type", "application/x-www-form-urlencoded")
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		require.Equal(t, `{"output":7,"is_default":false,"confidence":0.75,"predictions":[],"feedback_id":"f","id":"q1"}`, w.Body.String())
		if tt.want != nil {
			require.Empty(t, cmp.Diff(tt.want, last.tensors, protocmp.Transform()), tt.json)
		}
	}
}

func TestQuery_answerAsJSON(t *testing.T) {
	selector := newSelector(testApplications()...)
	response := &clipperv1.QueryResponse{
		Outputs: one(vector(.1, .9)), Confidence: .5,
		Predictions: []*clipperv1.ModelPrediction{
			{Model: "svm", Version: "1", Status: clipperv1.PredictionStatus_PREDICTION_STATUS_OK, Outputs: one(label(3)), Cached: true, Propensity: .25},
			{Model: "tree", Status: clipperv1.PredictionStatus_PREDICTION_STATUS_FAILED, Message: "no \"luck\"", Shadow: true},
		},
		FeedbackId: "tok/en",
	}
	selector.query = func(context.Context, string, string, *tensor.Input) (*clipperv1.QueryResponse, error) {
		return response, nil
	}
	f := start(t, selector)
	w := call(f.query, "POST", "/v1/applications/digits/query", `{"input":[1,2]}`)
	require.Equal(t, http.StatusOK, w.Code)
	require.JSONEq(t, `{
		"output": [0.1, 0.9], "is_default": false, "confidence": 0.5,
		"predictions": [
			{"model": "svm", "version": "1", "status": "PREDICTION_STATUS_OK", "output": 3, "cached": true, "propensity": 0.25, "shadow": false},
			{"model": "tree", "status": "PREDICTION_STATUS_FAILED", "message": "no \"luck\"", "cached": false, "propensity": 0, "shadow": true}],
		"feedback_id": "tok/en"}`, w.Body.String())

	// A tensor that holds not what it says must not reach the caller as something else.
	response = &clipperv1.QueryResponse{Outputs: one(&clipperv1.Tensor{DataType: float32s, Shape: []int64{3}})}
	w = call(f.query, "POST", "/v1/applications/digits/query", `{"input":[1,2]}`)
	require.Equal(t, http.StatusInternalServerError, w.Code)
	require.Contains(t, w.Body.String(), `"reason":"INTERNAL"`)
	require.NotContains(t, w.Body.String(), "bytes")
}

// A selector that fails in any way costs the prediction, not the answer.
func TestQuery_defaultOutput(t *testing.T) {
	var fail error
	selector := newSelector(testApplications()...)
	selector.query = func(context.Context, string, string, *tensor.Input) (*clipperv1.QueryResponse, error) {
		return nil, fail
	}
	f := start(t, selector)
	for _, tt := range []struct {
		fail         error
		app, in      string
		want, reason string
	}{
		{status.Error(codes.Unavailable, "x"), "digits", "[1,2]", "-1", "UNAVAILABLE"},
		{status.Error(codes.Canceled, "x"), "digits", "[1,2]", "-1", "UNAVAILABLE"},
		{status.Error(codes.DeadlineExceeded, "x"), "text", `["a"]`, `"none"`, "DEADLINE"},
		{context.DeadlineExceeded, "open", "1", "0.5", "DEADLINE"},
		{apierror.Overloaded(time.Second, "x"), "pair", `{"a":[1],"b":""}`, "[0.5,0.5]", "OVERLOADED"},
	} {
		fail = tt.fail
		w := call(f.query, "POST", "/v1/applications/"+tt.app+"/query", `{"input":`+tt.in+`,"id":"7"}`)
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		require.Equal(t, `{"output":`+tt.want+`,"is_default":true,"default_reason":"DEFAULT_REASON_`+tt.reason+`","confidence":0,"predictions":[],"id":"7"}`, w.Body.String())
	}
	for _, tt := range []struct {
		fail   error
		status int
		reason string
	}{
		{errors.New("secret"), 500, "INTERNAL"},
		{apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, "application", "gone"), 404, "APPLICATION_NOT_FOUND"},
	} {
		fail = tt.fail
		w := call(f.query, "POST", "/v1/applications/digits/query", `{"input":[1,2]}`)
		require.Equal(t, tt.status, w.Code)
		require.Contains(t, w.Body.String(), `"reason":"`+tt.reason+`"`)
		require.NotContains(t, w.Body.String(), "secret")
	}
	require.NoError(t, testutil.GatherAndCompare(f.registry, strings.NewReader(`
		# HELP clipper_frontend_queries_total Queries to an application by outcome: answered, default (the default output) or refused (an error).
		# TYPE clipper_frontend_queries_total counter
		clipper_frontend_queries_total{application="digits",outcome="answered"} 0
		clipper_frontend_queries_total{application="digits",outcome="default"} 2
		clipper_frontend_queries_total{application="digits",outcome="refused"} 2
		clipper_frontend_queries_total{application="flag",outcome="answered"} 0
		clipper_frontend_queries_total{application="flag",outcome="default"} 0
		clipper_frontend_queries_total{application="flag",outcome="refused"} 0
		clipper_frontend_queries_total{application="image",outcome="answered"} 0
		clipper_frontend_queries_total{application="image",outcome="default"} 0
		clipper_frontend_queries_total{application="image",outcome="refused"} 0
		clipper_frontend_queries_total{application="open",outcome="answered"} 0
		clipper_frontend_queries_total{application="open",outcome="default"} 1
		clipper_frontend_queries_total{application="open",outcome="refused"} 0
		clipper_frontend_queries_total{application="pair",outcome="answered"} 0
		clipper_frontend_queries_total{application="pair",outcome="default"} 1
		clipper_frontend_queries_total{application="pair",outcome="refused"} 0
		clipper_frontend_queries_total{application="text",outcome="answered"} 0
		clipper_frontend_queries_total{application="text",outcome="default"} 1
		clipper_frontend_queries_total{application="text",outcome="refused"} 0
	`), "clipper_frontend_queries_total"))
}

// A selector that says nothing is waited for as long as there is time, and no longer.
func TestQuery_silentSelector(t *testing.T) {
	for _, tt := range []struct {
		name    string
		linked  bool
		timeout time.Duration // Of the request; 0: none.
		call    time.Duration // Of the call; 0: none.
		want    time.Duration
	}{
		{"latency objective", false, 0, 0, 100 * time.Millisecond},
		{"linked", true, 0, 0, 105 * time.Millisecond},
		{"request", true, 20 * time.Millisecond, 50 * time.Millisecond, 20 * time.Millisecond},
		{"call", true, 50 * time.Millisecond, 20 * time.Millisecond, 20 * time.Millisecond},
		{"longer than the objective", true, time.Hour, time.Hour, 105 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				selector := newSelector(digits())
				selector.query = func(ctx context.Context, _, _ string, _ *tensor.Input) (*clipperv1.QueryResponse, error) {
					<-ctx.Done()
					return nil, apierror.From(ctx.Err())
				}
				f := start(t, selector)
				if !tt.linked {
					selector.mu.Lock()
					close(selector.broken)
					selector.apps = nil
					selector.mu.Unlock()
					synctest.Wait()
				}
				req := &clipperv1.QueryRequest{Application: "digits", InputJson: []byte("[1,2]")}
				if tt.timeout > 0 {
					req.Timeout = durationpb.New(tt.timeout)
				}
				ctx := t.Context()
				if tt.call > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.call)
					defer cancel()
				}
				began := time.Now()
				res, err := clipperv1.NewQueryServiceClient(f.conn).Query(ctx, req)
				require.NoError(t, err)
				require.Equal(t, tt.want, time.Since(began))
				require.True(t, res.IsDefault)
				require.Equal(t, clipperv1.DefaultReason_DEFAULT_REASON_DEADLINE, res.DefaultReason)
				require.Empty(t, cmp.Diff(one(label(-1)), res.Outputs, protocmp.Transform()))
			})
		})
	}
}

func TestQuery_callerLeaves(t *testing.T) {
	selector := newSelector(digits())
	asked := make(chan struct{})
	selector.query = func(ctx context.Context, _, _ string, _ *tensor.Input) (*clipperv1.QueryResponse, error) {
		close(asked)
		<-ctx.Done()
		return nil, apierror.From(ctx.Err())
	}
	f := start(t, selector)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	_, err := clipperv1.NewQueryServiceClient(f.conn).Query(ctx, &clipperv1.QueryRequest{Application: "digits", InputJson: []byte("[1,2]"), Timeout: durationpb.New(time.Minute)})
	require.Equal(t, codes.Canceled, status.Code(err))
}

func TestQueryBatch(t *testing.T) {
	var now, most atomic.Int64
	selector := newSelector(testApplications()...)
	selector.query = func(ctx context.Context, app, user string, in *tensor.Input) (*clipperv1.QueryResponse, error) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		return echo(ctx, app, user, in)
	}
	f := start(t, selector)
	client := clipperv1.NewQueryServiceClient(f.conn)
	req := &clipperv1.QueryBatchRequest{Application: "digits"}
	body := `{"timeout":"10s","queries":[`
	for i := range 500 {
		in := fmt.Sprintf("[%d,0]", i)
		if i == 7 {
			in = "[7]"
		}
		req.Queries = append(req.Queries, &clipperv1.BatchQuery{InputJson: []byte(in), Id: fmt.Sprint(i)})
		body += fmt.Sprintf(`{"input":%s,"id":"%d"},`, in, i)
	}
	body = strings.TrimSuffix(body, ",") + "]}"
	req.Timeout = durationpb.New(10 * time.Second)
	res, err := client.QueryBatch(t.Context(), req)
	require.NoError(t, err)
	require.Len(t, res.Results, 500)
	require.LessOrEqual(t, most.Load(), int64(8))
	for i, r := range res.Results {
		if i == 7 {
			require.Equal(t, clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE, r.GetError().GetReason())
			require.Equal(t, "input", r.GetError().GetField())
			continue
		}
		require.Equal(t, fmt.Sprint(i), r.GetResponse().GetId())
		require.InDelta(t, i, tensor.Float(r.GetResponse().GetOutputs()[0], 0), 0)
	}

	w := call(f.query, "POST", "/v1/applications/digits/query-batch", body)
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	var got struct {
		Results []struct {
			Response struct {
				Output []int
				ID     string
			}
			Error problem
		}
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
	require.Len(t, got.Results, 500)
	for i, r := range got.Results {
		if i == 7 {
			require.Equal(t, "INVALID_ARGUMENT", r.Error.Code)
			require.Equal(t, "INPUT_SHAPE", r.Error.Reason)
			require.Equal(t, 400, r.Error.Status)
			continue
		}
		require.Equal(t, []int{i, 0}, r.Response.Output)
		require.Equal(t, fmt.Sprint(i), r.Response.ID)
	}

	many := strings.TrimSuffix(strings.Repeat(`{},`, 10_001), ",")
	for _, tt := range []struct {
		name, app, body string
		status          int
		reason, field   string
	}{
		{"unknown application", "nope", `{"queries":[{"input":1}]}`, 404, "APPLICATION_NOT_FOUND", "application"},
		{"no queries", "digits", `{"queries":[]}`, 400, "MISSING_FIELD", "queries"},
		{"nothing", "digits", `{}`, 400, "MISSING_FIELD", "queries"},
		{"too many", "digits", `{"queries":[` + many + `]}`, 413, "TOO_LARGE", "queries"},
		{"unknown key", "digits", `{"queries":[{"input":1},{"inptu":1}]}`, 400, "MALFORMED_JSON", "queries[1].inptu"},
		{"not a list", "digits", `{"queries":{}}`, 400, "MALFORMED_JSON", "queries"},
		{"unknown key of the batch", "digits", `{"query":1}`, 400, "MALFORMED_JSON", "query"},
		{"bad timeout", "digits", `{"queries":[{"input":1}],"timeout":"-2s"}`, 400, "INVALID_FIELD", "timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := call(f.query, "POST", "/v1/applications/"+tt.app+"/query-batch", tt.body)
			var e problem
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &e), w.Body)
			require.Equal(t, tt.status, w.Code, w.Body)
			require.Equal(t, tt.reason, e.Reason, w.Body)
			require.Equal(t, tt.field, e.Field, w.Body)
		})
	}
	_, err = client.QueryBatch(t.Context(), &clipperv1.QueryBatchRequest{Application: "digits", Queries: make([]*clipperv1.BatchQuery, 10_001)})
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	require.Equal(t, clipperv1.ErrorReason_ERROR_REASON_TOO_LARGE, apierror.Reason(err))
}

// Answers come as they are ready, at most StreamInFlight queries are under way, and an error is an
// answer.
func TestQueryStream(t *testing.T) {
	release := make(chan struct{})
	var underWay, most atomic.Int64
	selector := newSelector(application("open", clipperv1.OutputKind_OUTPUT_KIND_NUMBER, 0))
	selector.query = func(ctx context.Context, app, user string, in *tensor.Input) (*clipperv1.QueryResponse, error) {
		most.Store(max(most.Load(), underWay.Add(1)))
		defer underWay.Add(-1)
		if user == "slow" {
			<-release
		}
		return echo(ctx, app, user, in)
	}
	f := start(t, selector)
	stream, err := clipperv1.NewQueryServiceClient(f.dial(t)).QueryStream(t.Context())
	require.NoError(t, err)
	send := func(sequence uint64, q *clipperv1.QueryRequest) {
		require.NoError(t, stream.Send(&clipperv1.QueryStreamRequest{Sequence: sequence, Query: q}))
	}
	query := func(user string) *clipperv1.QueryRequest {
		return &clipperv1.QueryRequest{Application: "open", InputJson: []byte("1"), Context: user}
	}
	send(1, query("slow"))
	send(2, query(""))
	res, err := stream.Recv()
	require.NoError(t, err)
	require.Equal(t, uint64(2), res.Sequence, "the fast one is answered while the slow one waits")
	send(3, nil)
	res, err = stream.Recv()
	require.NoError(t, err)
	require.Equal(t, "query", res.GetResult().GetError().GetField())
	for i := range uint64(20) {
		send(10+i, query("slow"))
	}
	eventually(t, func() bool { return underWay.Load() == 4 })
	require.NoError(t, stream.CloseSend())
	close(release)
	seen := map[uint64]bool{}
	for {
		res, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.NotNil(t, res.GetResult().GetResponse())
		seen[res.Sequence] = true
	}
	require.Len(t, seen, 21)
	require.LessOrEqual(t, most.Load(), int64(4))
}

// A server that drains answers what it has and tells the client to come again.
func TestQueryStream_drain(t *testing.T) {
	release, asked := make(chan struct{}), make(chan struct{})
	selector := newSelector(application("open", clipperv1.OutputKind_OUTPUT_KIND_NUMBER, 0))
	selector.query = func(ctx context.Context, app, user string, in *tensor.Input) (*clipperv1.QueryResponse, error) {
		close(asked)
		<-release
		return echo(ctx, app, user, in)
	}
	f := start(t, selector)
	stream, err := clipperv1.NewQueryServiceClient(f.dial(t)).QueryStream(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&clipperv1.QueryStreamRequest{Sequence: 5, Query: &clipperv1.QueryRequest{Application: "open", InputJson: []byte("1")}}))
	<-asked
	close(f.draining)
	close(release)
	res, err := stream.Recv()
	require.NoError(t, err)
	require.Equal(t, uint64(5), res.Sequence)
	require.NotNil(t, res.GetResult().GetResponse())
	_, err = stream.Recv()
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Equal(t, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, apierror.Reason(err))
}

func TestFeedback(t *testing.T) {
	var last *clipperv1.FeedbackRequest
	var lastInput *tensor.Input
	selector := newSelector(testApplications()...)
	selector.feedback = func(_ context.Context, r *clipperv1.FeedbackRequest, in *tensor.Input) (*clipperv1.FeedbackResponse, error) {
		last, lastInput = r, in
		if r.FeedbackId == "expired" {
			return nil, apierror.New(codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_EXPIRED, "feedback_id", "too old")
		}
		return &clipperv1.FeedbackResponse{Losses: []*clipperv1.ModelLoss{{Model: "svm", Loss: 0}}}, nil
	}
	f := start(t, selector)
	w := call(f.query, "POST", "/v1/applications/digits/feedback", `{"feedback_id":"tok","truth":7}`)
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	require.JSONEq(t, `{"duplicate":false,"losses":[{"model":"svm","loss":0}],"buffered":false}`, w.Body.String())
	require.Empty(t, cmp.Diff(&clipperv1.FeedbackRequest{
		Application: "digits", FeedbackId: "tok",
		Observation: &clipperv1.FeedbackRequest_Truth{Truth: structpb.NewNumberValue(7)},
	}, last, protocmp.Transform()))
	require.Nil(t, lastInput)

	w = call(f.query, "POST", "/v1/applications/digits/feedback", `{"input":[1,2],"truth":7,"context":"ada","id":"once"}`)
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	require.Empty(t, cmp.Diff(&clipperv1.FeedbackRequest{
		Application: "digits", Context: "ada", Id: "once",
		Observation: &clipperv1.FeedbackRequest_Truth{Truth: structpb.NewNumberValue(7)},
	}, last, protocmp.Transform()))
	in, err := lastInput.Tensors()
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(one(vector(1, 2)), in, protocmp.Transform()))

	w = call(f.query, "POST", "/v1/applications/digits/feedback", `{"feedback_id":"tok","reward":0.5}`)
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	require.InDelta(t, .5, last.GetReward(), 0)
	for _, truth := range []string{"1", `"b"`, "[0.5,0.5]"} {
		w = call(f.query, "POST", "/v1/applications/pair/feedback", `{"feedback_id":"tok","truth":`+truth+`}`)
		require.Equal(t, http.StatusOK, w.Code, w.Body)
	}

	for _, tt := range []struct {
		name, app, body string
		status          int
		reason, field   string
		want            string
	}{
		{"unknown application", "nope", `{"feedback_id":"tok","truth":7}`, 404, "APPLICATION_NOT_FOUND", "application", "nope"},
		{"nothing named", "digits", `{"truth":7}`, 400, "MISSING_FIELD", "feedback_id", "expected it or the query's input"},
		{"both named", "digits", `{"feedback_id":"tok","input":[1,2],"truth":7}`, 400, "INVALID_FIELD", "feedback_id", "exclude each other"},
		{"no observation", "digits", `{"feedback_id":"tok"}`, 400, "MISSING_FIELD", "truth", "expected truth or reward"},
		{"two observations", "digits", `{"feedback_id":"tok","truth":1,"reward":1}`, 400, "INVALID_FIELD", "reward", "exclude each other"},
		{"reward out of range", "digits", `{"feedback_id":"tok","reward":1.5}`, 400, "TRUTH_INVALID", "reward", "is 1.5, expected a number from 0 to 1"},
		{"reward not a number", "digits", `{"feedback_id":"tok","reward":"1"}`, 400, "INVALID_FIELD", "reward", "is a string, expected a number"},
		{"reward for an input", "digits", `{"input":[1,2],"reward":1}`, 400, "INVALID_FIELD", "reward", "needs a feedback_id"},
		{"wrong kind of label", "digits", `{"feedback_id":"tok","truth":"seven"}`, 400, "TRUTH_INVALID", "truth", "is a string, expected a label, a number"},
		{"null label", "text", `{"feedback_id":"tok","truth":null}`, 400, "TRUTH_INVALID", "truth", "is null, expected a label"},
		{"list for a number", "open", `{"feedback_id":"tok","truth":[1]}`, 400, "TRUTH_INVALID", "truth", "is a list, expected a number"},
		{"strings as scores", "pair", `{"feedback_id":"tok","truth":["a"]}`, 400, "TRUTH_INVALID", "truth", "finite numbers only"},
		{"no scores", "pair", `{"feedback_id":"tok","truth":[]}`, 400, "TRUTH_INVALID", "truth", "is a list, expected the true class"},
		{"bad input", "digits", `{"input":[1],"truth":7}`, 400, "INPUT_SHAPE", "input", "expected 2"},
		{"expired", "digits", `{"feedback_id":"expired","truth":7}`, 400, "FEEDBACK_ID_EXPIRED", "feedback_id", "too old"},
		{"application in the body", "digits", `{"application":"digits","feedback_id":"tok","truth":7}`, 400, "MALFORMED_JSON", "application", "unknown key"},
		{"repeated key in the truth", "digits", `{"feedback_id":"tok","truth":{"a":1,"a":2}}`, 400, "MALFORMED_JSON", "truth", "duplicate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := call(f.query, "POST", "/v1/applications/"+tt.app+"/feedback", tt.body)
			var e problem
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &e), w.Body)
			require.Equal(t, tt.status, w.Code, w.Body)
			require.Equal(t, tt.reason, e.Reason, w.Body)
			require.Equal(t, tt.field, e.Field, w.Body)
			require.Contains(t, e.Detail, tt.want)
		})
	}
}

func TestFeedbackBatch(t *testing.T) {
	selector := newSelector(testApplications()...)
	selector.feedback = func(_ context.Context, r *clipperv1.FeedbackRequest, _ *tensor.Input) (*clipperv1.FeedbackResponse, error) {
		if r.Application != "digits" {
			return nil, errors.New("not its application")
		}
		return &clipperv1.FeedbackResponse{Duplicate: r.FeedbackId == "again"}, nil
	}
	f := start(t, selector)
	w := call(f.query, "POST", "/v1/applications/digits/feedback-batch",
		`{"items":[{"feedback_id":"a","truth":1},{"feedback_id":"again","truth":1},{"feedback_id":"c","truth":"x"},{"input":[1,2],"truth":3}]}`)
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	var got struct{ Results []map[string]map[string]any }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
	require.Equal(t, false, got.Results[0]["response"]["duplicate"])
	require.Equal(t, true, got.Results[1]["response"]["duplicate"])
	require.Equal(t, "TRUTH_INVALID", got.Results[2]["error"]["reason"])
	require.Equal(t, false, got.Results[3]["response"]["duplicate"])

	client := clipperv1.NewFeedbackServiceClient(f.conn)
	truth := &clipperv1.FeedbackRequest_Truth{Truth: structpb.NewNumberValue(1)}
	res, err := client.FeedbackBatch(t.Context(), &clipperv1.FeedbackBatchRequest{Application: "digits", Items: []*clipperv1.FeedbackRequest{
		{FeedbackId: "a", Observation: truth}, {Application: "digits", FeedbackId: "a", Observation: truth}, {Application: "open", FeedbackId: "a", Observation: truth},
	}})
	require.NoError(t, err)
	require.NotNil(t, res.Results[0].GetResponse())
	require.NotNil(t, res.Results[1].GetResponse())
	require.Equal(t, "application", res.Results[2].GetError().GetField())
	_, err = client.FeedbackBatch(t.Context(), &clipperv1.FeedbackBatchRequest{Application: "digits"})
	require.Equal(t, clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, apierror.Reason(err))
}

func TestFeedbackStream(t *testing.T) {
	f := start(t, newSelector(testApplications()...))
	stream, err := clipperv1.NewFeedbackServiceClient(f.dial(t)).FeedbackStream(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&clipperv1.FeedbackStreamRequest{Sequence: 1, Feedback: &clipperv1.FeedbackRequest{
		Application: "digits", FeedbackId: "a", Observation: &clipperv1.FeedbackRequest_Reward{Reward: 1},
	}}))
	res, err := stream.Recv()
	require.NoError(t, err)
	require.NotNil(t, res.GetResult().GetResponse())
	require.NoError(t, stream.Send(&clipperv1.FeedbackStreamRequest{Sequence: 2, Feedback: &clipperv1.FeedbackRequest{Application: "nope"}}))
	res, err = stream.Recv()
	require.NoError(t, err)
	require.Equal(t, clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, res.GetResult().GetError().GetReason())
	require.NoError(t, stream.Send(&clipperv1.FeedbackStreamRequest{Sequence: 3}))
	res, err = stream.Recv()
	require.NoError(t, err)
	require.Equal(t, "feedback", res.GetResult().GetError().GetField())
	require.NoError(t, stream.CloseSend())
	_, err = stream.Recv()
	require.ErrorIs(t, err, io.EOF)
}

// Feedback to a selector that is silent ends with an error that says so.
func TestFeedback_timeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		selector := newSelector(digits())
		selector.feedback = func(ctx context.Context, _ *clipperv1.FeedbackRequest, _ *tensor.Input) (*clipperv1.FeedbackResponse, error) {
			<-ctx.Done()
			return nil, apierror.From(ctx.Err())
		}
		f := start(t, selector, func(c *frontend.Config) { c.FeedbackTimeout = 3 * time.Second })
		began := time.Now()
		_, err := clipperv1.NewFeedbackServiceClient(f.conn).Feedback(t.Context(), &clipperv1.FeedbackRequest{
			Application: "digits", FeedbackId: "a", Observation: &clipperv1.FeedbackRequest_Reward{Reward: 1},
		})
		require.Equal(t, codes.DeadlineExceeded, status.Code(err))
		require.Equal(t, 3*time.Second, time.Since(began))
	})
}
