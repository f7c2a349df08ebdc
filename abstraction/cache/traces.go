// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"math"
	"math/bits"
	"sync/atomic"
)

const (
	// bytesPerPlace and maxPlaces set the number of places for a cache's traces. There are no more
	// than fit the processor's nearer caches: a miss would wait for the memory otherwise.
	bytesPerPlace = 256
	maxPlaces     = 1 << 14
)

// traces remembers, by parts of their hashes, which inputs were asked about lately and which ones
// were stored. They are hints: a place has room for one input of each kind, the latest that falls on
// it, and of two that are noted at the same moment one may be lost. Both kinds are in one word, so
// that a miss touches one line of the processor's cache. Safe for concurrent use.
type traces []atomic.Uint32

// trace is where a version's input has its place, and its mark there.
type trace struct {
	place *atomic.Uint32
	mark  uint32 // 16 bits; 0 is nobody's.
}

// kind is what an input is remembered for: where in the place's word the mark is.
type kind uint

const (
	asked  kind = 0
	stored kind = 16
)

func newTraces(cacheBytes int64) traces {
	n := min(max(cacheBytes/bytesPerPlace, 1), maxPlaces)
	return make(traces, 1<<(bits.Len64(uint64(n))-1))
}

// bytes returns the memory that they take.
func (t traces) bytes() int64 { return int64(4 * len(t)) }

// of returns the trace of an input. The version moves the place, so that versions that are asked
// about the same input do not push each other out.
func (t traces) of(k key) trace {
	const spread = 0x9e3779b97f4a7c15 // 2^64 over the golden ratio: ids in a row get places far apart.
	at := (k.hash.Lo + k.version*spread) & uint64(len(t)-1)
	return trace{&t[at], uint32(uint16(k.hash.Hi)) | 1}
}

// is reports whether the input is the latest that was noted on its place.
func (t trace) is(k kind) bool { return t.place.Load()>>k&math.MaxUint16 == t.mark }

// note notes the input.
func (t trace) note(k kind) {
	t.place.Store(t.place.Load()&^(math.MaxUint16<<k) | t.mark<<k)
}
