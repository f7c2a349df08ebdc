// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/clipper-serving/clipper/internal/store"
)

// brief is a life that a test waits for the end of, and long enough for one more call before.
const brief = 500 * time.Millisecond

// lasting is an update of sums that expire.
func lasting(key string, ttl time.Duration, deltas map[string]float64) store.Update {
	return store.Update{Key: key, Deltas: deltas, TTL: ttl}
}

// groups reads entries of several keys at once.
func groups(t *testing.T, open Opener) {
	one, other := open(t)
	s, ctx := one.Sums(), patient(t)
	want := []store.Group{{Key: "app/only", Sums: map[string]float64{"z": 3}}}
	for i := range 12 {
		want = append(want, store.Group{Key: fmt.Sprintf("app/%02d", i), Sums: map[string]float64{"n": float64(i), "x": 0.1, "Grüße ☃": -1}})
	}
	slices.SortFunc(want, func(a, b store.Group) int { return strings.Compare(a.Key, b.Key) })
	for _, g := range append(want, store.Group{Key: "aqq", Sums: map[string]float64{"n": 1}}) {
		_, err := s.Add(ctx, "", 0, plus(g.Key, g.Sums))
		require.NoError(t, err)
	}
	for _, limit := range []int{1, 5, 100} {
		var got []store.Group
		for after := ""; ; after = got[len(got)-1].Key {
			page, err := other.Sums().List(ctx, "app/", after, limit)
			require.NoError(t, err)
			require.LessOrEqual(t, len(page), limit)
			got = append(got, page...)
			if len(page) < limit {
				break
			}
		}
		require.Equal(t, want, got, "limit %d", limit)
	}

	page, err := s.List(ctx, "app/1", "app/10", 5, "Grüße ☃", "absent", "n")
	require.NoError(t, err)
	require.Equal(t, []store.Group{{Key: "app/11", Sums: map[string]float64{"n": 11, "Grüße ☃": -1}}}, page)
	page, err = s.List(ctx, "app/only", "", 5, "n")
	require.NoError(t, err)
	require.Equal(t, []store.Group{{Key: "app/only", Sums: map[string]float64{}}}, page, "a key without the field is there")

	got, err := s.Group(ctx, "app/03")
	require.NoError(t, err)
	require.Equal(t, want[3], got)
	got, err = s.Group(ctx, "none")
	require.NoError(t, err)
	require.Equal(t, store.Group{Key: "none", Sums: map[string]float64{}}, got)
	_, err = s.Group(ctx, "")
	require.ErrorIs(t, err, store.ErrInvalid)
	_, err = s.List(ctx, "", "", 0)
	require.ErrorIs(t, err, store.ErrInvalid)

	require.ErrorIs(t, s.Delete(ctx, "app/03", ""), store.ErrInvalid)
	require.NoError(t, s.Delete(ctx, "app/03", "none", "app/04", "aqq"))
	left, err := s.Keys(ctx, "", "app/02", 2)
	require.NoError(t, err)
	require.Equal(t, []string{"app/05", "app/06"}, left)
}

