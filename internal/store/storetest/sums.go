// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/clipper-serving/clipper/internal/store"
)

// Sums runs the suite for [store.Sums].
func Sums(t *testing.T, open Opener) {
	for name, test := range map[string]func(*testing.T, Opener){
		"add get delete":     addGetDelete,
		"arguments":          sumArguments,
		"once":               once,
		"once ends":          onceEnds,
		"overflow":           overflow,
		"many fields":        manyFields,
		"keys":               keys,
		"groups":             groups,
		"lives":              lives,
		"life arguments":     lifeArguments,
		"life model":         lifeModel,
		"concurrent adds":    concurrentAdds,
		"repeated adds race": repeatedAddsRace,
		"model":              sumModel,
		"closed":             closed,
		"cancelled calls":    cancelledCalls,
	} {
		t.Run(name, func(t *testing.T) { test(t, open) })
	}
}

func plus(key string, deltas map[string]float64) store.Update {
	return store.Update{Key: key, Deltas: deltas}
}

func addGetDelete(t *testing.T, open Opener) {
	one, other := open(t)
	a, b, ctx := one.Sums(), other.Sums(), patient(t)

	got, err := a.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, map[string]float64{}, got)

	applied, err := a.Add(ctx, "", 0, plus("k", map[string]float64{"x": 1.5, "y": -2}), plus("l", map[string]float64{"x": 1}))
	require.NoError(t, err)
	require.True(t, applied)
	applied, err = b.Add(ctx, "", 0, plus("k", map[string]float64{"x": 0.25, "z": 1e-300}), plus("m", nil))
	require.NoError(t, err)
	require.True(t, applied)
	got, err = a.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, map[string]float64{"x": 1.75, "y": -2, "z": 1e-300}, got)

	require.NoError(t, b.Delete(ctx, "k"))
	require.NoError(t, b.Delete(ctx, "k"), "delete what is not there")
	require.NoError(t, b.Delete(ctx), "delete nothing")
	got, err = a.Get(ctx, "k")
	require.NoError(t, err)
	require.Empty(t, got)
	page, err := a.Keys(ctx, "", "", 10)
	require.NoError(t, err)
	require.Equal(t, []string{"l"}, page)
}

func sumArguments(t *testing.T, open Opener) {
	one, _ := open(t)
	s, ctx := one.Sums(), patient(t)
	long := strings.Repeat("k", store.MaxKey)

	names := []string{long, "a/b", "Grüße ☃", "a\x00b", "\xff\xff", "{a}b{c}", " ", "%s%d", "nan", "-"}
	for _, name := range names {
		applied, err := s.Add(ctx, name, time.Hour, plus(name, map[string]float64{name: 1, "": 2}))
		require.NoError(t, err)
		require.True(t, applied)
		got, err := s.Get(ctx, name)
		require.NoError(t, err)
		require.Equal(t, map[string]float64{name: 1, "": 2}, got)
	}
	slices.Sort(names)
	page, err := s.Keys(ctx, "", "", len(names)+1)
	require.NoError(t, err)
	require.Equal(t, names, page)

	good := plus("good", map[string]float64{"x": 1})
	for name, add := range map[string]func() (bool, error){
		"empty key":     func() (bool, error) { return s.Add(ctx, "", 0, good, plus("", nil)) },
		"long key":      func() (bool, error) { return s.Add(ctx, "", 0, good, plus(long+"k", nil)) },
		"long field":    func() (bool, error) { return s.Add(ctx, "", 0, good, plus("l", map[string]float64{long + "k": 1})) },
		"long identity": func() (bool, error) { return s.Add(ctx, long+"k", time.Hour, good) },
		"same key":      func() (bool, error) { return s.Add(ctx, "", 0, good, good) },
		"no life":       func() (bool, error) { return s.Add(ctx, "o", 0, good) },
		"not a number":  func() (bool, error) { return s.Add(ctx, "", 0, good, plus("l", map[string]float64{"x": math.NaN()})) },
		"infinite":      func() (bool, error) { return s.Add(ctx, "", 0, good, plus("l", map[string]float64{"x": math.Inf(-1)})) },
	} {
		applied, err := add()
		require.ErrorIs(t, err, store.ErrInvalid, name)
		require.False(t, applied, name)
	}
	got, err := s.Get(ctx, "good")
	require.NoError(t, err)
	require.Empty(t, got, "what was refused was added")
	_, err = s.Get(ctx, "")
	require.ErrorIs(t, err, store.ErrInvalid)
	require.ErrorIs(t, s.Delete(ctx, ""), store.ErrInvalid)
	_, err = s.Keys(ctx, "", "", 0)
	require.ErrorIs(t, err, store.ErrInvalid)
}

