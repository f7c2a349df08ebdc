// SPDX-License-Identifier: Apache-2.0

package inprocess

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// window is how many messages each direction of a stream holds before its
// sender waits for the receiver.
const window = 16

// NewStream starts a streaming call. As with a grpc.ClientConn, the stream must
// be read to its end or its context cancelled. It honours the same call options
// as Invoke.
func (c *Conn) NewStream(ctx context.Context, desc *grpc.StreamDesc, fullMethod string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	m, ok := c.methods[fullMethod]
	if !ok || m.stream == nil {
		return nil, unimplemented(fullMethod)
	}
	if err := ctx.Err(); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	s := &stream{
		call:      transportStream{method: fullMethod, sent: make(chan struct{})},
		requests:  make(chan proto.Message, window),
		responses: make(chan proto.Message, window),
	}
	handlerCtx, cancel := context.WithCancel(serverContext(ctx, &s.call))
	s.ended = handlerCtx.Done()
	go func() {
		defer cancel()
		err := c.handle(m, &serverStream{stream: s, ctx: handlerCtx})
		if err != nil {
			err = statusError(ctx, err)
		}
		s.err = err
		close(s.responses)
	}()
	return &clientStream{stream: s, ctx: ctx, opts: opts, serverStreams: desc.ServerStreams}, nil
}

func (c *Conn) handle(m method, ss *serverStream) error {
	if c.stream == nil {
		return m.stream.Handler(m.service, ss)
	}
	info := &grpc.StreamServerInfo{
		FullMethod:     ss.call.method,
		IsClientStream: m.stream.ClientStreams,
		IsServerStream: m.stream.ServerStreams,
	}
	return c.stream(m.service, ss, info, m.stream.Handler)
}

// stream is what the two ends of a streaming call share. Messages in the
// channels belong to nobody else: they are copied before they enter.
type stream struct {
	call      transportStream
	requests  chan proto.Message // Closed by the client's CloseSend.
	responses chan proto.Message // Closed when the handler has returned.
	ended     <-chan struct{}    // Closed when nobody reads requests any more.
	err       error              // The handler's status; read after responses is closed.
}

// clientStream is the caller's end.
type clientStream struct {
	*stream
	ctx           context.Context
	opts          []grpc.CallOption
	serverStreams bool
	closed        bool
	finish        sync.Once
}

var _ grpc.ClientStream = (*clientStream)(nil)

func (s *clientStream) Context() context.Context { return s.ctx }

// Header waits for the handler's headers. It returns none when the stream ended
// without; RecvMsg then tells why.
func (s *clientStream) Header() (metadata.MD, error) {
	select {
	case <-s.call.sent:
	case <-s.ended:
	}
	header, _ := s.call.metadata()
	return header, nil
}

func (s *clientStream) Trailer() metadata.MD {
	_, trailer := s.call.metadata()
	return trailer
}

func (s *clientStream) CloseSend() error {
	if !s.closed {
		s.closed = true
		close(s.requests)
	}
	return nil
}

// SendMsg returns io.EOF when the stream has ended; RecvMsg then tells why.
func (s *clientStream) SendMsg(msg any) error {
	if s.closed {
		return status.Error(codes.Internal, "SendMsg after CloseSend")
	}
	m, err := cloneMessage(msg)
	if err != nil {
		return err
	}
	select {
	case <-s.ended:
		return io.EOF
	default:
	}
	select {
	case s.requests <- m:
		return nil
	case <-s.ended:
		return io.EOF
	}
}