// lives says when sums end.
func lives(t *testing.T, open Opener) {
	one, other := open(t)
	a, b, ctx := one.Sums(), other.Sums(), patient(t)
	add := func(s store.Sums, once string, updates ...store.Update) bool {
		applied, err := s.Add(ctx, once, time.Hour, updates...)
		require.NoError(t, err)
		return applied
	}
	n := map[string]float64{"n": 1}
	get := func(key string) map[string]float64 {
		sums, err := b.Get(ctx, key)
		require.NoError(t, err)
		return sums
	}
	add(a, "", plus("stays", n), lasting("shrinks", time.Hour, n))
	add(a, "", lasting("ends", brief, n), lasting("grows", brief, n), lasting("kept", brief, n), lasting("deleted", brief, n), lasting("renewed", brief, n))
	// Without anything to add, a life is set for what there is, and nothing is made.
	add(b, "", lasting("grows", time.Hour, n), plus("kept", n), lasting("shrinks", brief, n), lasting("renewed", time.Hour, nil), lasting("never", time.Hour, nil))
	require.NoError(t, b.Delete(ctx, "deleted"))
	add(b, "", plus("deleted", n))
	add(a, "once", lasting("repeated", brief, n))
	require.False(t, add(b, "once", lasting("repeated", time.Hour, n)))

	for _, key := range []string{"ends", "shrinks", "repeated"} {
		require.Eventually(t, func() bool { return len(get(key)) == 0 }, patience, poll, key)
		g, err := a.Group(ctx, key)
		require.NoError(t, err)
		require.Equal(t, store.Group{Key: key, Sums: map[string]float64{}}, g)
	}
	want := []string{"deleted", "grows", "kept", "renewed", "stays"}
	for _, limit := range []int{1, 2, 100} {
		var keys []string
		for after := ""; ; after = keys[len(keys)-1] {
			page, err := a.Keys(ctx, "", after, limit)
			require.NoError(t, err)
			list, err := b.List(ctx, "", after, limit)
			require.NoError(t, err)
			require.Len(t, list, len(page))
			for i, g := range list {
				require.Equal(t, page[i], g.Key)
				expires := g.Key == "grows" || g.Key == "renewed"
				require.Equal(t, expires, g.TTL > 0, g.Key)
				require.LessOrEqual(t, g.TTL, time.Hour)
			}
			keys = append(keys, page...)
			if len(page) < limit {
				break
			}
		}
		require.Equal(t, want, keys, "limit %d", limit)
	}
	require.Equal(t, map[string]float64{"n": 2}, get("grows"))
	require.Equal(t, map[string]float64{"n": 2}, get("kept"))
	g, err := b.Group(ctx, "grows")
	require.NoError(t, err)
	require.Greater(t, g.TTL, 30*time.Minute)

	// What has ended begins at nothing, with a life of its own.
	add(a, "", lasting("ends", time.Hour, n), plus("shrinks", n))
	require.Equal(t, n, get("ends"))
	require.Equal(t, n, get("shrinks"))
	g, err = a.Group(ctx, "shrinks")
	require.NoError(t, err)
	require.Zero(t, g.TTL)
}

func lifeArguments(t *testing.T, open Opener) {
	one, _ := open(t)
	s, ctx := one.Sums(), patient(t)
	for _, ttl := range []time.Duration{-time.Hour, time.Microsecond} {
		_, err := s.Add(ctx, "", 0, plus("good", map[string]float64{"n": 1}), lasting("k", ttl, map[string]float64{"n": 1}))
		require.ErrorIs(t, err, store.ErrInvalid)
	}
	got, err := s.Get(ctx, "good")
	require.NoError(t, err)
	require.Empty(t, got)
	_, err = s.Add(ctx, "", 0, lasting("k", 10*365*24*time.Hour, map[string]float64{"n": 1}))
	require.NoError(t, err)
	g, err := s.Group(ctx, "k")
	require.NoError(t, err)
	require.Greater(t, g.TTL, 9*365*24*time.Hour)
}

// lifeModel compares the store with a map, over random adds with lives that are so long that they do not end
// or so brief that they have, when somebody looks.
func lifeModel(t *testing.T, open Opener) {
	one, other := open(t)
	handles := []store.Sums{one.Sums(), other.Sums()}
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		prefix := fmt.Sprintf("life/%d/", round)
		ctx := context.Background()
		model, expiring := map[string]float64{}, map[string]bool{}
		keys := []string{prefix + "a", prefix + "ab", prefix + "b"}
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			s := handles[rapid.IntRange(0, 1).Draw(rt, "handle")]
			key := rapid.SampledFrom(keys).Draw(rt, "key")
			switch rapid.SampledFrom([]string{"stay", "long", "end", "delete"}).Draw(rt, "what") {
			case "stay":
				_, err := s.Add(ctx, "", 0, plus(key, map[string]float64{"n": 1}))
				require.NoError(rt, err)
				model[key]++
				delete(expiring, key)
			case "long":
				_, err := s.Add(ctx, "", 0, lasting(key, time.Hour, map[string]float64{"n": 1}))
				require.NoError(rt, err)
				model[key]++
				expiring[key] = true
			case "end":
				_, err := s.Add(ctx, "", 0, lasting(key, time.Millisecond, map[string]float64{"n": 1}))
				require.NoError(rt, err)
				// The life is rounded up to the next whole millisecond.
				time.Sleep(3 * time.Millisecond)
				delete(model, key)
				delete(expiring, key)
			case "delete":
				require.NoError(rt, s.Delete(ctx, key))
				delete(model, key)
				delete(expiring, key)
			}
			list, err := handles[0].List(ctx, prefix, "", 10)
			require.NoError(rt, err)
			got := map[string]float64{}
			for _, g := range list {
				got[g.Key] = g.Sums["n"]
				require.Equal(rt, expiring[g.Key], g.TTL > 0, g.Key)
			}
			require.Equal(rt, model, got)
			page, err := handles[1].Keys(ctx, prefix, "", 10)
			require.NoError(rt, err)
			require.ElementsMatch(rt, slices.Collect(maps.Keys(model)), page)
		}
	})
}
