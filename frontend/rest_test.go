// SPDX-License-Identifier: Apache-2.0

package frontend_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/clipper-serving/clipper/frontend"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/gen/openapi"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/tensor"
)

func TestREST_requests(t *testing.T) {
	f := start(t, newSelector(digits()))
	const path = "/v1/applications/digits/query"
	good := `{"input":[1,2]}`
	for _, tt := range []struct {
		name, method, path, body string
		header                   []string
		status                   int
		reason                   string
	}{
		{"no content type", "POST", path, good, nil, 200, ""},
		{"JSON", "POST", path, good, []string{"Content-Type", "application/json; charset=utf-8"}, 200, ""},
		{"form, as curl says", "POST", path, good, []string{"Content-Type", "application/x-www-form-urlencoded"}, 200, ""},
		{"any other", "POST", path, good, []string{"Content-Type", "text/plain", "Accept", "text/html"}, 200, ""},
		{"method override is not followed", "POST", path, good, []string{"Content-Type", "application/x-www-form-urlencoded", "X-HTTP-Method-Override", "GET"}, 200, ""},
		{"no body", "POST", path, "", nil, 400, "MALFORMED_JSON"},
		{"form without a body", "POST", path, "", []string{"Content-Type", "application/x-www-form-urlencoded"}, 400, "MALFORMED_JSON"},
		{"unknown path", "POST", "/v2/query", good, nil, 404, "UNKNOWN_METHOD"},
		{"wrong method", "GET", path, "", nil, 405, "UNKNOWN_METHOD"},
		{"administration is elsewhere", "GET", "/v1/models", "", nil, 404, "UNKNOWN_METHOD"},
		{"long name", "POST", "/v1/applications/" + strings.Repeat("x", 5000) + "/query", good, nil, 404, "APPLICATION_NOT_FOUND"},
		{"escaped name", "POST", "/v1/applications/%22%3Cscript%3E/query", good, nil, 404, "APPLICATION_NOT_FOUND"},
		{"name not UTF-8", "POST", "/v1/applications/%ff/query", good, nil, 404, "APPLICATION_NOT_FOUND"},
		{"declared too long", "POST", path, strings.Repeat(" ", 70<<10), nil, 413, "TOO_LARGE"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := call(f.query, tt.method, tt.path, tt.body, tt.header...)
			require.Equal(t, tt.status, w.Code, w.Body)
			contentType := "application/json"
			if tt.reason != "" {
				contentType = "application/problem+json"
			}
			require.Equal(t, contentType, w.Header().Get("Content-Type"))
			require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
			require.True(t, json.Valid(w.Body.Bytes()))
			require.Less(t, w.Body.Len(), 500)
			if tt.reason != "" {
				require.Contains(t, w.Body.String(), `"reason":"`+tt.reason+`"`)
			}
		})
	}
}

// The limits of a body hold on a real connection, whatever the client declares.
func TestREST_body(t *testing.T) {
	f := start(t, newSelector(digits()), func(c *frontend.Config) { c.BodyTimeout = 50 * time.Millisecond })
	server := httptest.NewServer(f.query)
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
	const head = "POST /v1/applications/digits/query HTTP/1.1\r\nHost: x\r\n"
	code, _, body := send(head + "Content-Length: 15\r\n\r\n{\"input\":[1,2]}")
	require.Equal(t, http.StatusOK, code, body)
	code, _, body = send(head + "Transfer-Encoding: chunked\r\n\r\nf\r\n{\"input\":[1,2]}\r\n0\r\n\r\n")
	require.Equal(t, http.StatusOK, code, body)
	code, _, body = send(head + "Content-Length: 999999999999\r\n\r\n{")
	require.Equal(t, http.StatusRequestEntityTooLarge, code, body)
	require.Contains(t, body, "TOO_LARGE")
	code, _, body = send(head + "Transfer-Encoding: chunked\r\n\r\n11000\r\n" + strings.Repeat(" ", 0x11000) + "\r\n")
	require.Equal(t, http.StatusRequestEntityTooLarge, code, body)
	code, closed, body := send(head + "Content-Length: 15\r\n\r\n{\"input\"")
	require.Equal(t, http.StatusBadRequest, code, body)
	require.Contains(t, body, "did not arrive whole")
	require.True(t, closed)
}

