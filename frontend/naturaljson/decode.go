// SPDX-License-Identifier: Apache-2.0

package naturaljson

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// root is what paths begin with: the member of a request that holds an input.
const root = "input"

// Decode reads the JSON text of one query's input by the specifications of a signature and returns
// the tensors in their order. Without specifications, numbers become float64, strings string,
// booleans bool and {"b64": "..."} bytes; named tensors are then sorted by name.
//
// One tensor is a bare value, or an object of one member with the specification's name. Several are
// an object. A dimension of -1 takes the length that the list has. All tensors together may have
// maxElements elements. The error is an [*Error]. The tensors do not refer to text.
func Decode(text []byte, specs []*clipperv1.TensorSpec, maxElements int64) ([]*clipperv1.Tensor, error) {
	d := decoder{scanner: scanner{src: text, path: root}, max: maxElements, left: maxElements}
	var (
		tensors []*clipperv1.Tensor
		err     error
	)
	switch key, object := d.firstKey(); {
	case len(specs) == 1 && (!object || key == "b64" && specs[0].GetName() != key || specs[0].GetName() == ""):
		tensors, err = d.bare(specs[0])
	case len(specs) == 0 && (!object || key == "b64"):
		tensors, err = d.bare(&anything)
	case !object:
		err = d.errorAt(d.pos, inputShape, "is %s, expected an object with the members %s", describe(d.rest()), names(specs))
	case len(specs) == 0:
		tensors, err = d.unknown()
	default:
		tensors, err = d.named(specs)
	}
	if err == nil {
		d.path = ""
		err = d.end()
	}
	if err != nil {
		return nil, err
	}
	return tensors, nil
}

// anything is the specification of an input whose signature is not known.
var anything = clipperv1.TensorSpec{AnyShape: true}

// decoder reads one input.
type decoder struct {
	scanner
	max, left int64 // Elements allowed, and still allowed.

	// The tensor that is being read:
	spec    *clipperv1.TensorSpec
	out     *clipperv1.Tensor
	rank    int     // -1 until it is known.
	lengths []int64 // Of each dimension; -1 until it is known.
	index   []int64 // Where in the nested lists the decoder is.
	ranks   [8]int64
	indices [8]int64
}

// firstKey reports whether the text is an object, and its first key.
func (d *decoder) firstKey() (key string, object bool) {
	if d.peek() != '{' {
		return "", false
	}
	ahead := d.scanner
	ahead.pos++
	if ahead.peek() == '"' {
		key, _ = ahead.text()
	}
	return key, true
}

func (d *decoder) rest() []byte {
	d.space()
	return d.src[d.pos:]
}

func (d *decoder) bare(spec *clipperv1.TensorSpec) ([]*clipperv1.Tensor, error) {
	t, err := d.tensor(spec, spec.GetName())
	if err != nil {
		return nil, err
	}
	return []*clipperv1.Tensor{t}, nil
}

func (d *decoder) named(specs []*clipperv1.TensorSpec) ([]*clipperv1.Tensor, error) {
	tensors := make([]*clipperv1.Tensor, len(specs))
	err := d.members(func(key string, at int) error {
		i := slices.IndexFunc(specs, func(s *clipperv1.TensorSpec) bool { return s.GetName() == key })
		switch {
		case i < 0:
			return d.errorf(at, "unknown key %q, expected %s", key, names(specs))
		case tensors[i] != nil:
			return d.errorf(at, "key %q is repeated", key)
		}
		t, err := d.tensor(specs[i], key)
		tensors[i] = t
		return err
	})
	if err != nil {
		return nil, err
	}
	for i, t := range tensors {
		if t == nil {
			d.path = join(root, specs[i].GetName())
			return nil, d.errorAt(d.pos, missingField, "is missing, expected %s", expectation(specs[i]))
		}
	}
	return tensors, nil
}

