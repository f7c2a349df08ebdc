// SPDX-License-Identifier: Apache-2.0

package storebolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/clipper-serving/clipper/internal/store"
)

type sums struct{ db *DB }

func (s sums) Add(ctx context.Context, once string, ttl time.Duration, updates ...store.Update) (bool, error) {
	if err := store.CheckAdd(once, ttl, updates); err != nil {
		return false, fmt.Errorf("add sums: %w", err)
	}
	var applied bool
	err := s.db.update(ctx, func(t *txn) (err error) {
		applied, err = t.add(once, ttl, updates)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("add sums: %w", err)
	}
	return applied, nil
}

func (s sums) Get(ctx context.Context, key string) (map[string]float64, error) {
	g, err := s.Group(ctx, key)
	return g.Sums, err
}

func (s sums) Group(ctx context.Context, key string) (store.Group, error) {
	if err := store.CheckKey(key); err != nil {
		return store.Group{}, fmt.Errorf("get sums: %w", err)
	}
	var g store.Group
	err := s.db.view(ctx, func(tx *bbolt.Tx) (err error) {
		g, _, err = liveGroup(tx, []byte(key), tx.Bucket(bucketSums).Get([]byte(key)), time.Now())
		return err
	})
	if err != nil {
		return store.Group{}, fmt.Errorf("get sums %q: %w", key, err)
	}
	return g, nil
}

// liveGroup reads sums that were found in the file as b. Those that have expired are empty and not live.
func liveGroup(tx *bbolt.Tx, key, b []byte, now time.Time) (g store.Group, live bool, err error) {
	g = store.Group{Key: string(key)}
	if life := tx.Bucket(bucketLives).Get(key); life != nil {
		if expired(life, now) {
			b = nil
		} else {
			g.TTL = record{expiry: binary.BigEndian.Uint64(life)}.ttl(now)
		}
	}
	g.Sums, err = decodeSums(b)
	return g, b != nil, err
}

func (s sums) Keys(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	var keys []string
	err := s.scan(ctx, prefix, after, limit, func(tx *bbolt.Tx, key, _ []byte, now time.Time) (bool, error) {
		if life := tx.Bucket(bucketLives).Get(key); life != nil && expired(life, now) {
			return false, nil
		}
		keys = append(keys, string(key))
		return true, nil
	})
	return keys, err
}

func (s sums) List(ctx context.Context, prefix, after string, limit int, fields ...string) ([]store.Group, error) {
	var groups []store.Group
	err := s.scan(ctx, prefix, after, limit, func(tx *bbolt.Tx, key, b []byte, now time.Time) (bool, error) {
		g, live, err := liveGroup(tx, key, b, now)
		if err != nil || !live {
			return false, err
		}
		if len(fields) > 0 {
			maps.DeleteFunc(g.Sums, func(field string, _ float64) bool { return !slices.Contains(fields, field) })
		}
		groups = append(groups, g)
		return true, nil
	})
	return groups, err
}

// scan calls each with the keys and what is stored under them, in order, until it has taken as many as
// the limit.
func (s sums) scan(ctx context.Context, prefix, after string, limit int, each func(tx *bbolt.Tx, key, b []byte, now time.Time) (taken bool, err error)) error {
	if err := store.CheckLimit(limit); err != nil {
		return fmt.Errorf("list sums: %w", err)
	}
	err := s.db.view(ctx, func(tx *bbolt.Tx) error {
		now, taken := time.Now(), 0
		cursor := tx.Bucket(bucketSums).Cursor()
		k, b := cursor.Seek([]byte(max(prefix, after)))
		if k != nil && string(k) == after {
			k, b = cursor.Next()
		}
		for ; k != nil && bytes.HasPrefix(k, []byte(prefix)) && taken < limit; k, b = cursor.Next() {
			ok, err := each(tx, k, b, now)
			if err != nil {
				return err
			}
			if ok {
				taken++
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list sums %q: %w", prefix, err)
	}
	return nil
}

func (s sums) Delete(ctx context.Context, keys ...string) error {
	if err := store.CheckKeys(keys); err != nil {
		return fmt.Errorf("delete sums: %w", err)
	}
	if err := s.db.update(ctx, func(t *txn) error { return t.deleteSums(keys) }); err != nil {
		return fmt.Errorf("delete sums: %w", err)
	}
	return nil
}
