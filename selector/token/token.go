// SPDX-License-Identifier: Apache-2.0

// Package token makes and reads the feedback_id: what learning needs to know later about a query,
// encrypted and authenticated, so that feedback needs no look-up of the query and may reach any
// selector.
//
// A token is base64url of
//
//	version (1 byte) | key id (1 byte) | nonce (12 bytes) | AES-256-GCM of the claims
//
// and version and key id are authenticated with it. A nonce is 8 random bytes, drawn once for 2^32
// tokens, and a counter; so it is unique under its key, which GCM needs, and it is the token's identity,
// by which a repeated feedback is recognised.
//
// Labels and numbers are always carried, unless a text is very long; lists of scores, as float32, while
// all values take at most [MaxValues] bytes. Of a list that does not fit only the class of the largest
// score is carried, which is enough when the truth is a class. When a model was late, a hash of the
// input is carried, by which its prediction may be found later. Features, which are exact as float32, take 4
// bytes each.
package token

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clipper-serving/clipper/selector/policy"
)

const (
	// MaxValues is the most bytes that the predictions of one token take.
	MaxValues = 2048
	// MaxToken is the most bytes of a token that is looked at.
	MaxToken = 64 << 10

	version    = 1
	keySize    = 32
	nonceSize  = 12
	headerSize = 2 + nonceSize
)

// ErrInvalid says that a token was not made with a key of this ring.
var ErrInvalid = errors.New("invalid token")

var encoding = base64.RawURLEncoding.Strict()

// ID identifies a token.
type ID [2 + nonceSize]byte

// Claims is what a token carries.
type Claims struct {
	// ID is set by Open.
	ID ID
	// Application is the application's name.
	Application string
	// Incarnation tells apart applications of the same name, one after the other.
	Incarnation uint64
	// Context is the user, session or device; empty for the shared state.
	Context string
	// Issued is when the token was made, to the millisecond.
	Issued time.Time
	// Input is a hash of the input; of no meaning unless a model was late.
	Input [16]byte
	// Models are those that were asked.
	Models []Model
	// Features are what a contextual policy saw of the input, at most policy.MaxFeatures; nil for others.
	Features []float64
}

// Model is one model's part.
type Model struct {
	// Model is the model as the application lists it.
	Model string
	// Propensity is the probability with which it was chosen, in (0, 1].
	Propensity float64
	// Shadow is true when it had no part in the answer.
	Shadow bool
	// Agreed is true when its prediction says the same as the answer.
	Agreed bool
	// Late is true when it had not answered yet. What it said in the end may be remembered under
	// Version, which is empty when it was not known, and the hash of the input.
	Late    bool
	Version string
	// Value is its prediction; missing when it gave none or when it does not fit.
	Value policy.Value
}

// NewKeyring returns the stored form of a ring with one new, random key.
func NewKeyring() []byte {
	ring := make([]byte, 1+keySize)
	ring[0] = 1
	_, _ = rand.Read(ring[1:]) // It never fails: see crypto/rand.
	return ring
}

// Sealer makes and reads tokens. Safe for concurrent use.
type Sealer struct {
	keys   [256]cipher.AEAD
	newest byte
	block  atomic.Pointer[nonces]
}

// nonces is a block of nonces that begin with the same random bytes.
type nonces struct {
	prefix [8]byte
	next   atomic.Uint64
}

// NewSealer returns a sealer for a stored ring: records of a key id and a key of 32 bytes. The first seals,
// each opens what it has sealed, so that keys can be changed while tokens are out.
func NewSealer(ring []byte) (*Sealer, error) {
	if len(ring) == 0 || len(ring)%(1+keySize) != 0 {
		return nil, fmt.Errorf("feedback keys: %d bytes, want records of %d", len(ring), 1+keySize)
	}
	s := &Sealer{newest: ring[0]}
	for ; len(ring) > 0; ring = ring[1+keySize:] {
		if s.keys[ring[0]] != nil {
			return nil, fmt.Errorf("feedback keys: the id %d is there twice", ring[0])
		}
		block, err := aes.NewCipher(ring[1 : 1+keySize])
		if err != nil {
			return nil, fmt.Errorf("feedback keys: %w", err)
		}
		if s.keys[ring[0]], err = cipher.NewGCM(block); err != nil {
			return nil, fmt.Errorf("feedback keys: %w", err)
		}
	}
	s.block.Store(newNonces())
	return s, nil
}

