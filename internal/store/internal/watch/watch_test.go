// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// taken says whether a signal was waiting.
func taken(signals <-chan struct{}) bool {
	select {
	case _, open := <-signals:
		return open
	default:
		return false
	}
}

func TestHub_signalsThePrefix(t *testing.T) {
	var hub Hub
	defer hub.Close()
	apps, all := hub.Watch(t.Context(), "app/"), hub.Watch(t.Context(), "")
	hub.Notify("model/x")
	require.False(t, taken(apps))
	require.True(t, taken(all))
	hub.Notify("app/x")
	hub.Notify("app/y")
	require.True(t, taken(apps))
	require.False(t, taken(apps), "signals coalesce")
	require.True(t, taken(all))
	hub.NotifyAll()
	require.True(t, taken(apps))
	require.True(t, taken(all))
}

func TestHub_closesChannels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hub Hub
		ctx, cancel := context.WithCancel(t.Context())
		ended, open := hub.Watch(ctx, ""), hub.Watch(t.Context(), "")
		cancel()
		_, ok := <-ended
		require.False(t, ok)
		hub.NotifyAll() // and not on the closed one
		require.True(t, taken(open))
		hub.Close()
		hub.Close()
		_, ok = <-open
		require.False(t, ok)
		_, ok = <-hub.Watch(t.Context(), "")
		require.False(t, ok)
		synctest.Wait()
		require.Empty(t, hub.watchers)
	})
}
