// SPDX-License-Identifier: Apache-2.0

package recorded

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// array is a numpy array as a file has it.
func array(description string, values ...float64) []byte {
	content := append([]byte("\x93NUMPY\x01\x00\x00\x00"), description...)
	binary.LittleEndian.PutUint16(content[8:], uint16(len(description)))
	for _, x := range values {
		content = binary.LittleEndian.AppendUint64(content, math.Float64bits(x))
	}
	return content
}

func zipped(t *testing.T, files ...[]byte) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, content := range files {
		w, err := z.Create("arr_0.npy")
		require.NoError(t, err)
		_, err = w.Write(content)
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	return b.Bytes()
}

func write(t *testing.T, content []byte) string {
	file := filepath.Join(t.TempDir(), "table")
	require.NoError(t, os.WriteFile(file, content, 0o600))
	return file
}

const twoByTwo = "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2), }   \n"

func TestRead(t *testing.T) {
	one := array("{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }\n", 4, 5, 6)
	two := array(twoByTwo, 1, 2, 4, 3)
	for name, content := range map[string][]byte{"plain": two, "zip": zipped(t, two)} {
		t.Run(name, func(t *testing.T) {
			table, err := Read(write(t, content))
			require.NoError(t, err)
			require.Equal(t, 2, table.Rows())
			require.Equal(t, 2, table.Columns())
			require.Equal(t, []float64{4, 3}, table.Row(1))
			require.Equal(t, 1, table.Class(0))
			require.Equal(t, 0, table.Class(1))
		})
	}
	table, err := Read(write(t, one))
	require.NoError(t, err)
	require.Equal(t, 3, table.Rows())
	require.Equal(t, []float64{6}, table.Row(2))
}

func TestRead_errors(t *testing.T) {
	good := array(twoByTwo, 1, 2, 3, 4)
	for name, tc := range map[string]struct {
		content []byte
		fault   string
	}{
		"empty":       {nil, "numpy's format"},
		"text":        {[]byte("1,2,3,4,5,6,7"), "numpy's format"},
		"cut header":  {good[:20], "cut off"},
		"cut data":    {good[:len(good)-1], "does not fit"},
		"too much":    {append(bytes.Clone(good), 0), "does not fit"},
		"32 bits":     {array("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n", 1), "64-bit"},
		"columns":     {array("{'descr': '<f8', 'fortran_order': True, 'shape': (2, 2), }\n", 1, 2, 3, 4), "row by row"},
		"no columns":  {array("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 0), }\n"), "does not fit"},
		"overflow":    {array("{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 4), }\n"), "does not fit"},
		"two arrays":  {zipped(t, good, good), "there are 2 arrays"},
		"zip of text": {zipped(t, []byte("hello, world")), "numpy's format"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Read(write(t, tc.content))
			require.ErrorContains(t, err, tc.fault)
		})
	}
	_, err := Read("none")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestSoftmax(t *testing.T) {
	got := make([]float64, 3)
	Softmax([]float64{1000, 1000, 1000 + math.Log(2)}, got)
	require.InDeltaSlice(t, []float64{.25, .25, .5}, got, 1e-12)
}

// TestReadCIFAR says what the recordings are, so that experiments on them mean something.
func TestReadCIFAR(t *testing.T) {
	c, err := ReadCIFAR(Data(filepath.Join("..", "..")))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("skipped: %v; set %s to the folder that has paper/cifar", err, DataVariable)
	}
	require.NoError(t, err)
	require.Len(t, c.Truth, 10000)
	for network, want := range []float64{.2498, .3573, .1816, .4632, .1043} {
		require.InDelta(t, want, c.Error(network), 1e-9)
	}
}