func (d *decoder) unknown() ([]*clipperv1.Tensor, error) {
	var tensors []*clipperv1.Tensor
	err := d.members(func(key string, at int) error {
		switch {
		case key == "":
			return d.errorf(at, "the key is empty, expected the name of an input")
		case slices.ContainsFunc(tensors, func(t *clipperv1.Tensor) bool { return t.Name == key }):
			return d.errorf(at, "key %q is repeated", key)
		case len(tensors) == maxInputs:
			return d.errorAt(at, tooLarge, "has more than %d members", maxInputs)
		}
		t, err := d.tensor(&anything, key)
		tensors = append(tensors, t)
		return err
	})
	if err == nil && len(tensors) == 0 {
		err = d.errorAt(d.pos, inputShape, "is an empty object, expected at least one named input")
	}
	slices.SortFunc(tensors, func(a, b *clipperv1.Tensor) int { return strings.Compare(a.GetName(), b.GetName()) })
	return tensors, err
}

// members calls f behind each key of an object; f reads the value.
func (d *decoder) members(f func(key string, at int) error) error {
	d.open('{')
	first := true
	for {
		d.path = root
		done, err := d.next(&first, '}')
		if err != nil || done {
			return err
		}
		at := d.pos
		key, err := d.key()
		if err != nil {
			return err
		}
		d.path = join(root, key)
		if err := f(key, at); err != nil {
			return err
		}
	}
}

// tensor reads one tensor.
func (d *decoder) tensor(spec *clipperv1.TensorSpec, name string) (*clipperv1.Tensor, error) {
	d.spec = spec
	d.out = &clipperv1.Tensor{Name: name, DataType: spec.GetDataType()}
	d.rank, d.lengths, d.index = -1, d.ranks[:0], d.indices[:0]
	if !spec.GetAnyShape() {
		d.rank = len(spec.GetShape())
		d.lengths = append(d.lengths, spec.GetShape()...)
	}
	if n, ok := tensor.Elements(d.lengths); ok {
		// Two bytes of text are the least that an element takes.
		d.out.Data = make([]byte, 0, min(n, int64(len(d.src)-d.pos)/2+1, d.left)*int64(tensor.Size(d.out.DataType)))
	}
	if err := d.value(); err != nil {
		return nil, err
	}
	if d.rank > 0 {
		d.out.Shape = slices.Clone(d.lengths[:d.rank])
	}
	return d.out, nil
}

// value reads a list or an element.
func (d *decoder) value() error {
	depth := len(d.index)
	if d.peek() == '[' {
		if depth == d.rank || depth == maxRank {
			return d.errorAt(d.pos, inputShape, "is a list, expected %s", d.expected())
		}
		return d.list(depth)
	}
	if d.pos >= len(d.src) {
		return d.unexpected("a value")
	}
	if d.rank < 0 {
		d.rank = depth
	}
	if depth == d.rank {
		return d.element()
	}
	if kind(d.src[d.pos]) != kindOf(d.out.DataType) && d.out.DataType != clipperv1.DataType_DATA_TYPE_UNSPECIFIED {
		return d.mismatch(d.pos)
	}
	return d.errorAt(d.pos, inputShape, "is %s, expected %s", describe(d.src[d.pos:]), d.expected())
}

// list reads a list, which is dimension depth of the tensor.
func (d *decoder) list(depth int) error {
	start := d.pos
	d.pos++
	if depth == len(d.lengths) {
		d.lengths = append(d.lengths, -1)
	}
	want := d.lengths[depth]
	d.index = append(d.index, 0)
	n, first := int64(0), true
	for {
		done, err := d.next(&first, ']')
		if err != nil {
			return d.locate(err)
		}
		if done {
			break
		}
		if n == want {
			d.index = d.index[:depth]
			return d.errorAt(d.pos, inputShape, "has more than %d elements, expected %s", want, d.expected())
		}
		d.index[depth] = n
		if depth+1 != d.rank || !d.float() {
			if err := d.value(); err != nil {
				return err
			}
		}
		n++
	}
	d.index = d.index[:depth]
	switch {
	case want >= 0 && n < want:
		return d.errorAt(start, inputShape, "has %d elements, expected %d: %s", n, want, d.expected())
	case n == 0:
		return d.errorAt(start, inputShape, "is an empty list, expected %s", d.expected())
	}
	d.lengths[depth] = n
	return nil
}

