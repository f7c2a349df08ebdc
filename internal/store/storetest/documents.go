// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/clipper-serving/clipper/internal/store"
)

// Documents runs the suite for [store.Documents].
func Documents(t *testing.T, open Opener) {
	for name, test := range map[string]func(*testing.T, Opener){
		"put get delete":         putGetDelete,
		"arguments":              documentArguments,
		"conflicts":              conflicts,
		"list":                   list,
		"one writer wins":        oneWriterWins,
		"counter":                counter,
		"lease":                  lease,
		"lease becomes document": leaseBecomesDocument,
		"watch":                  watchChanges,
		"model":                  documentModel,
		"closed":                 closed,
		"cancelled calls":        cancelledCalls,
	} {
		t.Run(name, func(t *testing.T) { test(t, open) })
	}
}

func putGetDelete(t *testing.T, open Opener) {
	one, other := open(t)
	a, b, ctx := one.Documents(), other.Documents(), patient(t)

	_, err := a.Get(ctx, "k")
	require.ErrorIs(t, err, store.ErrNotFound)
	first, err := a.Put(ctx, "k", []byte("one"), 0)
	require.NoError(t, err)
	require.NotZero(t, first)
	doc, err := b.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, store.Document{Key: "k", Value: []byte("one"), Revision: first}, doc)

	second, err := b.Put(ctx, "k", nil, first)
	require.NoError(t, err)
	require.NotEqual(t, first, second)
	doc, err = a.Get(ctx, "k")
	require.NoError(t, err)
	require.Empty(t, doc.Value)
	require.Equal(t, second, doc.Revision)

	require.NoError(t, b.Delete(ctx, "k", second))
	_, err = a.Get(ctx, "k")
	require.ErrorIs(t, err, store.ErrNotFound)
	third, err := a.Put(ctx, "k", []byte("again"), 0)
	require.NoError(t, err)
	require.NotContains(t, []store.Revision{first, second}, third, "a revision came back")
	require.NoError(t, a.Delete(ctx, "k", 0), "zero deletes any revision")
}

func documentArguments(t *testing.T, open Opener) {
	one, _ := open(t)
	d, ctx := one.Documents(), patient(t)
	long := strings.Repeat("k", store.MaxKey)

	for name, key := range map[string]string{
		"longest": long, "slash": "a/b", "utf-8": "Grüße ☃", "zero byte": "a\x00b", "all ones": "\xff\xff", "braces": "{a}b{c}", "colon": "a:b",
	} {
		revision, err := d.Put(ctx, key, []byte(key), 0)
		require.NoError(t, err, name)
		doc, err := d.Get(ctx, key)
		require.NoError(t, err, name)
		require.Equal(t, store.Document{Key: key, Value: []byte(key), Revision: revision}, doc, name)
	}
	for _, key := range []string{"", long + "k"} {
		_, err := d.Get(ctx, key)
		require.ErrorIs(t, err, store.ErrInvalid)
		_, err = d.Put(ctx, key, nil, 0)
		require.ErrorIs(t, err, store.ErrInvalid)
		_, err = d.PutLease(ctx, key, nil, time.Second)
		require.ErrorIs(t, err, store.ErrInvalid)
		require.ErrorIs(t, d.Delete(ctx, key, 0), store.ErrInvalid)
	}
	_, err := d.Put(ctx, "big", make([]byte, store.MaxValue+1), 0)
	require.ErrorIs(t, err, store.ErrInvalid)
	for _, ttl := range []time.Duration{-time.Second, 0, time.Millisecond - 1} {
		_, err = d.PutLease(ctx, "lease", nil, ttl)
		require.ErrorIs(t, err, store.ErrInvalid)
	}
}

func conflicts(t *testing.T, open Opener) {
	one, _ := open(t)
	d, ctx := one.Documents(), patient(t)
	_, err := d.Put(ctx, "k", []byte("x"), 7)
	require.ErrorIs(t, err, store.ErrConflict, "put over nothing")
	require.ErrorIs(t, d.Delete(ctx, "k", 7), store.ErrNotFound)

	old, err := d.Put(ctx, "k", []byte("one"), 0)
	require.NoError(t, err)
	_, err = d.Put(ctx, "k", []byte("x"), 0)
	require.ErrorIs(t, err, store.ErrConflict, "create what exists")
	current, err := d.Put(ctx, "k", []byte("two"), old)
	require.NoError(t, err)
	_, err = d.Put(ctx, "k", []byte("x"), old)
	require.ErrorIs(t, err, store.ErrConflict, "put over an old revision")
	require.ErrorIs(t, d.Delete(ctx, "k", old), store.ErrConflict)
	_, err = d.PutLease(ctx, "k", []byte("x"), time.Hour)
	require.ErrorIs(t, err, store.ErrConflict, "lease over a document")

	doc, err := d.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, store.Document{Key: "k", Value: []byte("two"), Revision: current}, doc)
}

