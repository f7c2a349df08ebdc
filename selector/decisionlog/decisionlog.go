// SPDX-License-Identifier: Apache-2.0

// Package decisionlog writes decisions and what became of them to files, and reads them.
//
// One goroutine writes, from a bounded queue: a query never waits for a disk. What does not fit into the
// queue is counted and dropped. A file belongs to one application and is closed when it is large or old
// enough; when all files together are too large the oldest are deleted.
//
//	DIR/APPLICATION/20060102T150405.000Z-0123abcd.jsonl
//	DIR/APPLICATION/20060102T150405.000Z-0123abcd.parquet
//
// Lines are on their way to the disk after a second. A crash leaves at most a broken last line; of
// Parquet, whose index is at the end of the file, a file that ends in ".partial" and cannot be read.
//
// A feedback may come much later than its decision, and to another instance with a directory of its own.
// So it is a record of its own; [Read] joins the two by their id.
package decisionlog

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/config"
)

// Config is how a log is kept. Zero values mean the defaults.
type Config struct {
	// Dir is where the files are. Only one process may write there.
	Dir string `name:"dir" placeholder:"DIR" help:"Directory of the decision log; without one no application can have a log."`
	// MaxFile is the size at which a file is closed and the next one begun.
	MaxFile config.Bytes `name:"max-file" default:"64MiB" help:"Size at which a file of the decision log is closed (B, KiB, MiB, GiB)."`
	// MaxAge is the age at which a file is closed.
	MaxAge time.Duration `name:"max-age" default:"1h" help:"Age at which a file of the decision log is closed."`
	// MaxTotal is the size of all files together beyond which the oldest are deleted.
	MaxTotal config.Bytes `name:"max-total" default:"1GiB" help:"Size of all files of the decision log; the oldest are deleted."`
	// Queue is how many records may wait to be written.
	Queue int `name:"queue" default:"8192" help:"Records that may wait to be written to the decision log; more are dropped."`
}

const (
	// flushInterval is how long a line may be in memory only.
	flushInterval = time.Second
	// retryInterval is how long nothing is tried after a disk has failed.
	retryInterval = 5 * time.Second
	// maxOpen bounds the files that are open at a time.
	maxOpen = 64
)

// Log is an open log. Safe for concurrent use.
type Log struct {
	cfg Config
	log *slog.Logger

	written, bytes prometheus.Counter
	dropped        *prometheus.CounterVec

	mu     sync.RWMutex // guards closed; held for reading by who sends to the queue
	closed bool
	queue  chan entry
	done   chan struct{}

	// Of the writing goroutine.
	open      map[place]*file
	finished  []stored // oldest first
	total     int64    // bytes of the finished files
	failed    time.Time
	unnoticed int // records dropped since the last warning
}

type entry struct {
	place
	decision func() *clipperv1.Decision
}

// place is what a file is for.
type place struct {
	application string
	format      clipperv1.DecisionLogFormat
}

// Open makes the directory, if it has to, and begins to write. The caller closes the log.
func Open(cfg Config, log *slog.Logger, registerer prometheus.Registerer) (*Log, error) {
	cfg = Config{
		Dir:      cfg.Dir,
		MaxFile:  cmp.Or(cfg.MaxFile, 64*config.MiB),
		MaxAge:   cmp.Or(cfg.MaxAge, time.Hour),
		MaxTotal: cmp.Or(cfg.MaxTotal, config.GiB),
		Queue:    cmp.Or(cfg.Queue, 8192),
	}
	if cfg.MaxFile < 0 || cfg.MaxAge < 0 || cfg.Queue < 0 || cfg.MaxTotal < cfg.MaxFile {
		return nil, errors.New("decision log: max-file, max-age and queue must not be negative, and max-total at least max-file")
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("decision log: %w", err)
	}
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Name: "clipper_selector_decision_log_" + name, Help: help}
	}
	l := &Log{
		cfg: cfg, log: log,
		written: prometheus.NewCounter(counter("records_total", "Decisions and feedback that were written to the decision log.")),
		bytes:   prometheus.NewCounter(counter("bytes_total", "Bytes that were written to the decision log.")),
		dropped: prometheus.NewCounterVec(counter("dropped_total", "Decisions and feedback that the decision log lost, by reason: the queue was full, or the disk failed."), []string{"reason"}),
		queue:   make(chan entry, cfg.Queue),
		done:    make(chan struct{}),
		open:    map[place]*file{},
	}
	if err := errors.Join(registerer.Register(l.written), registerer.Register(l.bytes), registerer.Register(l.dropped)); err != nil {
		return nil, fmt.Errorf("decision log: %w", err)
	}
	var err error
	if l.finished, err = list(cfg.Dir); err != nil {
		return nil, fmt.Errorf("decision log: %w", err)
	}
	for _, f := range l.finished {
		l.total += f.size
	}
	go l.run()
	return l, nil
}

