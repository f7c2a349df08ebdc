// SPDX-License-Identifier: Apache-2.0

package rest

import clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"

// datatypes are the data types of the protocol. BYTES in JSON are strings.
var datatypes = [...]struct {
	name     string
	dataType clipperv1.DataType
}{
	{"FP32", clipperv1.DataType_DATA_TYPE_FLOAT32},
	{"INT64", clipperv1.DataType_DATA_TYPE_INT64},
	{"BYTES", clipperv1.DataType_DATA_TYPE_STRING},
	{"FP64", clipperv1.DataType_DATA_TYPE_FLOAT64},
	{"INT32", clipperv1.DataType_DATA_TYPE_INT32},
	{"UINT8", clipperv1.DataType_DATA_TYPE_UINT8},
	{"BOOL", clipperv1.DataType_DATA_TYPE_BOOL},
	{"FP16", clipperv1.DataType_DATA_TYPE_FLOAT16},
	{"BF16", clipperv1.DataType_DATA_TYPE_BFLOAT16},
	{"INT8", clipperv1.DataType_DATA_TYPE_INT8},
	{"INT16", clipperv1.DataType_DATA_TYPE_INT16},
	{"UINT16", clipperv1.DataType_DATA_TYPE_UINT16},
	{"UINT32", clipperv1.DataType_DATA_TYPE_UINT32},
	{"UINT64", clipperv1.DataType_DATA_TYPE_UINT64},
}

const datatypeNames = "BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, BF16, FP32, FP64, BYTES"
