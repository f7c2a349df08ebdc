// SPDX-License-Identifier: Apache-2.0

// Package features makes of any numeric input the few numbers that a contextual policy sees.
//
// The numbers of all tensors of an input, in their order, are x_0 … x_n−1. When there are at most d
// they are the features, followed by zeros. Otherwise they are projected at random to d numbers:
//
//	f_k = Σ s_i · x_i over the i with r_i = k
//
// where the row r_i and the sign s_i are made of i alone, by a hash with a constant seed. It is a
// sparse random projection, as in Weinberger et al., "Feature hashing for large scale multitask
// learning" (2009): inner products are kept in expectation, each number costs one addition, and
// every instance of every version projects alike. Then f is divided by its norm if this is more than
// 1, so that its norm is at most 1, and a constant 1 is appended.
//
// So what distinguishes inputs should be numbers of a size around 1 in a vector of a norm around 1: of
// larger ones only the direction is seen, and a number that is much larger than the others hides them.
package features

import (
	"fmt"
	"math"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// seed is a part of what was learned: it must not change.
const seed = 0x636c6970706572 // "clipper"

// Append appends dimension features to dst, the last of which is the constant. They are exact as
// float32. Numbers that are not finite and tensors without numbers count as nothing.
func Append(dst []float64, tensors []*clipperv1.Tensor, dimension int) []float64 {
	from, d := len(dst), dimension-1
	if d < 1 {
		return append(dst, 1)
	}
	for range d {
		dst = append(dst, 0)
	}
	f := dst[from:]
	total := 0
	for _, t := range tensors {
		total += count(t)
	}
	i := 0
	for _, t := range tensors {
		for k := range count(t) {
			x := tensor.Float(t, k)
			switch {
			case math.IsNaN(x) || math.IsInf(x, 0):
			case total <= d:
				f[i] = x
			default:
				row, sign := project(uint64(i), d)
				f[row] += sign * x
			}
			i++
		}
	}
	scale(f)
	return append(dst, 1)
}

// count returns how many numbers a tensor has.
func count(t *clipperv1.Tensor) int {
	size := tensor.Size(t.GetDataType())
	if size == 0 {
		return 0
	}
	return len(t.GetData()) / size
}

// project returns the row and the sign of the number i: splitmix64 of it (Steele, Lea and Flood, "Fast
// splittable pseudorandom number generators", 2014), whose upper half says the row.
func project(i uint64, rows int) (row int, sign float64) {
	z := seed + (i+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	return int((z >> 32) * uint64(rows) >> 32), 1 - 2*float64(z&1)
}

// scale divides by the norm if that is more than 1, and rounds to float32.
func scale(f []float64) {
	largest := 0.0
	for _, x := range f {
		largest = max(largest, math.Abs(x))
	}
	if math.IsInf(largest, 0) { // Sums of the largest numbers overflow; they tell nothing any more.
		clear(f)
		return
	}
	norm := 1.0
	if largest > 0 {
		sum := 0.0
		for _, x := range f {
			sum += x / largest * (x / largest) // A square alone may overflow.
		}
		norm = max(largest*math.Sqrt(sum), 1)
	}
	for i, x := range f {
		f[i] = float64(float32(x / norm))
	}
}

// Check returns why inputs of these specifications have no features, or nil. It is fit to be shown to a
// caller.
func Check(inputs []*clipperv1.TensorSpec) error {
	if len(inputs) == 0 {
		return fmt.Errorf("the application declares no inputs, want at least one of numbers")
	}
	for i, spec := range inputs {
		name := fmt.Sprintf("input %d", i)
		if spec.GetName() != "" {
			name = fmt.Sprintf("the input %q", spec.GetName())
		}
		switch t := spec.GetDataType(); {
		case t == clipperv1.DataType_DATA_TYPE_UNSPECIFIED:
			return fmt.Errorf("%s may be of any type, want a numeric type", name)
		case tensor.Size(t) == 0:
			return fmt.Errorf("%s is of type %s, want a numeric type", name, tensor.TypeName(t))
		}
	}
	return nil
}
