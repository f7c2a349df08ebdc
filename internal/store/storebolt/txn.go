// SPDX-License-Identifier: Apache-2.0

package storebolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"go.etcd.io/bbolt"

	"github.com/clipper-serving/clipper/internal/store"
)

const expirySize = 8

// txn is a write transaction that several callers share.
type txn struct {
	now       time.Time
	docs      *bbolt.Bucket
	leases    *bbolt.Bucket
	sums      *bbolt.Bucket
	lives     *bbolt.Bucket
	lifeIndex *bbolt.Bucket
	once      *bbolt.Bucket
	onceIndex *bbolt.Bucket

	changed []string // keys of documents, for the watchers
	loaded  map[string]*group
}

// group is the sums of one key. A key that many callers add to is read and written
// once in a transaction.
type group struct {
	sums   map[string]float64
	expiry uint64 // Unix milliseconds; zero for sums that stay
	stored uint64 // the expiry in the file, which may have come
	dirty  bool
}

func newTxn(tx *bbolt.Tx) *txn {
	return &txn{
		now:       time.Now(),
		docs:      tx.Bucket(bucketDocuments),
		leases:    tx.Bucket(bucketLeases),
		sums:      tx.Bucket(bucketSums),
		lives:     tx.Bucket(bucketLives),
		lifeIndex: tx.Bucket(bucketLifeIndex),
		once:      tx.Bucket(bucketOnce),
		onceIndex: tx.Bucket(bucketOnceIndex),
		loaded:    make(map[string]*group),
	}
}

// expiry is the moment as stored, rounded up so that nothing ends early.
func expiry(at time.Time) uint64 {
	return uint64(at.Add(time.Millisecond - 1).UnixMilli())
}

// expired says whether the expiry at the start of b has come.
func expired(b []byte, now time.Time) bool {
	return int64(binary.BigEndian.Uint64(b)) <= now.UnixMilli()
}

// indexKey orders names by their expiry.
func indexKey(expiry uint64, name string) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, expirySize+len(name)), expiry), name...)
}

func (t *txn) nextRevision() (store.Revision, error) {
	n, err := t.docs.NextSequence()
	return store.Revision(n), err
}

// document returns the live document with the key, or the zero record.
func (t *txn) document(key string) (record, error) {
	b := t.docs.Get([]byte(key))
	if b == nil {
		return record{}, nil
	}
	r, err := decodeRecord(b)
	if err != nil {
		return record{}, fmt.Errorf("document %q: %w", key, err)
	}
	if r.expired(t.now) {
		return record{}, nil
	}
	return r, nil
}

func (t *txn) putDocument(key string, r record) error {
	t.changed = append(t.changed, key)
	return t.docs.Put([]byte(key), r.encode())
}

func (t *txn) put(key string, value []byte, expect store.Revision) (store.Revision, error) {
	old, err := t.document(key)
	if err != nil {
		return 0, err
	}
	if old.revision != expect {
		return 0, fmt.Errorf("%w: document %q", store.ErrConflict, key)
	}
	revision, err := t.nextRevision()
	if err != nil {
		return 0, err
	}
	return revision, t.putDocument(key, record{revision: revision, value: value})
}

func (t *txn) putLease(key string, value []byte, ttl time.Duration) (store.Revision, error) {
	old, err := t.document(key)
	if err != nil {
		return 0, err
	}
	if old.revision != 0 && old.expiry == 0 {
		return 0, fmt.Errorf("%w: document %q is no lease", store.ErrConflict, key)
	}
	// An index entry of the old expiry is left to the sweep, which sees that the
	// lease has moved on.
	next := record{revision: old.revision, expiry: expiry(t.now.Add(ttl)), value: value}
	if err := t.leases.Put(indexKey(next.expiry, key), nil); err != nil {
		return 0, err
	}
	if old.revision != 0 && string(old.value) == string(value) {
		return next.revision, t.docs.Put([]byte(key), next.encode())
	}
	if next.revision, err = t.nextRevision(); err != nil {
		return 0, err
	}
	return next.revision, t.putDocument(key, next)
}

func (t *txn) deleteDocument(key string, expect store.Revision) error {
	old, err := t.document(key)
	switch {
	case err != nil:
		return err
	case old.revision == 0:
		return fmt.Errorf("%w: document %q", store.ErrNotFound, key)
	case expect != 0 && expect != old.revision:
		return fmt.Errorf("%w: document %q", store.ErrConflict, key)
	}
	t.changed = append(t.changed, key)
	return t.docs.Delete([]byte(key))
}

