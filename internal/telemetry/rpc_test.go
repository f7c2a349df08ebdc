// SPDX-License-Identifier: Apache-2.0

package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/clipper-serving/clipper/internal/telemetry"
)

const fullMethod = "/clipper.v1.QueryService/Query"

// rig is an RPC whose log lines and metrics can be read.
type rig struct {
	*telemetry.RPC
	out      bytes.Buffer
	registry *prometheus.Registry
}

func newRig(t testing.TB, level slog.Level) *rig {
	t.Helper()
	r := &rig{registry: prometheus.NewRegistry()}
	log, err := telemetry.NewLogger(telemetry.FormatJSON, level, &r.out)
	require.NoError(t, err)
	r.RPC, err = telemetry.NewRPC(log, r.registry)
	require.NoError(t, err)
	return r
}

func (r *rig) call(ctx context.Context, handler func() (any, error)) (any, error) {
	return r.Unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: fullMethod},
		func(context.Context, any) (any, error) { return handler() })
}

// lines returns the log lines written since it was last called.
func (r *rig) lines(t *testing.T) []map[string]any {
	t.Helper()
	var lines []map[string]any
	for text := range strings.Lines(r.out.String()) {
		var line map[string]any
		require.NoError(t, json.Unmarshal([]byte(text), &line))
		lines = append(lines, line)
	}
	r.out.Reset()
	return lines
}

func TestUnary_errorsAndLogs(t *testing.T) {
	tests := []struct {
		name    string
		give    func() (any, error)
		code    codes.Code
		message string
		level   string // Of the log line; none when empty.
	}{
		{"success", func() (any, error) { return "reply", nil }, codes.OK, "", ""},
		{"the caller's fault", func() (any, error) { return nil, status.Error(codes.InvalidArgument, "input: empty") }, codes.InvalidArgument, "input: empty", "INFO"},
		{"overload", func() (any, error) { return nil, status.Error(codes.ResourceExhausted, "queue full") }, codes.ResourceExhausted, "queue full", "WARN"},
		{"without status", func() (any, error) { return nil, errors.New("redis at 10.0.0.7: password wrong") }, codes.Internal, "internal error", "ERROR"},
		{"panic", func() (any, error) { panic("secret") }, codes.Internal, "internal error", "ERROR"},
		{"deadline", func() (any, error) { return nil, fmt.Errorf("ask 10.0.0.7: %w", context.DeadlineExceeded) }, codes.DeadlineExceeded, "deadline exceeded", "WARN"},
		{"cancelled", func() (any, error) { return nil, fmt.Errorf("ask 10.0.0.7: %w", context.Canceled) }, codes.Canceled, "call cancelled", "INFO"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, slog.LevelInfo)
			reply, err := r.call(t.Context(), tt.give)
			require.Equal(t, tt.code, status.Code(err))
			require.Equal(t, tt.message, status.Convert(err).Message())
			require.Equal(t, tt.code == codes.OK, reply != nil)

			lines := r.lines(t)
			if tt.level == "" {
				require.Empty(t, lines)
			} else {
				require.Len(t, lines, 1)
				require.Equal(t, tt.level, lines[0]["level"])
				require.Equal(t, "clipper.v1.QueryService", lines[0]["service"])
				require.Equal(t, "Query", lines[0]["method"])
				require.Equal(t, tt.code.String(), lines[0]["code"])
			}
			n, err := testutil.GatherAndCount(r.registry, "clipper_grpc_server_handling_seconds")
			require.NoError(t, err)
			want := 1
			if tt.code != codes.OK { // The series of OK is there from the first call.
				want = 2
			}
			require.Equal(t, want, n)
			require.NoError(t, testutil.GatherAndCompare(r.registry, strings.NewReader(`
# HELP clipper_grpc_server_in_flight_calls Calls that are being handled; open streams among them.
# TYPE clipper_grpc_server_in_flight_calls gauge
clipper_grpc_server_in_flight_calls{method="Query",service="clipper.v1.QueryService"} 0
`), "clipper_grpc_server_in_flight_calls"))
		})
	}
}

func TestUnary_panicIsLoggedWithItsStack(t *testing.T) {
	r := newRig(t, slog.LevelInfo)
	_, err := r.call(t.Context(), explode)
	require.NotContains(t, err.Error(), "boom")
	lines := r.lines(t)
	require.Len(t, lines, 1)
	require.Equal(t, "panic: boom", lines[0]["error"])
	require.Contains(t, lines[0]["stack"], "telemetry_test.explode")
}

func explode() (any, error) { panic("boom") }

func TestUnary_failuresAreSampled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, slog.LevelInfo)
		fail := func() (any, error) { return nil, status.Error(codes.ResourceExhausted, "queue full") }
		for range 1000 {
			_, err := r.call(t.Context(), fail)
			require.Equal(t, codes.ResourceExhausted, status.Code(err))
		}
		require.Len(t, r.lines(t), 1)
		_, _ = r.call(t.Context(), func() (any, error) { return nil, status.Error(codes.NotFound, "") })
		require.Len(t, r.lines(t), 1, "another code has a sample of its own")
		time.Sleep(time.Second)
		_, _ = r.call(t.Context(), fail)
		lines := r.lines(t)
		require.Len(t, lines, 1)
		require.EqualValues(t, 999, lines[0]["omitted"])
	})
}

func TestUnary_debugLogsEveryCall(t *testing.T) {
	r := newRig(t, slog.LevelDebug)
	_, err := r.call(t.Context(), func() (any, error) { return "reply", nil })
	require.NoError(t, err)
	for range 3 {
		_, err = r.call(t.Context(), func() (any, error) { return nil, status.Error(codes.NotFound, "") })
		require.Error(t, err)
	}
	require.Len(t, r.lines(t), 4)
}

// stream is a grpc.ServerStream that has only a context.
type stream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s stream) Context() context.Context { return s.ctx }

func TestStream(t *testing.T) {
	r := newRig(t, slog.LevelInfo)
	info := &grpc.StreamServerInfo{FullMethod: fullMethod}
	run := func(handler grpc.StreamHandler) error { return r.Stream(nil, stream{ctx: t.Context()}, info, handler) }

	require.NoError(t, run(func(any, grpc.ServerStream) error {
		require.NoError(t, testutil.GatherAndCompare(r.registry, strings.NewReader(`
# HELP clipper_grpc_server_in_flight_calls Calls that are being handled; open streams among them.
# TYPE clipper_grpc_server_in_flight_calls gauge
clipper_grpc_server_in_flight_calls{method="Query",service="clipper.v1.QueryService"} 1
`), "clipper_grpc_server_in_flight_calls"))
		return nil
	}))
	err := run(func(any, grpc.ServerStream) error { panic("boom") })
	require.Equal(t, codes.Internal, status.Code(err))
	require.NotContains(t, err.Error(), "boom")
	require.Len(t, r.lines(t), 1)
}

func TestNewRPC_twiceOnOneRegistry(t *testing.T) {
	r := newRig(t, slog.LevelInfo)
	_, err := telemetry.NewRPC(slog.New(slog.DiscardHandler), r.registry)
	require.ErrorContains(t, err, "register RPC metrics")
}

// BenchmarkUnary is what observing adds to a call that succeeds.
func BenchmarkUnary(b *testing.B) {
	r := newRig(b, slog.LevelInfo)
	info := &grpc.UnaryServerInfo{FullMethod: fullMethod}
	handler := func(context.Context, any) (any, error) { return nil, nil }
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_, _ = r.Unary(b.Context(), nil, info, handler)
		}
	})
}
