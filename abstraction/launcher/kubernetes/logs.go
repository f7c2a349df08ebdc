// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clipper-serving/clipper/abstraction/launcher"
)

// Logs implements launcher.Launcher. The log of a run that has ended is what was kept of it, as long as the replica is
// wanted.
func (l *Launcher) Logs(ctx context.Context, q launcher.LogQuery, yield func(launcher.Line) error) error {
	var running *replica
	var kept []launcher.Line
	l.mu.Lock()
	if w := l.workloads[objectName(l.cfg.Installation, q.Model, q.Version)]; w != nil {
		if s := w.slots[q.Replica]; s != nil {
			running, kept = s.replica, s.log
			if q.Previous == (running == nil) {
				kept = s.before
			}
			if q.Previous {
				running = nil
			}
		}
	}
	l.mu.Unlock()
	if running != nil {
		return running.pass(ctx, q, yield)
	}
	if kept == nil {
		return launcher.ErrNoLog
	}
	return q.Pass(kept, yield)
}

// pass passes on the log of a replica that runs.
func (r *replica) pass(ctx context.Context, q launcher.LogQuery, yield func(launcher.Line) error) error {
	options := corev1.PodLogOptions{Follow: q.Follow}
	if !q.Since.IsZero() {
		since := metav1.NewTime(q.Since)
		options.SinceTime = &since
	}
	stream, err := r.stream(ctx, q.Tail, options)
	if err == nil {
		defer func() { _ = stream.Close() }()
		var refused error
		err = scan(stream, q.Since, func(line launcher.Line) error {
			refused = yield(line)
			return refused
		})
		if refused != nil {
			err = nil
			if ctx.Err() == nil {
				return refused
			}
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return r.slot.workload.launcher.explain("read the log of a pod", err)
	}
	return nil
}

// scan passes on the lines of a log that are after a time. In the log each is behind its time and a space.
func scan(log io.Reader, since time.Time, yield func(launcher.Line) error) error {
	in := bufio.NewReaderSize(log, launcher.MaxLine)
	var at time.Time
	for within := false; ; {
		part, more, err := in.ReadLine()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read: %w", err)
		}
		text := string(part)
		if !within {
			stamp, rest, _ := strings.Cut(text, " ")
			if at, err = time.Parse(time.RFC3339Nano, stamp); err != nil {
				return fmt.Errorf("a line without its time: %w", err)
			}
			text = rest
		}
		within = more
		if !at.After(since) {
			continue
		}
		if err := yield(launcher.Line{Time: at, Text: strings.ToValidUTF8(text, "\uFFFD")}); err != nil {
			return err
		}
	}
}