// Add writes a decision of an application, or a feedback, a little later. The function is called then; what
// it returns does not change. Add does not wait.
func (l *Log) Add(application string, format clipperv1.DecisionLogFormat, decision func() *clipperv1.Decision) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if !l.closed {
		select {
		case l.queue <- entry{place{application, format}, decision}:
			return
		default:
		}
	}
	l.dropped.WithLabelValues("queue").Inc()
}

// Close writes what waits and closes the files.
func (l *Log) Close() {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.queue)
	}
	l.mu.Unlock()
	<-l.done
}

// run writes until the log is closed.
func (l *Log) run() {
	defer close(l.done)
	tick := time.NewTicker(flushInterval)
	defer tick.Stop()
	for {
		select {
		case e, ok := <-l.queue:
			if !ok {
				for p := range l.open {
					l.finish(p)
				}
				l.prune()
				return
			}
			l.write(e)
		case <-tick.C:
			l.flush()
		}
	}
}

// write writes one record.
func (l *Log) write(e entry) {
	if !l.failed.IsZero() && time.Since(l.failed) < retryInterval {
		l.lose(nil)
		return
	}
	f := l.open[e.place]
	if f == nil {
		if len(l.open) >= maxOpen {
			l.finish(l.oldest())
		}
		var err error
		if f, err = create(l.cfg.Dir, e.place, l.bytes); err != nil {
			l.lose(err)
			return
		}
		l.open[e.place] = f
	}
	if err := f.write(NewRecord(e.decision())); err != nil {
		l.lose(err)
		l.finish(e.place) // Nothing may come after half a line.
		return
	}
	l.failed = time.Time{}
	l.written.Inc()
	if f.size >= int64(l.cfg.MaxFile) {
		l.finish(e.place)
		l.prune()
	}
}

// lose counts a record that could not be written; err is why, unless that has been said.
func (l *Log) lose(err error) {
	l.dropped.WithLabelValues("disk").Inc()
	l.unnoticed++
	if err == nil {
		return
	}
	l.failed = time.Now()
	l.log.Warn("the decision log cannot be written, trying again in a while", "error", err, "lost", l.unnoticed)
	l.unnoticed = 0
}

// flush gives what was written to the system, and closes the files that are old enough.
func (l *Log) flush() {
	for p, f := range l.open {
		if err := f.flush(); err != nil {
			l.log.Warn("the decision log cannot be written", "error", err)
			l.failed = time.Now()
			l.finish(p)
		} else if time.Since(f.begun) >= l.cfg.MaxAge {
			l.finish(p)
		}
	}
	l.prune()
}

// finish closes a file.
func (l *Log) finish(p place) {
	f := l.open[p]
	delete(l.open, p)
	if err := f.close(); err != nil {
		l.log.Warn("a file of the decision log was not completed", "error", err)
	}
	l.finished = append(l.finished, stored{f.name, f.size})
	l.total += f.size
}

// oldest returns the place whose file was begun first. There is one.
func (l *Log) oldest() (first place) {
	for p, f := range l.open {
		if l.open[first] == nil || f.begun.Before(l.open[first].begun) {
			first = p
		}
	}
	return first
}

// prune deletes the oldest files while there is too much.
func (l *Log) prune() {
	for {
		total := l.total
		for _, f := range l.open {
			total += f.size
		}
		if total <= int64(l.cfg.MaxTotal) {
			return
		}
		if len(l.finished) == 0 {
			l.finish(l.oldest())
		}
		oldest := l.finished[0]
		l.finished = l.finished[1:]
		l.total -= oldest.size
		if err := os.Remove(oldest.name); err != nil && !errors.Is(err, os.ErrNotExist) {
			l.log.Warn("an old file of the decision log cannot be deleted", "error", err)
		}
	}
}
