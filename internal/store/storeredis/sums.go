// SPDX-License-Identifier: Apache-2.0

package storeredis

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/clipper-serving/clipper/internal/store"
)

type sums struct{ db *DB }

// add is one call of Add on its way to the server.
type add struct {
	once    string
	ttl     time.Duration
	updates []store.Update
	applied bool
	err     error
}

func (s sums) Add(ctx context.Context, once string, ttl time.Duration, updates ...store.Update) (bool, error) {
	if err := store.CheckAdd(once, ttl, updates); err != nil {
		return false, fmt.Errorf("add sums: %w", err)
	}
	a := &add{once: once, ttl: ttl, updates: updates}
	if err := s.db.adds.Do(ctx, a); err != nil {
		return false, fmt.Errorf("add sums: %w", unavailable(ctx, err))
	}
	if a.err != nil {
		return false, fmt.Errorf("add sums: %w", a.err)
	}
	return a.applied, nil
}

// run is calls that share one run of addScript.
type run struct {
	adds  []*add
	keys  []string
	args  []any
	reply *redis.Cmd
}

// maxFields bounds the sums that calls share a run for, and with it how long the
// server does nothing else.
const maxFields = 1 << 14

// group is the fields of one key in the order of their numbers.
type group struct {
	number  uint32
	numbers map[string]uint32
	fields  []string
}

// runs spells the arguments of addScript.
func (n names) runs(adds []*add) []*run {
	var runs []*run
	for len(adds) > 0 {
		groups, keys, fields := map[string]*group{}, []string{}, 0
		updates := make([][]byte, 0, len(adds))
		taken := 0
		for _, a := range adds {
			if fields > 0 && fields+a.fields() > maxFields {
				break
			}
			packed := make([]byte, 0, 16*len(a.updates)+12*a.fields())
			for _, u := range a.updates {
				g := groups[u.Key]
				if g == nil {
					keys = append(keys, u.Key)
					g = &group{number: uint32(len(keys)), numbers: make(map[string]uint32, len(u.Deltas))}
					groups[u.Key] = g
				}
				packed = binary.LittleEndian.AppendUint32(packed, g.number)
				packed = binary.LittleEndian.AppendUint64(packed, math.Float64bits(float64(milliseconds(u.TTL))))
				packed = binary.LittleEndian.AppendUint32(packed, uint32(len(u.Deltas)))
				for field, delta := range u.Deltas {
					i := g.numbers[field]
					if i == 0 {
						g.fields = append(g.fields, field)
						i = uint32(len(g.fields))
						g.numbers[field] = i
						fields++
					}
					packed = binary.LittleEndian.AppendUint32(packed, i)
					packed = binary.LittleEndian.AppendUint64(packed, math.Float64bits(delta))
				}
			}
			updates = append(updates, packed)
			taken++
		}
		r := &run{
			adds: adds[:taken],
			keys: make([]string, 0, 2+len(keys)+taken),
			args: make([]any, 0, 3+2*len(keys)+fields+2*taken),
		}
		r.keys = append(r.keys, n.sumIndex, n.sumLives)
		r.args = append(r.args, len(keys), n.sums, sweepPerAdd)
		for _, key := range keys {
			r.keys = append(r.keys, n.sums+key)
			r.args = append(r.args, key, len(groups[key].fields))
			for _, field := range groups[key].fields {
				r.args = append(r.args, field)
			}
		}
		for i, a := range r.adds {
			remember := int64(0)
			if a.once != "" {
				remember = milliseconds(a.ttl)
			}
			r.keys = append(r.keys, n.once+a.once)
			r.args = append(r.args, remember, updates[i])
		}
		runs, adds = append(runs, r), adds[taken:]
	}
	return runs
}

// fields counts the deltas.
func (a *add) fields() int {
	n := 0
	for _, u := range a.updates {
		n += len(u.Deltas)
	}
	return n
}

// flush sends a batch in one round trip. It has a deadline of its own, since it
// serves callers with different ones.
func (db *DB) flush(batch []*add) {
	ctx, cancel := context.WithTimeout(context.Background(), batchTimeout)
	defer cancel()
	runs := db.names.runs(batch)
	unknown := db.send(ctx, runs)
	if len(runs) > 0 && redis.HasErrorPrefix(runs[0].reply.Err(), "READONLY") && db.leaveReplica(ctx) {
		unknown = db.send(ctx, runs)
	}
	if len(unknown) > 0 {
		// The server has been restarted since it learned the script.
		if err := addScript.Load(ctx, db.redis).Err(); err == nil {
			db.send(ctx, unknown)
		}
	}
	for _, r := range runs {
		replies, err := r.reply.Int64Slice()
		if err == nil && len(replies) != len(r.adds) {
			err = fmt.Errorf("%d answers to %d additions", len(replies), len(r.adds))
		}
		for i, a := range r.adds {
			switch {
			case err != nil:
				a.err = unavailable(ctx, err)
			case replies[i] == replyOverflow:
				a.err = fmt.Errorf("%w: a sum overflows", store.ErrInvalid)
			default:
				a.applied = replies[i] == 1
			}
		}
	}
}

// leaveReplica drops the connections to a server that has become a replica, so that new ones are made to
// whatever the address leads to now. The client does so itself when a lone command is refused, one
// connection at a time, but not for a pipeline. It reports whether there is a server that takes writes.
func (db *DB) leaveReplica(ctx context.Context) bool {
	for range db.redis.Options().PoolSize + 1 {
		err := db.redis.Set(ctx, db.names.write, "", 0).Err()
		if !redis.HasErrorPrefix(err, "READONLY") {
			return err == nil
		}
	}
	return false
}

// send runs the script for each, and returns those for which the server did not
// know it.
func (db *DB) send(ctx context.Context, runs []*run) (unknown []*run) {
	pipeline := db.redis.Pipeline()
	for _, r := range runs {
		r.reply = pipeline.EvalSha(ctx, addScript.Hash(), r.keys, r.args...)
	}
	// Each reply has its own error.
	_, _ = pipeline.Exec(ctx)
	for _, r := range runs {
		if redis.HasErrorPrefix(r.reply.Err(), "NOSCRIPT") {
			unknown = append(unknown, r)
		}
	}
	return unknown
}

// get is one call of Get on its way through a pipeline.
type get struct {
	key   string
	reply *redis.MapStringStringCmd
}

// read sends a batch of reads in one round trip.
func (db *DB) read(batch []*get) {
	ctx, cancel := context.WithTimeout(context.Background(), batchTimeout)
	defer cancel()
	pipeline := db.redis.Pipeline()
	for _, g := range batch {
		g.reply = pipeline.HGetAll(ctx, g.key)
	}
	// Each reply has its own error.
	_, _ = pipeline.Exec(ctx)
}

func (s sums) Get(ctx context.Context, key string) (map[string]float64, error) {
	if err := store.CheckKey(key); err != nil {
		return nil, fmt.Errorf("get sums: %w", err)
	}
	g := &get{key: s.db.names.sums + key}
	if err := s.db.gets.Do(ctx, g); err != nil {
		return nil, fmt.Errorf("get sums %q: %w", key, unavailable(ctx, err))
	}
	fields, err := g.reply.Result()
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
