// SPDX-License-Identifier: Apache-2.0

// Package recorded reads recorded predictions: tables that are numpy arrays in files, with or without a
// zip around them (".npz"). Replaying them through the system needs no model and no framework.
package recorded

import (
	"archive/zip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
)

// DataVariable is the environment variable with the folder of the recorded data.
const DataVariable = "CLIPPER_DATA"

// maxBytes bounds a file: a table is read as a whole.
const maxBytes = 1 << 30

// Table is rows of equal length. Immutable, safe for concurrent use.
type Table struct {
	values  []float64
	columns int
}

// NewTable returns a table of its values, row by row. They are shared; their number is a multiple of columns,
// which is at least 1.
func NewTable(values []float64, columns int) *Table {
	return &Table{values: values, columns: columns}
}

// Rows returns how many rows there are.
func (t *Table) Rows() int { return len(t.values) / t.columns }

// Columns returns how long a row is.
func (t *Table) Columns() int { return t.columns }

// Row returns row i, from 0. It is shared: do not modify it.
func (t *Table) Row(i int) []float64 {
	return t.values[i*t.columns : (i+1)*t.columns : (i+1)*t.columns]
}

// Class returns the place of the largest value in a row, the first of several.
func (t *Table) Class(i int) int { return Largest(t.Row(i)) }

// Largest returns the place of the largest value, the first of several.
func Largest(row []float64) int {
	best := 0
	for k, x := range row {
		if x > row[best] {
			best = k
		}
	}
	return best
}

// Read reads the one array of a file: of 64-bit floats, with one dimension or two.
func Read(path string) (*Table, error) {
	t, err := read(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return t, nil
}

func read(path string) (*Table, error) {
	archive, err := zip.OpenReader(path)
	if errors.Is(err, zip.ErrFormat) {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }()
		return readArray(file)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = archive.Close() }()
	if n := len(archive.File); n != 1 {
		return nil, fmt.Errorf("there are %d arrays, want one", n)
	}
	file, err := archive.File[0].Open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return readArray(file)
}

// header finds in the description of an array what is to be known of it; the format is that of
// numpy.lib.format, version 1.
var header = regexp.MustCompile(`^\{'descr': '<f8', 'fortran_order': False, 'shape': \((\d+),(?: (\d+))?\), \}\s*$`)

const (
	magic  = "\x93NUMPY\x01"
	prefix = 10 // magic, minor version and the header's length
)

func readArray(r io.Reader) (*Table, error) {
	content, err := io.ReadAll(io.LimitReader(r, maxBytes))
	if err != nil {
		return nil, err
	}
	if len(content) < prefix || string(content[:len(magic)]) != magic {
		return nil, errors.New("it is not an array in numpy's format, version 1")
	}
	data := prefix + int(binary.LittleEndian.Uint16(content[prefix-2:]))
	if len(content) < data {
		return nil, errors.New("the array's header is cut off")
	}
	found := header.FindSubmatch(content[prefix:data])
	if found == nil {
		return nil, errors.New("want an array of little-endian 64-bit floats, row by row, with one dimension or two")
	}
	columns := 1
	rows, err := strconv.Atoi(string(found[1]))
	if err == nil && found[2] != nil {
		columns, err = strconv.Atoi(string(found[2]))
	}
	if err != nil || columns == 0 || rows > maxBytes/8/columns || len(content)-data != 8*rows*columns {
		return nil, errors.New("the array's shape does not fit its data")
	}
	values := make([]float64, rows*columns)
	for i := range values {
		values[i] = math.Float64frombits(binary.LittleEndian.Uint64(content[data+8*i:]))
	}
	return NewTable(values, columns), nil
}

// CIFAR is what five networks said about the 10,000 test images of CIFAR-10, as the authors of the Clipper paper
// recorded it for its figures 7 and 8.
type CIFAR struct {
	// Files are where the tables of the networks are, Networks what is in them: a number for each of the
	// ten classes in a row, as they leave the last layer, before any softmax.
	Files    []string
	Networks []*Table
	// Truth are the true classes.
	Truth []int64
}

// Data returns the folder of the recorded data: DataVariable, or the one beside a checkout.
func Data(checkout string) string {
	if folder := os.Getenv(DataVariable); folder != "" {
		return folder
	}
	return filepath.Join(checkout, "..", "shared", "data")
}

// ReadCIFAR reads the recordings below a data folder. When there are none, the error is fs.ErrNotExist.
func ReadCIFAR(data string) (*CIFAR, error) {
	const networks, classes = 5, 10
	folder := filepath.Join(data, "paper", "cifar")
	targets, err := Read(filepath.Join(folder, "targets.npz.zip"))
	if err != nil {
		return nil, err
	}
	c := &CIFAR{Truth: make([]int64, targets.Rows())}
	for i := range c.Truth {
		c.Truth[i] = int64(targets.Row(i)[0])
	}
	for i := range networks {
		file := filepath.Join(folder, fmt.Sprintf("cifar_prob_features%d.npz.zip", i+1))
		t, err := Read(file)
		if err != nil {
			return nil, err
		}
		if t.Columns() != classes || t.Rows() != len(c.Truth) {
			return nil, fmt.Errorf("%s: there are %d rows of %d, want %d of %d", file, t.Rows(), t.Columns(), len(c.Truth), classes)
		}
		c.Files, c.Networks = append(c.Files, file), append(c.Networks, t)
	}
	return c, nil
}

// Softmax writes the softmax of a row to dst, which is as long.
func Softmax(row, dst []float64) {
	largest, sum := row[Largest(row)], 0.0
	for k, x := range row {
		dst[k] = math.Exp(x - largest)
		sum += dst[k]
	}
	for k := range dst {
		dst[k] /= sum
	}
}

// Error returns the share of the rows whose largest value is not at the true class.
func (c *CIFAR) Error(network int) float64 {
	wrong := 0
	for i, truth := range c.Truth {
		if int64(c.Networks[network].Class(i)) != truth {
			wrong++
		}
	}
	return float64(wrong) / float64(len(c.Truth))
}
