// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/clipper-serving/clipper/abstraction/batching"
	"github.com/clipper-serving/clipper/abstraction/prediction"
	"github.com/clipper-serving/clipper/abstraction/queue"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	// defaultInFlight is for a container that does not say.
	defaultInFlight = 2
	// maxBatchBytes bounds batches for a container that does not say.
	maxBatchBytes = 64 << 20
	// messageOverhead is what a message holds besides the elements, at most in practice.
	messageOverhead = 4096
)

// session is one Predict stream. Two goroutines of it carry batches, one sends and one receives;
// a third sees to it that the container lives. A batch for a container that has nothing is sent by
// the goroutine that brings it.
type session struct {
	replica *Replica
	stream  grpc.BidiStreamingClient[clipperv1.PredictRequest, clipperv1.PredictResponse]
	health  grpc_health_v1.HealthClient
	// signature is the version's, and outputs its outputs.
	signature *clipperv1.Signature
	outputs   []*clipperv1.TensorSpec
	// maxRows is the size of a batch that the configuration and the container allow.
	maxRows int
	// maxBytes is the size that even a batch of one row may not exceed.
	maxBytes int
	puller   *queue.Puller
	ctx      context.Context
	cancel   context.CancelCauseFunc
	pull     context.Context // ends when the session takes nothing more
	stop     context.CancelFunc
	readyAt  time.Time // when it began to take queries; only the sender uses it
	// complained is true after a breach of the protocol has been logged; only the receiver uses it.
	complained bool

	sending sync.Mutex // held while a batch is sent
	lastID  uint64     // of a batch; under sending

	mu         sync.Mutex
	inFlight   []*batch
	free       []*batch
	ended      error // why nothing is carried any more
	lastAnswer time.Time
	lastSign   time.Time // of life
	empty      chan struct{}
}

// serve asks the container who it is and then carries batches until the stream ends. lasted is 0
// when the replica was never ready.
func (r *Replica) serve() (lasted time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(r.ctx)
	defer cancel(nil)
	s := &session{
		replica: r, health: grpc_health_v1.NewHealthClient(r.conn), ctx: ctx, cancel: cancel, empty: make(chan struct{}, 1),
	}
	s.pull, s.stop = context.WithCancel(r.pull)
	defer context.AfterFunc(ctx, s.stop)()
	defer s.stop()

	limits, err := s.open()
	if err != nil {
		return 0, err
	}
	if err := r.met(s, limits); err != nil {
		return 0, err
	}
	s.lastSign = time.Now()

	var tasks sync.WaitGroup
	for _, task := range []func() error{s.send, s.receive, s.watch} {
		tasks.Go(func() { cancel(task()) })
	}
	tasks.Wait()

	err = context.Cause(ctx)
	s.mu.Lock()
	s.ended = err
	s.mu.Unlock()
	r.mu.Lock()
	r.session = nil
	r.mu.Unlock()
	r.learnLimit(err, s.inFlight)
	s.giveBack(err)
	if !s.readyAt.IsZero() {
		lasted = max(time.Since(s.readyAt), 1)
	}
	return lasted, err
}

// open gets the stream to a container that is ready and the right one.
func (s *session) open() (containerLimits, error) {
	ctx, cancel := context.WithTimeout(s.pull, describeTimeout)
	defer cancel()
	client := clipperv1.NewModelContainerServiceClient(s.replica.conn)
	d, err := client.Describe(ctx, &clipperv1.DescribeRequest{})
	if err != nil {
		return containerLimits{}, err
	}
	signature, err := s.replica.cfg.Accept(d)
	if err != nil {
		return containerLimits{}, unacceptableError{err}
	}
	s.signature, s.outputs = signature, signature.GetOutputs()
	if err := s.check(ctx); err != nil {
		return containerLimits{}, err
	}
	if s.stream, err = client.Predict(s.ctx); err != nil {
		return containerLimits{}, err
	}
	l := containerLimits{rows: int(d.MaxBatchRows), bytes: maxBatchBytes, inFlight: int(d.MaxInFlight)}
	if d.MaxMessageBytes > 0 {
		l.bytes = int(min(uint64(l.bytes), max(d.MaxMessageBytes, 2*messageOverhead)-messageOverhead))
	}
	if l.inFlight == 0 {
		l.inFlight = defaultInFlight
	}
	if learned := s.replica.learnedBytes; learned > 0 {
		l.bytes = min(l.bytes, learned)
	}
	s.maxBytes = l.bytes
	return l, nil
}

