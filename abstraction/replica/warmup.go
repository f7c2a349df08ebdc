// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"errors"
	"fmt"
	"time"

	"github.com/clipper-serving/clipper/abstraction/batching"
	"github.com/clipper-serving/clipper/abstraction/prediction"
	"github.com/clipper-serving/clipper/abstraction/queue"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

const (
	// maxWarmUpRows and maxWarmUpBytes are the sizes up to which warm-up batches grow.
	maxWarmUpRows  = 1024
	maxWarmUpBytes = 16 << 20
	// longWarmUpBatch is the latency from which on they do not grow: with larger ones few deadlines
	// are met.
	longWarmUpBatch = 100 * time.Millisecond
)

// warmUpResult is what became of one batch.
type warmUpResult struct {
	latency time.Duration
	err     *prediction.Error // of the batch or of its first row that has one
}

// errWarmUpLate ends the session of a container that has not answered a warm-up batch in time.
var errWarmUpLate = errors.New("the warm-up took longer than its time limit")

// warmUp sends batches of 1, 2, 4, ... sample inputs before the container gets queries, so that what
// is done at first use is done, and the batch controller knows how the latency grows. Each size is
// sent twice: the first may be cold and tells nothing. A container that cannot predict inputs that
// were chosen here is as good as before; one that cannot predict those that were given with the
// version is an error.
//
// A container is warm until the connection is lost: behind the next one there may be another process.
func (s *session) warmUp() error {
	r := s.replica
	if r.cfg.WarmUp == nil || r.warm {
		return nil
	}
	inputs, given := r.cfg.WarmUp.Begin(r.cfg.ID, s.signature)
	if len(inputs) == 0 {
		return nil
	}
	r.setWarmingUp(true)
	defer r.setWarmingUp(false)
	if !r.warmUpFailed { // Otherwise the reason stays to be seen.
		r.setState(clipperv1.ReplicaState_REPLICA_STATE_STARTING, "warming up")
	}
	begin := time.Now()
	rows, err := s.growBatches(inputs, begin.Add(r.cfg.WarmUp.TimeLimit()))
	failed := errors.As(err, new(*prediction.Error))
	switch {
	case err == nil:
		r.metrics.WarmUpsDone.Inc()
		r.logger.Info("container is warm", "largest_batch", rows, "time", time.Since(begin))
	case failed || errors.Is(err, errWarmUpLate):
		r.metrics.WarmUpsFailed.Inc()
	default: // Lost, or no longer wanted.
		if r.pull.Err() == nil {
			r.metrics.WarmUpsFailed.Inc()
		}
		return err
	}
	r.cfg.WarmUp.End(r.cfg.ID)
	r.warmUpFailed = err != nil && given
	switch {
	case r.warmUpFailed:
		return unacceptableError{fmt.Errorf("the warm-up with the version's sample inputs failed in a batch of %d: %w. "+
			"Correct the model or warm_up, and deploy it as a new version", rows, err)}
	case err != nil:
		r.logger.Warn("warm-up with chosen inputs failed", "rows", rows, "cause", err)
	}
	r.warm = true
	if errors.Is(err, errWarmUpLate) {
		return err // What is still under way must not be in the way of queries: a new stream begins.
	}
	return nil
}

// growBatches sends the batches until they are large enough, or the next would end later than end.
// It returns the size of the last one, and a *prediction.Error when the container answered it with
// an error.
func (s *session) growBatches(inputs []*tensor.Input, end time.Time) (rows int, err error) {
	late := time.NewTimer(time.Until(end))
	defer late.Stop()
	limit := s.warmUpRows(inputs)
	for rows = 1; ; rows = min(2*rows, limit) {
		var last time.Duration
		for cold := range 2 {
			res, err := s.warmUpBatch(inputs, rows, end, late.C)
			if err != nil {
				return rows, err
			}
			if cold > 0 {
				s.replica.observe(batching.Observation{Rows: rows, Latency: res})
			}
			last = res
		}
		if rows == limit || last > longWarmUpBatch || 4*last > time.Until(end) {
			return rows, nil
		}
	}
}

// warmUpRows is the size up to which batches grow: what the configuration and the container allow,
// and no more than is of use.
func (s *session) warmUpRows(inputs []*tensor.Input) int {
	largest := 1
	for _, in := range inputs {
		largest = max(largest, queue.InputBytes(in))
	}
	return max(1, min(s.maxRows, maxWarmUpRows, maxWarmUpBytes/largest, s.maxBytes/largest))
}

// warmUpBatch sends one batch and returns how long it took.
func (s *session) warmUpBatch(inputs []*tensor.Input, rows int, end time.Time, late <-chan time.Time) (time.Duration, error) {
	b := &batch{warmUp: make(chan warmUpResult, 1)}
	for i := range rows {
		in := inputs[i%len(inputs)]
		if n := queue.InputBytes(in); n > s.maxBytes {
			return 0, failure("an input has %d bytes, more than the %d that the container takes", n, s.maxBytes)
		}
		b.items = append(b.items, queue.Item{Request: &prediction.Request{Input: in, Deadline: end}})
	}
	s.transmit(b)
	select {
	case res := <-b.warmUp:
		if res.err != nil {
			return 0, res.err
		}
		return res.latency, nil
	case <-late:
		return 0, errWarmUpLate
	case <-s.pull.Done(): // So it is when the session ends, too.
		return 0, errNotServing
	}
}

// warmedUp tells the sender what became of a warm-up batch. What it predicts is thrown away.
func (s *session) warmedUp(b *batch, resp *clipperv1.PredictResponse) {
	res := warmUpResult{latency: b.latency}
	if resp.Error != nil {
		res.err = containerError(resp.Error)
	} else if _, err := Split(resp, len(b.items), s.outputs); err != nil {
		res.err = unusable(err)
	} else if len(resp.RowErrors) > 0 {
		res.err = containerError(resp.RowErrors[0].Error)
	}
	b.warmUp <- res
}
