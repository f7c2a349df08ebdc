// SPDX-License-Identifier: Apache-2.0

package naturaljson

import (
	"encoding/binary"
	"math"
	"strconv"
	"unsafe"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// number is a JSON number that has been scanned.
type number struct {
	token []byte
	neg   bool
	// digits is the number of digits of the mantissa from its first that is not 0. When it is at
	// most 18, the magnitude is mantissa times ten to the power of exp; otherwise only token counts.
	digits   int
	mantissa uint64
	exp      int
}

// number reads a number; s is at its first byte.
func (s *scanner) number() (number, error) {
	n := number{}
	src, start, i := s.src, s.pos, s.pos
	if i < len(src) && src[i] == '-' {
		n.neg = true
		i++
	}
	whole := i
	mantissa, point := uint64(0), 0
	for ; i < len(src) && src[i]-'0' <= 9; i++ {
		mantissa = mantissa*10 + uint64(src[i]-'0')
	}
	n.digits = i - whole
	if i == whole || (src[whole] == '0' && i > whole+1) {
		s.pos = min(i, whole+1)
		if i == whole {
			return n, s.unexpected("a digit")
		}
		return n, s.unexpected("no digit after a leading 0")
	}
	if i < len(src) && src[i] == '.' {
		i++
		point = i
		for ; i < len(src) && src[i]-'0' <= 9; i++ {
			mantissa = mantissa*10 + uint64(src[i]-'0')
		}
		if i == point {
			s.pos = i
			return n, s.unexpected("a digit")
		}
		n.exp = point - i
		n.digits += i - point
	}
	n.mantissa = mantissa
	if src[whole] == '0' {
		// Zeros before the first other digit say nothing.
		n.digits--
		for j := point; j > 0 && j < i && src[j] == '0'; j++ {
			n.digits--
		}
	}
	if i < len(src) && src[i]|0x20 == 'e' {
		i++
		neg := i < len(src) && src[i] == '-'
		if neg || i < len(src) && src[i] == '+' {
			i++
		}
		first, exp := i, 0
		for ; i < len(src) && src[i]-'0' <= 9; i++ {
			exp = min(exp*10+int(src[i]-'0'), 1<<30)
		}
		if i == first {
			s.pos = i
			return n, s.unexpected("a digit")
		}
		if neg {
			exp = -exp
		}
		n.exp += exp
	}
	n.token = src[start:i]
	s.pos = i
	return n, nil
}

// pow10 holds the powers of ten that a float64 represents exactly.
var pow10 = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// float returns the nearest float of 32 or 64 bits; ok is false when it would be infinite.
//
// When mantissa and power of ten are exact, so that there is a single rounding, one operation gives
// the correctly rounded result (W. D. Clinger, How to Read Floating Point Numbers Accurately, 1990);
// everything else is left to strconv.
func (n *number) float(bits int) (f float64, ok bool) {
	if n.digits <= 15 && n.exp >= -22 && n.exp <= 22 {
		f = float64(n.mantissa)
		if n.exp < 0 {
			f /= pow10[-n.exp]
		} else {
			f *= pow10[n.exp]
		}
		if bits == 64 || narrows(f) {
			if n.neg {
				f = -f
			}
			return f, true
		}
	}
	f, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(n.token), len(n.token)), bits)
	return f, err == nil
}

// narrows reports whether a float64 that was rounded once, and is not negative, can be rounded to
// float32 as if it never had been. The point between two floats of 24 bits is a float of 53, so the
// first rounding crosses none; only a result that is such a point does not tell on which side the
// number was. Where float32 has fewer bits, or none, the points are others.
func narrows(f float64) bool {
	const below = 1<<29 - 1 // The bits that float32 has not.
	return f == 0 || f >= 0x1p-126 && f < math.MaxFloat32 && math.Float64bits(f)&below != 1<<28
}

