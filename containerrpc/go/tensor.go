// SPDX-License-Identifier: Apache-2.0

package container

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unsafe"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// Number is a type of elements that Go has.
type Number interface {
	bool | uint8 | uint16 | uint32 | uint64 | int8 | int16 | int32 | int64 | float32 | float64
}

// Input returns the input of a name; nil when there is none. The only input of a model is found whatever
// its name.
func (b *Batch) Input(name string) *clipperv1.BatchTensor {
	for _, t := range b.Inputs {
		if t.Name == name || len(b.Inputs) == 1 {
			return t
		}
	}
	return nil
}

// Values returns the elements of all rows of a tensor. They are the received bytes where the machine lays
// numbers out as they are sent, and a copy elsewhere: read only. It fails when the tensor is nil or of
// another type.
func Values[T Number](t *clipperv1.BatchTensor) ([]T, error) {
	want := typeOf[T]()
	if t.GetDataType() != want {
		return nil, invalid("the input has type %s, the model takes %s", tensor.TypeName(t.GetDataType()), tensor.TypeName(want))
	}
	size := tensor.Size(want)
	if len(t.Data)%size != 0 {
		return nil, invalid("%d bytes are no whole number of %s", len(t.Data), tensor.TypeName(want))
	}
	n := len(t.Data) / size
	if n == 0 {
		return nil, nil
	}
	at := unsafe.Pointer(unsafe.SliceData(t.Data))
	if size == 1 && want != clipperv1.DataType_DATA_TYPE_BOOL || // A byte other than 0 and 1 is no Go bool.
		size > 1 && binary.NativeEndian.Uint16([]byte{1, 0}) == 1 && uintptr(at)%uintptr(size) == 0 {
		return unsafe.Slice((*T)(at), n), nil
	}
	out := make([]T, n)
	if err := binary.Read(bytes.NewReader(t.Data), binary.LittleEndian, out); err != nil {
		return nil, fmt.Errorf("read the elements: %w", err)
	}
	return out, nil
}

// Rows cuts the elements of a tensor, its Values, Strings or ByteStrings, into those of each row. The shapes
// of the rows may differ. Nothing is copied.
func Rows[T any](t *clipperv1.BatchTensor, elements []T, rows int) ([][]T, error) {
	out := make([][]T, rows)
	shape, begin := t.GetShape(), 0
	for i := range out {
		if len(t.GetRowShapes()) == rows {
			shape = t.RowShapes[i].GetDims()
		}
		n, ok := tensor.Elements(shape)
		if !ok || int(n) > len(elements)-begin {
			return nil, invalid("%d elements are too few for %d rows", len(elements), rows)
		}
		out[i] = elements[begin : begin+int(n) : begin+int(n)]
		begin += int(n)
	}
	return out, nil
}

// Output returns a tensor of the elements of all rows, one row after the other; shape is that of a row. The
// elements are not to be changed while the answer is sent.
func Output[T Number](name string, elements []T, shape ...int64) *clipperv1.BatchTensor {
	t := &clipperv1.BatchTensor{Name: name, DataType: typeOf[T](), Shape: shape}
	size := tensor.Size(t.DataType)
	if len(elements) == 0 {
		return t
	}
	if size == 1 || binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		t.Data = unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(elements))), len(elements)*size)
		return t
	}
	t.Data, _ = binary.Append(nil, binary.LittleEndian, elements) // Numbers of fixed size cannot fail.
	return t
}

func typeOf[T Number]() clipperv1.DataType {
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
	}
	return clipperv1.DataType_DATA_TYPE_FLOAT64
}