func (s *clientStream) RecvMsg(msg any) error {
	m, err := s.next()
	if err != nil {
		if !s.serverStreams && errors.Is(err, io.EOF) {
			return status.Error(codes.Internal, "handler returned neither a response nor an error")
		}
		return err
	}
	if err := copyMessage(msg, m); err != nil {
		return err
	}
	if s.serverStreams {
		return nil
	}
	// The single response counts only once the handler has ended well.
	switch _, err := s.next(); {
	case err == nil:
		return status.Error(codes.Internal, "handler sent more than one response")
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

// next returns the next response, or how the stream ended: io.EOF when well.
func (s *clientStream) next() (proto.Message, error) {
	select {
	case m, ok := <-s.responses:
		if ok {
			return m, nil
		}
	case <-s.ctx.Done():
		err := status.FromContextError(s.ctx.Err()).Err()
		s.finish.Do(func() { s.call.report(err, s.opts) })
		return nil, err
	}
	s.finish.Do(func() { s.call.report(s.err, s.opts) })
	if s.err != nil {
		return nil, s.err
	}
	return nil, io.EOF
}

// serverStream is the handler's end.
type serverStream struct {
	*stream
	ctx context.Context
}

var _ grpc.ServerStream = (*serverStream)(nil)

func (s *serverStream) Context() context.Context        { return s.ctx }
func (s *serverStream) SetHeader(md metadata.MD) error  { return s.call.SetHeader(md) }
func (s *serverStream) SendHeader(md metadata.MD) error { return s.call.SendHeader(md) }
func (s *serverStream) SetTrailer(md metadata.MD)       { _ = s.call.SetTrailer(md) }

func (s *serverStream) SendMsg(msg any) error {
	m, err := cloneMessage(msg)
	if err != nil {
		return err
	}
	s.call.flush()
	select {
	case s.responses <- m:
		return nil
	case <-s.ctx.Done():
		return status.FromContextError(s.ctx.Err()).Err()
	}
}

func (s *serverStream) RecvMsg(msg any) error {
	select {
	case m, ok := <-s.requests:
		if !ok {
			return io.EOF
		}
		return copyMessage(msg, m)
	case <-s.ctx.Done():
		return status.FromContextError(s.ctx.Err()).Err()
	}
}

func cloneMessage(msg any) (proto.Message, error) {
	m, ok := msg.(proto.Message)
	if !ok {
		return nil, status.Errorf(codes.Internal, "message of type %T is not a protobuf message", msg)
	}
	return proto.Clone(m), nil
}

// transportStream collects the headers and trailers that a handler sets. It is
// safe for concurrent use.
type transportStream struct {
	method string
	sent   chan struct{} // Closed when the headers are sent; nil for a unary call.

	mu              sync.Mutex
	header, trailer metadata.MD
	headerSent      bool
}

var _ grpc.ServerTransportStream = (*transportStream)(nil)

var errHeaderSent = status.Error(codes.Internal, "headers are already sent")

func (t *transportStream) Method() string { return t.method }

func (t *transportStream) SetHeader(md metadata.MD) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.setHeader(md)
}

func (t *transportStream) SendHeader(md metadata.MD) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.setHeader(md); err != nil {
		return err
	}
	t.sendHeader()
	return nil
}

func (t *transportStream) SetTrailer(md metadata.MD) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(md) > 0 {
		t.trailer = metadata.Join(t.trailer, md)
	}
	return nil
}

func (t *transportStream) setHeader(md metadata.MD) error {
	if t.headerSent {
		return errHeaderSent
	}
	if len(md) > 0 {
		t.header = metadata.Join(t.header, md)
	}
	return nil
}

func (t *transportStream) sendHeader() {
	t.headerSent = true
	if t.sent != nil {
		close(t.sent)
	}
}

// flush sends the headers unless they are sent: the first message does so.
func (t *transportStream) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.headerSent {
		t.sendHeader()
	}
}

func (t *transportStream) metadata() (header, trailer metadata.MD) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.header, t.trailer
}

// report serves the call options that ask how the call went.
func (t *transportStream) report(err error, opts []grpc.CallOption) {
	if len(opts) == 0 {
		return
	}
	header, trailer := t.metadata()
	for _, opt := range opts {
		switch opt := opt.(type) {
		case grpc.HeaderCallOption:
			*opt.HeaderAddr = header
		case grpc.TrailerCallOption:
			*opt.TrailerAddr = trailer
		case grpc.PeerCallOption:
			*opt.PeerAddr = self
		case grpc.OnFinishCallOption:
			opt.OnFinish(err)
		}
	}
}
