// SPDX-License-Identifier: Apache-2.0

// Package oiptensor converts between the tensors of the Open Inference Protocol and ours: data types,
// typed and raw contents, and the rows of a batch.
//
// Elements are not copied where both sides have the same bytes: a tensor of ours shares the memory of
// the request that it was read from, and rows share that of their batch. Nothing is modified.
package oiptensor

import (
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/gen/go/inference"
)

// names are the protocol's names of our types.
var names = [...]string{
	clipperv1.DataType_DATA_TYPE_BOOL:     "BOOL",
	clipperv1.DataType_DATA_TYPE_UINT8:    "UINT8",
	clipperv1.DataType_DATA_TYPE_UINT16:   "UINT16",
	clipperv1.DataType_DATA_TYPE_UINT32:   "UINT32",
	clipperv1.DataType_DATA_TYPE_UINT64:   "UINT64",
	clipperv1.DataType_DATA_TYPE_INT8:     "INT8",
	clipperv1.DataType_DATA_TYPE_INT16:    "INT16",
	clipperv1.DataType_DATA_TYPE_INT32:    "INT32",
	clipperv1.DataType_DATA_TYPE_INT64:    "INT64",
	clipperv1.DataType_DATA_TYPE_FLOAT16:  "FP16",
	clipperv1.DataType_DATA_TYPE_BFLOAT16: "BF16",
	clipperv1.DataType_DATA_TYPE_FLOAT32:  "FP32",
	clipperv1.DataType_DATA_TYPE_FLOAT64:  "FP64",
	clipperv1.DataType_DATA_TYPE_STRING:   "BYTES",
	clipperv1.DataType_DATA_TYPE_BYTES:    "BYTES",
}

// TypeName returns the protocol's name of a type; empty for DATA_TYPE_UNSPECIFIED.
func TypeName(t clipperv1.DataType) string {
	if int(t) < 0 || int(t) >= len(names) {
		return ""
	}
	return names[t]
}

// ParseType is the inverse of TypeName. BYTES is DATA_TYPE_BYTES: the protocol does not tell text from
// bytes. The names are case-sensitive.
func ParseType(name string) (clipperv1.DataType, bool) {
	if name == "BYTES" {
		return clipperv1.DataType_DATA_TYPE_BYTES, true
	}
	for t, n := range names {
		if n == name && n != "" {
			return clipperv1.DataType(t), true
		}
	}
	return clipperv1.DataType_DATA_TYPE_UNSPECIFIED, false
}

// ConfigType returns a type as configurations have it; TYPE_INVALID for DATA_TYPE_UNSPECIFIED.
func ConfigType(t clipperv1.DataType) inference.DataType {
	name := TypeName(t)
	if name == "BYTES" {
		name = "STRING"
	}
	return inference.DataType(inference.DataType_value["TYPE_"+name])
}
