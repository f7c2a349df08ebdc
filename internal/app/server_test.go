// SPDX-License-Identifier: Apache-2.0

package app_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/clipper-serving/clipper/internal/app"
	"github.com/clipper-serving/clipper/internal/config"
)

// service is a TestService whose calls are given by each test.
type service struct {
	testpb.UnimplementedTestServiceServer
	unary  func(context.Context) error
	duplex func(testpb.TestService_FullDuplexCallServer) error
}

func (s *service) UnaryCall(ctx context.Context, req *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if s.unary != nil {
		if err := s.unary(ctx); err != nil {
			return nil, err
		}
	}
	return &testpb.SimpleResponse{Payload: req.GetPayload()}, nil
}

func (s *service) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	return s.duplex(stream)
}

func dial(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

// serve starts an app with one gRPC server.
func serve(t *testing.T, o app.Options, cfg app.GRPCConfig, register func(*app.App, *app.GRPCServer)) (conn *grpc.ClientConn, stop func() error) {
	t.Helper()
	var address string
	stop = start(t, o, func(a *app.App) error {
		server, err := a.GRPC("test", cfg)
		if err != nil {
			return err
		}
		address = server.Address()
		register(a, server)
		return nil
	})
	return dial(t, address), stop
}

func TestGRPC_finishesWhatIsInFlight(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	var closed events
	s := &service{unary: func(context.Context) error {
		close(entered)
		<-release
		closed.add("call")
		return nil
	}}
	var draining <-chan struct{}
	conn, stop := serve(t, options(), grpcConfig(t), func(a *app.App, server *app.GRPCServer) {
		draining = server.Draining()
		a.Defer("store", closed.close("store"))
		a.Go("loop", closed.loop("loop"))
		testpb.RegisterTestServiceServer(server, s)
	})
	client := testpb.NewTestServiceClient(conn)
	answered := make(chan error, 1)
	go func() {
		_, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{})
		answered <- err
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	<-draining

	// A new connection is refused as soon as the listener is closed.
	require.Eventually(t, func() bool {
		other := dial(t, conn.Target())
		_, err := testpb.NewTestServiceClient(other).EmptyCall(t.Context(), &testpb.Empty{})
		return status.Code(err) == codes.Unavailable
	}, 10*time.Second, time.Millisecond)

	close(release)
	require.NoError(t, <-answered)
	require.NoError(t, <-stopped)
	require.Equal(t, []string{"call", "loop loop", "close store"}, closed.list)
}

func TestGRPC_forcesTheEnd(t *testing.T) {
	entered := make(chan struct{})
	s := &service{unary: func(ctx context.Context) error {
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	}}
	o := options()
	o.Shutdown.Grace = 20 * time.Millisecond
	conn, stop := serve(t, o, grpcConfig(t), func(_ *app.App, server *app.GRPCServer) { testpb.RegisterTestServiceServer(server, s) })
	answered := make(chan error, 1)
	go func() {
		_, err := testpb.NewTestServiceClient(conn).UnaryCall(t.Context(), &testpb.SimpleRequest{})
		answered <- err
	}()
	<-entered
	err := stop()
	require.ErrorIs(t, err, app.ErrGraceExceeded)
	require.EqualError(t, err, "stop test: "+app.ErrGraceExceeded.Error())
	require.Equal(t, codes.Unavailable, status.Code(<-answered))
}

func TestGRPC_streamsAreToldToDrain(t *testing.T) {
	s := &service{}
	conn, stop := serve(t, options(), grpcConfig(t), func(_ *app.App, server *app.GRPCServer) {
		s.duplex = func(stream testpb.TestService_FullDuplexCallServer) error {
			if err := stream.SendHeader(nil); err != nil {
				return err
			}
			<-server.Draining()
			return stream.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: []byte("bye")}})
		}
		testpb.RegisterTestServiceServer(server, s)
	})
	stream, err := testpb.NewTestServiceClient(conn).FullDuplexCall(t.Context())
	require.NoError(t, err)
	_, err = stream.Header()
	require.NoError(t, err)
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	last, err := stream.Recv()
	require.NoError(t, err)
	require.Equal(t, "bye", string(last.GetPayload().GetBody()))
	_, err = stream.Recv()
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, <-stopped)
}

