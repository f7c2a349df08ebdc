// SPDX-License-Identifier: Apache-2.0

package legacy

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// kind is the type of a JSON value.
type kind uint8

const (
	kindNull kind = iota
	kindFalse
	kindTrue
	kindObject
	kindArray
	kindString
	kindNumber
)

// String returns the name that the original's messages give a type.
func (k kind) String() string {
	return [...]string{"Null", "False", "True", "Object", "Array", "String", "Number"}[k]
}

// value is a JSON value. It is small, since a text of a few bytes may have one for every two.
type value struct {
	kind   kind
	whole  bool // of a number: it was written without fraction and exponent, and fits 64 bits
	number float64
	text   string  // of a string
	parts  *[]part // of a list or object that is not empty
}

// part is an item of a list, or a member of an object.
type part struct {
	key   string
	value value
}

// items returns the parts of a list or object.
func (v *value) items() []part {
	if v.parts == nil {
		return nil
	}
	return *v.parts
}

// get returns the first member of a key; ok is false when there is none, or v is no object.
func (v *value) get(key string) (found value, ok bool) {
	if v.kind != kindObject {
		return value{}, false
	}
	for _, p := range v.items() {
		if p.key == key {
			return p.value, true
		}
	}
	return value{}, false
}

// maxDepth is how deep lists and objects may nest. The original had no limit and overflowed its stack.
const maxDepth = 256

// maxValues is the most values of a text, which bounds the memory that it takes.
const maxValues = 4 << 20

// The texts of RapidJSON, which the original passed on to its callers.
const (
	errEmpty     = "The document is empty."
	errRoot      = "The document root must not be followed by other values."
	errValue     = "Invalid value."
	errName      = "Missing a name for object member."
	errColon     = "Missing a colon after a name of object member."
	errMember    = "Missing a comma or } after an object member."
	errElement   = "Missing a comma or ] after an array element."
	errHex       = "Incorrect hex digit after \\u escape in string."
	errSurrogate = "The surrogate pair in string is invalid."
	errEscape    = "Invalid escape character in string."
	errQuote     = "Missing a closing quotation mark in string."
	errEncoding  = "Invalid encoding in string."
	errBig       = "Number too big to be stored in double."
	errFraction  = "Miss fraction part in number."
	errExponent  = "Miss exponent in number."
	errTooDeep   = "Terminate parsing due to Handler error."
)

// parse reads a JSON text as RapidJSON does, with its texts of errors. Unlike it, parse refuses text that
// is not UTF-8 and what nests too deeply. Memory grows with the text only.
func parse(text []byte) (value, error) {
	p := parser{text: text, left: maxValues}
	p.space()
	if p.at == len(p.text) {
		return value{}, p.fail(errEmpty)
	}
	v, err := p.value(0)
	if err != nil {
		return value{}, err
	}
	if p.space(); p.at < len(p.text) {
		return value{}, p.fail(errRoot)
	}
	return v, nil
}

type parser struct {
	text []byte
	at   int
	left int // how many more values there may be
}

func (p *parser) fail(text string) error { return p.failAt(text, p.at) }

func (p *parser) failAt(text string, at int) error { return syntaxError{text, at} }

// syntaxError is an error of RapidJSON.
type syntaxError struct {
	text string
	at   int
}

// Error implements error. The line's end is the original's.
func (e syntaxError) Error() string {
	return fmt.Sprintf("JSON parse error: %s (offset %d)\n", e.text, e.at)
}

// peek returns the next byte, 0 at the end.
func (p *parser) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

func (p *parser) consume(c byte) bool {
	if p.peek() != c || c == 0 {
		return false
	}
	p.at++
	return true
}

func (p *parser) space() {
	for p.at < len(p.text) {
		switch p.text[p.at] {
		case ' ', '\n', '\r', '\t':
			p.at++
		default:
			return
		}
	}
}

func (p *parser) value(depth int) (value, error) {
	if p.left--; depth > maxDepth || p.left < 0 {
		return value{}, p.fail(errTooDeep)
	}
	switch p.peek() {
	case 'n':
		return p.literal("null", kindNull)
	case 't':
		return p.literal("true", kindTrue)
	case 'f':
		return p.literal("false", kindFalse)
	case '"':
		s, err := p.string()
		return value{kind: kindString, text: s}, err
	case '{':
		return p.object(depth)
	case '[':
		return p.array(depth)
	}
	return p.number()
}

func (p *parser) literal(word string, k kind) (value, error) {
	for i := range len(word) {
		if !p.consume(word[i]) {
			return value{}, p.fail(errValue)
		}
	}
	return value{kind: k}, nil
}

func (p *parser) object(depth int) (value, error) {
	p.at++
	if p.space(); p.consume('}') {
		return value{kind: kindObject}, nil
	}
	var members []part
	for {
		if p.peek() != '"' {
			return value{}, p.fail(errName)
		}
		key, err := p.string()
		if err != nil {
			return value{}, err
		}
		if p.space(); !p.consume(':') {
			return value{}, p.fail(errColon)
		}
		p.space()
		content, err := p.value(depth + 1)
		if err != nil {
			return value{}, err
		}
		members = append(members, part{key, content})
		p.space()
		if p.consume('}') {
			return value{kind: kindObject, parts: &members}, nil
		}
		if !p.consume(',') {
			return value{}, p.fail(errMember)
		}
		p.space()
	}
}

