// SPDX-License-Identifier: Apache-2.0

// Package store is where the services keep what must survive them.
//
// There are two kinds of state, one interface each. [Documents] holds what
// people and services declare: applications, models, versions, replicas. It is
// small, changes seldom, is written by compare-and-swap and followed by every
// instance. [Sums] holds what is learned: additive statistics, changed only by
// adding to them, so that any number of instances learn at once without
// reading before writing.
//
// The backends are in storebolt (one file, one process) and storeredis (many
// processes); storeopen chooses between them by address. Each passes the suites
// in storetest, which say in code what the comments here say in words.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

var (
	// ErrNotFound says that no document has the key.
	ErrNotFound = errors.New("not found")

	// ErrConflict says that the document is not at the revision that the caller
	// expected: somebody else wrote it first. Nothing was changed.
	ErrConflict = errors.New("revision conflict")

	// ErrInvalid says that the arguments can never succeed. Nothing was changed.
	ErrInvalid = errors.New("invalid argument")

	// ErrUnavailable says that the backend did not answer, or not in time. Whether
	// a write was done is then unknown. It may be tried again; the store heals by
	// itself. When the reason is the caller's context, the error matches that too.
	ErrUnavailable = errors.New("store unavailable")
)

// Limits on what a caller may store.
const (
	// MaxKey is the longest key, field or once identity, in bytes.
	MaxKey = 4096

	// MaxValue is the largest value of a document, in bytes.
	MaxValue = 16 << 20
)

// Store is one open backend. It is safe for concurrent use.
type Store interface {
	Documents() Documents
	Sums() Sums

	// Close waits for the writes under way and releases the backend. Later calls
	// fail with [ErrUnavailable], and the channels of Watch are closed.
	io.Closer
}

// Revision names one state of one document. It is opaque, except that zero means
// that the document does not exist. A key never has the same revision twice,
// even if its document is deleted and created again.
type Revision uint64

// Document is a value with a name.
type Document struct {
	Key      string
	Value    []byte
	Revision Revision

	// TTL is zero for a document that stays. For a lease it is the life it had
	// left when it was read, and always positive.
	TTL time.Duration
}

// Documents stores values by key. Keys are ordered as bytes. It is safe for
// concurrent use, and a write that has returned is seen by every later read
// through any handle. A value passed in must not be changed afterwards; one that is
// returned belongs to the caller. Errors are those of this package, wrapped.
type Documents interface {
	// Get returns the document with the key, or [ErrNotFound].
	Get(ctx context.Context, key string) (Document, error)

	// Put writes the value if the document is at the revision expected, where zero
	// means that it must not exist, and returns the new revision. If the document is
	// at another revision, or is gone, it returns [ErrConflict]. A lease that is Put
	// stays from then on.
	Put(ctx context.Context, key string, value []byte, expect Revision) (Revision, error)

	// PutLease creates, replaces or renews a document that vanishes when ttl, at
	// least a millisecond, has passed since the last PutLease. Renewing with an
	// unchanged value leaves the revision as it is and wakes no watcher. A document
	// that is no lease is not replaced: that is [ErrConflict].
	PutLease(ctx context.Context, key string, value []byte, ttl time.Duration) (Revision, error)

	// Delete removes the document if it is at the revision expected, where zero
	// means any. It returns [ErrNotFound] if there is none and [ErrConflict] if it is
	// at another revision.
	Delete(ctx context.Context, key string, expect Revision) error

	// List returns the documents whose key begins with prefix, sorted by key: all
	// as they were at one moment.
	List(ctx context.Context, prefix string) ([]Document, error)

	// Watch returns a channel that gets a signal after documents whose key begins
	// with prefix were written or deleted, through any handle. Signals coalesce: one
	// may stand for many changes, and none says what changed, so the reader lists
	// again. A signal also comes whenever a lost connection is found again. It may
	// come for no reason. The end of a lease's life gives no signal, since the reader
	// knows it from TTL. The channel is closed when ctx ends or the store is closed.
	Watch(ctx context.Context, prefix string) <-chan struct{}
}

// Update adds to the sums of one key.
type Update struct {
	Key string

	// Deltas is what to add, by field. A field that does not exist counts as zero.
	Deltas map[string]float64

	// TTL is how long the key's sums are kept from this Add on, at least a
	// millisecond, unless a later Add says otherwise; zero is for ever. Sums that have
	// expired are gone: the next Add begins at nothing. A repetition that changes no
	// sum changes no life either.
	TTL time.Duration
}

// Group is the sums of one key.
type Group struct {
	Key  string
	Sums map[string]float64

	// TTL is zero for sums that stay. For others it is the life they had left when they
	// were read, and always positive.
	TTL time.Duration
}

