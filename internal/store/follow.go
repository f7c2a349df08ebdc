// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// retryAfter is how long a follower waits after an error before it lists again.
	retryAfter = 250 * time.Millisecond

	// minWait keeps a lease that is about to end from making a follower spin.
	minWait = 10 * time.Millisecond
)

// Follower keeps an immutable, decoded copy of the documents under a prefix. Reading
// it takes no lock and no round trip, which is how services read configuration on
// the way of a query. It is safe for concurrent use.
type Follower[T any] struct {
	docs   Documents
	prefix string
	decode func(Document) (T, error)
	resync time.Duration
	log    *slog.Logger

	current atomic.Pointer[Snapshot[T]]
	turn    chan struct{} // held by the one who lists, so that snapshots never go back in time
	stop    context.CancelFunc
	done    chan struct{}
}

// FollowConfig holds what a [Follower] may be told.
type FollowConfig struct {
	// Resync is the longest time between two looks at the store, so that a change
	// whose signal was lost is seen anyway. Zero means 5 seconds.
	Resync time.Duration

	// Log is told about documents that cannot be decoded and about the store going
	// away and coming back. Nil means nobody is.
	Log *slog.Logger
}

// Follow starts following the documents whose key begins with prefix. The first
// snapshot is empty; [Follower.Refresh] waits for the store. decode is called once
// per revision of a document, by one goroutine at a time, and must not change the
// bytes of the document. When it fails, the last value that could be decoded stays
// in the snapshot. The caller closes the follower.
func Follow[T any](docs Documents, prefix string, decode func(Document) (T, error), cfg FollowConfig) *Follower[T] {
	ctx, stop := context.WithCancel(context.Background())
	f := &Follower[T]{
		docs:   docs,
		prefix: prefix,
		decode: decode,
		resync: cmp.Or(cfg.Resync, 5*time.Second),
		log:    cmp.Or(cfg.Log, slog.New(slog.DiscardHandler)),
		turn:   make(chan struct{}, 1),
		stop:   stop,
		done:   make(chan struct{}),
	}
	f.current.Store(&Snapshot[T]{index: map[string]int{}, replaced: make(chan struct{})})
	go f.run(ctx)
	return f
}

// Snapshot returns the current copy, never nil.
func (f *Follower[T]) Snapshot() *Snapshot[T] { return f.current.Load() }

// Refresh lists the store now. When it returns nil, Snapshot holds every write that
// had returned before the call, so that a writer sees what it wrote.
func (f *Follower[T]) Refresh(ctx context.Context) error {
	_, err := f.refresh(ctx)
	return err
}

// Close stops following. The last snapshot stays readable.
func (f *Follower[T]) Close() {
	f.stop()
	<-f.done
}

func (f *Follower[T]) run(ctx context.Context) {
	defer close(f.done)
	changed := f.docs.Watch(ctx, f.prefix)
	timer := time.NewTimer(0)
	defer timer.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case _, open := <-changed:
			if !open {
				return // the store is closed
			}
		case <-timer.C:
		}
		wait, err := f.refresh(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if !failing {
				f.log.Warn("store does not answer, going on with the last known documents", "prefix", f.prefix, "error", err)
			}
			wait = retryAfter
		case failing:
			f.log.Info("store answers again", "prefix", f.prefix)
		}
		failing = err != nil
		timer.Reset(wait)
	}
}

// refresh lists the documents, and returns how long the result can be trusted not
// to change without a signal.
func (f *Follower[T]) refresh(ctx context.Context) (time.Duration, error) {
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return 0, fmt.Errorf("follow %q: %w: %w", f.prefix, ErrUnavailable, ctx.Err())
	}
	ctx, cancel := context.WithTimeout(ctx, f.resync)
	defer cancel()
	docs, err := f.docs.List(ctx, f.prefix)
	if err != nil {
		return 0, fmt.Errorf("follow %q: %w", f.prefix, err)
	}

	wait := f.resync
	for _, doc := range docs {
		if doc.TTL > 0 {
			wait = min(wait, max(doc.TTL, minWait))
		}
	}
	old := f.current.Load()
	if same := slices.EqualFunc(old.seen, docs, func(a, b Document) bool {
		return a.Key == b.Key && a.Revision == b.Revision && bytes.Equal(a.Value, b.Value)
	}); same && old.synced {
		return wait, nil
	}
	f.current.Store(f.next(old, docs))
	close(old.replaced)
	return wait, nil
}

func (f *Follower[T]) next(old *Snapshot[T], docs []Document) *Snapshot[T] {
	s := &Snapshot[T]{
		seen:     docs,
		index:    make(map[string]int, len(docs)),
		replaced: make(chan struct{}),
		synced:   true,
	}
	for _, doc := range docs {
		entry, ok := f.entry(old, doc)
		if ok {
			s.index[doc.Key] = len(s.entries)
			s.entries = append(s.entries, entry)
		}
	}
	return s
}

// entry decodes a document, unless old has it already.
func (f *Follower[T]) entry(old *Snapshot[T], doc Document) (Entry[T], bool) {
	var last *Document
	if i, found := slices.BinarySearchFunc(old.seen, doc.Key, func(d Document, key string) int {
		return cmp.Compare(d.Key, key)
	}); found {
		last = &old.seen[i]
	}
	before, known := old.Get(doc.Key)
	if last != nil && last.Revision == doc.Revision && bytes.Equal(last.Value, doc.Value) {
		return before, known
	}
	value, err := f.decode(doc)
	if err != nil {
		f.log.Error("document cannot be decoded", "key", doc.Key, "revision", uint64(doc.Revision), "last_good_kept", known, "error", err)
		return before, known
	}
	return Entry[T]{Key: doc.Key, Revision: doc.Revision, Value: value}, true
}

// Entry is a decoded document.
type Entry[T any] struct {
	Key      string
	Revision Revision
	Value    T
}

// Snapshot is what the documents under a prefix were at one moment. It never
// changes, so it is safe for concurrent use as far as T is.
type Snapshot[T any] struct {
	entries  []Entry[T] // sorted by key
	index    map[string]int
	seen     []Document // as listed, to tell what changed
	replaced chan struct{}
	synced   bool
}

// Get returns the entry with the key.
func (s *Snapshot[T]) Get(key string) (Entry[T], bool) {
	i, ok := s.index[key]
	if !ok {
		return Entry[T]{}, false
	}
	return s.entries[i], true
}

// All iterates over the entries in the order of their keys.
func (s *Snapshot[T]) All() iter.Seq[Entry[T]] { return slices.Values(s.entries) }

// Len returns the number of entries.
func (s *Snapshot[T]) Len() int { return len(s.entries) }

// Synced says whether the store has been read at all: false only for the empty
// snapshot with which a follower begins.
func (s *Snapshot[T]) Synced() bool { return s.synced }

// Replaced returns a channel that is closed when a newer snapshot exists. A reader
// that takes the next snapshot then never misses the last change:
//
//	for {
//		s := follower.Snapshot()
//		use(s)
//		<-s.Replaced()
//	}
func (s *Snapshot[T]) Replaced() <-chan struct{} { return s.replaced }
