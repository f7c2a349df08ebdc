// SPDX-License-Identifier: Apache-2.0

package storeredis

import (
	"context"
	"errors"
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
		keys: make([]string, 0, 3+len(updates)),
		args: make([]any, 0, 3+8*len(updates)),
	}
	remember := int64(0)
	if once != "" {
		remember = milliseconds(ttl)
	}
	a.keys = append(a.keys, n.once+once, n.sumIndex, n.sumLives)
	a.args = append(a.args, remember, n.sums, sweepPerAdd)
	for _, u := range updates {
		a.keys = append(a.keys, n.sums+u.Key)
		a.args = append(a.args, u.Key, milliseconds(u.TTL), len(u.Deltas))
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
	return parse(key, fields)
}

// parse reads the digits of sums.
func parse(key string, fields map[string]string) (map[string]float64, error) {
	sums := make(map[string]float64, len(fields))
	for field, digits := range fields {
		var err error
		if sums[field], err = strconv.ParseFloat(digits, 64); err != nil {
			return nil, fmt.Errorf("get sums %q: field %q: %w", key, field, err)
		}
	}
	return sums, nil
}

func (s sums) Group(ctx context.Context, key string) (store.Group, error) {
	if err := store.CheckKey(key); err != nil {
		return store.Group{}, fmt.Errorf("get sums: %w", err)
	}
	var fields *redis.MapStringStringCmd
	var left *redis.DurationCmd
	// A transaction, so that both are from one moment.
	_, err := s.db.redis.TxPipelined(ctx, func(tx redis.Pipeliner) error {
		fields = tx.HGetAll(ctx, s.db.names.sums+key)
		left = tx.PTTL(ctx, s.db.names.sums+key)
		return nil
	})
	if err != nil {
		return store.Group{}, fmt.Errorf("get sums %q: %w", key, unavailable(ctx, err))
	}
	sums, err := parse(key, fields.Val())
	if err != nil {
		return store.Group{}, err
	}
	return store.Group{Key: key, Sums: sums, TTL: timeToLive(left.Val())}, nil
}

// timeToLive reads the answer of PTTL about what there is: negative for what stays, else whole
// milliseconds, of which less than one may be left.
func timeToLive(pttl time.Duration) time.Duration {
	if pttl < 0 {
		return 0
	}
	return max(pttl, 1)
}

func (s sums) Keys(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	groups, err := s.list(ctx, prefix, after, limit, "keys")
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, g := range groups {
		keys = append(keys, g.Key)
	}
	return keys, nil
}

func (s sums) List(ctx context.Context, prefix, after string, limit int, fields ...string) ([]store.Group, error) {
	if len(fields) == 0 {
		return s.list(ctx, prefix, after, limit, "all")
	}
	return s.list(ctx, prefix, after, limit, "some", fields...)
}

// list runs the script until the limit is reached: keys that have expired make a run return less.
func (s sums) list(ctx context.Context, prefix, after string, limit int, mode string, fields ...string) ([]store.Group, error) {
	if err := store.CheckLimit(limit); err != nil {
		return nil, fmt.Errorf("list sums: %w", err)
	}
	first, last := prefixRange(prefix)
	if after >= prefix {
		first = "(" + after
	}
	var groups []store.Group
	for len(groups) < limit {
		want := limit - len(groups)
		args := []any{s.db.names.sums, first, last, want, mode}
		for _, field := range fields {
			args = append(args, field)
		}
		reply, err := listSumsScript.Run(ctx, s.db.redis, []string{s.db.names.sumIndex, s.db.names.sumLives}, args...).Slice()
		if err != nil {
			return nil, fmt.Errorf("list sums %q: %w", prefix, unavailable(ctx, err))
		}
		seen, lastSeen, page, err := parsePage(reply)
		if err != nil {
			return nil, fmt.Errorf("list sums %q: %w", prefix, err)
		}
		groups = append(groups, page...)
		if seen < int64(want) {
			break
		}
		first = "(" + lastSeen
	}
	return groups, nil
}

// parsePage reads the answer of listSumsScript.
func parsePage(reply []any) (seen int64, last string, groups []store.Group, err error) {
	wrong := errors.New("the reply is not as it should be")
	if len(reply) < 2 {
		return 0, "", nil, wrong
	}
	seen, okSeen := reply[0].(int64)
	last, okLast := reply[1].(string)
	if !okSeen || !okLast {
		return 0, "", nil, wrong
	}
	for _, item := range reply[2:] {
		parts, _ := item.([]any)
		if len(parts) != 3 {
			return 0, "", nil, wrong
		}
		key, okKey := parts[0].(string)
		pttl, okTTL := parts[1].(int64)
		digits, okSums := parts[2].([]any)
		if !okKey || !okTTL || !okSums || len(digits)%2 != 0 {
			return 0, "", nil, wrong
		}
		fields := make(map[string]string, len(digits)/2)
		for i := 0; i < len(digits); i += 2 {
			field, okField := digits[i].(string)
			value, okValue := digits[i+1].(string)
			if !okField || !okValue {
				return 0, "", nil, wrong
			}
			fields[field] = value
		}
		sums, err := parse(key, fields)
		if err != nil {
			return 0, "", nil, err
		}
		groups = append(groups, store.Group{Key: key, Sums: sums, TTL: timeToLive(time.Duration(pttl) * time.Millisecond)})
	}
	return seen, last, groups, nil
}

func (s sums) Delete(ctx context.Context, keys ...string) error {
	if err := store.CheckKeys(keys); err != nil {
		return fmt.Errorf("delete sums: %w", err)
	}
	if len(keys) == 0 {
		return nil
	}
	names, members := make([]string, len(keys)), make([]any, len(keys))
	for i, key := range keys {
		names[i], members[i] = s.db.names.sums+key, key
	}
	_, err := s.db.redis.TxPipelined(ctx, func(tx redis.Pipeliner) error {
		tx.Del(ctx, names...)
		tx.ZRem(ctx, s.db.names.sumIndex, members...)
		tx.ZRem(ctx, s.db.names.sumLives, members...)
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete sums: %w", unavailable(ctx, err))
	}
	return nil
}
