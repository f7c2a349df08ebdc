// SPDX-License-Identifier: Apache-2.0

package naturaljson_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"github.com/clipper-serving/clipper/frontend/naturaljson"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

const (
	boolean  = clipperv1.DataType_DATA_TYPE_BOOL
	uint8s   = clipperv1.DataType_DATA_TYPE_UINT8
	uint64s  = clipperv1.DataType_DATA_TYPE_UINT64
	int8s    = clipperv1.DataType_DATA_TYPE_INT8
	int32s   = clipperv1.DataType_DATA_TYPE_INT32
	int64s   = clipperv1.DataType_DATA_TYPE_INT64
	float16  = clipperv1.DataType_DATA_TYPE_FLOAT16
	bfloat16 = clipperv1.DataType_DATA_TYPE_BFLOAT16
	float32s = clipperv1.DataType_DATA_TYPE_FLOAT32
	float64s = clipperv1.DataType_DATA_TYPE_FLOAT64
	text     = clipperv1.DataType_DATA_TYPE_STRING
	blob     = clipperv1.DataType_DATA_TYPE_BYTES
	anyType  = clipperv1.DataType_DATA_TYPE_UNSPECIFIED
)

func spec(name string, t clipperv1.DataType, shape ...int64) *clipperv1.TensorSpec {
	return &clipperv1.TensorSpec{Name: name, DataType: t, Shape: shape}
}

func anyShape(t clipperv1.DataType) *clipperv1.TensorSpec {
	return &clipperv1.TensorSpec{DataType: t, AnyShape: true}
}

func specs(s ...*clipperv1.TensorSpec) []*clipperv1.TensorSpec { return s }

// numbers returns a tensor of a numeric type.
func numbers(name string, t clipperv1.DataType, shape []int64, values ...float64) *clipperv1.Tensor {
	var b []byte
	le := binary.LittleEndian
	for _, v := range values {
		switch t {
		case boolean, uint8s:
			b = append(b, byte(v))
		case int8s:
			b = append(b, byte(int8(v)))
		case int32s:
			b = le.AppendUint32(b, uint32(int32(v)))
		case int64s:
			b = le.AppendUint64(b, uint64(int64(v)))
		case uint64s:
			b = le.AppendUint64(b, uint64(v))
		case float32s:
			b = le.AppendUint32(b, math.Float32bits(float32(v)))
		case float64s:
			b = le.AppendUint64(b, math.Float64bits(v))
		}
	}
	return &clipperv1.Tensor{Name: name, DataType: t, Shape: shape, Data: b}
}