// group returns the sums of the key, to be changed in place.
func (t *txn) group(key string) (*group, error) {
	if g, ok := t.loaded[key]; ok {
		return g, nil
	}
	g := &group{sums: make(map[string]float64)}
	if life := t.lives.Get([]byte(key)); life != nil {
		g.stored = binary.BigEndian.Uint64(life)
	}
	if !t.ended(g.stored) {
		var err error
		if g.sums, err = decodeSums(t.sums.Get([]byte(key))); err != nil {
			return nil, fmt.Errorf("sums %q: %w", key, err)
		}
		g.expiry = g.stored
	}
	t.loaded[key] = g
	return g, nil
}

// ended says whether an expiry, zero for none, has come.
func (t *txn) ended(expiry uint64) bool { return record{expiry: expiry}.expired(t.now) }

func (t *txn) add(once string, ttl time.Duration, updates []store.Update) (applied bool, err error) {
	if once != "" {
		if b := t.once.Get([]byte(once)); b != nil && !expired(b, t.now) {
			return false, nil
		}
	}
	// Everything is checked before anything is changed.
	for _, u := range updates {
		g, err := t.group(u.Key)
		if err != nil {
			return false, err
		}
		for field, delta := range u.Deltas {
			if math.IsInf(g.sums[field]+delta, 0) {
				return false, fmt.Errorf("%w: sum of %q in %q overflows", store.ErrInvalid, field, u.Key)
			}
		}
	}
	for _, u := range updates {
		g := t.loaded[u.Key]
		for field, delta := range u.Deltas {
			g.sums[field] += delta
			g.dirty = true
		}
		g.expiry = 0
		if u.TTL != 0 {
			g.expiry = expiry(t.now.Add(u.TTL))
		}
	}
	if once == "" {
		return true, nil
	}
	at := expiry(t.now.Add(ttl))
	if err := t.onceIndex.Put(indexKey(at, once), nil); err != nil {
		return false, err
	}
	return true, t.once.Put([]byte(once), binary.BigEndian.AppendUint64(nil, at))
}

func (t *txn) deleteSums(keys []string) error {
	for _, key := range keys {
		t.loaded[key] = &group{sums: make(map[string]float64)}
		if err := errors.Join(t.sums.Delete([]byte(key)), t.lives.Delete([]byte(key))); err != nil {
			return err
		}
	}
	return nil
}

// saveSums writes what add changed.
func (t *txn) saveSums() error {
	for key, g := range t.loaded {
		if g.dirty {
			if err := t.sums.Put([]byte(key), encodeSums(g.sums)); err != nil {
				return err
			}
		}
		if err := t.saveLife(key, g); err != nil {
			return err
		}
	}
	return nil
}

// saveLife writes the expiry of a key. The index holds a time at which the sweep looks at it, which is
// its expiry when it was new: a life that grows costs one entry, not one at each Add.
func (t *txn) saveLife(key string, g *group) error {
	switch {
	case len(g.sums) == 0 || g.expiry == g.stored:
		return nil
	case g.expiry == 0:
		return t.lives.Delete([]byte(key))
	case g.stored == 0 || g.expiry < g.stored || t.ended(g.stored):
		if err := t.lifeIndex.Put(indexKey(g.expiry, key), nil); err != nil {
			return err
		}
	}
	return t.lives.Put([]byte(key), binary.BigEndian.AppendUint64(nil, g.expiry))
}

// sweep removes up to sweepBatch of what expired first, of each kind.
func (t *txn) sweep() error {
	return errors.Join(
		t.sweepIndex(t.leases, func(key []byte) error {
			// It may be gone, or have been renewed, under another index entry.
			if r, err := decodeRecord(t.docs.Get(key)); err == nil && r.expired(t.now) {
				return t.docs.Delete(key)
			}
			return nil
		}),
		t.sweepIndex(t.onceIndex, func(once []byte) error {
			if b := t.once.Get(once); b == nil || !expired(b, t.now) {
				return nil
			}
			return t.once.Delete(once)
		}),
		t.sweepIndex(t.lifeIndex, func(key []byte) error {
			life := t.lives.Get(key)
			switch {
			case life == nil:
				return nil
			case !expired(life, t.now):
				return t.lifeIndex.Put(indexKey(binary.BigEndian.Uint64(life), string(key)), nil)
			}
			return errors.Join(t.sums.Delete(key), t.lives.Delete(key))
		}),
	)
}

// sweepIndex takes what is due from the index, and calls look with the name of each.
func (t *txn) sweepIndex(index *bbolt.Bucket, look func(name []byte) error) error {
	var due [][]byte
	cursor := index.Cursor()
	for k, _ := cursor.First(); k != nil && expired(k, t.now) && len(due) < sweepBatch; k, _ = cursor.Next() {
		due = append(due, bytes.Clone(k))
	}
	for _, k := range due {
		if err := errors.Join(look(k[expirySize:]), index.Delete(k)); err != nil {
			return err
		}
	}
	return nil
}
