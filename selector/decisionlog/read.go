// SPDX-License-Identifier: Apache-2.0

package decisionlog

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// maxLine is the most bytes of a line that is read.
const maxLine = 1 << 20

// Contents is what a log has of one application.
type Contents struct {
	// Decisions are in the order of their time, each with its feedback if there is one.
	Decisions []Record
	// Files is how many files were read.
	Files int
	// Broken is how many lines and rows could not be read.
	Broken int
	// Unfinished is how many Parquet files in the given directories were left by a crash, or are still
	// being written.
	Unfinished int
	// Orphans is how many feedbacks are for decisions that are not in the log.
	Orphans int
}

// Read reads what files, and the files below directories, have of an application, and joins decisions
// with their feedback. Of several with one id the first counts. A file that is no log is an error; a broken
// line is counted.
func Read(application string, paths ...string) (*Contents, error) {
	r := &reader{application: application, decisions: map[string]int{}, feedback: map[string]*Feedback{}, words: map[string]string{}}
	seen := map[string]bool{}
	for _, path := range paths {
		files, err := r.expand(path)
		if err != nil {
			return nil, fmt.Errorf("read the log: %w", err)
		}
		for _, file := range files {
			if seen[file] {
				continue
			}
			seen[file] = true
			if err := r.file(file); err != nil {
				return nil, fmt.Errorf("read the log: %s: %w", file, err)
			}
			r.contents.Files++
		}
	}
	c := &r.contents
	for id, f := range r.feedback {
		if i, ok := r.decisions[id]; !ok {
			c.Orphans++
		} else if c.Decisions[i].Feedback == nil {
			c.Decisions[i].Feedback = f
		}
	}
	slices.SortStableFunc(c.Decisions, func(a, b Record) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.ID, b.ID)) })
	return c, nil
}

type reader struct {
	application string
	contents    Contents
	decisions   map[string]int // by id
	feedback    map[string]*Feedback
	words       map[string]string // names, once each
}

// expand returns the files of a path.
func (r *reader) expand(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{filepath.Clean(path)}, nil
	}
	var files []string
	err = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		readable, partial := isLog(name)
		if readable {
			files = append(files, name)
		} else if partial {
			r.contents.Unfinished++
		}
		return nil
	})
	return files, err
}

func (r *reader) file(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if !strings.HasSuffix(name, parquetSuffix) {
		return r.lines(f)
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return r.rows(f, info.Size())
}

// lines reads JSON lines.
func (r *reader) lines(from io.Reader) error {
	good, broken := 0, 0
	in := bufio.NewReaderSize(from, maxLine)
	for {
		line, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull): // Too long: the rest of it is broken, too.
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = in.ReadSlice('\n')
			}
			broken++
		case len(line) > 0:
			var record Record
			if json.Unmarshal(line, &record) == nil && record.valid() {
				good++
				r.add(&record)
			} else {
				broken++
			}
		}
		if errors.Is(err, io.EOF) {
			r.contents.Broken += broken
			if broken > 1 && good == 0 {
				return errors.New("not one line is a decision or a feedback")
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// rows reads Parquet. The library panics at some files that are damaged.
func (r *reader) rows(from io.ReaderAt, size int64) (err error) {
	defer func() {
		if problem := recover(); problem != nil {
			err = fmt.Errorf("damaged Parquet: %v", problem)
		}
	}()
	file, err := parquet.OpenFile(from, size)
	if err != nil {
		return fmt.Errorf("read Parquet: %w", err)
	}
	rows := parquet.NewGenericReader[Record](file)
	defer func() { err = errors.Join(err, rows.Close()) }()
	total := int64(0)
	for {
		batch := make([]Record, 256) // A new one: what was read before is kept.
		n, err := rows.Read(batch)
		for i := range batch[:n] {
			if batch[i].valid() {
				r.add(&batch[i])
			} else {
				r.contents.Broken++
			}
		}
		total += int64(n)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read Parquet: %w", err)
		case n == 0 || total > size: // Each row has an id of its own, which takes a byte at least.
			return errors.New("damaged Parquet: it has fewer rows than it says")
		}
	}
}

// add keeps what is of the application.
func (r *reader) add(record *Record) {
	if record.Application != r.application {
		return
	}
	if !record.isDecision() {
		if first := r.feedback[record.ID]; first == nil || record.Feedback.Time.Before(first.Time) {
			r.feedback[record.ID] = record.Feedback
			for i := range record.Feedback.Losses {
				r.once(&record.Feedback.Losses[i].Model)
			}
		}
		return
	}
	if _, ok := r.decisions[record.ID]; ok {
		return
	}
	for _, word := range []*string{&record.Application, &record.Context, &record.Policy} {
		r.once(word)
	}
	for i := range record.Models {
		m := &record.Models[i]
		r.once(&m.Model)
		r.once(&m.Version)
		r.once(&m.Status)
	}
	r.decisions[record.ID] = len(r.contents.Decisions)
	r.contents.Decisions = append(r.contents.Decisions, *record)
}

// once makes equal names share their memory.
func (r *reader) once(word *string) {
	known, ok := r.words[*word]
	if !ok {
		known = strings.Clone(*word)
		r.words[known] = known
	}
	*word = known
}