// A connection is used again after a query: the body's deadline is taken back.
func TestREST_keepAlive(t *testing.T) {
	f := start(t, newSelector(digits()), func(c *frontend.Config) { c.BodyTimeout = 300 * time.Millisecond })
	server := httptest.NewServer(f.query)
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	reader := bufio.NewReader(conn)
	for i := range 3 {
		if i == 2 {
			<-time.After(400 * time.Millisecond) // Longer than the deadline was.
		}
		_, err = io.WriteString(conn, "POST /v1/applications/digits/query HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\n\r\n{\"input\":[1,2]}")
		require.NoError(t, err)
		res, err := http.ReadResponse(reader, nil)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusOK, res.StatusCode)
	}
}

func TestREST_retryAfter(t *testing.T) {
	f := start(t, newSelector(digits()))
	f.admin.handle = func(context.Context, any) (any, error) {
		return nil, apierror.Overloaded(1500*time.Millisecond, "the queue is full")
	}
	w := call(f.adminAPI, "GET", "/v1/models/svm", "")
	require.Equal(t, http.StatusTooManyRequests, w.Code)
	require.Equal(t, "2", w.Header().Get("Retry-After"))
	require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
	require.JSONEq(t, `{"type":"urn:clipper:error:OVERLOADED","title":"There is too much load","status":429,"detail":"the queue is full","code":"RESOURCE_EXHAUSTED","reason":"OVERLOADED","retry_after_ms":1500}`, w.Body.String())

	f.admin.handle = func(context.Context, any) (any, error) { return nil, status.Error(codes.Canceled, "gone") }
	w = call(f.adminAPI, "GET", "/v1/models/svm", "")
	require.JSONEq(t, `{"type":"about:blank","title":"The caller has left","status":499,"detail":"gone","code":"CANCELLED"}`, w.Body.String())
}

// An application that refuses under overload says so, and when to try again; others give their default.
func TestREST_refusesOverload(t *testing.T) {
	refusing := digits()
	refusing.Name, refusing.RefuseOverload = "refusing", true
	selector := newSelector(digits(), refusing)
	overloaded := func(after time.Duration) *clipperv1.ModelPrediction {
		return &clipperv1.ModelPrediction{Status: clipperv1.PredictionStatus_PREDICTION_STATUS_OVERLOADED, RetryAfter: durationpb.New(after)}
	}
	response := &clipperv1.QueryResponse{
		IsDefault: true, DefaultReason: clipperv1.DefaultReason_DEFAULT_REASON_OVERLOADED,
		Predictions: []*clipperv1.ModelPrediction{overloaded(4 * time.Second), overloaded(1200 * time.Millisecond)},
	}
	var fail error
	selector.query = func(context.Context, string, string, *tensor.Input) (*clipperv1.QueryResponse, error) {
		return response, fail
	}
	f := start(t, selector)
	ask := func(app string) *httptest.ResponseRecorder {
		return call(f.query, "POST", "/v1/applications/"+app+"/query", `{"input":[1,2]}`)
	}
	require.Equal(t, http.StatusOK, ask("digits").Code)
	w := ask("refusing")
	require.Equal(t, http.StatusTooManyRequests, w.Code, w.Body)
	require.Equal(t, "2", w.Header().Get("Retry-After"))
	require.Contains(t, w.Body.String(), `"retry_after_ms":1200`)

	response.Predictions = nil // Nobody says when.
	require.Contains(t, ask("refusing").Body.String(), `"retry_after_ms":100`)
	response, fail = nil, apierror.Overloaded(3*time.Second, "too many calls wait")
	require.Equal(t, "3", ask("refusing").Header().Get("Retry-After"))
	response, fail = &clipperv1.QueryResponse{IsDefault: true, DefaultReason: clipperv1.DefaultReason_DEFAULT_REASON_DEADLINE}, nil
	require.Equal(t, http.StatusOK, ask("refusing").Code, "late is not overloaded")
}