func TestDecode(t *testing.T) {
	texts := func(shape []int64, s ...string) *clipperv1.Tensor {
		return &clipperv1.Tensor{DataType: text, Shape: shape, Strings: s}
	}
	tests := []struct {
		name  string
		text  string
		specs []*clipperv1.TensorSpec
		want  []*clipperv1.Tensor
	}{
		{"list", `[0.1, 0.2]`, specs(spec("", float64s, 2)), []*clipperv1.Tensor{numbers("", float64s, []int64{2}, .1, .2)}},
		{"scalar", ` 7 `, specs(spec("", int32s)), []*clipperv1.Tensor{numbers("", int32s, nil, 7)}},
		{"nested", "[[1,2],[3,4],[5,6]]", specs(spec("", float32s, -1, 2)), []*clipperv1.Tensor{numbers("", float32s, []int64{3, 2}, 1, 2, 3, 4, 5, 6)}},
		{"any shape", "[[1],[2]]", specs(anyShape(uint8s)), []*clipperv1.Tensor{numbers("", uint8s, []int64{2, 1}, 1, 2)}},
		{"integers as floats", "[1.0, 20e-1, 3E0, -0, 400e-2, 5.00]", specs(spec("", int64s, 6)), []*clipperv1.Tensor{numbers("", int64s, []int64{6}, 1, 2, 3, 0, 4, 5)}},
		{"limits", "[-128, 127]", specs(spec("", int8s, 2)), []*clipperv1.Tensor{numbers("", int8s, []int64{2}, -128, 127)}},
		{"booleans", "[true,false]", specs(spec("", boolean, 2)), []*clipperv1.Tensor{numbers("", boolean, []int64{2}, 1, 0)}},
		{"string", `"a\n\u00e9\ud83d\ude00ß"`, specs(spec("", text)), []*clipperv1.Tensor{texts(nil, "a\né😀ß")}},
		{"strings", `["a",""]`, specs(spec("", text, -1)), []*clipperv1.Tensor{texts([]int64{2}, "a", "")}},
		{"bytes", `{"b64":"AAE="}`, specs(spec("", blob)), []*clipperv1.Tensor{{DataType: blob, ByteStrings: [][]byte{{0, 1}}}}},
		{"a list of bytes", `[ { "b64" : "AAE=" } , {"b64":""}]`, specs(spec("", blob, 2)), []*clipperv1.Tensor{{DataType: blob, Shape: []int64{2}, ByteStrings: [][]byte{{0, 1}, {}}}}},
		{"one named, bare", "[1]", specs(spec("x", float64s, 1)), []*clipperv1.Tensor{numbers("x", float64s, []int64{1}, 1)}},
		{"one named, by name", `{"x":[1]}`, specs(spec("x", float64s, 1)), []*clipperv1.Tensor{numbers("x", float64s, []int64{1}, 1)}},
		{"one named, bytes", `{"b64":"AA=="}`, specs(spec("x", blob)), []*clipperv1.Tensor{{Name: "x", DataType: blob, ByteStrings: [][]byte{{0}}}}},
		{"one named b64", `{"b64":[3]}`, specs(spec("b64", float64s, 1)), []*clipperv1.Tensor{numbers("b64", float64s, []int64{1}, 3)}},
		{"several", `{"b":[2],"a":1}`, specs(spec("a", float64s), spec("b", int32s, 1)), []*clipperv1.Tensor{numbers("a", float64s, nil, 1), numbers("b", int32s, []int64{1}, 2)}},
		{"no signature, numbers", "[1,2.5]", nil, []*clipperv1.Tensor{numbers("", float64s, []int64{2}, 1, 2.5)}},
		{"no signature, text", `"x"`, nil, []*clipperv1.Tensor{texts(nil, "x")}},
		{"no signature, boolean", `[[true]]`, nil, []*clipperv1.Tensor{numbers("", boolean, []int64{1, 1}, 1)}},
		{"no signature, bytes", `{"b64":""}`, nil, []*clipperv1.Tensor{{DataType: blob, ByteStrings: [][]byte{{}}}}},
		{"no signature, named", `{"z":1,"a":[2]}`, nil, []*clipperv1.Tensor{numbers("a", float64s, []int64{1}, 2), numbers("z", float64s, nil, 1)}},
		{"any type", `[3]`, specs(spec("", anyType, 1)), []*clipperv1.Tensor{numbers("", float64s, []int64{1}, 3)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := naturaljson.Decode([]byte(tt.text), tt.specs, 100)
			require.NoError(t, err)
			require.Empty(t, cmp.Diff(tt.want, got, protocmp.Transform()))
			for _, g := range got {
				require.NoError(t, tensor.Check(g))
			}
		})
	}
}

func TestDecode_extremes(t *testing.T) {
	one := func(text string, dt clipperv1.DataType) []byte {
		got, err := naturaljson.Decode([]byte(text), specs(spec("", dt)), 1)
		require.NoError(t, err, text)
		return got[0].Data
	}
	le := binary.LittleEndian
	require.Equal(t, uint64(math.MaxUint64), le.Uint64(one("18446744073709551615", uint64s)))
	require.Equal(t, int64(math.MinInt64), int64(le.Uint64(one("-9223372036854775808", int64s))))
	require.Equal(t, int64(math.MaxInt64), int64(le.Uint64(one("9223372036854775807.000", int64s))))
	require.Equal(t, uint64(1e19), le.Uint64(one("1e19", uint64s)))
	require.Equal(t, uint64(0), le.Uint64(one("0e99999999999", uint64s)))
	require.Equal(t, uint64(1)<<63, le.Uint64(one("-0.0", float64s)))
	require.Equal(t, uint64(1), le.Uint64(one("5e-324", float64s)))
	require.Zero(t, math.Float64frombits(le.Uint64(one("1e-999999999999", float64s))))
	require.Equal(t, math.Float32bits(math.MaxFloat32), le.Uint32(one("3.4028234663852886e38", float32s)))
}

