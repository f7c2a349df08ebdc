// SPDX-License-Identifier: Apache-2.0

package kubernetestest

import (
	"bytes"
	"context"
	"io"
	"sync"
	"time"
)

// Output is what a container has written, each line behind its time and a space.
type Output struct {
	mu      sync.Mutex
	text    []byte
	within  bool // a line
	ended   bool
	changed chan struct{} // closed when there is more, or it has ended
}

func newOutput() *Output { return &Output{changed: make(chan struct{})} }

// Write implements io.Writer.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for line := range bytes.Lines(p) {
		if !o.within {
			o.text = time.Now().UTC().AppendFormat(o.text, "2006-01-02T15:04:05.000000000Z ")
		}
		o.text = append(o.text, line...)
		o.within = !bytes.HasSuffix(line, []byte("\n"))
	}
	o.wake()
	return len(p), nil
}

func (o *Output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.wake()
}

func (o *Output) wake() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// reader reads the last lines, all if that is negative, and what comes after them.
func (o *Output) reader(ctx context.Context, lines int, follow bool) *Reader {
	o.mu.Lock()
	defer o.mu.Unlock()
	at := 0
	if lines >= 0 {
		at = len(o.text)
		for range lines {
			at = bytes.LastIndexByte(bytes.TrimSuffix(o.text[:at], []byte("\n")), '\n') + 1
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	return &Reader{output: o, at: at, follow: follow, ctx: ctx, cancel: cancel}
}

// Reader reads an [Output].
type Reader struct {
	output *Output
	at     int
	follow bool
	ctx    context.Context
	cancel context.CancelFunc
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	for {
		r.output.mu.Lock()
		n := copy(p, r.output.text[r.at:])
		r.at += n
		ended, changed := r.output.ended || !r.follow, r.output.changed
		r.output.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		if ended {
			return 0, io.EOF
		}
		select {
		case <-changed:
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
	}
}

// Close implements io.Closer.
func (r *Reader) Close() error {
	r.cancel()
	return nil
}