// integer returns the magnitude of a number that is an integer; integral is false when it is not
// one, and ok is false when it is too large for a uint64.
func (n *number) integer() (magnitude uint64, integral, ok bool) {
	if n.exp == 0 && n.digits <= 18 {
		return n.mantissa, true, true
	}
	if n.digits == 0 {
		return 0, true, true
	}
	// Leave out what does not change the value: zeros at the end of the mantissa.
	digits, exp := make([]byte, 0, len(n.token)), n.exp
	for _, c := range n.token {
		if c|0x20 == 'e' {
			break
		}
		if c >= '0' && c <= '9' && (len(digits) > 0 || c != '0') {
			digits = append(digits, c)
		}
	}
	for digits[len(digits)-1] == '0' {
		digits = digits[:len(digits)-1]
		exp++
	}
	if exp < 0 {
		return 0, false, true
	}
	if len(digits)+exp > 20 {
		return 0, true, false
	}
	for range exp {
		digits = append(digits, '0')
	}
	magnitude, err := strconv.ParseUint(string(digits), 10, 64)
	return magnitude, true, err == nil
}

// problem says why a number cannot be an element.
type problem int

const (
	none problem = iota
	outOfRange
	notIntegral
)

// appendNumber appends a number as an element of a numeric type.
func appendNumber(b []byte, t clipperv1.DataType, n *number) ([]byte, problem) {
	le := binary.LittleEndian
	switch t {
	case clipperv1.DataType_DATA_TYPE_FLOAT64:
		f, ok := n.float(64)
		if !ok {
			return b, outOfRange
		}
		return le.AppendUint64(b, math.Float64bits(f)), none
	case clipperv1.DataType_DATA_TYPE_FLOAT32:
		f, ok := n.float(32)
		if !ok {
			return b, outOfRange
		}
		return le.AppendUint32(b, math.Float32bits(float32(f))), none
	case clipperv1.DataType_DATA_TYPE_FLOAT16, clipperv1.DataType_DATA_TYPE_BFLOAT16:
		f, ok := n.float(64)
		half := float16
		if t == clipperv1.DataType_DATA_TYPE_BFLOAT16 {
			half = bfloat16
		}
		bits, fits := half(math.Abs(f))
		if !ok || !fits {
			return b, outOfRange
		}
		if n.neg {
			bits |= 1 << 15
		}
		return le.AppendUint16(b, bits), none
	}
	magnitude, integral, ok := n.integer()
	if !integral {
		return b, notIntegral
	}
	bits := 8 * tensor.Size(t)
	unsigned := t >= clipperv1.DataType_DATA_TYPE_UINT8 && t <= clipperv1.DataType_DATA_TYPE_UINT64
	largest := uint64(math.MaxUint64) >> (64 - bits)
	switch {
	case unsigned && n.neg:
		largest = 0
	case !unsigned && n.neg:
		largest = largest>>1 + 1
	case !unsigned:
		largest >>= 1
	}
	if !ok || magnitude > largest {
		return b, outOfRange
	}
	if n.neg {
		magnitude = -magnitude
	}
	switch bits {
	case 8:
		return append(b, byte(magnitude)), none
	case 16:
		return le.AppendUint16(b, uint16(magnitude)), none
	case 32:
		return le.AppendUint32(b, uint32(magnitude)), none
	}
	return le.AppendUint64(b, magnitude), none
}

// float16 rounds f, which is not negative, to the nearest IEEE 754 binary16, ties to even.
func float16(f float64) (bits uint16, ok bool) {
	if f >= 65520 {
		return 0, false
	}
	if f < 0x1p-14 {
		return uint16(math.RoundToEven(f * 0x1p24)), true
	}
	frac, exp := math.Frexp(f) // In [0.5, 1). A fraction that is rounded up to 1 carries into the exponent.
	return uint16(exp+14)<<10 + uint16(math.RoundToEven(frac*2048)) - 1024, true
}

// bfloat16 rounds f, which is not negative, to the nearest bfloat16, ties to even.
func bfloat16(f float64) (bits uint16, ok bool) {
	frac, exp := math.Frexp(f)
	// A bfloat16 has 8 bits of mantissa, or fewer when it is less than 2^-126.
	places := min(8, exp+133)
	rounded := float32(math.Ldexp(math.RoundToEven(math.Ldexp(frac, places)), exp-places))
	return uint16(math.Float32bits(rounded) >> 16), !math.IsInf(float64(rounded), 0)
}
