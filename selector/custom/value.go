// SPDX-License-Identifier: Apache-2.0

package custom

import (
	"strconv"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/clipper-serving/clipper/selector/policy"
)

// exactInteger is up to where every integer is a float64.
const exactInteger = 1 << 53

// toProto is a prediction as a policy gets it, in the form that [output.Spec.Output] reads; nil when it is
// missing. An integer beyond 2^53 is a string.
func toProto(v policy.Value) *structpb.Value {
	if i, ok := v.Integer(); ok {
		if i > exactInteger || i < -exactInteger {
			return structpb.NewStringValue(strconv.FormatInt(i, 10))
		}
		return structpb.NewNumberValue(float64(i))
	}
	if s, ok := v.Text(); ok {
		return structpb.NewStringValue(s)
	}
	if x, ok := v.Real(); ok {
		return structpb.NewNumberValue(x)
	}
	xs, ok := v.Vector()
	if !ok {
		return nil
	}
	list := &structpb.ListValue{Values: make([]*structpb.Value, len(xs))}
	for i, x := range xs {
		list.Values[i] = structpb.NewNumberValue(x)
	}
	return structpb.NewListValue(list)
}
