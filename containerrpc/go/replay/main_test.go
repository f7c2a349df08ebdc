// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"io"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	container "github.com/clipper-serving/clipper/containerrpc/go"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// tableFile writes a table of two rows.
func tableFile(t *testing.T) string {
	content := []byte("\x93NUMPY\x01\x00\x00\x00{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }\n")
	binary.LittleEndian.PutUint16(content[8:], uint16(len(content)-10))
	for _, x := range []float64{1, 3, 2, 0, -1, math.Log(3)} {
		content = binary.LittleEndian.AppendUint64(content, math.Float64bits(x))
	}
	file := filepath.Join(t.TempDir(), "table.npy")
	require.NoError(t, os.WriteFile(file, content, 0o600))
	return file
}

func mustParse(t *testing.T, args ...string) *model {
	t.Helper()
	m, err := parse(append([]string{"--table", tableFile(t)}, args...), io.Discard)
	require.NoError(t, err)
	return m
}

// batch makes a batch of inputs.
func batch(inputs ...[2]int64) *container.Batch {
	in := &clipperv1.BatchTensor{DataType: clipperv1.DataType_DATA_TYPE_INT64, Shape: []int64{2}}
	for _, row := range inputs {
		for _, x := range row {
			in.Data = binary.LittleEndian.AppendUint64(in.Data, uint64(x))
		}
	}
	return &container.Batch{Rows: len(inputs), Inputs: []*clipperv1.BatchTensor{in}}
}

func labels(t *testing.T, m *model, inputs ...[2]int64) (labels []int64) {
	r, err := m.Predict(t.Context(), batch(inputs...))
	require.NoError(t, err)
	require.Empty(t, r.RowErrors)
	for i := range inputs {
		labels = append(labels, int64(binary.LittleEndian.Uint64(r.Outputs[0].Data[8*i:])))
	}
	return labels
}

func TestParse_errors(t *testing.T) {
	for name, tc := range map[string]struct {
		args  []string
		fault string
	}{
		"no table":       {nil, "--table is missing"},
		"table is gone":  {[]string{"--table", "none.npz"}, "none.npz"},
		"unknown output": {[]string{"--output", "text"}, "labels, scores or softmax"},
		"argument":       {[]string{"x"}, `"x"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(tc.args, io.Discard)
			require.ErrorContains(t, err, tc.fault)
		})
	}
}

func TestPredict_labels(t *testing.T) {
	m := mustParse(t)
	require.Equal(t, clipperv1.DataType_DATA_TYPE_INT64, m.Describe().Signature.Outputs[0].DataType)
	require.Equal(t, []int64{1, 2, 1}, labels(t, m, [2]int64{0, 0}, [2]int64{1, 0}, [2]int64{0, 7}), "it does not fail unless it is told to")
}

func TestPredict_scores(t *testing.T) {
	for output, want := range map[string][]float64{"scores": {0, -1, math.Log(3)}, "softmax": {1 / (4 + math.Exp(-1)), math.Exp(-1) / (4 + math.Exp(-1)), 3 / (4 + math.Exp(-1))}} {
		t.Run(output, func(t *testing.T) {
			m := mustParse(t, "--output", output)
			require.Equal(t, []int64{3}, m.Describe().Signature.Outputs[0].Shape)
			r, err := m.Predict(t.Context(), batch([2]int64{1, 0}))
			require.NoError(t, err)
			for k, x := range want {
				require.InDelta(t, x, math.Float64frombits(binary.LittleEndian.Uint64(r.Outputs[0].Data[8*k:])), 1e-12)
			}
		})
	}
}

func TestPredict_fails(t *testing.T) {
	m := mustParse(t, "--fails")
	require.Equal(t, []int64{1}, labels(t, m, [2]int64{0, 0}), "not now")
	var counts [3]int
	for n := range int64(3000) {
		got := labels(t, m, [2]int64{0, n + 1}, [2]int64{0, n + 1})
		require.Equal(t, got[0], got[1], "the same input has the same noise")
		counts[got[0]]++
	}
	for _, n := range counts {
		require.InDelta(t, 1000, n, 150, "the classes are equally likely")
	}
	require.NotEqual(t, labels(t, m, [2]int64{0, 1}, [2]int64{0, 2}, [2]int64{0, 3}, [2]int64{0, 4}, [2]int64{0, 5}, [2]int64{0, 6}),
		labels(t, mustParse(t, "--fails", "--seed", "2"), [2]int64{0, 1}, [2]int64{0, 2}, [2]int64{0, 3}, [2]int64{0, 4}, [2]int64{0, 5}, [2]int64{0, 6}))
}

func TestPredict_badInput(t *testing.T) {
	m := mustParse(t)
	for _, i := range []int64{2, -1} {
		r, err := m.Predict(t.Context(), batch([2]int64{1, 0}, [2]int64{i, 0}))
		require.NoError(t, err)
		require.ErrorContains(t, r.RowErrors[1], "0 to 1")
		require.Len(t, r.RowErrors, 1)
		require.Len(t, r.Outputs[0].Data, 16)
	}
	_, err := m.Predict(t.Context(), &container.Batch{Rows: 1, Inputs: []*clipperv1.BatchTensor{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT64, Data: make([]byte, 16)}}})
	require.ErrorContains(t, err, "integers")
}