func list(t *testing.T, open Opener) {
	one, _ := open(t)
	d, ctx := one.Documents(), patient(t)
	keys := []string{"b", "a/2", "a/10", "a", "a/\xff", "a/\xff\xff", "a0", "ä", "\xff", "\xff\xffz"}
	for _, key := range keys {
		_, err := d.Put(ctx, key, []byte("v"+key), 0)
		require.NoError(t, err)
	}
	slices.Sort(keys)
	for _, prefix := range []string{"", "a", "a/", "a/\xff", "\xff", "\xff\xff", "z", "ä"} {
		docs, err := d.List(ctx, prefix)
		require.NoError(t, err)
		var got, want []string
		for _, doc := range docs {
			got = append(got, doc.Key)
			require.Equal(t, "v"+doc.Key, string(doc.Value))
			require.NotZero(t, doc.Revision)
		}
		for _, key := range keys {
			if strings.HasPrefix(key, prefix) {
				want = append(want, key)
			}
		}
		require.Equal(t, want, got, "prefix %q", prefix)
	}
}

func oneWriterWins(t *testing.T, open Opener) {
	one, other := open(t)
	ctx := patient(t)
	handles := []store.Documents{one.Documents(), other.Documents()}
	var expect store.Revision
	for round := range 20 {
		var won atomic.Int64
		var next atomic.Uint64
		var writers sync.WaitGroup
		for w := range 8 {
			writers.Go(func() {
				revision, err := handles[w%2].Put(ctx, "k", fmt.Appendf(nil, "%d/%d", round, w), expect)
				if err == nil {
					won.Add(1)
					next.Store(uint64(revision))
				} else if !errors.Is(err, store.ErrConflict) {
					t.Errorf("put: %v", err)
				}
			})
		}
		writers.Wait()
		require.EqualValues(t, 1, won.Load(), "writers that won round %d", round)
		expect = store.Revision(next.Load())
	}
}

// counter increments by compare-and-swap: no increment may be lost.
func counter(t *testing.T, open Opener) {
	one, other := open(t)
	ctx := patient(t)
	handles := []store.Documents{one.Documents(), other.Documents()}
	const writers, increments = 4, 25
	increment := func(d store.Documents) error {
		for {
			doc, err := d.Get(ctx, "n")
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
			n, _ := strconv.Atoi(string(doc.Value))
			_, err = d.Put(ctx, "n", strconv.AppendInt(nil, int64(n+1), 10), doc.Revision)
			if !errors.Is(err, store.ErrConflict) {
				return err
			}
		}
	}
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for range increments {
				if err := increment(handles[w%2]); err != nil {
					t.Errorf("increment: %v", err)
					return
				}
			}
		})
	}
	group.Wait()
	doc, err := one.Documents().Get(ctx, "n")
	require.NoError(t, err)
	require.Equal(t, strconv.Itoa(writers*increments), string(doc.Value))
}

func lease(t *testing.T, open Opener) {
	one, other := open(t)
	a, b, ctx := one.Documents(), other.Documents(), patient(t)

	held, err := a.PutLease(ctx, "lease/held", []byte("v"), time.Hour)
	require.NoError(t, err)
	doc, err := b.Get(ctx, "lease/held")
	require.NoError(t, err)
	require.Equal(t, held, doc.Revision)
	require.Greater(t, doc.TTL, 50*time.Minute)
	require.LessOrEqual(t, doc.TTL, time.Hour+time.Millisecond, "ends are rounded up to a millisecond")

	renewed, err := b.PutLease(ctx, "lease/held", []byte("v"), 2*time.Hour)
	require.NoError(t, err)
	require.Equal(t, held, renewed, "renewing with the same value keeps the revision")
	doc, err = a.Get(ctx, "lease/held")
	require.NoError(t, err)
	require.Greater(t, doc.TTL, 90*time.Minute)
	replaced, err := b.PutLease(ctx, "lease/held", []byte("w"), time.Hour)
	require.NoError(t, err)
	require.NotEqual(t, held, replaced)

	brief, err := a.PutLease(ctx, "lease/brief", []byte("v"), 50*time.Millisecond)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := b.Get(ctx, "lease/brief")
		return errors.Is(err, store.ErrNotFound)
	}, patience, poll)
	docs, err := a.List(ctx, "lease/")
	require.NoError(t, err)
	require.Len(t, docs, 1)
	require.Equal(t, "lease/held", docs[0].Key)
	require.Positive(t, docs[0].TTL)
	require.ErrorIs(t, a.Delete(ctx, "lease/brief", 0), store.ErrNotFound)
	_, err = a.Put(ctx, "lease/brief", nil, brief)
	require.ErrorIs(t, err, store.ErrConflict, "a lease that has ended does not exist")
	again, err := a.PutLease(ctx, "lease/brief", []byte("v"), time.Hour)
	require.NoError(t, err)
	require.NotEqual(t, brief, again)
}

