// SPDX-License-Identifier: Apache-2.0

// Package journal keeps records in a folder of append-only files until somebody has dealt with them.
// It is for what must outlive the process while the store that it is meant for cannot be reached.
//
// Records are written to the youngest file; whatever waits while the disk writes goes out with the next
// write, and one fsync serves them all. They are taken from the oldest file, which is removed when all
// of its records were dealt with. A process that ends before that meets the records of this file again, so
// dealing with a record twice must do no harm. There is nothing to update or to look up, which is why
// this is not the embedded database: appending costs one sequential write, and what was dealt with
// costs nothing to forget.
package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/clipper-serving/clipper/internal/store/internal/gather"
)

const (
	// MaxRecord is the largest record, in bytes.
	MaxRecord = 16 << 20

	// maxBatch bounds a write, and with it how long its first caller waits.
	maxBatch = 1024

	// segmentSize is the size at which a file is left for the next one.
	segmentSize = 4 << 20

	// headerSize is what precedes each record: its length and its checksum (CRC-32C), four little-endian
	// bytes each.
	headerSize = 8

	suffix   = ".journal"
	lockName = "lock"
)

var (
	// ErrFull says that the record would make the journal larger than its limit. Nothing was kept.
	ErrFull = errors.New("journal full")

	// ErrClosed says that the journal was closed. Nothing was kept.
	ErrClosed = errors.New("journal closed")
)

var checksums = crc32.MakeTable(crc32.Castagnoli)

// Journal is an open journal. Safe for concurrent use, but for [Journal.Take] and [Journal.Each], which
// one goroutine at a time may call.
type Journal struct {
	dir     string
	limit   int64
	lock    *os.File
	appends *gather.Gatherer[*record]

	mu      sync.Mutex
	size    int64      // of all files
	next    uint64     // number of the next file
	sealed  []*segment // files that are not written to any more, the oldest first
	current *segment   // the file that is written to; nil while there is none
}

// segment is one file.
type segment struct {
	path string
	file *os.File // nil when it is sealed
	size int64
}

// record is one call of Append.
type record struct {
	data []byte
	err  error
}

// Open opens the journal in a folder, which it makes when it does not exist and locks against other
// processes. The files together hold at most limit bytes.
func Open(dir string, limit int64) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	lock, err := lockFile(filepath.Join(dir, lockName))
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", dir, err)
	}
	j := &Journal{dir: dir, limit: limit, lock: lock, next: 1}
	if err := j.find(); err != nil {
		return nil, fmt.Errorf("open journal: %w", errors.Join(err, lock.Close()))
	}
	j.appends = gather.New(1, maxBatch, j.commit)
	return j, nil
}

// find lists the files that are there.
func (j *Journal) find() error {
	entries, err := os.ReadDir(j.dir) // sorted by name
	if err != nil {
		return err
	}
	for _, entry := range entries {
		number, err := strconv.ParseUint(strings.TrimSuffix(entry.Name(), suffix), 16, 64)
		if err != nil || !strings.HasSuffix(entry.Name(), suffix) {
			continue
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		j.next = number + 1
		j.size += info.Size()
		j.sealed = append(j.sealed, &segment{path: filepath.Join(j.dir, entry.Name()), size: info.Size()})
	}
	return nil
}

// Append keeps a record of 1 to [MaxRecord] bytes, which must not be changed afterwards, and returns nil
// when it is durable. Errors are [ErrFull], [ErrClosed], that of ctx or of the file system; after the last
// two the record may be kept all the same.
func (j *Journal) Append(ctx context.Context, data []byte) error {
	if len(data) == 0 || len(data) > MaxRecord {
		return fmt.Errorf("append to journal: record of %d bytes, want 1 to %d", len(data), MaxRecord)
	}
	r := &record{data: data}
	switch err := j.appends.Do(ctx, r); {
	case errors.Is(err, gather.ErrClosed):
		return ErrClosed
	case err != nil:
		return fmt.Errorf("append to journal: %w", err)
	}
	return r.err
}

// commit writes a batch.
func (j *Journal) commit(batch []*record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var buffer []byte
	for _, r := range batch {
		if j.size+int64(len(buffer)+headerSize+len(r.data)) > j.limit {
			r.err = ErrFull
			continue
		}
		buffer = binary.LittleEndian.AppendUint32(buffer, uint32(len(r.data)))
		buffer = binary.LittleEndian.AppendUint32(buffer, crc32.Checksum(r.data, checksums))
		buffer = append(buffer, r.data...)
	}
	if len(buffer) == 0 {
		return
	}
	if err := j.write(buffer); err != nil {
		for _, r := range batch {
			if r.err == nil {
				r.err = fmt.Errorf("append to journal: %w", err)
			}
		}
	}
}

// write appends to the current file, making one if need be. The caller holds mu.
func (j *Journal) write(b []byte) error {
	if j.current == nil {
		path := filepath.Join(j.dir, fmt.Sprintf("%016x%s", j.next, suffix))
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		j.next++
		j.current = &segment{path: path, file: file}
		// The name has to be as durable as the content.
		if err := syncDir(j.dir); err != nil {
			j.seal()
			j.dropEmpty()
			return err
		}
	}
	_, err := j.current.file.WriteAt(b, j.current.size)
	if err == nil {
		err = j.current.file.Sync()
	}
	if err != nil {
		// What the file holds behind its last good record is not known. It is cut off if that can be done,
		// else left to the checksums, and this file is not written to again.
		_ = j.current.file.Truncate(j.current.size)
		j.seal()
		j.dropEmpty()
		return err
	}
	j.current.size += int64(len(b))
	j.size += int64(len(b))
	if j.current.size >= segmentSize {
		j.seal()
	}
	return nil
}

// seal ends the current file. The caller holds mu.
func (j *Journal) seal() {
	if j.current == nil {
		return
	}
	_ = j.current.file.Close() // Everything that counts has been synced.
	j.current.file = nil
	j.sealed = append(j.sealed, j.current)
	j.current = nil
}

// dropEmpty removes the file that was sealed last if it has no records, so that a disk that is full does not
// fill with files. The caller holds mu.
func (j *Journal) dropEmpty() {
	last := len(j.sealed) - 1
	if j.sealed[last].size == 0 && os.Remove(j.sealed[last].path) == nil {
		j.sealed = j.sealed[:last]
	}
}

// Size is the bytes that the journal holds.
func (j *Journal) Size() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.size
}

