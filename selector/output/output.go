// SPDX-License-Identifier: Apache-2.0

// Package output reads and writes an application's kind of output: between tensors, the JSON values of
// the API, and the values that policies compare.
package output

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"

	"google.golang.org/protobuf/types/known/structpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
	"github.com/clipper-serving/clipper/selector/policy"
)

// maxScores bounds a list of scores that comes as JSON.
const maxScores = 1 << 20

// exactInteger is up to where every integer is a float64.
const exactInteger = 1 << 53

// Spec is an application's output. Immutable, safe for concurrent use. Errors of its methods have no
// prefix and are fit to be shown to a caller.
type Spec struct {
	// Task says how outputs are combined and compared.
	Task policy.Task
	// DataType is the element type: for labels a type of integers, booleans or strings, else
	// float32 or float64.
	DataType clipperv1.DataType
	// Classes are the names of the classes for scores, when they have names.
	Classes []string
}

// New returns the specification as an application declares it. All of it has been checked.
func New(o *clipperv1.OutputSpec) Spec {
	s := Spec{
		Task:     policy.Task{Min: o.GetRange().GetMin(), Max: o.GetRange().GetMax()},
		DataType: o.GetDataType(),
		Classes:  o.GetClasses(),
	}
	switch o.GetKind() {
	case clipperv1.OutputKind_OUTPUT_KIND_NUMBER:
		s.Task.Kind = policy.Number
	case clipperv1.OutputKind_OUTPUT_KIND_SCORES:
		s.Task.Kind = policy.Scores
	default:
		s.Task.Kind = policy.Label
	}
	switch o.GetLoss() {
	case clipperv1.Loss_LOSS_ZERO_ONE:
		s.Task.Measure = policy.ZeroOne
	case clipperv1.Loss_LOSS_ABSOLUTE:
		s.Task.Measure = policy.Absolute
	case clipperv1.Loss_LOSS_LOG:
		s.Task.Measure = policy.Log
	}
	return s
}

// IsInteger reports whether a type's elements are whole numbers; booleans are 0 and 1.
func IsInteger(t clipperv1.DataType) bool {
	return t >= clipperv1.DataType_DATA_TYPE_BOOL && t <= clipperv1.DataType_DATA_TYPE_INT64
}

// IsFloat reports whether a type's elements are floating-point numbers.
func IsFloat(t clipperv1.DataType) bool {
	return t >= clipperv1.DataType_DATA_TYPE_FLOAT16 && t <= clipperv1.DataType_DATA_TYPE_FLOAT64
}

// Read returns what a model's outputs say; the first tensor counts. Scores are appended to buffer,
// which the value shares.
func (s *Spec) Read(outputs []*clipperv1.Tensor, buffer *[]float64) (policy.Value, error) {
	if len(outputs) == 0 {
		return policy.Value{}, fmt.Errorf("there is no output tensor")
	}
	t := outputs[0]
	if err := tensor.Check(t); err != nil {
		return policy.Value{}, err
	}
	n, _ := tensor.Elements(t.Shape)
	if s.Task.Kind != policy.Scores && n != 1 {
		return policy.Value{}, fmt.Errorf("the output has %d elements, want one %s", n, s.want())
	}
	if s.Task.Kind == policy.Label && t.DataType == clipperv1.DataType_DATA_TYPE_STRING {
		return policy.Text(t.Strings[0]), nil
	}
	if !IsInteger(t.DataType) && !IsFloat(t.DataType) {
		return policy.Value{}, fmt.Errorf("the output is of type %s, want %s", tensor.TypeName(t.DataType), s.want())
	}
	if i := tensor.Finite(t); i >= 0 {
		return policy.Value{}, fmt.Errorf("element %d of the output is not a finite number", i)
	}
	switch s.Task.Kind {
	case policy.Label:
		return label(t)
	case policy.Number:
		return policy.Real(tensor.Float(t, 0)), nil
	}
	if len(s.Classes) > 0 && n != int64(len(s.Classes)) || n == 0 {
		return policy.Value{}, fmt.Errorf("the output has %d scores, want %s", n, s.want())
	}
	from := len(*buffer)
	for i := range int(n) {
		*buffer = append(*buffer, tensor.Float(t, i))
	}
	return policy.Vector((*buffer)[from:len(*buffer):len(*buffer)]), nil
}

