// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"

	"google.golang.org/grpc/codes"

	"github.com/clipper-serving/clipper/frontend/naturaljson"
	"github.com/clipper-serving/clipper/frontend/oip/oiptensor"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/gen/go/inference"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// encode appends the JSON of an answer to b. parts are the binary tensors that follow it: contents of
// the answer, not copied.
func encode(b []byte, answer *inference.ModelInferResponse, q *request) (json []byte, parts [][]byte, err error) {
	if len(answer.GetRawOutputContents()) != len(answer.GetOutputs()) {
		return b, nil, fmt.Errorf("the answer has %d outputs and %d contents", len(answer.GetOutputs()), len(answer.GetRawOutputContents()))
	}
	b = append(b, `{"model_name":`...)
	b = naturaljson.AppendText(b, answer.GetModelName())
	if v := answer.GetModelVersion(); v != "" {
		b = append(b, `,"model_version":`...)
		b = naturaljson.AppendText(b, v)
	}
	if id := answer.GetId(); id != "" {
		b = append(b, `,"id":`...)
		b = naturaljson.AppendText(b, id)
	}
	if len(answer.GetParameters()) > 0 {
		b = append(b, `,"parameters":`...)
		b = appendParameters(b, answer.GetParameters(), -1)
	}
	b = append(b, `,"outputs":[`...)
	for i, out := range answer.GetOutputs() {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"name":`...)
		b = naturaljson.AppendText(b, out.GetName())
		b = append(b, `,"datatype":"`...)
		b = append(b, out.GetDatatype()...)
		b = append(b, `","shape":`...)
		b = appendShape(b, out.GetShape())
		raw, size := answer.RawOutputContents[i], -1
		if q.inBinary(out.GetName()) {
			size = len(raw)
			parts = append(parts, raw)
		}
		if size >= 0 || len(out.GetParameters()) > 0 {
			b = append(b, `,"parameters":`...)
			b = appendParameters(b, out.GetParameters(), size)
		}
		if size < 0 {
			b = append(b, `,"data":`...)
			if b, err = appendData(b, out, raw); err != nil {
				return b, nil, err
			}
		}
		b = append(b, '}')
	}
	return append(b, "]}"...), parts, nil
}

// appendParameters appends parameters sorted by name, and the number of bytes of a binary tensor
// unless it is below 0.
func appendParameters(b []byte, parameters map[string]*inference.InferParameter, size int) []byte {
	b = append(b, '{')
	if size >= 0 {
		b = append(b, `"binary_data_size":`...)
		b = strconv.AppendInt(b, int64(size), 10)
	}
	names := slices.AppendSeq(make([]string, 0, len(parameters)), maps.Keys(parameters))
	slices.Sort(names)
	for _, name := range names {
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = naturaljson.AppendText(b, name)
		b = append(b, ':')
		switch v := parameters[name].GetParameterChoice().(type) {
		case *inference.InferParameter_BoolParam:
			b = strconv.AppendBool(b, v.BoolParam)
		case *inference.InferParameter_Int64Param:
			b = strconv.AppendInt(b, v.Int64Param, 10)
		case *inference.InferParameter_Uint64Param:
			b = strconv.AppendUint(b, v.Uint64Param, 10)
		case *inference.InferParameter_StringParam:
			b = naturaljson.AppendText(b, v.StringParam)
		case *inference.InferParameter_DoubleParam:
			b = naturaljson.AppendNumber(b, v.DoubleParam, 64)
		default:
			b = append(b, "null"...)
		}
	}
	return append(b, '}')
}

func appendShape(b []byte, shape []int64) []byte {
	b = append(b, '[')
	for i, n := range shape {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, n, 10)
	}
	return append(b, ']')
}

// appendData appends the elements of an output as one flat list.
func appendData(b []byte, out *inference.ModelInferResponse_InferOutputTensor, raw []byte) ([]byte, error) {
	t, ok := oiptensor.ParseType(out.GetDatatype())
	if !ok {
		return b, fmt.Errorf("output %q has the data type %q", out.GetName(), out.GetDatatype())
	}
	whole := &clipperv1.Tensor{DataType: t, Shape: out.GetShape()}
	if t == clipperv1.DataType_DATA_TYPE_BYTES {
		n, _ := tensor.Elements(out.GetShape())
		elements, err := oiptensor.SplitBytes(raw, n)
		if err != nil {
			return b, fmt.Errorf("output %q: %w", out.GetName(), err)
		}
		whole.DataType = clipperv1.DataType_DATA_TYPE_STRING // In JSON, bytes are text.
		for i, e := range elements {
			if !utf8.Valid(e) {
				return b, apierror.New(codes.FailedPrecondition, invalidField, "outputs",
					"element %d of output %q is not UTF-8, which JSON cannot hold; ask for the output with the parameter binary_data", i, shorten(out.GetName()))
			}
			whole.Strings = append(whole.Strings, string(e))
		}
	} else {
		whole.Data = raw
	}
	if err := tensor.Check(whole); err != nil {
		return b, fmt.Errorf("output %q: %w", out.GetName(), err)
	}
	return naturaljson.AppendElements(b, whole), nil
}
