// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clipper-serving/clipper/abstraction/prediction"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// Saturation keeps a number of queries under way: each that is answered is followed by the next at
// once, from the goroutine that brought the answer.
type Saturation struct {
	// Outstanding is the number of queries.
	Outstanding int
	// Warm is the time before the measurement, For that of it.
	Warm, For time.Duration
	// Input returns the input of the n-th query, counted from 0. It is called from several goroutines.
	Input func(n int64) *tensor.Input
	// Begin and End are called at the begin and the end of the measurement. May be nil.
	Begin, End func()
}

// Saturate puts a closed load on the layer. Queries have a minute's time; one that fails ends the
// measurement. It returns the answers per second and the answers that were counted.
func (l *Layer) Saturate(ctx context.Context, cfg Saturation) (rate float64, answers int64, err error) {
	s := &saturation{layer: l, ctx: ctx, input: cfg.Input}
	s.running.Add(cfg.Outstanding)
	slots := make([]slot, cfg.Outstanding)
	for i := range slots {
		slots[i].saturation = s
		go slots[i].next() // It does not return as long as all that it asks for is in the cache.
	}
	wait := func(d time.Duration) {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
	wait(cfg.Warm)
	if cfg.Begin != nil {
		cfg.Begin()
	}
	begin, before := time.Now(), s.answers.Load()
	wait(cfg.For)
	answers = s.answers.Load() - before
	rate = float64(answers) / time.Since(begin).Seconds()
	if cfg.End != nil {
		cfg.End()
	}
	s.over.Store(true)
	s.running.Wait()
	if f := s.failure.Load(); f != nil {
		return 0, 0, fmt.Errorf("a query failed: %w", f)
	}
	return rate, answers, ctx.Err()
}

type saturation struct {
	layer   *Layer
	ctx     context.Context
	input   func(int64) *tensor.Input
	count   atomic.Int64
	answers atomic.Int64
	over    atomic.Bool
	failure atomic.Pointer[prediction.Error]
	running sync.WaitGroup // the slots
}

// slot is one of the queries under way. Its request is used again when it has been answered.
type slot struct {
	saturation *saturation
	request    prediction.Request
	turn       atomic.Int32
}

// Whose turn it is to submit the slot's next query: an answer may come before Submit returns.
const (
	submitting int32 = iota
	waiting
	answered
)

// next submits queries until one is under way. It is a loop, since answers that come at once would
// otherwise nest.
func (s *slot) next() {
	for {
		if s.saturation.over.Load() {
			s.saturation.running.Done()
			return
		}
		s.turn.Store(submitting)
		s.request = prediction.Request{
			Context: s.saturation.ctx, Input: s.saturation.input(s.saturation.count.Add(1) - 1),
			Deadline: time.Now().Add(time.Minute), Receiver: s,
		}
		s.saturation.layer.Version.Submit(&s.request)
		if s.turn.CompareAndSwap(submitting, waiting) {
			return // Receive goes on.
		}
	}
}

// Receive implements prediction.Receiver.
func (s *slot) Receive(_ int, r prediction.Result) {
	if r.Err != nil {
		s.saturation.failure.Store(r.Err)
		s.saturation.over.Store(true)
	}
	s.saturation.answers.Add(1)
	if !s.turn.CompareAndSwap(submitting, answered) {
		s.next()
	}
}
