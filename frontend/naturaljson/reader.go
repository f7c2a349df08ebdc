// SPDX-License-Identifier: Apache-2.0

package naturaljson

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// Reader reads a JSON text from front to back, for callers that know what comes next. Nothing is
// looked at twice, and no path is made up before something is wrong: a caller adds it to the
// [*Error] that every method returns. Not for concurrent use.
type Reader struct{ s scanner }

// NewReader returns a reader at the start of a text.
func NewReader(text []byte) Reader { return Reader{scanner{src: text}} }

// Offset is the position of the next value, in bytes from the start of the text.
func (r *Reader) Offset() int {
	r.s.space()
	return r.s.pos
}

// Seek moves to a position that Offset returned.
func (r *Reader) Seek(offset int) { r.s.pos = offset }

// Next returns the first byte of the next value, which tells its kind, or 0 at the end.
func (r *Reader) Next() byte { return r.s.peek() }

// Errorf returns an error at an offset.
func (r *Reader) Errorf(at int, reason clipperv1.ErrorReason, format string, args ...any) error {
	return &Error{Reason: reason, Offset: at, Message: fmt.Sprintf(format, args...)}
}

// Mismatch returns the error that the next value is not what is expected.
func (r *Reader) Mismatch(expected string) error {
	r.s.space()
	what := describe(r.s.src[r.s.pos:])
	if what == "missing" || what == "not JSON" {
		return r.s.unexpected(expected)
	}
	return r.Errorf(r.s.pos, invalidField, "is %s, expected %s", what, expected)
}

// Object calls member behind each key of the object that comes next; member reads the value. It
// must not keep key. Whether a key is repeated is for the caller to see.
func (r *Reader) Object(member func(key []byte) error) error {
	if !r.s.open('{') {
		return r.Mismatch("an object")
	}
	first := true
	for {
		done, err := r.s.next(&first, '}')
		if err != nil || done {
			return err
		}
		key, err := r.key()
		if err != nil {
			return err
		}
		if err := member(key); err != nil {
			return err
		}
	}
}

// key reads a key without a copy where it has no escape.
func (r *Reader) key() ([]byte, error) {
	s := &r.s
	if s.peek() == '"' {
		for i := s.pos + 1; i < len(s.src) && s.src[i] >= ' ' && s.src[i] < 0x7f && s.src[i] != '\\'; i++ {
			if s.src[i] != '"' {
				continue
			}
			key := s.src[s.pos+1 : i]
			s.pos = i + 1
			if s.peek() != ':' {
				return nil, s.unexpected("':'")
			}
			s.pos++
			return key, nil
		}
	}
	key, err := s.key()
	return []byte(key), err
}

// List calls item at each item of the list that comes next; item reads it.
func (r *Reader) List(item func(i int) error) error {
	if !r.s.open('[') {
		return r.Mismatch("a list")
	}
	first := true
	for i := 0; ; i++ {
		done, err := r.s.next(&first, ']')
		if err != nil || done {
			return err
		}
		if err := item(i); err != nil {
			return err
		}
	}
}

// Text reads a string.
func (r *Reader) Text() (string, error) {
	if r.s.peek() != '"' {
		return "", r.Mismatch("a string")
	}
	return r.s.text()
}

// Number reads a number and returns its text, which is a part of the whole.
func (r *Reader) Number() ([]byte, error) {
	if c := r.s.peek(); c != '-' && c-'0' > 9 {
		return nil, r.Mismatch("a number")
	}
	n, err := r.s.number()
	return n.token, err
}

// Word reads true, false or null, whichever is asked for, and reports whether it was there.
func (r *Reader) Word(word string) bool {
	r.s.space()
	rest := r.s.src[r.s.pos:]
	if len(rest) < len(word) || string(rest[:len(word)]) != word {
		return false
	}
	r.s.pos += len(word)
	return true
}

// Skip passes over a value of any kind.
func (r *Reader) Skip() error {
	v, err := r.s.skip("")
	if err == nil && !json.Valid(v.Raw) {
		err = r.s.errorf(v.Offset, "is not JSON")
	}
	return err
}

// End requires that nothing follows.
func (r *Reader) End() error { return r.s.end() }

// Elements reads the elements of a tensor and appends them to b, row-major and little-endian; a
// string as its length in 32 bits and its bytes. They are nested as shape says, or in one flat list,
// or without a list where the shape has no dimension. No dimension of shape may be negative. The path
// of an error is the place in the lists: "[3][2]".
func (r *Reader) Elements(b []byte, t clipperv1.DataType, shape []int64) ([]byte, error) {
	n, ok := tensor.Elements(shape)
	if !ok || len(shape) > maxRank {
		return b, r.Errorf(r.Offset(), inputShape, "shape %s is not allowed: at most %d dimensions, none negative, and 2^31 elements", shapeText(shape), maxRank)
	}
	if b == nil {
		// Two bytes of text are the least that an element takes.
		b = make([]byte, 0, min(n, int64(len(r.s.src)-r.s.pos)/2+1)*int64(max(4, tensor.Size(t))))
	}
	e := elements{Reader: r, b: b, t: t, shape: shape}
	err := e.read(n)
	if at, ok := err.(*Error); ok && at.Path == "" { //nolint:errorlint // Only this package's own, never wrapped.
		at.Path = e.where()
	}
	return e.b, err
}

