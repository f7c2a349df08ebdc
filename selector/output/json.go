// SPDX-License-Identifier: Apache-2.0

package output

import (
	"strconv"

	"google.golang.org/protobuf/types/known/structpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/selector/policy"
)

// JSON returns a value in the form of the API: a label, a number, a list of scores, or, when only that is
// known of scores, the index of the class of the largest. It returns nil for a missing one.
func (s *Spec) JSON(v policy.Value) *structpb.Value {
	if i, ok := v.Integer(); ok {
		switch {
		case s.DataType == clipperv1.DataType_DATA_TYPE_BOOL && s.Task.Kind == policy.Label:
			return structpb.NewBoolValue(i != 0)
		case i < -exactInteger || i > exactInteger:
			return structpb.NewStringValue(strconv.FormatInt(i, 10))
		}
		return structpb.NewNumberValue(float64(i))
	}
	if text, ok := v.Text(); ok {
		return structpb.NewStringValue(text)
	}
	if x, ok := v.Real(); ok {
		return structpb.NewNumberValue(x)
	}
	if xs, ok := v.Vector(); ok {
		list := &structpb.ListValue{Values: make([]*structpb.Value, len(xs))}
		for i, x := range xs {
			list.Values[i] = structpb.NewNumberValue(x)
		}
		return structpb.NewListValue(list)
	}
	if i, ok := v.TopClass(); ok {
		return structpb.NewNumberValue(float64(i))
	}
	return nil
}

// Prediction reads what JSON returned; nil is a missing value.
func (s *Spec) Prediction(v *structpb.Value) (policy.Value, error) {
	if v == nil {
		return policy.Value{}, nil
	}
	if s.Task.Kind == policy.Scores {
		if _, ok := v.GetKind().(*structpb.Value_NumberValue); ok {
			truth, err := s.Truth(v)
			class, _ := truth.Integer()
			if err != nil {
				return policy.Value{}, err
			}
			return policy.TopClass(int(class)), nil
		}
	}
	return s.Output(v)
}