func newNonces() *nonces {
	n := &nonces{}
	_, _ = rand.Read(n.prefix[:])
	return n
}

// nonce writes a nonce that no other token has.
func (s *Sealer) nonce(dst []byte) {
	for {
		block := s.block.Load()
		if i := block.next.Add(1); i <= math.MaxUint32 {
			copy(dst, block.prefix[:])
			binary.BigEndian.PutUint32(dst[8:], uint32(i))
			return
		}
		s.block.CompareAndSwap(block, newNonces())
	}
}

// buffers is memory for one token, used again.
type buffers struct{ plain, sealed []byte }

var bufferPool = sync.Pool{New: func() any { return &buffers{make([]byte, 0, 512), make([]byte, 0, 512)} }}

// Seal returns a token of the claims; their ID is not used.
func (s *Sealer) Seal(c *Claims) string {
	b := bufferPool.Get().(*buffers) //nolint:forcetypeassert // Nothing else is put there.
	defer bufferPool.Put(b)
	header := b.sealed[:headerSize]
	header[0], header[1] = version, s.newest
	s.nonce(header[2:])
	b.plain = appendClaims(b.plain[:0], c)
	b.sealed = s.keys[s.newest].Seal(header, header[2:], b.plain, header[:2])
	return encoding.EncodeToString(b.sealed)
}

// Open returns what a token carries, or an error that matches [ErrInvalid]. Whether it has expired
// is for the caller to say.
func (s *Sealer) Open(token string) (*Claims, error) {
	if len(token) > MaxToken {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrInvalid, MaxToken)
	}
	raw, err := encoding.DecodeString(token)
	if err != nil || len(raw) < headerSize || raw[0] != version || s.keys[raw[1]] == nil {
		return nil, ErrInvalid
	}
	plain, err := s.keys[raw[1]].Open(nil, raw[2:headerSize], raw[headerSize:], raw[:2])
	if err != nil {
		return nil, ErrInvalid
	}
	c, err := readClaims(plain)
	if err != nil {
		return nil, err
	}
	copy(c.ID[:], raw)
	return c, nil
}

// IDOf returns the identity of a token that a sealer made, without opening it. ok is false when it is too
// short to be one.
func IDOf(token string) (id ID, ok bool) {
	const prefix = (len(id)*8 + 23) / 24 * 4 // of whole groups of 4 characters, 3 bytes each
	if len(token) < prefix {
		return id, false
	}
	var raw [prefix / 4 * 3]byte
	if _, err := encoding.Decode(raw[:], []byte(token[:prefix])); err != nil {
		return id, false
	}
	return ID(raw[:len(id)]), true
}

// Forms of a value, and flags of a model.
const (
	formMissing = iota
	formInteger
	formText
	formNumber
	formScores
	formClass

	formMask   = 0x0f
	flagShadow = 0x10
	flagAgreed = 0x20
	// flagCertain says that the propensity is 1 and left out.
	flagCertain = 0x40
	// flagLate says that the version follows, and at the end of the models the hash of the input.
	flagLate = 0x80
)

func appendClaims(b []byte, c *Claims) []byte {
	b = appendText(b, c.Application)
	b = binary.LittleEndian.AppendUint64(b, c.Incarnation)
	b = appendText(b, c.Context)
	b = binary.AppendVarint(b, c.Issued.UnixMilli())
	b = binary.AppendUvarint(b, uint64(len(c.Models)))
	room, late := MaxValues, false
	for i := range c.Models {
		m := &c.Models[i]
		b = appendText(b, m.Model)
		at := len(b)
		b = append(b, 0)
		flags := byte(0)
		if m.Shadow {
			flags |= flagShadow
		}
		if m.Agreed {
			flags |= flagAgreed
		}
		if m.Propensity == 1 {
			flags |= flagCertain
		} else {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(m.Propensity))
		}
		if m.Late {
			flags |= flagLate
			b = appendText(b, m.Version)
			late = true
		}
		start := len(b)
		var form byte
		b, form = appendValue(b, m.Value, room)
		room -= len(b) - start
		b[at] = flags | form
	}
	if late {
		b = append(b, c.Input[:]...)
	}
	if len(c.Features) > 0 {
		b = appendFloats(b, c.Features)
	}
	return b
}