func leaseBecomesDocument(t *testing.T, open Opener) {
	one, _ := open(t)
	d, ctx := one.Documents(), patient(t)
	revision, err := d.PutLease(ctx, "k", []byte("v"), time.Second)
	require.NoError(t, err)
	_, err = d.Put(ctx, "k", []byte("stays"), revision)
	require.NoError(t, err)
	// A lease of the same length, made later, has ended when the first would have.
	_, err = d.PutLease(ctx, "clock", nil, time.Second)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := d.Get(ctx, "clock")
		return errors.Is(err, store.ErrNotFound)
	}, patience, poll)
	doc, err := d.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, "stays", string(doc.Value))
	require.Zero(t, doc.TTL)
}

func watchChanges(t *testing.T, open Opener) {
	one, other := open(t)
	a, b := one.Documents(), other.Documents()
	ctx, cancel := context.WithCancel(patient(t))
	under, all := a.Watch(ctx, "x/"), a.Watch(ctx, "")

	// A signal may come for no reason, so it is what the reader then finds that
	// counts.
	until := func(signals <-chan struct{}, seen func() bool) {
		t.Helper()
		for !seen() {
			signalled(t, signals)
		}
	}
	value := func(key string) string {
		doc, err := a.Get(t.Context(), key)
		if !errors.Is(err, store.ErrNotFound) {
			require.NoError(t, err)
		}
		return string(doc.Value)
	}
	// The first change may be in the store before the watch is.
	revision, err := b.Put(ctx, "x/1", []byte("one"), 0)
	require.NoError(t, err)
	signalled(t, under)
	signalled(t, all)

	for i := range 20 {
		want := strconv.Itoa(i)
		var writer sync.WaitGroup
		writer.Go(func() {
			if revision, err = b.Put(ctx, "x/1", []byte(want), revision); err != nil {
				t.Errorf("put: %v", err)
			}
		})
		until(under, func() bool { return value("x/1") == want })
		writer.Wait()
	}
	var writer sync.WaitGroup
	writer.Go(func() {
		if _, err := b.PutLease(ctx, "x/2", []byte("lease"), time.Hour); err != nil {
			t.Errorf("put lease: %v", err)
		}
		if err := b.Delete(ctx, "x/1", 0); err != nil {
			t.Errorf("delete: %v", err)
		}
	})
	until(under, func() bool { return value("x/2") == "lease" && value("x/1") == "" })
	writer.Wait()

	cancel()
	for range under { // ends because the channel is closed
	}
	for range all {
	}
}

// documentModel compares the store with a map, over random calls by two handles.
func documentModel(t *testing.T, open Opener) {
	one, other := open(t)
	handles := []store.Documents{one.Documents(), other.Documents()}
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		prefix := fmt.Sprintf("model/%d/", round)
		ctx := context.Background()
		model := map[string]store.Document{}
		used := map[store.Revision]bool{}
		key := rapid.Custom(func(rt *rapid.T) string {
			return prefix + rapid.SampledFrom([]string{"a", "b", "ab", "ä", "a/\xff"}).Draw(rt, "key")
		})
		expect := func(rt *rapid.T, key string) store.Revision {
			return rapid.SampledFrom([]store.Revision{0, model[key].Revision, model[key].Revision, 1 << 40}).Draw(rt, "expect")
		}
		handle := func(rt *rapid.T) store.Documents { return handles[rapid.IntRange(0, 1).Draw(rt, "handle")] }
		wrote := func(rt *rapid.T, key string, value []byte, revision store.Revision, err error) {
			require.NoError(rt, err)
			require.False(rt, used[revision], "revision used twice")
			used[revision] = true
			model[key] = store.Document{Key: key, Value: value, Revision: revision}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"put": func(rt *rapid.T) {
				key, value := key.Draw(rt, "key"), rapid.SliceOfN(rapid.Byte(), 1, 8).Draw(rt, "value")
				expect := expect(rt, key)
				revision, err := handle(rt).Put(ctx, key, value, expect)
				if expect != model[key].Revision {
					require.ErrorIs(rt, err, store.ErrConflict)
					return
				}
				wrote(rt, key, value, revision, err)
			},
			"delete": func(rt *rapid.T) {
				key := key.Draw(rt, "key")
				expect := expect(rt, key)
				err := handle(rt).Delete(ctx, key, expect)
				switch doc, ok := model[key]; {
				case !ok:
					require.ErrorIs(rt, err, store.ErrNotFound)
				case expect != 0 && expect != doc.Revision:
					require.ErrorIs(rt, err, store.ErrConflict)
				default:
					require.NoError(rt, err)
					delete(model, key)
				}
			},
			"": func(rt *rapid.T) {
				docs, err := handle(rt).List(ctx, prefix)
				require.NoError(rt, err)
				require.Len(rt, docs, len(model))
				for i, key := range slices.Sorted(maps.Keys(model)) {
					require.Equal(rt, model[key], docs[i])
				}
			},
		})
	})
}