func TestDecode_errors(t *testing.T) {
	const (
		malformed    = clipperv1.ErrorReason_ERROR_REASON_MALFORMED_JSON
		missingField = clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD
		inputType    = clipperv1.ErrorReason_ERROR_REASON_INPUT_TYPE
		inputShape   = clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE
		inputValue   = clipperv1.ErrorReason_ERROR_REASON_INPUT_VALUE
		tooLarge     = clipperv1.ErrorReason_ERROR_REASON_TOO_LARGE
	)
	image := specs(spec("", float32s, 2, 3))
	two := specs(spec("a", float64s), spec("b", text))
	tests := []struct {
		name   string
		text   string
		specs  []*clipperv1.TensorSpec
		reason clipperv1.ErrorReason
		path   string
		offset int
		want   string // A part of the message.
	}{
		{"empty", "", image, malformed, "input", 0, "ends too early"},
		{"string for numbers", `[[1,2,3],[4,"5",6]]`, image, inputType, "input[1][1]", 12, "is a string, expected float32 of shape [2, 3]"},
		{"string for a list", `"abc"`, image, inputType, "input", 0, "is a string"},
		{"number for a list", `1`, image, inputShape, "input", 0, "is a number, expected float32 of shape [2, 3]"},
		{"flat", "[1,2,3,4,5,6]", image, inputShape, "input[0]", 1, "is a number"},
		{"too deep", "[[[1]]]", image, inputShape, "input[0][0]", 2, "is a list"},
		{"too few", "[[1,2],[3,4,5]]", image, inputShape, "input[0]", 1, "has 2 elements, expected 3"},
		{"too many", "[[1,2,3,4]]", image, inputShape, "input[0]", 8, "has more than 3 elements"},
		{"too many at the top", "[[1,2,3],[1,2,3],[1]]", image, inputShape, "input", 17, "has more than 2 elements"},
		{"empty list", "[]", specs(spec("", float32s, -1)), inputShape, "input", 0, "is an empty list"},
		{"empty lists", "[[],[]]", specs(anyShape(float64s)), inputShape, "input[0]", 1, "is an empty list"},
		{"ragged", "[[1,2],[3]]", specs(anyShape(float64s)), inputShape, "input[1]", 7, "has 1 elements, expected 2"},
		{"ragged depth", "[[1],2]", nil, inputShape, "input[1]", 5, "is a number"},
		{"ragged depth, deeper", "[1,[2]]", nil, inputShape, "input[1]", 3, "is a list"},
		{"NaN", "[NaN]", specs(spec("", float64s, 1)), inputValue, "input[0]", 1, "is not a finite number"},
		{"minus infinity", "[-Infinity]", specs(spec("", float64s, 1)), inputValue, "input[0]", 1, "is not a finite number"},
		{"NaN without a signature", "NaN", nil, inputValue, "input", 0, "is not a finite number"},
		{"null", "[null]", specs(spec("", float64s, 1)), inputType, "input[0]", 1, "is null"},
		{"null at all", "null", nil, inputType, "input", 0, "is null, expected a number, a string"},
		{"boolean for a number", "true", specs(spec("", int32s)), inputType, "input", 0, "is a boolean, expected a single value of int32"},
		{"number for a boolean", "1", specs(spec("", boolean)), inputType, "input", 0, "is a number"},
		{"cut boolean", "[tru]", specs(spec("", boolean, 1)), inputType, "input[0]", 1, "is a boolean"},
		{"float out of range", "[1e39]", specs(spec("", float32s, 1)), inputValue, "input[0]", 1, "1e39 is out of the range of float32"},
		{"half out of range", "65520", specs(spec("", float16)), inputValue, "input", 0, "out of the range of float16"},
		{"integer out of range", "[1,256]", specs(spec("", uint8s, 2)), inputValue, "input[1]", 3, "256 is out of the range of uint8"},
		{"negative unsigned", "-1", specs(spec("", uint8s)), inputValue, "input", 0, "-1 is out of the range of uint8"},
		{"huge", "1e999999999999", specs(spec("", uint64s)), inputValue, "input", 0, "out of the range of uint64"},
		{"beyond uint64", "18446744073709551616", specs(spec("", uint64s)), inputValue, "input", 0, "out of the range"},
		{"fraction", "1.5", specs(spec("", int32s)), inputValue, "input", 0, "1.5 is not an integer, expected int32"},
		{"tiny fraction", "7.0000000000000000000000001", specs(spec("", int32s)), inputValue, "input", 0, "is not an integer"},
		{"leading zero", "[01]", specs(spec("", int32s, 1)), malformed, "input[0]", 2, "no digit after a leading 0"},
		{"bare point", "[1.]", specs(spec("", float64s, 1)), malformed, "input[0]", 3, "expected a digit"},
		{"no comma", "[1 2]", specs(spec("", float64s, 2)), malformed, "input[0]", 3, "expected ','"},
		{"trailing comma", "[1,]", specs(spec("", float64s, -1)), malformed, "input[0]", 3, "expected a value after ','"},
		{"not closed", "[1", specs(spec("", float64s, -1)), malformed, "input[0]", 2, "ends too early"},
		{"trailing text", "[1] 2", specs(spec("", float64s, -1)), malformed, "", 4, "expected nothing more"},
		{"mixed", `[1,"2"]`, nil, inputType, "input[1]", 3, "is a string"},
		{"bad escape", `"\x"`, specs(spec("", text)), malformed, "input", 1, "bad escape"},
		{"half a pair", `"\ud800"`, specs(spec("", text)), malformed, "input", 1, "bad escape"},
		{"not UTF-8", "\"\xff\"", specs(spec("", text)), malformed, "input", 1, "not UTF-8"},
		{"control character", "\"a\nb\"", specs(spec("", text)), malformed, "input", 2, "control characters"},
		{"not base64", `{"b64":"?"}`, specs(spec("", blob)), inputValue, "input", 7, "not base64"},
		{"string for bytes", `"AA=="`, specs(spec("", blob)), inputType, "input", 0, `expected a single value of bytes ({"b64": "..."})`},
		{"more than b64", `{"b64":"","c":1}`, specs(spec("", blob)), malformed, "input", 10, "expected '}'"},
		{"object for numbers", `{"a":1}`, image, inputType, "input", 0, "is an object"},
		{"missing input", `{"a":1}`, two, missingField, "input.b", 7, "is missing, expected a single value of string"},
		{"unknown input", `{"c":1}`, two, malformed, "input.c", 1, `unknown key "c", expected "a", "b"`},
		{"repeated input", `{"a":1,"a":1}`, two, malformed, "input.a", 7, `key "a" is repeated`},
		{"repeated without a signature", `{"a":1,"\u0061":1}`, nil, malformed, "input.a", 7, `key "a" is repeated`},
		{"bare for several", `[1]`, two, inputShape, "input", 0, `expected an object with the members "a", "b"`},
		{"wrong in a named one", `{"a":[1]}`, two, inputShape, "input.a", 5, "is a list"},
		{"empty object", `{}`, nil, inputShape, "input", 2, "empty object"},
		{"input without a name", `{"":1}`, nil, malformed, "input.", 1, "the key is empty"},
		{"elements", "[1,2,3,4,5,6,7,8,9]", nil, tooLarge, "input[8]", 17, "more than 8 elements"},
		{"depth", strings.Repeat("[", 40), nil, inputShape, "input" + strings.Repeat("[0]", 32), 32, "is a list"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := naturaljson.Decode([]byte(tt.text), tt.specs, 8)
			require.Nil(t, got)
			var e *naturaljson.Error
			require.ErrorAs(t, err, &e)
			require.Contains(t, e.Message, tt.want)
			require.Equal(t, tt.reason, e.Reason, err)
			require.Equal(t, tt.path, e.Path, err)
			require.Equal(t, tt.offset, e.Offset, err)
		})
	}
}

