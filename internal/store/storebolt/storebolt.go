// SPDX-License-Identifier: Apache-2.0

// Package storebolt keeps the store in one file, by way of go.etcd.io/bbolt. It
// needs nothing beside it, and serves one process at a time.
//
// All writes go through one goroutine: whatever is waiting when a transaction ends
// becomes the next transaction, and its callers return when that is on the disk. A
// lone writer pays one fsync, many share one.
package storebolt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/internal/store/internal/gather"
	"github.com/clipper-serving/clipper/internal/store/internal/watch"
)

const (
	// lockTimeout is how long Open waits for another process to let go of the file,
	// enough for a predecessor that is about to end.
	lockTimeout = 3 * time.Second

	// maxBatch bounds a transaction, and with it how long its first caller waits.
	maxBatch = 1024

	sweepEvery = time.Second

	// sweepBatch bounds how long one sweep holds up other writes.
	sweepBatch = 1024
)

// Buckets. An expiry is eight bytes of big-endian Unix milliseconds, so that the
// index buckets are in the order of time.
var (
	bucketDocuments = []byte("documents")  // key: revision, expiry or zero, value
	bucketLeases    = []byte("leases")     // expiry, key: nothing
	bucketSums      = []byte("sums")       // key: fields and sums
	bucketLives     = []byte("lives")      // key of sums that expire: expiry
	bucketLifeIndex = []byte("life-index") // a time at which to look at the life, key: nothing
	bucketOnce      = []byte("once")       // once: expiry
	bucketOnceIndex = []byte("once-index") // expiry, once: nothing
)

// DB is an open file.
type DB struct {
	bolt   *bbolt.DB
	writes *gather.Gatherer[*write]
	hub    watch.Hub

	close    sync.Once
	closeErr error
	closing  chan struct{}
	sweeper  sync.WaitGroup
}

var _ store.Store = (*DB)(nil)

// write is one call on its way through the group commit.
type write struct {
	apply func(*txn) error
	err   error
}

// Open opens the file, creating it and its folder when they do not exist. When
// another process has it open, Open waits up to three seconds, or until ctx ends,
// and then returns an error that matches [store.ErrUnavailable] and says so.
func Open(ctx context.Context, path string) (*DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	timeout := lockTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, max(time.Until(deadline), time.Millisecond))
	}
	bolt, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: timeout,
		// The free list is found again by a scan when the file is opened, rather than
		// written with every transaction.
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("open store %s: %w: the file is in use by another process", path, store.ErrUnavailable)
	case err != nil:
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	err = bolt.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketDocuments, bucketLeases, bucketSums, bucketLives, bucketLifeIndex, bucketOnce, bucketOnceIndex} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, errors.Join(err, bolt.Close()))
	}

	db := &DB{bolt: bolt, closing: make(chan struct{})}
	// One worker: bbolt has one writer at a time.
	db.writes = gather.New(1, maxBatch, db.commit)
	db.sweeper.Go(db.sweep)
	return db, nil
}

// syncDir makes the name of a new file as durable as its content.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Documents returns the documents in the file.
func (db *DB) Documents() store.Documents { return documents{db} }

// Sums returns the sums in the file.
func (db *DB) Sums() store.Sums { return sums{db} }

// Close waits for writes under way and closes the file. It may be called twice.
func (db *DB) Close() error {
	db.close.Do(func() {
		close(db.closing)
		db.sweeper.Wait()
		db.writes.Close()
		db.hub.Close()
		db.closeErr = db.bolt.Close()
	})
	return db.closeErr
}

// update runs apply in a transaction shared with others, and returns when it is
// durable. apply returns an error that is [refused] only before it has written
// anything; any other error undoes the whole transaction. When ctx ends, apply may
// run after update has returned, so its results count only if that returns nil.
func (db *DB) update(ctx context.Context, apply func(*txn) error) error {
	w := &write{apply: apply}
	if err := db.writes.Do(ctx, w); err != nil {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return w.err
}

// commit applies the writes in one transaction.
func (db *DB) commit(writes []*write) {
	var changed []string
	err := db.bolt.Update(func(tx *bbolt.Tx) error {
		t := newTxn(tx)
		for _, w := range writes {
			w.err = w.apply(t)
			if w.err != nil && !refused(w.err) {
				return w.err
			}
		}
		changed = t.changed
		return t.saveSums()
	})
	if err != nil {
		for _, w := range writes {
			w.err = fmt.Errorf("%w: %w", store.ErrUnavailable, err)
		}
		return
	}
	for _, key := range changed {
		db.hub.Notify(key)
	}
}

// refused says that err is an answer to one caller, not a failure of the file.
func refused(err error) bool {
	return errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrConflict) ||
		errors.Is(err, store.ErrInvalid) || errors.Is(err, errCorrupt)
}

// view runs read in a read transaction, which never waits for writers.
func (db *DB) view(ctx context.Context, read func(*bbolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	err := db.bolt.View(read)
	if err != nil && !refused(err) {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return err
}

// sweep removes what has expired, until Close. Readers do not depend on it.
func (db *DB) sweep() {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-db.closing:
			return
		case <-ticker.C:
		}
		for db.due() {
			// An error here is met by the next caller who writes as well.
			if err := db.update(context.Background(), (*txn).sweep); err != nil {
				break
			}
			select {
			case <-db.closing:
				return
			default:
			}
		}
	}
}

// due looks for something to sweep, so that an idle store writes nothing.
func (db *DB) due() bool {
	found := false
	now := time.Now()
	err := db.bolt.View(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketLeases, bucketLifeIndex, bucketOnceIndex} {
			k, _ := tx.Bucket(name).Cursor().First()
			found = found || (k != nil && expired(k, now))
		}
		return nil
	})
	return err == nil && found
}
