// SPDX-License-Identifier: Apache-2.0

package naturaljson

import (
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Value is one value of a JSON text, found but not read.
type Value struct {
	// Path is the value's place: "", "queries[3]", "queries[3].context".
	Path string
	// Raw is the value's text, a part of the whole. Its structure has not been checked: whoever
	// reads it does.
	Raw []byte
	// Offset is where Raw begins in the whole text.
	Offset int
}

// Parse returns the one value that a text holds.
func Parse(text []byte) (Value, error) {
	s := scanner{src: text}
	v, err := s.skip("")
	if err != nil {
		return Value{}, err
	}
	return v, s.end()
}

// Errorf returns an error at the start of the value.
func (v Value) Errorf(reason clipperv1.ErrorReason, format string, args ...any) error {
	return &Error{Reason: reason, Path: v.Path, Offset: v.Offset, Message: fmt.Sprintf(format, args...)}
}

// Null reports whether the value is null.
func (v Value) Null() bool { return string(v.Raw) == "null" }

// Members calls f for each member of the object that v must be, in order. A key that occurs twice
// is an error, as is anything that f returns.
func (v Value) Members(f func(key string, member Value) error) error {
	s := scanner{src: v.Raw, base: v.Offset, path: v.Path}
	if !s.open('{') {
		return v.Errorf(malformed, "is %s, expected an object", describe(v.Raw))
	}
	var few [16]string
	keys := few[:0]
	var many map[string]struct{} // Instead of keys, when there are too many to look through.
	first := true
	for {
		done, err := s.next(&first, '}')
		if err != nil || done {
			if err == nil {
				err = s.end()
			}
			return err
		}
		at := s.pos
		key, err := s.key()
		if err != nil {
			return err
		}
		_, repeated := many[key]
		for _, k := range keys {
			repeated = repeated || k == key
		}
		if repeated {
			return s.errorf(at, "key %q is repeated", key)
		}
		if keys = append(keys, key); len(keys) == cap(few[:]) {
			if many == nil {
				many = make(map[string]struct{})
			}
			for _, k := range keys {
				many[k] = struct{}{}
			}
			keys = keys[:0]
		}
		member, err := s.skip(join(v.Path, key))
		if err != nil {
			return err
		}
		if err := f(key, member); err != nil {
			return err
		}
	}
}

// Items calls f for each item of the list that v must be, in order.
func (v Value) Items(f func(item Value) error) error {
	s := scanner{src: v.Raw, base: v.Offset, path: v.Path}
	if !s.open('[') {
		return v.Errorf(malformed, "is %s, expected a list", describe(v.Raw))
	}
	first := true
	for i := 0; ; i++ {
		done, err := s.next(&first, ']')
		if err != nil || done {
			if err == nil {
				err = s.end()
			}
			return err
		}
		item, err := s.skip(v.Path + "[" + strconv.Itoa(i) + "]")
		if err != nil {
			return err
		}
		if err := f(item); err != nil {
			return err
		}
	}
}

// Text returns the string that v must be.
func (v Value) Text() (string, error) {
	s := scanner{src: v.Raw, base: v.Offset, path: v.Path}
	if s.peek() != '"' {
		return "", v.Errorf(invalidField, "is %s, expected a string", describe(v.Raw))
	}
	text, err := s.text()
	if err != nil {
		return "", err
	}
	return text, s.end()
}

// Number returns the finite number that v must be.
func (v Value) Number() (float64, error) {
	s := scanner{src: v.Raw, base: v.Offset, path: v.Path}
	if c := s.peek(); c != '-' && (c < '0' || c > '9') {
		return 0, v.Errorf(invalidField, "is %s, expected a number", describe(v.Raw))
	}
	n, err := s.number()
	if err != nil {
		return 0, err
	}
	f, ok := n.float(64)
	if !ok {
		return 0, v.Errorf(invalidField, "%s is out of the range of a float64", n.token)
	}
	return f, s.end()
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// describe names the kind of value that a text begins with.
func describe(raw []byte) string {
	if len(raw) == 0 {
		return "missing"
	}
	switch c := raw[0]; {
	case c == '{':
		return "an object"
	case c == '[':
		return "a list"
	case c == '"':
		return "a string"
	case c == 't' || c == 'f':
		return "a boolean"
	case c == 'n':
		return "null"
	case c == '-' || c >= '0' && c <= '9':
		return "a number"
	}
	return "not JSON"
}

// scanner walks over a JSON text.
type scanner struct {
	src  []byte
	pos  int
	base int    // Where src begins in the whole text.
	path string // Of the value that is being read, for errors.
}

func (s *scanner) errorf(at int, format string, args ...any) error {
	return &Error{Reason: malformed, Path: s.path, Offset: s.base + at, Message: fmt.Sprintf(format, args...)}
}

// unexpected is the error that something else than what was expected follows.
func (s *scanner) unexpected(expected string) error {
	if s.pos >= len(s.src) {
		return s.errorf(s.pos, "the JSON text ends too early, expected %s", expected)
	}
	r, _ := utf8.DecodeRune(s.src[s.pos:])
	return s.errorf(s.pos, "unexpected %q, expected %s", r, expected)
}

func (s *scanner) space() {
	for s.pos < len(s.src) {
		switch s.src[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek skips space and returns the next byte, or 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	if s.pos >= len(s.src) {
		return 0
	}
	return s.src[s.pos]
}

func (s *scanner) open(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.pos++
	return true
}

// next moves to the next element of a list or object, over the comma before it, or over the
// closing byte.
func (s *scanner) next(first *bool, closing byte) (done bool, err error) {
	c := s.peek()
	switch {
	case c == closing:
		s.pos++
		return true, nil
	case *first:
		*first = false
		return false, nil
	case c != ',':
		return false, s.unexpected("',' or '" + string(closing) + "'")
	}
	s.pos++
	if s.peek() == closing {
		return false, s.unexpected("a value after ','")
	}
	return false, nil
}

// key reads a key and the colon behind it.
func (s *scanner) key() (string, error) {
	if s.peek() != '"' {
		return "", s.unexpected("a key in quotes")
	}
	key, err := s.text()
	if err != nil {
		return "", err
	}
	if s.peek() != ':' {
		return "", s.unexpected("':'")
	}
	s.pos++
	return key, nil
}

// end requires that nothing follows.
func (s *scanner) end() error {
	if s.peek() != 0 || s.pos < len(s.src) {
		return s.unexpected("nothing more")
	}
	return nil
}

// structural tells the bytes at which a nested value can end or a string can begin.
var structural = [256]bool{'"': true, '[': true, ']': true, '{': true, '}': true}

// skip passes over a value. It only looks for where the value ends: brackets are counted, not
// matched.
func (s *scanner) skip(path string) (Value, error) {
	s.space()
	start, depth := s.pos, 0
scan:
	for s.pos < len(s.src) {
		switch s.src[s.pos] {
		case '"':
			if !s.skipText() {
				return Value{}, s.unexpected("the '\"' that ends a string")
			}
			if depth == 0 {
				break scan
			}
		case '[', '{':
			depth++
			s.pos++
		case ']', '}':
			if depth == 0 {
				break scan
			}
			depth--
			s.pos++
			if depth == 0 {
				break scan
			}
		case ',', ':', ' ', '\t', '\n', '\r':
			if depth == 0 {
				break scan
			}
			s.pos++
		default:
			s.pos++
		}
		if depth > 0 { // Where only brackets and strings matter.
			i := s.pos
			for i < len(s.src) && !structural[s.src[i]] {
				i++
			}
			s.pos = i
		}
	}
	if depth > 0 {
		return Value{}, s.unexpected("']' or '}'")
	}
	if s.pos == start {
		return Value{}, s.unexpected("a value")
	}
	return Value{Path: path, Raw: s.src[start:s.pos:s.pos], Offset: s.base + start}, nil
}

func (s *scanner) skipText() bool {
	for i := s.pos + 1; i < len(s.src); i++ {
		switch s.src[i] {
		case '"':
			s.pos = i + 1
			return true
		case '\\':
			i++
		}
	}
	s.pos = len(s.src)
	return false
}

// text reads a string; s is at its opening quote.
func (s *scanner) text() (string, error) {
	start := s.pos + 1
	for i := start; i < len(s.src); i++ {
		c := s.src[i]
		switch {
		case c == '"':
			raw := s.src[start:i]
			if !utf8.Valid(raw) {
				return "", s.errorf(start, "the string is not UTF-8")
			}
			s.pos = i + 1
			return string(raw), nil
		case c == '\\':
			return s.escapedText(start, i)
		case c < ' ':
			s.pos = i
			return "", s.unexpected("control characters to be escaped")
		}
	}
	s.pos = len(s.src)
	return "", s.unexpected("the '\"' that ends a string")
}

// escapedText reads a string whose first escape is at i.
func (s *scanner) escapedText(start, i int) (string, error) {
	b := append(make([]byte, 0, 2*(i-start)+16), s.src[start:i]...)
	for i < len(s.src) {
		c := s.src[i]
		switch {
		case c == '"':
			s.pos = i + 1
			if !utf8.Valid(b) {
				return "", s.errorf(start, "the string is not UTF-8")
			}
			return string(b), nil
		case c < ' ':
			s.pos = i
			return "", s.unexpected("control characters to be escaped")
		case c != '\\':
			b = append(b, c)
			i++
		default:
			r, n := unescape(s.src[i:])
			if n == 0 {
				return "", s.errorf(i, "bad escape in a string")
			}
			b = utf8.AppendRune(b, r)
			i += n
		}
	}
	s.pos = len(s.src)
	return "", s.unexpected("the '\"' that ends a string")
}

// unescape returns the character that an escape stands for and the escape's length, which is 0
// when it is not a valid one. Half of a surrogate pair is not a character.
func unescape(b []byte) (rune, int) {
	if len(b) < 2 {
		return 0, 0
	}
	switch b[1] {
	case '"', '\\', '/':
		return rune(b[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	}
	r := hex4(b)
	if r < 0 || !utf16.IsSurrogate(r) {
		if r < 0 {
			return 0, 0
		}
		return r, 6
	}
	if len(b) < 12 {
		return 0, 0
	}
	if r = utf16.DecodeRune(r, hex4(b[6:])); r == utf8.RuneError {
		return 0, 0
	}
	return r, 12
}

// hex4 reads \uXXXX, or returns -1.
func hex4(b []byte) rune {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	var r rune
	for _, c := range b[2:6] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}
