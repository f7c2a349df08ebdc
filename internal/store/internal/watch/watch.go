// SPDX-License-Identifier: Apache-2.0

// Package watch tells those who wait for changes under a prefix that there were
// some. Both backends share it.
package watch

import (
	"context"
	"strings"
	"sync"
)

// Hub hands signals to watchers. The zero value is ready. It is safe for
// concurrent use.
type Hub struct {
	mu       sync.Mutex
	closed   bool
	watchers map[*watcher]struct{}
}

type watcher struct {
	prefix string
	signal chan struct{}
	stop   func() bool
}

// Watch returns a channel that gets a signal after changes under prefix, and is
// closed when ctx ends or the hub is closed.
func (h *Hub) Watch(ctx context.Context, prefix string) <-chan struct{} {
	w := &watcher{prefix: prefix, signal: make(chan struct{}, 1)}

	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		close(w.signal)
		return w.signal
	}
	if h.watchers == nil {
		h.watchers = make(map[*watcher]struct{})
	}
	h.watchers[w] = struct{}{}
	w.stop = context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.remove(w)
	})
	return w.signal
}

func (h *Hub) remove(w *watcher) {
	if _, ok := h.watchers[w]; !ok {
		return
	}
	delete(h.watchers, w)
	close(w.signal)
	w.stop()
}

// Notify signals those who watch a prefix of key. It never blocks: a watcher that
// has not taken its last signal will see this change when it does.
func (h *Hub) Notify(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		if strings.HasPrefix(key, w.prefix) {
			w.wake()
		}
	}
}

// NotifyAll signals everyone.
func (h *Hub) NotifyAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		w.wake()
	}
}

func (w *watcher) wake() {
	select {
	case w.signal <- struct{}{}:
	default:
	}
}

// Close closes every channel. It may be called twice.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for w := range h.watchers {
		h.remove(w)
	}
}
