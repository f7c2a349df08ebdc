// SPDX-License-Identifier: Apache-2.0

package oiptensor

import (
	"fmt"
	"slices"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// Text returns a tensor of byte strings as one of strings, which it copies.
func Text(t *clipperv1.Tensor) *clipperv1.Tensor {
	text := make([]string, len(t.ByteStrings))
	for i, b := range t.ByteStrings {
		text[i] = string(b)
	}
	return &clipperv1.Tensor{Name: t.Name, DataType: clipperv1.DataType_DATA_TYPE_STRING, Shape: t.Shape, Strings: text}
}

// Split returns the rows of a tensor whose first dimension is the batch. Each has the given shape, which
// has as many elements as the tensor has in a row. The rows share the tensor's memory.
func Split(t *clipperv1.Tensor, shape []int64) []*clipperv1.Tensor {
	n := int(t.Shape[0])
	per, _ := tensor.Elements(shape)
	each, size := int(per), int(per)*tensor.Size(t.DataType)
	all := make([]clipperv1.Tensor, n)
	rows := make([]*clipperv1.Tensor, n)
	for i := range rows {
		row := &all[i]
		row.Name, row.DataType, row.Shape = t.Name, t.DataType, shape
		switch t.DataType {
		case clipperv1.DataType_DATA_TYPE_STRING:
			row.Strings = t.Strings[i*each : (i+1)*each : (i+1)*each]
		case clipperv1.DataType_DATA_TYPE_BYTES:
			row.ByteStrings = t.ByteStrings[i*each : (i+1)*each : (i+1)*each]
		default:
			row.Data = t.Data[i*size : (i+1)*size : (i+1)*size]
		}
		rows[i] = row
	}
	return rows
}

// Join is the inverse of Split. The error says which row differs from the first in type or shape; it is
// fit to be shown to a caller.
func Join(rows []*clipperv1.Tensor) (*clipperv1.Tensor, error) {
	first := rows[0]
	whole := &clipperv1.Tensor{Name: first.Name, DataType: first.DataType, Shape: append([]int64{int64(len(rows))}, first.Shape...)}
	if len(rows) == 1 {
		whole.Data, whole.Strings, whole.ByteStrings = first.Data, first.Strings, first.ByteStrings
		return whole, nil
	}
	if tensor.Size(first.DataType) > 0 {
		whole.Data = make([]byte, 0, len(rows)*len(first.Data))
	}
	for i, row := range rows {
		if row.DataType != first.DataType || !slices.Equal(row.Shape, first.Shape) {
			return nil, fmt.Errorf("row %d has %s of shape %v, row 0 has %s of shape %v, which are not one tensor: ask for one row at a time",
				i, TypeName(row.DataType), row.Shape, TypeName(first.DataType), first.Shape)
		}
		whole.Data = append(whole.Data, row.Data...)
		whole.Strings = append(whole.Strings, row.Strings...)
		whole.ByteStrings = append(whole.ByteStrings, row.ByteStrings...)
	}
	return whole, nil
}