func TestGRPC_health(t *testing.T) {
	conn, stop := serve(t, options(), grpcConfig(t), func(_ *app.App, server *app.GRPCServer) {
		testpb.RegisterTestServiceServer(server, &service{})
	})
	client := healthpb.NewHealthClient(conn)
	for _, name := range []string{"", "grpc.testing.TestService"} {
		require.Eventually(t, func() bool {
			res, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
			return err == nil && res.GetStatus() == healthpb.HealthCheckResponse_SERVING
		}, 10*time.Second, time.Millisecond, name)
	}
	_, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "none"})
	require.Equal(t, codes.NotFound, status.Code(err))

	// A watch hears of the stop, and does not hold it up.
	watch, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{Service: "grpc.testing.TestService"})
	require.NoError(t, err)
	res, err := watch.Recv()
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_SERVING, res.GetStatus())
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	require.NoError(t, <-stopped)
	for err == nil {
		if res, err = watch.Recv(); err == nil {
			require.Equal(t, healthpb.HealthCheckResponse_NOT_SERVING, res.GetStatus())
		}
	}
}

func TestGRPC_healthFollowsReadiness(t *testing.T) {
	conn, stop := serve(t, options(), grpcConfig(t), func(a *app.App, server *app.GRPCServer) {
		a.Ready("never", func(context.Context) error { return errors.New("missing") })
		testpb.RegisterTestServiceServer(server, &service{})
	})
	client := healthpb.NewHealthClient(conn)
	for _, name := range []string{"", "grpc.testing.TestService"} {
		require.Eventually(t, func() bool {
			res, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
			return err == nil && res.GetStatus() == healthpb.HealthCheckResponse_NOT_SERVING
		}, 10*time.Second, time.Millisecond, name)
	}
	require.NoError(t, stop())
}

func TestGRPC_reflection(t *testing.T) {
	conn, _ := serve(t, options(), grpcConfig(t), func(_ *app.App, server *app.GRPCServer) {
		testpb.RegisterTestServiceServer(server, &service{})
	})
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	}))
	res, err := stream.Recv()
	require.NoError(t, err)
	require.Contains(t, res.GetListServicesResponse().String(), "grpc.testing.TestService")
	require.NoError(t, stream.CloseSend())
	_, err = stream.Recv()
	require.ErrorIs(t, err, io.EOF)
}

func TestGRPC_panicsAreContainedAndCounted(t *testing.T) {
	o := options()
	conn, _ := serve(t, o, grpcConfig(t), func(_ *app.App, server *app.GRPCServer) {
		testpb.RegisterTestServiceServer(server, &service{
			unary:  func(context.Context) error { panic("secret") },
			duplex: func(testpb.TestService_FullDuplexCallServer) error { panic("secret") },
		})
	})
	client := testpb.NewTestServiceClient(conn)
	_, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{})
	require.Equal(t, codes.Internal, status.Code(err))
	require.NotContains(t, err.Error(), "secret")
	stream, err := client.FullDuplexCall(t.Context())
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, codes.Internal, status.Code(err))
	require.NotContains(t, err.Error(), "secret")
	n, err := testutil.GatherAndCount(o.Registry, "clipper_grpc_server_handling_seconds")
	require.NoError(t, err)
	require.GreaterOrEqual(t, n, 2)
}

func TestGRPC_limitsMessages(t *testing.T) {
	cfg := grpcConfig(t)
	cfg.MaxMessage = config.KiB
	conn, _ := serve(t, options(), cfg, func(_ *app.App, server *app.GRPCServer) {
		testpb.RegisterTestServiceServer(server, &service{})
	})
	client := testpb.NewTestServiceClient(conn)
	_, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 2<<10)}})
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	_, err = client.UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 512)}})
	require.NoError(t, err)
}

func TestGRPC_addressInUse(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	cfg := grpcConfig(t)
	cfg.Listen = listener.Addr().String()
	err = app.Run(t.Context(), options(), func(a *app.App) error {
		_, err := a.GRPC("frontend", cfg)
		return err
	})
	require.ErrorContains(t, err, "listen for frontend")
	require.ErrorContains(t, err, "address already in use")
}

func TestGRPC_unixSocket(t *testing.T) {
	cfg := grpcConfig(t)
	path := filepath.Join(t.TempDir(), "s")
	cfg.Listen = "unix:" + path
	for range 2 { // The second start finds the address free again.
		conn, stop := serve(t, options(), cfg, func(_ *app.App, server *app.GRPCServer) {
			require.Equal(t, "unix:"+path, server.Address())
			testpb.RegisterTestServiceServer(server, &service{})
		})
		_, err := testpb.NewTestServiceClient(conn).UnaryCall(t.Context(), &testpb.SimpleRequest{})
		require.NoError(t, err)
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o007, "others may not connect")
		require.NoError(t, stop())
	}
}

