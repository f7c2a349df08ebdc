// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/clipper-serving/clipper/abstraction/prediction"
	"github.com/clipper-serving/clipper/abstraction/queue"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// keptBytes is the size up to which a batch's buffers are used again.
const keptBytes = 1 << 20

// batch is what is sent in one message. Its memory is used again when it is answered: gRPC has
// encoded a message when Send returns, and nothing else looks at it.
type batch struct {
	items    []queue.Item
	request  clipperv1.PredictRequest
	sent     time.Time
	deadline time.Time // the latest of the rows', or sent when one has none
	latency  time.Duration
	warmUp   chan warmUpResult // where the result of a warm-up batch goes; nil for queries
	ahead    bool              // it was sent while another was under way
}

// prepare makes the message of the batch's items.
func (b *batch) prepare(id uint64) {
	b.sent = time.Now()
	b.deadline = b.items[0].Request.Deadline
	for i := range b.items {
		d := b.items[i].Request.Deadline
		if d.IsZero() {
			b.deadline = time.Time{}
			break
		}
		if d.After(b.deadline) {
			b.deadline = d
		}
	}
	req := &b.request
	req.Id, req.Rows, req.TimeoutMicros = id, uint32(len(b.items)), 0
	if b.deadline.IsZero() {
		b.deadline = b.sent
	} else {
		req.TimeoutMicros = uint64(max(1, b.deadline.Sub(b.sent).Microseconds()))
	}
	first, _ := b.items[0].Request.Input.Tensors() // The queue has read every input.
	for len(req.Inputs) < len(first) {
		req.Inputs = append(req.Inputs, &clipperv1.BatchTensor{})
	}
	req.Inputs = req.Inputs[:len(first)]
	for j := range first {
		b.gather(req.Inputs[j], j)
	}
}

// gather puts tensor j of every row into one.
func (b *batch) gather(dst *clipperv1.BatchTensor, j int) {
	row := func(i int) *clipperv1.Tensor {
		tensors, _ := b.items[i].Request.Input.Tensors()
		return tensors[j]
	}
	first := row(0)
	dst.Name, dst.DataType, dst.Shape = first.Name, first.DataType, first.Shape
	dst.Data, dst.Strings, dst.ByteStrings, dst.RowShapes = dst.Data[:0], dst.Strings[:0], dst.ByteStrings[:0], dst.RowShapes[:0]
	dst.Data = slices.Grow(dst.Data, len(first.Data)*len(b.items))
	uniform := true
	for i := range b.items {
		t := row(i)
		uniform = uniform && slices.Equal(t.Shape, first.Shape)
		dst.Data = append(dst.Data, t.Data...)
		dst.Strings = append(dst.Strings, t.Strings...)
		dst.ByteStrings = append(dst.ByteStrings, t.ByteStrings...)
	}
	if uniform {
		return
	}
	dst.Shape = nil
	for i := range b.items {
		dst.RowShapes = append(dst.RowShapes, &clipperv1.Shape{Dims: row(i).Shape})
	}
}

// reset lets go of requests and of large buffers.
func (b *batch) reset() {
	clear(b.items)
	b.items = b.items[:0]
	for _, t := range b.request.Inputs {
		clear(t.Strings)
		clear(t.ByteStrings)
		clear(t.RowShapes)
		if cap(t.Data) > keptBytes {
			t.Data = nil
		}
	}
}

// fail gives every row the same error.
func (b *batch) fail(err *prediction.Error) {
	res := prediction.Result{Err: err}
	for i := range b.items {
		b.items[i].Request.Reply(res)
	}
}

// reply gives each row its outputs or its error and returns the number of errors. outputs are the
// rows' tensors, one row after the other; rowErrors are sorted by row.
func (b *batch) reply(outputs []*clipperv1.Tensor, rowErrors []*clipperv1.RowError) int {
	width := len(outputs) / len(b.items)
	bad := rowErrors
	for i := range b.items {
		if len(bad) > 0 && int(bad[0].GetRow()) == i {
			b.items[i].Request.Reply(prediction.Result{Err: containerError(bad[0].Error)})
			bad = bad[1:]
			continue
		}
		b.items[i].Request.Reply(prediction.Result{Outputs: outputs[i*width : (i+1)*width : (i+1)*width]})
	}
	return len(rowErrors)
}

