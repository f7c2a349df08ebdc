// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"io"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	container "github.com/clipper-serving/clipper/containerrpc/go"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

func mustParse(t *testing.T, args ...string) container.Model {
	t.Helper()
	m, _, err := parse(args, io.Discard)
	require.NoError(t, err)
	return m
}

func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		args  []string
		fault string
		want  profile
	}{
		"nothing":            {want: profile{}},
		"profile":            {args: []string{"--profile", "rf"}, want: profiles["rf"]},
		"profile, corrected": {args: []string{"--profile", "rf", "--fixed", "1ms"}, want: profile{Fixed: time.Millisecond, PerRow: profiles["rf"].PerRow}},
		"both by hand":       {args: []string{"--fixed", "1ms", "--per-row", "2us", "--factor", "4"}, want: profile{Fixed: 4 * time.Millisecond, PerRow: 8 * time.Microsecond}},
		"greedy":             {args: []string{"--hog"}, want: profile{}},
		"unknown profile":    {args: []string{"--profile", "mlp"}, fault: "kernel_svm, linear_svm, log_reg, noop, rf, spark_svm"},
		"negative":           {args: []string{"--per-row", "-1us"}, fault: "negative"},
		"chance":             {args: []string{"--stall-chance", "2"}, fault: "from 0 to 1"},
		"parallel":           {args: []string{"--parallel", "0"}, fault: "at least 1"},
		"noise":              {args: []string{"--noise", "-1"}, fault: "negative"},
		"stall every":        {args: []string{"--stall-every", "-1"}, fault: "negative"},
		"errors":             {args: []string{"--errors", "1.5"}, fault: "from 0 to 1"},
		"hard":               {args: []string{"--hard", "NaN"}, fault: "from 0 to 1"},
		"argument":           {args: []string{"rf"}, fault: "unexpected"},
	} {
		t.Run(name, func(t *testing.T) {
			m, hog, err := parse(tc.args, io.Discard)
			if tc.fault != "" {
				require.ErrorContains(t, err, tc.fault)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.want, m.(*model).clock.profile)
			require.Equal(t, slices.Contains(tc.args, "--hog"), hog)
		})
	}
}

func TestParse_parallel(t *testing.T) {
	require.NotImplements(t, (*container.ParallelModel)(nil), mustParse(t))
	m := mustParse(t, "--parallel", "4")
	require.Implements(t, (*container.ParallelModel)(nil), m)
	require.EqualValues(t, 4, m.Describe().MaxInFlight)
}

func TestClock(t *testing.T) {
	draw := func(args ...string) []time.Duration {
		c := &mustParse(t, append([]string{"--fixed", "1ms", "--per-row", "10us"}, args...)...).(*model).clock
		ds := make([]time.Duration, 10000)
		for i := range ds {
			ds[i] = c.next(100)
		}
		return ds
	}
	exact := draw()
	require.Equal(t, 2*time.Millisecond, slices.Min(exact))
	require.Equal(t, 2*time.Millisecond, slices.Max(exact))

	noisy := draw("--noise", "0.1")
	require.Equal(t, noisy, draw("--noise", "0.1"), "the same seed")
	require.NotEqual(t, noisy, draw("--noise", "0.1", "--seed", "2"))
	slices.Sort(noisy)
	require.InEpsilon(t, 2e6, float64(noisy[5000]), 0.01, "the median")
	require.InEpsilon(t, 2e6*math.Exp(0.1*2.326), float64(noisy[9900]), 0.02, "the 99th percentile")

	stalled := 0
	for _, d := range draw("--stall-chance", "0.02", "--stall", "5") {
		if d == 10*time.Millisecond {
			stalled++
		}
	}
	require.InDelta(t, 200, stalled, 60)

	var stalls []int
	for i, d := range draw("--stall-every", "300", "--stall", "5") {
		if d == 10*time.Millisecond {
			stalls = append(stalls, i)
		}
	}
	require.Positive(t, stalls[0], "not all begin with a stall")
	require.Less(t, stalls[0], 300)
	for i, at := range stalls {
		require.Equal(t, stalls[0]+300*i, at)
	}
	require.InDelta(t, 10000/300, len(stalls), 1)
}

func TestPredict(t *testing.T) {
	m := mustParse(t, "--fixed", "1ms", "--per-row", "1ms")
	begin := time.Now()
	r, err := m.Predict(t.Context(), &container.Batch{Rows: 3})
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(begin), 4*time.Millisecond)
	require.Len(t, r.Outputs, 1)
	require.Len(t, r.Outputs[0].Data, 3*8)
	require.EqualValues(t, 1, binary.LittleEndian.Uint64(r.Outputs[0].Data[16:]))
	require.Equal(t, m.Describe().Signature.Outputs[0].DataType, r.Outputs[0].DataType)
}

// TestPredict_labels: the errors are as many as wanted, a row gets the same label each time, and only
// the hard rows are wrong with every seed.
func TestPredict_labels(t *testing.T) {
	const rows, width = 20000, 3
	var data []byte
	for i := range rows {
		for _, x := range []float32{float32(i % classes), float32(i), 0} {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(x))
		}
	}
	batch := &container.Batch{Rows: rows, Inputs: []*clipperv1.BatchTensor{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{width}, Data: data}}}
	wrong := func(seed string) []bool {
		m := mustParse(t, "--errors", "0.15", "--hard", "0.08", "--seed", seed)
		r, err := m.Predict(t.Context(), batch)
		require.NoError(t, err)
		all := make([]bool, rows)
		for i := range all {
			label := binary.LittleEndian.Uint64(r.Outputs[0].Data[8*i:])
			require.Less(t, label, uint64(classes))
			all[i] = label != uint64(i%classes)
		}
		return all
	}
	one, two := wrong("1"), wrong("2")
	require.Equal(t, one, wrong("1"))
	each, both := 0, 0
	for i := range rows {
		if one[i] {
			each++
		}
		if one[i] && two[i] {
			both++
		}
	}
	require.InDelta(t, 0.08+0.92*0.15, float64(each)/rows, 0.01)
	require.InDelta(t, 0.08+0.92*0.15*0.15, float64(both)/rows, 0.01)

	_, err := mustParse(t, "--errors", "0.1").Predict(t.Context(), &container.Batch{Rows: 1})
	require.ErrorContains(t, err, "float32")
}

// TestPredict_failures: as many rows fail as wanted, the same each time, and the others are right.
func TestPredict_failures(t *testing.T) {
	const rows = 20000
	var data []byte
	for i := range rows {
		for _, x := range []float32{float32(i % classes), float32(i)} {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(x))
		}
	}
	batch := &container.Batch{Rows: rows, Inputs: []*clipperv1.BatchTensor{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{2}, Data: data}}}
	m := mustParse(t, "--failures", "0.1")
	r, err := m.Predict(t.Context(), batch)
	require.NoError(t, err)
	require.InDelta(t, 0.1, float64(len(r.RowErrors))/rows, 0.01)
	again, err := m.Predict(t.Context(), batch)
	require.NoError(t, err)
	require.Equal(t, r.RowErrors, again.RowErrors)
	for i := range rows {
		require.EqualValues(t, i%classes, binary.LittleEndian.Uint64(r.Outputs[0].Data[8*i:]))
	}

	none, err := mustParse(t, "--errors", "0.1").Predict(t.Context(), batch)
	require.NoError(t, err)
	require.Empty(t, none.RowErrors)
}
