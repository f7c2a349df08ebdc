// SPDX-License-Identifier: Apache-2.0

// Package tensor works on the tensors of the public API as they are: it checks them against a
// specification, hashes them and carries them between services without decoding them twice.
//
// Tensors that have been handed on are shared and must not be modified.
package tensor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// maxElements bounds the number of elements of one tensor, so that sizes never overflow.
const maxElements = 1 << 31

// Size returns the bytes of one element, or 0 for strings, byte strings and unknown types.
func Size(t clipperv1.DataType) int {
	switch t {
	case clipperv1.DataType_DATA_TYPE_BOOL, clipperv1.DataType_DATA_TYPE_UINT8, clipperv1.DataType_DATA_TYPE_INT8:
		return 1
	case clipperv1.DataType_DATA_TYPE_UINT16, clipperv1.DataType_DATA_TYPE_INT16, clipperv1.DataType_DATA_TYPE_FLOAT16, clipperv1.DataType_DATA_TYPE_BFLOAT16:
		return 2
	case clipperv1.DataType_DATA_TYPE_UINT32, clipperv1.DataType_DATA_TYPE_INT32, clipperv1.DataType_DATA_TYPE_FLOAT32:
		return 4
	case clipperv1.DataType_DATA_TYPE_UINT64, clipperv1.DataType_DATA_TYPE_INT64, clipperv1.DataType_DATA_TYPE_FLOAT64:
		return 8
	}
	return 0
}

// TypeName returns the type as people write it: "float32", "string".
func TypeName(t clipperv1.DataType) string {
	if t == clipperv1.DataType_DATA_TYPE_UNSPECIFIED {
		return "any"
	}
	return strings.ToLower(strings.TrimPrefix(t.String(), "DATA_TYPE_"))
}

// ParseType is the inverse of TypeName.
func ParseType(name string) (clipperv1.DataType, bool) {
	if name == "any" {
		return clipperv1.DataType_DATA_TYPE_UNSPECIFIED, true
	}
	v, ok := clipperv1.DataType_value["DATA_TYPE_"+strings.ToUpper(name)]
	return clipperv1.DataType(v), ok && v != 0
}

// Elements returns the number of elements of a shape. ok is false when a dimension is negative or
// there are more elements than a tensor may have.
func Elements(shape []int64) (n int64, ok bool) {
	n = 1
	for _, d := range shape {
		if d < 0 || (d > 0 && n > maxElements/d) {
			return 0, false
		}
		n *= d
	}
	return n, true
}

// Check reports whether the tensor is well formed: a known type, and as many elements as its shape
// says. The error has no prefix and is fit to be shown to a caller.
func Check(t *clipperv1.Tensor) error {
	n, ok := Elements(t.GetShape())
	if !ok {
		return fmt.Errorf("shape %v is not allowed: dimensions must not be negative and their product at most %d", t.GetShape(), maxElements)
	}
	switch dt := t.GetDataType(); dt {
	case clipperv1.DataType_DATA_TYPE_STRING:
		return checkCount(t, n, int64(len(t.Strings)), len(t.Data)+len(t.ByteStrings), "strings")
	case clipperv1.DataType_DATA_TYPE_BYTES:
		return checkCount(t, n, int64(len(t.ByteStrings)), len(t.Data)+len(t.Strings), "byte_strings")
	default:
		size := Size(dt)
		if size == 0 {
			return fmt.Errorf("data_type %d is not known", int32(dt))
		}
		if len(t.Strings)+len(t.ByteStrings) > 0 {
			return fmt.Errorf("a %s tensor has its elements in data, not in strings or byte_strings", TypeName(dt))
		}
		if int64(len(t.Data)) != n*int64(size) {
			return fmt.Errorf("data has %d bytes, but %s of shape %v needs %d", len(t.Data), TypeName(dt), t.GetShape(), n*int64(size))
		}
	}
	return nil
}

func checkCount(t *clipperv1.Tensor, want, got int64, elsewhere int, field string) error {
	if elsewhere > 0 {
		return fmt.Errorf("a %s tensor has its elements in %s only", TypeName(t.DataType), field)
	}
	if got != want {
		return fmt.Errorf("%s has %d elements, but shape %v needs %d", field, got, t.GetShape(), want)
	}
	return nil
}

// FitsShape reports whether a shape is one that the specification accepts.
func FitsShape(shape []int64, spec *clipperv1.TensorSpec) bool {
	if spec.GetAnyShape() {
		return true
	}
	return slices.EqualFunc(shape, spec.GetShape(), func(have, want int64) bool { return want < 0 || have == want })
}

