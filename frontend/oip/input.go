// SPDX-License-Identifier: Apache-2.0

package oip

import (
	"fmt"
	"slices"
	"strings"

	"github.com/clipper-serving/clipper/frontend/oip/oiptensor"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/gen/go/inference"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// maxRows is the most rows of a request: the most queries of a batch.
const maxRows = 10_000

// rows reads the inputs of a request as rows, in the order of the signature. batched is whether they
// came with a batch dimension; there is one row when they did not.
//
// A tensor has a batch dimension when it has one dimension more than the signature says. Where the
// signature does not say how many there are, the first dimension is the batch: clients of the protocol
// send it always.
func rows(req *inference.ModelInferRequest, specs []*clipperv1.TensorSpec) (rows [][]*clipperv1.Tensor, batched bool, err error) {
	tensors, err := oiptensor.Decode(req)
	if err != nil {
		return nil, false, err
	}
	places, err := match(req.GetInputs(), specs)
	if err != nil {
		return nil, false, err
	}
	for i, t := range tensors {
		var spec *clipperv1.TensorSpec
		if len(specs) > 0 {
			spec = specs[places[i]]
		}
		one, batch, err := split(i, t, req.GetInputs()[i], spec, len(tensors) == 1)
		if err != nil {
			return nil, false, err
		}
		if i == 0 {
			batched = batch
			rows = make([][]*clipperv1.Tensor, len(one))
			for r := range rows {
				rows[r] = make([]*clipperv1.Tensor, len(tensors))
			}
		}
		if batch != batched || len(one) != len(rows) {
			return nil, false, shapeError(i, "inputs[%d].shape is %v, inputs[0].shape is %v: expected all inputs to have the same batch dimension, or none",
				i, t.Shape, tensors[0].Shape)
		}
		for r := range rows {
			rows[r][places[i]] = one[r]
		}
	}
	return rows, batched, nil
}

// match returns for each input its place in the signature.
func match(inputs []*inference.ModelInferRequest_InferInputTensor, specs []*clipperv1.TensorSpec) ([]int, error) {
	places := make([]int, len(inputs))
	if len(specs) == 0 {
		for i := range places {
			places[i] = i
		}
		return places, nil
	}
	names := make([]string, len(specs))
	for i, s := range specs {
		names[i] = fmt.Sprintf("%q", s.GetName())
	}
	expected := strings.Join(names, ", ")
	if len(inputs) != len(specs) {
		return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE, "inputs", "inputs has %d tensors, expected %d: %s", len(inputs), len(specs), expected)
	}
	if len(specs) == 1 && specs[0].GetName() == "" {
		return places, nil // Whatever the client calls it.
	}
	seen := make([]bool, len(specs))
	for i, in := range inputs {
		at := slices.IndexFunc(specs, func(s *clipperv1.TensorSpec) bool { return s.GetName() == in.GetName() })
		field := fmt.Sprintf("inputs[%d].name", i)
		if at < 0 || seen[at] {
			return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field, "%s is %.80q: expected each of %s once", field, in.GetName(), expected)
		}
		seen[at], places[i] = true, at
	}
	return places, nil
}

// split returns the rows of one input.
func split(i int, t *clipperv1.Tensor, in *inference.ModelInferRequest_InferInputTensor, spec *clipperv1.TensorSpec, only bool) (rows []*clipperv1.Tensor, batched bool, err error) {
	if t.DataType == clipperv1.DataType_DATA_TYPE_BYTES && isText(in, spec) {
		t = oiptensor.Text(t)
	}
	switch {
	case spec != nil:
		t.Name = spec.GetName()
	case only:
		t.Name = ""
	}
	if want := spec.GetDataType(); want != clipperv1.DataType_DATA_TYPE_UNSPECIFIED && t.DataType != want {
		field := fmt.Sprintf("inputs[%d].datatype", i)
		return nil, false, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INPUT_TYPE, field, "%s is %s, expected %s", field, in.GetDatatype(), oiptensor.TypeName(want))
	}
	rank := len(t.Shape)
	shape := t.Shape
	switch {
	case spec == nil || spec.GetAnyShape():
		if batched = rank > 0; batched {
			shape = t.Shape[1:]
		}
	case rank == len(spec.GetShape())+1:
		batched, shape = true, t.Shape[1:]
	case rank == 2 && len(spec.GetShape()) == 0 && t.Shape[1] == 1:
		// Triton has no scalars: its clients send [rows, 1].
		batched, shape = true, nil
	}
	if spec != nil && !tensor.FitsShape(shape, spec) {
		return nil, false, shapeError(i, "inputs[%d].shape is %v, expected %v with a batch dimension, or %v without (-1 is any length)",
			i, t.Shape, batchShape(spec), spec.GetShape())
	}
	if !batched {
		return []*clipperv1.Tensor{t}, false, nil
	}
	switch n := t.Shape[0]; {
	case n == 0:
		return nil, false, shapeError(i, "inputs[%d].shape is %v, which has no rows", i, t.Shape)
	case n > maxRows:
		return nil, false, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_TOO_LARGE, fmt.Sprintf("inputs[%d].shape", i),
			"inputs[%d].shape is %v: a request has at most %d rows", i, t.Shape, maxRows)
	}
	return oiptensor.Split(t, shape), true, nil
}

// isText reports whether BYTES are meant as text: the signature says so or, where it is silent, the
// tensor's parameter content_type, as MLServer has it.
func isText(in *inference.ModelInferRequest_InferInputTensor, spec *clipperv1.TensorSpec) bool {
	if spec.GetDataType() != clipperv1.DataType_DATA_TYPE_UNSPECIFIED {
		return spec.GetDataType() == clipperv1.DataType_DATA_TYPE_STRING
	}
	return in.GetParameters()["content_type"].GetStringParam() == "str"
}

func shapeError(i int, format string, args ...any) error {
	return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE, fmt.Sprintf("inputs[%d].shape", i), format, args...)
}

// batchShape is the shape of a tensor with its batch dimension, as metadata has it.
func batchShape(spec *clipperv1.TensorSpec) []int64 {
	if spec.GetAnyShape() {
		return []int64{-1, -1}
	}
	return append([]int64{-1}, spec.GetShape()...)
}
