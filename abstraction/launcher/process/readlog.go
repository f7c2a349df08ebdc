// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/clipper-serving/clipper/abstraction/launcher"
)

// Logs implements launcher.Launcher. Logs are read from the files, so those of earlier servers are there too.
func (l *Launcher) Logs(ctx context.Context, q launcher.LogQuery, yield func(launcher.Line) error) error {
	path := l.logPath(q.Model, q.Version, q.Replica)
	files, err := openFiles(path)
	if err != nil {
		return err
	}
	r := &logReader{path: path, files: files}
	defer r.close()
	l.mu.Lock()
	live := l.replicas[q.Model+"@"+q.Version+"@"+q.Replica]
	l.mu.Unlock()
	return r.read(ctx, q, live.follow(), yield)
}

// await returns a channel that is closed when there is more in a log than at the last call, and whether there will
// be more at all.
type await func() (more <-chan struct{}, live bool)

// openFiles opens the older file of a log, if there is one, and the file.
func openFiles(path string) ([]*os.File, error) {
	for {
		file, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, launcher.ErrNoLog
		}
		if err != nil {
			return nil, fmt.Errorf("open the replica's log: %w", reason(err))
		}
		older, err := os.Open(path + ".1")
		if errors.Is(err, fs.ErrNotExist) {
			return []*os.File{file}, nil
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open the replica's log: %w", reason(err)), file.Close())
		}
		if isAt(file, path) {
			return []*os.File{older, file}, nil
		}
		// It was rotated meanwhile.
		_ = older.Close()
		_ = file.Close()
	}
}

// isAt reports whether an open file is the one that the path leads to.
func isAt(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// logReader reads the files of a log, one after the other.
type logReader struct {
	path  string
	files []*os.File // the first is being read
	input *bufio.Reader
	part  []byte // of a line whose end is not there yet
}

func (r *logReader) close() {
	for _, f := range r.files {
		_ = f.Close()
	}
}

// record is a line as it is in the file.
type record struct {
	launcher.Line
	kind byte
}

// next returns the next line, or [io.EOF] when there is none yet.
func (r *logReader) next() (record, error) {
	for {
		if r.input == nil {
			r.input = bufio.NewReaderSize(r.files[0], 64<<10)
		}
		text, err := r.input.ReadBytes('\n')
		r.part = append(r.part, text...)
		switch {
		case err == nil:
			line := r.part
			r.part = nil
			if rec, ok := parse(bytes.TrimSuffix(line, []byte("\n"))); ok {
				return rec, nil
			}
		case !errors.Is(err, io.EOF):
			return record{}, fmt.Errorf("read the replica's log: %w", reason(err))
		case len(r.files) == 1:
			return record{}, io.EOF
		default:
			_ = r.files[0].Close()
			r.files, r.input, r.part = r.files[1:], nil, nil
		}
	}
}

// parse reads a line. Others than ours are left out; there are some where a disk was full.
func parse(line []byte) (record, bool) {
	if len(line) <= len(timeFormat) {
		return record{}, false
	}
	at, err := time.Parse(timeFormat, string(line[:len(timeFormat)]))
	if err != nil {
		return record{}, false
	}
	return record{launcher.Line{Time: at, Text: text(line[len(timeFormat)+1:])}, line[len(timeFormat)]}, true
}

// read passes the lines of a run to yield.
func (r *logReader) read(ctx context.Context, q launcher.LogQuery, wait await, yield func(launcher.Line) error) error {
	last, before := launcher.Tail{Max: q.Tail}, launcher.Tail{}
	runs, ended := 0, false
	for {
		rec, err := r.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		switch rec.kind {
		case startLine:
			before, last = last, launcher.Tail{Max: q.Tail}
			runs, ended = runs+1, false
		case endLine:
			ended = true
		default:
			if rec.Time.After(q.Since) {
				last.Add(rec.Line)
			}
		}
	}
	if q.Previous {
		// The beginning of the run before may be in a file that is gone.
		if runs == 0 || runs == 1 && len(before.Lines()) == 0 {
			return launcher.ErrNoLog
		}
		last = before
	}
	for _, line := range last.Lines() {
		if err := yield(line); err != nil {
			return err
		}
	}
	if !q.Follow || ended {
		return ctx.Err()
	}
	return r.follow(ctx, q, wait, yield)
}

// follow passes on what is written until the run has ended.
func (r *logReader) follow(ctx context.Context, q launcher.LogQuery, wait await, yield func(launcher.Line) error) error {
	for {
		more, live := wait() // Before looking, so that no write is missed.
		rotated := !isAt(r.files[len(r.files)-1], r.path)
		for {
			rec, err := r.next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			if rec.kind != outputLine {
				return nil
			}
			if !rec.Time.After(q.Since) {
				continue
			}
			if err := yield(rec.Line); err != nil {
				return err
			}
		}
		if rotated {
			if newer, err := os.Open(r.path); err == nil {
				r.files = append(r.files, newer)
				continue
			}
		}
		if !live {
			return ctx.Err()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-more:
		}
	}
}
