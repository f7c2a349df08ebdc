// SPDX-License-Identifier: Apache-2.0

package warmup_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"github.com/clipper-serving/clipper/abstraction/warmup"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

const (
	boolean = clipperv1.DataType_DATA_TYPE_BOOL
	float   = clipperv1.DataType_DATA_TYPE_FLOAT32
	text    = clipperv1.DataType_DATA_TYPE_STRING
	bytes   = clipperv1.DataType_DATA_TYPE_BYTES
)

func bit(b byte) []*clipperv1.Tensor {
	return []*clipperv1.Tensor{{DataType: boolean, Data: []byte{b}}}
}

func word(s string) []*clipperv1.Tensor {
	return []*clipperv1.Tensor{{DataType: text, Strings: []string{s}}}
}

func takes(specs ...*clipperv1.TensorSpec) *clipperv1.Signature {
	return &clipperv1.Signature{Inputs: specs}
}

func recent(inputs ...[]*clipperv1.Tensor) func() [][]*clipperv1.Tensor {
	return func() [][]*clipperv1.Tensor { return inputs }
}

func TestSource(t *testing.T) {
	given := &clipperv1.WarmUp{Samples: []*clipperv1.WarmUpSample{{Tensors: bit(7)}}}
	for name, tc := range map[string]struct {
		cfg       *clipperv1.WarmUp
		recent    func() [][]*clipperv1.Tensor
		signature *clipperv1.Signature
		want      [][]*clipperv1.Tensor
	}{
		"given":             {given, recent(bit(1)), takes(&clipperv1.TensorSpec{DataType: boolean}), [][]*clipperv1.Tensor{bit(7)}},
		"recent":            {nil, recent(bit(1), bit(2)), nil, [][]*clipperv1.Tensor{bit(1), bit(2)}},
		"recent that fit":   {nil, recent(word("a"), bit(2)), takes(&clipperv1.TensorSpec{DataType: boolean}), [][]*clipperv1.Tensor{bit(2)}},
		"recent alike":      {nil, recent(word("a"), bit(2), word("b")), nil, [][]*clipperv1.Tensor{word("a"), word("b")}},
		"disabled":          {&clipperv1.WarmUp{Disabled: true}, recent(bit(1)), nil, nil},
		"nothing is known":  {nil, recent(), nil, nil},
		"type is not known": {nil, recent(), takes(&clipperv1.TensorSpec{Shape: []int64{1}}), nil},
		"open dimension":    {nil, recent(), takes(&clipperv1.TensorSpec{DataType: float, Shape: []int64{-1, 2}}), nil},
		"open shape":        {nil, recent(), takes(&clipperv1.TensorSpec{DataType: float, AnyShape: true}), nil},
		"too large":         {nil, recent(), takes(&clipperv1.TensorSpec{DataType: float, Shape: []int64{1 << 30}}), nil},
		"zeros": {
			nil, recent(word("a")),
			takes(&clipperv1.TensorSpec{Name: "a", DataType: float, Shape: []int64{2}}, &clipperv1.TensorSpec{Name: "b", DataType: text}, &clipperv1.TensorSpec{Name: "c", DataType: bytes}),
			[][]*clipperv1.Tensor{{
				{Name: "a", DataType: float, Shape: []int64{2}, Data: make([]byte, 8)},
				{Name: "b", DataType: text, Strings: []string{""}},
				{Name: "c", DataType: bytes, ByteStrings: [][]byte{nil}},
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			inputs, wasGiven := warmup.NewSource(tc.cfg, tc.recent).Begin("0", tc.signature)
			require.Equal(t, tc.cfg == given, wasGiven)
			require.Len(t, inputs, len(tc.want))
			for i, in := range inputs {
				tensors, err := in.Tensors()
				require.NoError(t, err)
				require.True(t, tensor.EqualAll(tc.want[i], tensors), tensors)
				require.NoError(t, tensor.CheckInput(tensors, tc.signature))
			}
		})
	}
}

// TestSource_losses: inputs that were chosen must not keep a version from ever serving.
func TestSource_losses(t *testing.T) {
	s := warmup.NewSource(nil, recent(bit(1)))
	begin := func(replica string) int {
		inputs, _ := s.Begin(replica, nil)
		return len(inputs)
	}
	require.Equal(t, []int{1, 1, 0, 1}, []int{begin("0"), begin("0"), begin("0"), begin("0")})
	require.Equal(t, 1, begin("1"), "each replica has its own losses")
	s.End("0")
	require.Equal(t, []int{1, 1, 0}, []int{begin("0"), begin("0"), begin("0")}, "in a row")

	s = warmup.NewSource(&clipperv1.WarmUp{Samples: []*clipperv1.WarmUpSample{{Tensors: bit(1)}}}, recent())
	for range 9 {
		require.Equal(t, 1, begin("0"), "what was given must be predicted")
	}
}

func TestSource_timeLimit(t *testing.T) {
	require.Equal(t, warmup.DefaultTimeLimit, warmup.NewSource(nil, nil).TimeLimit())
	require.Equal(t, time.Second, warmup.NewSource(&clipperv1.WarmUp{TimeLimit: durationpb.New(time.Second)}, nil).TimeLimit())
}

func TestRecent_isBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r warmup.Recent
		for _, n := range rapid.SliceOfN(rapid.IntRange(0, 3<<20), 0, 200).Draw(t, "sizes") {
			r.Offer([]*clipperv1.Tensor{{DataType: boolean, Data: make([]byte, n)}})
			inputs, sum := r.Inputs(), 0
			for _, in := range inputs {
				sum += len(in[0].Data)
			}
			if len(inputs) > 64 || sum > 2<<20 {
				t.Fatalf("%d inputs of %d bytes are kept", len(inputs), sum)
			}
		}
	})
}

// TestRecent_isRecent: what was long ago is replaced.
func TestRecent_isRecent(t *testing.T) {
	var r warmup.Recent
	r.Offer(bit(1))
	require.Len(t, r.Inputs(), 1, "the first is kept at once")
	for range 64 * 256 * 100 {
		r.Offer(bit(0))
	}
	require.Len(t, r.Inputs(), 64)
	for _, in := range r.Inputs() {
		require.Equal(t, byte(0), in[0].Data[0])
	}
}

func TestRecent_concurrently(t *testing.T) {
	var r warmup.Recent
	var offering sync.WaitGroup
	for range 4 {
		offering.Go(func() {
			for range 1000 {
				r.Offer(bit(1))
				r.Inputs()
			}
		})
	}
	offering.Wait()
	require.Len(t, r.Inputs(), 64)
}

func BenchmarkRecent_Offer(b *testing.B) {
	var r warmup.Recent
	in := bit(1)
	b.ReportAllocs()
	for b.Loop() {
		r.Offer(in)
	}
}