// Every administrative call of the description arrives at its service with what the request says.
func TestAdmin_requests(t *testing.T) {
	f := start(t, newSelector(digits()))
	var got any
	f.admin.handle = func(_ context.Context, req any) (any, error) {
		got = req
		return nil, status.Error(codes.Aborted, "enough")
	}
	one := uint32(2)
	for _, tt := range []struct {
		method, path, body string
		want               any
	}{
		{"POST", "/v1/applications", `{"name":"a","latency_objective":"0.05s","default_output":[0.5,0.5],"models":[{"model":"m","weight":2}]}`, &clipperv1.CreateApplicationRequest{Application: &clipperv1.Application{
			Name: "a", LatencyObjective: durationpb.New(50 * time.Millisecond), Models: []*clipperv1.ApplicationModel{{Model: "m", Weight: 2}},
			DefaultOutput: structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewNumberValue(.5), structpb.NewNumberValue(.5)}}),
		}}},
		{"GET", "/v1/applications?page_size=5&page_token=x", "", &clipperv1.ListApplicationsRequest{PageSize: 5, PageToken: "x"}},
		{"GET", "/v1/applications/a", "", &clipperv1.GetApplicationRequest{Application: "a"}},
		{"DELETE", "/v1/applications/a?etag=7", "", &clipperv1.DeleteApplicationRequest{Application: "a", Etag: "7"}},
		{"GET", "/v1/applications/a/state?context=ada", "", &clipperv1.GetSelectionStateRequest{Application: "a", Context: "ada"}},
		{"GET", "/v1/applications/a/explain?context=ada&decisions=3", "", &clipperv1.ExplainSelectionRequest{Application: "a", Context: "ada", Decisions: 3}},
		{"GET", "/v1/applications/a/canary", "", &clipperv1.GetCanaryRequest{Application: "a"}},
		{"GET", "/v1/applications/a/correlations", "", &clipperv1.GetModelCorrelationsRequest{Application: "a"}},
		{"PATCH", "/v1/applications/a", `{"etag":"7","confidence_threshold":0,"policy":{"name":"exp3"},"latencyObjective":"1s"}`, &clipperv1.UpdateApplicationRequest{
			Application: &clipperv1.Application{Name: "a", Etag: "7", Policy: &clipperv1.Policy{Name: "exp3"}, LatencyObjective: durationpb.New(time.Second)},
			UpdateMask:  &fieldmaskpb.FieldMask{Paths: []string{"confidence_threshold", "policy", "latency_objective"}},
		}},
		{"POST", "/v1/models", `{"version":{"model":"m","version":"1","container":{"command":{"arguments":["x"]}},"replicas":2},"keep_current":true}`, &clipperv1.DeployModelRequest{
			Version: &clipperv1.ModelVersion{Model: "m", Version: "1", Replicas: &one, Container: &clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: []string{"x"}}}}}, KeepCurrent: true,
		}},
		{"GET", "/v1/models", "", &clipperv1.ListModelsRequest{}},
		{"GET", "/v1/model-repository", "", &clipperv1.GetModelRepositoryRequest{}},
		{"GET", "/v1/models/m", "", &clipperv1.GetModelRequest{Model: "m"}},
		{"DELETE", "/v1/models/m", "", &clipperv1.DeleteModelRequest{Model: "m"}},
		{"PUT", "/v1/models/m/current-version", `{"version":"2"}`, &clipperv1.SetCurrentVersionRequest{Model: "m", Version: "2"}},
		{"GET", "/v1/models/m/versions/1.0", "", &clipperv1.GetModelVersionRequest{Model: "m", Version: "1.0"}},
		{"PATCH", "/v1/models/m/versions/1", `{"replicas":2}`, &clipperv1.UpdateModelVersionRequest{Model: "m", Version: "1", Replicas: &one}},
		{"DELETE", "/v1/models/m/versions/1", "", &clipperv1.DeleteModelVersionRequest{Model: "m", Version: "1"}},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			got = nil
			w := call(f.adminAPI, tt.method, tt.path, tt.body, "Content-Type", "application/x-www-form-urlencoded")
			require.Equal(t, http.StatusConflict, w.Code, w.Body)
			require.Contains(t, w.Body.String(), `"code":"ABORTED"`)
			require.Contains(t, w.Body.String(), `"reason":"CONFLICT"`)
			require.Empty(t, cmp.Diff(tt.want, got, protocmp.Transform()))
			// An answer is JSON with every field that can be empty.
			f.admin.handle = nil
			w = call(f.adminAPI, tt.method, tt.path, tt.body)
			require.Equal(t, http.StatusOK, w.Code, w.Body)
			require.True(t, json.Valid(w.Body.Bytes()))
			require.NotContains(t, w.Body.String(), " ")
			f.admin.handle = func(_ context.Context, req any) (any, error) {
				got = req
				return nil, status.Error(codes.Aborted, "enough")
			}
		})
	}
}

