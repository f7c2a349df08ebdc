// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// identity answers each row with itself.
type identity struct{}

func (identity) Describe() *clipperv1.DescribeResponse { return &clipperv1.DescribeResponse{} }

func (identity) Predict(_ context.Context, b *Batch) (*Result, error) {
	if b.Rows == 2 {
		return nil, errors.New("no pairs")
	}
	return &Result{Outputs: b.Inputs, RowErrors: map[int]error{0: errors.New("first")}}, nil
}

func TestRun_exitCodes(t *testing.T) {
	t.Setenv("CLIPPER_MODEL_PATH", "/none/m.bin")
	address := "--address=unix:" + filepath.Join(t.TempDir(), "s")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct {
		ctx  context.Context
		args []string
		err  error
		code int
		last string
	}{
		"missing":   {t.Context(), nil, &os.PathError{Op: "open", Path: "/none/m.bin", Err: syscall.ENOENT}, 78, "cannot load the model /none/m.bin"},
		"refused":   {t.Context(), nil, &net.OpError{Op: "dial", Err: &os.SyscallError{Syscall: "connect", Err: syscall.ECONNREFUSED}}, 1, "cannot load"},
		"timeout":   {t.Context(), nil, context.DeadlineExceeded, 1, "cannot load"},
		"stopped":   {ended, nil, nil, 0, ""},
		"flag":      {t.Context(), []string{"--nonsense"}, nil, 2, "nonsense"},
		"argument":  {t.Context(), []string{"x"}, nil, 2, "flags only"},
		"help":      {t.Context(), []string{"--help"}, nil, 0, "CLIPPER_MODEL_PATH"},
		"bad place": {t.Context(), []string{"--address=unix:/nowhere/at/all"}, nil, 1, "nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			code := run(tc.ctx, append([]string{address}, tc.args...), &log, func(path string) (Model, error) {
				if path != "/none/m.bin" {
					t.Errorf("path is %q", path)
				}
				return identity{}, tc.err
			})
			require.Equal(t, tc.code, code, log.String())
			require.Contains(t, log.String(), tc.last)
		})
	}
	t.Run("panic", func(t *testing.T) {
		var log bytes.Buffer
		require.Equal(t, 78, run(t.Context(), []string{address}, &log, func(string) (Model, error) { panic("ouch") }))
		require.Contains(t, log.String(), "the loader panicked: ouch")
	})
}

// TestRun_loadsWhileUp: the container answers health checks and refuses to predict until the model is loaded;
// then it counts what it does.
func TestRun_loadsWhileUp(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	metricsAt := l.Addr().String()
	require.NoError(t, l.Close())
	address := "unix:" + filepath.Join(t.TempDir(), "s")
	ctx, stop := context.WithCancel(t.Context())
	open, done := make(chan struct{}), make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"--address", address, "--metrics-address", metricsAt}, io.Discard, func(string) (Model, error) {
			<-open
			return identity{}, nil
		})
	}()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	require.NoError(t, err)
	client := clipperv1.NewModelContainerServiceClient(conn)
	health, err := grpc_health_v1.NewHealthClient(conn).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	require.NoError(t, err)
	h, err := health.Recv()
	require.NoError(t, err)
	require.Equal(t, grpc_health_v1.HealthCheckResponse_NOT_SERVING, h.Status)
	_, err = client.Describe(t.Context(), &clipperv1.DescribeRequest{})
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Contains(t, scrape(t, metricsAt), "clipper_container_ready 0\n")
	close(open)
	h, err = health.Recv()
	require.NoError(t, err)
	require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, h.Status)

	s, err := client.Predict(t.Context())
	require.NoError(t, err)
	for _, rows := range []uint32{0, 2, 3} {
		require.NoError(t, s.Send(&clipperv1.PredictRequest{Rows: rows}))
		_, err = s.Recv()
		require.NoError(t, err)
	}
	page := scrape(t, metricsAt)
	for _, line := range []string{
		`batches_total{result="error"} 1`, `batches_total{result="ok"} 1`, `batches_total{result="refused"} 1`,
		"rows_total 3", "row_errors_total 1", "predict_seconds_count 2", "batch_rows_sum 5", "in_flight 0", "ready 1",
	} {
		require.Contains(t, page, "clipper_container_"+line+"\n")
	}
	stop()
	require.Zero(t, <-done)
	require.NoError(t, conn.Close())
}

func scrape(t *testing.T, address string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/metrics", nil)
	require.NoError(t, err)
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(page)
}
