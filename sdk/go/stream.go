// SPDX-License-Identifier: Apache-2.0

package clipper

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Stream asks over one stream, which costs less than a call each. Many goroutines may ask at once, and each
// gets its own answer.
type Stream struct {
	stream grpc.BidiStreamingClient[clipperv1.QueryStreamRequest, clipperv1.QueryStreamResponse]
	cancel context.CancelFunc
	done   chan struct{} // Closed when nothing is read any more; err is set then.

	sending sync.Mutex

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan *clipperv1.QueryResult
	err     error
}

// NewStream opens a stream of queries, which lasts until ctx ends, [Stream.Close], or an error of the
// stream itself; a broken stream is not opened again, a new one is.
func (c *Client) NewStream(ctx context.Context) (*Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	opened, err := c.QueryStream(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	s := &Stream{stream: opened, cancel: cancel, done: make(chan struct{}), waiting: map[uint64]chan *clipperv1.QueryResult{}}
	go s.read()
	return s, nil
}

// Query asks and waits for the answer, or until ctx ends. The time that the query gives itself, and the
// application's objective, hold as in a call of its own.
func (s *Stream) Query(ctx context.Context, req *QueryRequest) (*QueryResponse, error) {
	answer := make(chan *clipperv1.QueryResult, 1)
	s.mu.Lock()
	s.last++
	sequence := s.last
	s.waiting[sequence] = answer
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.waiting, sequence)
		s.mu.Unlock()
	}()
	s.sending.Lock()
	err := s.stream.Send(&clipperv1.QueryStreamRequest{Sequence: sequence, Query: req})
	s.sending.Unlock()
	if err != nil && !errors.Is(err, io.EOF) { // Whoever reads gets the error behind the end.
		return nil, err
	}
	select {
	case r := <-answer:
		return r.GetResponse(), ItemError(r.GetError())
	case <-s.done:
		select {
		case r := <-answer: // It came before the end.
			return r.GetResponse(), ItemError(r.GetError())
		default:
			return nil, s.err
		}
	case <-ctx.Done():
		return nil, errorOf(status.FromContextError(ctx.Err()).Err())
	}
}

// Close ends the stream; queries without an answer fail.
func (s *Stream) Close() {
	s.cancel()
	<-s.done
}

// read hands answers to those who wait for them.
func (s *Stream) read() {
	defer close(s.done)
	defer s.cancel()
	for {
		r, err := s.stream.Recv()
		if errors.Is(err, io.EOF) {
			err = errorOf(status.Error(codes.Unavailable, "the server has ended the stream: open another one"))
		}
		if err != nil {
			s.err = err
			return
		}
		s.mu.Lock()
		answer := s.waiting[r.GetSequence()]
		s.mu.Unlock()
		if answer != nil {
			answer <- r.GetResult()
		}
	}
}
