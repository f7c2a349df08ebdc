// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"math/bits"
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
	// bytesPerSighting and maxSightings set the number of sightings that a cache remembers.
	bytesPerSighting = 256
	maxSightings     = 1 << 18
)

// sightings remembers which inputs were asked about lately, by a part of their hashes. A place is
// given to the latest input that falls on it, so that old ones are forgotten. Safe for concurrent
// use.
type sightings []atomic.Uint32

func newSightings(cacheBytes int64) sightings {
	n := min(max(cacheBytes/bytesPerSighting, 1), maxSightings)
	return make(sightings, 1<<(bits.Len64(uint64(n))-1))
}

// bytes returns the memory that they take.
func (s sightings) bytes() int64 { return int64(4 * len(s)) }

// again notes an input and reports whether it was noted before and is not forgotten.
func (s sightings) again(k key) bool {
	place := &s[k.hash.Lo&uint64(len(s)-1)]
	mark := uint32(k.hash.Hi^k.version<<16) | 1 // 0 is nobody.
	if place.Load() == mark {
		return true
	}
	place.Store(mark)
	return false
}

// admission decides which predictions of a version are stored.
//
// A store costs more than everything else that a miss does, and is of use only if the input is
// asked about again. So the stores are judged by how many have been. While those are many, every
// prediction is stored. When they are few, a prediction is stored only when its input was
// asked about before (the second-hit rule: Maggs and Sitaraman, "Algorithmic Nuggets in Content
// Delivery", SIGCOMM CCR 2015), and for one in 256 inputs, chosen by hash so that their repetitions
// are seen (spatial sampling: Waldspurger et al., "Efficient MRC Construction with SHARDS", FAST
// 2015). As soon as what is stored is asked about again, everything is stored again.
//
// Safe for concurrent use.
type admission struct {
	sightings sightings
	sparse    atomic.Bool
	stores    atomic.Int32 // since the last judgement
	used      atomic.Int32 // the same: what was asked about again for the first time
}

// admit reports whether the prediction for an input that was not found is to be stored.
func (a *admission) admit(k key) bool {
	return !a.sparse.Load() || sampled(k.hash) || a.sightings.again(k)
}

func sampled(h xxh3.Uint128) bool { return h.Hi>>(64-sampleBits) == 0 }

// usedFirst notes that something stored was of use for the first time.
func (a *admission) usedFirst() {
	if a.used.Add(1) >= sparseWindow/worthwhile && a.sparse.CompareAndSwap(true, false) {
		a.begin()
	}
}

// stored notes a store, and judges when there were enough.
func (a *admission) stored() {
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
