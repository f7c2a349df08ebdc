// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/internal/store"
)

// Follower runs the suite for [store.Follower] and [store.HoldLease] on a backend.
func Follower(t *testing.T, open Opener) {
	for name, test := range map[string]func(*testing.T, Opener){
		"sees changes":          followerSeesChanges,
		"sees the end of lease": followerSeesEndOfLease,
		"keeps the last good":   followerKeepsLastGood,
		"hold lease":            holdLease,
	} {
		t.Run(name, func(t *testing.T) { test(t, open) })
	}
}

func number(doc store.Document) (int, error) { return strconv.Atoi(string(doc.Value)) }

// never is a resync that no test waits for, so that what is seen is seen through
// signals.
const never = time.Hour

// until waits for a snapshot that is as wanted.
func until[T any](tb testing.TB, f *store.Follower[T], wanted func(*store.Snapshot[T]) bool) *store.Snapshot[T] {
	tb.Helper()
	deadline := time.After(patience)
	for {
		s := f.Snapshot()
		if wanted(s) {
			return s
		}
		select {
		case <-s.Replaced():
		case <-deadline:
			require.Fail(tb, "the snapshot does not become what it should")
		}
	}
}

func followerSeesChanges(t *testing.T, open Opener) {
	one, other := open(t)
	ctx := patient(t)
	var decoded atomic.Int64
	f := store.Follow(one.Documents(), "n/", func(doc store.Document) (int, error) {
		decoded.Add(1)
		return number(doc)
	}, store.FollowConfig{Resync: never})
	defer f.Close()

	require.NoError(t, f.Refresh(ctx))
	empty := f.Snapshot()
	require.True(t, empty.Synced())
	require.Zero(t, empty.Len())

	first, err := other.Documents().Put(ctx, "n/a", []byte("1"), 0)
	require.NoError(t, err)
	require.NoError(t, f.Refresh(ctx))
	s := f.Snapshot()
	entry, ok := s.Get("n/a")
	require.True(t, ok, "a writer sees what it wrote after Refresh")
	require.Equal(t, store.Entry[int]{Key: "n/a", Revision: first, Value: 1}, entry)
	require.Zero(t, empty.Len(), "a snapshot changed")

	_, err = other.Documents().Put(ctx, "n/b", []byte("2"), 0)
	require.NoError(t, err)
	_, err = other.Documents().Put(ctx, "m", []byte("not ours"), 0)
	require.NoError(t, err)
	s = until(t, f, func(s *store.Snapshot[int]) bool { return s.Len() == 2 })
	var order []string
	for entry := range s.All() {
		order = append(order, fmt.Sprint(entry.Key, "=", entry.Value))
	}
	require.Equal(t, []string{"n/a=1", "n/b=2"}, order)
	require.EqualValues(t, 2, decoded.Load(), "a revision is decoded once")

	require.NoError(t, other.Documents().Delete(ctx, "n/a", first))
	s = until(t, f, func(s *store.Snapshot[int]) bool { return s.Len() == 1 })
	_, ok = s.Get("n/a")
	require.False(t, ok)
	require.NoError(t, f.Refresh(ctx))
	require.Same(t, s, f.Snapshot(), "nothing changed, so the snapshot stays")
}

func followerSeesEndOfLease(t *testing.T, open Opener) {
	one, other := open(t)
	ctx := patient(t)
	f := store.Follow(one.Documents(), "", number, store.FollowConfig{Resync: never})
	defer f.Close()
	_, err := other.Documents().PutLease(ctx, "brief", []byte("1"), 200*time.Millisecond)
	require.NoError(t, err)
	require.NoError(t, f.Refresh(ctx))
	_, err = other.Documents().Put(ctx, "stays", []byte("2"), 0)
	require.NoError(t, err)
	until(t, f, func(s *store.Snapshot[int]) bool {
		_, brief := s.Get("brief")
		_, stays := s.Get("stays")
		return !brief && stays
	})
}

func followerKeepsLastGood(t *testing.T, open Opener) {
	one, other := open(t)
	ctx := patient(t)
	f := store.Follow(one.Documents(), "", number, store.FollowConfig{Resync: never})
	defer f.Close()
	docs := other.Documents()
	good, err := docs.Put(ctx, "a", []byte("1"), 0)
	require.NoError(t, err)
	_, err = docs.Put(ctx, "never good", []byte("x"), 0)
	require.NoError(t, err)
	require.NoError(t, f.Refresh(ctx))
	bad, err := docs.Put(ctx, "a", []byte("x"), good)
	require.NoError(t, err)
	for range 2 {
		require.NoError(t, f.Refresh(ctx))
		require.Equal(t, 1, f.Snapshot().Len())
		entry, ok := f.Snapshot().Get("a")
		require.True(t, ok)
		require.Equal(t, store.Entry[int]{Key: "a", Revision: good, Value: 1}, entry)
		// Another change makes a new snapshot, with what is kept.
		_, err = docs.PutLease(ctx, "z", []byte("y"), never)
		require.NoError(t, err)
	}
	_, err = docs.Put(ctx, "a", []byte("3"), bad)
	require.NoError(t, err)
	require.NoError(t, f.Refresh(ctx))
	entry, _ := f.Snapshot().Get("a")
	require.Equal(t, 3, entry.Value)
}

func holdLease(t *testing.T, open Opener) {
	one, other := open(t)
	f := store.Follow(other.Documents(), "lease/", number, store.FollowConfig{})
	defer f.Close()
	held, release := context.WithCancel(t.Context())
	result := make(chan error, 1)
	const ttl = 1500 * time.Millisecond
	var number atomic.Int64
	value := func() []byte { return strconv.AppendInt(nil, number.Load(), 10) }
	changed := make(chan struct{}, 1)
	go func() { result <- store.HoldLease(held, one.Documents(), "lease/a", value, changed, ttl, nil) }()

	s := until(t, f, func(s *store.Snapshot[int]) bool { return s.Len() == 1 })
	// A lease made now and not renewed ends after the held one would have.
	_, err := one.Documents().PutLease(t.Context(), "clock", nil, ttl)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := one.Documents().Get(t.Context(), "clock")
		return errors.Is(err, store.ErrNotFound)
	}, patience, poll)
	entry, ok := f.Snapshot().Get("lease/a")
	require.True(t, ok, "the lease was not renewed")
	before, _ := s.Get("lease/a")
	require.Equal(t, before.Revision, entry.Revision, "the lease ended and was made again")

	number.Store(7)
	changed <- struct{}{}
	until(t, f, func(s *store.Snapshot[int]) bool {
		entry, _ := s.Get("lease/a")
		return entry.Value == 7
	})

	release()
	require.NoError(t, <-result)
	_, err = one.Documents().Get(t.Context(), "lease/a")
	require.ErrorIs(t, err, store.ErrNotFound, "the lease was not given back")

	_, err = one.Documents().Put(t.Context(), "lease/taken", []byte("1"), 0)
	require.NoError(t, err)
	require.ErrorIs(t, store.HoldLease(t.Context(), one.Documents(), "lease/taken", func() []byte { return nil }, nil, ttl, nil), store.ErrConflict)
}
