// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
)

// refusal is a bad request and how it is refused. What cannot be said over gRPC, or over REST, is
// empty there.
type refusal struct {
	name string
	grpc func(context.Context) error
	rest rest

	code   codes.Code
	http   int
	reason clipperv1.ErrorReason
	// field is the field at fault over gRPC, and over REST unless restField says otherwise. It has
	// to be in the message.
	field, restField string
}

func refused(t *testing.T, cases []refusal) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			reason := strings.TrimPrefix(c.reason.String(), "ERROR_REASON_")
			if c.grpc != nil {
				err := c.grpc(t.Context())
				st := status.Convert(err)
				require.Equal(t, c.code.String(), st.Code().String(), "%v", err)
				info := &errdetails.ErrorInfo{}
				for _, d := range st.Details() {
					if d, ok := d.(*errdetails.ErrorInfo); ok {
						info = d
					}
				}
				require.Equal(t, reason, info.Reason, "%v", err)
				require.Equal(t, apierror.Domain, info.Domain)
				require.Equal(t, c.field, info.Metadata["field"], "%v", err)
				requireNamed(t, c.field, st.Message())
			}
			if c.rest.url != "" {
				field := c.field
				if c.restField != "" {
					field = c.restField
				}
				if c.rest.method == "" {
					c.rest.method = http.MethodPost
				}
				code, object := c.rest.call(t)
				require.Equal(t, c.http, code, object)
				e := object
				require.InDelta(t, c.http, e["status"], 0)
				require.Equal(t, reason, e["reason"], e)
				var named string
				if e["field"] != nil {
					named = e["field"].(string)
				}
				require.Equal(t, field, named, e)
				requireNamed(t, field, e["detail"].(string))
			}
		})
	}
}

var index = regexp.MustCompile(`\[\d+\]$`)

// requireNamed requires that a message names a field: its last part, as people call it.
func requireNamed(t *testing.T, field, message string) {
	t.Helper()
	require.NotEmpty(t, message)
	last := field[strings.LastIndex(field, ".")+1:]
	if last == "container" { // What is wrong with it is what kind it is.
		last = "image"
	}
	require.Contains(t, message, index.ReplaceAllString(last, ""))
}

const (
	badRequest = http.StatusBadRequest
	invalid    = codes.InvalidArgument
)