// appendFloats appends a list as float32.
func appendFloats(b []byte, xs []float64) []byte {
	b = binary.AppendUvarint(b, uint64(len(xs)))
	for _, x := range xs {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(x)))
	}
	return b
}

// appendValue appends a value if it fits into room bytes, or what of it does.
func appendValue(b []byte, v policy.Value, room int) ([]byte, byte) {
	if i, ok := v.Integer(); ok && room >= binary.MaxVarintLen64 {
		return binary.AppendVarint(b, i), formInteger
	}
	if s, ok := v.Text(); ok && room >= binary.MaxVarintLen64+len(s) {
		return appendText(b, s), formText
	}
	if x, ok := v.Real(); ok && room >= 8 {
		return binary.LittleEndian.AppendUint64(b, math.Float64bits(x)), formNumber
	}
	if xs, ok := v.Vector(); ok && room >= binary.MaxVarintLen64+4*len(xs) && exact(xs) {
		return appendFloats(b, xs), formScores
	}
	if i, ok := v.Class(); ok && room >= binary.MaxVarintLen64 {
		return binary.AppendUvarint(b, uint64(i)), formClass
	}
	return b, formMissing
}

// exact reports whether scores stay finite, and the largest one stays the first largest, as float32.
func exact(xs []float64) bool {
	before, _ := policy.Vector(xs).Class()
	after := 0
	for i, x := range xs {
		if math.IsInf(float64(float32(x)), 0) {
			return false
		}
		if float32(x) > float32(xs[after]) {
			after = i
		}
	}
	return before == after
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader reads what appendClaims wrote. After an error everything it returns is zero.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) text() string { return string(r.take(r.uvarint())) }

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// finite reads a float64.
func (r *reader) finite() float64 {
	x := math.Float64frombits(r.uint64())
	if math.IsNaN(x) || math.IsInf(x, 0) {
		r.bad = true
		return 0
	}
	return x
}

// floats reads a list of at most so many finite numbers.
func (r *reader) floats(most uint64) []float64 {
	n := r.uvarint()
	if n > most {
		r.bad = true
		return nil
	}
	b := r.take(4 * n)
	xs := make([]float64, len(b)/4)
	for i := range xs {
		xs[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:])))
		r.bad = r.bad || math.IsNaN(xs[i]) || math.IsInf(xs[i], 0)
	}
	return xs
}

func (r *reader) value(form byte) policy.Value {
	switch form {
	case formMissing:
		return policy.Value{}
	case formInteger:
		return policy.Integer(r.varint())
	case formText:
		return policy.Text(r.text())
	case formNumber:
		return policy.Real(r.finite())
	case formScores:
		return policy.Vector(r.floats(MaxValues / 4))
	case formClass:
		if i := r.uvarint(); i <= math.MaxInt32 {
			return policy.TopClass(int(i))
		}
	}
	r.bad = true
	return policy.Value{}
}

func readClaims(plain []byte) (*Claims, error) {
	r := &reader{rest: plain}
	c := &Claims{Application: r.text(), Incarnation: r.uint64(), Context: r.text(), Issued: time.UnixMilli(r.varint())}
	n := r.uvarint()
	if n > policy.MaxModels {
		return nil, fmt.Errorf("%w: %d models", ErrInvalid, n)
	}
	c.Models = make([]Model, n)
	late := false
	for i := range c.Models {
		m := Model{Model: r.text(), Propensity: 1}
		var flags byte
		if b := r.take(1); b != nil {
			flags = b[0]
		}
		m.Shadow, m.Agreed = flags&flagShadow != 0, flags&flagAgreed != 0
		if flags&flagCertain == 0 {
			m.Propensity = r.finite()
			r.bad = r.bad || !(m.Propensity > 0 && m.Propensity <= 1)
		}
		if m.Late = flags&flagLate != 0; m.Late {
			m.Version = r.text()
			late = true
		}
		m.Value = r.value(flags & formMask)
		c.Models[i] = m
	}
	if late {
		copy(c.Input[:], r.take(uint64(len(c.Input))))
	}
	if len(r.rest) > 0 {
		c.Features = r.floats(policy.MaxFeatures)
	}
	if r.bad || len(r.rest) > 0 {
		return nil, fmt.Errorf("%w: malformed", ErrInvalid)
	}
	return c, nil
}
