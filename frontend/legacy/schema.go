// SPDX-License-Identifier: Apache-2.0

package legacy

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// body is a request's JSON. Its methods read a member in the original's way: the first failure, with the
// original's text, is kept and what follows returns zero values.
type body struct {
	root value
	err  error
}

func (b *body) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf(format, args...)
	}
}

// member returns a member that must be there.
func (b *body) member(key string) (value, bool) {
	v, ok := b.root.get(key)
	if !ok {
		b.fail("JSON object does not have required key: %s", key)
	}
	return v, ok && b.err == nil
}

// typed returns a member that must be of a kind.
func (b *body) typed(key string, want kind) (value, bool) {
	v, ok := b.member(key)
	if ok && v.kind != want {
		b.fail("Type mismatch! JSON key %s expected type %sbut found type %s", key, want, v.kind)
		return value{}, false
	}
	return v, ok
}

func (b *body) string(key string) string {
	v, _ := b.typed(key, kindString)
	return v.text
}

func (b *body) int(key string) int64 {
	v, ok := b.member(key)
	if ok && !isInt(v) {
		b.fail("Input of type %s is not of type int", v.kind)
	}
	return int64(v.number)
}

func (b *body) double(key string) float64 {
	v, ok := b.member(key)
	if ok && !isDouble(v) {
		b.fail("Input of type %s is not of type double", v.kind)
	}
	return v.number
}

func (b *body) bool(key string) bool {
	v, ok := b.member(key)
	if ok && v.kind != kindTrue && v.kind != kindFalse {
		b.fail("Input of type %s is not of type bool", v.kind)
	}
	return v.kind == kindTrue
}

func (b *body) strings(key string) []string {
	v, _ := b.typed(key, kindArray)
	list := make([]string, 0, len(v.items()))
	for _, item := range v.items() {
		if item.value.kind != kindString {
			b.notOf(item.value, "string")
		}
		list = append(list, item.value.text)
	}
	return list
}

func (b *body) notOf(item value, want string) {
	b.fail("Array input of type %s is not of type %s", item.kind, want)
}

// isInt reports whether a number fits an int of the original, which has 32 bits.
func isInt(v value) bool {
	return v.kind == kindNumber && v.whole && v.number >= math.MinInt32 && v.number <= math.MaxInt32
}

func isDouble(v value) bool { return v.kind == kindNumber && !v.whole }

func isFloat(v value) bool { return isDouble(v) && math.Abs(v.number) <= math.MaxFloat32 }

// inputType is a type of the original's inputs, by its canonical name.
type inputType string

const (
	typeBytes    inputType = "bytes"
	typeIntegers inputType = "integers"
	typeFloats   inputType = "floats"
	typeDoubles  inputType = "doubles"
	typeStrings  inputType = "strings"
)

// inputTypes are the canonical names by every name that is accepted.
var inputTypes = map[string]inputType{
	"bytes": typeBytes, "byte": typeBytes, "b": typeBytes,
	"integers": typeIntegers, "ints": typeIntegers, "integer": typeIntegers, "int": typeIntegers, "i": typeIntegers,
	"floats": typeFloats, "float": typeFloats, "f": typeFloats,
	"doubles": typeDoubles, "double": typeDoubles, "d": typeDoubles,
	"strings": typeStrings, "string": typeStrings, "str": typeStrings, "strs": typeStrings, "s": typeStrings,
}

// input is what an application of the type takes, in our words.
func (t inputType) input() *clipperv1.TensorSpec {
	list := []int64{-1}
	switch t {
	case typeIntegers:
		return &clipperv1.TensorSpec{DataType: clipperv1.DataType_DATA_TYPE_INT32, Shape: list}
	case typeFloats:
		return &clipperv1.TensorSpec{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: list}
	case typeDoubles:
		return &clipperv1.TensorSpec{DataType: clipperv1.DataType_DATA_TYPE_FLOAT64, Shape: list}
	case typeStrings:
		return &clipperv1.TensorSpec{DataType: clipperv1.DataType_DATA_TYPE_STRING}
	}
	return &clipperv1.TensorSpec{DataType: clipperv1.DataType_DATA_TYPE_BYTES}
}

