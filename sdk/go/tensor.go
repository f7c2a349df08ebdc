// SPDX-License-Identifier: Apache-2.0

package clipper

import (
	"encoding/binary"
	"fmt"
	"math"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Element is what a tensor is made of.
type Element interface {
	bool | uint8 | uint16 | uint32 | uint64 | int8 | int16 | int32 | int64 | float32 | float64 | string | []byte
}

// Input returns the inputs of a query.
func Input(tensors ...*Tensor) []*Tensor { return tensors }

// NewTensor returns a tensor of the elements, row-major. Without a shape it is a list. The product of the
// shape must be the number of elements, which the server checks.
func NewTensor[T Element](elements []T, shape ...int64) *Tensor {
	if len(shape) == 0 {
		shape = []int64{int64(len(elements))}
	}
	return makeTensor(elements, shape)
}

// Scalar returns a tensor of one element and no dimension.
func Scalar[T Element](element T) *Tensor { return makeTensor([]T{element}, nil) }

// Matrix returns a tensor of two dimensions. All rows must have the same length.
func Matrix[T Element](rows [][]T) (*Tensor, error) {
	var elements []T
	for i, row := range rows {
		if len(row) != len(rows[0]) {
			return nil, fmt.Errorf("clipper: row %d has %d elements, the first has %d", i, len(row), len(rows[0]))
		}
		elements = append(elements, row...)
	}
	if len(elements) == 0 {
		return nil, fmt.Errorf("clipper: the matrix has no elements")
	}
	return NewTensor(elements, int64(len(rows)), int64(len(rows[0]))), nil
}

// Float16 returns a tensor of IEEE 754 binary16, rounded to even.
func Float16(elements []float32, shape ...int64) *Tensor {
	bits := make([]uint16, len(elements))
	for i, x := range elements {
		bits[i] = toFloat16(x)
	}
	t := NewTensor(bits, shape...)
	t.DataType = clipperv1.DataType_DATA_TYPE_FLOAT16
	return t
}

// BFloat16 returns a tensor of bfloat16, rounded to even.
func BFloat16(elements []float32, shape ...int64) *Tensor {
	bits := make([]uint16, len(elements))
	for i, x := range elements {
		b := math.Float32bits(x)
		if x == x { // What is not a number must not be rounded to infinity.
			b += 0x7fff + b>>16&1
		}
		bits[i] = uint16(b >> 16)
	}
	t := NewTensor(bits, shape...)
	t.DataType = clipperv1.DataType_DATA_TYPE_BFLOAT16
	return t
}

// Named gives a tensor a name, for applications with several inputs, and returns it.
func Named(name string, t *Tensor) *Tensor {
	t.Name = name
	return t
}

// Values returns the elements of a tensor, row-major. T must be the tensor's type; float32 also reads
// float16 and bfloat16. Byte strings are shared with the tensor.
func Values[T Element](t *Tensor) ([]T, error) {
	var out []T
	n := int64(1)
	for _, d := range t.GetShape() {
		n *= d
	}
	have := t.GetDataType()
	switch into := any(&out).(type) {
	case *[]string:
		*into = t.GetStrings()
	case *[][]byte:
		*into = t.GetByteStrings()
	default:
		size := binary.Size(*new(T))
		if _, ok := into.(*[]float32); ok && (have == clipperv1.DataType_DATA_TYPE_FLOAT16 || have == clipperv1.DataType_DATA_TYPE_BFLOAT16) {
			return widen[T](t, n)
		}
		if typeOf[T]() == have && int64(len(t.GetData())) == n*int64(size) {
			out = make([]T, n)
			if _, err := binary.Decode(t.GetData(), binary.LittleEndian, out); err != nil {
				return nil, fmt.Errorf("clipper: read the elements: %w", err)
			}
		}
	}
	if typeOf[T]() != have {
		return nil, fmt.Errorf("clipper: the tensor's elements are %s, not %T", have, *new(T))
	}
	if int64(len(out)) != n {
		return nil, fmt.Errorf("clipper: the tensor does not have the elements that its shape %v says", t.GetShape())
	}
	return out, nil
}

// Value returns the only element of a tensor.
func Value[T Element](t *Tensor) (T, error) {
	all, err := Values[T](t)
	if err == nil && len(all) != 1 {
		err = fmt.Errorf("clipper: the tensor has %d elements, not one", len(all))
	}
	if err != nil {
		return *new(T), err
	}
	return all[0], nil
}

func makeTensor[T Element](elements []T, shape []int64) *Tensor {
	t := &Tensor{DataType: typeOf[T](), Shape: shape}
	switch e := any(elements).(type) {
	case []string:
		t.Strings = e
	case [][]byte:
		t.ByteStrings = e
	default:
		t.Data, _ = binary.Append(nil, binary.LittleEndian, elements) // Numbers of fixed size cannot fail.
	}
	return t
}

func typeOf[T Element]() clipperv1.DataType {
	switch any(*new(T)).(type) {
	case bool:
		return clipperv1.DataType_DATA_TYPE_BOOL
	case uint8:
		return clipperv1.DataType_DATA_TYPE_UINT8
	case uint16:
		return clipperv1.DataType_DATA_TYPE_UINT16
	case uint32:
		return clipperv1.DataType_DATA_TYPE_UINT32
	case uint64:
		return clipperv1.DataType_DATA_TYPE_UINT64
	case int8:
		return clipperv1.DataType_DATA_TYPE_INT8
	case int16:
		return clipperv1.DataType_DATA_TYPE_INT16
	case int32:
		return clipperv1.DataType_DATA_TYPE_INT32
	case int64:
		return clipperv1.DataType_DATA_TYPE_INT64
	case float32:
		return clipperv1.DataType_DATA_TYPE_FLOAT32
	case float64:
		return clipperv1.DataType_DATA_TYPE_FLOAT64
	case string:
		return clipperv1.DataType_DATA_TYPE_STRING
	}
	return clipperv1.DataType_DATA_TYPE_BYTES
}

// widen reads a tensor of 16-bit floats; T is float32.
func widen[T Element](t *Tensor, n int64) ([]T, error) {
	if int64(len(t.GetData())) != 2*n {
		return nil, fmt.Errorf("clipper: the tensor does not have the elements that its shape %v says", t.GetShape())
	}
	out := make([]T, n)
	for i := range out {
		bits := binary.LittleEndian.Uint16(t.GetData()[2*i:])
		x := math.Float32frombits(uint32(bits) << 16)
		if t.GetDataType() == clipperv1.DataType_DATA_TYPE_FLOAT16 {
			x = fromFloat16(bits)
		}
		out[i] = any(x).(T)
	}
	return out, nil
}

// The smallest normal binary16 is 2^-14; below it, its steps are 2^-24.
const halfMinExponent, halfStep = -14, 1 << 24

func fromFloat16(bits uint16) float32 {
	sign := 1 - 2*float32(bits>>15)
	exponent, fraction := int(bits>>10&0x1f), float32(bits&0x3ff)
	switch exponent {
	case 0:
		return sign * fraction / halfStep
	case 0x1f:
		if fraction != 0 {
			return float32(math.NaN())
		}
		return sign * float32(math.Inf(1))
	}
	return sign * float32(math.Ldexp(float64(1+fraction/1024), exponent-15))
}

func toFloat16(x float32) uint16 {
	sign := uint16(math.Float32bits(x) >> 16 & 0x8000)
	switch a := math.Abs(float64(x)); {
	case a != a:
		return sign | 0x7e00
	case a >= 65520: // Halfway from the largest, 65504, to the next.
		return sign | 0x7c00
	case a < math.Ldexp(1, halfMinExponent):
		return sign | uint16(math.RoundToEven(a*halfStep)) // What rounds up to 1024 is the smallest normal one.
	default:
		fraction, exponent := math.Frexp(a) // In [0.5, 1).
		steps := math.RoundToEven(fraction * 2048)
		return sign | uint16((exponent+14-1)<<10+int(steps)) // The leading bit of steps counts the exponent up by one.
	}
}
