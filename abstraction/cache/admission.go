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
	// sampleBits is the logarithm of the share of inputs that are stored in any case.
	sampleBits = 8
)

// admission decides which predictions of a version are stored, and which inputs are looked up.
//
// A store costs more than everything else that a miss does, and is of use only if the input is
// asked about again. So the stores are judged by how many have been. While those are many, every
// prediction is stored. When they are few, a prediction is stored only when its input was
// asked about before (the second-hit rule: Maggs and Sitaraman, "Algorithmic Nuggets in Content
// Delivery", SIGCOMM CCR 2015), and for one in 256 inputs, chosen by hash so that their repetitions
// are seen (spatial sampling: Waldspurger et al., "Efficient MRC Construction with SHARDS", FAST
// 2015). As soon as what is stored is asked about again, everything is stored again.
//
// While little is stored, only what has left the trace of a store is looked up, and the sample. What
// is stored and has lost its trace to a later store is missed until it is stored again, which is when
// it comes the second time.
//
// Safe for concurrent use.
type admission struct {
	sparse atomic.Bool
	stores atomic.Int32 // since the last judgement
	used   atomic.Int32 // the same: what was asked about again for the first time
}

// worthLookup reports whether an input may be found.
func (a *admission) worthLookup(k key, t trace) bool {
	return !a.sparse.Load() || t.is(stored) || sampled(k.hash)
}

// worthStore reports whether the prediction for an input that was not found is to be stored.
func (a *admission) worthStore(k key, t trace) bool {
	if !a.sparse.Load() || t.is(asked) {
		return true
	}
	t.note(asked)
	return sampled(k.hash)
}

func sampled(h xxh3.Uint128) bool { return h.Hi>>(64-sampleBits) == 0 }

// hit notes that something stored was of use for the first time.
func (a *admission) hit() {
	if a.used.Add(1) >= sparseWindow/worthwhile && a.sparse.CompareAndSwap(true, false) {
		a.begin()
	}
}

// store notes a store, and judges when there were enough.
func (a *admission) store() {
	n := int32(window)
	if a.sparse.Load() {
		n = sparseWindow
	}
	if a.stores.Add(1) >= n {
		a.sparse.Store(a.used.Load() < n/worthwhile)
		a.begin()
	}
}

// begin begins to count anew. A count that another request makes meanwhile may be lost, which
// changes nothing that matters.
func (a *admission) begin() {
	a.used.Store(0)
	a.stores.Store(0)
}
