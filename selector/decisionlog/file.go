// SPDX-License-Identifier: Apache-2.0

package decisionlog

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	linesSuffix   = ".jsonl"
	parquetSuffix = ".parquet"
	partialSuffix = ".partial"
	timeLayout    = "20060102T150405.000Z"

	// rowGroup is how many rows of Parquet are in memory before they are written.
	rowGroup = 4096
)

// ours are the names of files that a log may delete.
var ours = regexp.MustCompile(`^\d{8}T\d{6}\.\d{3}Z-[0-9a-f]{8}\.(jsonl|parquet|parquet\.partial)$`)

// stored is a file that is complete.
type stored struct {
	name string
	size int64
}

// list returns the files of a log, oldest first.
func list(dir string) ([]stored, error) {
	var files []stored
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !ours.MatchString(d.Name()) {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		files = append(files, stored{path, info.Size()})
		return nil
	})
	slices.SortFunc(files, func(a, b stored) int { return cmp.Compare(filepath.Base(a.name), filepath.Base(b.name)) })
	return files, err
}

// encoder writes records in one format.
type encoder interface {
	write(r *Record) error
	flush() error
	close() error
}

// file is a file that is being written.
type file struct {
	encoder
	out   *os.File
	name  string // in the end
	begun time.Time
	size  int64
	bytes prometheus.Counter
}

// create begins a file.
func create(dir string, p place, bytes prometheus.Counter) (*file, error) {
	folder := filepath.Join(dir, p.application)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	now := time.Now()
	f := &file{begun: now, bytes: bytes}
	f.name = filepath.Join(folder, fmt.Sprintf("%s-%08x%s", now.UTC().Format(timeLayout), rand.Uint32(), suffix(p.format)))
	name := f.name
	if p.format == clipperv1.DecisionLogFormat_DECISION_LOG_FORMAT_PARQUET {
		name += partialSuffix
	}
	var err error
	if f.out, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, err
	}
	if name != f.name {
		f.encoder = &rows{w: parquet.NewGenericWriter[Record](f, parquet.MaxRowsPerRowGroup(rowGroup), parquet.Compression(&zstd.Codec{}))}
	} else {
		buffer := bufio.NewWriterSize(f, 64<<10)
		e := json.NewEncoder(buffer)
		e.SetEscapeHTML(false)
		f.encoder = &lines{buffer: buffer, json: e}
	}
	return f, nil
}

func suffix(format clipperv1.DecisionLogFormat) string {
	if format == clipperv1.DecisionLogFormat_DECISION_LOG_FORMAT_PARQUET {
		return parquetSuffix
	}
	return linesSuffix
}

// Write implements io.Writer for the encoder.
func (f *file) Write(p []byte) (int, error) {
	n, err := f.out.Write(p)
	f.size += int64(n)
	f.bytes.Add(float64(n))
	return n, err
}

// close ends the file. One that is not complete keeps the name that says so.
func (f *file) close() error {
	err := errors.Join(f.encoder.close(), f.out.Close())
	if partial := f.out.Name(); partial != f.name {
		if err == nil {
			err = os.Rename(partial, f.name)
		}
		if err != nil {
			f.name = partial
		}
	}
	return err
}

// lines are JSON lines.
type lines struct {
	buffer *bufio.Writer
	json   *json.Encoder
}

func (l *lines) write(r *Record) error { return l.json.Encode(r) }
func (l *lines) flush() error          { return l.buffer.Flush() }
func (l *lines) close() error          { return l.buffer.Flush() }

// rows are Parquet.
type rows struct {
	w   *parquet.GenericWriter[Record]
	row [1]Record
}

func (w *rows) write(r *Record) error {
	w.row[0] = *r
	_, err := w.w.Write(w.row[:])
	return err
}

// flush does nothing: many small groups of rows would make the file large and slow.
func (w *rows) flush() error { return nil }
func (w *rows) close() error { return w.w.Close() }

// isLog says of a file whether it can be read, or is one that was not completed.
func isLog(name string) (readable, partial bool) {
	return strings.HasSuffix(name, linesSuffix) || strings.HasSuffix(name, parquetSuffix), strings.HasSuffix(name, parquetSuffix+partialSuffix)
}
