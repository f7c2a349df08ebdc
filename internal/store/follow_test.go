// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/internal/store"
)

// flaky is a store that loses every signal and can be made to fail.
type flaky struct {
	store.Documents

	mu     sync.Mutex
	docs   []store.Document
	err    error
	leases []time.Time
	lists  int
}

func (f *flaky) set(err error, docs ...store.Document) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err, f.docs = err, docs
}

func (f *flaky) List(context.Context, string) ([]store.Document, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	return f.docs, f.err
}

func (f *flaky) PutLease(context.Context, string, []byte, time.Duration) (store.Revision, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return 0, f.err
	}
	f.leases = append(f.leases, time.Now())
	return 1, nil
}

func (f *flaky) Delete(ctx context.Context, _ string, expect store.Revision) error {
	if ctx.Err() != nil || expect != 1 {
		return errors.New("wrong farewell")
	}
	f.set(nil)
	return nil
}

func (f *flaky) Watch(context.Context, string) <-chan struct{} { return make(chan struct{}) }

func text(doc store.Document) (string, error) { return string(doc.Value), nil }

func TestFollower_resyncHealsLostSignals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		docs := &flaky{}
		f := store.Follow(docs, "", text, store.FollowConfig{Resync: 30 * time.Second})
		defer f.Close()
		require.NotNil(t, f.Snapshot())
		require.False(t, f.Snapshot().Synced())
		synctest.Wait()
		require.True(t, f.Snapshot().Synced())
		docs.set(nil, store.Document{Key: "k", Revision: 1, Value: []byte("v")})
		start := time.Now()
		<-f.Snapshot().Replaced()
		require.Equal(t, 30*time.Second, time.Since(start))
		entry, ok := f.Snapshot().Get("k")
		require.True(t, ok)
		require.Equal(t, "v", entry.Value)
	})
}

func TestFollower_storeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		docs := &flaky{docs: []store.Document{{Key: "k", Revision: 1, Value: []byte("v")}}}
		f := store.Follow(docs, "", text, store.FollowConfig{
			Resync: time.Second,
			Log:    slog.New(slog.NewTextHandler(&log, nil)),
		})
		synctest.Wait()
		before := f.Snapshot()
		docs.set(store.ErrUnavailable)
		require.ErrorIs(t, f.Refresh(t.Context()), store.ErrUnavailable)
		time.Sleep(time.Minute)
		require.Same(t, before, f.Snapshot(), "the last known documents stay")
		docs.set(nil)
		<-before.Replaced()
		require.Zero(t, f.Snapshot().Len())
		time.Sleep(time.Minute)
		f.Close()
		require.Equal(t, 1, strings.Count(log.String(), "does not answer"), "an outage is logged once")
		require.Equal(t, 1, strings.Count(log.String(), "answers again"))
	})
}

func TestFollower_looksAgainWhenALeaseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		docs := &flaky{docs: []store.Document{{Key: "k", Revision: 1, TTL: 3 * time.Second}}}
		f := store.Follow(docs, "", text, store.FollowConfig{Resync: time.Hour})
		defer f.Close()
		synctest.Wait()
		require.Equal(t, 1, f.Snapshot().Len())
		docs.set(nil)
		start := time.Now()
		<-f.Snapshot().Replaced()
		require.Equal(t, 3*time.Second, time.Since(start))
	})
}

func TestFollower_sameRevisionOtherValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		docs := &flaky{docs: []store.Document{{Key: "k", Revision: 1, Value: []byte("old")}}}
		f := store.Follow(docs, "", text, store.FollowConfig{})
		defer f.Close()
		require.NoError(t, f.Refresh(t.Context()))
		// As after the data of a Redis were lost and made again.
		docs.set(nil, store.Document{Key: "k", Revision: 1, Value: []byte("new")})
		require.NoError(t, f.Refresh(t.Context()))
		entry, _ := f.Snapshot().Get("k")
		require.Equal(t, "new", entry.Value)
	})
}

func TestHoldLease_outlivesAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		docs := &flaky{err: store.ErrUnavailable}
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() {
			result <- store.HoldLease(ctx, docs, "k", func() []byte { return nil }, nil, 9*time.Second, nil)
		}()
		time.Sleep(10 * time.Second)
		require.Empty(t, docs.leases)
		docs.set(nil, store.Document{Key: "k"})
		start := time.Now()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Len(t, docs.leases, 20, "three times in each ttl")
		require.Less(t, docs.leases[0].Sub(start), 3*time.Second)
		cancel()
		require.NoError(t, <-result)
		require.Empty(t, docs.docs, "given back with a context that has not ended")
	})
}

func TestCheckAdd(t *testing.T) {
	// What the backends share; the suites check that they use it.
	require.NoError(t, store.CheckAdd("", 0, nil))
	require.NoError(t, store.CheckAdd("o", time.Millisecond, []store.Update{{Key: "a"}, {Key: "b"}}))
	require.ErrorIs(t, store.CheckAdd("o", time.Microsecond, nil), store.ErrInvalid)
}
