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

type sums struct{ db *DB }

// add is one call of Add on its way through a pipeline.
type add struct {
	keys    []string
	args    []any
	reply   *redis.Cmd
	applied bool
	err     error
}

func (s sums) Add(ctx context.Context, once string, ttl time.Duration, updates ...store.Update) (bool, error) {
	if err := store.CheckAdd(once, ttl, updates); err != nil {
		return false, fmt.Errorf("add sums: %w", err)
	}
	a := s.db.names.add(once, ttl, updates)
	if err := s.db.adds.Do(ctx, a); err != nil {
		return false, fmt.Errorf("add sums: %w", unavailable(ctx, err))
	}
	if a.err != nil {
		return false, fmt.Errorf("add sums: %w", a.err)
	}
	return a.applied, nil
}

// add spells the arguments of addScript.
func (n names) add(once string, ttl time.Duration, updates []store.Update) *add {
	a := &add{
		keys: make([]string, 0, 2+len(updates)),
		args: make([]any, 0, 1+8*len(updates)),
	}
	remember := int64(0)
	if once != "" {
		remember = milliseconds(ttl)
	}
	a.keys = append(a.keys, n.once+once, n.sumIndex)
	a.args = append(a.args, remember)
	for _, u := range updates {
		a.keys = append(a.keys, n.sums+u.Key)
		a.args = append(a.args, u.Key, len(u.Deltas))
		deltas := make([]any, 0, len(u.Deltas))
		for field, delta := range u.Deltas {
			a.args = append(a.args, field)
			deltas = append(deltas, strconv.FormatFloat(delta, 'g', -1, 64))
		}
		a.args = append(a.args, deltas...)
	}
	return a
}

// flush sends a batch in one round trip. It has a deadline of its own, since it
// serves callers with different ones.
func (db *DB) flush(batch []*add) {
	ctx, cancel := context.WithTimeout(context.Background(), batchTimeout)
	defer cancel()
	unknown := db.send(ctx, batch)
	if len(unknown) > 0 {
		// The server has been restarted since it learned the script.
		if err := addScript.Load(ctx, db.redis).Err(); err == nil {
			db.send(ctx, unknown)
		}
	}
	for _, a := range batch {
		reply, err := a.reply.Int64()
		switch {
		case err != nil:
			a.err = unavailable(ctx, err)
		case reply == replyOverflow:
			a.err = fmt.Errorf("%w: a sum overflows", store.ErrInvalid)
		default:
			a.applied = reply == 1
		}
	}
}

// send runs the script for each, and returns those for which the server did not
// know it.
func (db *DB) send(ctx context.Context, batch []*add) (unknown []*add) {
	pipeline := db.redis.Pipeline()
	for _, a := range batch {
		a.reply = pipeline.EvalSha(ctx, addScript.Hash(), a.keys, a.args...)
	}
	// Each reply has its own error.
	_, _ = pipeline.Exec(ctx)
	for _, a := range batch {
		if redis.HasErrorPrefix(a.reply.Err(), "NOSCRIPT") {
			unknown = append(unknown, a)
		}
	}
	return unknown
}

func (s sums) Get(ctx context.Context, key string) (map[string]float64, error) {
	if err := store.CheckKey(key); err != nil {
		return nil, fmt.Errorf("get sums: %w", err)
	}
	fields, err := s.db.redis.HGetAll(ctx, s.db.names.sums+key).Result()
	if err != nil {
		return nil, fmt.Errorf("get sums %q: %w", key, unavailable(ctx, err))
	}
	sums := make(map[string]float64, len(fields))
	for field, digits := range fields {
		if sums[field], err = strconv.ParseFloat(digits, 64); err != nil {
			return nil, fmt.Errorf("get sums %q: field %q: %w", key, field, err)
		}
	}
	return sums, nil
}

func (s sums) Keys(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if err := store.CheckLimit(limit); err != nil {
		return nil, fmt.Errorf("list sums: %w", err)
	}
	first, last := prefixRange(prefix)
	if after >= prefix {
		first = "(" + after
	}
	keys, err := s.db.redis.ZRangeArgs(ctx, redis.ZRangeArgs{
		Key: s.db.names.sumIndex, ByLex: true, Start: first, Stop: last, Count: int64(limit),
	}).Result()
	if err != nil {
		return nil, fmt.Errorf("list sums %q: %w", prefix, unavailable(ctx, err))
	}
	return keys, nil
}

func (s sums) Delete(ctx context.Context, key string) error {
	if err := store.CheckKey(key); err != nil {
		return fmt.Errorf("delete sums: %w", err)
	}
	_, err := s.db.redis.TxPipelined(ctx, func(tx redis.Pipeliner) error {
		tx.Del(ctx, s.db.names.sums+key)
		tx.ZRem(ctx, s.db.names.sumIndex, key)
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete sums %q: %w", key, unavailable(ctx, err))
	}
	return nil
}
