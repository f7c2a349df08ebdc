// SPDX-License-Identifier: Apache-2.0

package frontend_test

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
)

func TestConditionalRequests(t *testing.T) {
	f := start(t, newSelector(digits()))
	conflict := apierror.New(codes.Aborted, clipperv1.ErrorReason_ERROR_REASON_CONFLICT, "etag", "it was changed")
	f.admin.handle = func(_ context.Context, request any) (any, error) {
		given := ""
		switch r := request.(type) {
		case *clipperv1.GetApplicationRequest:
			return &clipperv1.GetApplicationResponse{Application: &clipperv1.Application{Name: "a", Etag: "7"}}, nil
		case *clipperv1.UpdateApplicationRequest:
			given = r.Application.Etag
		case *clipperv1.DeleteApplicationRequest:
			given = r.Etag
		case *clipperv1.UpdateModelVersionRequest:
			given = r.Etag
		}
		if given != "" && given != "7" {
			return nil, conflict
		}
		switch request.(type) {
		case *clipperv1.UpdateApplicationRequest:
			return &clipperv1.UpdateApplicationResponse{Application: &clipperv1.Application{Etag: "8"}}, nil
		case *clipperv1.UpdateModelVersionRequest:
			return &clipperv1.UpdateModelVersionResponse{Version: &clipperv1.ModelVersion{Etag: "9"}}, nil
		case *clipperv1.DeleteApplicationRequest:
			return &clipperv1.DeleteApplicationResponse{}, nil
		}
		return nil, nil
	}
	const app, version, change = "/v1/applications/a", "/v1/models/m/versions/1", `{"description":"x"}`
	for _, tt := range []struct {
		name, method, path, body, header, value string
		status                                  int
		etag                                    string
	}{
		{"read", "GET", app, "", "If-None-Match", `"6"`, 200, `"7"`},
		{"as before", "GET", app, "", "If-None-Match", `W/"5", "7"`, 304, `"7"`},
		{"any", "GET", app, "", "If-None-Match", `*`, 304, `"7"`},
		{"change of what was seen", "PATCH", app, change, "If-Match", `"7"`, 200, `"8"`},
		{"change of something else", "PATCH", app, change, "If-Match", `"6"`, 412, ""},
		{"the body says which", "PATCH", app, `{"description":"x","etag":"6"}`, "If-Match", `*`, 409, ""},
		{"the header counts", "PATCH", app, `{"description":"x","etag":"6"}`, "If-Match", `"7"`, 200, `"8"`},
		{"weak", "PATCH", app, change, "If-Match", `W/"7"`, 400, ""},
		{"several", "PATCH", app, change, "If-Match", `"7", "8"`, 400, ""},
		{"empty", "PATCH", app, change, "If-Match", `""`, 400, ""},
		{"deletion", "DELETE", app, "", "If-Match", `"7"`, 200, ""},
		{"deletion of something else", "DELETE", app, "", "If-Match", `"6"`, 412, ""},
		{"version", "PATCH", version, `{"replicas":2}`, "If-Match", `"7"`, 200, `"9"`},
		{"version of before", "PATCH", version, `{"replicas":2}`, "If-Match", `"6"`, 412, ""},
		{"no etag there", "DELETE", "/v1/models/m", "", "If-Match", `"7"`, 400, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := call(f.adminAPI, tt.method, tt.path, tt.body, tt.header, tt.value)
			require.Equal(t, tt.status, w.Code, w.Body)
			require.Equal(t, tt.etag, w.Header().Get("ETag"))
			if tt.status == http.StatusNotModified {
				require.Zero(t, w.Body.Len())
				require.Empty(t, w.Header().Get("Content-Type"))
			}
			if tt.status >= 400 {
				var e problem
				require.NoError(t, json.Unmarshal(w.Body.Bytes(), &e))
				require.Equal(t, tt.status, e.Status)
			}
		})
	}
}
