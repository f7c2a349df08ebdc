// SPDX-License-Identifier: Apache-2.0

package oiptensor

import (
	"encoding/binary"
	"fmt"
	"math"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/gen/go/inference"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// Decode returns the inputs of a request as tensors with a batch dimension, if they came with one.
// BYTES are DATA_TYPE_BYTES. The memory that is allocated is in proportion to the request, not to what
// its shapes claim. Errors are INVALID_ARGUMENT and name the input at fault.
func Decode(req *inference.ModelInferRequest) ([]*clipperv1.Tensor, error) {
	inputs, raw := req.GetInputs(), req.GetRawInputContents()
	if len(inputs) == 0 {
		return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, "inputs", "the request has no inputs")
	}
	if len(raw) > 0 && len(raw) != len(inputs) {
		return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "raw_input_contents",
			"raw_input_contents has %d items, expected one for each of the %d inputs", len(raw), len(inputs))
	}
	tensors := make([]*clipperv1.Tensor, len(inputs))
	for i, in := range inputs {
		d := decoder{field: fmt.Sprintf("inputs[%d]", i), in: in}
		t, n, err := d.head()
		if err != nil {
			return nil, err
		}
		switch {
		case len(raw) > 0 && in.Contents != nil:
			return nil, d.fail(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "contents",
				"and raw_input_contents exclude each other: expected all inputs in one of them")
		case len(raw) > 0:
			d.contents = fmt.Sprintf("raw_input_contents[%d]", i)
			err = d.raw(t, n, raw[i])
		default:
			err = d.typed(t, n)
		}
		if err != nil {
			return nil, err
		}
		tensors[i] = t
	}
	return tensors, nil
}

// decoder reads one input.
type decoder struct {
	in       *inference.ModelInferRequest_InferInputTensor
	field    string // of the input
	contents string // the field of its raw contents
}

// fail is an error at a field of the input.
func (d *decoder) fail(reason clipperv1.ErrorReason, field, format string, args ...any) error {
	path := d.field + "." + field
	return apierror.Invalid(reason, path, "%s %s", path, fmt.Sprintf(format, args...))
}

// head returns the tensor without elements, and how many it must have.
func (d *decoder) head() (*clipperv1.Tensor, int64, error) {
	dt, ok := ParseType(d.in.GetDatatype())
	if !ok {
		return nil, 0, d.fail(clipperv1.ErrorReason_ERROR_REASON_INPUT_TYPE, "datatype",
			"is %.40q: expected BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, BF16, FP32, FP64 or BYTES", d.in.GetDatatype())
	}
	n, ok := tensor.Elements(d.in.GetShape())
	if !ok || len(d.in.GetShape()) > maxRank {
		return nil, 0, d.fail(clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE, "shape",
			"is not allowed: expected at most %d dimensions, none less than 0, and fewer elements", maxRank)
	}
	for name := range d.in.GetParameters() {
		if name == "shared_memory_region" {
			return nil, 0, d.fail(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "parameters",
				"name a shared memory region: shared memory is not served, send the elements in the request")
		}
	}
	return &clipperv1.Tensor{Name: d.in.GetName(), DataType: dt, Shape: d.in.GetShape()}, n, nil
}

// maxRank bounds the dimensions of a tensor: numpy has at most 64.
const maxRank = 64

// raw reads row-major little-endian bytes.
func (d *decoder) raw(t *clipperv1.Tensor, n int64, raw []byte) error {
	if t.DataType != clipperv1.DataType_DATA_TYPE_BYTES {
		if want := n * int64(tensor.Size(t.DataType)); int64(len(raw)) != want {
			return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE, d.contents, "%s has %d bytes, but %s of shape %v needs %d",
				d.contents, len(raw), d.in.GetDatatype(), t.Shape, want)
		}
		t.Data = raw
		return nil
	}
	elements, err := SplitBytes(raw, n)
	if err != nil {
		return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE, d.contents, "%s: %v", d.contents, err)
	}
	t.ByteStrings = elements
	return nil
}

// SplitBytes reads n elements of BYTES: each is its length as 32 bits without a sign, little-endian,
// and its bytes. The elements share memory with raw. The error is fit to be shown to a caller.
func SplitBytes(raw []byte, n int64) ([][]byte, error) {
	// An element takes 4 bytes at least.
	elements := make([][]byte, 0, min(n, int64(len(raw)/4)))
	for at := 0; at < len(raw); {
		if int64(len(elements)) == n {
			return nil, fmt.Errorf("%d bytes are left after the %d elements that the shape has", len(raw)-at, n)
		}
		if len(raw)-at < 4 {
			return nil, fmt.Errorf("the length of element %d is cut off at byte %d", len(elements), at)
		}
		size := int64(binary.LittleEndian.Uint32(raw[at:]))
		at += 4
		if size > int64(len(raw)-at) {
			return nil, fmt.Errorf("element %d has a length of %d bytes, but %d are left", len(elements), size, len(raw)-at)
		}
		end := at + int(size)
		elements = append(elements, raw[at:end:end])
		at = end
	}
	if int64(len(elements)) != n {
		return nil, fmt.Errorf("it has %d elements, but the shape needs %d", len(elements), n)
	}
	return elements, nil
}

