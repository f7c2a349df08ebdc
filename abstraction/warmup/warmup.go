// SPDX-License-Identifier: Apache-2.0

// Package warmup chooses the inputs with which replicas of one model version are warmed up before
// they take queries: those that were given with the version, else real ones of the recent past, else
// zeros.
package warmup

import (
	"slices"
	"sync"
	"time"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

const (
	// DefaultTimeLimit is how long a warm-up may take when nothing else is said.
	DefaultTimeLimit = 10 * time.Second
	// maxZeros is the most elements of a tensor of zeros.
	maxZeros = 1 << 22
	// maxLosses is how often in a row a container may be lost in a warm-up with chosen inputs for the
	// next one to be left out: perhaps it is the inputs that kill it.
	maxLosses = 2
)

// Source gives the inputs for the warm-ups of a version's replicas. Safe for concurrent use.
type Source struct {
	disabled bool
	limit    time.Duration
	samples  []*tensor.Input
	recent   func() [][]*clipperv1.Tensor

	mu    sync.Mutex
	begun map[string]int // warm-ups without an end, by replica
}

// NewSource returns the source of a version. recent returns real inputs of the recent past; it may
// return none.
func NewSource(cfg *clipperv1.WarmUp, recent func() [][]*clipperv1.Tensor) *Source {
	s := &Source{disabled: cfg.GetDisabled(), limit: cfg.GetTimeLimit().AsDuration(), recent: recent, begun: map[string]int{}}
	if s.limit <= 0 {
		s.limit = DefaultTimeLimit
	}
	for _, sample := range cfg.GetSamples() {
		s.samples = append(s.samples, tensor.FromTensors(sample.GetTensors()))
	}
	return s
}

// TimeLimit is how long a warm-up may take.
func (s *Source) TimeLimit() time.Duration { return s.limit }

// Begin returns the inputs for a warm-up of a replica: all have tensors of the same names and types.
// There may be none. When given is true they were given with the version, and the replica must
// predict them; otherwise they fit the signature and were chosen here. A warm-up that ends without the
// loss of the container is told to End.
func (s *Source) Begin(replica string, signature *clipperv1.Signature) (inputs []*tensor.Input, given bool) {
	if s.disabled {
		return nil, false
	}
	if len(s.samples) > 0 {
		return s.samples, true
	}
	s.mu.Lock()
	lost := s.begun[replica] >= maxLosses
	if lost {
		delete(s.begun, replica)
	}
	s.mu.Unlock()
	if lost {
		return nil, false
	}
	if inputs = fitting(s.recent(), signature); len(inputs) == 0 {
		inputs = zeros(signature)
	}
	if len(inputs) > 0 {
		s.mu.Lock()
		s.begun[replica]++
		s.mu.Unlock()
	}
	return inputs, false
}

// End ends what Begin began.
func (s *Source) End(replica string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.begun, replica)
}

// fitting returns the inputs that fit the signature and can share a batch with the first of them.
func fitting(all [][]*clipperv1.Tensor, signature *clipperv1.Signature) []*tensor.Input {
	var first []*clipperv1.Tensor
	var inputs []*tensor.Input
	for _, tensors := range all {
		if tensor.CheckInput(tensors, signature) != nil {
			continue
		}
		if first == nil {
			first = tensors
		}
		if Alike(first, tensors) {
			inputs = append(inputs, tensor.FromTensors(tensors))
		}
	}
	return inputs
}

// Alike reports whether two inputs can share a batch: their tensors have the same names and types.
func Alike(a, b []*clipperv1.Tensor) bool {
	return slices.EqualFunc(a, b, func(a, b *clipperv1.Tensor) bool {
		return a.GetName() == b.GetName() && a.GetDataType() == b.GetDataType()
	})
}

// zeros returns an input of zeros, or of empty strings, when the signature says exactly what an
// input looks like, and otherwise none.
func zeros(signature *clipperv1.Signature) []*tensor.Input {
	var tensors []*clipperv1.Tensor
	for _, spec := range signature.GetInputs() {
		n, known := tensor.Elements(spec.GetShape())
		if spec.GetAnyShape() || !known || n > maxZeros {
			return nil
		}
		t := &clipperv1.Tensor{Name: spec.GetName(), DataType: spec.GetDataType(), Shape: spec.GetShape()}
		switch t.DataType {
		case clipperv1.DataType_DATA_TYPE_UNSPECIFIED:
			return nil
		case clipperv1.DataType_DATA_TYPE_STRING:
			t.Strings = make([]string, n)
		case clipperv1.DataType_DATA_TYPE_BYTES:
			t.ByteStrings = make([][]byte, n)
		default:
			t.Data = make([]byte, int(n)*tensor.Size(t.DataType))
		}
		tensors = append(tensors, t)
	}
	if len(tensors) == 0 {
		return nil
	}
	return []*tensor.Input{tensor.FromTensors(tensors)}
}