// CheckInput reports why tensors are not an input of the signature. An empty one takes any input
// that is well formed.
func CheckInput(tensors []*clipperv1.Tensor, signature *clipperv1.Signature) error {
	specs := signature.GetInputs()
	if len(tensors) == 0 {
		return errors.New("the input has no tensor")
	}
	if len(specs) > 0 && len(tensors) != len(specs) {
		return fmt.Errorf("the input has %d tensors, the model takes %d", len(tensors), len(specs))
	}
	for i, t := range tensors {
		if err := Check(t); err != nil {
			return fmt.Errorf("input %d (%q): %w", i, t.Name, err)
		}
		if len(specs) == 0 {
			continue
		}
		spec := specs[i]
		if len(specs) > 1 && t.Name != spec.Name {
			return fmt.Errorf("input %d is named %q, the model takes %q", i, t.Name, spec.Name)
		}
		if spec.DataType != clipperv1.DataType_DATA_TYPE_UNSPECIFIED && t.DataType != spec.DataType {
			return fmt.Errorf("input %d (%q) has type %s, the model takes %s", i, t.Name, TypeName(t.DataType), TypeName(spec.DataType))
		}
		if !FitsShape(t.Shape, spec) {
			return fmt.Errorf("input %d (%q) has shape %v, the model takes %v", i, t.Name, t.Shape, spec.Shape)
		}
	}
	return nil
}

// Finite reports the index of the first element that is not a finite number, or -1. Types without
// such values always give -1.
func Finite(t *clipperv1.Tensor) int {
	le := binary.LittleEndian
	switch t.GetDataType() {
	case clipperv1.DataType_DATA_TYPE_FLOAT64:
		for i := 0; i+8 <= len(t.Data); i += 8 {
			if le.Uint64(t.Data[i:])&(0x7ff<<52) == 0x7ff<<52 {
				return i / 8
			}
		}
	case clipperv1.DataType_DATA_TYPE_FLOAT32:
		for i := 0; i+4 <= len(t.Data); i += 4 {
			if le.Uint32(t.Data[i:])&(0xff<<23) == 0xff<<23 {
				return i / 4
			}
		}
	case clipperv1.DataType_DATA_TYPE_FLOAT16:
		for i := 0; i+2 <= len(t.Data); i += 2 {
			if le.Uint16(t.Data[i:])&(0x1f<<10) == 0x1f<<10 {
				return i / 2
			}
		}
	case clipperv1.DataType_DATA_TYPE_BFLOAT16:
		for i := 0; i+2 <= len(t.Data); i += 2 {
			if le.Uint16(t.Data[i:])&(0xff<<7) == 0xff<<7 {
				return i / 2
			}
		}
	}
	return -1
}

// Float returns element i of a numeric or boolean tensor. Integers beyond 2^53 lose precision.
// It panics when i is out of range; the tensor has been checked.
func Float(t *clipperv1.Tensor, i int) float64 {
	le := binary.LittleEndian
	switch t.GetDataType() {
	case clipperv1.DataType_DATA_TYPE_BOOL, clipperv1.DataType_DATA_TYPE_UINT8:
		return float64(t.Data[i])
	case clipperv1.DataType_DATA_TYPE_INT8:
		return float64(int8(t.Data[i]))
	case clipperv1.DataType_DATA_TYPE_UINT16:
		return float64(le.Uint16(t.Data[2*i:]))
	case clipperv1.DataType_DATA_TYPE_INT16:
		return float64(int16(le.Uint16(t.Data[2*i:])))
	case clipperv1.DataType_DATA_TYPE_FLOAT16:
		return float16(le.Uint16(t.Data[2*i:]))
	case clipperv1.DataType_DATA_TYPE_BFLOAT16:
		return float64(math.Float32frombits(uint32(le.Uint16(t.Data[2*i:])) << 16))
	case clipperv1.DataType_DATA_TYPE_UINT32:
		return float64(le.Uint32(t.Data[4*i:]))
	case clipperv1.DataType_DATA_TYPE_INT32:
		return float64(int32(le.Uint32(t.Data[4*i:])))
	case clipperv1.DataType_DATA_TYPE_FLOAT32:
		return float64(math.Float32frombits(le.Uint32(t.Data[4*i:])))
	case clipperv1.DataType_DATA_TYPE_UINT64:
		return float64(le.Uint64(t.Data[8*i:]))
	case clipperv1.DataType_DATA_TYPE_INT64:
		return float64(int64(le.Uint64(t.Data[8*i:])))
	case clipperv1.DataType_DATA_TYPE_FLOAT64:
		return math.Float64frombits(le.Uint64(t.Data[8*i:]))
	}
	return math.NaN()
}

// float16 converts an IEEE 754 binary16.
func float16(bits uint16) float64 {
	sign := 1.0
	if bits&0x8000 != 0 {
		sign = -1
	}
	exp, frac := int(bits>>10&0x1f), float64(bits&0x3ff)
	switch exp {
	case 0:
		return sign * math.Ldexp(frac, -24)
	case 0x1f:
		if frac != 0 {
			return math.NaN()
		}
		return math.Inf(int(sign))
	}
	return sign * math.Ldexp(1024+frac, exp-25)
}