func TestAdmin_badBodies(t *testing.T) {
	f := start(t, newSelector(digits()))
	for _, tt := range []struct {
		name, method, path, body string
		reason, field            string
	}{
		{"empty", "POST", "/v1/applications", "", "MALFORMED_JSON", ""},
		{"syntax", "POST", "/v1/applications", "{", "MALFORMED_JSON", ""},
		{"unknown field", "POST", "/v1/applications", `{"title":"x"}`, "MALFORMED_JSON", "title"},
		{"repeated field", "POST", "/v1/applications", `{"name":"x","name":"y"}`, "MALFORMED_JSON", "name"},
		{"wrong type", "POST", "/v1/applications", `{"confidence_threshold":"much"}`, "INVALID_FIELD", "confidence_threshold"},
		{"bad duration", "POST", "/v1/applications", `{"latency_objective":"soon"}`, "INVALID_FIELD", ""},
		{"two of which one may be", "POST", "/v1/models", `{"version":{"container":{"adapter":{},"image":{}}}}`, "INVALID_FIELD", "image"},
		{"unknown enum", "POST", "/v1/applications", `{"output":{"kind":"OUTPUT_KIND_X"}}`, "INVALID_FIELD", "kind"},
		{"nothing to change", "PATCH", "/v1/applications/a", `{"etag":"1"}`, "MISSING_FIELD", "application"},
		{"empty change", "PATCH", "/v1/applications/a", ``, "MALFORMED_JSON", ""},
		{"unknown change", "PATCH", "/v1/applications/a", `{"x":1}`, "MALFORMED_JSON", "x"},
		{"not an object", "PUT", "/v1/models/m/current-version", `[]`, "MALFORMED_JSON", ""},
		{"bad page size", "GET", "/v1/models?page_size=-1", ``, "INVALID_FIELD", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := call(f.adminAPI, tt.method, tt.path, tt.body)
			require.Equal(t, http.StatusBadRequest, w.Code, w.Body)
			var e problem
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &e))
			require.Equal(t, tt.reason, e.Reason, w.Body)
			require.Equal(t, tt.field, e.Field, w.Body)
			require.NotContains(t, e.Detail, "proto:")
			require.NotContains(t, e.Detail, "rpc error")
		})
	}
}

