// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	callers = 8
	items   = 50
	// retry is how long a caller waits before it repeats what failed.
	retry = 20 * time.Millisecond
	// callTimeout bounds a call.
	callTimeout = 5 * time.Second
)

// traffic is callers who ask and give feedback until it is acknowledged.
type traffic struct {
	queries  clipperv1.QueryServiceClient
	feedback clipperv1.FeedbackServiceClient

	underWay     atomic.Int64 // feedback that was sent and is not acknowledged
	acknowledged atomic.Int64 // distinct feedback
	wrong        atomic.Int64 // of it, that with a loss of 1
	repeated     atomic.Int64 // sends of feedback that had been sent before
	duplicates   atomic.Int64 // acknowledgements that said so
	buffered     atomic.Int64 // likewise

	ctx     context.Context
	stop    chan struct{}
	ending  sync.Once
	work    sync.WaitGroup
	failing sync.Once
	failure error // to be read after end

	mu      sync.Mutex
	seconds []sample // of the last second, and a little more
}

type sample struct {
	at           time.Time
	acknowledged int64
}

func startTraffic(ctx context.Context, conn grpc.ClientConnInterface) *traffic {
	t := &traffic{
		queries: clipperv1.NewQueryServiceClient(conn), feedback: clipperv1.NewFeedbackServiceClient(conn),
		ctx: ctx, stop: make(chan struct{}),
	}
	for range callers {
		t.work.Go(t.call)
	}
	t.work.Go(t.watch)
	return t
}

// end waits until everything that was sent is acknowledged.
func (t *traffic) end() {
	t.ending.Do(func() { close(t.stop) })
	t.work.Wait()
}

// stopped reports whether no more queries are to be asked.
func (t *traffic) stopped() bool {
	select {
	case <-t.stop:
		return true
	case <-t.ctx.Done():
		return true
	default:
		return false
	}
}

// fail keeps the first failure and ends the traffic.
func (t *traffic) fail(err error) {
	t.failing.Do(func() { t.failure = err })
	t.ending.Do(func() { close(t.stop) })
}

// call is one caller.
func (t *traffic) call() {
	input := []*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{1}, Data: make([]byte, 4)}}
	query := &clipperv1.QueryBatchRequest{Application: app}
	for range items {
		query.Queries = append(query.Queries, &clipperv1.BatchQuery{Inputs: input})
	}
	for !t.stopped() {
		ctx, cancel := context.WithTimeout(t.ctx, callTimeout)
		answer, err := t.queries.QueryBatch(ctx, query)
		cancel()
		if err != nil {
			_ = pause(t.ctx, retry)
			continue
		}
		var open []*clipperv1.FeedbackRequest
		for i, r := range answer.Results {
			// An answer that no model has a part in has nothing to learn from.
			if response := r.GetResponse(); response.GetFeedbackId() != "" && !response.IsDefault {
				open = append(open, &clipperv1.FeedbackRequest{
					FeedbackId:  response.FeedbackId,
					Observation: &clipperv1.FeedbackRequest_Truth{Truth: structpb.NewNumberValue(float64(i % 2))},
				})
			}
		}
		if len(open) == 0 { // The selector is away.
			_ = pause(t.ctx, retry)
			continue
		}
		if err := t.tell(open); err != nil {
			t.fail(err)
			return
		}
	}
}

// tell gives feedback until all of it is acknowledged.
func (t *traffic) tell(open []*clipperv1.FeedbackRequest) error {
	t.underWay.Add(int64(len(open)))
	for again := false; len(open) > 0; again = true {
		if again {
			t.repeated.Add(int64(len(open)))
			if err := pause(t.ctx, retry); err != nil {
				return err
			}
		}
		ctx, cancel := context.WithTimeout(t.ctx, callTimeout)
		response, err := t.feedback.FeedbackBatch(ctx, &clipperv1.FeedbackBatchRequest{Application: app, Items: open})
		cancel()
		switch status.Code(err) {
		case codes.OK:
		case codes.Unavailable, codes.DeadlineExceeded:
			continue
		default:
			return fmt.Errorf("feedback: %w", err)
		}
		var rest []*clipperv1.FeedbackRequest
		for i, r := range response.Results {
			if e := r.GetError(); e != nil {
				if code := codes.Code(e.Code); code != codes.Unavailable && code != codes.DeadlineExceeded {
					return fmt.Errorf("feedback: %v", e)
				}
				rest = append(rest, open[i])
				continue
			}
			if err := t.acknowledge(open[i], r.GetResponse()); err != nil {
				return err
			}
		}
		open = rest
	}
	return nil
}

var errNotLearned = errors.New("feedback was acknowledged without a loss")

func (t *traffic) acknowledge(f *clipperv1.FeedbackRequest, r *clipperv1.FeedbackResponse) error {
	if len(r.Losses) != 1 {
		return errNotLearned
	}
	t.underWay.Add(-1)
	t.acknowledged.Add(1)
	if f.GetTruth().GetNumberValue() != 0 { // What the model says.
		t.wrong.Add(1)
	}
	if r.Duplicate {
		t.duplicates.Add(1)
	}
	if r.Buffered {
		t.buffered.Add(1)
	}
	return nil
}

// await waits until so much more is acknowledged.
func (t *traffic) await(ctx context.Context, more int64) error {
	goal := t.acknowledged.Load() + more
	for end := time.Now().Add(patience); t.acknowledged.Load() < goal; {
		if t.stopped() || time.Now().After(end) {
			return errors.Join(errors.New("feedback is not acknowledged any more"), ctx.Err())
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// watch keeps what was acknowledged when.
func (t *traffic) watch() {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !t.stopped() {
		now := <-tick.C
		t.mu.Lock()
		t.seconds = append(t.seconds, sample{now, t.acknowledged.Load()})
		for len(t.seconds) > 1 && now.Sub(t.seconds[1].at) > time.Second {
			t.seconds = t.seconds[1:]
		}
		t.mu.Unlock()
	}
}

// lastSecond is how much was acknowledged in the last second.
func (t *traffic) lastSecond() float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.seconds) == 0 {
		return 0
	}
	return float64(t.acknowledged.Load() - t.seconds[0].acknowledged)
}
