// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"sync/atomic"

	"github.com/zeebo/xxh3"
)

const (
	// window is the number of stores after which they are judged while everything is stored, and
	// sparseWindow while little is.
	window       = 4096
	sparseWindow = 512
	// worthwhile says what part of the stores must be of use: one in 64. A hit saves the model's work
	// and the whole way to it, many times what a store costs; and no more hits than that are lost.
	worthwhile = 64
	// firstBits and lastBits are the logarithms of the share of inputs that are stored in any case while
	// little is: one in 256 at first, one in 65,536 in the end.
	firstBits = 8
	lastBits  = 16
)

// admission decides which predictions of a version are stored, and which inputs are looked up.
//
// A store costs more than everything else that a miss does, and is of use only if the input is
// asked about again. So the stores are judged by how many have been. While those are many, every
// prediction is stored. When they are few, a prediction is stored only when its input was
// asked about before (the second-hit rule: Maggs and Sitaraman, "Algorithmic Nuggets in Content
// Delivery", SIGCOMM CCR 2015), and for a sample, chosen by hash so that repetitions are seen however
// late (spatial sampling: Waldspurger et al., "Efficient MRC Construction with SHARDS", FAST 2015). As
// soon as what is stored is asked about again, everything is stored again.
//
// The sample is one in 256 inputs, and halves whenever its stores were of no use either: what is
// stored in vain costs the garbage collector for as long as it is there, and the longer nothing was
// of use, the less is lost by learning later that something is.
//
// While little is stored, only what has left the trace of a store is looked up, and the sample. What
// is stored and has lost its trace to a later store is missed until it is stored again, which is when
// it comes the second time.
//
// Safe for concurrent use.
type admission struct {
	bits   atomic.Int32 // one in 2^bits inputs is stored in any case; 0: everything is stored
	stores atomic.Int32 // since the last judgement
	used   atomic.Int32 // the same: what was asked about again for the first time
}

// worthLookup reports whether an input may be found.
func (a *admission) worthLookup(k key, t trace) bool {
	return a.sampled(k.hash) || t.is(stored)
}

// worthStore reports whether the prediction for an input that was not found is to be stored.
func (a *admission) worthStore(k key, t trace) bool {
	if a.sampled(k.hash) || t.is(asked) {
		return true
	}
	t.note(asked)
	return false
}

// sampled reports whether an input is stored in any case.
func (a *admission) sampled(h xxh3.Uint128) bool { return h.Hi>>(64-a.bits.Load()) == 0 }

// everything reports whether every prediction is stored.
func (a *admission) everything() bool { return a.bits.Load() == 0 }

// hit notes that something stored was of use for the first time.
func (a *admission) hit() {
	if a.used.Add(1) >= sparseWindow/worthwhile && a.bits.Swap(0) > 0 {
		a.begin()
	}
}

// store notes a store, and judges when there were enough.
func (a *admission) store() {
	bits, n := a.bits.Load(), int32(window)
	if bits > 0 {
		n = sparseWindow
	}
	if a.stores.Add(1) < n {
		return
	}
	if a.used.Load() < n/worthwhile {
		a.bits.CompareAndSwap(bits, min(max(bits+1, firstBits), lastBits))
	}
	a.begin()
}

// begin begins to count anew. A count that another request makes meanwhile may be lost, which
// changes nothing that matters.
func (a *admission) begin() {
	a.used.Store(0)
	a.stores.Store(0)
}