func once(t *testing.T, open Opener) {
	one, other := open(t)
	a, b, ctx := one.Sums(), other.Sums(), patient(t)
	for i, s := range []store.Sums{a, b, a} {
		applied, err := s.Add(ctx, "feedback", time.Hour, plus("k", map[string]float64{"n": 1}), plus("l", map[string]float64{"n": 1}))
		require.NoError(t, err)
		require.Equal(t, i == 0, applied)
	}
	applied, err := b.Add(ctx, "feedback", time.Hour, plus("other", map[string]float64{"n": 1}))
	require.NoError(t, err)
	require.False(t, applied, "the identity counts, whatever is added")
	applied, err = b.Add(ctx, "feedback 2", time.Hour, plus("k", map[string]float64{"n": 1}))
	require.NoError(t, err)
	require.True(t, applied)
	require.NoError(t, a.Delete(ctx, "l"))
	applied, err = a.Add(ctx, "feedback", time.Hour, plus("l", map[string]float64{"n": 1}))
	require.NoError(t, err)
	require.False(t, applied, "deleting sums forgets no identity")

	got, err := a.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, map[string]float64{"n": 2}, got)
}

func onceEnds(t *testing.T, open Opener) {
	one, other := open(t)
	a, b, ctx := one.Sums(), other.Sums(), patient(t)
	add := func(s store.Sums, identity string, ttl time.Duration) bool {
		applied, err := s.Add(ctx, identity, ttl, plus("k", map[string]float64{identity: 1}))
		if err != nil {
			t.Errorf("add: %v", err)
		}
		return applied
	}
	require.True(t, add(a, "long", time.Hour))
	require.True(t, add(a, "brief", 50*time.Millisecond))
	// A repetition does not make the memory longer, or this would never end.
	require.Eventually(t, func() bool { return add(b, "brief", 50*time.Millisecond) }, patience, poll)
	require.False(t, add(b, "long", time.Hour))
	got, err := a.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, map[string]float64{"long": 1, "brief": 2}, got)
}

func overflow(t *testing.T, open Opener) {
	one, _ := open(t)
	s, ctx := one.Sums(), patient(t)
	_, err := s.Add(ctx, "", 0, plus("k", map[string]float64{"big": math.MaxFloat64, "small": 1}))
	require.NoError(t, err)
	applied, err := s.Add(ctx, "o", time.Hour, plus("a", map[string]float64{"n": 1}), plus("k", map[string]float64{"big": math.MaxFloat64, "small": 1}))
	require.ErrorIs(t, err, store.ErrInvalid)
	require.False(t, applied)
	got, err := s.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, map[string]float64{"big": math.MaxFloat64, "small": 1}, got)
	got, err = s.Get(ctx, "a")
	require.NoError(t, err)
	require.Empty(t, got, "half of a refused add was done")
	applied, err = s.Add(ctx, "o", time.Hour, plus("a", map[string]float64{"n": 1}))
	require.NoError(t, err)
	require.True(t, applied, "the identity of a refused add was remembered")
}

// manyFields is a Gram matrix of 70 features.
func manyFields(t *testing.T, open Opener) {
	one, _ := open(t)
	s, ctx := one.Sums(), patient(t)
	deltas, twice := map[string]float64{}, map[string]float64{}
	for i := range 70 * 70 {
		field := fmt.Sprintf("g%d", i)
		deltas[field] = float64(i) / 3
		twice[field] = 2 * deltas[field] // exactly
	}
	for range 2 {
		_, err := s.Add(ctx, "", 0, plus("gram", deltas))
		require.NoError(t, err)
	}
	got, err := s.Get(ctx, "gram")
	require.NoError(t, err)
	require.Equal(t, twice, got)
}

func keys(t *testing.T, open Opener) {
	one, _ := open(t)
	s, ctx := one.Sums(), patient(t)
	all := []string{"app/\xff", "app/\xff\xff", "aqq", "app", "apo"}
	for i := range 30 {
		all = append(all, fmt.Sprintf("app/%d", i))
	}
	for _, key := range all {
		_, err := s.Add(ctx, "", 0, plus(key, map[string]float64{"n": 1}))
		require.NoError(t, err)
	}
	slices.Sort(all)
	for _, prefix := range []string{"", "app", "app/", "app/1", "app/\xff", "b", "\xff"} {
		var want []string
		for _, key := range all {
			if strings.HasPrefix(key, prefix) {
				want = append(want, key)
			}
		}
		for _, limit := range []int{1, 7, 1000} {
			var got []string
			after := ""
			for {
				page, err := s.Keys(ctx, prefix, after, limit)
				require.NoError(t, err)
				require.LessOrEqual(t, len(page), limit)
				got = append(got, page...)
				if len(page) < limit {
					break
				}
				after = page[len(page)-1]
			}
			require.Equal(t, want, got, "prefix %q, limit %d", prefix, limit)
		}
	}
	page, err := s.Keys(ctx, "app/", "app/1~", 1)
	require.NoError(t, err)
	require.Equal(t, []string{"app/2"}, page, "after a key that does not exist")
	page, err = s.Keys(ctx, "app/", "aq", 10)
	require.NoError(t, err)
	require.Empty(t, page, "after the end of the prefix")
}

