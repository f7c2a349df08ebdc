// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	echo    = internalv1.Method_METHOD_QUERY
	special = internalv1.Method_METHOD_PREDICT
)

// server is one that can be killed and started again at the same address.
type server struct {
	t        *testing.T
	address  string
	grpc     *grpc.Server
	draining chan struct{}
	served   sync.WaitGroup
}

func (s *server) start(handlers map[internalv1.Method]Handler) {
	l, err := net.Listen("tcp", s.address)
	require.NoError(s.t, err)
	s.address = l.Addr().String()
	s.grpc = grpc.NewServer(grpc.MaxRecvMsgSize(MaxReceiveBytes))
	s.draining = make(chan struct{})
	NewServer(handlers, s.draining, slog.New(slog.DiscardHandler)).Register(s.grpc)
	g := s.grpc
	s.served.Go(func() { _ = g.Serve(l) })
}

func (s *server) kill() {
	s.grpc.Stop()
	s.served.Wait()
}

func startServer(t *testing.T, handlers map[internalv1.Method]Handler) *server {
	s := &server{t: t, address: "127.0.0.1:0"}
	s.start(handlers)
	t.Cleanup(s.kill)
	return s
}

func startClient(t *testing.T, address string) *Client {
	conn, err := grpc.NewClient("passthrough:///"+address,
		append(DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	require.NoError(t, err)
	c := NewClient("test server", conn, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		_ = conn.Close()
	})
	return c
}

func echoHandler(_ context.Context, payload []byte) (proto.Message, error) {
	m := &wrapperspb.BytesValue{}
	return m, proto.Unmarshal(payload, m)
}

func text(s string) proto.Message { return wrapperspb.Bytes([]byte(s)) }

// callEcho sends s and returns an error unless it comes back.
func callEcho(t *testing.T, c *Client, s string) error {
	b, err := c.Call(t.Context(), echo, text(s), true)
	if err != nil {
		return err
	}
	var m wrapperspb.BytesValue
	if err := proto.Unmarshal(b, &m); err != nil {
		return err
	}
	if string(m.Value) != s {
		return fmt.Errorf("sent %d bytes, got other %d", len(s), len(m.Value))
	}
	return nil
}

func TestCall_manyCallersEachGetTheirOwnReply(t *testing.T) {
	c := startClient(t, startServer(t, map[internalv1.Method]Handler{echo: echoHandler}).address)
	var callers errgroup.Group
	for i := range 64 {
		callers.Go(func() error {
			for j := range 100 {
				if err := callEcho(t, c, fmt.Sprintf("%d/%d", i, j)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, callers.Wait())
}

func TestCall_largePayloadsAreSplitOverMessages(t *testing.T) {
	c := startClient(t, startServer(t, map[internalv1.Method]Handler{echo: echoHandler}).address)
	var callers errgroup.Group
	for i := range 12 {
		callers.Go(func() error { return callEcho(t, c, string(make([]byte, 700_000+i))) })
	}
	require.NoError(t, callers.Wait())
}

func TestCall_errorsKeepCodeMessageAndReason(t *testing.T) {
	c := startClient(t, startServer(t, map[internalv1.Method]Handler{
		echo: func(context.Context, []byte) (proto.Message, error) {
			return nil, apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, "application", "no application %q", "x")
		},
		special: func(context.Context, []byte) (proto.Message, error) { panic("secret") },
	}).address)

	_, err := c.Call(t.Context(), echo, text(""), true)
	e := apierror.ToProto(err)
	require.Equal(t, uint32(codes.NotFound), e.Code)
	require.Equal(t, `no application "x"`, e.Message)
	require.Equal(t, clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, e.Reason)
	require.Equal(t, "application", e.Field)

	_, err = c.Call(t.Context(), special, text(""), true)
	require.Equal(t, codes.Internal, status.Code(err))
	require.NotContains(t, err.Error(), "secret")

	_, err = c.Call(t.Context(), internalv1.Method_METHOD_FEEDBACK, text(""), true)
	require.Equal(t, codes.Unimplemented, status.Code(err))
}

func TestCall_deadlineAndCancellationReachTheServer(t *testing.T) {
	seen := make(chan error, 2)
	c := startClient(t, startServer(t, map[internalv1.Method]Handler{
		echo: echoHandler,
		special: func(ctx context.Context, _ []byte) (proto.Message, error) {
			<-ctx.Done()
			seen <- ctx.Err()
			return nil, ctx.Err()
		},
	}).address)
	require.NoError(t, callEcho(t, c, "warm"))

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := c.Call(ctx, special, text(""), true)
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))
	require.ErrorIs(t, <-seen, context.DeadlineExceeded)

	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err = c.Call(ctx, special, text(""), true)
	require.Equal(t, codes.Canceled, status.Code(err))
	require.ErrorIs(t, <-seen, context.Canceled)
}

func TestCall_waitsForAServerThatIsNotThereYet(t *testing.T) {
	s := startServer(t, nil)
	s.kill()
	c := startClient(t, s.address)

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err := c.Call(ctx, echo, text("x"), true)
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.False(t, c.Connected())

	answered := make(chan error, 1)
	go func() { answered <- callEcho(t, c, "late") }()
	s.start(map[internalv1.Method]Handler{echo: echoHandler})
	require.NoError(t, <-answered)
	require.True(t, c.Connected())
}

func TestCall_repeatableCallsSurviveAKilledServer(t *testing.T) {
	var arrived atomic.Int32
	entered := make(chan struct{}, 2)
	hang := func(ctx context.Context, _ []byte) (proto.Message, error) {
		arrived.Add(1)
		entered <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s := startServer(t, map[internalv1.Method]Handler{echo: hang})
	c := startClient(t, s.address)

	type outcome struct {
		err        error
		repeatable bool
	}
	outcomes := make(chan outcome, 2)
	for _, repeatable := range []bool{true, false} {
		go func() {
			_, err := c.Call(t.Context(), echo, text("x"), repeatable)
			outcomes <- outcome{err, repeatable}
		}()
	}
	<-entered
	<-entered
	s.kill()
	s.start(map[internalv1.Method]Handler{echo: echoHandler})
	for range 2 {
		o := <-outcomes
		if o.repeatable {
			require.NoError(t, o.err)
		} else {
			require.Equal(t, codes.Unavailable, status.Code(o.err))
		}
	}
	require.Equal(t, int32(2), arrived.Load())
}

func TestServer_drainsWithoutLosingAReply(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	s := startServer(t, map[internalv1.Method]Handler{echo: func(ctx context.Context, payload []byte) (proto.Message, error) {
		close(entered)
		<-release
		return echoHandler(ctx, payload)
	}})
	c := startClient(t, s.address)
	got := make(chan error, 1)
	go func() {
		_, err := c.Call(t.Context(), echo, text("x"), false)
		got <- err
	}()
	<-entered
	close(s.draining)
	require.Eventually(t, func() bool { return !c.Connected() }, 10*time.Second, time.Millisecond)

	stopped := make(chan struct{})
	go func() { s.grpc.GracefulStop(); close(stopped) }()
	close(release)
	require.NoError(t, <-got)
	<-stopped
}

func TestRun_endFailsWhatIsPending(t *testing.T) {
	entered := make(chan struct{})
	s := startServer(t, map[internalv1.Method]Handler{echo: func(ctx context.Context, _ []byte) (proto.Message, error) {
		close(entered)
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	conn, err := grpc.NewClient(s.address, append(DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	c := NewClient("test server", conn, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() { defer close(ran); _ = c.Run(ctx) }()
	got := make(chan error, 1)
	go func() {
		_, err := c.Call(context.Background(), echo, text("x"), true)
		got <- err
	}()
	<-entered
	cancel()
	require.Equal(t, codes.Unavailable, status.Code(<-got))
	<-ran
	_, err = c.Call(context.Background(), echo, text("x"), true)
	require.Equal(t, codes.Unavailable, status.Code(err))
}

func BenchmarkCall(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	g := grpc.NewServer()
	NewServer(map[internalv1.Method]Handler{echo: echoHandler}, nil, slog.New(slog.DiscardHandler)).Register(g)
	go func() { _ = g.Serve(l) }()
	defer g.Stop()
	conn, err := grpc.NewClient(l.Addr().String(), append(DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	require.NoError(b, err)
	defer func() { _ = conn.Close() }()
	c := NewClient("server", conn, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	defer func() { cancel(); <-done }()
	argument := text(string(make([]byte, 64)))
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Call(ctx, echo, argument, true); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("64 callers", func(b *testing.B) {
		b.SetParallelism(32)
		b.ReportAllocs()
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				if _, err := c.Call(ctx, echo, argument, true); err != nil && !errors.Is(err, context.Canceled) {
					b.Error(err)
				}
			}
		})
	})
}

// Try must not wait: its callers have somebody else to ask.
func TestTry(t *testing.T) {
	var stuck atomic.Int64
	block := make(chan struct{})
	handlers := map[internalv1.Method]Handler{echo: echoHandler, special: func(ctx context.Context, p []byte) (proto.Message, error) {
		stuck.Add(1)
		<-block
		return echoHandler(ctx, p)
	}}
	s := startServer(t, handlers)
	t.Cleanup(sync.OnceFunc(func() { close(block) })) // Before the server's end, which waits for it.
	c := startClient(t, s.address)
	require.NoError(t, callEcho(t, c, "up"))
	_, err := c.Try(t.Context(), echo, text("x"))
	require.NoError(t, err)

	broken := make(chan error, 1)
	go func() {
		_, err := c.Try(context.Background(), special, text("x"))
		broken <- err
	}()
	require.Eventually(t, func() bool { return stuck.Load() == 1 }, 10*time.Second, time.Millisecond)
	go s.grpc.Stop()
	require.Equal(t, codes.Unavailable, status.Code(<-broken))
	require.Eventually(t, func() bool { return !c.Connected() }, 10*time.Second, time.Millisecond)
	_, err = c.Try(context.Background(), echo, text("x"))
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.ErrorContains(t, err, "no connection")
}
