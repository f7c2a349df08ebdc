// SPDX-License-Identifier: Apache-2.0

package tensor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/proto"
)

// Input is the input of one query: tensors, or their encoding as it came over the wire. Each is
// made from the other on first demand, so that a service that only passes an input on never
// decodes it. Safe for concurrent use.
type Input struct {
	decode  sync.Once
	tensors []*clipperv1.Tensor
	err     error

	encode  sync.Once
	encoded []byte

	sum  sync.Once
	hash xxh3.Uint128
}

// FromTensors returns an input of these tensors, which the caller no longer modifies.
func FromTensors(tensors []*clipperv1.Tensor) *Input {
	in := &Input{tensors: tensors}
	in.decode.Do(func() {})
	return in
}

// FromEncoded returns an input of an encoded internalv1.Input, which the caller no longer modifies.
func FromEncoded(encoded []byte) *Input {
	in := &Input{encoded: encoded}
	in.encode.Do(func() {})
	return in
}

// Tensors returns the tensors. They are shared: do not modify them.
func (in *Input) Tensors() ([]*clipperv1.Tensor, error) {
	in.decode.Do(func() {
		var m internalv1.Input
		if err := proto.Unmarshal(in.encoded, &m); err != nil {
			in.err = fmt.Errorf("decode input: %w", err)
			return
		}
		in.tensors = m.Tensors
	})
	return in.tensors, in.err
}

// Encoded returns the encoding. It is shared: do not modify it.
func (in *Input) Encoded() []byte {
	in.encode.Do(func() {
		b, err := proto.Marshal(&internalv1.Input{Tensors: in.tensors})
		if err != nil { // Only text that is not UTF-8, which the edge has refused.
			b = nil
		}
		in.encoded = b
	})
	return in.encoded
}

// Hash returns a 128-bit hash of names, types, shapes and elements. Equal inputs have equal hashes
// whichever form they came in.
func (in *Input) Hash() xxh3.Uint128 {
	in.sum.Do(func() {
		tensors, err := in.Tensors()
		if err != nil {
			in.hash = xxh3.Hash128(in.encoded)
			return
		}
		in.hash = hashTensors(tensors)
	})
	return in.hash
}

// hashTensors writes every length before what it measures, so that no two different inputs feed
// the hash the same bytes.
func hashTensors(tensors []*clipperv1.Tensor) xxh3.Uint128 {
	var scratch [128]byte
	head := scratch[:0]
	var h *xxh3.Hasher
	if len(tensors) == 1 && len(tensors[0].Strings) == 0 && len(tensors[0].ByteStrings) == 0 {
		// The common case needs no streaming: the head is mixed in as the seed.
		t := tensors[0]
		head = appendHead(head, t)
		return xxh3.Hash128Seed(t.Data, xxh3.Hash(head))
	}
	h = xxh3.New()
	for _, t := range tensors {
		head = appendHead(head[:0], t)
		_, _ = h.Write(head)
		_, _ = h.Write(t.Data)
		for _, s := range t.Strings {
			_, _ = h.Write(binary.AppendUvarint(head[:0], uint64(len(s))))
			_, _ = h.WriteString(s)
		}
		for _, s := range t.ByteStrings {
			_, _ = h.Write(binary.AppendUvarint(head[:0], uint64(len(s))))
			_, _ = h.Write(s)
		}
	}
	return h.Sum128()
}

func appendHead(b []byte, t *clipperv1.Tensor) []byte {
	b = binary.AppendUvarint(b, uint64(len(t.Name)))
	b = append(b, t.Name...)
	b = binary.AppendUvarint(b, uint64(t.DataType))
	b = binary.AppendUvarint(b, uint64(len(t.Shape)))
	for _, d := range t.Shape {
		b = binary.AppendVarint(b, d)
	}
	b = binary.AppendUvarint(b, uint64(len(t.Data)))
	b = binary.AppendUvarint(b, uint64(len(t.Strings)))
	return binary.AppendUvarint(b, uint64(len(t.ByteStrings)))
}

// Equal reports whether two inputs have the same tensors. Caches compare with it, so that a
// collision of hashes can never answer with another query's prediction.
func Equal(a, b *Input) bool {
	if a == b {
		return true
	}
	ta, errA := a.Tensors()
	tb, errB := b.Tensors()
	return errA == nil && errB == nil && EqualAll(ta, tb)
}

// EqualAll reports whether two lists of tensors are the same: names, types, shapes and elements,
// byte for byte.
func EqualAll(a, b []*clipperv1.Tensor) bool {
	return slices.EqualFunc(a, b, func(a, b *clipperv1.Tensor) bool {
		return a.Name == b.Name && a.DataType == b.DataType && slices.Equal(a.Shape, b.Shape) && bytes.Equal(a.Data, b.Data) &&
			slices.Equal(a.Strings, b.Strings) && slices.EqualFunc(a.ByteStrings, b.ByteStrings, bytes.Equal)
	})
}
