// SPDX-License-Identifier: Apache-2.0

package features_test

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/selector/features"
)

func floats(xs ...float64) *clipperv1.Tensor {
	t := &clipperv1.Tensor{DataType: clipperv1.DataType_DATA_TYPE_FLOAT64, Shape: []int64{int64(len(xs))}}
	for _, x := range xs {
		t.Data = binary.LittleEndian.AppendUint64(t.Data, math.Float64bits(x))
	}
	return t
}

func TestAppend(t *testing.T) {
	for _, test := range []struct {
		name    string
		tensors []*clipperv1.Tensor
		want    []float64
	}{
		{"nothing", nil, []float64{0, 0, 0, 1}},
		{"few", []*clipperv1.Tensor{floats(0.25, -0.5)}, []float64{0.25, -0.5, 0, 1}},
		{"several tensors", []*clipperv1.Tensor{floats(0.25), floats(0.5, 0.125)}, []float64{0.25, 0.5, 0.125, 1}},
		{"integers", []*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_UINT8, Data: []byte{1, 0}}}, []float64{1, 0, 0, 1}},
		{"long ones are scaled", []*clipperv1.Tensor{floats(3, 0, 4)}, []float64{float64(float32(0.6)), 0, float64(float32(0.8)), 1}},
		{"very long ones, too", []*clipperv1.Tensor{floats(math.MaxFloat64, 0, 0)}, []float64{1, 0, 0, 1}},
		{"what is no number counts as nothing", []*clipperv1.Tensor{floats(math.NaN(), 0.5, math.Inf(-1))}, []float64{0, 0.5, 0, 1}},
		{"text has no numbers", []*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_STRING, Strings: []string{"a"}}}, []float64{0, 0, 0, 1}},
		{"overflow", []*clipperv1.Tensor{floats(overflow()...)}, []float64{0, 0, 0, 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, features.Append(nil, test.tensors, 4))
		})
	}
	require.Equal(t, []float64{7, 0.5, 1}, features.Append([]float64{7}, []*clipperv1.Tensor{floats(0.5)}, 2), "appends")
}

// overflow is many numbers of both signs, whose sums are not finite.
func overflow() []float64 {
	xs := make([]float64, 100)
	for i := range xs {
		xs[i] = math.MaxFloat64
	}
	return xs
}

// TestAppend_projection holds the projection to what it was when something was first learned of it.
func TestAppend_projection(t *testing.T) {
	xs := make([]float64, 16)
	for i := range xs {
		xs[i] = float64(i+1) / 64
	}
	require.Equal(t, []float64{-0.03125, -0.421875, 0.015625, 1}, features.Append(nil, []*clipperv1.Tensor{floats(xs...)}, 4))
}

// TestAppend_keepsProducts says that inner products are kept in expectation, over random inputs.
func TestAppend_keepsProducts(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const numbers, inputs = 200, 400
	mean := 0.0
	for range inputs {
		a, b := make([]float64, numbers), make([]float64, numbers)
		want := 0.0
		for i := range a {
			a[i] = random.NormFloat64() / 40
			b[i] = a[i]/2 + random.NormFloat64()/40
			want += a[i] * b[i]
		}
		f := features.Append(nil, []*clipperv1.Tensor{floats(a...)}, 33)
		g := features.Append(nil, []*clipperv1.Tensor{floats(b...)}, 33)
		got := 0.0
		for k := range 32 {
			got += f[k] * g[k]
		}
		mean += (got - want) / inputs
	}
	require.InDelta(t, 0, mean, 0.005)
}

func TestAppend_bounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		xs := rapid.SliceOfN(rapid.Float64(), 0, 40).Draw(t, "numbers")
		dimension := rapid.IntRange(1, 20).Draw(t, "dimension")
		f := features.Append(nil, []*clipperv1.Tensor{floats(xs...)}, dimension)
		require.Len(t, f, dimension)
		sum := 0.0
		for _, x := range f[:dimension-1] {
			require.Equal(t, float64(float32(x)), x)
			sum += x * x
		}
		require.LessOrEqual(t, sum, 1+1e-6)
		require.Equal(t, 1.0, f[dimension-1])
	})
}

func TestCheck(t *testing.T) {
	spec := func(t clipperv1.DataType) *clipperv1.TensorSpec { return &clipperv1.TensorSpec{DataType: t} }
	require.NoError(t, features.Check([]*clipperv1.TensorSpec{spec(clipperv1.DataType_DATA_TYPE_BOOL), spec(clipperv1.DataType_DATA_TYPE_FLOAT16)}))
	for want, specs := range map[string][]*clipperv1.TensorSpec{
		"no inputs":      nil,
		"of any type":    {spec(clipperv1.DataType_DATA_TYPE_UNSPECIFIED)},
		"type string":    {spec(clipperv1.DataType_DATA_TYPE_FLOAT32), spec(clipperv1.DataType_DATA_TYPE_STRING)},
		"type bytes":     {spec(clipperv1.DataType_DATA_TYPE_BYTES)},
		`the input "im"`: {{Name: "im", DataType: clipperv1.DataType_DATA_TYPE_BYTES}},
	} {
		require.ErrorContains(t, features.Check(specs), want)
	}
}

func BenchmarkAppend(b *testing.B) {
	tensors := []*clipperv1.Tensor{floats(make([]float64, 784)...)}
	dst := make([]float64, 0, 9)
	b.ReportAllocs()
	for b.Loop() {
		features.Append(dst, tensors, 9)
	}
}
