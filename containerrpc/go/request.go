// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"

	"google.golang.org/grpc/codes"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// requestError is what is wrong with a request.
type requestError struct {
	reason  clipperv1.ErrorReason
	message string
}

func (e *requestError) Error() string { return e.message }

func (e *requestError) toProto() *clipperv1.Error {
	return &clipperv1.Error{Code: uint32(codes.InvalidArgument), Message: e.message, Reason: e.reason}
}

func invalid(format string, args ...any) *requestError {
	return &requestError{clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, fmt.Sprintf(format, args...)}
}

// checkRequest reports how a request breaks the contract or the signature; nil when it does not.
func checkRequest(req *clipperv1.PredictRequest, d *clipperv1.DescribeResponse) *requestError {
	if req.Rows == 0 {
		return invalid("the batch has no rows")
	}
	if d.MaxBatchRows > 0 && req.Rows > d.MaxBatchRows {
		return &requestError{clipperv1.ErrorReason_ERROR_REASON_TOO_LARGE, fmt.Sprintf("the batch has %d rows, this container takes %d", req.Rows, d.MaxBatchRows)}
	}
	specs := d.GetSignature().GetInputs()
	if len(specs) > 0 && len(req.Inputs) != len(specs) {
		return invalid("the batch has %d inputs, the model takes %d", len(req.Inputs), len(specs))
	}
	for i, t := range req.Inputs {
		spec := &clipperv1.TensorSpec{Name: t.Name, AnyShape: true}
		if len(specs) > 0 {
			spec = specs[i]
		}
		if err := checkTensor(t, int(req.Rows), spec, len(specs) > 1); err != nil {
			return invalid("input %d (%q): %v", i, t.Name, err)
		}
	}
	return nil
}

func checkTensor(t *clipperv1.BatchTensor, rows int, spec *clipperv1.TensorSpec, named bool) error {
	if named && t.Name != spec.Name {
		return fmt.Errorf("the model names it %q", spec.Name)
	}
	if spec.DataType != clipperv1.DataType_DATA_TYPE_UNSPECIFIED && t.DataType != spec.DataType {
		return fmt.Errorf("it has type %s, the model takes %s", tensor.TypeName(t.DataType), tensor.TypeName(spec.DataType))
	}
	have := len(t.Data)
	size := tensor.Size(t.DataType)
	switch {
	case t.DataType == clipperv1.DataType_DATA_TYPE_STRING:
		have, size = len(t.Strings), 1
	case t.DataType == clipperv1.DataType_DATA_TYPE_BYTES:
		have, size = len(t.ByteStrings), 1
	case size == 0:
		return fmt.Errorf("data_type %d is not known", int32(t.DataType))
	}
	if len(t.RowShapes) > 0 && len(t.RowShapes) != rows {
		return fmt.Errorf("row_shapes has %d entries, the batch %d rows", len(t.RowShapes), rows)
	}
	shapes, each := t.RowShapes, 1
	if len(shapes) == 0 {
		shapes, each = []*clipperv1.Shape{{Dims: t.Shape}}, rows
	}
	total := 0
	for _, s := range shapes {
		n, ok := tensor.Elements(s.GetDims())
		if !ok {
			return fmt.Errorf("shape %v is not allowed", s.GetDims())
		}
		if !tensor.FitsShape(s.GetDims(), spec) {
			return fmt.Errorf("it has shape %v, the model takes %v (-1: any length)", s.GetDims(), spec.Shape)
		}
		total += each * int(n) * size
	}
	if total != have {
		return fmt.Errorf("it has %d bytes or strings, %d rows of its shape have %d", have, rows, total)
	}
	return nil
}