// elements is the state of Elements.
type elements struct {
	*Reader
	b     []byte
	t     clipperv1.DataType
	shape []int64
	depth int            // Lists that are open.
	index [maxRank]int64 // Where in each of them the reader is.
}

// read reads n elements.
func (e *elements) read(n int64) error {
	if len(e.shape) == 0 && e.Next() != '[' {
		return e.element()
	}
	if e.Next() != '[' {
		return e.Mismatch("a list")
	}
	ahead := e.s
	ahead.pos++
	if ahead.peek() == '[' && len(e.shape) > 1 {
		return e.list(e.shape)
	}
	flat := [1]int64{n}
	return e.list(flat[:])
}

// list reads a list of the first dimension of shape.
func (e *elements) list(shape []int64) error {
	start := e.Offset()
	if !e.s.open('[') {
		return e.Errorf(start, inputShape, "is %s, expected a list: lists must be nested as shape %s says, or flat", describe(e.s.src[e.s.pos:]), shapeText(e.shape))
	}
	depth := e.depth
	e.depth++
	n, first := int64(0), true
	for {
		e.index[depth] = n
		done, err := e.s.next(&first, ']')
		switch {
		case err != nil:
			return err
		case done && n < shape[0]:
			e.depth = depth
			return e.Errorf(start, inputShape, "has %d elements, expected %d by shape %s", n, shape[0], shapeText(e.shape))
		case done:
			e.depth = depth
			return nil
		case n == shape[0]:
			e.depth = depth
			return e.Errorf(e.s.pos, inputShape, "has more than %d elements, expected %d by shape %s", n, n, shapeText(e.shape))
		case len(shape) > 1:
			err = e.list(shape[1:])
		default:
			err = e.element()
		}
		if err != nil {
			return err
		}
		n++
	}
}

// element reads one element.
func (e *elements) element() error {
	c := e.Next()
	switch {
	case e.t == clipperv1.DataType_DATA_TYPE_STRING:
		if c == '"' {
			return e.string()
		}
	case e.t == clipperv1.DataType_DATA_TYPE_BOOL:
		if e.Word("true") {
			e.b = append(e.b, 1)
			return nil
		}
		if e.Word("false") {
			e.b = append(e.b, 0)
			return nil
		}
	case c == '-' || c-'0' <= 9:
		start := e.s.pos
		n, err := e.s.number()
		if err != nil {
			return err
		}
		var p problem
		e.b, p = appendNumber(e.b, e.t, &n)
		switch p {
		case outOfRange:
			return e.Errorf(start, inputValue, "%s is out of the range of %s", shorten(n.token), tensor.TypeName(e.t))
		case notIntegral:
			return e.Errorf(start, inputValue, "%s is not an integer, expected %s", shorten(n.token), tensor.TypeName(e.t))
		}
		return nil
	}
	what := describe(e.s.src[e.s.pos:])
	if what == "missing" || what == "not JSON" {
		return e.s.unexpected("an element of " + tensor.TypeName(e.t))
	}
	return e.Errorf(e.s.pos, inputType, "is %s, expected %s", what, tensor.TypeName(e.t))
}

// string reads a string.
func (e *elements) string() error {
	at := len(e.b)
	e.b = append(e.b, 0, 0, 0, 0)
	text, err := e.s.text()
	if err != nil {
		return err
	}
	e.b = append(e.b, text...)
	binary.LittleEndian.PutUint32(e.b[at:], uint32(len(text)))
	return nil
}

// where is the place in the open lists.
func (e *elements) where() string {
	var b []byte
	for _, i := range e.index[:e.depth] {
		b = append(b, '[')
		b = strconv.AppendInt(b, i, 10)
		b = append(b, ']')
	}
	return string(b)
}

// shapeText writes a shape as callers do.
func shapeText(dims []int64) string {
	if len(dims) > maxRank {
		dims = dims[:maxRank]
	}
	b := []byte{'['}
	for i, n := range dims {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = strconv.AppendInt(b, n, 10)
	}
	return string(append(b, ']'))
}

// AppendElements appends the elements of a tensor that is well formed as one flat list.
func AppendElements(b []byte, t *clipperv1.Tensor) []byte {
	n, _ := tensor.Elements(t.GetShape())
	b = append(b, '[')
	for i := range int(n) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendElement(b, t, i)
	}
	return append(b, ']')
}
