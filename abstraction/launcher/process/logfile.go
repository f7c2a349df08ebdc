// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/clipper-serving/clipper/abstraction/launcher"
)

const (
	// maxLogFile bounds the log file of a replica; one older file of this size is kept.
	maxLogFile = 8 << 20
	// tailLines and tailLine bound what is kept in memory of the log.
	tailLines = 100
	tailLine  = 1 << 10
)

// Each line of a log file has the time first, then a byte that says what it is, and the text:
//
//	2026-03-01T12:00:00.000000000Z> replica started
//	2026-03-01T12:00:00.100000000Z the replica's own output
//	2026-03-01T12:00:09.000000000Z< replica exited with code 1
const (
	timeFormat = "2006-01-02T15:04:05.000000000Z"
	outputLine = ' '
	startLine  = '>' // a run begins
	endLine    = '<' // a run has ended
)

// logFile takes what a replica writes. It keeps the last lines in memory. Safe for
// concurrent use.
type logFile struct {
	path string

	mu     sync.Mutex
	writes uint64        // to the file
	more   chan struct{} // is closed with the next
	file   *os.File      // nil when it cannot be written
	size   int64

	lines [][]byte // a ring
	next  int
	part  []byte // the line that has not ended yet

	last   time.Time // of the last line in the file
	unsent []byte    // what is not in the file yet: a line that has not ended
}

// openLog goes on with the log of the replica's predecessor, if there is one.
func openLog(path string) (*logFile, error) {
	l := &logFile{path: path, more: make(chan struct{})}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open the replica's log: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.store(l.line(nil, startLine, []byte(" replica started")))
	return l, nil
}

// line appends a line as it is in the file. Times increase, so that they tell lines apart.
func (l *logFile) line(b []byte, kind byte, text []byte) []byte {
	now := time.Now().UTC()
	if !now.After(l.last) {
		now = l.last.Add(1)
	}
	l.last = now
	b = append(now.AppendFormat(b, timeFormat), kind)
	return append(append(b, text...), '\n')
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
	l.store(l.complete(p))
	return len(p), nil
}

// complete returns the lines that end in p as they are in the file, and keeps the rest.
func (l *logFile) complete(p []byte) []byte {
	var b []byte
	l.unsent = append(l.unsent, p...)
	for {
		line, rest, ended := bytes.Cut(l.unsent, []byte("\n"))
		switch {
		case len(line) > launcher.MaxLine:
			line, rest = line[:launcher.MaxLine], l.unsent[launcher.MaxLine:]
		case !ended:
			l.unsent = append([]byte(nil), l.unsent...)
			return b
		}
		b = l.line(b, outputLine, bytes.TrimRight(line, "\r"))
		l.unsent = rest
	}
}

// store writes lines to the file.
func (l *logFile) store(b []byte) {
	if len(b) == 0 {
		return
	}
	if l.file != nil && l.size+int64(len(b)) > maxLogFile {
		l.rotate()
	}
	if l.file != nil {
		n, _ := l.file.Write(b) // a full disk: the lines in memory remain
		l.size += int64(n)
	}
	l.writes++
	close(l.more)
	l.more = make(chan struct{})
}

// written returns how often the file was written to, and a channel that is closed after the next time.
func (l *logFile) written() (uint64, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.writes, l.more
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

// end says how the run ended and closes the file. The lines in memory stay readable.
func (l *logFile) end(how string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	var b []byte
	if len(l.unsent) > 0 {
		b = l.line(b, outputLine, l.unsent)
		l.unsent = nil
	}
	l.store(l.line(b, endLine, []byte(" "+how)))
	if l.file == nil {
		return nil // It could not be rotated.
	}
	err := l.file.Close()
	l.file = nil
	return err
}
