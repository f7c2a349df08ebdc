// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/cli"
)

var contexts = []string{"ann", "user-01", "user-02", "user-10"}

func contextNotFound(name string) error {
	return apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_CONTEXT_NOT_FOUND, "context", "context: %q has no state of its own", name)
}

// ListContexts lists one at a time to those who ask for two.
func (s *server) ListContexts(_ context.Context, r *clipperv1.ListContextsRequest) (*clipperv1.ListContextsResponse, error) {
	defer s.record(r)()
	if s.apps[r.GetApplication()] == nil {
		return nil, appNotFound(r.GetApplication())
	}
	size := int(r.GetPageSize())
	if size == 2 {
		size = 1
	}
	response := &clipperv1.ListContextsResponse{}
	for i, name := range contexts {
		if name <= r.GetPageToken() || !strings.HasPrefix(name, r.GetPrefix()) {
			continue
		}
		if len(response.Contexts) == size {
			response.NextPageToken = response.Contexts[size-1].Context
			break
		}
		c := &clipperv1.ContextSummary{Context: name, Observations: float64(i + 1)}
		if i%2 == 1 {
			c.ExpireTime = timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
		}
		response.Contexts = append(response.Contexts, c)
	}
	return response, nil
}

// ExportSelectionState breaks for the context "broken" after a while, and hangs for "hangs".
func (s *server) ExportSelectionState(r *clipperv1.ExportSelectionStateRequest, stream grpc.ServerStreamingServer[clipperv1.ExportSelectionStateResponse]) error {
	s.record(r)()
	states := append([]string{""}, contexts...)
	switch r.GetContext() {
	case "":
	case "nobody":
		return contextNotFound(r.GetContext())
	default:
		states = []string{r.GetContext()}
	}
	for _, name := range states {
		if err := stream.Send(&clipperv1.ExportSelectionStateResponse{Context: name, State: &clipperv1.GetSelectionStateResponse{Policy: "exp4", Observations: 2}}); err != nil {
			return err
		}
	}
	switch r.GetContext() {
	case "broken":
		return apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, "", "the store cannot be reached now; try again")
	case "hangs":
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	return nil
}

func (s *server) ResetSelectionState(_ context.Context, r *clipperv1.ResetSelectionStateRequest) (*clipperv1.ResetSelectionStateResponse, error) {
	defer s.record(r)()
	switch {
	case s.apps[r.GetApplication()] == nil:
		return nil, appNotFound(r.GetApplication())
	case r.GetContext() == "nobody":
		return nil, contextNotFound(r.GetContext())
	}
	return &clipperv1.ResetSelectionStateResponse{}, nil
}

func TestExport_file(t *testing.T) {
	s := start(t)
	folder := t.TempDir()
	file := filepath.Join(folder, "state.jsonl")
	code, stdout, stderr := run(t, s.address, "", "app", "export", "digits", "-o", file)
	require.Zero(t, code, stderr)
	require.Equal(t, fmt.Sprintf("Exported 5 states to %s.\n", file), stdout)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, 5, strings.Count(string(text), "\n"))

	// One that fails leaves what there was, and nothing else.
	for _, args := range [][]string{{"--context", "broken"}, {"--context", "hangs", "--timeout", "50ms"}} {
		code, _, stderr = run(t, s.address, "", append([]string{"app", "export", "digits", "-o", file}, args...)...)
		require.NotZero(t, code)
		require.NotEmpty(t, stderr)
		after, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, text, after)
	}
	require.Contains(t, stderr, "50ms")
	require.Equal(t, cli.ExitUnreachable, code)
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

func TestReset_requests(t *testing.T) {
	s := start(t)
	code, _, stderr := run(t, s.address, "", "app", "create", "digits", "--models", "svm", "--default", "0")
	require.Zero(t, code, stderr)
	for what, want := range map[string]proto.Message{
		"reset digits --all":                             &clipperv1.ResetSelectionStateRequest{Application: "digits"},
		"reset digits --context ann":                     &clipperv1.ResetSelectionStateRequest{Application: "digits", Context: "ann"},
		"export digits --context ann":                    &clipperv1.ExportSelectionStateRequest{Application: "digits", Context: "ann"},
		"contexts digits --prefix user- --limit 5000000": &clipperv1.ListContextsRequest{Application: "digits", Prefix: "user-", PageSize: 1000},
	} {
		code, _, stderr := run(t, s.address, "", append([]string{"app"}, strings.Fields(what)...)...)
		require.Zero(t, code, stderr)
		require.Empty(t, cmp.Diff(want, s.asked(), protocmp.Transform()), what)
	}
}