// Every float is read as strconv reads it, and every integer exactly.
func TestDecode_numbersAsStrconv(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(
			rapid.StringMatching(`-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?`),
			rapid.Map(rapid.Float64(), func(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }),
			rapid.Map(rapid.Float32(), func(f float32) string { return strconv.FormatFloat(float64(f), 'e', -1, 32) }),
			rapid.StringMatching(`-?[1-9][0-9]{0,6}(\.[0-9]{1,6})?(e-?[0-9])?`),
		).Filter(func(s string) bool { return json.Valid([]byte(s)) }).Draw(t, "number")
		for _, bits := range []int{32, 64} {
			want, wantErr := strconv.ParseFloat(s, bits)
			dt := map[int]clipperv1.DataType{32: float32s, 64: float64s}[bits]
			got, err := naturaljson.Decode([]byte(s), specs(spec("", dt)), 1)
			require.Equal(t, wantErr == nil, err == nil, "%s as float%d: %v", s, bits, err)
			if err == nil {
				f := tensor.Float(got[0], 0)
				require.Equal(t, math.Float64bits(want), math.Float64bits(f), "%s as float%d: %v, want %v", s, bits, f, want)
			}
		}
	})
}

// A 16-bit float that is written and read again is the same; halfway cases go to the even one.
func TestDecode_halves(t *testing.T) {
	for _, dt := range []clipperv1.DataType{float16, bfloat16} {
		for bits := range 1 << 16 {
			in := &clipperv1.Tensor{DataType: dt, Data: binary.LittleEndian.AppendUint16(nil, uint16(bits))}
			if tensor.Finite(in) >= 0 {
				continue
			}
			s := strconv.FormatFloat(tensor.Float(in, 0), 'g', -1, 64)
			got, err := naturaljson.Decode([]byte(s), specs(spec("", dt)), 1)
			require.NoError(t, err)
			require.Equal(t, in.Data, got[0].Data, s)
		}
	}
	for s, want := range map[string]uint16{"65519.99": 0x7bff, "2049": 0x6800, "2051": 0x6802, "2.98e-8": 0, "2.9803e-8": 1} {
		got, err := naturaljson.Decode([]byte(s), specs(spec("", float16)), 1)
		require.NoError(t, err)
		require.Equal(t, want, binary.LittleEndian.Uint16(got[0].Data), s)
	}
	for s, want := range map[string]uint16{"257": 0x4380, "259": 0x4382, "1e-41": 0, "3.3e38": 0x7f78} {
		got, err := naturaljson.Decode([]byte(s), specs(spec("", bfloat16)), 1)
		require.NoError(t, err)
		require.Equal(t, want, binary.LittleEndian.Uint16(got[0].Data), s)
	}
}