// float reads one element the short way if it is an ordinary number for a float, as nearly all are.
// Otherwise it does nothing and returns false.
func (d *decoder) float() bool {
	t := d.out.DataType
	if d.left < 1 || d.pos >= len(d.src) || t != clipperv1.DataType_DATA_TYPE_FLOAT32 && t != clipperv1.DataType_DATA_TYPE_FLOAT64 {
		return false
	}
	if c := d.src[d.pos]; c != '-' && c-'0' > 9 {
		return false
	}
	start := d.pos
	n, err := d.number()
	if err != nil {
		d.pos = start
		return false
	}
	data, p := appendNumber(d.out.Data, t, &n)
	if p != none {
		d.pos = start
		return false
	}
	d.out.Data = data
	d.left--
	return true
}

// element reads one element; d is at its first byte.
func (d *decoder) element() error {
	if d.left--; d.left < 0 {
		return d.errorAt(d.pos, tooLarge, "has more than %d elements, the most that is allowed", d.max)
	}
	start, c := d.pos, d.src[d.pos]
	if d.out.DataType == clipperv1.DataType_DATA_TYPE_UNSPECIFIED {
		d.out.DataType = kind(c)
	}
	switch t := d.out.DataType; t {
	case clipperv1.DataType_DATA_TYPE_STRING:
		if c == '"' {
			text, err := d.text()
			d.out.Strings = append(d.out.Strings, text)
			return d.locate(err)
		}
	case clipperv1.DataType_DATA_TYPE_BYTES:
		if c == '{' {
			return d.bytes()
		}
	case clipperv1.DataType_DATA_TYPE_BOOL:
		for value, word := range [...]string{"false", "true"} {
			if strings.HasPrefix(string(d.src[d.pos:min(d.pos+5, len(d.src))]), word) {
				d.pos += len(word)
				d.out.Data = append(d.out.Data, byte(value))
				return nil
			}
		}
	case clipperv1.DataType_DATA_TYPE_UNSPECIFIED:
	default:
		if c == '-' || c-'0' <= 9 {
			n, err := d.number()
			if err != nil {
				if d.infinite(start) {
					return d.mismatch(start)
				}
				return d.locate(err)
			}
			var p problem
			d.out.Data, p = appendNumber(d.out.Data, t, &n)
			switch p {
			case outOfRange:
				return d.errorAt(start, inputValue, "%s is out of the range of %s", shorten(n.token), tensor.TypeName(t))
			case notIntegral:
				return d.errorAt(start, inputValue, "%s is not an integer, expected %s", shorten(n.token), tensor.TypeName(t))
			}
			return nil
		}
	}
	return d.mismatch(start)
}

// mismatch is the error that an element is not of the type that is expected.
func (d *decoder) mismatch(start int) error {
	d.pos = start
	if d.infinite(start) {
		return d.errorAt(start, inputValue, "is not a finite number, expected %s", d.expected())
	}
	what := describe(d.src[start:])
	if what == "not JSON" || what == "missing" {
		return d.locate(d.unexpected(d.expected()))
	}
	return d.errorAt(start, inputType, "is %s, expected %s", what, d.expected())
}

// infinite reports whether one of the words is at a position that JSON writers outside the standard
// use for numbers that JSON has not.
func (d *decoder) infinite(at int) bool {
	word := strings.TrimLeft(string(d.src[at:min(at+10, len(d.src))]), "+-")
	return strings.HasPrefix(word, "NaN") || strings.HasPrefix(word, "Inf")
}

// bytes reads {"b64": "..."}.
func (d *decoder) bytes() error {
	start := d.pos
	d.pos++
	first := true
	if done, err := d.next(&first, '}'); err != nil || done {
		return d.errorAt(start, inputType, `is an object, expected {"b64": "..."}`)
	}
	key, err := d.key()
	if err != nil {
		return d.locate(err)
	}
	if key != "b64" || d.peek() != '"' {
		return d.errorAt(start, inputType, `is an object, expected {"b64": "..."}`)
	}
	at := d.pos
	text, err := d.text()
	if err != nil {
		return d.locate(err)
	}
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return d.errorAt(at, inputValue, "b64 is not base64 (RFC 4648, with padding): %v", err)
	}
	if done, err := d.next(&first, '}'); err != nil || !done {
		return d.errorAt(d.pos, malformed, `expected '}' behind the value of "b64"`)
	}
	d.out.ByteStrings = append(d.out.ByteStrings, b)
	return nil
}