// testBadQueries asks what cannot be answered.
func testBadQueries(t *testing.T, s *system) {
	const app = "bad-queries"
	s.deploy(t, app, nil)
	s.create(t, application(app, "", app))
	at := func(name, path string) string { return s.queryURL + "/v1/applications/" + name + "/" + path }
	body := func(text string) rest { return rest{url: at(app, "query"), body: text} }
	query := func(change func(*clipperv1.QueryRequest)) func(context.Context) error {
		return func(ctx context.Context) error {
			request := &clipperv1.QueryRequest{Application: app, Inputs: input(1, 0)}
			change(request)
			_, err := s.queries.Query(ctx, request)
			return err
		}
	}
	with := func(t *clipperv1.Tensor) func(context.Context) error {
		return query(func(r *clipperv1.QueryRequest) { r.Inputs = []*clipperv1.Tensor{t} })
	}
	json := func(text string) func(context.Context) error {
		return query(func(r *clipperv1.QueryRequest) { r.Inputs, r.InputJson = nil, []byte(text) })
	}
	batch := func(n int) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := s.queries.QueryBatch(ctx, &clipperv1.QueryBatchRequest{Application: app, Queries: make([]*clipperv1.BatchQuery, n)})
			return err
		}
	}
	float64s := func(shape ...int64) *clipperv1.Tensor {
		n := int64(1)
		for _, d := range shape {
			n *= d
		}
		return &clipperv1.Tensor{DataType: clipperv1.DataType_DATA_TYPE_FLOAT64, Shape: shape, Data: make([]byte, 8*n)}
	}
	long := strings.Repeat("x", 300)

	refused(t, []refusal{
		{
			name: "unknown application", code: codes.NotFound, http: http.StatusNotFound,
			grpc:   query(func(r *clipperv1.QueryRequest) { r.Application = "nobody" }),
			rest:   rest{url: at("nobody", "query"), body: `{"input": [1, 0]}`},
			reason: clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, field: "application",
		},
		{
			name: "no application", code: invalid,
			grpc:   query(func(r *clipperv1.QueryRequest) { r.Application = "" }),
			reason: clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, field: "application",
		},
		{
			name: "type of the tensor", code: invalid,
			grpc:   with(&clipperv1.Tensor{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{2}, Data: make([]byte, 8)}),
			reason: clipperv1.ErrorReason_ERROR_REASON_INPUT_TYPE, field: "inputs[0].data_type",
		},
		{
			name: "no such type", code: invalid,
			grpc:   with(&clipperv1.Tensor{DataType: 99, Shape: []int64{2}, Data: make([]byte, 8)}),
			reason: clipperv1.ErrorReason_ERROR_REASON_INPUT_TYPE, field: "inputs[0].data_type",
		},
		{
			name: "text for numbers", code: invalid, http: badRequest,
			grpc: json(`"text"`), rest: body(`{"input": "text"}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_INPUT_TYPE, field: "input",
		},
		{
			name: "text among numbers", code: invalid, http: badRequest,
			grpc: json(`[1, "two"]`), rest: body(`{"input": [1, "two"]}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_INPUT_TYPE, field: "input[1]",
		},
		{
			name: "too many elements for the shape", code: invalid, http: badRequest,
			grpc: with(float64s(3)), rest: body(`{"input": [1, 2, 3]}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE, field: "inputs[0].shape", restField: "input",
		},
		{
			name: "another dimension", code: invalid, http: badRequest,
			grpc: with(float64s(1, 2)), rest: body(`{"input": [[1, 2]]}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE, field: "inputs[0].shape", restField: "input[0]",
		},
		{
			name: "data that does not fit its shape", code: invalid,
			grpc:   with(&clipperv1.Tensor{DataType: clipperv1.DataType_DATA_TYPE_FLOAT64, Shape: []int64{2}, Data: make([]byte, 15)}),
			reason: clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE, field: "inputs[0]",
		},
		{
			name: "two tensors for one", code: invalid,
			grpc:   query(func(r *clipperv1.QueryRequest) { r.Inputs = append(input(1, 0), input(1, 0)...) }),
			reason: clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE, field: "inputs",
		},
		{
			name: "empty list", code: invalid, http: badRequest,
			grpc: with(float64s(0)), rest: body(`{"input": []}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE, field: "inputs[0]", restField: "input",
		},
		{
			name: "not a number", code: invalid,
			grpc:   query(func(r *clipperv1.QueryRequest) { r.Inputs = input(math.NaN(), 0) }),
			reason: clipperv1.ErrorReason_ERROR_REASON_INPUT_VALUE, field: "inputs[0]",
		},
		{
			name: "infinite", code: invalid, http: badRequest,
			grpc: query(func(r *clipperv1.QueryRequest) { r.Inputs = input(0, math.Inf(-1)) }), rest: body(`{"input": [0, 1e999]}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_INPUT_VALUE, field: "inputs[0]", restField: "input[1]",
		},
		{
			name: "NaN in JSON", code: invalid, http: badRequest,
			grpc: json(`[NaN, 1]`), rest: body(`{"input": [NaN, 1]}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_INPUT_VALUE, field: "input[0]",
		},
		{
			name: "no input", code: invalid, http: badRequest,
			grpc: query(func(r *clipperv1.QueryRequest) { r.Inputs = nil }), rest: body(`{}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, field: "inputs", restField: "input",
		},
		{
			name: "two inputs", code: invalid,
			grpc:   query(func(r *clipperv1.QueryRequest) { r.InputJson = []byte("[1, 0]") }),
			reason: clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field: "inputs",
		},
		{
			name: "malformed JSON", code: invalid, http: badRequest, grpc: json(`[1, 2`),
			reason: clipperv1.ErrorReason_ERROR_REASON_MALFORMED_JSON, field: "input[1]",
		},
		{
			name: "malformed body", http: badRequest, rest: body(`{"input": [1, 2`),
			reason: clipperv1.ErrorReason_ERROR_REASON_MALFORMED_JSON,
		},
		{
			name: "empty body", http: badRequest, rest: body(``),
			reason: clipperv1.ErrorReason_ERROR_REASON_MALFORMED_JSON,
		},
		{
			name: "no object", http: badRequest, rest: body(`[1, 2]`),
			reason: clipperv1.ErrorReason_ERROR_REASON_MALFORMED_JSON,
		},
		{
			name: "unknown key", http: badRequest, rest: body(`{"input": [1, 0], "contxt": "ann"}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_MALFORMED_JSON, field: "contxt",
		},
		{
			name: "repeated key", http: badRequest, rest: body(`{"input": [1, 0], "input": [2, 0]}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_MALFORMED_JSON,
		},
		{
			name: "oversized body", http: http.StatusRequestEntityTooLarge, rest: body(`{"input": [` + strings.Repeat(" ", 17<<20) + `1, 0]}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_TOO_LARGE,
		},
		{
			name: "too many elements", code: codes.ResourceExhausted,
			grpc:   with(&clipperv1.Tensor{DataType: clipperv1.DataType_DATA_TYPE_UINT8, Shape: []int64{5 << 20}, Data: make([]byte, 5<<20)}),
			reason: clipperv1.ErrorReason_ERROR_REASON_TOO_LARGE, field: "inputs[0]",
		},
		{
			name: "context too long", code: invalid, http: badRequest,
			grpc: query(func(r *clipperv1.QueryRequest) { r.Context = long }), rest: body(`{"input": [1, 0], "context": "` + long + `"}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field: "context",
		},
		{
			name: "id too long", code: invalid, http: badRequest,
			grpc: query(func(r *clipperv1.QueryRequest) { r.Id = long }), rest: body(`{"input": [1, 0], "id": "` + long + `"}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field: "id",
		},
		{
			name: "no time", code: invalid, http: badRequest,
			grpc: query(func(r *clipperv1.QueryRequest) { r.Timeout = durationpb.New(0) }), rest: body(`{"input": [1, 0], "timeout": "-1s"}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field: "timeout",
		},
		{
			name: "time that is none", http: badRequest, rest: body(`{"input": [1, 0], "timeout": "soon"}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field: "timeout",
		},
		{
			name: "deadline already passed", http: http.StatusGatewayTimeout,
			rest:   rest{url: at(app, "query"), body: `{"input": [1, 0]}`, header: http.Header{"Grpc-Timeout": {"1n"}}},
			reason: clipperv1.ErrorReason_ERROR_REASON_DEADLINE,
		},
		{
			name: "empty batch", code: invalid, http: badRequest, grpc: batch(0),
			rest:   rest{url: at(app, "query-batch"), body: `{"queries": []}`},
			reason: clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, field: "queries",
		},
		{
			name: "batch too large", code: invalid, http: http.StatusRequestEntityTooLarge, grpc: batch(10001),
			rest:   rest{url: at(app, "query-batch"), body: `{"queries": [` + strings.Repeat(`{}, `, 10000) + `{}]}`},
			reason: clipperv1.ErrorReason_ERROR_REASON_TOO_LARGE, field: "queries",
		},
		{
			name: "no such path", http: http.StatusNotFound, rest: rest{url: s.queryURL + "/v1/nothing", body: `{}`},
			reason: clipperv1.ErrorReason_ERROR_REASON_UNKNOWN_METHOD,
		},
		{
			name: "no such method", http: http.StatusMethodNotAllowed, rest: rest{method: http.MethodGet, url: at(app, "query")},
			reason: clipperv1.ErrorReason_ERROR_REASON_UNKNOWN_METHOD,
		},
		{
			name: "administration on the query listener", http: http.StatusNotFound, rest: rest{method: http.MethodGet, url: s.queryURL + "/v1/models"},
			reason: clipperv1.ErrorReason_ERROR_REASON_UNKNOWN_METHOD,
		},
	})
	t.Run("oversized message", func(t *testing.T) {
		err := with(float64s(3 << 20))(t.Context())
		require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
	})
	t.Run("it still answers", func(t *testing.T) {
		require.EqualValues(t, 1, predicted(t, s.ask(t, app, 1, 0)))
	})
}

// testBadFeedback gives feedback that cannot be taken.
func testBadFeedback(t *testing.T, s *system) {
	const app, other, brief, changed, emptied = "bad-feedback", "bad-feedback-other", "bad-feedback-brief", "bad-feedback-changed", "bad-feedback-emptied"
	s.deploy(t, app, nil)
	s.deploy(t, other, nil)
	for _, name := range []string{app, other, brief, changed, emptied} {
		a := application(name, "", app)
		if name == brief {
			a.FeedbackLifetime = durationpb.New(time.Second)
		}
		s.create(t, a)
	}
	// What has been learned before must stay as it is.
	require.False(t, s.learn(t, app, s.ask(t, app, 1, 0), 1).Duplicate)
	before := s.stateBytes(t, app)
	id := s.ask(t, app, 1, 0).FeedbackId
	foreign := s.ask(t, other, 1, 0).FeedbackId
	// A reset, and a model that is replaced, after the answer.
	ofChanged, ofEmptied := s.ask(t, changed, 1, 0).FeedbackId, s.ask(t, emptied, 1, 0).FeedbackId
	update := &clipperv1.UpdateApplicationRequest{Application: &clipperv1.Application{Name: changed, Policy: &clipperv1.Policy{Name: "static"}}, ResetState: true}
	_, err := s.applications.UpdateApplication(t.Context(), update)
	require.NoError(t, err)
	update = &clipperv1.UpdateApplicationRequest{Application: &clipperv1.Application{Name: emptied, Models: []*clipperv1.ApplicationModel{{Model: other}}}}
	_, err = s.applications.UpdateApplication(t.Context(), update)
	require.NoError(t, err)
	s.awaitFrontend(t, emptied, other)
	forged := id[:len(id)/2] + string(id[len(id)/2]^1) + id[len(id)/2+1:]
	path := func(name string) string { return s.queryURL + "/v1/applications/" + name + "/feedback" }
	body := func(format string, args ...any) rest { return rest{url: path(app), body: fmt.Sprintf(format, args...)} }
	feedback := func(change func(*clipperv1.FeedbackRequest)) func(context.Context) error {
		return func(ctx context.Context) error {
			request := &clipperv1.FeedbackRequest{Application: app, FeedbackId: id, Observation: truth(1)}
			change(request)
			_, err := s.feedback.Feedback(ctx, request)
			return err
		}
	}
	refused(t, []refusal{
		{
			name: "unknown application", code: codes.NotFound, http: http.StatusNotFound,
			grpc:   feedback(func(r *clipperv1.FeedbackRequest) { r.Application = "nobody" }),
			rest:   rest{url: path("nobody"), body: fmt.Sprintf(`{"feedback_id": %q, "truth": 1}`, id)},
			reason: clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, field: "application",
		},
		{
			name: "forged", code: invalid, http: badRequest,
			grpc:   feedback(func(r *clipperv1.FeedbackRequest) { r.FeedbackId = forged }),
			rest:   body(`{"feedback_id": %q, "truth": 1}`, forged),
			reason: clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_INVALID, field: "feedback_id",
		},
		{
			name: "invented", code: invalid, http: badRequest,
			grpc:   feedback(func(r *clipperv1.FeedbackRequest) { r.FeedbackId = "yes, it was right" }),
			rest:   body(`{"feedback_id": "yes, it was right", "truth": 1}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_INVALID, field: "feedback_id",
		},
		{
			name: "of another application", code: invalid, http: badRequest,
			grpc:   feedback(func(r *clipperv1.FeedbackRequest) { r.FeedbackId = foreign }),
			rest:   body(`{"feedback_id": %q, "truth": 1}`, foreign),
			reason: clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_APPLICATION, field: "feedback_id",
		},
		{
			name: "wrong kind of truth", code: invalid, http: badRequest,
			grpc: feedback(func(r *clipperv1.FeedbackRequest) {
				r.Observation = &clipperv1.FeedbackRequest_Truth{Truth: structpb.NewStringValue("one")}
			}),
			rest:   body(`{"feedback_id": %q, "truth": "one"}`, id),
			reason: clipperv1.ErrorReason_ERROR_REASON_TRUTH_INVALID, field: "truth",
		},
		{
			name: "truth that is not a label", code: invalid, http: badRequest,
			grpc:   feedback(func(r *clipperv1.FeedbackRequest) { r.Observation = truth(1.5) }),
			rest:   body(`{"feedback_id": %q, "truth": 1.5}`, id),
			reason: clipperv1.ErrorReason_ERROR_REASON_TRUTH_INVALID, field: "truth",
		},
		{
			name: "truth that is not a number", code: invalid,
			grpc:   feedback(func(r *clipperv1.FeedbackRequest) { r.Observation = truth(math.NaN()) }),
			reason: clipperv1.ErrorReason_ERROR_REASON_TRUTH_INVALID, field: "truth",
		},
		{
			name: "reward out of range", code: invalid, http: badRequest,
			grpc:   feedback(func(r *clipperv1.FeedbackRequest) { r.Observation = &clipperv1.FeedbackRequest_Reward{Reward: 2} }),
			rest:   body(`{"feedback_id": %q, "reward": 2}`, id),
			reason: clipperv1.ErrorReason_ERROR_REASON_TRUTH_INVALID, field: "reward",
		},
		{
			name: "reward below its range", code: invalid, http: badRequest,
			grpc:   feedback(func(r *clipperv1.FeedbackRequest) { r.Observation = &clipperv1.FeedbackRequest_Reward{Reward: -0.1} }),
			rest:   body(`{"feedback_id": %q, "reward": -0.1}`, id),
			reason: clipperv1.ErrorReason_ERROR_REASON_TRUTH_INVALID, field: "reward",
		},
		{
			name: "reward that is not a number", code: invalid,
			grpc: feedback(func(r *clipperv1.FeedbackRequest) {
				r.Observation = &clipperv1.FeedbackRequest_Reward{Reward: math.NaN()}
			}),
			reason: clipperv1.ErrorReason_ERROR_REASON_TRUTH_INVALID, field: "reward",
		},
		{
			name: "reward of the wrong kind", http: badRequest, rest: body(`{"feedback_id": %q, "reward": "good"}`, id),
			reason: clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field: "reward",
		},
		{
			name: "truth that JSON does not know", http: badRequest, rest: body(`{"feedback_id": %q, "truth": NaN}`, id),
			reason: clipperv1.ErrorReason_ERROR_REASON_MALFORMED_JSON, field: "truth",
		},
		{
			name: "label that its type cannot hold", code: invalid, http: badRequest,
			grpc:   feedback(func(r *clipperv1.FeedbackRequest) { r.Observation = truth(1e300) }),
			rest:   body(`{"feedback_id": %q, "truth": 1e300}`, id),
			reason: clipperv1.ErrorReason_ERROR_REASON_TRUTH_INVALID, field: "truth",
		},
		{
			name: "after a reset", code: codes.FailedPrecondition, http: badRequest,
			grpc:   feedback(func(r *clipperv1.FeedbackRequest) { r.Application, r.FeedbackId = changed, ofChanged }),
			rest:   rest{url: path(changed), body: fmt.Sprintf(`{"feedback_id": %q, "truth": 1}`, ofChanged)},
			reason: clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_EXPIRED, field: "feedback_id",
		},
		{
			name: "of a model that is gone", code: codes.FailedPrecondition, http: badRequest,
			grpc:   feedback(func(r *clipperv1.FeedbackRequest) { r.Application, r.FeedbackId = emptied, ofEmptied }),
			rest:   rest{url: path(emptied), body: fmt.Sprintf(`{"feedback_id": %q, "truth": 1}`, ofEmptied)},
			reason: clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_EXPIRED, field: "feedback_id",
		},
		{
			name: "reward for an input", code: invalid, http: badRequest,
			grpc: feedback(func(r *clipperv1.FeedbackRequest) {
				r.FeedbackId, r.Inputs, r.Observation = "", input(1, 0), &clipperv1.FeedbackRequest_Reward{Reward: 1}
			}),
			rest:   body(`{"input": [1, 0], "reward": 1}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field: "reward",
		},
		{
			name: "no truth", code: invalid, http: badRequest,
			grpc:   feedback(func(r *clipperv1.FeedbackRequest) { r.Observation = nil }),
			rest:   body(`{"feedback_id": %q}`, id),
			reason: clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, field: "truth",
		},
		{
			name: "truth and reward", http: badRequest, rest: body(`{"feedback_id": %q, "truth": 1, "reward": 1}`, id),
			reason: clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field: "reward",
		},
		{
			name: "no query", code: invalid, http: badRequest,
			grpc:   feedback(func(r *clipperv1.FeedbackRequest) { r.FeedbackId = "" }),
			rest:   body(`{"truth": 1}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, field: "feedback_id",
		},
		{
			name: "two queries", code: invalid, http: badRequest,
			grpc:   feedback(func(r *clipperv1.FeedbackRequest) { r.Inputs = input(1, 0) }),
			rest:   body(`{"feedback_id": %q, "input": [1, 0], "truth": 1}`, id),
			reason: clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field: "feedback_id",
		},
		{
			name: "input of the wrong shape", code: invalid, http: badRequest,
			grpc:   feedback(func(r *clipperv1.FeedbackRequest) { r.FeedbackId, r.Inputs = "", input(1) }),
			rest:   body(`{"input": [1], "truth": 1}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE, field: "inputs[0].shape", restField: "input",
		},
		{
			name: "empty batch", code: invalid, http: badRequest,
			grpc: func(ctx context.Context) error {
				_, err := s.feedback.FeedbackBatch(ctx, &clipperv1.FeedbackBatchRequest{Application: app})
				return err
			},
			rest:   rest{url: path(app) + "-batch", body: `{"items": []}`},
			reason: clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, field: "items",
		},
	})
	require.Equal(t, before, s.stateBytes(t, app), "what was refused has taught nothing")
	for _, name := range []string{other, changed, emptied} {
		require.Zero(t, s.state(t, name, "").Observations, "what was refused has taught nothing")
	}
	require.False(t, s.learn(t, app, &clipperv1.QueryResponse{FeedbackId: id}, 1).Duplicate, "the feedback_id is as good as before")

	t.Run("expired", func(t *testing.T) {
		id := s.ask(t, brief, 1, 0).FeedbackId
		require.False(t, s.learn(t, brief, &clipperv1.QueryResponse{FeedbackId: id}, 1).Duplicate)
		require.EventuallyWithT(t, func(c *assertCollect) { // A repetition is known until it is refused.
			response, err := s.feedback.Feedback(t.Context(), &clipperv1.FeedbackRequest{Application: brief, FeedbackId: id, Observation: truth(1)})
			if err == nil && !response.Duplicate {
				t.Error("counted twice")
			}
			requireStatus(c, err, codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_EXPIRED)
		}, patience, poll)
		refused(t, []refusal{{
			name: "REST", http: badRequest, rest: rest{url: path(brief), body: fmt.Sprintf(`{"feedback_id": %q, "truth": 1}`, id)},
			reason: clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_EXPIRED, field: "feedback_id",
		}})
		s.awaitObservations(t, brief, "", 1)
	})
}

// stateBytes returns what an application has learned, encoded.
func (s *system) stateBytes(t *testing.T, app string) []byte {
	t.Helper()
	state, err := proto.MarshalOptions{Deterministic: true}.Marshal(s.state(t, app, ""))
	require.NoError(t, err)
	return state
}

// awaitFrontend waits until an application asks a model.
func (s *system) awaitFrontend(t *testing.T, app, model string) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assertCollect) {
		r, err := s.queries.Query(t.Context(), &clipperv1.QueryRequest{Application: app, Inputs: input(1, 0)})
		require.NoError(c, err)
		require.Len(c, r.Predictions, 1)
		require.Equal(c, model, r.Predictions[0].Model)
	}, patience, poll)
}

// testBadAdministration administers what does not exist, exists already or makes no sense.
func testBadAdministration(t *testing.T, s *system) {
	const name = "bad-administration"
	s.deploy(t, name, nil)
	s.create(t, application(name, "", name))
	applications, models := s.adminURL+"/v1/applications", s.adminURL+"/v1/models"
	post := func(url, format string, args ...any) rest { return rest{url: url, body: fmt.Sprintf(format, args...)} }
	create := func(change func(*clipperv1.Application)) func(context.Context) error {
		return func(ctx context.Context) error {
			app := application(name+"-new", "", name)
			change(app)
			_, err := s.applications.CreateApplication(ctx, &clipperv1.CreateApplicationRequest{Application: app})
			return err
		}
	}
	update := func(change func(*clipperv1.UpdateApplicationRequest)) func(context.Context) error {
		return func(ctx context.Context) error {
			request := &clipperv1.UpdateApplicationRequest{
				Application: &clipperv1.Application{Name: name, Description: "changed"},
				UpdateMask:  &fieldmaskpb.FieldMask{Paths: []string{"description"}},
			}
			change(request)
			_, err := s.applications.UpdateApplication(ctx, request)
			return err
		}
	}
	deploy := func(change func(*clipperv1.ModelVersion)) func(context.Context) error {
		return func(ctx context.Context) error {
			v := version(name+"-new", "1", nil)
			change(v)
			_, err := s.models.DeployModel(ctx, &clipperv1.DeployModelRequest{Version: v})
			return err
		}
	}
	const unknown = "nobody"
	refused(t, []refusal{
		{
			name: "application exists", code: codes.AlreadyExists, http: http.StatusConflict,
			grpc:   create(func(a *clipperv1.Application) { a.Name = name }),
			rest:   post(applications, `{"name": %q, "default_output": 0, "models": [{"model": %[1]q}]}`, name),
			reason: clipperv1.ErrorReason_ERROR_REASON_APPLICATION_EXISTS, field: "name",
		},
		{
			name: "application of an unknown model", code: codes.NotFound, http: http.StatusNotFound,
			grpc:   create(func(a *clipperv1.Application) { a.Models[0].Model = unknown }),
			rest:   post(applications, `{"name": "new", "default_output": 0, "models": [{"model": "nobody"}]}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND, field: "models[0].model",
		},
		{
			name: "application of an unknown version", code: codes.NotFound, http: http.StatusNotFound,
			grpc:   create(func(a *clipperv1.Application) { a.Models[0].Version = "2" }),
			rest:   post(applications, `{"name": "new", "default_output": 0, "models": [{"model": %q, "version": "2"}]}`, name),
			reason: clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND, field: "models[0].version",
		},
		{
			name: "no name", code: invalid, http: badRequest,
			grpc:   create(func(a *clipperv1.Application) { a.Name = "" }),
			rest:   post(applications, `{"default_output": 0, "models": [{"model": %q}]}`, name),
			reason: clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, field: "name",
		},
		{
			name: "no name at all", code: invalid, http: badRequest,
			grpc:   create(func(a *clipperv1.Application) { a.Name = "../etc" }),
			rest:   post(applications, `{"name": "../etc", "default_output": 0, "models": [{"model": %q}]}`, name),
			reason: clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field: "name",
		},
		{
			name: "no default output", code: invalid, http: badRequest,
			grpc:   create(func(a *clipperv1.Application) { a.DefaultOutput = nil }),
			rest:   post(applications, `{"name": "new", "models": [{"model": %q}]}`, name),
			reason: clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, field: "default_output",
		},
		{
			name: "default output of another kind", code: invalid, http: badRequest,
			grpc:   create(func(a *clipperv1.Application) { a.DefaultOutput = structpb.NewStringValue("none") }),
			rest:   post(applications, `{"name": "new", "default_output": "none", "models": [{"model": %q}]}`, name),
			reason: clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field: "default_output",
		},
		{
			name: "no models", code: invalid, http: badRequest,
			grpc:   create(func(a *clipperv1.Application) { a.Models = nil }),
			rest:   post(applications, `{"name": "new", "default_output": 0}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, field: "models",
		},
		{
			name: "unknown policy", code: invalid, http: badRequest,
			grpc:   create(func(a *clipperv1.Application) { a.Policy.Name = "best" }),
			rest:   post(applications, `{"name": "new", "default_output": 0, "policy": {"name": "best"}, "models": [{"model": %q}]}`, name),
			reason: clipperv1.ErrorReason_ERROR_REASON_POLICY_INVALID, field: "policy.name",
		},
		{
			name: "parameter out of range", code: invalid, http: badRequest,
			grpc: create(func(a *clipperv1.Application) {
				a.Policy = &clipperv1.Policy{Name: "exp4", Parameters: map[string]float64{"eta": -1}}
			}),
			rest: post(applications, `{"name": "new", "default_output": 0, "policy": {"name": "exp4", "parameters": {"eta": -1}},
				"models": [{"model": %q}]}`, name),
			reason: clipperv1.ErrorReason_ERROR_REASON_POLICY_INVALID, field: "policy.parameters.eta",
		},
		{
			name: "objective out of range", code: invalid, http: badRequest,
			grpc:   create(func(a *clipperv1.Application) { a.LatencyObjective = durationpb.New(time.Microsecond) }),
			rest:   post(applications, `{"name": "new", "default_output": 0, "latency_objective": "0.000001s", "models": [{"model": %q}]}`, name),
			reason: clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field: "latency_objective",
		},
		{
			name: "threshold that is not a number", code: invalid, http: badRequest,
			grpc:   create(func(a *clipperv1.Application) { a.ConfidenceThreshold = math.NaN() }),
			rest:   post(applications, `{"name": "new", "default_output": 0, "confidence_threshold": "NaN", "models": [{"model": %q}]}`, name),
			reason: clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field: "confidence_threshold",
		},
		{
			name: "another signature", code: codes.FailedPrecondition, http: badRequest,
			grpc: create(func(a *clipperv1.Application) {
				a.Inputs = []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_STRING}}
			}),
			rest: post(applications, `{"name": "new", "default_output": 0, "inputs": [{"data_type": "DATA_TYPE_STRING"}],
				"models": [{"model": %q}]}`, name),
			reason: clipperv1.ErrorReason_ERROR_REASON_SIGNATURE_MISMATCH, field: "models[0]",
		},
		{
			name: "malformed application", http: badRequest, rest: post(applications, `{"name": `),
			reason: clipperv1.ErrorReason_ERROR_REASON_MALFORMED_JSON,
		},
		{
			name: "application that is not there", code: codes.NotFound, http: http.StatusNotFound,
			grpc: func(ctx context.Context) error {
				_, err := s.applications.GetApplication(ctx, &clipperv1.GetApplicationRequest{Application: unknown})
				return err
			},
			rest:   rest{method: http.MethodGet, url: applications + "/" + unknown},
			reason: clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, field: "application",
		},
		{
			name: "change of an application that is not there", code: codes.NotFound, http: http.StatusNotFound,
			grpc:   update(func(r *clipperv1.UpdateApplicationRequest) { r.Application.Name = unknown }),
			rest:   rest{method: http.MethodPatch, url: applications + "/" + unknown, body: `{"description": "changed"}`},
			reason: clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, field: "application",
		},
		{
			name: "change of what was changed", code: codes.Aborted, http: http.StatusConflict,
			grpc:   update(func(r *clipperv1.UpdateApplicationRequest) { r.Application.Etag = "stale" }),
			rest:   rest{method: http.MethodPatch, url: applications + "/" + name, body: `{"description": "changed", "etag": "stale"}`},
			reason: clipperv1.ErrorReason_ERROR_REASON_CONFLICT, field: "etag",
		},
		{
			name: "change of nothing", http: badRequest,
			rest:   rest{method: http.MethodPatch, url: applications + "/" + name, body: `{}`},
			reason: clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, field: "application",
		},
		{
			name: "change of a field that is not there", code: invalid,
			grpc:   update(func(r *clipperv1.UpdateApplicationRequest) { r.UpdateMask.Paths = []string{"colour"} }),
			reason: clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field: "update_mask",
		},
		{
			name: "removal of an application that is not there", code: codes.NotFound, http: http.StatusNotFound,
			grpc: func(ctx context.Context) error {
				_, err := s.applications.DeleteApplication(ctx, &clipperv1.DeleteApplicationRequest{Application: unknown})
				return err
			},
			rest:   rest{method: http.MethodDelete, url: applications + "/" + unknown},
			reason: clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, field: "application",
		},
		{
			name: "state of an application that is not there", code: codes.NotFound, http: http.StatusNotFound,
			grpc: func(ctx context.Context) error {
				_, err := s.applications.GetSelectionState(ctx, &clipperv1.GetSelectionStateRequest{Application: unknown})
				return err
			},
			rest:   rest{method: http.MethodGet, url: applications + "/" + unknown + "/state"},
			reason: clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, field: "application",
		},
		{
			name: "invented page", code: invalid, http: badRequest,
			grpc: func(ctx context.Context) error {
				_, err := s.applications.ListApplications(ctx, &clipperv1.ListApplicationsRequest{PageToken: "???"})
				return err
			},
			rest:   rest{method: http.MethodGet, url: applications + "?page_token=%3F%3F%3F"},
			reason: clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field: "page_token",
		},
		{
			name: "version exists", code: codes.AlreadyExists, http: http.StatusConflict,
			grpc: deploy(func(v *clipperv1.ModelVersion) { v.Model = name }),
			rest: post(models, `{"version": {"model": %q, "version": "1", "container": {"command": {"arguments": [%q]}}}}`,
				name, programs.container),
			reason: clipperv1.ErrorReason_ERROR_REASON_VERSION_EXISTS, field: "version.version",
		},
		{
			name: "no container", code: invalid, http: badRequest,
			grpc:   deploy(func(v *clipperv1.ModelVersion) { v.Container = nil }),
			rest:   post(models, `{"version": {"model": "new", "version": "1"}}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, field: "version.container",
		},
		{
			name: "no version", code: invalid, http: badRequest,
			grpc:   deploy(func(v *clipperv1.ModelVersion) { v.Version = "" }),
			rest:   post(models, `{"version": {"model": "new", "container": {"command": {"arguments": ["/bin/true"]}}}}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, field: "version.version",
		},
		{
			name: "variable of the server", code: invalid, http: badRequest,
			grpc: deploy(func(v *clipperv1.ModelVersion) {
				v.Container.Environment = map[string]string{"CLIPPER_CONTAINER_ADDRESS": "127.0.0.1:1"}
			}),
			rest: post(models, `{"version": {"model": "new", "version": "1",
				"container": {"command": {"arguments": ["/bin/true"]}, "environment": {"CLIPPER_X": "1"}}}}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field: "version.container.environment",
		},
		{
			name: "too many replicas", code: invalid, http: badRequest,
			grpc: deploy(func(v *clipperv1.ModelVersion) { v.Replicas = proto.Uint32(1000) }),
			rest: post(models, `{"version": {"model": "new", "version": "1", "replicas": 1000,
				"container": {"command": {"arguments": ["/bin/true"]}}}}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field: "version.replicas",
		},
		{
			name: "program that is not there", code: codes.FailedPrecondition, http: badRequest,
			grpc: deploy(func(v *clipperv1.ModelVersion) { v.Container.GetCommand().Arguments[0] = "/nothing/here" }),
			rest: post(models, `{"version": {"model": "new", "version": "1",
				"container": {"command": {"arguments": ["/nothing/here"]}}}}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_LAUNCH_FAILED, field: "version.container.command.arguments",
		},
		{
			name: "framework that is not installed", code: codes.FailedPrecondition, http: badRequest,
			grpc: deploy(func(v *clipperv1.ModelVersion) {
				v.Container.Source = &clipperv1.Container_Adapter{Adapter: &clipperv1.Adapter{Framework: "abacus", ModelPath: "/beads"}}
			}),
			rest: post(models, `{"version": {"model": "new", "version": "1",
				"container": {"adapter": {"framework": "abacus", "model_path": "/beads"}}}}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_LAUNCH_FAILED, field: "version.container.adapter.framework",
		},
		{
			name: "image that no engine takes", code: codes.FailedPrecondition, http: badRequest,
			grpc: deploy(func(v *clipperv1.ModelVersion) {
				v.Container.Source = &clipperv1.Container_Image{Image: &clipperv1.Image{Reference: "A Model"}}
			}),
			rest:   post(models, `{"version": {"model": "new", "version": "1", "container": {"image": {"reference": "A Model"}}}}`),
			reason: clipperv1.ErrorReason_ERROR_REASON_LAUNCH_FAILED, field: "version.container.image.reference",
		},
		{
			name: "model that is not there", code: codes.NotFound, http: http.StatusNotFound,
			grpc: func(ctx context.Context) error {
				_, err := s.models.GetModel(ctx, &clipperv1.GetModelRequest{Model: unknown})
				return err
			},
			rest:   rest{method: http.MethodGet, url: models + "/" + unknown},
			reason: clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND, field: "model",
		},
		{
			name: "version that is not there", code: codes.NotFound, http: http.StatusNotFound,
			grpc: func(ctx context.Context) error {
				_, err := s.models.GetModelVersion(ctx, &clipperv1.GetModelVersionRequest{Model: name, Version: "2"})
				return err
			},
			rest:   rest{method: http.MethodGet, url: models + "/" + name + "/versions/2"},
			reason: clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND, field: "version",
		},
		{
			name: "change of a version that is not there", code: codes.NotFound, http: http.StatusNotFound,
			grpc: func(ctx context.Context) error {
				_, err := s.models.UpdateModelVersion(ctx, &clipperv1.UpdateModelVersionRequest{Model: name, Version: "2", Replicas: proto.Uint32(2)})
				return err
			},
			rest:   rest{method: http.MethodPatch, url: models + "/" + name + "/versions/2", body: `{"replicas": 2}`},
			reason: clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND, field: "version",
		},
		{
			name: "switch to a version that is not there", code: codes.NotFound, http: http.StatusNotFound,
			grpc: func(ctx context.Context) error {
				_, err := s.models.SetCurrentVersion(ctx, &clipperv1.SetCurrentVersionRequest{Model: name, Version: "2"})
				return err
			},
			rest:   rest{method: http.MethodPut, url: models + "/" + name + "/current-version", body: `{"version": "2"}`},
			reason: clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND, field: "version",
		},
		{
			name: "removal of a version that is not there", code: codes.NotFound, http: http.StatusNotFound,
			grpc: func(ctx context.Context) error {
				_, err := s.models.DeleteModelVersion(ctx, &clipperv1.DeleteModelVersionRequest{Model: name, Version: "2"})
				return err
			},
			rest:   rest{method: http.MethodDelete, url: models + "/" + name + "/versions/2"},
			reason: clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND, field: "version",
		},
		{
			name: "removal of a model that is not there", code: codes.NotFound, http: http.StatusNotFound,
			grpc: func(ctx context.Context) error {
				_, err := s.models.DeleteModel(ctx, &clipperv1.DeleteModelRequest{Model: unknown})
				return err
			},
			rest:   rest{method: http.MethodDelete, url: models + "/" + unknown},
			reason: clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND, field: "model",
		},
	})
}
