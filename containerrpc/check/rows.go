// SPDX-License-Identifier: Apache-2.0

package check

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/clipper-serving/clipper/frontend/naturaljson"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

const (
	// maxElements is the most elements that a sample may have.
	maxElements = 1 << 26
	// madeUpRows is how many different rows are made up.
	madeUpRows = 7
	// openLength is the length that is made up for a dimension of any length.
	openLength = 3
)

// row is the tensors of one input.
type row []*clipperv1.Tensor

// prepare makes the rows that the checks send.
func (c *checker) prepare() error {
	specs := c.description.GetSignature().GetInputs()
	for _, sample := range c.Samples {
		r, err := c.sample(sample)
		if err != nil {
			return err
		}
		c.rows = append(c.rows, r)
	}
	if len(c.rows) > 0 {
		return nil
	}
	c.madeUp = true
	if len(specs) == 0 {
		specs = []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT64, Shape: []int64{4}}}
	}
	for k := range madeUpRows {
		c.rows = append(c.rows, makeRow(specs, k, openLength))
	}
	return nil
}

func (c *checker) sample(text []byte) (row, error) {
	specs := c.description.GetSignature().GetInputs()
	r, err := naturaljson.Decode(text, specs, maxElements)
	if err == nil {
		err = tensor.CheckInput(r, c.description.GetSignature())
	}
	if err != nil {
		return nil, fmt.Errorf("the sample %.60q does not fit the signature that the container describes: %w. Correct the sample or the signature", text, err)
	}
	return r, nil
}

// makeRow makes row k up; open is the length of the dimensions that have none.
func makeRow(specs []*clipperv1.TensorSpec, k int, open int64) row {
	var r row
	for _, spec := range specs {
		t := &clipperv1.Tensor{Name: spec.Name, DataType: spec.DataType, Shape: slices.Clone(spec.Shape)}
		if t.DataType == clipperv1.DataType_DATA_TYPE_UNSPECIFIED {
			t.DataType = clipperv1.DataType_DATA_TYPE_FLOAT64
		}
		if spec.AnyShape {
			t.Shape = []int64{open}
		}
		for i, d := range t.Shape {
			if d < 0 {
				t.Shape[i] = open
			}
		}
		n, _ := tensor.Elements(t.Shape)
		for i := range int(n) {
			appendElement(t, k, i)
		}
		r = append(r, t)
	}
	return r
}

// appendElement makes element i of row k up: small, so that it may be an index or a probability, and
// such that rows differ.
func appendElement(t *clipperv1.Tensor, k, i int) {
	le := binary.LittleEndian
	x := float64((7*k+3*i)%16) / 16
	n := uint64((3*k + i) % 8) //nolint:gosec // Small.
	switch t.DataType {
	case clipperv1.DataType_DATA_TYPE_STRING:
		t.Strings = append(t.Strings, fmt.Sprintf("sample %d of row %d", i, k))
	case clipperv1.DataType_DATA_TYPE_BYTES:
		t.ByteStrings = append(t.ByteStrings, []byte{byte(k), byte(i), 0, 255}) //nolint:gosec // Any byte will do.
	case clipperv1.DataType_DATA_TYPE_BOOL:
		t.Data = append(t.Data, byte(k>>(i%3)&1)) //nolint:gosec // 0 or 1.
	case clipperv1.DataType_DATA_TYPE_FLOAT64:
		t.Data = le.AppendUint64(t.Data, math.Float64bits(x))
	case clipperv1.DataType_DATA_TYPE_FLOAT32:
		t.Data = le.AppendUint32(t.Data, math.Float32bits(float32(x)))
	case clipperv1.DataType_DATA_TYPE_BFLOAT16:
		t.Data = le.AppendUint16(t.Data, uint16(math.Float32bits(float32(x))>>16)) //nolint:gosec // The upper half.
	case clipperv1.DataType_DATA_TYPE_FLOAT16:
		t.Data = le.AppendUint16(t.Data, float16(x))
	default:
		t.Data = append(t.Data, le.AppendUint64(nil, n)[:tensor.Size(t.DataType)]...)
	}
}

