// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	"github.com/clipper-serving/clipper/abstraction/launcher"
)

// Logs implements launcher.Launcher. The engine has the log of a container as long as the container is there; of
// the one before, the launcher keeps the last lines itself.
func (l *Launcher) Logs(ctx context.Context, q launcher.LogQuery, yield func(launcher.Line) error) error {
	spec := launcher.Spec{Model: q.Model, Version: q.Version, Replica: q.Replica}
	if q.Previous {
		return l.logBefore(containerName(l.cfg.Installation, spec), q, yield)
	}
	filters := client.Filters{}
	for label, value := range map[string]string{
		labelInstallation: l.cfg.Installation, labelModel: q.Model, labelVersion: q.Version, labelReplica: q.Replica,
	} {
		filters.Add("label", label+"="+value)
	}
	found, err := l.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	if err != nil {
		return l.explain("look for containers", err)
	}
	if len(found.Items) == 0 {
		return launcher.ErrNoLog
	}
	newest := found.Items[0]
	for _, c := range found.Items[1:] {
		if c.Created > newest.Created {
			newest = c
		}
	}
	if err := l.readLog(ctx, newest.ID, q, yield); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	return nil
}

// logBefore passes on what is kept of the container before.
func (l *Launcher) logBefore(name string, q launcher.LogQuery, yield func(launcher.Line) error) error {
	l.mu.Lock()
	kept, ok := l.before[name]
	l.mu.Unlock()
	if !ok {
		return launcher.ErrNoLog
	}
	return q.Pass(kept, yield)
}

func (l *Launcher) forgetLog(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.before, name)
}

// readLog passes on what the engine has of a container's log. Errors of yield come back wrapped.
func (l *Launcher) readLog(ctx context.Context, id string, q launcher.LogQuery, yield func(launcher.Line) error) error {
	options := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Follow: q.Follow, Tail: strconv.Itoa(q.Tail)}
	if !q.Since.IsZero() {
		options.Since = q.Since.UTC().Format(time.RFC3339Nano)
	}
	stream, err := l.engine.ContainerLogs(ctx, id, options)
	if err != nil {
		return l.explain("read the log of a container", err)
	}
	defer func() { _ = stream.Close() }()
	entries := entryWriter{since: q.Since, yield: yield}
	if _, err := stdcopy.StdCopy(entries, entries, stream); err != nil {
		return l.explain("read the log of a container", err)
	}
	return nil
}

// entryWriter takes entries of an engine's log, one with each Write: a time, a space, and a line or a part of a
// long one.
type entryWriter struct {
	since time.Time
	yield func(launcher.Line) error
}

// Write implements io.Writer.
func (w entryWriter) Write(entry []byte) (int, error) {
	stamp, text, _ := strings.Cut(strings.TrimSuffix(string(entry), "\n"), " ")
	// The engine's own since leaves in what is of the same time.
	if at, err := time.Parse(time.RFC3339Nano, stamp); err == nil && at.After(w.since) {
		text = strings.ToValidUTF8(strings.TrimSuffix(text, "\r"), "\uFFFD")
		if err := w.yield(launcher.Line{Time: at, Text: text}); err != nil {
			return 0, err
		}
	}
	return len(entry), nil
}