func TestAppendTensors(t *testing.T) {
	tests := []struct {
		name    string
		tensors []*clipperv1.Tensor
		want    string
	}{
		{"none", nil, "null"},
		{"scalar", []*clipperv1.Tensor{numbers("", int64s, nil, 7)}, "7"},
		{"named scalar", []*clipperv1.Tensor{numbers("label", int64s, nil, -7)}, "-7"},
		{"list", []*clipperv1.Tensor{numbers("", float32s, []int64{3}, .1, 2, 1e-9)}, "[0.1,2,1e-09]"},
		{"nested", []*clipperv1.Tensor{numbers("", uint8s, []int64{2, 2}, 1, 2, 3, 4)}, "[[1,2],[3,4]]"},
		{"empty", []*clipperv1.Tensor{numbers("", uint8s, []int64{1 << 30, 0})}, "[]"},
		{"booleans", []*clipperv1.Tensor{numbers("", boolean, []int64{2}, 1, 0)}, "[true,false]"},
		{"large", []*clipperv1.Tensor{{DataType: uint64s, Data: bytes.Repeat([]byte{0xff}, 8)}}, "18446744073709551615"},
		{"infinite", []*clipperv1.Tensor{numbers("", float64s, []int64{3}, math.NaN(), math.Inf(1), math.Inf(-1))}, `["NaN","Infinity","-Infinity"]`},
		{"text", []*clipperv1.Tensor{{DataType: text, Strings: []string{"a\"\\\n\r\t\x01é\xff<"}}}, `"a\"\\\n\r\t\u0001é�<"`},
		{"bytes", []*clipperv1.Tensor{{DataType: blob, Shape: []int64{1}, ByteStrings: [][]byte{{0, 1}}}}, `[{"b64":"AAE="}]`},
		{"several", []*clipperv1.Tensor{numbers("a", int32s, nil, 1), numbers("", float64s, nil, .5)}, `{"a":1,"1":0.5}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := naturaljson.AppendTensors([]byte("x"), tt.tensors)
			require.NoError(t, err)
			require.Equal(t, "x"+tt.want, string(got))
			require.True(t, json.Valid(got[1:]))
		})
	}
	_, err := naturaljson.AppendTensors(nil, []*clipperv1.Tensor{{DataType: float32s, Shape: []int64{2}, Data: make([]byte, 4)}})
	require.ErrorContains(t, err, "data has 4 bytes")
}

func TestValue(t *testing.T) {
	walk := func(text string) (err error) {
		v, err := naturaljson.Parse([]byte(text))
		if err != nil {
			return err
		}
		return v.Members(func(key string, m naturaljson.Value) error {
			switch key {
			case "text":
				_, err := m.Text()
				return err
			case "number":
				_, err := m.Number()
				return err
			case "list":
				return m.Items(func(item naturaljson.Value) error { _, err := item.Text(); return err })
			}
			return nil
		})
	}
	require.NoError(t, walk(` {"text":"a", "number":-1.5e2, "list":["a","b"], "other": {"deep":[[{}]]}} `))
	many := `{"text":"x"`
	for i := range 100 {
		many += `,"` + strconv.Itoa(i) + `":0`
	}
	require.NoError(t, walk(many+"}"))
	for text, want := range map[string]string{
		``:                          "the JSON text ends too early, expected a value (at byte 0)",
		`[]`:                        "is a list, expected an object (at byte 0)",
		`{}x`:                       "unexpected 'x', expected nothing more (at byte 2)",
		`{"text":1}`:                "text: is a number, expected a string (at byte 8)",
		`{"number":"1"}`:            "number: is a string, expected a number (at byte 10)",
		`{"number":1e400}`:          "number: 1e400 is out of the range of a float64 (at byte 10)",
		`{"list":["a",2]}`:          "list[1]: is a number, expected a string (at byte 13)",
		`{"list":["a",]}`:           "list: unexpected ']', expected a value after ',' (at byte 13)",
		`{"a":1,"a":2}`:             `key "a" is repeated (at byte 7)`,
		`{"a" 1}`:                   "unexpected '1', expected ':' (at byte 5)",
		`{"a":}`:                    "unexpected '}', expected a value (at byte 5)",
		`{"a":[1}`:                  "the JSON text ends too early, expected ']' or '}' (at byte 8)",
		`{a:1}`:                     "unexpected 'a', expected a key in quotes (at byte 1)",
		`{"a":1,}`:                  "unexpected '}', expected a value after ',' (at byte 7)",
		`{"a":"`:                    `expected the '"' that ends a string`,
		many + `,"7":0}`:            `key "7" is repeated`,
		many + `,"99":0}`:           `key "99" is repeated`,
		`{"text":"` + "\x01" + `"}`: "control characters",
	} {
		require.ErrorContains(t, walk(text), want, text)
	}
}

// FuzzDecode holds the decoder to encoding/json: what one accepts as JSON the other does, and what
// was read means the same.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`[0.1,0.2]`, `"text"`, `{"b64":"AA=="}`, `{"a":[1,2],"b":"x"}`, `[[1,2],[3]]`, `[1e400]`, `[NaN]`, `"\ud83d\ude00"`, `"\ud83d"`, `[true,false]`,
		`[-0.0e-5]`, `{"a":1,"a":2}`, `[[[[[[1]]]]]]`, `[01]`, ` [ 1 , 2 ] `, `[1,]`, `123456789012345678901234567890`, "\"\xff\"", `null`, `{"b64":"AA==","x":1}`,
	} {
		f.Add([]byte(s), uint8(0))
		f.Add([]byte(s), uint8(12))
		f.Add([]byte(s), uint8(9))
	}
	f.Fuzz(func(t *testing.T, text []byte, dt uint8) {
		if len(text) > 1<<12 {
			return
		}
		var in []*clipperv1.TensorSpec
		if dt %= 17; dt < 16 {
			in = specs(anyShape(clipperv1.DataType(dt)))
		}
		got, err := naturaljson.Decode(text, in, 1000)
		if err != nil {
			var e *naturaljson.Error
			require.ErrorAs(t, err, &e)
			require.NotZero(t, e.Reason)
			require.True(t, e.Offset >= 0 && e.Offset <= len(text), "offset %d of %d", e.Offset, len(text))
			if e.Reason == clipperv1.ErrorReason_ERROR_REASON_MALFORMED_JSON && !strings.Contains(e.Message, "repeated") &&
				!strings.Contains(e.Message, "escape") && !strings.Contains(e.Message, "UTF-8") && !strings.Contains(e.Message, "b64") && !strings.Contains(e.Message, "the key is empty") {
				require.False(t, json.Valid(text), "%v, but it is JSON", err)
			}
			return
		}
		require.True(t, json.Valid(text), "accepted what is not JSON")
		for _, g := range got {
			require.NoError(t, tensor.Check(g))
			require.Negative(t, tensor.Finite(g))
		}
		// What was read, written and read again is the same.
		if dt == uint8(float16) || dt == uint8(bfloat16) {
			return
		}
		written, err := naturaljson.AppendTensors(nil, got)
		require.NoError(t, err)
		require.True(t, json.Valid(written))
		if len(got) == 1 && got[0].Name != "" {
			return // Written without its name.
		}
		again, err := naturaljson.Decode(written, in, 1000)
		require.NoError(t, err, string(written))
		require.Empty(t, cmp.Diff(got, again, protocmp.Transform()))
	})
}

func FuzzValue(f *testing.F) {
	for _, s := range []string{`{"a":[1,{"b":"c"}],"d":"e"}`, `[{}]`, `{"a":"\""}`, `[1}`, `{"a":1`, `[[[`, `""`, `{"a":-0.5e+3}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var walk func(v naturaljson.Value, depth int) error
		walk = func(v naturaljson.Value, depth int) error {
			require.True(t, bytes.Equal(v.Raw, text[v.Offset:v.Offset+len(v.Raw)]))
			switch c := v.Raw[0]; {
			case depth > 100:
				return errors.New("deep")
			case c == '{':
				return v.Members(func(_ string, m naturaljson.Value) error { return walk(m, depth+1) })
			case c == '[':
				return v.Items(func(m naturaljson.Value) error { return walk(m, depth+1) })
			case c == '"':
				_, err := v.Text()
				return err
			case c == '-' || c >= '0' && c <= '9':
				_, err := v.Number()
				return err
			case v.Null() || string(v.Raw) == "true" || string(v.Raw) == "false":
				return nil
			}
			return errors.New("not JSON")
		}
		v, err := naturaljson.Parse(text)
		if err == nil {
			err = walk(v, 0)
		}
		if err == nil {
			require.True(t, json.Valid(text), "accepted what is not JSON")
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	in := make([]float64, 784)
	for i := range in {
		in[i] = float64(i*37%256) / 255
	}
	long, err := json.Marshal(in)
	require.NoError(b, err)
	for i := range in {
		in[i] = float64(i * 37 % 17)
	}
	short, err := json.Marshal(in)
	require.NoError(b, err)
	s := specs(spec("", float32s, 784))
	for name, text := range map[string][]byte{"long": long, "short": short} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := naturaljson.Decode(text, s, 1000); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+" encoding/json", func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				var v []float32
				if err := json.Unmarshal(text, &v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