// label reads a numeric tensor of one element as a label.
func label(t *clipperv1.Tensor) (policy.Value, error) {
	switch t.DataType {
	case clipperv1.DataType_DATA_TYPE_INT64:
		return policy.Integer(int64(binary.LittleEndian.Uint64(t.Data))), nil
	case clipperv1.DataType_DATA_TYPE_UINT64:
		u := binary.LittleEndian.Uint64(t.Data)
		if u > math.MaxInt64 {
			return policy.Value{}, fmt.Errorf("the label %d is larger than %d", u, int64(math.MaxInt64))
		}
		return policy.Integer(int64(u)), nil
	}
	x := tensor.Float(t, 0)
	if x != math.Trunc(x) || math.Abs(x) > exactInteger {
		return policy.Value{}, fmt.Errorf("the label %v is not a whole number", x)
	}
	return policy.Integer(int64(x)), nil
}

// want says in words what an output is.
func (s *Spec) want() string {
	switch {
	case s.Task.Kind == policy.Number:
		return "number"
	case s.Task.Kind == policy.Scores && len(s.Classes) > 0:
		return fmt.Sprintf("list of %d scores", len(s.Classes))
	case s.Task.Kind == policy.Scores:
		return "list of scores"
	case s.DataType == clipperv1.DataType_DATA_TYPE_STRING:
		return "text label"
	}
	return "whole number as label"
}

// Truth reads what a caller says was true: an output, or for scores the index or name of a class.
func (s *Spec) Truth(v *structpb.Value) (policy.Value, error) {
	if s.Task.Kind == policy.Scores {
		switch v.GetKind().(type) {
		case *structpb.Value_NumberValue:
			i, err := whole(v.GetNumberValue())
			switch {
			case err != nil:
				return policy.Value{}, err
			case i < 0 || len(s.Classes) > 0 && i >= int64(len(s.Classes)):
				return policy.Value{}, fmt.Errorf("class %d does not exist, want %s", i, s.classes())
			}
			return policy.Integer(i), nil
		case *structpb.Value_StringValue:
			i := slices.Index(s.Classes, v.GetStringValue())
			if i < 0 {
				return policy.Value{}, fmt.Errorf("class %q does not exist, want %s", v.GetStringValue(), s.classes())
			}
			return policy.Integer(int64(i)), nil
		}
	}
	return s.Output(v)
}

func (s *Spec) classes() string {
	if len(s.Classes) == 0 {
		return "the index of a class, 0 or more"
	}
	return fmt.Sprintf("an index below %d or one of the application's classes", len(s.Classes))
}

// Output reads an output that is given as a JSON value.
func (s *Spec) Output(v *structpb.Value) (policy.Value, error) {
	switch s.Task.Kind {
	case policy.Number:
		if _, ok := v.GetKind().(*structpb.Value_NumberValue); !ok {
			break
		}
		x := v.GetNumberValue()
		if !finite(x) {
			return policy.Value{}, fmt.Errorf("%v is not a finite number", x)
		}
		return policy.Real(x), nil
	case policy.Scores:
		list, ok := v.GetKind().(*structpb.Value_ListValue)
		if !ok {
			break
		}
		return s.scores(list.ListValue.GetValues())
	default:
		return s.label(v)
	}
	return policy.Value{}, fmt.Errorf("want a %s, not %s", s.want(), describe(v))
}

func (s *Spec) scores(values []*structpb.Value) (policy.Value, error) {
	if n := len(values); n == 0 || n > maxScores || len(s.Classes) > 0 && n != len(s.Classes) {
		return policy.Value{}, fmt.Errorf("there are %d scores, want a %s", n, s.want())
	}
	xs := make([]float64, len(values))
	for i, v := range values {
		if _, ok := v.GetKind().(*structpb.Value_NumberValue); !ok {
			return policy.Value{}, fmt.Errorf("score %d is %s, want a number", i, describe(v))
		}
		if xs[i] = v.GetNumberValue(); !finite(xs[i]) {
			return policy.Value{}, fmt.Errorf("score %d is %v, want a finite number", i, xs[i])
		}
	}
	return policy.Vector(xs), nil
}

