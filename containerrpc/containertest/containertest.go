// SPDX-License-Identifier: Apache-2.0

// Package containertest is a model container in the test's own process that behaves as told: slow,
// wrong, silent or dead. It speaks the protocol itself, since a runtime would not let it break it.
package containertest

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Call is one batch that came.
type Call struct {
	// Request is the batch.
	Request *clipperv1.PredictRequest
	// Number counts the batches of the container from 0.
	Number int

	container *Container
	stream    *stream
}

// Context ends when the stream does or the container is killed.
func (c *Call) Context() context.Context { return c.stream.server.Context() }

// Send sends a response; a response may be sent for any call, in any order and number.
func (c *Call) Send(resp *clipperv1.PredictResponse) { c.stream.send(resp) }

// Break ends the stream with a status.
func (c *Call) Break(code codes.Code, message string) { c.stream.end(status.Error(code, message)) }

// Behavior answers a call, or does not. Calls run concurrently, each on a goroutine of its own.
type Behavior func(c *Call)

// Container is the scripted container. Safe for concurrent use.
type Container struct {
	t       testing.TB
	network string
	address string
	health  *health.Server

	mu       sync.Mutex
	describe *clipperv1.DescribeResponse
	behavior Behavior
	server   *grpc.Server
	calls    []*clipperv1.PredictRequest
	streams  int
	hung     chan struct{} // closed when the container hangs no more; nil unless it does
}

// New returns a container that has an address and does not listen yet. It is stopped when the test
// ends.
func New(t testing.TB, b Behavior) *Container {
	c := &Container{
		t: t, network: "unix", address: filepath.Join(t.TempDir(), "container"),
		behavior: b, describe: &clipperv1.DescribeResponse{}, health: health.NewServer(),
	}
	t.Cleanup(c.Kill)
	return c
}

// Start returns a container that serves.
func Start(t testing.TB, b Behavior) *Container {
	c := New(t, b)
	c.Start()
	return c
}

// Address is where the container serves, in the form that Clipper takes.
func (c *Container) Address() string { return c.network + ":" + c.address }

// Start begins to serve, perhaps again.
func (c *Container) Start() {
	l, err := new(net.ListenConfig).Listen(context.Background(), c.network, c.address)
	require.NoError(c.t, err)
	g := grpc.NewServer(grpc.MaxRecvMsgSize(256<<20), grpc.UnaryInterceptor(c.hang))
	clipperv1.RegisterModelContainerServiceServer(g, &service{container: c})
	grpc_health_v1.RegisterHealthServer(g, c.health)
	c.mu.Lock()
	c.server = g
	c.mu.Unlock()
	go func() { _ = g.Serve(l) }()
}

// Kill ends everything at once, as kill -9 does; the address then refuses connections.
func (c *Container) Kill() {
	c.mu.Lock()
	g := c.server
	c.server = nil
	c.mu.Unlock()
	if g != nil {
		g.Stop()
	}
}

// Behave changes the behavior for the calls that come from now on.
func (c *Container) Behave(b Behavior) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.behavior = b
}

// SetDescription changes what Describe answers.
func (c *Container) SetDescription(d *clipperv1.DescribeResponse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.describe = d
}

// SetServing changes the answer to health checks.
func (c *Container) SetServing(serving bool) {
	s := grpc_health_v1.HealthCheckResponse_NOT_SERVING
	if serving {
		s = grpc_health_v1.HealthCheckResponse_SERVING
	}
	c.health.SetServingStatus("", s)
}

// SetHanging makes the container accept calls and answer none but batches, as one does whose
// process is stopped; false lets it go on.
func (c *Container) SetHanging(hanging bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case hanging && c.hung == nil:
		c.hung = make(chan struct{})
	case !hanging && c.hung != nil:
		close(c.hung)
		c.hung = nil
	}
}

func (c *Container) hang(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	c.mu.Lock()
	hung := c.hung
	c.mu.Unlock()
	if hung != nil {
		select {
		case <-hung:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return handle(ctx, req)
}

// Calls returns the batches that have come, in order.
func (c *Container) Calls() []*clipperv1.PredictRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.calls)
}

// Rows returns the number of rows that have come.
func (c *Container) Rows() int {
	n := 0
	for _, r := range c.Calls() {
		n += int(r.Rows)
	}
	return n
}

// Streams returns the number of Predict streams that were opened.
func (c *Container) Streams() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams
}

type service struct {
	clipperv1.UnimplementedModelContainerServiceServer
	container *Container
}

// Describe implements clipperv1.ModelContainerServiceServer.
func (s *service) Describe(context.Context, *clipperv1.DescribeRequest) (*clipperv1.DescribeResponse, error) {
	s.container.mu.Lock()
	defer s.container.mu.Unlock()
	return s.container.describe, nil
}

// Predict implements clipperv1.ModelContainerServiceServer.
func (s *service) Predict(server grpc.BidiStreamingServer[clipperv1.PredictRequest, clipperv1.PredictResponse]) error {
	st := &stream{server: server, ended: make(chan error, 1)}
	s.container.mu.Lock()
	s.container.streams++
	s.container.mu.Unlock()
	defer st.close()
	go func() {
		for {
			req, err := server.Recv()
			if err != nil {
				if errors.Is(err, io.EOF) {
					err = nil
				}
				st.end(err)
				return
			}
			c := s.container
			c.mu.Lock()
			call := &Call{Request: req, Number: len(c.calls), container: c, stream: st}
			c.calls = append(c.calls, req)
			behave := c.behavior
			c.mu.Unlock()
			go behave(call)
		}
	}()
	select {
	case err := <-st.ended:
		return err
	case <-server.Context().Done():
		return server.Context().Err()
	}
}

// stream is one Predict stream.
type stream struct {
	server grpc.BidiStreamingServer[clipperv1.PredictRequest, clipperv1.PredictResponse]
	ended  chan error
	mu     sync.Mutex
	closed bool // the handler has returned; nothing may be sent
}

func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

func (s *stream) send(m any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		_ = s.server.SendMsg(m) // The stream may have ended, as it may for any container.
	}
}

func (s *stream) end(err error) {
	select {
	case s.ended <- err:
	default:
	}
}

// wait returns false when the stream ended before d was over.
func (c *Call) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.Context().Done():
		return false
	}
}