// Split cuts the container's outputs into rows without copying elements: the result holds the
// tensors of row 0, then those of row 1, and so on. The error says how the answer breaks the
// protocol or the signature.
func Split(resp *clipperv1.PredictResponse, rows int, specs []*clipperv1.TensorSpec) ([]*clipperv1.Tensor, error) {
	slices.SortFunc(resp.RowErrors, func(a, b *clipperv1.RowError) int { return cmp.Compare(a.GetRow(), b.GetRow()) })
	last := -1
	for _, e := range resp.RowErrors {
		row := int(e.GetRow())
		if row >= rows {
			return nil, fmt.Errorf("it has an error for row %d of %d", row, rows)
		}
		if row == last {
			return nil, fmt.Errorf("it has two errors for row %d", row)
		}
		last = row
	}
	width := len(resp.Outputs)
	if width == 0 && len(resp.RowErrors) < rows {
		return nil, fmt.Errorf("it has no outputs")
	}
	if width > 0 && len(specs) > 0 && width != len(specs) {
		return nil, fmt.Errorf("it has %d outputs, the signature %d", width, len(specs))
	}
	tensors := make([]clipperv1.Tensor, rows*width)
	out := make([]*clipperv1.Tensor, rows*width)
	for j, bt := range resp.Outputs {
		var spec *clipperv1.TensorSpec
		if len(specs) > 0 {
			spec = specs[j]
		}
		if err := splitTensor(bt, rows, spec, tensors[j:], out[j:], width); err != nil {
			return nil, fmt.Errorf("output %d (%q): %w", j, bt.Name, err)
		}
	}
	return out, nil
}

// splitTensor cuts one output; row i goes to index i·stride.
func splitTensor(bt *clipperv1.BatchTensor, rows int, spec *clipperv1.TensorSpec, tensors []clipperv1.Tensor, out []*clipperv1.Tensor, stride int) error {
	if spec != nil {
		if bt.Name != spec.Name {
			return fmt.Errorf("the signature names it %q", spec.Name)
		}
		if spec.DataType != clipperv1.DataType_DATA_TYPE_UNSPECIFIED && bt.DataType != spec.DataType {
			return fmt.Errorf("it has type %s, the signature says %s", tensor.TypeName(bt.DataType), tensor.TypeName(spec.DataType))
		}
	}
	width := tensor.Size(bt.DataType) // Of an element in Data; 0 when elements are elsewhere.
	var have int
	switch {
	case bt.DataType == clipperv1.DataType_DATA_TYPE_STRING:
		have = len(bt.Strings)
	case bt.DataType == clipperv1.DataType_DATA_TYPE_BYTES:
		have = len(bt.ByteStrings)
	case width == 0:
		return fmt.Errorf("data_type %d is not known", int32(bt.DataType))
	case len(bt.Data)%width != 0:
		return fmt.Errorf("%d bytes are no whole number of %s", len(bt.Data), tensor.TypeName(bt.DataType))
	default:
		have = len(bt.Data) / width
	}
	if len(bt.RowShapes) > 0 && len(bt.RowShapes) != rows {
		return fmt.Errorf("it has %d rows, the batch %d", len(bt.RowShapes), rows)
	}
	shape := bt.Shape
	begin := 0
	for i := range rows {
		if len(bt.RowShapes) > 0 {
			shape = bt.RowShapes[i].GetDims()
		}
		if i == 0 || len(bt.RowShapes) > 0 {
			if spec != nil && !tensor.FitsShape(shape, spec) {
				return fmt.Errorf("it has shape %v, the signature says %v", shape, spec.Shape)
			}
		}
		n, ok := tensor.Elements(shape)
		end := begin + int(n)
		if !ok || end > have {
			return fmt.Errorf("it has %d elements, too few for %d rows of shape %v", have, rows, shape)
		}
		t := &tensors[i*stride]
		t.Name, t.DataType, t.Shape = bt.Name, bt.DataType, shape
		switch bt.DataType {
		case clipperv1.DataType_DATA_TYPE_STRING:
			t.Strings = bt.Strings[begin:end:end]
		case clipperv1.DataType_DATA_TYPE_BYTES:
			t.ByteStrings = bt.ByteStrings[begin:end:end]
		default:
			t.Data = bt.Data[begin*width : end*width : end*width]
		}
		out[i*stride] = t
		begin = end
	}
	if begin != have {
		return fmt.Errorf("it has %d elements, too many for %d rows of shape %v", have, rows, shape)
	}
	return nil
}