func (s *Spec) label(v *structpb.Value) (policy.Value, error) {
	text := s.DataType == clipperv1.DataType_DATA_TYPE_STRING
	switch k := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		if text {
			return policy.Text(k.StringValue), nil
		}
		// An integer beyond 2^53 is exact in JSON only as a string.
		if i, err := strconv.ParseInt(k.StringValue, 10, 64); err == nil {
			return s.integer(i)
		}
	case *structpb.Value_NumberValue:
		if text {
			break
		}
		i, err := whole(k.NumberValue)
		if err != nil {
			return policy.Value{}, err
		}
		return s.integer(i)
	case *structpb.Value_BoolValue:
		if s.DataType != clipperv1.DataType_DATA_TYPE_BOOL {
			break
		}
		if k.BoolValue {
			return policy.Integer(1), nil
		}
		return policy.Integer(0), nil
	}
	return policy.Value{}, fmt.Errorf("want a %s, not %s", s.want(), describe(v))
}

// integer checks that a label fits the element type.
func (s *Spec) integer(i int64) (policy.Value, error) {
	low, high := int64(math.MinInt64), int64(math.MaxInt64)
	switch s.DataType {
	case clipperv1.DataType_DATA_TYPE_BOOL:
		low, high = 0, 1
	case clipperv1.DataType_DATA_TYPE_UINT8:
		low, high = 0, math.MaxUint8
	case clipperv1.DataType_DATA_TYPE_UINT16:
		low, high = 0, math.MaxUint16
	case clipperv1.DataType_DATA_TYPE_UINT32:
		low, high = 0, math.MaxUint32
	case clipperv1.DataType_DATA_TYPE_UINT64:
		low = 0
	case clipperv1.DataType_DATA_TYPE_INT8:
		low, high = math.MinInt8, math.MaxInt8
	case clipperv1.DataType_DATA_TYPE_INT16:
		low, high = math.MinInt16, math.MaxInt16
	case clipperv1.DataType_DATA_TYPE_INT32:
		low, high = math.MinInt32, math.MaxInt32
	}
	if i < low || i > high {
		return policy.Value{}, fmt.Errorf("the label %d is not a %s, want %d to %d", i, tensor.TypeName(s.DataType), low, high)
	}
	return policy.Integer(i), nil
}

func whole(x float64) (int64, error) {
	if x != math.Trunc(x) || !(math.Abs(x) <= exactInteger) {
		return 0, fmt.Errorf("%v is not a whole number up to 2^53", x)
	}
	return int64(x), nil
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

func describe(v *structpb.Value) string {
	switch v.GetKind().(type) {
	case *structpb.Value_NumberValue:
		return "a number"
	case *structpb.Value_StringValue:
		return "a string"
	case *structpb.Value_BoolValue:
		return "a boolean"
	case *structpb.Value_ListValue:
		return "a list"
	case *structpb.Value_StructValue:
		return "an object"
	}
	return "null"
}

// Tensor returns a value as a tensor of the application's type. like, which may be nil, gives the
// name and, if it has as many elements, the shape.
func (s *Spec) Tensor(v policy.Value, like *clipperv1.Tensor) *clipperv1.Tensor {
	t := &clipperv1.Tensor{Name: like.GetName(), DataType: s.DataType}
	n := 1
	xs, isVector := v.Vector()
	if isVector {
		n = len(xs)
		t.Shape = []int64{int64(n)}
	}
	if like != nil {
		if m, ok := tensor.Elements(like.Shape); ok && m == int64(n) {
			t.Shape = like.Shape
		}
	}
	if text, ok := v.Text(); ok {
		t.DataType, t.Strings = clipperv1.DataType_DATA_TYPE_STRING, []string{text}
		return t
	}
	if i, ok := v.Integer(); ok {
		if !IsInteger(t.DataType) {
			t.DataType = clipperv1.DataType_DATA_TYPE_INT64
		}
		// Little-endian: the low bytes are the smaller integer.
		t.Data = binary.LittleEndian.AppendUint64(nil, uint64(i))[:tensor.Size(t.DataType)]
		return t
	}
	if x, ok := v.Real(); ok {
		xs = []float64{x}
	}
	t.Data = make([]byte, 0, tensor.Size(t.DataType)*len(xs))
	for _, x := range xs {
		if t.DataType == clipperv1.DataType_DATA_TYPE_FLOAT32 {
			x = min(max(x, -math.MaxFloat32), math.MaxFloat32)
			t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(float32(x)))
		} else {
			t.Data = binary.LittleEndian.AppendUint64(t.Data, math.Float64bits(x))
		}
	}
	return t
}
