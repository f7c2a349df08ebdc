// SPDX-License-Identifier: Apache-2.0

package exchange

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/deadline"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
)

// maxReplyMargin is the most that a handler's time ends before the caller's.
const maxReplyMargin = 10 * time.Millisecond

// maxWaiting bounds the goroutines of a stream that wait for the next call.
const maxWaiting = 256

// Handler carries out one method. The payload is shared with other calls: it must not be modified.
// The context ends when the caller cancels, when the stream breaks, and a little before the caller's
// deadline, a twentieth of the time and at most 10 ms: what a handler has by then must still reach
// the caller, who stops waiting at the deadline itself.
type Handler func(ctx context.Context, payload []byte) (proto.Message, error)

// Server serves calls. Safe for concurrent use by any number of streams.
type Server struct {
	internalv1.UnimplementedExchangeServiceServer
	handlers map[internalv1.Method]Handler
	draining <-chan struct{}
	log      *slog.Logger
}

// NewServer returns a server of these methods. When draining is closed, streams take no further
// call and end after the last reply.
func NewServer(handlers map[internalv1.Method]Handler, draining <-chan struct{}, log *slog.Logger) *Server {
	return &Server{handlers: handlers, draining: draining, log: log}
}

// Register registers the server.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	internalv1.RegisterExchangeServiceServer(r, s)
}

type serverStream = grpc.BidiStreamingServer[internalv1.ExchangeRequest, internalv1.ExchangeResponse]

// session is one stream.
type session struct {
	*Server
	stream serverStream
	ctx    context.Context
	out    *outbox[*internalv1.Reply]
	calls  sync.WaitGroup

	jobs    chan job     // to goroutines that wait for one
	waiting atomic.Int32 // how many do

	mu      sync.Mutex
	closed  bool // No further call is started.
	cancels map[uint64]context.CancelFunc
}

// Exchange implements internalv1.ExchangeServiceServer.
func (s *Server) Exchange(stream serverStream) error {
	select {
	case <-s.draining:
		return apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "", "the service is shutting down")
	default:
	}
	if err := stream.SendHeader(metadata.MD{}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(stream.Context())
	ss := &session{
		Server:  s,
		stream:  stream,
		ctx:     ctx,
		out:     newOutbox(func(r *internalv1.Reply) int { return len(r.Payload) + len(r.Status) + 16 }),
		jobs:    make(chan job),
		cancels: make(map[uint64]context.CancelFunc),
	}
	// Recv cannot be interrupted by draining, so the reader has a goroutine of its own. It ends
	// when the handler returns, because that ends the stream.
	read := make(chan error, 1)
	go func() { read <- ss.read() }()

	err := ss.write(read)
	cancel() // Nobody waits for the calls that are left.
	ss.mu.Lock()
	ss.closed = true
	ss.mu.Unlock()
	ss.calls.Wait()
	return err
}

// write sends replies until the stream ends or is drained.
func (ss *session) write(read <-chan error) error {
	var (
		replies  []*internalv1.Reply
		idle     = make(chan struct{})
		draining = ss.draining
	)
	for {
		select {
		case <-ss.out.wake:
		case <-draining:
			draining = nil
			if err := ss.stream.Send(&internalv1.ExchangeResponse{Draining: true}); err != nil {
				return err
			}
		case err := <-read:
			// The client sends no more: after draining, or because it leaves.
			if !errors.Is(err, io.EOF) {
				return err
			}
			read = nil
			go func() {
				ss.calls.Wait()
				close(idle)
			}()
		case <-idle:
			return ss.flush(replies)
		}
		if err := ss.flush(replies); err != nil {
			return err
		}
	}
}

// flush sends what is waiting.
func (ss *session) flush(replies []*internalv1.Reply) error {
	for {
		replies = ss.out.take(replies)
		if len(replies) == 0 {
			return nil
		}
		if err := ss.stream.Send(&internalv1.ExchangeResponse{Replies: replies}); err != nil {
			return err
		}
	}
}

// read starts the calls as they come.
func (ss *session) read() error {
	for {
		m, err := ss.stream.Recv()
		if err != nil {
			return err
		}
		for _, c := range m.Calls {
			ss.start(c)
		}
	}
}

func (ss *session) start(c *internalv1.Call) {
	if c.Method == internalv1.Method_METHOD_CANCEL {
		ss.mu.Lock()
		cancel := ss.cancels[c.Id]
		ss.mu.Unlock()
		if cancel != nil {
			cancel()
		}
		return
	}
	j := job{call: c}
	j.ctx, j.cancel = context.WithCancel(ss.ctx)
	if c.TimeoutMicros > 0 {
		left := time.Duration(c.TimeoutMicros) * time.Microsecond
		j.ctx = deadline.With(j.ctx, time.Now().Add(left-min(left/20, maxReplyMargin)))
	}
	ss.mu.Lock()
	if ss.closed {
		ss.mu.Unlock()
		j.cancel()
		return
	}
	ss.cancels[c.Id] = j.cancel
	ss.calls.Add(1)
	ss.mu.Unlock()
	select {
	case ss.jobs <- j: // Somebody waits for it.
	default:
		go ss.work(j)
	}
}

// job is a call to be carried out.
type job struct {
	call   *internalv1.Call
	ctx    context.Context
	cancel context.CancelFunc
}

// work carries out calls, the given one and then others, until the session ends or enough
// goroutines wait. One that is used again has the stack that a call needs.
func (ss *session) work(j job) {
	for {
		ss.carryOut(j)
		if ss.waiting.Add(1) > maxWaiting {
			ss.waiting.Add(-1)
			return
		}
		select {
		case j = <-ss.jobs:
			ss.waiting.Add(-1)
		case <-ss.ctx.Done():
			return
		}
	}
}

func (ss *session) carryOut(j job) {
	defer ss.calls.Done()
	r := ss.serve(j.ctx, j.call)
	j.cancel()
	ss.mu.Lock()
	delete(ss.cancels, j.call.Id)
	ss.mu.Unlock()
	ss.out.put(r)
}

// serve runs the handler and encodes what it returns.
func (ss *session) serve(ctx context.Context, c *internalv1.Call) (r *internalv1.Reply) {
	r = &internalv1.Reply{Id: c.Id}
	defer func() {
		if p := recover(); p != nil {
			ss.log.Error("call panicked", "method", c.Method, "panic", p, "stack", string(debug.Stack()))
			r.Payload, r.Status = nil, encodeStatus(apierror.From(errPanic))
		}
	}()
	handle := ss.handlers[c.Method]
	if handle == nil {
		r.Status = encodeStatus(apierror.New(codes.Unimplemented, clipperv1.ErrorReason_ERROR_REASON_UNKNOWN_METHOD, "method",
			"this service does not know the method %v; are the services of one version?", c.Method))
		return r
	}
	m, err := handle(ctx, c.Payload)
	if err == nil {
		r.Payload, err = proto.Marshal(m)
	}
	if err != nil {
		r.Status = encodeStatus(err)
	}
	return r
}

// errPanic stands for a panic, whose text stays in the log.
var errPanic = errors.New("call panicked")
