// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/internal/store/journal"
)

const (
	// replayAtOnce is how many additions are handed over at once, enough for the store to share round
	// trips between them.
	replayAtOnce = 512
	// replayRetry is how long the journal is left alone after it could not be read, or handed over although
	// the store answers.
	replayRetry = 5 * time.Second
)

// buffer is the feedback that the store has still to get, in a journal. Each record is the addition
// that it would have made, with its identity, so that handing it over twice counts once. Safe for
// concurrent use.
type buffer struct {
	journal *journal.Journal

	mu     sync.Mutex
	keys   map[string]*waiting
	count  int       // of what is in the journal
	oldest time.Time // likewise; zero when it is empty
}

// waiting is what the journal adds to the sums of a key.
type waiting struct {
	count int
	sums  map[string]float64
}

// openBuffer opens the journal of a folder and reads what an earlier process has left there.
func openBuffer(dir string, limit int64) (*buffer, error) {
	j, err := journal.Open(dir, limit)
	if err != nil {
		return nil, err
	}
	b := &buffer{journal: j, keys: map[string]*waiting{}}
	err = j.Each(func(record []byte) error {
		f := &internalv1.BufferedFeedback{}
		if readRecord(record, f) { // If it cannot be read, replay says so.
			b.enter(f)
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return b, nil
}

// openBuffer opens the service's buffer, if it is to have one.
func (s *Service) openBuffer() error {
	if s.cfg.FeedbackBuffer == "" {
		return nil
	}
	b, err := openBuffer(s.cfg.FeedbackBuffer, int64(s.cfg.FeedbackBufferSize))
	if err != nil {
		return fmt.Errorf("feedback-buffer: %w", err)
	}
	s.buffer = b
	for _, gauge := range b.gauges() {
		if err := s.deps.Registerer.Register(gauge); err != nil {
			return errors.Join(err, b.journal.Close())
		}
	}
	if n := b.entries(); n > 0 {
		s.log.Info("feedback waits in the buffer", "count", n)
		s.outage.signal()
	}
	return nil
}

func (s *Service) closeBuffer() {
	if s.buffer == nil {
		return
	}
	if err := s.buffer.journal.Close(); err != nil {
		s.log.Warn("the feedback buffer was not closed well", "error", err)
	}
}

// readRecord reads a record and reports whether it is one.
func readRecord(record []byte, f *internalv1.BufferedFeedback) bool {
	if proto.Unmarshal(record, f) != nil {
		return false
	}
	return !slices.ContainsFunc(f.Updates, func(u *internalv1.BufferedUpdate) bool { return len(u.Fields) != len(u.Deltas) })
}

// enter counts a record of the journal.
func (b *buffer) enter(f *internalv1.BufferedFeedback) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count++
	if given := f.Given.AsTime(); b.oldest.IsZero() || given.Before(b.oldest) {
		b.oldest = given
	}
	for _, u := range f.Updates {
		w := b.keys[string(u.Key)]
		if w == nil {
			w = &waiting{sums: make(map[string]float64, len(u.Fields))}
			b.keys[string(u.Key)] = w
		}
		w.count++
		for i, field := range u.Fields {
			w.sums[field] += u.Deltas[i]
		}
	}
}

// leave takes a record out again.
func (b *buffer) leave(f *internalv1.BufferedFeedback) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count--
	for _, u := range f.Updates {
		w := b.keys[string(u.Key)]
		if w.count--; w.count == 0 { // The sums may have a rounding error left.
			delete(b.keys, string(u.Key))
			continue
		}
		for i, field := range u.Fields {
			w.sums[field] -= u.Deltas[i]
		}
	}
	if b.count == 0 {
		b.oldest = time.Time{}
	}
}

// addTo adds to the sums of a key what the store has still to get.
func (b *buffer) addTo(key string, sums map[string]float64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if w := b.keys[key]; w != nil {
		for field, x := range w.sums {
			sums[field] += x
		}
	}
}

// learned is what the store has still to get for a key, or nil.
func (b *buffer) learned(app *application, key string) *learned {
	sums := map[string]float64{}
	b.addTo(key, sums)
	if len(sums) == 0 {
		return nil
	}
	return app.learned(sums)
}

// age is how long ago the oldest feedback that waits was given.
func (b *buffer) age() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.oldest.IsZero() {
		return 0
	}
	return time.Since(b.oldest)
}

// entries is how many feedbacks wait.
func (b *buffer) entries() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count
}

// gauges are its measurements that are read when they are asked for.
func (b *buffer) gauges() []prometheus.Collector {
	gauge := func(name, help string, read func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "clipper_selector_feedback_buffer_" + name, Help: help}, read)
	}
	return []prometheus.Collector{
		gauge("entries", "Feedback that waits in the buffer.", func() float64 { return float64(b.entries()) }),
		gauge("bytes", "Size of the files of the feedback buffer.", func() float64 { return float64(b.journal.Size()) }),
		gauge("age_seconds", "Time since the oldest feedback that waits in the buffer was given.", func() float64 { return b.age().Seconds() }),
	}
}

