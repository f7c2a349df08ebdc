// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/zeebo/xxh3"

	container "github.com/clipper-serving/clipper/containerrpc/go"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// classes is the number of labels, from 0.
const classes = 10

// labels answers like a classifier of ten classes. The truth about a row is its first number, which
// must be a float32; a share of the rows is answered wrongly. Which rows those are depends on their
// bytes, so that a row gets the same label whenever it is asked about.
type labels struct {
	// errors is the share of errors that are independent of those of other seeds, hard that of rows
	// that get the same wrong label with every seed. An ensemble corrects the first, and not the second.
	errors, hard float64
	// failures is the share of rows that get an error.
	failures float64
	seed     uint64
}

var errRow = errors.New("the row fails, as --failures wants")

// fill writes the label of each row as an int64, and returns the rows that fail.
func (l *labels) fill(dst []byte, b *container.Batch) (failed map[int]error, err error) {
	if len(b.Inputs) != 1 || b.Inputs[0].DataType != clipperv1.DataType_DATA_TYPE_FLOAT32 || len(b.Inputs[0].Data) < 4*b.Rows || b.Rows == 0 {
		return nil, fmt.Errorf("--errors, --hard and --failures want one input of float32 whose first number is the label")
	}
	data := b.Inputs[0].Data
	width := len(data) / b.Rows
	for i := range b.Rows {
		row := data[i*width : (i+1)*width]
		truth := uint64(math.Float32frombits(binary.LittleEndian.Uint32(row))) % classes
		binary.LittleEndian.PutUint64(dst[8*i:], l.label(row, truth))
		// Another seed than that of the labels: a row may fail that would be right.
		if l.failures > 0 && share(xxh3.HashSeed(row, ^l.seed)) < l.failures {
			if failed == nil {
				failed = map[int]error{}
			}
			failed[i] = errRow
		}
	}
	return failed, nil
}

// label returns the answer to a row.
func (l *labels) label(row []byte, truth uint64) uint64 {
	if share(xxh3.Hash(row)) < l.hard {
		return (truth + 1) % classes
	}
	h := xxh3.HashSeed(row, l.seed)
	if share(h) < l.errors {
		return (truth + 1 + h%(classes-1)) % classes
	}
	return truth
}

// share maps a hash to [0, 1).
func share(h uint64) float64 { return float64(h>>11) / (1 << 53) }