// Deadline and metadata go through, and an error keeps its details.
func TestAdmin_forwards(t *testing.T) {
	f := start(t, newSelector(digits()))
	deadline := time.Now().Add(time.Hour)
	f.admin.handle = func(ctx context.Context, _ any) (any, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		if d, _ := ctx.Deadline(); !d.Equal(deadline) || len(md.Get("who")) != 1 {
			return nil, fmt.Errorf("deadline %v, metadata %v", d, md)
		}
		return nil, apierror.New(codes.AlreadyExists, clipperv1.ErrorReason_ERROR_REASON_VERSION_EXISTS, "version.version", "exists")
	}
	ctx, cancel := context.WithDeadline(metadata.AppendToOutgoingContext(t.Context(), "who", "ada"), deadline)
	defer cancel()
	_, err := clipperv1.NewModelServiceClient(f.conn).DeployModel(ctx, &clipperv1.DeployModelRequest{})
	require.Equal(t, codes.AlreadyExists, status.Code(err))
	require.Equal(t, "version.version", apierror.ToProto(err).GetField())
	w := call(f.adminAPI, "POST", "/v1/models", `{}`)
	require.Equal(t, http.StatusInternalServerError, w.Code, "the fake refuses a call without the deadline")

	f.admin.handle = func(context.Context, any) (any, error) {
		return nil, status.Error(codes.Unavailable, "connection error: dial tcp 10.0.0.7:1367: refused")
	}
	for path, service := range map[string]string{"/v1/models": "abstraction", "/v1/applications": "selector"} {
		w := call(f.adminAPI, "GET", path, "")
		require.Equal(t, http.StatusServiceUnavailable, w.Code)
		require.Contains(t, w.Body.String(), "the "+service+" cannot be reached now")
		require.Contains(t, w.Body.String(), `"reason":"UNAVAILABLE"`)
		require.NotContains(t, w.Body.String(), "10.0.0.7")
	}
}

// A change of an application is known to the frontend that made it when the call returns.
func TestAdmin_readYourWrites(t *testing.T) {
	selector := newSelector(digits())
	f := start(t, selector)
	second := digits()
	second.Name = "second"
	changed := digits()
	changed.Name, changed.Etag, changed.DefaultOutput = "second", "2", structpb.NewNumberValue(5)
	f.admin.handle = func(_ context.Context, req any) (any, error) {
		switch req.(type) {
		case *clipperv1.CreateApplicationRequest:
			time.AfterFunc(20*time.Millisecond, func() { selector.set(digits(), second) })
			return &clipperv1.CreateApplicationResponse{Application: second}, nil
		case *clipperv1.UpdateApplicationRequest:
			time.AfterFunc(20*time.Millisecond, func() { selector.set(digits(), changed) })
			return &clipperv1.UpdateApplicationResponse{Application: changed}, nil
		case *clipperv1.DeleteApplicationRequest:
			time.AfterFunc(20*time.Millisecond, func() { selector.set(digits()) })
			return &clipperv1.DeleteApplicationResponse{}, nil
		}
		return nil, errors.New("unexpected")
	}
	selector.query = nil
	query := func() (int, string) {
		w := call(f.query, "POST", "/v1/applications/second/query", `{"input":[1,2],"timeout":"0.000000001s"}`)
		return w.Code, w.Body.String()
	}
	code, _ := query()
	require.Equal(t, http.StatusNotFound, code)
	w := call(f.adminAPI, "POST", "/v1/applications", `{"name":"second"}`)
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	code, body := query()
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, body, `"output":-1`)
	w = call(f.adminAPI, "PATCH", "/v1/applications/second", `{"default_output":5}`)
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	_, body = query()
	require.Contains(t, body, `"output":5`)
	w = call(f.adminAPI, "DELETE", "/v1/applications/second", ``)
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	code, _ = query()
	require.Equal(t, http.StatusNotFound, code)
}

