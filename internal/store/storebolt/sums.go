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
	if err := store.CheckKey(key); err != nil {
		return nil, fmt.Errorf("get sums: %w", err)
	}
	var sums map[string]float64
	err := s.db.view(ctx, func(tx *bbolt.Tx) (err error) {
		sums, err = decodeSums(tx.Bucket(bucketSums).Get([]byte(key)))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("get sums %q: %w", key, err)
	}
	return sums, nil
}

func (s sums) Keys(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if err := store.CheckLimit(limit); err != nil {
		return nil, fmt.Errorf("list sums: %w", err)
	}
	var keys []string
	err := s.db.view(ctx, func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketSums).Cursor()
		k, _ := cursor.Seek([]byte(max(prefix, after)))
		if k != nil && string(k) == after {
			k, _ = cursor.Next()
		}
		for ; k != nil && bytes.HasPrefix(k, []byte(prefix)) && len(keys) < limit; k, _ = cursor.Next() {
			keys = append(keys, string(k))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list sums %q: %w", prefix, err)
	}
	return keys, nil
}

func (s sums) Delete(ctx context.Context, key string) error {
	if err := store.CheckKey(key); err != nil {
		return fmt.Errorf("delete sums: %w", err)
	}
	err := s.db.update(ctx, func(t *txn) error { return t.deleteSums(key) })
	if err != nil {
		return fmt.Errorf("delete sums %q: %w", key, err)
	}
	return nil
}