func (p *parser) array(depth int) (value, error) {
	p.at++
	if p.space(); p.consume(']') {
		return value{kind: kindArray}, nil
	}
	var items []part
	for {
		item, err := p.value(depth + 1)
		if err != nil {
			return value{}, err
		}
		items = append(items, part{value: item})
		p.space()
		if p.consume(']') {
			return value{kind: kindArray, parts: &items}, nil
		}
		if !p.consume(',') {
			return value{}, p.fail(errElement)
		}
		p.space()
	}
}

func (p *parser) string() (string, error) {
	p.at++
	from := p.at
	var unescaped []byte // Nil while there was no escape.
	for {
		start := p.at
		switch c := p.peek(); {
		case p.at == len(p.text):
			return "", p.fail(errQuote)
		case c == '"':
			s := string(p.text[from:p.at])
			if unescaped != nil {
				s = string(unescaped)
			}
			p.at++
			if !utf8.ValidString(s) {
				return "", p.failAt(errEncoding, from)
			}
			return s, nil
		case c < ' ':
			return "", p.fail(errEscape)
		case c != '\\':
			p.at++
			if unescaped != nil {
				unescaped = append(unescaped, c)
			}
			continue
		}
		if unescaped == nil {
			unescaped = append(make([]byte, 0, 64), p.text[from:start]...)
		}
		r, err := p.escape(start)
		if err != nil {
			return "", err
		}
		unescaped = utf8.AppendRune(unescaped, r)
	}
}

// escape reads an escaped character, which begins at start.
func (p *parser) escape(start int) (rune, error) {
	p.at++
	c := p.peek()
	p.at++
	switch c {
	case '"', '\\', '/':
		return rune(c), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
	default:
		return 0, p.failAt(errEscape, start)
	}
	r, ok := p.hex()
	if !ok {
		return 0, p.failAt(errHex, start)
	}
	if r < 0xd800 || r > 0xdfff {
		return r, nil
	}
	if r > 0xdbff || !p.consume('\\') || !p.consume('u') {
		return 0, p.failAt(errSurrogate, start)
	}
	low, ok := p.hex()
	if !ok {
		return 0, p.failAt(errHex, start)
	}
	if low < 0xdc00 || low > 0xdfff {
		return 0, p.failAt(errSurrogate, start)
	}
	return (r-0xd800)<<10 + (low - 0xdc00) + 0x10000, nil
}

func (p *parser) hex() (rune, bool) {
	if p.at+4 > len(p.text) {
		return 0, false
	}
	var r rune
	for _, c := range p.text[p.at : p.at+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 + rune(c)
	}
	p.at += 4
	return r, true
}

func (p *parser) number() (value, error) {
	start := p.at
	p.consume('-')
	if !p.consume('0') {
		if p.digits() == 0 {
			return value{}, p.fail(errValue)
		}
	}
	v := value{kind: kindNumber, whole: true}
	if p.consume('.') {
		v.whole = false
		if p.digits() == 0 {
			return value{}, p.fail(errFraction)
		}
	}
	if p.consume('e') || p.consume('E') {
		v.whole = false
		if !p.consume('+') {
			p.consume('-')
		}
		if p.digits() == 0 {
			return value{}, p.fail(errExponent)
		}
	}
	text := string(p.text[start:p.at])
	if v.whole {
		_, signed := strconv.ParseInt(text, 10, 64)
		_, unsigned := strconv.ParseUint(text, 10, 64)
		v.whole = signed == nil || unsigned == nil
	}
	var err error
	if v.number, err = strconv.ParseFloat(text, 64); errors.Is(err, strconv.ErrRange) && math.IsInf(v.number, 0) {
		return value{}, p.failAt(errBig, start)
	}
	return v, nil
}

func (p *parser) digits() (n int) {
	for p.peek() >= '0' && p.peek() <= '9' {
		p.at++
		n++
	}
	return n
}

// appendString appends a JSON string, escaped as RapidJSON does.
func appendString(b []byte, s string) []byte {
	const digits = "0123456789ABCDEF"
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, '\\', 'b')
		case '\f':
			b = append(b, '\\', 'f')
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			if c < ' ' {
				b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
			} else {
				b = append(b, c)
			}
		}
	}
	return append(b, '"')
}

// appendStrings appends a list of strings.
func appendStrings(b []byte, list []string) []byte {
	return appendList(b, list, appendString)
}

// appendList appends a list of what each appends.
func appendList[T any](b []byte, list []T, each func([]byte, T) []byte) []byte {
	b = append(b, '[')
	for i, item := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = each(b, item)
	}
	return append(b, ']')
}

// appendMember appends a member with a string, and before it a comma unless it is the first.
func appendMember(b []byte, key, text string) []byte {
	return appendString(appendKey(b, key), text)
}

func appendKey(b []byte, key string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	return append(appendString(b, key), ':')
}