// The description is true: what it names exists, and what is answered is described.
func TestOpenAPI(t *testing.T) {
	type schema struct {
		Ref        string `json:"$ref"`
		Properties map[string]json.RawMessage
		Enum       []string
	}
	type parameter struct{ Name, In string }
	type message struct {
		Content map[string]struct{ Schema schema }
	}
	var spec struct {
		Paths map[string]map[string]struct {
			OperationID string
			Parameters  []parameter
			RequestBody message
			Responses   map[string]message
		}
		Components struct{ Schemas map[string]schema }
	}
	require.NoError(t, json.Unmarshal(openapi.Spec, &spec))
	f := start(t, newSelector(digits()))
	f.admin.handle = func(context.Context, any) (any, error) {
		return nil, status.Error(codes.Aborted, "reached")
	}
	resolve := func(s schema) schema {
		if s.Ref != "" {
			return spec.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
		}
		return s
	}
	total := 0
	for _, listener := range []http.Handler{f.query, f.adminAPI} {
		w := call(listener, "GET", "/openapi.json", "")
		require.Equal(t, http.StatusOK, w.Code)
		require.Equal(t, "application/json", w.Header().Get("Content-Type"))
		own := spec
		own.Paths = nil
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &own))
		for path, methods := range own.Paths {
			for method, operation := range methods {
				total++
				for _, p := range operation.Parameters {
					if p.In == "path" {
						require.Contains(t, path, "{"+p.Name+"}")
					}
				}
				// Each key that the description names is one that the server knows.
				for key := range resolve(operation.RequestBody.Content["application/json"].Schema).Properties {
					w := call(listener, strings.ToUpper(method), strings.NewReplacer("{", "", "}", "").Replace(path), `{"`+key+`":null}`)
					require.NotContains(t, w.Body.String(), "unknown", "%s of %s", key, path)
				}
				require.Contains(t, operation.Responses["default"].Content, "application/problem+json", path)
				w := call(listener, strings.ToUpper(method), strings.NewReplacer("{", "", "}", "").Replace(path), "")
				require.NotContains(t, w.Body.String(), "UNKNOWN_METHOD", path)
			}
		}
	}
	require.Equal(t, 33, total, "every operation is on one of the listeners")

	keys := func(raw []byte) []string {
		var m map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(raw, &m))
		var keys []string
		for k := range m {
			keys = append(keys, k)
		}
		return keys
	}
	f.selector.query = nil
	w := call(f.query, "POST", "/v1/applications/digits/query", `{"input":[1,2],"id":"x"}`)
	for _, k := range keys(w.Body.Bytes()) {
		require.Contains(t, spec.Components.Schemas["QueryResponse"].Properties, k)
	}
	w = call(f.query, "POST", "/v1/applications/nope/query", `{"input":[1,2]}`)
	for _, k := range keys(w.Body.Bytes()) {
		require.Contains(t, spec.Components.Schemas["Error"].Properties, k)
	}
	for _, name := range spec.Components.Schemas["ErrorReason"].Enum {
		require.Contains(t, clipperv1.ErrorReason_value, "ERROR_REASON_"+name)
	}
	require.Len(t, spec.Components.Schemas["ErrorReason"].Enum, len(clipperv1.ErrorReason_value)-1)
}

func TestDocs(t *testing.T) {
	f := start(t, newSelector(digits()))
	for _, h := range []http.Handler{f.query, f.adminAPI} {
		for path, contentType := range map[string]string{
			"/docs/": "text/html; charset=utf-8", "/docs/explorer.js": "text/javascript; charset=utf-8", "/docs/style.css": "text/css; charset=utf-8", "/docs/icon.svg": "image/svg+xml",
		} {
			w := call(h, "GET", path, "")
			require.Equal(t, http.StatusOK, w.Code, path)
			require.Equal(t, contentType, w.Header().Get("Content-Type"))
			require.Contains(t, w.Header().Get("Content-Security-Policy"), "default-src 'none'")
			require.NotContains(t, w.Header().Get("Content-Security-Policy"), "unsafe")
			require.NotContains(t, strings.ReplaceAll(w.Body.String(), "http://www.w3.org/2000/svg", ""), "://", "%s loads something from elsewhere", path)
		}
		for _, path := range []string{"/", "/docs"} {
			w := call(h, "GET", path, "")
			require.Equal(t, http.StatusFound, w.Code)
			require.Equal(t, "/docs/", w.Header().Get("Location"))
		}
		require.Equal(t, http.StatusMethodNotAllowed, call(h, "POST", "/docs/", "").Code)
		require.Equal(t, http.StatusNotFound, call(h, "GET", "/docs/../frontend.go", "").Code)
	}
}