// float16 returns the binary16 of a multiple of 1/16 from 0 to 1.
func float16(x float64) uint16 {
	if x == 0 {
		return 0
	}
	fraction, exponent := math.Frexp(x) // fraction is from 0.5 to 1.
	return uint16(exponent+14)<<10 | uint16((2*fraction-1)*1024)
}

// batchOf gathers rows, which have the same tensors.
func batchOf(id uint64, rows []row) *clipperv1.PredictRequest {
	req := &clipperv1.PredictRequest{Id: id, Rows: uint32(len(rows))} //nolint:gosec // Few.
	for j, first := range rows[0] {
		b := &clipperv1.BatchTensor{Name: first.Name, DataType: first.DataType, Shape: first.Shape}
		for _, r := range rows {
			b.Data = append(b.Data, r[j].Data...)
			b.Strings = append(b.Strings, r[j].Strings...)
			b.ByteStrings = append(b.ByteStrings, r[j].ByteStrings...)
		}
		if slices.ContainsFunc(rows, func(r row) bool { return !slices.Equal(r[j].Shape, first.Shape) }) {
			b.Shape = nil
			for _, r := range rows {
				b.RowShapes = append(b.RowShapes, &clipperv1.Shape{Dims: r[j].Shape})
			}
		}
		req.Inputs = append(req.Inputs, b)
	}
	return req
}

// repeat returns n rows, the checker's in turn. They are of one shape where it is uniform.
func (c *checker) repeat(n int) []row {
	rows := make([]row, n)
	for i := range rows {
		rows[i] = c.rows[i%len(c.rows)]
	}
	return rows
}

// limit returns n, or the most rows that the container takes.
func (c *checker) limit(n int) int {
	if m := int(c.description.MaxBatchRows); m > 0 {
		return min(n, m)
	}
	return n
}

// pad makes a message larger by a field that is not known, which costs the model nothing.
func pad(req *clipperv1.PredictRequest, n int) {
	field := protowire.AppendTag(nil, 1000, protowire.BytesType)
	req.ProtoReflect().SetUnknown(protowire.AppendBytes(field, make([]byte, n)))
}

// tolerance is how much elements may differ, relative to the largest of the tensor: libraries add up in
// another order for another size of batch.
func tolerance(t clipperv1.DataType) float64 {
	switch t {
	case clipperv1.DataType_DATA_TYPE_FLOAT64:
		return 1e-6
	case clipperv1.DataType_DATA_TYPE_FLOAT32:
		return 1e-4
	case clipperv1.DataType_DATA_TYPE_FLOAT16, clipperv1.DataType_DATA_TYPE_BFLOAT16:
		return 2e-2
	}
	return 0
}

// equal reports whether two rows have the same outputs, but for rounding.
func equal(a, b []*clipperv1.Tensor) bool {
	return slices.EqualFunc(a, b, func(a, b *clipperv1.Tensor) bool {
		limit := tolerance(a.DataType)
		if limit == 0 || a.DataType != b.DataType || !slices.Equal(a.Shape, b.Shape) {
			return tensor.EqualAll([]*clipperv1.Tensor{a}, []*clipperv1.Tensor{b})
		}
		n, _ := tensor.Elements(a.Shape)
		largest := 0.0
		for i := range int(n) {
			if x := math.Abs(tensor.Float(a, i)); !math.IsInf(x, 0) && x > largest {
				largest = x
			}
		}
		for i := range int(n) {
			x, y := tensor.Float(a, i), tensor.Float(b, i)
			if x != y && !(math.IsNaN(x) && math.IsNaN(y)) && !(math.Abs(x-y) <= limit*largest) {
				return false
			}
		}
		return true
	})
}
