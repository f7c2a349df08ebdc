// SPDX-License-Identifier: Apache-2.0

// Package storetest says in tests what package store says in words. Each backend
// runs the suites; so must a new one. It also starts the real redis-server that
// tests of the services share their state through.
package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/internal/store"
)

// patience bounds the wait for something that has no time of its own. It is only
// used up by a test that fails.
const patience = 20 * time.Second

// poll is how often something is looked at that gives no signal.
const poll = 2 * time.Millisecond

// Opener opens an empty store, and returns two handles on it. They may be the same
// where a backend serves one process. They are closed when the test ends.
type Opener func(tb testing.TB) (one, other store.Store)

// patient is a context that a call which hangs runs into.
func patient(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	tb.Cleanup(cancel)
	return ctx
}

// signalled waits for a signal of Watch.
func signalled(tb testing.TB, signals <-chan struct{}) {
	tb.Helper()
	select {
	case _, open := <-signals:
		require.True(tb, open, "the channel was closed")
	case <-time.After(patience):
		require.Fail(tb, "no signal")
	}
}

// closed says that after Close calls fail and channels are closed.
func closed(t *testing.T, open Opener) {
	one, _ := open(t)
	ctx := patient(t)
	signals := one.Documents().Watch(ctx, "")
	require.NoError(t, one.Close())
	require.NoError(t, one.Close(), "close twice")

	for range signals { // ends because the channel is closed
	}
	_, signalling := <-one.Documents().Watch(ctx, "")
	require.False(t, signalling)

	calls := map[string]error{}
	_, calls["get"] = one.Documents().Get(ctx, "k")
	_, calls["list"] = one.Documents().List(ctx, "")
	_, calls["put"] = one.Documents().Put(ctx, "k", nil, 0)
	_, calls["put lease"] = one.Documents().PutLease(ctx, "k", nil, time.Second)
	calls["delete"] = one.Documents().Delete(ctx, "k", 0)
	_, calls["add"] = one.Sums().Add(ctx, "o", time.Second, store.Update{Key: "k", Deltas: map[string]float64{"a": 1}})
	_, calls["get sums"] = one.Sums().Get(ctx, "k")
	_, calls["group"] = one.Sums().Group(ctx, "k")
	_, calls["keys"] = one.Sums().Keys(ctx, "", "", 1)
	_, calls["list sums"] = one.Sums().List(ctx, "", "", 1)
	calls["delete sums"] = one.Sums().Delete(ctx, "k")
	for call, err := range calls {
		require.ErrorIs(t, err, store.ErrUnavailable, call)
	}
}

// cancelledCalls says that a call whose context has ended fails with the reason, and
// does nothing.
func cancelledCalls(t *testing.T, open Opener) {
	one, _ := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	calls := map[string]error{}
	_, calls["get"] = one.Documents().Get(ctx, "k")
	_, calls["list"] = one.Documents().List(ctx, "")
	_, calls["put"] = one.Documents().Put(ctx, "k", nil, 0)
	_, calls["add"] = one.Sums().Add(ctx, "", 0, store.Update{Key: "k", Deltas: map[string]float64{"a": 1}})
	_, calls["get sums"] = one.Sums().Get(ctx, "k")
	_, calls["group"] = one.Sums().Group(ctx, "k")
	_, calls["keys"] = one.Sums().Keys(ctx, "", "", 1)
	_, calls["list sums"] = one.Sums().List(ctx, "", "", 1)
	for call, err := range calls {
		require.ErrorIs(t, err, store.ErrUnavailable, call)
		require.ErrorIs(t, err, context.Canceled, call)
	}

	_, signalling := <-one.Documents().Watch(ctx, "")
	require.False(t, signalling, "a watch with an ended context is closed")
	sums, err := one.Sums().Get(t.Context(), "k")
	require.NoError(t, err)
	require.Empty(t, sums)
}
