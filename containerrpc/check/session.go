// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// ErrUnreachable is the error of Open when nothing answers at the address.
var ErrUnreachable = errors.New("the container cannot be reached")

// unreachable is an error with words of its own that is ErrUnreachable.
type unreachable struct{ error }

func (unreachable) Is(target error) bool { return target == ErrUnreachable }

// Session asks a container for predictions of sample rows, one batch after the other, as a check does.
// It is not safe for concurrent use.
type Session struct {
	checker *checker
	stream  *stream // nil: to be opened
}

// Open waits until the container at an address is ready, and makes the sample rows. Close the session.
func Open(ctx context.Context, address string, o Options) (*Session, error) {
	c := &checker{Options: o, address: address}
	if err := c.connect(); err != nil {
		return nil, err
	}
	if _, err := c.reachable(ctx); err != nil {
		_ = c.conn.Close()
		return nil, unreachable{err}
	}
	for _, step := range []func(context.Context) (string, error){c.health, c.describe} {
		if _, err := step(ctx); err != nil {
			_ = c.conn.Close()
			return nil, err
		}
	}
	return &Session{checker: c}, nil
}

// Close ends the session.
func (s *Session) Close() {
	s.hangUp()
	_ = s.checker.conn.Close()
}

func (s *Session) hangUp() {
	if s.stream != nil {
		s.stream.close()
		s.stream = nil
	}
}

// Description is what the container says of itself.
func (s *Session) Description() *clipperv1.DescribeResponse { return s.checker.description }

// Batch returns a batch of so many rows: the samples, or rows made up from the signature, by turns.
func (s *Session) Batch(rows int) *clipperv1.PredictRequest {
	return batchOf(1, s.checker.repeat(rows))
}

// RowBytes is about how many bytes a row takes in a batch.
func (s *Session) RowBytes() int {
	return max(1, proto.Size(batchOf(1, s.checker.rows))/len(s.checker.rows))
}

// Predict has a batch answered and returns how long that took, from before it is encoded until after
// the answer is decoded. The answer must be valid, and no row may fail. After a stream that ended, the next call opens
// another.
func (s *Session) Predict(ctx context.Context, req *clipperv1.PredictRequest) (time.Duration, *clipperv1.PredictResponse, error) {
	if s.stream == nil {
		opened, err := s.checker.open(ctx)
		if err != nil {
			return 0, nil, err
		}
		s.stream = opened
	}
	begin := time.Now()
	resp, err := s.stream.exchange(req)
	took := time.Since(begin)
	if err != nil {
		s.hangUp()
		return 0, nil, err
	}
	_, err = s.checker.outputs(resp, int(req.Rows))
	return took, resp, err
}