// Sums stores groups of named float64 sums by key. It is safe for concurrent
// use, and an Add that has returned is seen by every later read through any
// handle. Keys and fields may hold any bytes; keys are ordered as bytes. Deltas
// passed in must not be changed afterwards. Errors are those of this package,
// wrapped.
type Sums interface {
	// Add applies all updates or none, in one step, and returns once they are
	// durable. Each update has a key of its own.
	//
	// once is the identity of what is added. It is remembered for ttl, at least a
	// millisecond, from the Add that applied it: a repetition within ttl changes
	// nothing and returns false. An empty once is not remembered and ttl is ignored;
	// such an Add may not be tried again after [ErrUnavailable] without the risk of
	// counting twice.
	//
	// A delta, or a sum that would result, that is not a finite number is refused
	// with [ErrInvalid].
	Add(ctx context.Context, once string, ttl time.Duration, updates ...Update) (applied bool, err error)

	// Get returns the sums of the key, empty but not nil when there are none. They
	// belong to the caller and are from one moment.
	Get(ctx context.Context, key string) (map[string]float64, error)

	// Group returns what Get does, and the life that the sums have left.
	Group(ctx context.Context, key string) (Group, error)

	// Keys returns, in order, at most limit of the keys that begin with prefix and
	// come after the given key, which need not exist. Fewer than limit means that
	// there are no more. Keys added or deleted between two pages may be missed.
	Keys(ctx context.Context, prefix, after string, limit int) ([]string, error)

	// List returns the groups of the keys that Keys would return, each from one moment;
	// of their sums the named fields, or with no name all.
	List(ctx context.Context, prefix, after string, limit int, fields ...string) ([]Group, error)

	// Delete removes the sums of the keys, if there are any, in one step.
	Delete(ctx context.Context, keys ...string) error
}

// CheckKey returns [ErrInvalid] for a key that is empty or longer than [MaxKey].
// Backends call it; so may callers who want to know before.
func CheckKey(key string) error {
	if key == "" {
		return fmt.Errorf("%w: empty key", ErrInvalid)
	}
	if len(key) > MaxKey {
		return fmt.Errorf("%w: key of %d bytes, want at most %d", ErrInvalid, len(key), MaxKey)
	}
	return nil
}

// CheckKeys returns [ErrInvalid] if [CheckKey] does for one of the keys.
func CheckKeys(keys []string) error {
	for _, key := range keys {
		if err := CheckKey(key); err != nil {
			return err
		}
	}
	return nil
}

// CheckDocument returns [ErrInvalid] for a key or value that Put refuses.
func CheckDocument(key string, value []byte) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if len(value) > MaxValue {
		return fmt.Errorf("%w: value of %d bytes, want at most %d", ErrInvalid, len(value), MaxValue)
	}
	return nil
}

// CheckTTL returns [ErrInvalid] for a time to live below a millisecond, the
// resolution of the backends.
func CheckTTL(ttl time.Duration) error {
	if ttl < time.Millisecond {
		return fmt.Errorf("%w: time to live of %v, want at least 1ms", ErrInvalid, ttl)
	}
	return nil
}

// CheckAdd returns [ErrInvalid] for arguments that Add refuses whatever is
// stored.
func CheckAdd(once string, ttl time.Duration, updates []Update) error {
	if once != "" {
		if len(once) > MaxKey {
			return fmt.Errorf("%w: identity of %d bytes, want at most %d", ErrInvalid, len(once), MaxKey)
		}
		if err := CheckTTL(ttl); err != nil {
			return err
		}
	}
	for i, u := range updates {
		if err := CheckKey(u.Key); err != nil {
			return err
		}
		if u.TTL != 0 {
			if err := CheckTTL(u.TTL); err != nil {
				return err
			}
		}
		// Updates are few, so looking at each pair beats building a set.
		for _, other := range updates[:i] {
			if other.Key == u.Key {
				return fmt.Errorf("%w: two updates of key %q", ErrInvalid, u.Key)
			}
		}
		for field, delta := range u.Deltas {
			if len(field) > MaxKey {
				return fmt.Errorf("%w: field of %d bytes, want at most %d", ErrInvalid, len(field), MaxKey)
			}
			if math.IsNaN(delta) || math.IsInf(delta, 0) {
				return fmt.Errorf("%w: delta of %q in %q is %v", ErrInvalid, field, u.Key, delta)
			}
		}
	}
	return nil
}

// CheckLimit returns [ErrInvalid] for a page size that is not positive.
func CheckLimit(limit int) error {
	if limit <= 0 {
		return fmt.Errorf("%w: limit %d, want at least 1", ErrInvalid, limit)
	}
	return nil
}
