// SPDX-License-Identifier: Apache-2.0

package output_test

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
	"github.com/clipper-serving/clipper/selector/output"
	"github.com/clipper-serving/clipper/selector/policy"
)

func spec(kind policy.Kind, t clipperv1.DataType, classes ...string) *output.Spec {
	return &output.Spec{Task: policy.Task{Kind: kind, Min: 0, Max: 1}, DataType: t, Classes: classes}
}

func TestSpec_Truth(t *testing.T) {
	labels := spec(policy.Label, clipperv1.DataType_DATA_TYPE_INT64)
	small := spec(policy.Label, clipperv1.DataType_DATA_TYPE_UINT8)
	bools := spec(policy.Label, clipperv1.DataType_DATA_TYPE_BOOL)
	texts := spec(policy.Label, clipperv1.DataType_DATA_TYPE_STRING)
	numbers := spec(policy.Number, clipperv1.DataType_DATA_TYPE_FLOAT64)
	scores := spec(policy.Scores, clipperv1.DataType_DATA_TYPE_FLOAT64)
	named := spec(policy.Scores, clipperv1.DataType_DATA_TYPE_FLOAT32, "cat", "dog")
	list := func(xs ...any) *structpb.Value {
		l, err := structpb.NewList(xs)
		require.NoError(t, err)
		return structpb.NewListValue(l)
	}
	for _, test := range []struct {
		name  string
		spec  *output.Spec
		truth *structpb.Value
		want  policy.Value // missing: an error
		fault string
	}{
		{"integer", labels, structpb.NewNumberValue(7), policy.Integer(7), ""},
		{"integer as text", labels, structpb.NewStringValue("9007199254740993"), policy.Integer(9007199254740993), ""},
		{"fraction", labels, structpb.NewNumberValue(7.5), policy.Value{}, "whole"},
		{"NaN", labels, structpb.NewNumberValue(math.NaN()), policy.Value{}, "whole"},
		{"beyond 2^53", labels, structpb.NewNumberValue(1e17), policy.Value{}, "whole"},
		{"out of the type", small, structpb.NewNumberValue(256), policy.Value{}, "0 to 255"},
		{"boolean", bools, structpb.NewBoolValue(true), policy.Integer(1), ""},
		{"boolean for integer", labels, structpb.NewBoolValue(true), policy.Value{}, "not a boolean"},
		{"word for integer", labels, structpb.NewStringValue("cat"), policy.Value{}, "not a string"},
		{"text", texts, structpb.NewStringValue("cat"), policy.Text("cat"), ""},
		{"number for text", texts, structpb.NewNumberValue(1), policy.Value{}, "not a number"},
		{"number", numbers, structpb.NewNumberValue(-1.5), policy.Real(-1.5), ""},
		{"infinite", numbers, structpb.NewNumberValue(math.Inf(1)), policy.Value{}, "finite"},
		{"null", numbers, structpb.NewNullValue(), policy.Value{}, "null"},
		{"nothing", numbers, nil, policy.Value{}, "null"},
		{"class", scores, structpb.NewNumberValue(3), policy.Integer(3), ""},
		{"negative class", scores, structpb.NewNumberValue(-1), policy.Value{}, "does not exist"},
		{"class name", named, structpb.NewStringValue("dog"), policy.Integer(1), ""},
		{"unknown class name", named, structpb.NewStringValue("cow"), policy.Value{}, "does not exist"},
		{"class too large", named, structpb.NewNumberValue(2), policy.Value{}, "does not exist"},
		{"scores", named, list(0.25, 0.75), policy.Vector([]float64{0.25, 0.75}), ""},
		{"too many scores", named, list(0.25, 0.75, 0), policy.Value{}, "3 scores"},
		{"no scores", scores, list(), policy.Value{}, "0 scores"},
		{"score of another kind", scores, list(0.5, "x"), policy.Value{}, "score 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.spec.Truth(test.truth)
			if test.fault != "" {
				require.ErrorContains(t, err, test.fault)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.want, got)
		})
	}
}

