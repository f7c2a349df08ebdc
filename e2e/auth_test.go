// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
)

// TestAuthentication runs an installation that requires credentials: administration with the first key, a
// key that is made, limited, rotated and revoked, over gRPC and REST. Every instance refuses a revoked key.
func TestAuthentication(t *testing.T) {
	for _, f := range []form{one, three} {
		t.Run(string(f), func(t *testing.T) { testAuthentication(t, f) })
	}
}

func testAuthentication(t *testing.T, f form) {
	const adminKey = "0123456789abcdef0123456789abcdef"
	dir := t.TempDir()
	keyFile, auditFile := filepath.Join(dir, "admin.key"), filepath.Join(dir, "audit.log")
	require.NoError(t, os.WriteFile(keyFile, []byte(adminKey+"\n"), 0o600))
	s := install(t, f, embedded)
	edge, prefix := all, "--frontend-"
	if f == three {
		edge, prefix = frontend, "--"
	}
	s.settings[edge] = append(s.settings[edge], prefix+"auth-admin-key-file="+keyFile, prefix+"audit-log="+auditFile, "--log-level=debug")
	for _, name := range s.services {
		s.start(t, name)
	}
	for _, name := range s.services {
		s.awaitReady(t, name)
	}
	with := func(secret string) context.Context {
		return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+secret)
	}
	clipper := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(programs.clipper, args...)
		cmd.Env = append(os.Environ(), "CLIPPER_API_KEY_FILE="+keyFile, "CLIPPER_ADMIN_ADDRESS="+s.adminConn.Target())
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		require.NoError(t, err, stderr.String())
		return strings.TrimSpace(string(out))
	}

	_, err := s.applications.ListApplications(t.Context(), &clipperv1.ListApplicationsRequest{})
	require.Equal(t, codes.Unauthenticated, status.Code(err))
	v := version("auth-model", "1", nil)
	_, err = s.models.DeployModel(t.Context(), &clipperv1.DeployModelRequest{Version: v})
	require.Equal(t, codes.Unauthenticated, status.Code(err))
	_, err = s.models.DeployModel(with(adminKey), &clipperv1.DeployModelRequest{Version: v})
	require.NoError(t, err)
	require.EventuallyWithT(t, func(c *assertCollect) {
		got, err := s.models.GetModelVersion(with(adminKey), &clipperv1.GetModelVersionRequest{Model: "auth-model", Version: "1"})
		require.NoError(c, err)
		require.Equal(c, clipperv1.ModelState_MODEL_STATE_READY, got.GetVersion().GetState())
	}, patience, poll)
	for _, app := range []string{"mine", "other"} {
		clipper("app", "create", app, "--models=auth-model", "--default=-1", "--slo=10s")
	}

	secret := clipper("key", "create", "shop", "--role=query", "--app=mine", "--rate-limit=0.001", "--rate-burst=3")
	require.Regexp(t, `^clp_[a-z2-7]{12}_[A-Za-z0-9_-]{43}$`, secret)
	id := strings.Split(secret, "_")[1]
	ask := func(secret, app string) error {
		_, err := s.queries.Query(with(secret), &clipperv1.QueryRequest{Application: app, Inputs: input(1, 2)})
		return err
	}
	rest := func(secret, app string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.queryURL+"/v1/applications/"+app+"/query", strings.NewReader(`{"input":[1,2]}`))
		require.NoError(t, err)
		r.Header.Set("X-Api-Key", secret)
		res, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		if res.StatusCode == http.StatusTooManyRequests {
			require.NotEmpty(t, res.Header.Get("Retry-After"))
		}
		return res.StatusCode, string(body)
	}
	require.NoError(t, ask(secret, "mine"))
	code, body := rest(secret, "mine")
	require.Equal(t, http.StatusOK, code, body)
	require.Equal(t, codes.PermissionDenied, status.Code(ask(secret, "other")))
	code, body = rest(secret, "other")
	require.Equal(t, http.StatusForbidden, code, body)
	code, body = rest("wrong", "mine")
	require.Equal(t, http.StatusUnauthorized, code, body)
	_, err = s.feedback.Feedback(with(secret), &clipperv1.FeedbackRequest{Application: "mine"})
	require.Equal(t, codes.PermissionDenied, status.Code(err))

	// The limit is one, over whatever protocol.
	require.NoError(t, ask(secret, "mine"))
	require.Equal(t, clipperv1.ErrorReason_ERROR_REASON_RATE_LIMITED, apierror.Reason(ask(secret, "mine")))
	code, body = rest(secret, "mine")
	require.Equal(t, http.StatusTooManyRequests, code)
	require.Contains(t, body, "RATE_LIMITED")

	// An application's limit holds for all callers, the admin too.
	clipper("app", "update", "other", "--rate-limit=0.001")
	require.NoError(t, ask(adminKey, "other"))
	require.Equal(t, clipperv1.ErrorReason_ERROR_REASON_RATE_LIMITED, apierror.Reason(ask(adminKey, "other")))

	second := clipper("key", "rotate", id)
	require.Equal(t, codes.Unauthenticated, status.Code(ask(secret, "mine")))
	require.Equal(t, clipperv1.ErrorReason_ERROR_REASON_RATE_LIMITED, apierror.Reason(ask(second, "mine")), "rotation gives no second burst")
	require.Contains(t, clipper("key", "list"), "shop")
	clipper("key", "revoke", id)
	require.Equal(t, codes.Unauthenticated, status.Code(ask(second, "mine")))
	require.NotContains(t, clipper("key", "list"), "shop")

	// Keys survive the processes.
	kept := clipper("key", "create", "kept", "--role=query", "--app=mine")
	for _, name := range s.services {
		s.kill(t, name)
		s.start(t, name)
	}
	require.EventuallyWithT(t, func(c *assertCollect) { require.NoError(c, ask(kept, "mine")) }, patience, poll)

	text, err := os.ReadFile(auditFile)
	require.NoError(t, err)
	var methods []string
	for line := range strings.Lines(string(text)) {
		var entry struct{ Caller, Method, Resource, Outcome string }
		require.NoError(t, json.Unmarshal([]byte(line), &entry))
		methods = append(methods, entry.Caller+" "+entry.Method[strings.LastIndexByte(entry.Method, '/')+1:]+" "+entry.Resource+" "+entry.Outcome)
	}
	require.Contains(t, methods, "anonymous DeployModel models/auth-model/versions/1 Unauthenticated")
	require.Contains(t, methods, "admin DeployModel models/auth-model/versions/1 OK")
	require.Contains(t, methods, "admin RevokeKey keys/"+id+" OK")
	for _, p := range s.logs {
		for _, secret := range []string{adminKey, secret, second, kept} {
			require.NotContains(t, p.output.String(), secret, "no secret is in a log, whatever its level")
			require.NotContains(t, string(text), secret)
		}
	}
}