// Empty reports whether there is nothing to take.
func (j *Journal) Empty() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.current == nil && len(j.sealed) == 0
}

// Each calls visit with every record that is there now, the oldest first. A record must not be kept or
// changed. It returns the first error of visit or of the file system.
func (j *Journal) Each(visit func(record []byte) error) error {
	j.mu.Lock()
	j.seal()
	files := slices.Clone(j.sealed)
	j.mu.Unlock()
	for _, s := range files {
		records, _, err := s.read()
		if err != nil {
			return err
		}
		for _, r := range records {
			if err := visit(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// Take calls handle with the records of the oldest file, at most most at a time. When handle has
// returned nil for all of them they are gone; after an error, which Take returns, all come again. It
// returns how many bytes of the file could not be read: what a crash cut off before it was
// acknowledged, or what the disk has lost.
func (j *Journal) Take(most int, handle func(records [][]byte) error) (unreadable int64, err error) {
	j.mu.Lock()
	if len(j.sealed) == 0 {
		j.seal()
	}
	if len(j.sealed) == 0 {
		j.mu.Unlock()
		return 0, nil
	}
	oldest := j.sealed[0]
	j.mu.Unlock()

	records, unreadable, err := oldest.read()
	if err != nil {
		return 0, fmt.Errorf("read journal: %w", err)
	}
	for chunk := range slices.Chunk(records, most) {
		if err := handle(chunk); err != nil {
			return 0, err
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := os.Remove(oldest.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("remove what was taken from the journal: %w", err)
	}
	j.size -= oldest.size
	j.sealed = j.sealed[1:]
	return unreadable, nil
}

// read returns the records of a file, and how many bytes at its end are none.
func (s *segment) read() (records [][]byte, unreadable int64, err error) {
	b, err := os.ReadFile(s.path)
	if errors.Is(err, os.ErrNotExist) { // Somebody has removed it.
		return nil, s.size, nil
	}
	if err != nil {
		return nil, 0, err
	}
	for len(b) >= headerSize {
		n := binary.LittleEndian.Uint32(b)
		if n == 0 || n > MaxRecord || uint64(n) > uint64(len(b)-headerSize) {
			break
		}
		data := b[headerSize : headerSize+n]
		if crc32.Checksum(data, checksums) != binary.LittleEndian.Uint32(b[4:]) {
			break
		}
		records = append(records, data)
		b = b[headerSize+n:]
	}
	return records, int64(len(b)), nil
}

// Close waits for the writes under way. What is in the journal stays there. It may be called twice.
func (j *Journal) Close() error {
	j.appends.Close()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.seal()
	if j.lock == nil {
		return nil
	}
	err := j.lock.Close()
	j.lock = nil
	return err
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