// typeOf returns the type of what takes the inputs; "" when it takes anything, or what the original has no
// word for.
func typeOf(inputs []*clipperv1.TensorSpec) inputType {
	if len(inputs) != 1 {
		return ""
	}
	for _, t := range []inputType{typeBytes, typeIntegers, typeFloats, typeDoubles, typeStrings} {
		if inputs[0].GetDataType() == t.input().GetDataType() {
			return t
		}
	}
	return ""
}

// questions reads the inputs of a query: the member "input", or else "input_batch".
func (b *body) questions(t inputType) []*clipperv1.Tensor {
	if v, ok := b.root.get("input"); ok {
		return []*clipperv1.Tensor{b.question("input", v, t)}
	}
	if _, ok := b.root.get("input_batch"); !ok {
		b.fail("JSON object does not have required keys input or input_batch")
		return nil
	}
	batch, _ := b.typed("input_batch", kindArray)
	list := make([]*clipperv1.Tensor, 0, len(batch.items()))
	for _, part := range batch.items() {
		item := part.value
		switch wantsText := t == typeStrings || t == typeBytes; {
		case wantsText && item.kind != kindString:
			b.notOf(item, "string")
		case !wantsText && item.kind != kindArray:
			b.notOf(item, "array")
		}
		list = append(list, b.question("input_batch", item, t))
	}
	return list
}

// question reads one input, which is what the key holds or an item of it.
func (b *body) question(key string, v value, t inputType) *clipperv1.Tensor {
	if b.err != nil {
		return nil
	}
	want := kindArray
	if t == typeStrings || t == typeBytes {
		want = kindString
	}
	if v.kind != want {
		b.fail("Type mismatch! JSON key %s expected type %sbut found type %s", key, want, v.kind)
		return nil
	}
	tensor := &clipperv1.Tensor{DataType: t.input().GetDataType()}
	switch t {
	case typeStrings:
		tensor.Strings = []string{v.text}
		return tensor
	case typeBytes:
		data, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(v.text, "="))
		if err != nil {
			b.fail("Input of JSON key %s is not base64", key)
		}
		tensor.ByteStrings = [][]byte{data}
		return tensor
	}
	tensor.Shape = []int64{int64(len(v.items()))}
	for _, part := range v.items() {
		item := part.value
		switch t {
		case typeIntegers:
			if !isInt(item) {
				b.notOf(item, "int")
			}
			tensor.Data = binary.LittleEndian.AppendUint32(tensor.Data, uint32(int32(item.number)))
		case typeFloats:
			if !isFloat(item) {
				b.notOf(item, "float")
			}
			tensor.Data = binary.LittleEndian.AppendUint32(tensor.Data, math.Float32bits(float32(item.number)))
		default:
			if !isDouble(item) {
				b.notOf(item, "double")
			}
			tensor.Data = binary.LittleEndian.AppendUint64(tensor.Data, math.Float64bits(item.number))
		}
	}
	return tensor
}

// The schemas that errors show, as the original spelled them.
const (
	querySchema = `
  {
   "input" := [double] | [int] | [string] | [byte] | [float],
  }
`
	updateSchema = `
  {
   "uid" := string,
   "input" := [double] | [int] | [string] | [byte] | [float],
   "label" := double
  }
`
	addApplicationSchema = `
  {
   "name" := string,
   "input_type" := "integers" | "bytes" | "floats" | "doubles" | "strings",
   "default_output" := string,
   "latency_slo_micros" := int
  }
`
	nameSchema = `
  {
   "name" := string
  }
`
	verboseSchema = `
  {
   "verbose" := bool
  }
`
	addModelSchema = `
  {
   "model_name" := string,
   "model_version" := string,
   "labels" := [string],
   "input_type" := "integers" | "bytes" | "floats" | "doubles" | "strings",
   "container_name" := string,
   "model_data_path" := string
  }
`
	versionSchema = `
  {
   "model_name" := string,
   "model_version" := string
  }
`
	linksSchema = `
  {
   "app_name" := string,
   "model_names" := [string]
  }
`
	applicationSchema = `
  {
   "app_name" := string
  }
`
	containerSchema = `
  {
   "model_name" := string,
   "model_version" := string,
   "replica_id" := int
  }
`
	stateSchema = `
  {
   "app_name" := string,
   "uid" := int
  }
`
)

// schemaError is the text of a body that cannot be used.
func schemaError(err error, schema string) string {
	return "Error parsing JSON: " + err.Error() + ". Expected JSON schema: " + schema
}