// check asks the container for its health.
func (s *session) check(ctx context.Context) error {
	h, err := s.health.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return err
	}
	if h.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return errNotServing
	}
	return nil
}

// send warms the container up, and then pulls the batches that are sent while another is under way,
// until the session drains or ends.
func (s *session) send() error {
	if err := s.warmUp(); err != nil {
		return err
	}
	s.readyAt = time.Now()
	s.replica.ready(s)
	for {
		b := s.newBatch()
		var err error
		if b.items, err = s.puller.Pull(s.pull, b.items[:0]); err != nil {
			return s.finish()
		}
		s.carry(b)
	}
}

// begin carries a batch to a container that has nothing under way. It implements what the queue
// asks for.
func (s *session) begin(items *[]queue.Item) {
	b := s.newBatch()
	b.items, *items = *items, b.items[:0]
	s.carry(b)
}

// carry sends a batch, or answers it when the container cannot take it; then it goes on with the
// batch that the queue has next, if it has one.
func (s *session) carry(b *batch) {
	for {
		n := b.items[0].Bytes()
		if n <= s.maxBytes {
			s.transmit(b)
			return
		}
		b.fail(failure("the input has %d bytes, more than the %d that the container takes", n, s.maxBytes))
		b.reset()
		next := s.puller.Done(1)
		if next == nil {
			s.recycle(b)
			return
		}
		b.items, *next = *next, b.items
	}
}

// transmit sends a batch. When the session has ended, it goes back to the queue.
func (s *session) transmit(b *batch) {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.lastID++
	b.prepare(s.lastID)
	s.mu.Lock()
	if s.ended != nil {
		s.mu.Unlock()
		s.puller.Return(b.items, s.lostBy(s.ended))
		return
	}
	s.inFlight = append(s.inFlight, b)
	s.mu.Unlock()
	s.replica.metrics.InFlight.Inc()
	_ = s.stream.Send(&b.request) // When it fails the receiver learns the cause, and ends the session.
}

// finish waits until the container has answered everything.
func (s *session) finish() error {
	for {
		s.mu.Lock()
		n := len(s.inFlight)
		s.mu.Unlock()
		if n == 0 {
			_ = s.stream.CloseSend()
			return errNotServing
		}
		select {
		case <-s.empty:
		case <-s.ctx.Done():
			return nil
		}
	}
}

// receive hands out answers until the stream ends.
func (s *session) receive() error {
	for {
		resp, err := s.stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return errNotServing
			}
			return err
		}
		b := s.answered(resp.Id)
		if b == nil {
			return fmt.Errorf("the container answered batch %d, which is not under way", resp.Id)
		}
		s.answer(b, resp)
	}
}

// answered takes the batch off the list, or returns nil.
func (s *session) answered(id uint64) *batch {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, b := range s.inFlight {
		if b.request.Id != id {
			continue
		}
		s.inFlight = append(s.inFlight[:i], s.inFlight[i+1:]...)
		s.replica.metrics.InFlight.Dec()
		// What was sent while another batch was under way could begin only after that.
		begin := b.sent
		if s.lastAnswer.After(begin) {
			begin = s.lastAnswer
		}
		b.latency, b.ahead = now.Sub(begin), begin != b.sent
		s.lastAnswer, s.lastSign = now, now
		if base := s.replica.cfg.timing.stall; b.latency < base { // It is not slow.
			s.replica.stall = base
		}
		return b
	}
	return nil
}