// concurrentAdds checks that the sums are exactly what was acknowledged, when every
// call is made two or three times.
func concurrentAdds(t *testing.T, open Opener) {
	one, other := open(t)
	ctx := patient(t)
	handles := []store.Sums{one.Sums(), other.Sums()}
	const writers, calls, contexts = 16, 40, 5
	var applied atomic.Int64
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := range calls {
				// Two writers share each identity.
				identity := fmt.Sprintf("%d/%d", w/2, i)
				for range 1 + i%2 {
					ok, err := handles[w%2].Add(ctx, identity, time.Hour,
						plus("shared", map[string]float64{"n": 1}),
						plus(fmt.Sprintf("context/%d", i%contexts), map[string]float64{"n": 1, "i": float64(i)}))
					if err != nil {
						t.Errorf("add: %v", err)
						return
					}
					if ok {
						applied.Add(1)
					}
				}
			}
		})
	}
	group.Wait()
	require.EqualValues(t, writers/2*calls, applied.Load())
	got, err := one.Sums().Get(ctx, "shared")
	require.NoError(t, err)
	require.Equal(t, map[string]float64{"n": writers / 2 * calls}, got)
	total := 0
	for c := range contexts {
		got, err := other.Sums().Get(ctx, fmt.Sprintf("context/%d", c))
		require.NoError(t, err)
		require.Equal(t, writers/2*calls/contexts, int(got["n"]))
		total += int(got["i"])
	}
	require.Equal(t, writers/2*calls*(calls-1)/2, total)
}

func repeatedAddsRace(t *testing.T, open Opener) {
	one, other := open(t)
	ctx := patient(t)
	handles := []store.Sums{one.Sums(), other.Sums()}
	for round := range 20 {
		var applied atomic.Int64
		var group sync.WaitGroup
		for w := range 8 {
			group.Go(func() {
				ok, err := handles[w%2].Add(ctx, fmt.Sprint(round), time.Hour, plus("k", map[string]float64{"n": 1}))
				if err != nil {
					t.Errorf("add: %v", err)
				}
				if ok {
					applied.Add(1)
				}
			})
		}
		group.Wait()
		require.EqualValues(t, 1, applied.Load())
	}
}

// sumModel compares the store with a map, over random calls by two handles. Both
// add in float64 and in the same order, so they are equal to the last bit.
func sumModel(t *testing.T, open Opener) {
	one, other := open(t)
	handles := []store.Sums{one.Sums(), other.Sums()}
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		prefix := fmt.Sprintf("model/%d/", round)
		ctx := context.Background()
		model := map[string]map[string]float64{}
		seen := map[string]bool{}
		key := rapid.Map(rapid.SampledFrom([]string{"a", "b", "ab", "ä"}), func(s string) string { return prefix + s })
		handle := func(rt *rapid.T) store.Sums { return handles[rapid.IntRange(0, 1).Draw(rt, "handle")] }
		rt.Repeat(map[string]func(*rapid.T){
			"add": func(rt *rapid.T) {
				deltas := rapid.MapOfN(rapid.SampledFrom([]string{"", "x", "y", "z"}), rapid.Float64Range(-1e200, 1e200), 1, 3)
				var updates []store.Update
				for key, d := range rapid.MapOfN(key, deltas, 0, 3).Draw(rt, "updates") {
					updates = append(updates, plus(key, d))
				}
				identity := rapid.SampledFrom([]string{"", "1", "2", "3"}).Draw(rt, "once")
				if identity != "" {
					identity = prefix + identity
				}
				applied, err := handle(rt).Add(ctx, identity, time.Hour, updates...)
				require.NoError(rt, err)
				require.Equal(rt, !seen[identity], applied)
				if !applied {
					return
				}
				seen[identity] = identity != ""
				for _, u := range updates {
					if model[u.Key] == nil {
						model[u.Key] = map[string]float64{}
					}
					for field, delta := range u.Deltas {
						model[u.Key][field] += delta
					}
				}
			},
			"delete": func(rt *rapid.T) {
				key := key.Draw(rt, "key")
				require.NoError(rt, handle(rt).Delete(ctx, key))
				delete(model, key)
			},
			"": func(rt *rapid.T) {
				s := handle(rt)
				keys, err := s.Keys(ctx, prefix, "", 100)
				require.NoError(rt, err)
				require.ElementsMatch(rt, slices.Collect(maps.Keys(model)), keys)
				for key, want := range model {
					got, err := s.Get(ctx, key)
					require.NoError(rt, err)
					require.Equal(rt, want, got)
				}
			},
		})
	})
}
