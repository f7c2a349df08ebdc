// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/clipper-serving/clipper/frontend/naturaljson"
)

// appendMessage appends a message as the protocol's REST servers write those that REST and gRPC share:
// names as in the proto, integers of 64 bits as numbers, which the JSON form of protocol buffers
// writes as strings, and fields that have no presence even when they are empty.
func appendMessage(b []byte, m proto.Message) []byte {
	return appendFields(b, m.ProtoReflect())
}

func appendFields(b []byte, m protoreflect.Message) []byte {
	b = append(b, '{')
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.HasPresence() && !m.Has(f) {
			continue
		}
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = naturaljson.AppendText(b, string(f.Name()))
		b = append(b, ':')
		switch v := m.Get(f); {
		case f.IsMap():
			b = appendMap(b, f, v.Map())
		case f.IsList():
			b = append(b, '[')
			for j := range v.List().Len() {
				if j > 0 {
					b = append(b, ',')
				}
				b = appendValue(b, f, v.List().Get(j))
			}
			b = append(b, ']')
		default:
			b = appendValue(b, f, v)
		}
	}
	return append(b, '}')
}

// appendMap appends a map sorted by the text of its keys.
func appendMap(b []byte, f protoreflect.FieldDescriptor, m protoreflect.Map) []byte {
	var keys []protoreflect.MapKey
	m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, k)
		return true
	})
	slices.SortFunc(keys, func(a, b protoreflect.MapKey) int { return strings.Compare(a.String(), b.String()) })
	b = append(b, '{')
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = naturaljson.AppendText(b, k.String())
		b = append(b, ':')
		b = appendValue(b, f.MapValue(), m.Get(k))
	}
	return append(b, '}')
}

func appendValue(b []byte, f protoreflect.FieldDescriptor, v protoreflect.Value) []byte {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return appendFields(b, v.Message())
	case protoreflect.EnumKind:
		if e := f.Enum().Values().ByNumber(v.Enum()); e != nil {
			return naturaljson.AppendText(b, string(e.Name()))
		}
		return strconv.AppendInt(b, int64(v.Enum()), 10)
	case protoreflect.BoolKind:
		return strconv.AppendBool(b, v.Bool())
	case protoreflect.StringKind:
		return naturaljson.AppendText(b, v.String())
	case protoreflect.BytesKind:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, v.Bytes())
		return append(b, '"')
	case protoreflect.FloatKind:
		return naturaljson.AppendNumber(b, v.Float(), 32)
	case protoreflect.DoubleKind:
		return naturaljson.AppendNumber(b, v.Float(), 64)
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind, protoreflect.Fixed64Kind:
		return strconv.AppendUint(b, v.Uint(), 10)
	}
	return strconv.AppendInt(b, v.Int(), 10)
}