// TestSpec_Tensor says that what is written is well formed and reads as it was.
func TestSpec_Tensor(t *testing.T) {
	for _, test := range []struct {
		spec  *output.Spec
		value policy.Value
	}{
		{spec(policy.Label, clipperv1.DataType_DATA_TYPE_INT64), policy.Integer(math.MinInt64)},
		{spec(policy.Label, clipperv1.DataType_DATA_TYPE_UINT64), policy.Integer(math.MaxInt64)},
		{spec(policy.Label, clipperv1.DataType_DATA_TYPE_INT8), policy.Integer(-128)},
		{spec(policy.Label, clipperv1.DataType_DATA_TYPE_BOOL), policy.Integer(1)},
		{spec(policy.Label, clipperv1.DataType_DATA_TYPE_STRING), policy.Text("cat")},
		{spec(policy.Number, clipperv1.DataType_DATA_TYPE_FLOAT64), policy.Real(math.Pi)},
		{spec(policy.Number, clipperv1.DataType_DATA_TYPE_FLOAT32), policy.Real(0.5)},
		{spec(policy.Scores, clipperv1.DataType_DATA_TYPE_FLOAT32), policy.Vector([]float64{0.25, 0.75})},
	} {
		got := test.spec.Tensor(test.value, nil)
		require.NoError(t, tensor.Check(got))
		require.Equal(t, test.spec.DataType, got.DataType)
		back, err := test.spec.Read([]*clipperv1.Tensor{got}, new([]float64))
		require.NoError(t, err)
		require.Equal(t, test.value, back)
	}
}

func TestSpec_Tensor_like(t *testing.T) {
	like := &clipperv1.Tensor{Name: "y", Shape: []int64{1, 1}}
	got := spec(policy.Label, clipperv1.DataType_DATA_TYPE_UINT8).Tensor(policy.Integer(3), like)
	want := &clipperv1.Tensor{Name: "y", DataType: clipperv1.DataType_DATA_TYPE_UINT8, Shape: []int64{1, 1}, Data: []byte{3}}
	require.Empty(t, cmp.Diff(want, got, protocmp.Transform()))
}

func TestSpec_Read(t *testing.T) {
	float := func(x float64, shape ...int64) *clipperv1.Tensor {
		return spec(policy.Number, clipperv1.DataType_DATA_TYPE_FLOAT64).Tensor(policy.Real(x), &clipperv1.Tensor{Shape: shape})
	}
	got, err := spec(policy.Label, clipperv1.DataType_DATA_TYPE_INT64).Read([]*clipperv1.Tensor{float(7, 1)}, nil)
	require.NoError(t, err)
	require.Equal(t, policy.Integer(7), got, "a label that comes as a float")

	for name, test := range map[string]struct {
		spec    *output.Spec
		outputs []*clipperv1.Tensor
		fault   string
	}{
		"none":           {spec(policy.Number, 13), nil, "no output"},
		"malformed":      {spec(policy.Number, 13), []*clipperv1.Tensor{{DataType: 13, Data: []byte{1}}}, "1 bytes"},
		"NaN":            {spec(policy.Number, 13), []*clipperv1.Tensor{float(math.NaN())}, "finite"},
		"fraction":       {spec(policy.Label, 9), []*clipperv1.Tensor{float(0.5)}, "whole"},
		"text as number": {spec(policy.Number, 13), []*clipperv1.Tensor{{DataType: 14, Strings: []string{"x"}}}, "string"},
		"several":        {spec(policy.Label, 9), []*clipperv1.Tensor{{DataType: 2, Shape: []int64{2}, Data: []byte{1, 2}}}, "2 elements"},
		"empty":          {spec(policy.Scores, 13), []*clipperv1.Tensor{{DataType: 13, Shape: []int64{0}}}, "0 scores"},
		"wrong length":   {spec(policy.Scores, 13, "a", "b", "c"), []*clipperv1.Tensor{{DataType: 2, Shape: []int64{2}, Data: []byte{1, 2}}}, "2 scores"},
		"huge":           {spec(policy.Label, 5), []*clipperv1.Tensor{{DataType: 5, Data: []byte{255, 255, 255, 255, 255, 255, 255, 255}}}, "larger"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := test.spec.Read(test.outputs, new([]float64))
			require.ErrorContains(t, err, test.fault)
		})
	}
}
