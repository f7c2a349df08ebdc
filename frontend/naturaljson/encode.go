// SPDX-License-Identifier: Apache-2.0

package naturaljson

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// AppendTensors appends tensors as natural JSON: one as a bare value, several as an object by their
// names (by their positions where they have none), none as null. Floats are written as shortly as
// their type allows; NaN and the infinities, which JSON has not, are the strings "NaN", "Infinity"
// and "-Infinity", as in the JSON form of protocol buffers. It fails when a tensor does not hold
// what its shape says.
func AppendTensors(b []byte, tensors []*clipperv1.Tensor) ([]byte, error) {
	for _, t := range tensors {
		if err := tensor.Check(t); err != nil {
			return b, fmt.Errorf("write tensor %q as JSON: %w", t.GetName(), err)
		}
	}
	switch len(tensors) {
	case 0:
		return append(b, "null"...), nil
	case 1:
		return appendTensor(b, tensors[0]), nil
	}
	for i, t := range tensors {
		b = append(b, "{,"[min(i, 1)])
		name := t.GetName()
		if name == "" {
			name = strconv.Itoa(i)
		}
		b = AppendText(b, name)
		b = append(b, ':')
		b = appendTensor(b, t)
	}
	return append(b, '}'), nil
}

func appendTensor(b []byte, t *clipperv1.Tensor) []byte {
	if n, _ := tensor.Elements(t.GetShape()); n == 0 {
		return append(b, "[]"...) // However long its other dimensions say it is.
	}
	next := 0
	return appendDimension(b, t, t.GetShape(), &next)
}

// appendDimension appends the elements from next on that a shape takes.
func appendDimension(b []byte, t *clipperv1.Tensor, shape []int64, next *int) []byte {
	if len(shape) == 0 {
		*next++
		return appendElement(b, t, *next-1)
	}
	b = append(b, '[')
	for i := range shape[0] {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendDimension(b, t, shape[1:], next)
	}
	return append(b, ']')
}

func appendElement(b []byte, t *clipperv1.Tensor, i int) []byte {
	switch t.GetDataType() {
	case clipperv1.DataType_DATA_TYPE_STRING:
		return AppendText(b, t.Strings[i])
	case clipperv1.DataType_DATA_TYPE_BYTES:
		b = append(b, `{"b64":"`...)
		b = base64.StdEncoding.AppendEncode(b, t.ByteStrings[i])
		return append(b, `"}`...)
	case clipperv1.DataType_DATA_TYPE_BOOL:
		return strconv.AppendBool(b, t.Data[i] != 0)
	case clipperv1.DataType_DATA_TYPE_UINT64:
		return strconv.AppendUint(b, binary.LittleEndian.Uint64(t.Data[8*i:]), 10)
	case clipperv1.DataType_DATA_TYPE_INT64:
		return strconv.AppendInt(b, int64(binary.LittleEndian.Uint64(t.Data[8*i:])), 10)
	case clipperv1.DataType_DATA_TYPE_FLOAT64:
		return AppendNumber(b, tensor.Float(t, i), 64)
	case clipperv1.DataType_DATA_TYPE_FLOAT32, clipperv1.DataType_DATA_TYPE_FLOAT16, clipperv1.DataType_DATA_TYPE_BFLOAT16:
		return AppendNumber(b, tensor.Float(t, i), 32)
	}
	return strconv.AppendInt(b, int64(tensor.Float(t, i)), 10)
}

// AppendNumber appends a float of 32 or 64 bits with the fewest digits that give it back.
func AppendNumber(b []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(b, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(b, `"-Infinity"`...)
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(b, f, format, -1, bits)
}

// AppendText appends a JSON string. What is not UTF-8 becomes the replacement character.
func AppendText(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		size := 1
		if c >= utf8.RuneSelf {
			var r rune
			if r, size = utf8.DecodeRuneInString(s[i:]); r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default:
			if c < ' ' {
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			} else {
				b = append(b, "\uFFFD"...)
			}
		}
		i += size
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
