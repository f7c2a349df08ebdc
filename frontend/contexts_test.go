// SPDX-License-Identifier: Apache-2.0

package frontend_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
)

func (f *fakeAdmin) ListContexts(ctx context.Context, r *clipperv1.ListContextsRequest) (*clipperv1.ListContextsResponse, error) {
	return handled[clipperv1.ListContextsResponse](ctx, f, r)
}

func (f *fakeAdmin) ResetSelectionState(ctx context.Context, r *clipperv1.ResetSelectionStateRequest) (*clipperv1.ResetSelectionStateResponse, error) {
	return handled[clipperv1.ResetSelectionStateResponse](ctx, f, r)
}

// ExportSelectionState sends what handle returns, a list, and then fails if it returns an error besides.
func (f *fakeAdmin) ExportSelectionState(r *clipperv1.ExportSelectionStateRequest, stream grpc.ServerStreamingServer[clipperv1.ExportSelectionStateResponse]) error {
	if f.handle == nil {
		return nil
	}
	states, err := f.handle(stream.Context(), r)
	list, _ := states.([]*clipperv1.ExportSelectionStateResponse)
	for _, s := range list {
		if err := stream.Send(s); err != nil {
			return err
		}
	}
	return err
}

func TestContexts_requests(t *testing.T) {
	f := start(t, newSelector(digits()))
	for _, tt := range []struct {
		method, path string
		want         any
	}{
		{"GET", "/v1/applications/a/contexts?prefix=user-&page_size=5&page_token=x", &clipperv1.ListContextsRequest{Application: "a", Prefix: "user-", PageSize: 5, PageToken: "x"}},
		{"DELETE", "/v1/applications/a/state?context=ada", &clipperv1.ResetSelectionStateRequest{Application: "a", Context: "ada"}},
		{"DELETE", "/v1/applications/a/state", &clipperv1.ResetSelectionStateRequest{Application: "a"}},
		{"GET", "/v1/applications/a/export?context=ada", &clipperv1.ExportSelectionStateRequest{Application: "a", Context: "ada"}},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			var got any
			f.admin.handle = func(_ context.Context, req any) (any, error) {
				got = req
				return nil, apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_CONTEXT_NOT_FOUND, "context", "no such context")
			}
			w := call(f.adminAPI, tt.method, tt.path, "")
			require.Equal(t, http.StatusNotFound, w.Code)
			require.JSONEq(t, `{"type":"urn:clipper:error:CONTEXT_NOT_FOUND","title":"The context has no state of its own","status":404,"detail":"no such context","code":"NOT_FOUND","reason":"CONTEXT_NOT_FOUND","field":"context"}`, w.Body.String())
			require.Empty(t, cmp.Diff(tt.want, got, protocmp.Transform()))
		})
	}
}

func TestExport_stream(t *testing.T) {
	f := start(t, newSelector(digits()))
	states := []*clipperv1.ExportSelectionStateResponse{
		{State: &clipperv1.GetSelectionStateResponse{Policy: "exp4", Observations: 3}},
		{Context: "ada", State: &clipperv1.GetSelectionStateResponse{Policy: "exp4", Models: []*clipperv1.ModelSelectionState{{Model: "m", Weight: 1}}}},
	}
	var failure error
	f.admin.handle = func(context.Context, any) (any, error) { return states, failure }

	w := call(f.adminAPI, "GET", "/v1/applications/a/export", "")
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, "application/x-ndjson", w.Header().Get("Content-Type"))
	lines := strings.SplitAfter(w.Body.String(), "\n")
	require.Len(t, lines, 3)
	require.JSONEq(t, `{"result":{"context":"","state":{"policy":"exp4","observations":3,"models":[]}}}`, lines[0])
	require.JSONEq(t, `{"result":{"context":"ada","state":{"policy":"exp4","observations":0,"models":[{"model":"m","weight":1,"probability":0,"statistics":{}}]}}}`, lines[1])
	require.Empty(t, lines[2])

	// What has been sent cannot be taken back: a failure is the last line.
	failure = apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, "", "try again")
	w = call(f.adminAPI, "GET", "/v1/applications/a/export", "")
	require.Equal(t, http.StatusOK, w.Code)
	lines = strings.Split(strings.TrimSpace(w.Body.String()), "\n")
	require.Len(t, lines, 3)
	require.JSONEq(t, `{"error":{"type":"urn:clipper:error:STORE_UNAVAILABLE","title":"The store cannot be reached","status":503,"detail":"try again","code":"UNAVAILABLE","reason":"STORE_UNAVAILABLE"}}`, lines[2])

	states, failure = nil, status.Error(codes.Unavailable, "dial tcp 10.0.0.7: refused")
	w = call(f.adminAPI, "GET", "/v1/applications/a/export", "")
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	var e problem
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &e))
	require.Equal(t, "the selector cannot be reached now: try again", e.Detail)
}
