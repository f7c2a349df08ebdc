// SPDX-License-Identifier: Apache-2.0

package app

import (
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPace(t *testing.T) {
	require.Equal(t, maxPercent, pace(0))
	require.Equal(t, maxPercent, pace(1<<20))
	require.Equal(t, 400, pace(8<<20))
	require.Equal(t, 100, pace(headroom))
	require.Equal(t, 100, pace(1<<40))
}

func TestWatchCollection(t *testing.T) {
	seen := make(chan struct{})
	watchCollection(func() { close(seen) })
	for {
		runtime.GC()
		select {
		case <-seen:
			return
		default:
			runtime.Gosched()
		}
	}
}

func TestPaceCollector_leavesThePaceAsItWas(t *testing.T) {
	t.Setenv("GOGC", "")
	paceCollector()()
	before := debug.SetGCPercent(defaultPercent)
	require.Equal(t, defaultPercent, before)
}

func TestPaceCollector_minds(t *testing.T) {
	before := debug.SetGCPercent(77)
	defer debug.SetGCPercent(before)
	t.Setenv("GOGC", "77")
	paceCollector()()
	require.Equal(t, 77, debug.SetGCPercent(77))
}
