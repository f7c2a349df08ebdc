// SPDX-License-Identifier: Apache-2.0

package container_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	container "github.com/clipper-serving/clipper/containerrpc/go"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// model predicts with a function.
type model struct {
	description *clipperv1.DescribeResponse
	predict     func(context.Context, *container.Batch) (*container.Result, error)
}

func (m model) Describe() *clipperv1.DescribeResponse {
	if m.description == nil {
		return &clipperv1.DescribeResponse{}
	}
	return m.description
}

func (m model) Predict(ctx context.Context, b *container.Batch) (*container.Result, error) {
	return m.predict(ctx, b)
}

type parallelModel struct{ model }

func (parallelModel) Parallel() {}

func echo(_ context.Context, b *container.Batch) (*container.Result, error) {
	return &container.Result{Outputs: b.Inputs}, nil
}

type running struct {
	clipperv1.ModelContainerServiceClient
	conn *grpc.ClientConn
	stop context.CancelFunc
	done chan error
}

// run serves a model until the test ends.
func run(t *testing.T, cfg container.Config, m container.Model) *running {
	t.Helper()
	cfg.Address = "unix:" + filepath.Join(t.TempDir(), "s")
	ctx, stop := context.WithCancel(context.Background())
	r := &running{stop: stop, done: make(chan error, 1)}
	go func() { r.done <- container.Run(ctx, cfg, m) }()
	conn, err := grpc.NewClient(cfg.Address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	require.NoError(t, err)
	r.conn = conn
	r.ModelContainerServiceClient = clipperv1.NewModelContainerServiceClient(conn)
	_, err = r.Describe(t.Context(), &clipperv1.DescribeRequest{})
	require.NoError(t, err)
	t.Cleanup(func() {
		stop()
		require.NoError(t, conn.Close())
		select {
		case err := <-r.done:
			require.NoError(t, err)
		default:
			<-r.done
		}
	})
	return r
}

func (r *running) stream(t *testing.T) clipperv1.ModelContainerService_PredictClient {
	t.Helper()
	s, err := r.Predict(t.Context())
	require.NoError(t, err)
	return s
}

func batch(id uint64, data ...byte) *clipperv1.PredictRequest {
	return &clipperv1.PredictRequest{Id: id, Rows: uint32(len(data)), Inputs: []*clipperv1.BatchTensor{{DataType: clipperv1.DataType_DATA_TYPE_UINT8, Data: data}}}
}

func exchange(t *testing.T, s clipperv1.ModelContainerService_PredictClient, req *clipperv1.PredictRequest) *clipperv1.PredictResponse {
	t.Helper()
	require.NoError(t, s.Send(req))
	resp, err := s.Recv()
	require.NoError(t, err)
	require.Equal(t, req.Id, resp.Id)
	return resp
}

func TestServe_predicts(t *testing.T) {
	r := run(t, container.Config{Model: "m", Version: "3"}, model{predict: echo})
	d, err := r.Describe(t.Context(), &clipperv1.DescribeRequest{})
	require.NoError(t, err)
	require.Equal(t, "m", d.Model)
	require.Equal(t, "3", d.Version)
	require.Equal(t, uint32(2), d.MaxInFlight)
	require.Positive(t, d.MaxMessageBytes)
	h, err := grpc_health_v1.NewHealthClient(r.conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	require.NoError(t, err)
	require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, h.Status)

	s := r.stream(t)
	for id := range uint64(10) {
		resp := exchange(t, s, batch(id, 1, 2, byte(id)))
		require.Equal(t, []byte{1, 2, byte(id)}, resp.Outputs[0].Data)
	}
	require.NoError(t, s.CloseSend())
	_, err = s.Recv()
	require.ErrorIs(t, err, io.EOF)
}

func TestServe_reportsErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		predict func(context.Context, *container.Batch) (*container.Result, error)
		code    codes.Code
		message string
	}{
		"error": {func(context.Context, *container.Batch) (*container.Result, error) { return nil, errors.New("broken") }, codes.Unknown, "broken"},
		"status": {func(context.Context, *container.Batch) (*container.Result, error) {
			return nil, status.Error(codes.DataLoss, "lost")
		}, codes.DataLoss, "lost"},
		"panic": {func(context.Context, *container.Batch) (*container.Result, error) { panic("ouch") }, codes.Unknown, "ouch"},
		"nil":   {func(context.Context, *container.Batch) (*container.Result, error) { return nil, nil }, codes.Unknown, "no result"},
		"late": {func(ctx context.Context, _ *container.Batch) (*container.Result, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, codes.DeadlineExceeded, "time was over"},
	} {
		t.Run(name, func(t *testing.T) {
			s := run(t, container.Config{}, model{predict: tc.predict}).stream(t)
			for id := range uint64(2) { // The stream goes on.
				req := batch(id, 1)
				req.TimeoutMicros = 1000
				if name != "late" {
					req.TimeoutMicros = 0
				}
				resp := exchange(t, s, req)
				require.Equal(t, uint32(tc.code), resp.Error.Code)
				require.Contains(t, resp.Error.Message, tc.message)
			}
		})
	}
}