// answer gives every request of the batch its result.
func (s *session) answer(b *batch, resp *clipperv1.PredictResponse) {
	if b.warmUp != nil {
		s.warmedUp(b, resp)
		return
	}
	r := s.replica
	rows := len(b.items)
	failed := rows
	if resp.Error != nil {
		b.fail(containerError(resp.Error))
	} else if outputs, err := Split(resp, rows, s.outputs); err != nil {
		if !s.complained { // Once is enough: it may be every batch.
			s.complained = true
			r.logger.Error("the container breaks the protocol", "cause", err)
		}
		b.fail(unusable(err))
	} else {
		failed = b.reply(outputs, resp.RowErrors)
	}
	if failed > 0 {
		r.metrics.FailedRows.Add(float64(failed))
	}
	r.metrics.BatchRows.Observe(float64(rows))
	r.metrics.BatchLatency.Observe(b.latency.Seconds())
	if resp.Error == nil { // A failure may be sooner than a prediction, and says nothing about one.
		o := batching.Observation{Rows: rows, Latency: b.latency}
		if !b.ahead {
			o.Predict = time.Duration(min(resp.PredictMicros, math.MaxInt64/1000)) * time.Microsecond //nolint:gosec // Bounded.
		}
		r.observe(o)
	}
	s.recycle(b)
	if next := s.puller.Done(rows); next != nil {
		s.begin(next)
	}
	select {
	case s.empty <- struct{}{}:
	default:
	}
}

// causeText returns the text of an error without the name of its gRPC code.
func causeText(err error) string {
	if st, ok := status.FromError(err); ok {
		return st.Message()
	}
	return err.Error()
}

// containerError is what a caller learns of an error that the container reports.
func containerError(e *clipperv1.Error) *prediction.Error {
	err := failure("%s", e.GetMessage())
	if err.Message == "" {
		err.Message = "the container gave no reason"
	}
	if codes.Code(e.GetCode()) == codes.DeadlineExceeded {
		err.Status = clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE
	}
	return err
}

// unusable says that a container's answer breaks the protocol or the signature.
func unusable(err error) *prediction.Error {
	return failure("the container's answer cannot be used: %v", err)
}

// failure says why a row has no prediction.
func failure(format string, args ...any) *prediction.Error {
	return prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_FAILED, format, args...)
}

// watch ends the session when the container gives no sign of life or does not answer, and drains
// it when the container takes nothing more.
func (s *session) watch() error {
	ticker := time.NewTicker(s.replica.cfg.timing.health)
	defer ticker.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := s.stalled(time.Now()); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(s.ctx, s.replica.cfg.timing.liveness)
		err := s.check(ctx)
		cancel()
		now := time.Now()
		s.mu.Lock()
		if err == nil || errors.Is(err, errNotServing) {
			s.lastSign = now
		}
		silent := now.Sub(s.lastSign)
		s.mu.Unlock()
		switch {
		case s.ctx.Err() != nil:
			return nil
		case errors.Is(err, errNotServing):
			s.stop()
		case silent > s.replica.cfg.timing.liveness:
			return fmt.Errorf("the container has given no sign of life for %v: %s", silent.Round(time.Second), causeText(err))
		}
	}
}

// stalledError is a batch that was not answered, by a container that lives.
type stalledError struct{ error }

// stalled reports a batch whose answer is no longer of use to anybody.
func (s *session) stalled(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.inFlight {
		if now.Sub(b.deadline) > s.replica.stall {
			return stalledError{fmt.Errorf("the container has not answered a batch of %d rows for %v", len(b.items), now.Sub(b.sent).Round(time.Second))}
		}
	}
	return nil
}

// giveBack returns what the container did not answer to the queue. Nothing is added any more.
func (s *session) giveBack(cause error) {
	for _, b := range s.inFlight {
		s.replica.metrics.InFlight.Dec()
		if b.warmUp == nil {
			s.puller.Return(b.items, s.lostBy(cause))
		}
	}
	s.inFlight = nil
}

// lostBy says to callers why the session ended.
func (s *session) lostBy(cause error) string {
	reason := "it was removed"
	if !errors.Is(cause, context.Canceled) {
		reason = causeText(cause)
	}
	return fmt.Sprintf("replica %s: %s", s.replica.cfg.ID, reason)
}

// newBatch returns an empty batch, perhaps one that has been used.
func (s *session) newBatch() *batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.free); n > 0 {
		b := s.free[n-1]
		s.free = s.free[:n-1]
		return b
	}
	return &batch{}
}

func (s *session) recycle(b *batch) {
	b.reset()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, b)
}
