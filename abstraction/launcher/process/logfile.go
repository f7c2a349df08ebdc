// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
)

const (
	// maxLogFile bounds the log file of a replica; one older file of this size is kept.
	maxLogFile = 8 << 20
	// tailLines and tailLine bound what is kept in memory of the log.
	tailLines = 100
	tailLine  = 1 << 10
)

// logFile takes what a replica writes. It keeps the last lines in memory. Safe for
// concurrent use.
type logFile struct {
	path string

	mu   sync.Mutex
	file *os.File // nil when it cannot be written
	size int64

	lines [][]byte // a ring
	next  int
	part  []byte // the line that has not ended yet
}

// openLog goes on with the log of the replica's predecessor, if there is one.
func openLog(path string) (*logFile, error) {
	l := &logFile{path: path}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open the replica's log: %w", err)
	}
	return l, nil
}

func (l *logFile) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, info.Size()
	return nil
}

// Write implements io.Writer. It always takes everything: a replica must not be held
// up, or ended, because its log cannot be written.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remember(p)
	if l.file != nil && l.size+int64(len(p)) > maxLogFile {
		l.rotate()
	}
	if l.file != nil {
		n, _ := l.file.Write(p) // a full disk: the lines in memory remain
		l.size += int64(n)
	}
	return len(p), nil
}

func (l *logFile) rotate() {
	_ = l.file.Close()
	l.file = nil
	if err := os.Rename(l.path, l.path+".1"); err != nil {
		return // without it the file would grow beyond its bound
	}
	l.size = 0
	_ = l.open()
}

func (l *logFile) remember(p []byte) {
	for len(p) > 0 {
		line, rest, ended := bytes.Cut(p, []byte("\n"))
		if room := tailLine - len(l.part); room > 0 {
			l.part = append(l.part, line[:min(room, len(line))]...)
		}
		if ended {
			l.push()
		}
		p = rest
	}
}

func (l *logFile) push() {
	line := bytes.TrimRight(l.part, "\r")
	l.part = nil
	if len(l.lines) < tailLines {
		l.lines = append(l.lines, line)
		return
	}
	l.lines[l.next] = line
	l.next = (l.next + 1) % tailLines
}

// tail returns at most n of the last lines, oldest first.
func (l *logFile) tail(n int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := make([]string, 0, len(l.lines)+1)
	for i := range l.lines {
		lines = append(lines, text(l.lines[(l.next+i)%len(l.lines)]))
	}
	if len(l.part) > 0 {
		lines = append(lines, text(l.part))
	}
	return lines[max(0, len(lines)-n):]
}

// text makes what a program wrote fit for messages, which must be UTF-8.
func text(line []byte) string { return string(bytes.ToValidUTF8(line, []byte("\uFFFD"))) }

// Close closes the file. The lines in memory stay readable.
func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}
