// SPDX-License-Identifier: Apache-2.0

// Package pause waits for moments more exactly than timers do. A timer of the Go runtime may fire
// a millisecond late, since an idle runtime waits for its timers and for the network in one system
// call that counts in milliseconds; for a model that takes three milliseconds, or for queries that
// arrive every ten microseconds, that is too coarse.
package pause

import (
	"runtime"
	"time"
)

// tail is the part of a pause that is spent yielding instead of sleeping: about what the kernel
// takes to wake a thread.
const tail = 30 * time.Microsecond

// Until returns at t, usually within 20 microseconds, or at once when t is over. It keeps one
// thread of the operating system asleep until shortly before t, and then gives way to other
// goroutines until t; it cannot be interrupted.
func Until(t time.Time) {
	for {
		left := time.Until(t)
		switch {
		case left <= 0:
			return
		case left > tail:
			nap(left - tail)
		default:
			runtime.Gosched()
		}
	}
}
