// SPDX-License-Identifier: Apache-2.0

package container_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	container "github.com/clipper-serving/clipper/containerrpc/go"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

func roundTrip[T container.Number](t *testing.T, elements ...T) {
	t.Helper()
	out := container.Output("x", elements, 1)
	got, err := container.Values[T](out)
	require.NoError(t, err)
	require.Equal(t, elements, got)
	// At an address at which numbers may not be read as they are.
	out.Data = append([]byte{0}, out.Data...)[1:]
	got, err = container.Values[T](out)
	require.NoError(t, err)
	require.Equal(t, elements, got)
}

func TestValues(t *testing.T) {
	roundTrip(t, true, false)
	roundTrip[uint8](t, 1, 255)
	roundTrip[uint16](t, 1, 1<<15)
	roundTrip[uint32](t, 1, 1<<31)
	roundTrip[uint64](t, 1, 1<<63)
	roundTrip[int8](t, -128, 127)
	roundTrip[int16](t, -2, 3)
	roundTrip[int32](t, -2, 3)
	roundTrip(t, math.MinInt64, int64(3))
	roundTrip[float32](t, 0.1, -1)
	roundTrip(t, 0.1, math.Inf(-1))

	f := container.Output("", []float32{1, 2})
	require.Equal(t, []byte{0, 0, 128, 63, 0, 0, 0, 64}, f.Data)
	_, err := container.Values[float64](f)
	require.ErrorContains(t, err, "type float32, the model takes float64")
	_, err = container.Values[float64](nil)
	require.ErrorContains(t, err, "type any")
	f.Data = f.Data[:7]
	_, err = container.Values[float32](f)
	require.ErrorContains(t, err, "whole number")
}

func TestRows(t *testing.T) {
	ragged := &clipperv1.BatchTensor{
		Name: "words", DataType: clipperv1.DataType_DATA_TYPE_STRING, Strings: []string{"a", "b", "c"},
		RowShapes: []*clipperv1.Shape{{Dims: []int64{2}}, {Dims: []int64{0}}, {}},
	}
	b := &container.Batch{Rows: 3, Inputs: []*clipperv1.BatchTensor{ragged}}
	require.Same(t, ragged, b.Input("anything"))
	rows, err := container.Rows(ragged, ragged.Strings, 3)
	require.NoError(t, err)
	require.Equal(t, [][]string{{"a", "b"}, {}, {"c"}}, rows)
	_, err = container.Rows(ragged, ragged.Strings[:2], 3)
	require.ErrorContains(t, err, "too few")
	numbers := container.Output("n", []int64{1, 2, 3, 4}, 2)
	pairs, err := container.Rows(numbers, []int64{1, 2, 3, 4}, 2)
	require.NoError(t, err)
	require.Equal(t, [][]int64{{1, 2}, {3, 4}}, pairs)
	b.Inputs = append(b.Inputs, numbers)
	require.Same(t, numbers, b.Input("n"))
	require.Nil(t, b.Input("other"))
}
