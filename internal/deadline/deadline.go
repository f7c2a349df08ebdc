// SPDX-License-Identifier: Apache-2.0

// Package deadline has a context with a deadline that costs a timer only while somebody waits. A
// query passes several parts that each shorten its time, and at most one of them waits.
package deadline

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Context is like one of context.WithDeadline. Its Done channel is made on demand; Wait does
// without. Safe for concurrent use.
type Context struct {
	context.Context // that it was made from, or that one's own
	outer           *Context
	at              time.Time
	cancelled       atomic.Bool

	mu     sync.Mutex
	timed  context.Context // once Done has been asked for
	cancel context.CancelFunc
}

// With returns a context that ends with parent, at the given time, or when it is cancelled. It is to
// be cancelled when nobody waits for it any more.
func With(parent context.Context, at time.Time) *Context {
	c := &Context{Context: parent, at: at}
	if outer, ok := parent.(*Context); ok {
		c.Context, c.outer = outer.Context, outer
	}
	if before, ok := parent.Deadline(); ok && before.Before(at) {
		c.at = before
	}
	return c
}

// Deadline implements context.Context.
func (c *Context) Deadline() (time.Time, bool) { return c.at, true }

// Err implements context.Context.
func (c *Context) Err() error {
	for o := c; o != nil; o = o.outer {
		if o.cancelled.Load() {
			return context.Canceled
		}
	}
	if err := c.Context.Err(); err != nil {
		return err
	}
	if !time.Now().Before(c.at) {
		return context.DeadlineExceeded
	}
	return nil
}

// Done implements context.Context.
func (c *Context) Done() <-chan struct{} { return c.standard().Done() }

// standard returns a context of the standard library that ends as c does.
func (c *Context) standard() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timed == nil {
		parent := c.Context
		if c.outer != nil {
			parent = c.outer.standard()
		}
		c.timed, c.cancel = context.WithDeadline(parent, c.at)
		if c.cancelled.Load() {
			c.cancel()
		}
	}
	return c.timed
}

// Cancel ends the context.
func (c *Context) Cancel() {
	c.cancelled.Store(true)
	c.mu.Lock()
	cancel := c.cancel
	c.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// Wait waits until there is something to receive from done, or it is closed, and returns what was
// received; or until ctx ends, and returns false. A Context that is cancelled while somebody else
// waits with it does not end that wait: only its parent and its time do.
func Wait[T any](ctx context.Context, done <-chan T) (received T, ok bool) {
	c, special := ctx.(*Context)
	if !special {
		select {
		case received = <-done:
			return received, true
		case <-ctx.Done():
			return received, false
		}
	}
	t := time.NewTimer(time.Until(c.at))
	defer t.Stop()
	select {
	case received = <-done:
		return received, true
	case <-c.Context.Done():
	case <-t.C:
	}
	return received, false
}
