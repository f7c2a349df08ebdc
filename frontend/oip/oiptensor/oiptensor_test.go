// SPDX-License-Identifier: Apache-2.0

package oiptensor_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/clipper-serving/clipper/frontend/oip/oiptensor"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/gen/go/inference"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/tensor"
)

func request(datatype string, shape []int64, contents *inference.InferTensorContents, raw ...[]byte) *inference.ModelInferRequest {
	return &inference.ModelInferRequest{
		Inputs:           []*inference.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: datatype, Shape: shape, Contents: contents}},
		RawInputContents: raw,
	}
}

func TestTypes_areThoseOfTheProtocol(t *testing.T) {
	for _, name := range []string{"BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64", "BYTES"} {
		dt, ok := oiptensor.ParseType(name)
		require.True(t, ok, name)
		require.Equal(t, name, oiptensor.TypeName(dt))
		require.NotEqual(t, inference.DataType_TYPE_INVALID, oiptensor.ConfigType(dt), name)
	}
	require.Equal(t, "BYTES", oiptensor.TypeName(clipperv1.DataType_DATA_TYPE_STRING))
	for _, name := range []string{"", "fp32", "STRING", "FLOAT32"} {
		_, ok := oiptensor.ParseType(name)
		require.False(t, ok, name)
	}
	require.Equal(t, inference.DataType_TYPE_STRING, oiptensor.ConfigType(clipperv1.DataType_DATA_TYPE_STRING))
	require.Equal(t, inference.DataType_TYPE_INVALID, oiptensor.ConfigType(clipperv1.DataType_DATA_TYPE_UNSPECIFIED))
}

// Typed contents and their raw form are the same tensor, and go back to what they were.
func TestDecode_typedIsRaw(t *testing.T) {
	for name, tc := range map[string]struct {
		contents *inference.InferTensorContents
		raw      []byte
	}{
		"BOOL":   {&inference.InferTensorContents{BoolContents: []bool{true, false}}, []byte{1, 0}},
		"INT8":   {&inference.InferTensorContents{IntContents: []int32{-128, 127}}, []byte{0x80, 0x7f}},
		"INT16":  {&inference.InferTensorContents{IntContents: []int32{-2, 258}}, []byte{0xfe, 0xff, 2, 1}},
		"INT32":  {&inference.InferTensorContents{IntContents: []int32{math.MinInt32, 1}}, []byte{0, 0, 0, 0x80, 1, 0, 0, 0}},
		"INT64":  {&inference.InferTensorContents{Int64Contents: []int64{-1, 2}}, binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, math.MaxUint64), 2)},
		"UINT8":  {&inference.InferTensorContents{UintContents: []uint32{255, 1}}, []byte{255, 1}},
		"UINT16": {&inference.InferTensorContents{UintContents: []uint32{65535, 1}}, []byte{255, 255, 1, 0}},
		"UINT32": {&inference.InferTensorContents{UintContents: []uint32{math.MaxUint32, 1}}, []byte{255, 255, 255, 255, 1, 0, 0, 0}},
		"UINT64": {&inference.InferTensorContents{Uint64Contents: []uint64{math.MaxUint64, 2}}, binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, math.MaxUint64), 2)},
		"FP32":   {&inference.InferTensorContents{Fp32Contents: []float32{1, -2}}, []byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0}},
		"FP64":   {&inference.InferTensorContents{Fp64Contents: []float64{1, 0}}, binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, math.Float64bits(1)), 0)},
		"BYTES":  {&inference.InferTensorContents{BytesContents: [][]byte{[]byte("ab"), {}}}, []byte{2, 0, 0, 0, 'a', 'b', 0, 0, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			typed, err := oiptensor.Decode(request(name, []int64{2}, tc.contents))
			require.NoError(t, err)
			raw, err := oiptensor.Decode(request(name, []int64{2}, nil, tc.raw))
			require.NoError(t, err)
			require.True(t, proto.Equal(typed[0], raw[0]), "%v %v", typed[0], raw[0])
			require.NoError(t, tensor.Check(raw[0]))
			require.Equal(t, tc.raw, oiptensor.Raw(raw[0]))
			require.True(t, proto.Equal(tc.contents, oiptensor.Contents(raw[0])))
		})
	}
}

