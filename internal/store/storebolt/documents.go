// SPDX-License-Identifier: Apache-2.0

package storebolt

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/clipper-serving/clipper/internal/store"
)

type documents struct{ db *DB }

func (d documents) Get(ctx context.Context, key string) (store.Document, error) {
	if err := store.CheckKey(key); err != nil {
		return store.Document{}, fmt.Errorf("get document: %w", err)
	}
	var doc store.Document
	err := d.db.view(ctx, func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketDocuments).Get([]byte(key))
		live := false
		if b != nil {
			var err error
			if doc, live, err = liveDocument([]byte(key), b, time.Now()); err != nil {
				return err
			}
		}
		if !live {
			return store.ErrNotFound
		}
		return nil
	})
	if err != nil {
		return store.Document{}, fmt.Errorf("get document %q: %w", key, err)
	}
	return doc, nil
}

// liveDocument copies a document out of the file, unless it has expired.
func liveDocument(key, b []byte, now time.Time) (store.Document, bool, error) {
	r, err := decodeRecord(b)
	if err != nil || r.expired(now) {
		return store.Document{}, false, err
	}
	return store.Document{
		Key:      string(key),
		Value:    bytes.Clone(r.value),
		Revision: r.revision,
		TTL:      r.ttl(now),
	}, true, nil
}

func (d documents) List(ctx context.Context, prefix string) ([]store.Document, error) {
	var docs []store.Document
	err := d.db.view(ctx, func(tx *bbolt.Tx) error {
		now := time.Now()
		cursor := tx.Bucket(bucketDocuments).Cursor()
		for k, b := cursor.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, b = cursor.Next() {
			doc, live, err := liveDocument(k, b, now)
			if err != nil {
				return err
			}
			if live {
				docs = append(docs, doc)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list documents %q: %w", prefix, err)
	}
	return docs, nil
}

func (d documents) Put(ctx context.Context, key string, value []byte, expect store.Revision) (store.Revision, error) {
	if err := store.CheckDocument(key, value); err != nil {
		return 0, fmt.Errorf("put document: %w", err)
	}
	return d.write(ctx, "put document", func(t *txn) (store.Revision, error) {
		return t.put(key, value, expect)
	})
}

func (d documents) PutLease(ctx context.Context, key string, value []byte, ttl time.Duration) (store.Revision, error) {
	err := store.CheckDocument(key, value)
	if err == nil {
		err = store.CheckTTL(ttl)
	}
	if err != nil {
		return 0, fmt.Errorf("put lease: %w", err)
	}
	return d.write(ctx, "put lease", func(t *txn) (store.Revision, error) {
		return t.putLease(key, value, ttl)
	})
}

func (d documents) Delete(ctx context.Context, key string, expect store.Revision) error {
	if err := store.CheckKey(key); err != nil {
		return fmt.Errorf("delete document: %w", err)
	}
	_, err := d.write(ctx, "delete document", func(t *txn) (store.Revision, error) {
		return 0, t.deleteDocument(key, expect)
	})
	return err
}

func (d documents) write(ctx context.Context, what string, apply func(*txn) (store.Revision, error)) (store.Revision, error) {
	var revision store.Revision
	err := d.db.update(ctx, func(t *txn) (err error) {
		revision, err = apply(t)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	return revision, nil
}

func (d documents) Watch(ctx context.Context, prefix string) <-chan struct{} {
	return d.db.hub.Watch(ctx, prefix)
}
