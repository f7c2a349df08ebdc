// SPDX-License-Identifier: Apache-2.0

// Package audit writes who did what, to what, when, and with which outcome: one JSON object on a line for
// each call of administration. What a call carries is not written, so no secret can be in it.
package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// Entry is one call.
type Entry struct {
	Caller   string // "key:1a2b3c4d5e6f", "token:SUBJECT", "anonymous".
	Name     string // What people call the caller; may be empty.
	Peer     string // Where it called from.
	Method   string // The full gRPC method.
	Resource string // What it was done to, such as "applications/digits"; may be empty.
	Outcome  string // The gRPC code, "OK".
	Reason   string // The reason of an error; may be empty.
	Took     time.Duration
}

// Log is an audit log. A nil Log writes nothing. Safe for concurrent use.
type Log struct {
	path  string // Empty when it is not a file.
	lines *slog.Logger
	log   *slog.Logger

	mu   sync.Mutex
	out  io.Writer
	file *os.File
	bad  bool // The last line could not be written.
}

// Open opens a log: "stderr", or a file that is appended to and only its owner can read. Nil for "".
func Open(path string, stderr io.Writer, log *slog.Logger) (*Log, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // A nil Log is one.
	}
	l := &Log{log: log, out: stderr}
	if path != "stderr" {
		l.path = path
		if err := l.reopen(); err != nil {
			return nil, err
		}
	}
	l.lines = slog.New(slog.NewJSONHandler(writer{l}, nil))
	return l, nil
}

// reopen opens the file by its name, which may by now be that of another.
func (l *Log) reopen() error {
	file, err := os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the audit log: %w", err)
	}
	l.mu.Lock()
	old := l.file
	l.file, l.out = file, file
	l.mu.Unlock()
	if old != nil {
		return old.Close()
	}
	return nil
}

// Run opens the file again at each SIGHUP, after it was renamed, until ctx is done.
func (l *Log) Run(ctx context.Context) error {
	if l == nil || l.path == "" {
		return nil
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	return l.follow(ctx, hangup)
}

func (l *Log) follow(ctx context.Context, hangup <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
			if err := l.reopen(); err != nil {
				l.log.Error("the audit log goes on in the file that was open", "error", err)
				continue
			}
			l.log.Info("opened the audit log again", "path", l.path)
		}
	}
}

// Close closes the file.
func (l *Log) Close() error {
	if l == nil || l.file == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

// Write writes an entry.
func (l *Log) Write(ctx context.Context, e *Entry) {
	if l == nil {
		return
	}
	attrs := []slog.Attr{slog.String("caller", e.Caller)}
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	text("name", e.Name)
	text("peer", e.Peer)
	text("method", e.Method)
	text("resource", e.Resource)
	text("outcome", e.Outcome)
	text("reason", e.Reason)
	attrs = append(attrs, slog.Float64("took_ms", float64(e.Took.Microseconds())/1000))
	l.lines.LogAttrs(ctx, slog.LevelInfo, "audit", attrs...)
}

// writer writes whole lines to what is open.
type writer struct{ l *Log }

func (w writer) Write(line []byte) (int, error) {
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	n, err := w.l.out.Write(line)
	if err != nil && !w.l.bad && !errors.Is(err, os.ErrClosed) {
		w.l.log.Error("the audit log cannot be written", "error", err)
	}
	w.l.bad = err != nil
	return n, err
}