func TestDecode_rawSharesTheMemoryOfTheRequest(t *testing.T) {
	raw := []byte{1, 2}
	tensors, err := oiptensor.Decode(request("UINT8", []int64{2}, nil, raw))
	require.NoError(t, err)
	require.Same(t, &raw[0], &tensors[0].Data[0])
	require.Same(t, &raw[0], &oiptensor.Split(tensors[0], nil)[0].Data[0])
}

func TestDecode_halfPrecisionIsRawOnly(t *testing.T) {
	for _, name := range []string{"FP16", "BF16"} {
		tensors, err := oiptensor.Decode(request(name, []int64{1}, nil, []byte{0, 0x3c}))
		require.NoError(t, err)
		require.False(t, oiptensor.HasContents(tensors[0].DataType))
		require.Nil(t, oiptensor.Contents(tensors[0]))
		_, err = oiptensor.Decode(request(name, []int64{1}, &inference.InferTensorContents{Fp32Contents: []float32{1}}))
		require.ErrorContains(t, err, "raw_input_contents")
	}
}

func TestDecode_bad(t *testing.T) {
	fp32 := &inference.InferTensorContents{Fp32Contents: []float32{1}}
	sharedMemory := request("FP32", []int64{1}, nil)
	sharedMemory.Inputs[0].Parameters = map[string]*inference.InferParameter{"shared_memory_region": {}}
	for name, tc := range map[string]struct {
		request *inference.ModelInferRequest
		field   string
		says    string
	}{
		"no inputs":           {&inference.ModelInferRequest{}, "inputs", "no inputs"},
		"both":                {request("FP32", []int64{1}, fp32, []byte{0, 0, 0, 0}), "inputs[0].contents", "exclude each other"},
		"too many raw":        {request("FP32", []int64{1}, nil, []byte{0, 0, 0, 0}, nil), "raw_input_contents", "has 2 items"},
		"type":                {request("float", []int64{1}, fp32), "inputs[0].datatype", "expected BOOL"},
		"negative dimension":  {request("FP32", []int64{-1}, fp32), "inputs[0].shape", "less than 0"},
		"dimensions overflow": {request("FP32", []int64{1 << 40, 1 << 40}, fp32), "inputs[0].shape", "fewer elements"},
		"too many dimensions": {request("FP32", make([]int64, 65), fp32), "inputs[0].shape", "64 dimensions"},
		"nothing":             {request("FP32", []int64{1}, nil), "inputs[0].contents", "has 0 elements"},
		"wrong field":         {request("FP64", []int64{1}, fp32), "inputs[0].contents", "fp64_contents"},
		"too few":             {request("FP32", []int64{2}, fp32), "inputs[0].contents", "needs 2"},
		"too few raw":         {request("FP32", []int64{2}, nil, []byte{0, 0, 0, 0}), "raw_input_contents[0]", "needs 8"},
		"out of range":        {request("INT8", []int64{1}, &inference.InferTensorContents{IntContents: []int32{128}}), "inputs[0].contents", "range of INT8"},
		"out of range too":    {request("UINT16", []int64{1}, &inference.InferTensorContents{UintContents: []uint32{65536}}), "inputs[0].contents", "range of UINT16"},
		"cut length":          {request("BYTES", []int64{1}, nil, []byte{1, 0}), "raw_input_contents[0]", "cut off at byte 0"},
		"long length":         {request("BYTES", []int64{1}, nil, []byte{255, 255, 255, 255, 1}), "raw_input_contents[0]", "1 are left"},
		"too many elements":   {request("BYTES", []int64{1}, nil, make([]byte, 8)), "raw_input_contents[0]", "4 bytes are left"},
		"too few elements":    {request("BYTES", []int64{1 << 30}, nil, make([]byte, 8)), "raw_input_contents[0]", "has 2 elements"},
		"no contents":         {request("BOOL", []int64{1}, nil), "inputs[0].contents", "has 0 elements"},
		"shared memory":       {sharedMemory, "inputs[0].parameters", "shared memory"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := oiptensor.Decode(tc.request)
			require.ErrorContains(t, err, tc.says)
			require.Equal(t, tc.field, apierror.ToProto(err).GetField())
		})
	}
}

