// SPDX-License-Identifier: Apache-2.0

package tensor

import (
	"encoding/binary"
	"math"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
)

const (
	f16     = clipperv1.DataType_DATA_TYPE_FLOAT16
	bf16    = clipperv1.DataType_DATA_TYPE_BFLOAT16
	f32     = clipperv1.DataType_DATA_TYPE_FLOAT32
	f64     = clipperv1.DataType_DATA_TYPE_FLOAT64
	text    = clipperv1.DataType_DATA_TYPE_STRING
	binType = clipperv1.DataType_DATA_TYPE_BYTES
)

func floats(values ...float64) *clipperv1.Tensor {
	t := &clipperv1.Tensor{DataType: f64, Shape: []int64{int64(len(values))}}
	for _, v := range values {
		t.Data = binary.LittleEndian.AppendUint64(t.Data, math.Float64bits(v))
	}
	return t
}

func TestCheck(t *testing.T) {
	for name, tc := range map[string]struct {
		tensor *clipperv1.Tensor
		want   string // Part of the error; empty means that there is none.
	}{
		"scalar":              {&clipperv1.Tensor{DataType: f32, Data: make([]byte, 4)}, ""},
		"empty":               {&clipperv1.Tensor{DataType: f32, Shape: []int64{0, 3}}, ""},
		"matrix":              {&clipperv1.Tensor{DataType: f16, Shape: []int64{2, 3}, Data: make([]byte, 12)}, ""},
		"strings":             {&clipperv1.Tensor{DataType: text, Shape: []int64{2}, Strings: []string{"a", ""}}, ""},
		"bytes":               {&clipperv1.Tensor{DataType: binType, ByteStrings: [][]byte{nil}}, ""},
		"too few bytes":       {&clipperv1.Tensor{DataType: f32, Shape: []int64{2}, Data: make([]byte, 7)}, "7 bytes, but float32 of shape [2] needs 8"},
		"too few strings":     {&clipperv1.Tensor{DataType: text, Shape: []int64{2}, Strings: []string{"a"}}, "1 elements, but shape [2] needs 2"},
		"strings in numbers":  {&clipperv1.Tensor{DataType: f32, Data: make([]byte, 4), Strings: []string{"a"}}, "elements in data"},
		"data in strings":     {&clipperv1.Tensor{DataType: text, Strings: []string{"a"}, Data: []byte{1}}, "in strings only"},
		"negative dimension":  {&clipperv1.Tensor{DataType: f32, Shape: []int64{-1}}, "not allowed"},
		"product overflows":   {&clipperv1.Tensor{DataType: f32, Shape: []int64{1 << 40, 1 << 40}}, "not allowed"},
		"no type":             {&clipperv1.Tensor{Data: make([]byte, 4)}, "data_type 0 is not known"},
		"type from elsewhere": {&clipperv1.Tensor{DataType: 99}, "data_type 99 is not known"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Check(tc.tensor)
			if tc.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tc.want)
			}
		})
	}
}

func TestTypeName_roundTrips(t *testing.T) {
	for v := range clipperv1.DataType_name {
		dt, ok := ParseType(TypeName(clipperv1.DataType(v)))
		require.True(t, ok)
		require.Equal(t, clipperv1.DataType(v), dt)
	}
	_, ok := ParseType("unspecified")
	require.False(t, ok)
}

func TestFitsShape(t *testing.T) {
	spec := &clipperv1.TensorSpec{Shape: []int64{-1, 3}}
	require.True(t, FitsShape([]int64{7, 3}, spec))
	require.False(t, FitsShape([]int64{7, 4}, spec))
	require.False(t, FitsShape([]int64{3}, spec))
	require.False(t, FitsShape([]int64{3}, &clipperv1.TensorSpec{}))
	require.True(t, FitsShape([]int64{3}, &clipperv1.TensorSpec{AnyShape: true}))
}

func TestFinite_findsTheFirstBadElement(t *testing.T) {
	le := binary.LittleEndian
	require.Equal(t, -1, Finite(floats(1, -1, math.MaxFloat64)))
	require.Equal(t, 1, Finite(floats(1, math.NaN(), math.Inf(1))))
	inf32 := le.AppendUint32(make([]byte, 4), math.Float32bits(float32(math.Inf(-1))))
	require.Equal(t, 1, Finite(&clipperv1.Tensor{DataType: f32, Data: inf32}))
	require.Equal(t, 0, Finite(&clipperv1.Tensor{DataType: f16, Data: []byte{0, 0x7c}}))
	require.Equal(t, -1, Finite(&clipperv1.Tensor{DataType: f16, Data: []byte{0xff, 0x7b}}))
	require.Equal(t, 0, Finite(&clipperv1.Tensor{DataType: bf16, Data: []byte{0x80, 0xff}}))
}

