// SPDX-License-Identifier: Apache-2.0

package legacy

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/clipper-serving/clipper/frontend/naturaljson"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// appendOutput appends an output, which the original has as text: as JSON if it is JSON, else as a string.
func appendOutput(b []byte, output string) []byte {
	if _, err := parse([]byte(output)); err == nil {
		compact := bytes.NewBuffer(b)
		if json.Compact(compact, []byte(output)) == nil {
			return compact.Bytes()
		}
		// Encoding/json nests less deeply.
	}
	return appendString(b, strings.ToValidUTF8(output, "\uFFFD"))
}

// outputText returns outputs as the text that a container of the original would have given.
func outputText(outputs []*clipperv1.Tensor) (string, error) {
	if len(outputs) == 1 {
		t := outputs[0]
		if n, ok := tensor.Elements(t.GetShape()); ok && n == 1 {
			switch {
			case len(t.GetStrings()) == 1:
				return t.GetStrings()[0], nil
			case len(t.GetByteStrings()) == 1:
				return string(t.GetByteStrings()[0]), nil
			}
		}
	}
	b, err := naturaljson.AppendTensors(nil, outputs)
	return string(b), err
}

// defaultNote precedes the default output of the original's in the description of an application whose
// models give what that text cannot be.
const defaultNote = "Default output as registered: "

// defaultText returns the default output as it was registered, or as JSON if it was not here.
func defaultText(a *clipperv1.Application) string {
	if noted, ok := strings.CutPrefix(a.GetDescription(), defaultNote); ok {
		return noted
	}
	if s, ok := a.GetDefaultOutput().GetKind().(*structpb.Value_StringValue); ok {
		return s.StringValue
	}
	b, err := protojson.Marshal(a.GetDefaultOutput())
	if err != nil {
		return ""
	}
	return string(b)
}

// textual makes an application one whose models give text, as the original's do.
func textual(a *clipperv1.Application, defaultOutput string) {
	a.Output = &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_LABEL, DataType: clipperv1.DataType_DATA_TYPE_STRING}
	a.DefaultOutput = structpb.NewStringValue(defaultOutput)
	a.Description = ""
}

// fit makes an application that was textual one whose outputs are what a model gives. The default output
// becomes what the text says, if that is of the kind, else zero; the text is noted.
func fit(a *clipperv1.Application, gives []*clipperv1.TensorSpec) {
	registered := defaultText(a)
	textual(a, registered)
	if len(gives) == 0 || gives[0].GetAnyShape() {
		return
	}
	var said structpb.Value
	_ = protojson.Unmarshal([]byte(registered), &said) // What is not JSON is no number either.
	number, isNumber := said.GetKind().(*structpb.Value_NumberValue)
	elements, known := tensor.Elements(gives[0].GetShape())
	scalar := known && elements == 1
	switch dt := gives[0].GetDataType(); {
	case scalar && dt >= clipperv1.DataType_DATA_TYPE_BOOL && dt <= clipperv1.DataType_DATA_TYPE_INT64:
		a.Output = &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_LABEL, DataType: dt}
		isNumber = isNumber && number.NumberValue == math.Trunc(number.NumberValue)
	case dt != clipperv1.DataType_DATA_TYPE_FLOAT32 && dt != clipperv1.DataType_DATA_TYPE_FLOAT64:
		return
	case scalar:
		// The range scales the loss of feedback, of which there is none here.
		a.Output = &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_NUMBER, DataType: dt, Range: &clipperv1.NumberRange{Min: -maxRange, Max: maxRange}}
	default:
		a.Output = &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_SCORES, DataType: dt}
	}
	a.Description = defaultNote + registered
	list, isList := said.GetKind().(*structpb.Value_ListValue)
	switch scores := a.Output.Kind == clipperv1.OutputKind_OUTPUT_KIND_SCORES; {
	case scores && isList && len(list.ListValue.GetValues()) > 0 && numbers(list.ListValue.GetValues()), !scores && isNumber:
		a.DefaultOutput = &said
	case scores:
		a.DefaultOutput = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewNumberValue(0)}})
	default:
		a.DefaultOutput = structpb.NewNumberValue(0)
	}
}

// maxRange bounds the numbers of a model whose range is not known.
const maxRange = math.MaxFloat32

func numbers(list []*structpb.Value) bool {
	for _, v := range list {
		if _, ok := v.GetKind().(*structpb.Value_NumberValue); !ok {
			return false
		}
	}
	return true
}