func TestJoin_isTheInverseOfSplit(t *testing.T) {
	for name, whole := range map[string]*clipperv1.Tensor{
		"numbers": {DataType: clipperv1.DataType_DATA_TYPE_INT16, Shape: []int64{2, 2}, Data: []byte{1, 2, 3, 4, 5, 6, 7, 8}},
		"strings": {DataType: clipperv1.DataType_DATA_TYPE_STRING, Shape: []int64{3, 1}, Strings: []string{"a", "", "c"}},
		"bytes":   {DataType: clipperv1.DataType_DATA_TYPE_BYTES, Shape: []int64{1, 2}, ByteStrings: [][]byte{{1}, {2}}},
	} {
		t.Run(name, func(t *testing.T) {
			rows := oiptensor.Split(whole, whole.Shape[1:])
			require.Len(t, rows, int(whole.Shape[0]))
			for _, row := range rows {
				require.NoError(t, tensor.Check(row))
			}
			joined, err := oiptensor.Join(rows)
			require.NoError(t, err)
			require.True(t, proto.Equal(whole, joined))
		})
	}
	_, err := oiptensor.Join([]*clipperv1.Tensor{{Shape: []int64{1}}, {Shape: []int64{2}}})
	require.ErrorContains(t, err, "row 1")
}

// FuzzDecode reads any request: what is accepted is well formed, and what is allocated is bounded by what
// came.
func FuzzDecode(f *testing.F) {
	seed := func(req *inference.ModelInferRequest) {
		b, err := proto.Marshal(req)
		require.NoError(f, err)
		f.Add(b)
	}
	seed(request("FP32", []int64{1, 2}, &inference.InferTensorContents{Fp32Contents: []float32{1, 2}}))
	seed(request("BYTES", []int64{2}, nil, []byte{1, 0, 0, 0, 'a', 0, 0, 0, 0}))
	seed(request("INT8", []int64{2, 1}, nil, []byte{1, 2}))
	seed(request("BOOL", []int64{1}, &inference.InferTensorContents{BoolContents: []bool{true}}))
	seed(request("UINT64", nil, &inference.InferTensorContents{Uint64Contents: []uint64{7}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		req := &inference.ModelInferRequest{}
		if proto.Unmarshal(b, req) != nil {
			return
		}
		tensors, err := oiptensor.Decode(req)
		if err != nil {
			require.NotEmpty(t, apierror.ToProto(err).GetField(), "%v", err)
			return
		}
		for i, x := range tensors {
			require.NoError(t, tensor.Check(x))
			if len(x.Shape) > 0 && x.Shape[0] > 0 && x.Shape[0] < 1000 {
				joined, err := oiptensor.Join(oiptensor.Split(x, x.Shape[1:]))
				require.NoError(t, err)
				require.True(t, bytes.Equal(oiptensor.Raw(x), oiptensor.Raw(joined)), "input %d", i)
			}
			if oiptensor.HasContents(x.DataType) {
				again := request(req.Inputs[i].Datatype, x.Shape, oiptensor.Contents(x))
				back, err := oiptensor.Decode(again)
				if x.DataType == clipperv1.DataType_DATA_TYPE_BOOL {
					continue // Whatever is not 0 is true.
				}
				require.NoError(t, err)
				require.True(t, bytes.Equal(oiptensor.Raw(x), oiptensor.Raw(back[0])))
			}
		}
	})
}

// FuzzSplitBytes reads any raw BYTES: the elements, written again, are the same bytes.
func FuzzSplitBytes(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 'a', 'b', 0, 0, 0, 0}, int64(2))
	f.Add([]byte{255, 255, 255, 255}, int64(1))
	f.Add([]byte{}, int64(0))
	f.Add([]byte{0, 0, 0, 0}, int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, raw []byte, n int64) {
		elements, err := oiptensor.SplitBytes(raw, max(n, 0))
		if err != nil {
			return
		}
		require.Len(t, elements, int(max(n, 0)))
		written := oiptensor.Raw(&clipperv1.Tensor{ByteStrings: elements})
		require.Len(t, written, len(raw))
		if len(raw) > 0 {
			require.Equal(t, raw, written)
		}
	})
}