func TestFloat_readsEveryType(t *testing.T) {
	for dt, data := range map[clipperv1.DataType][]byte{
		clipperv1.DataType_DATA_TYPE_UINT8:  {0, 3},
		clipperv1.DataType_DATA_TYPE_INT16:  {0, 0, 3, 0},
		clipperv1.DataType_DATA_TYPE_UINT16: {0, 0, 3, 0},
		clipperv1.DataType_DATA_TYPE_INT32:  {0, 0, 0, 0, 3, 0, 0, 0},
		clipperv1.DataType_DATA_TYPE_UINT64: append(make([]byte, 8), 3, 0, 0, 0, 0, 0, 0, 0),
		clipperv1.DataType_DATA_TYPE_INT64:  append(make([]byte, 8), 3, 0, 0, 0, 0, 0, 0, 0),
		f16:                                 {0, 0, 0, 0x42},
		bf16:                                {0, 0, 0x40, 0x40},
		f32:                                 {0, 0, 0, 0, 0, 0, 0x40, 0x40},
	} {
		require.InDelta(t, 3.0, Float(&clipperv1.Tensor{DataType: dt, Data: data}, 1), 0, TypeName(dt))
	}
	require.InDelta(t, -2.0, Float(&clipperv1.Tensor{DataType: clipperv1.DataType_DATA_TYPE_INT8, Data: []byte{0xfe}}, 0), 0)
	require.InDelta(t, math.Ldexp(1, -24), Float(&clipperv1.Tensor{DataType: f16, Data: []byte{1, 0}}, 0), 0)
	require.True(t, math.IsInf(Float(&clipperv1.Tensor{DataType: f16, Data: []byte{0, 0xfc}}, 0), -1))
	require.True(t, math.IsNaN(Float(&clipperv1.Tensor{DataType: text, Strings: []string{"3"}}, 0)))
}

func TestInput_bothFormsAreEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tensors := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) *clipperv1.Tensor {
			switch rapid.IntRange(0, 2).Draw(t, "kind") {
			case 0:
				return floats(rapid.SliceOfN(rapid.Float64(), 0, 4).Draw(t, "floats")...)
			case 1:
				s := rapid.SliceOfN(rapid.String(), 0, 3).Draw(t, "strings")
				return &clipperv1.Tensor{Name: "s", DataType: text, Shape: []int64{int64(len(s))}, Strings: s}
			default:
				return &clipperv1.Tensor{DataType: binType, Shape: []int64{1}, ByteStrings: [][]byte{rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")}}
			}
		}), 0, 3).Draw(t, "tensors")
		in := FromTensors(tensors)
		back := FromEncoded(in.Encoded())
		require.Equal(t, in.Hash(), back.Hash())
		require.True(t, Equal(in, back))
		got, err := back.Tensors()
		require.NoError(t, err)
		require.True(t, proto.Equal(&internalv1.Input{Tensors: tensors}, &internalv1.Input{Tensors: got}))
	})
}

func TestHash_differentInputsDiffer(t *testing.T) {
	strings := func(s ...string) *Input {
		return FromTensors([]*clipperv1.Tensor{{DataType: text, Shape: []int64{int64(len(s))}, Strings: s}})
	}
	named := floats(1)
	named.Name = "x"
	inputs := []*Input{
		FromTensors(nil),
		FromTensors([]*clipperv1.Tensor{floats(1)}),
		FromTensors([]*clipperv1.Tensor{named}),
		FromTensors([]*clipperv1.Tensor{{DataType: f64, Shape: []int64{1, 1}, Data: floats(1).Data}}),
		FromTensors([]*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_INT64, Shape: []int64{1}, Data: floats(1).Data}}),
		FromTensors([]*clipperv1.Tensor{floats(1), floats()}),
		FromTensors([]*clipperv1.Tensor{floats(), floats(1)}),
		strings("ab", "c"), strings("a", "bc"), strings("abc"),
	}
	for i, a := range inputs {
		for j, b := range inputs {
			require.Equal(t, i == j, a.Hash() == b.Hash(), "%d and %d", i, j)
			require.Equal(t, i == j, Equal(a, b), "%d and %d", i, j)
		}
	}
}

func TestInput_isSafeForConcurrentUse(t *testing.T) {
	in := FromEncoded(FromTensors([]*clipperv1.Tensor{floats(1, 2, 3)}).Encoded())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			_, _ = in.Tensors()
			in.Hash()
			in.Encoded()
		})
	}
	wg.Wait()
}

func FuzzInput(f *testing.F) {
	f.Add(FromTensors([]*clipperv1.Tensor{floats(1, 2)}).Encoded())
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		in := FromEncoded(b)
		in.Hash()
		tensors, err := in.Tensors()
		if err != nil {
			return
		}
		for _, x := range tensors {
			if Check(x) == nil {
				Finite(x)
			}
		}
		if !Equal(in, FromTensors(tensors)) {
			t.Fatal("an input differs from itself")
		}
	})
}

func BenchmarkHash(b *testing.B) {
	tensors := []*clipperv1.Tensor{floats(make([]float64, 784)...)}
	b.ReportAllocs()
	for b.Loop() {
		FromTensors(tensors).Hash()
	}
}
