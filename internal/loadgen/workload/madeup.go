// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// openLength is the length that is made up for a dimension of any length.
const openLength = 4

// MakeUp makes an input up, the same one for the same seed and number: numbers from 0 to 1, integers from 0 to 9,
// short texts.
func MakeUp(specs []*clipperv1.TensorSpec, seed, number uint64) []*clipperv1.Tensor {
	random := rand.New(rand.NewPCG(seed, number)) //nolint:gosec // Made up.
	var tensors []*clipperv1.Tensor
	for _, spec := range specs {
		t := &clipperv1.Tensor{DataType: spec.GetDataType(), Shape: slices.Clone(spec.GetShape())}
		if len(specs) > 1 { // A single one needs no name.
			t.Name = spec.GetName()
		}
		for i, n := range t.Shape {
			if n < 0 {
				t.Shape[i] = openLength
			}
		}
		n, _ := tensor.Elements(t.Shape)
		for range n {
			appendElement(t, random)
		}
		tensors = append(tensors, t)
	}
	return tensors
}

func appendElement(t *clipperv1.Tensor, random *rand.Rand) {
	le := binary.LittleEndian
	x := random.Float64()
	switch t.DataType {
	case clipperv1.DataType_DATA_TYPE_STRING:
		t.Strings = append(t.Strings, fmt.Sprintf("made up %d", random.Uint32()))
	case clipperv1.DataType_DATA_TYPE_BOOL:
		t.Data = append(t.Data, byte(random.IntN(2))) //nolint:gosec // 0 or 1.
	case clipperv1.DataType_DATA_TYPE_FLOAT64:
		t.Data = le.AppendUint64(t.Data, math.Float64bits(x))
	case clipperv1.DataType_DATA_TYPE_FLOAT32:
		t.Data = le.AppendUint32(t.Data, math.Float32bits(float32(x)))
	case clipperv1.DataType_DATA_TYPE_BFLOAT16:
		t.Data = le.AppendUint16(t.Data, uint16(math.Float32bits(float32(x))>>16)) //nolint:gosec // The upper half.
	case clipperv1.DataType_DATA_TYPE_FLOAT16: // From 0.5 to 1: the exponent is fixed, the fraction free.
		t.Data = le.AppendUint16(t.Data, 14<<10|uint16(random.IntN(1<<10))) //nolint:gosec // Ten bits.
	default:
		t.Data = append(t.Data, le.AppendUint64(nil, random.Uint64N(10))[:tensor.Size(t.DataType)]...)
	}
}