// Every reason that a program can meet is explained.
func TestErrorReasons_documented(t *testing.T) {
	text, err := os.ReadFile("../docs/errors.md")
	require.NoError(t, err)
	for name, number := range clipperv1.ErrorReason_value {
		if number != 0 {
			require.Contains(t, string(text), "| `"+strings.TrimPrefix(name, "ERROR_REASON_")+"` |")
		}
	}
}

// OPTIONS says what a path has, and so does the answer to a method that it has not.
func TestREST_options(t *testing.T) {
	f := start(t, newSelector(digits()))
	for _, tt := range []struct {
		handler http.Handler
		path    string
		allow   string
	}{
		{f.query, "/v1/applications/digits/query", "POST, OPTIONS"},
		{f.query, "/v1/applications/%E5%90%8D%25/query", "POST, OPTIONS"},
		{f.adminAPI, "/v1/applications/digits", "DELETE, GET, PATCH, OPTIONS"},
		{f.adminAPI, "/v1/models/m/versions/1/logs", "GET, OPTIONS"},
		{f.adminAPI, "/v1/nothing", ""},
	} {
		w := call(tt.handler, http.MethodOptions, tt.path, "")
		require.Equal(t, tt.allow, w.Header().Get("Allow"), tt.path)
		if tt.allow == "" {
			require.Equal(t, http.StatusNotFound, w.Code)
			continue
		}
		require.Equal(t, http.StatusNoContent, w.Code, w.Body)
		require.Empty(t, w.Body.String())
		w = call(tt.handler, "BREW", tt.path, "")
		require.Equal(t, http.StatusMethodNotAllowed, w.Code, w.Body)
		require.Equal(t, tt.allow, w.Header().Get("Allow"))
	}
}

// A web page elsewhere can send what a browser does not ask about first; it must not have an effect.
func TestREST_origins(t *testing.T) {
	f := start(t, newSelector(digits()), func(c *frontend.Config) { c.QueryOrigins = []string{"https://app.example.com"} })
	const path, body = "/v1/applications/digits/query", `{"input":[1,2]}`
	w := call(f.query, "POST", path, body, "Origin", "https://app.example.com", "Content-Type", "text/plain")
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	require.Equal(t, "https://app.example.com", w.Header().Get("Access-Control-Allow-Origin"))
	require.Equal(t, []string{"Origin", "Accept-Encoding"}, w.Header()["Vary"])
	w = call(f.query, "POST", path, body, "Origin", "https://evil.example")
	require.Equal(t, http.StatusForbidden, w.Code)
	require.Contains(t, w.Body.String(), "web pages of https://evil.example may not call this")
	require.Empty(t, w.Header().Get("Access-Control-Allow-Origin"))
	called := false
	f.admin.handle = func(context.Context, any) (any, error) {
		called = true
		return nil, status.Error(codes.Aborted, "reached")
	}
	w = call(f.adminAPI, "POST", "/v1/models", `{"version":{"model":"m","version":"1"}}`, "Origin", "https://app.example.com", "Content-Type", "text/plain")
	require.Equal(t, http.StatusForbidden, w.Code)
	require.False(t, called)
	cfg := testConfig()
	cfg.AdminOrigins = []string{"app.example.com"}
	require.ErrorContains(t, cfg.Validate(), `origin "app.example.com": want`)
}