// keep keeps an addition until the store can be reached, and returns when that is durable. If the store can
// be reached only after its identity has expired, it is dropped.
func (b *buffer) keep(ctx context.Context, app *application, once identity, updates []store.Update) error {
	f := &internalv1.BufferedFeedback{
		Application: app.name, Incarnation: app.incarnation,
		Once: []byte(once.name), Remember: durationpb.New(once.remember),
		Given: timestamppb.Now(), Expires: timestamppb.New(once.expires),
	}
	for _, u := range updates {
		update := &internalv1.BufferedUpdate{Key: []byte(u.Key), Life: durationpb.New(u.TTL)}
		for field, delta := range u.Deltas {
			update.Fields = append(update.Fields, field)
			update.Deltas = append(update.Deltas, delta)
		}
		f.Updates = append(f.Updates, update)
	}
	record, err := proto.Marshal(f)
	if err != nil {
		return err
	}
	if err := b.journal.Append(ctx, record); err != nil {
		return err
	}
	b.enter(f)
	return nil
}

// replay hands over what is buffered until nothing is left or the store is away again, and returns
// false when the service ends.
func (s *Service) replay() bool {
	for !s.buffer.journal.Empty() {
		unreadable, err := s.buffer.journal.Take(replayAtOnce, s.handOver)
		switch {
		case s.ctx.Err() != nil:
			return false
		case err != nil:
			s.log.Error("the feedback buffer cannot be read, trying again", "error", err)
			s.sleep(replayRetry)
		case unreadable > 0:
			// After a crash this is what had not been acknowledged; else the disk has lost something.
			s.metrics.dropped.WithLabelValues("unreadable").Inc()
			s.log.Warn("the end of a file of the feedback buffer cannot be read and was left out", "bytes", unreadable)
		}
	}
	return true
}

// sleep returns true after a while, and false when the service ends.
func (s *Service) sleep(d time.Duration) bool {
	select {
	case <-s.ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// handOver gives records to the store. It returns an error only when the service ends: else it waits
// for the store as long as it takes.
func (s *Service) handOver(records [][]byte) error {
	var rest []*internalv1.BufferedFeedback
	dropped := map[string]int{}
	for _, record := range records {
		f := &internalv1.BufferedFeedback{}
		if !readRecord(record, f) {
			dropped["unreadable"]++
			continue
		}
		rest = append(rest, f)
	}
	for round := 0; len(rest) > 0; round++ {
		// The first time the store was found to be away; if it answers and still takes no record, there is no hurry.
		if round > 1 && !s.sleep(replayRetry) {
			return s.ctx.Err()
		}
		outcomes := make([]error, len(rest))
		var calls sync.WaitGroup
		for i, f := range rest {
			calls.Go(func() { outcomes[i] = s.handOverOne(f) })
		}
		calls.Wait()
		var again []*internalv1.BufferedFeedback
		for i, f := range rest {
			var d dropError
			switch {
			case errors.Is(outcomes[i], store.ErrUnavailable):
				again = append(again, f)
				continue
			case errors.As(outcomes[i], &d):
				dropped[string(d)]++
			}
			s.buffer.leave(f)
		}
		if rest = again; len(rest) > 0 && !s.awaitStore() {
			return s.ctx.Err()
		}
	}
	for reason, n := range dropped {
		s.metrics.dropped.WithLabelValues(reason).Add(float64(n))
		s.log.Warn("buffered feedback was dropped", "reason", reason, "count", n)
	}
	return nil
}

// dropError says why a buffered feedback is not handed over, as a label of the measurements.
type dropError string

func (d dropError) Error() string { return fmt.Sprintf("dropped: %s", string(d)) }

// handOverOne gives one record to the store. Errors are [store.ErrUnavailable] and dropError.
func (s *Service) handOverOne(f *internalv1.BufferedFeedback) error {
	if time.Now().After(f.Expires.AsTime()) {
		return dropError("expired")
	}
	app, err := s.application(f.Application)
	if err != nil || app.incarnation != f.Incarnation {
		return dropError("application_gone")
	}
	var updates []store.Update
	for _, u := range f.Updates {
		if app.overCanary(string(u.Key)) {
			continue // Its sums have been deleted, or are about to be.
		}
		update := store.Update{Key: string(u.Key), Deltas: make(map[string]float64, len(u.Fields)), TTL: u.Life.AsDuration()}
		for k, field := range u.Fields {
			update.Deltas[field] = u.Deltas[k]
		}
		updates = append(updates, update)
	}
	applied, err := s.add(s.ctx, string(f.Once), f.Remember.AsDuration(), updates)
	switch {
	case errors.Is(err, store.ErrUnavailable):
		return err
	case err != nil:
		s.log.Error("the store refused buffered feedback", "application", f.Application, "error", err)
		return dropError("refused")
	}
	result := "counted"
	if applied {
		app.metrics.feedback.Inc()
	} else {
		app.metrics.duplicates.Inc()
		result = "duplicate"
	}
	s.metrics.replayed.WithLabelValues(result).Inc()
	return nil
}
