// SPDX-License-Identifier: Apache-2.0

// Package gather turns concurrent calls into few batches: whoever calls while a
// batch is under way goes out with the next one. No call is ever delayed to wait
// for company, so a lone caller pays nothing. This is the group commit of the
// embedded store and the pipelining of the Redis store.
package gather

import (
	"context"
	"errors"
	"sync"
)

// ErrClosed is returned by [Gatherer.Do] after Close.
var ErrClosed = errors.New("closed")

// Gatherer batches calls. It is safe for concurrent use.
type Gatherer[T any] struct {
	flush   func([]T)
	max     int
	calls   chan call[T]
	closing chan struct{}
	close   sync.Once
	workers sync.WaitGroup
}

type call[T any] struct {
	item T
	done chan struct{}
}

// New starts a gatherer that hands at most limit items at a time to flush, from
// as many goroutines as workers says. Results go into the items, which are
// therefore pointers.
func New[T any](workers, limit int, flush func(items []T)) *Gatherer[T] {
	g := &Gatherer[T]{
		flush:   flush,
		max:     limit,
		calls:   make(chan call[T]),
		closing: make(chan struct{}),
	}
	for range workers {
		g.workers.Go(g.work)
	}
	return g
}

// Do returns nil when item was flushed. Otherwise it returns [ErrClosed], and the
// item was and will not be flushed, or the error of ctx: then the item may
// be flushed yet, and the caller must leave it alone.
func (g *Gatherer[T]) Do(ctx context.Context, item T) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c := call[T]{item: item, done: make(chan struct{})}
	select {
	case g.calls <- c:
	case <-ctx.Done():
		return ctx.Err()
	case <-g.closing:
		return ErrClosed
	}
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close waits for the batches under way. It may be called twice.
func (g *Gatherer[T]) Close() {
	g.close.Do(func() { close(g.closing) })
	g.workers.Wait()
}

func (g *Gatherer[T]) work() {
	var items []T
	var waiting []chan struct{}
	add := func(c call[T]) {
		items = append(items, c.item)
		waiting = append(waiting, c.done)
	}
	for {
		select {
		case c := <-g.calls:
			add(c)
		case <-g.closing:
			return
		}
	drain:
		for len(items) < g.max {
			select {
			case c := <-g.calls:
				add(c)
			default:
				break drain
			}
		}
		g.flush(items)
		for _, done := range waiting {
			close(done)
		}
		clear(items) // lets the garbage collector have them
		items, waiting = items[:0], waiting[:0]
	}
}