func TestListen_unixPathThatExists(t *testing.T) {
	dir := t.TempDir()
	stale, used, file := filepath.Join(dir, "stale"), filepath.Join(dir, "used"), filepath.Join(dir, "file")
	for _, path := range []string{stale, used} {
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		require.NoError(t, err)
		listener.SetUnlinkOnClose(false)
		if path == stale {
			require.NoError(t, listener.Close())
		} else {
			defer listener.Close()
		}
	}
	require.NoError(t, os.WriteFile(file, []byte("precious"), 0o600))

	stop := start(t, options(), func(a *app.App) error {
		cfg := httpConfig(t)
		cfg.Listen = "unix://" + stale
		_, err := a.HTTP("stale", cfg, a.Ops())
		require.NoError(t, err)
		cfg.Listen = "unix:" + used
		_, err = a.HTTP("used", cfg, a.Ops())
		require.ErrorContains(t, err, "in use")
		cfg.Listen = "unix:" + file
		_, err = a.HTTP("file", cfg, a.Ops())
		require.ErrorContains(t, err, "not a socket")
		return nil
	})
	require.NoError(t, stop())
	require.FileExists(t, file)
}

func TestListen_warnsBeyondLoopback(t *testing.T) {
	for address, want := range map[string]bool{"127.0.0.1:0": false, "localhost:0": false, "0.0.0.0:0": true, ":0": true} {
		var out bytes.Buffer
		o := options()
		o.Log = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn}))
		err := app.Run(t.Context(), o, func(a *app.App) error {
			cfg := httpConfig(t)
			cfg.Listen = address
			_, err := a.HTTP("ops", cfg, a.Ops())
			require.NoError(t, err)
			return errors.New("enough")
		})
		require.Error(t, err)
		require.Equal(t, want, strings.Contains(out.String(), "nothing is encrypted"), address)
	}
}

// get fetches a URL over a connection of its own.
func get(ctx context.Context, url string) (*http.Response, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return client.Do(req)
}

func TestHTTP_finishesWhatIsInFlight(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	var server *app.HTTPServer
	stop := start(t, options(), func(a *app.App) (err error) {
		server, err = a.HTTP("rest", httpConfig(t), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			close(entered)
			<-release
			_, _ = io.WriteString(w, "done")
		}))
		return err
	})
	type answer struct {
		body string
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		res, err := get(t.Context(), "http://"+server.Address())
		if err != nil {
			answered <- answer{err: err}
			return
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		answered <- answer{string(body), err}
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	<-server.Draining()
	require.Eventually(t, func() bool {
		_, err := net.Dial("tcp", server.Address())
		return err != nil
	}, 10*time.Second, time.Millisecond, "new connections are refused")
	close(release)
	require.Equal(t, answer{body: "done"}, <-answered)
	require.NoError(t, <-stopped)
}

func TestHTTP_forcesTheEnd(t *testing.T) {
	entered := make(chan struct{})
	var server *app.HTTPServer
	o := options()
	o.Shutdown.Grace = 20 * time.Millisecond
	stop := start(t, o, func(a *app.App) (err error) {
		server, err = a.HTTP("rest", httpConfig(t), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(entered)
			<-r.Context().Done()
		}))
		return err
	})
	failed := make(chan error, 1)
	go func() {
		res, err := get(t.Context(), "http://"+server.Address())
		if err == nil {
			err = errors.Join(errors.New("answered"), res.Body.Close())
		}
		failed <- err
	}()
	<-entered
	require.ErrorIs(t, stop(), app.ErrGraceExceeded)
	require.ErrorIs(t, <-failed, io.EOF)
}

func TestHTTP_limitsHeaders(t *testing.T) {
	var server *app.HTTPServer
	start(t, options(), func(a *app.App) (err error) {
		server, err = a.HTTP("ops", httpConfig(t), a.Ops())
		return err
	})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+server.Address()+"/healthz", nil)
	require.NoError(t, err)
	req.Header.Set("X-Long", strings.Repeat("x", 128<<10))
	res, err := client.Do(req)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, res.StatusCode)
}

// Servers stop one after another, the last added first, so that a server can
// rely on those added before it while it finishes.
func TestServers_stopInReverse(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	var ops *app.HTTPServer
	var front *app.GRPCServer
	stop := start(t, options(), func(a *app.App) (err error) {
		if ops, err = a.HTTP("ops", httpConfig(t), a.Ops()); err != nil {
			return err
		}
		front, err = a.GRPC("front", grpcConfig(t))
		testpb.RegisterTestServiceServer(front, &service{unary: func(context.Context) error {
			close(entered)
			<-release
			return nil
		}})
		return err
	})
	client := testpb.NewTestServiceClient(dial(t, front.Address()))
	answered := make(chan error, 1)
	go func() {
		_, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{})
		answered <- err
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	<-front.Draining()
	res, err := get(t.Context(), "http://"+ops.Address()+"/readyz")
	require.NoError(t, err, "the first server answers while the last one drains")
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
	close(release)
	require.NoError(t, <-answered)
	require.NoError(t, <-stopped)
}
