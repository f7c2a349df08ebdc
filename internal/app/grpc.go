// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // Clients may compress what they send.
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
)

const (
	// minPing is how often clients may ping without being cut off. Half of the 10
	// s that gRPC lets clients set at least, since pings are not punctual.
	minPing = 5 * time.Second
	// pingTimeout is how long a client may take to answer a ping.
	pingTimeout = 10 * time.Second
	// maxMetadata limits what comes with a call, in bytes.
	maxMetadata = 64 << 10
	// streamWorkers is the number of goroutines that are kept for calls. A new one for each call
	// would grow its stack again each time; more calls than workers get goroutines of their own.
	streamWorkers = 64
	// streamWindow and connWindow are what a client may send ahead, in bytes. Fixed windows spare the
	// pings and window updates by which gRPC would otherwise measure the connection at every query.
	streamWindow = 4 << 20
	connWindow   = 16 << 20
	// forced is how long handlers may take to return once their calls are cancelled.
	forced = time.Second
)

// GRPCServer is a gRPC server that is part of an app. Services are registered on
// it as on a grpc.Server, while the app is built.
type GRPCServer struct {
	name     string
	server   *grpc.Server
	listener net.Listener
	health   *health.Server
	draining chan struct{}
}

var (
	_ grpc.ServiceRegistrar = (*GRPCServer)(nil)
	_ server                = (*GRPCServer)(nil)
)

// GRPC adds a gRPC server, which listens at once. It observes its calls with
// a.RPC, has the health and reflection services, and limits sizes and numbers as
// configured. The options are added to these; interceptors among them run within
// a.RPC.
func (a *App) GRPC(name string, cfg GRPCConfig, options ...grpc.ServerOption) (*GRPCServer, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("gRPC server %s: %w", name, err)
	}
	listener, secure, err := a.listen(name, cfg.Listen, cfg.TLS)
	if err != nil {
		return nil, err
	}
	if secure != nil {
		options = append(options, grpc.Creds(secure.Credentials()))
	}
	s := &GRPCServer{
		name:     name,
		listener: listener,
		health:   health.NewServer(),
		draining: make(chan struct{}),
	}
	s.server = grpc.NewServer(append([]grpc.ServerOption{
		grpc.ChainUnaryInterceptor(a.RPC.Unary),
		grpc.ChainStreamInterceptor(a.RPC.Stream, s.endWatch),
		grpc.MaxRecvMsgSize(int(cfg.MaxMessage)),
		grpc.MaxSendMsgSize(int(cfg.MaxMessage)),
		grpc.MaxHeaderListSize(maxMetadata),
		grpc.MaxConcurrentStreams(cfg.MaxConcurrentStreams),
		grpc.ConnectionTimeout(cfg.ConnectionTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: cfg.Keepalive, Timeout: pingTimeout, MaxConnectionAge: cfg.MaxConnectionAge}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true), // They use what is closed after the server.
		grpc.NumStreamWorkers(streamWorkers),
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connWindow),
	}, options...)...)
	healthpb.RegisterHealthServer(s.server, s.health)
	reflection.Register(s.server)
	a.servers = append(a.servers, s)
	return s, nil
}

// RegisterService makes a service callable.
func (s *GRPCServer) RegisterService(desc *grpc.ServiceDesc, service any) {
	s.server.RegisterService(desc, service)
}

// Address is where the server listens, as clients write it: "127.0.0.1:1337" or
// "unix:/run/clipper.sock".
func (s *GRPCServer) Address() string { return addressOf(s.listener) }

// Draining is closed when the server begins to stop. It then waits for calls to
// end, so a stream that would stay open by itself must watch for it, finish what
// it has received, and end.
func (s *GRPCServer) Draining() <-chan struct{} { return s.draining }

func (s *GRPCServer) serve() error {
	if err := s.server.Serve(s.listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve %s: %w", s.name, err)
	}
	return nil
}

func (s *GRPCServer) stop(ctx context.Context) error {
	close(s.draining)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.server.GracefulStop()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	go s.server.Stop() // Makes GracefulStop return when all handlers have.
	select {
	case <-done:
	case <-time.After(forced):
	}
	return fmt.Errorf("stop %s: %w", s.name, ErrGraceExceeded)
}

func (s *GRPCServer) abandon() {
	s.server.Stop()
	_ = s.listener.Close()
}

func (s *GRPCServer) setReady(ready bool) {
	serving := healthpb.HealthCheckResponse_NOT_SERVING
	if ready {
		serving = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", serving)
	for name := range s.server.GetServiceInfo() {
		s.health.SetServingStatus(name, serving)
	}
}

func (s *GRPCServer) drain() { s.health.Shutdown() }

// endWatch ends health watches when the server drains: by themselves they would
// stay open for as long as their clients do.
func (s *GRPCServer) endWatch(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if info.FullMethod != healthpb.Health_Watch_FullMethodName {
		return handler(service, stream)
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	go func() {
		select {
		case <-s.draining:
			cancel()
		case <-ctx.Done():
		}
	}()
	return handler(service, watchStream{stream, ctx})
}

// watchStream is a stream with a context of its own.
type watchStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s watchStream) Context() context.Context { return s.ctx }
