// SPDX-License-Identifier: Apache-2.0

package app

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

const (
	// headroom is the garbage that may gather before a collection, in bytes, however little is alive.
	headroom = 32 << 20
	// defaultPercent is the runtime's own pace, maxPercent the slowest that is set here.
	defaultPercent = 100
	maxPercent     = 400
)

// paceCollector makes the garbage collector run less often while little memory is alive, until the
// returned function is called. The runtime's pace is a share of what is alive: with the few
// megabytes of a service that keeps no cache, it collects dozens of times a second under load. A
// pace set by the user in GOGC stays.
func paceCollector() (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	var stopped atomic.Bool
	percent := defaultPercent
	var afterCollection func()
	afterCollection = func() {
		if stopped.Load() {
			return
		}
		if p := pace(liveBytes()); p < percent*3/4 || p > percent*4/3 { // A change stops the world for a moment.
			percent = p
			debug.SetGCPercent(p)
		}
		watchCollection(afterCollection)
	}
	afterCollection()
	return func() {
		stopped.Store(true)
		debug.SetGCPercent(defaultPercent)
	}
}

// pace returns the percentage that leaves the headroom over what is alive.
func pace(live uint64) int {
	return int(min(max(100*headroom/max(live, 1), defaultPercent), maxPercent))
}

// watchCollection calls f, in the runtime's goroutine for such calls, after the next collection.
func watchCollection(f func()) {
	// Not a tiny object: those share memory, and would not be freed by themselves.
	type mark struct{ _ [64]byte }
	runtime.AddCleanup(new(mark), func(f func()) { f() }, f)
}

// liveBytes returns what the last collection found alive.
func liveBytes() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