// kind returns the type that an element has when only its first byte tells.
func kind(c byte) clipperv1.DataType {
	switch {
	case c == '"':
		return clipperv1.DataType_DATA_TYPE_STRING
	case c == '{':
		return clipperv1.DataType_DATA_TYPE_BYTES
	case c == 't' || c == 'f':
		return clipperv1.DataType_DATA_TYPE_BOOL
	case c == '-' || c-'0' <= 9:
		return clipperv1.DataType_DATA_TYPE_FLOAT64
	}
	return clipperv1.DataType_DATA_TYPE_UNSPECIFIED
}

// kindOf returns the kind of element that a type is written as.
func kindOf(t clipperv1.DataType) clipperv1.DataType {
	if tensor.Size(t) > 0 && t != clipperv1.DataType_DATA_TYPE_BOOL {
		return clipperv1.DataType_DATA_TYPE_FLOAT64
	}
	return t
}

// expected says what the tensor that is being read must be.
func (d *decoder) expected() string {
	if d.spec.GetAnyShape() && d.rank >= 0 && len(d.lengths) > 0 {
		return fmt.Sprintf("%s of shape %s as begun: nested lists must be of equal length and depth", tensor.TypeName(d.out.DataType), shape(d.lengths[:d.rank]))
	}
	if d.spec.GetAnyShape() && d.spec.GetDataType() == clipperv1.DataType_DATA_TYPE_UNSPECIFIED {
		if d.out.DataType != clipperv1.DataType_DATA_TYPE_UNSPECIFIED {
			return tensor.TypeName(d.out.DataType) + " as the first element"
		}
		return fmt.Sprintf(`a number, a string, a boolean, {"b64": "..."}, or a list of one kind of these, nested at most %d deep`, maxRank)
	}
	return expectation(d.spec)
}

// expectation says what a specification asks for.
func expectation(spec *clipperv1.TensorSpec) string {
	kind := tensor.TypeName(spec.GetDataType())
	switch spec.GetDataType() {
	case clipperv1.DataType_DATA_TYPE_BYTES:
		kind = `bytes ({"b64": "..."})`
	case clipperv1.DataType_DATA_TYPE_UNSPECIFIED:
		kind = "any type"
	}
	switch {
	case spec.GetAnyShape():
		return kind + " of any shape"
	case len(spec.GetShape()) == 0:
		return "a single value of " + kind
	}
	return kind + " of shape " + shape(spec.GetShape())
}

// shape writes a shape as callers write lists; an open dimension is "any".
func shape(dims []int64) string {
	b := []byte{'['}
	for i, n := range dims {
		if i > 0 {
			b = append(b, ", "...)
		}
		if n < 0 {
			b = append(b, "any"...)
		} else {
			b = strconv.AppendInt(b, n, 10)
		}
	}
	return string(append(b, ']'))
}

func names(specs []*clipperv1.TensorSpec) string {
	quoted := make([]string, len(specs))
	for i, s := range specs {
		quoted[i] = strconv.Quote(s.GetName())
	}
	return strings.Join(quoted, ", ")
}

// shorten keeps a number's text from filling a message.
func shorten(token []byte) string {
	if len(token) > 40 {
		return string(token[:37]) + "..."
	}
	return string(token)
}

// where returns the path of the value that is being read.
func (d *decoder) where() string {
	b := []byte(d.path)
	for _, i := range d.index {
		b = append(b, '[')
		b = strconv.AppendInt(b, i, 10)
		b = append(b, ']')
	}
	return string(b)
}

// locate gives an error of the scanner the path of the value that is being read.
func (d *decoder) locate(err error) error {
	if e, ok := err.(*Error); ok { //nolint:errorlint // Only the scanner's own, never wrapped.
		e.Path = d.where()
	}
	return err
}

func (d *decoder) errorAt(at int, reason clipperv1.ErrorReason, format string, args ...any) error {
	return &Error{Reason: reason, Path: d.where(), Offset: d.base + at, Message: fmt.Sprintf(format, args...)}
}
