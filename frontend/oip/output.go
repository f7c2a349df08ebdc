// SPDX-License-Identifier: Apache-2.0

package oip

import (
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"

	"github.com/clipper-serving/clipper/frontend/oip/oiptensor"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/gen/go/inference"
	"github.com/clipper-serving/clipper/internal/apierror"
)

// write puts the outputs of rows into a response: those that the request wants, all when it names none.
// scalar is whether an output is one value for each row, whatever shape it came with. typed is whether
// contents are preferred to raw bytes.
func write(res *inference.ModelInferResponse, req *inference.ModelInferRequest, outputs [][]*clipperv1.Tensor, batched, scalar, typed bool) error {
	wanted, err := choose(req.GetOutputs(), outputs[0])
	if err != nil {
		return err
	}
	tensors := make([]*clipperv1.Tensor, len(wanted))
	for i, at := range wanted {
		column := make([]*clipperv1.Tensor, len(outputs))
		for r, row := range outputs {
			if len(row) != len(outputs[0]) || row[at].GetName() != outputs[0][at].GetName() {
				return notOne(fmt.Errorf("row %d has other outputs than row 0: ask for one row at a time", r))
			}
			column[r] = row[at]
			if scalar && len(column[r].GetShape()) > 0 {
				t := column[r]
				column[r] = &clipperv1.Tensor{Name: t.Name, DataType: t.DataType, Data: t.Data, Strings: t.Strings, ByteStrings: t.ByteStrings}
			}
		}
		// A scalar has a dimension for its row, since clients of the protocol know no tensor without.
		if batched || len(column[0].GetShape()) == 0 {
			tensors[i], err = oiptensor.Join(column)
			if err != nil {
				return notOne(err)
			}
		} else {
			tensors[i] = column[0]
		}
		typed = typed && oiptensor.HasContents(tensors[i].DataType)
	}
	for _, t := range tensors {
		out := &inference.ModelInferResponse_InferOutputTensor{Name: outputName(t), Datatype: oiptensor.TypeName(t.DataType), Shape: t.Shape}
		if typed {
			out.Contents = oiptensor.Contents(t)
		} else {
			res.RawOutputContents = append(res.RawOutputContents, oiptensor.Raw(t))
		}
		res.Outputs = append(res.Outputs, out)
	}
	return nil
}

// choose returns the places of the outputs that are wanted.
func choose(wanted []*inference.ModelInferRequest_InferRequestedOutputTensor, outputs []*clipperv1.Tensor) ([]int, error) {
	var places []int
	for i := range outputs {
		places = append(places, i)
	}
	if len(wanted) == 0 {
		return places, nil
	}
	places = places[:0]
	for i, w := range wanted {
		field := fmt.Sprintf("outputs[%d]", i)
		for _, unserved := range []string{"classification", "shared_memory_region"} {
			if w.GetParameters()[unserved] != nil {
				return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field+".parameters",
					"%s.parameters: %s is not served: ask for the output itself", field, unserved)
			}
		}
		at := slices.IndexFunc(outputs, func(t *clipperv1.Tensor) bool { return outputName(t) == w.GetName() })
		if at < 0 || slices.Contains(places, at) {
			names := make([]string, len(outputs))
			for i, t := range outputs {
				names[i] = outputName(t)
			}
			return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field+".name", "%s.name is %.80q: expected each of %q once at most", field, w.GetName(), names)
		}
		places = append(places, at)
	}
	return places, nil
}

func outputName(t *clipperv1.Tensor) string {
	if t.GetName() == "" {
		return unnamedOutput
	}
	return t.GetName()
}

// notOne is for rows whose outputs cannot be one tensor.
func notOne(err error) error {
	return apierror.New(codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_SIGNATURE_MISMATCH, "outputs", "the outputs of the rows differ: %v", err)
}
