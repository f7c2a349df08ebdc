// SPDX-License-Identifier: Apache-2.0

package storeredis

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/clipper-serving/clipper/internal/store"
)

type documents struct{ db *DB }

func (d documents) Get(ctx context.Context, key string) (store.Document, error) {
	if err := store.CheckKey(key); err != nil {
		return store.Document{}, fmt.Errorf("get document: %w", err)
	}
	docs, err := d.list(ctx, "["+key, "["+key)
	if err == nil && len(docs) == 0 {
		err = store.ErrNotFound
	}
	if err != nil {
		return store.Document{}, fmt.Errorf("get document %q: %w", key, err)
	}
	return docs[0], nil
}

func (d documents) List(ctx context.Context, prefix string) ([]store.Document, error) {
	first, last := prefixRange(prefix)
	docs, err := d.list(ctx, first, last)
	if err != nil {
		return nil, fmt.Errorf("list documents %q: %w", prefix, err)
	}
	return docs, nil
}

func (d documents) list(ctx context.Context, first, last string) ([]store.Document, error) {
	reply, err := listScript.Run(ctx, d.db.redis, []string{d.db.names.index}, d.db.names.document, first, last).Slice()
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	if len(reply)%4 != 0 {
		return nil, fmt.Errorf("reply of %d parts, want a multiple of 4", len(reply))
	}
	docs := make([]store.Document, 0, len(reply)/4)
	for ; len(reply) > 0; reply = reply[4:] {
		key, okKey := reply[0].(string)
		digits, okRevision := reply[1].(string)
		value, okValue := reply[2].(string)
		pttl, okTTL := reply[3].(int64)
		revision, err := strconv.ParseUint(digits, 10, 64)
		if !okKey || !okRevision || !okValue || !okTTL || err != nil {
			return nil, fmt.Errorf("document %q is not as it was written", key)
		}
		doc := store.Document{Key: key, Value: []byte(value), Revision: store.Revision(revision)}
		if pttl >= 0 {
			// Redis counts whole milliseconds: it may have less than one left.
			doc.TTL = max(time.Duration(pttl)*time.Millisecond, 1)
		}
		docs = append(docs, doc)
	}
	return docs, nil
}

func (d documents) Put(ctx context.Context, key string, value []byte, expect store.Revision) (store.Revision, error) {
	if err := store.CheckDocument(key, value); err != nil {
		return 0, fmt.Errorf("put document: %w", err)
	}
	return d.write(ctx, "put document", putScript, key, value, uint64(expect))
}

func (d documents) PutLease(ctx context.Context, key string, value []byte, ttl time.Duration) (store.Revision, error) {
	err := store.CheckDocument(key, value)
	if err == nil {
		err = store.CheckTTL(ttl)
	}
	if err != nil {
		return 0, fmt.Errorf("put lease: %w", err)
	}
	return d.write(ctx, "put lease", putLeaseScript, key, value, milliseconds(ttl))
}

func (d documents) Delete(ctx context.Context, key string, expect store.Revision) error {
	if err := store.CheckKey(key); err != nil {
		return fmt.Errorf("delete document: %w", err)
	}
	_, err := d.write(ctx, "delete document", deleteScript, key, uint64(expect))
	return err
}

// write runs one of the scripts on a document.
func (d documents) write(ctx context.Context, what string, script *redis.Script, key string, args ...any) (store.Revision, error) {
	n := d.db.names
	keys := []string{n.document + key, n.index, n.revision, n.changes}
	reply, err := script.Run(ctx, d.db.redis, keys, append([]any{key}, args...)...).Int64()
	switch {
	case err != nil:
		err = unavailable(ctx, err)
	case reply == replyNotFound:
		err = store.ErrNotFound
	case reply == replyConflict:
		err = store.ErrConflict
	default:
		return store.Revision(reply), nil
	}
	return 0, fmt.Errorf("%s %q: %w", what, key, err)
}

func (d documents) Watch(ctx context.Context, prefix string) <-chan struct{} {
	signals := d.db.hub.Watch(ctx, prefix)
	d.db.listen()
	return signals
}

// milliseconds rounds up, so that nothing ends early.
func milliseconds(ttl time.Duration) int64 {
	return int64((ttl + time.Millisecond - 1) / time.Millisecond)
}
