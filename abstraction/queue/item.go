// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"github.com/clipper-serving/clipper/abstraction/prediction"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// Item is a request in the queue, or taken from it.
type Item struct {
	// Request is what was submitted.
	Request *prediction.Request

	seq      uint64 // the order of arrival
	deadline int64  // nanoseconds since the queue's epoch
	arrived  int64  // the same
	key      uint64 // requests of different keys cannot share a batch
	bytes    int    // the size of the elements
	attempts uint8  // the replicas that were lost with it
	priority uint8  // 1 to prediction.MaxPriority
	probe    bool   // let in although it seemed hopeless
}

// Bytes returns the size of the input's elements, about as they are encoded.
func (it *Item) Bytes() int { return it.bytes }

// InputBytes returns the same for an input that can be read.
func InputBytes(in *tensor.Input) int {
	tensors, _ := in.Tensors()
	return size(tensors)
}

// drops are requests to be answered once the queue is unlocked, since a receiver may submit again.
type drops []drop

type drop struct {
	request *prediction.Request
	err     *prediction.Error
}

func (d *drops) add(r *prediction.Request, err *prediction.Error) { *d = append(*d, drop{r, err}) }

func (d drops) reply() {
	for _, it := range d {
		it.request.Reply(prediction.Result{Err: it.err})
	}
}

// batchKey is equal for inputs that can share a batch: those whose tensors have the same names and
// types in the same order. Shapes may differ.
func batchKey(tensors []*clipperv1.Tensor) uint64 {
	const prime = 1099511628211 // FNV-1a
	h := uint64(14695981039346656037)
	for _, t := range tensors {
		for i := range len(t.Name) {
			h = (h ^ uint64(t.Name[i])) * prime
		}
		h = (h ^ uint64(t.DataType) ^ 1<<32) * prime
	}
	return h
}

// size returns the bytes of the elements, about as they are encoded.
func size(tensors []*clipperv1.Tensor) int {
	const header = 8
	n := 0
	for _, t := range tensors {
		n += len(t.Data) + header*(len(t.Shape)+1)
		for _, s := range t.Strings {
			n += len(s) + header
		}
		for _, s := range t.ByteStrings {
			n += len(s) + header
		}
	}
	return n
}