// typed reads elements from the field of their type.
func (d *decoder) typed(t *clipperv1.Tensor, n int64) error {
	c := d.in.GetContents()
	lengths := map[string]int{
		"bool_contents": len(c.GetBoolContents()), "int_contents": len(c.GetIntContents()), "int64_contents": len(c.GetInt64Contents()),
		"uint_contents": len(c.GetUintContents()), "uint64_contents": len(c.GetUint64Contents()),
		"fp32_contents": len(c.GetFp32Contents()), "fp64_contents": len(c.GetFp64Contents()), "bytes_contents": len(c.GetBytesContents()),
	}
	own := contentsField(t.DataType)
	if own == "" {
		return d.fail(clipperv1.ErrorReason_ERROR_REASON_INPUT_TYPE, "datatype", "is %s, which can only be sent in raw_input_contents", d.in.GetDatatype())
	}
	for field, length := range lengths {
		if field != own && length > 0 {
			return d.fail(clipperv1.ErrorReason_ERROR_REASON_INPUT_TYPE, "contents", "has elements in %s: expected those of %s in %s", field, d.in.GetDatatype(), own)
		}
	}
	if int64(lengths[own]) != n {
		return d.fail(clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE, "contents", "has %d elements, but shape %v needs %d", lengths[own], t.Shape, n)
	}
	if t.DataType == clipperv1.DataType_DATA_TYPE_BYTES {
		t.ByteStrings = c.GetBytesContents()
		return nil
	}
	size := tensor.Size(t.DataType)
	b := make([]byte, 0, int(n)*size)
	outside := -1
	switch own {
	case "bool_contents":
		for _, v := range c.GetBoolContents() {
			b = append(b, truth(v))
		}
	case "int_contents":
		for i, v := range c.GetIntContents() {
			if most := int64(1) << (8*size - 1); (int64(v) < -most || int64(v) >= most) && outside < 0 {
				outside = i
			}
			b = appendWidth(b, uint64(int64(v)), size)
		}
	case "uint_contents":
		for i, v := range c.GetUintContents() {
			if uint64(v) >= uint64(1)<<(8*size) && outside < 0 {
				outside = i
			}
			b = appendWidth(b, uint64(v), size)
		}
	case "int64_contents":
		for _, v := range c.GetInt64Contents() {
			b = binary.LittleEndian.AppendUint64(b, uint64(v))
		}
	case "uint64_contents":
		for _, v := range c.GetUint64Contents() {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
	case "fp32_contents":
		for _, v := range c.GetFp32Contents() {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	case "fp64_contents":
		for _, v := range c.GetFp64Contents() {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
		}
	}
	if outside >= 0 {
		return d.fail(clipperv1.ErrorReason_ERROR_REASON_INPUT_VALUE, "contents", "element %d is out of the range of %s", outside, d.in.GetDatatype())
	}
	t.Data = b
	return nil
}

// contentsField is the field that has the elements of a type; empty when there is none.
func contentsField(t clipperv1.DataType) string {
	switch t {
	case clipperv1.DataType_DATA_TYPE_BOOL:
		return "bool_contents"
	case clipperv1.DataType_DATA_TYPE_INT8, clipperv1.DataType_DATA_TYPE_INT16, clipperv1.DataType_DATA_TYPE_INT32:
		return "int_contents"
	case clipperv1.DataType_DATA_TYPE_UINT8, clipperv1.DataType_DATA_TYPE_UINT16, clipperv1.DataType_DATA_TYPE_UINT32:
		return "uint_contents"
	case clipperv1.DataType_DATA_TYPE_INT64:
		return "int64_contents"
	case clipperv1.DataType_DATA_TYPE_UINT64:
		return "uint64_contents"
	case clipperv1.DataType_DATA_TYPE_FLOAT32:
		return "fp32_contents"
	case clipperv1.DataType_DATA_TYPE_FLOAT64:
		return "fp64_contents"
	case clipperv1.DataType_DATA_TYPE_STRING, clipperv1.DataType_DATA_TYPE_BYTES:
		return "bytes_contents"
	}
	return ""
}

func truth(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// appendWidth appends the lowest bytes of v.
func appendWidth(b []byte, v uint64, size int) []byte {
	for range size {
		b, v = append(b, byte(v)), v>>8
	}
	return b
}
