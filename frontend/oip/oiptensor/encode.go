// SPDX-License-Identifier: Apache-2.0

package oiptensor

import (
	"encoding/binary"
	"math"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/gen/go/inference"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// Raw returns the elements of a tensor, row-major little-endian; of strings and byte strings, each with
// its length before it. It shares the memory of other tensors.
func Raw(t *clipperv1.Tensor) []byte {
	n := 0
	for _, s := range t.GetStrings() {
		n += 4 + len(s)
	}
	for _, s := range t.GetByteStrings() {
		n += 4 + len(s)
	}
	if n == 0 {
		return t.GetData()
	}
	b := make([]byte, 0, n)
	for _, s := range t.GetStrings() {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	for _, s := range t.GetByteStrings() {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	return b
}

// HasContents reports whether elements of this type can be sent other than raw.
func HasContents(t clipperv1.DataType) bool { return contentsField(t) != "" }

// Contents returns the elements of a tensor in the field of their type; nil when the type has none. The
// tensor is well formed.
func Contents(t *clipperv1.Tensor) *inference.InferTensorContents {
	c := &inference.InferTensorContents{}
	size := tensor.Size(t.GetDataType())
	// word returns an element as an integer of size bytes.
	word := func(i int) uint64 {
		var w [8]byte
		copy(w[:], t.Data[i*size:(i+1)*size])
		return binary.LittleEndian.Uint64(w[:])
	}
	count := 0
	if size > 0 {
		count = len(t.Data) / size
	}
	switch contentsField(t.GetDataType()) {
	case "bool_contents":
		for i := range count {
			c.BoolContents = append(c.BoolContents, t.Data[i] != 0)
		}
	case "int_contents":
		unused := 64 - 8*size
		for i := range count {
			c.IntContents = append(c.IntContents, int32(int64(word(i)<<unused)>>unused))
		}
	case "uint_contents":
		for i := range count {
			c.UintContents = append(c.UintContents, uint32(word(i)))
		}
	case "int64_contents":
		for i := range count {
			c.Int64Contents = append(c.Int64Contents, int64(word(i)))
		}
	case "uint64_contents":
		for i := range count {
			c.Uint64Contents = append(c.Uint64Contents, word(i))
		}
	case "fp32_contents":
		for i := range count {
			c.Fp32Contents = append(c.Fp32Contents, math.Float32frombits(uint32(word(i))))
		}
	case "fp64_contents":
		for i := range count {
			c.Fp64Contents = append(c.Fp64Contents, math.Float64frombits(word(i)))
		}
	case "bytes_contents":
		c.BytesContents = t.GetByteStrings()
		for _, s := range t.GetStrings() {
			c.BytesContents = append(c.BytesContents, []byte(s))
		}
	default:
		return nil
	}
	return c
}