func TestServe_reportsRowErrors(t *testing.T) {
	s := run(t, container.Config{}, model{predict: func(_ context.Context, b *container.Batch) (*container.Result, error) {
		return &container.Result{Outputs: b.Inputs, RowErrors: map[int]error{2: errors.New("c"), 0: errors.New("a")}}, nil
	}}).stream(t)
	resp := exchange(t, s, batch(1, 1, 2, 3))
	require.Len(t, resp.RowErrors, 2)
	require.Equal(t, uint32(0), resp.RowErrors[0].Row)
	require.Equal(t, "c", resp.RowErrors[1].Error.Message)
}

// TestServe_concurrency: a parallel model gets as many batches at once as it says; any other gets
// one, even from several streams.
func TestServe_concurrency(t *testing.T) {
	for name, parallel := range map[string]bool{"parallel": true, "one by one": false} {
		t.Run(name, func(t *testing.T) {
			var now, most atomic.Int32
			together := make(chan struct{})
			m := model{description: &clipperv1.DescribeResponse{MaxInFlight: 3}, predict: func(ctx context.Context, b *container.Batch) (*container.Result, error) {
				if n := now.Add(1); n > most.Load() {
					most.Store(n)
					if n == 3 {
						close(together)
					}
				}
				if parallel {
					<-together // Nobody goes on before all are here.
				}
				for range 1000 { // Lets another in, if it may.
					runtime.Gosched()
				}
				now.Add(-1)
				return echo(ctx, b)
			}}
			var served container.Model = m
			if parallel {
				served = parallelModel{m}
			}
			r := run(t, container.Config{}, served)
			var wg sync.WaitGroup
			streams := 2
			if parallel {
				streams = 1
			}
			for range streams {
				s := r.stream(t)
				for id := range uint64(3) {
					require.NoError(t, s.Send(batch(id, 1)))
				}
				wg.Go(func() {
					for range 3 {
						if _, err := s.Recv(); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			want := int32(1)
			if parallel {
				want = 3
			}
			require.Equal(t, want, most.Load())
		})
	}
}

// TestServe_drains: what the model works on when the container is told to stop is answered, then
// the stream ends well.
func TestServe_drains(t *testing.T) {
	started, finish := make(chan struct{}), make(chan struct{})
	r := run(t, container.Config{}, model{predict: func(ctx context.Context, b *container.Batch) (*container.Result, error) {
		close(started)
		<-finish
		return echo(ctx, b)
	}})
	s := r.stream(t)
	require.NoError(t, s.Send(batch(7, 1)))
	<-started
	r.stop()
	close(finish)
	resp, err := s.Recv()
	require.NoError(t, err)
	require.Equal(t, uint64(7), resp.Id)
	_, err = s.Recv()
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, <-r.done)
	r.done <- nil
}

func TestServe_stopsByForceAfterTheGracePeriod(t *testing.T) {
	started := make(chan struct{})
	r := run(t, container.Config{GracePeriod: time.Millisecond}, model{predict: func(ctx context.Context, _ *container.Batch) (*container.Result, error) {
		close(started)
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	s := r.stream(t)
	require.NoError(t, s.Send(batch(7, 1)))
	<-started
	r.stop()
	require.NoError(t, <-r.done)
	r.done <- nil
}

func TestServe_exitsWithItsParent(t *testing.T) {
	parent, child := net.Pipe()
	r := run(t, container.Config{ExitWithParent: child}, model{predict: echo})
	require.NoError(t, parent.Close())
	require.NoError(t, <-r.done)
	r.done <- nil
}

func TestRun_badAddress(t *testing.T) {
	for _, address := range []string{"", "unix:", "unix:/nowhere/at/all", "nonsense"} {
		require.Error(t, container.Run(t.Context(), container.Config{Address: address}, model{predict: echo}), address)
	}
}

func TestRun_replacesASocketThatWasLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	l.SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, container.Run(ctx, container.Config{Address: "unix:" + path}, model{predict: echo}))
}

func TestConfigFromEnvironment(t *testing.T) {
	t.Setenv("CLIPPER_CONTAINER_ADDRESS", "unix:/x")
	t.Setenv("CLIPPER_MODEL_NAME", "m")
	t.Setenv("CLIPPER_MODEL_VERSION", "1")
	cfg := container.ConfigFromEnvironment()
	require.Equal(t, container.Config{Address: "unix:/x", Model: "m", Version: "1"}, cfg)
	t.Setenv("CLIPPER_EXIT_WITH_PARENT", "1")
	require.NotNil(t, container.ConfigFromEnvironment().ExitWithParent)
}
