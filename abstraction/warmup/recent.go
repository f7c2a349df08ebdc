// SPDX-License-Identifier: Apache-2.0

package warmup

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	// maxRecent and maxRecentBytes bound what is kept; an input of more than half of the bytes is not.
	maxRecent      = 64
	maxRecentBytes = 2 << 20
	// recentShare is the share of the inputs that are taken once enough are kept: one in so many.
	recentShare = 256
)

// Recent keeps a small sample of the inputs that were asked about. An input that is taken replaces a
// random one, so that those of the recent past are more likely to be there (Aggarwal, "On Biased
// Reservoir Sampling in the Presence of Stream Evolution", VLDB 2006). The zero value is ready. Safe
// for concurrent use.
type Recent struct {
	full atomic.Bool

	mu     sync.Mutex
	inputs [][]*clipperv1.Tensor
	bytes  int
}

// Offer perhaps keeps an input, which is shared and must not be modified. It is called for every
// query and mostly does next to nothing.
func (r *Recent) Offer(tensors []*clipperv1.Tensor) {
	if r.full.Load() && rand.Uint32()%recentShare != 0 { //nolint:gosec // It only picks a sample.
		return
	}
	n := size(tensors)
	if n > maxRecentBytes/2 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.inputs) >= maxRecent || r.bytes+n > maxRecentBytes {
		last := len(r.inputs) - 1
		i := rand.IntN(last + 1) //nolint:gosec // The same.
		r.bytes -= size(r.inputs[i])
		r.inputs[i], r.inputs[last] = r.inputs[last], nil
		r.inputs = r.inputs[:last]
		r.full.Store(true)
	}
	r.inputs = append(r.inputs, tensors)
	r.bytes += n
}

// Inputs returns what is kept.
func (r *Recent) Inputs() [][]*clipperv1.Tensor {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.inputs)
}

// size returns the bytes of an input, roughly.
func size(tensors []*clipperv1.Tensor) int {
	const header = 24
	n := 0
	for _, t := range tensors {
		n += header*(1+len(t.Strings)+len(t.ByteStrings)) + len(t.Name) + 8*len(t.Shape) + len(t.Data)
		for _, s := range t.Strings {
			n += len(s)
		}
		for _, s := range t.ByteStrings {
			n += len(s)
		}
	}
	return n
}
