// SPDX-License-Identifier: Apache-2.0

package token

import (
	"encoding/base64"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/selector/policy"
)

func sealer(t testing.TB) *Sealer {
	s, err := NewSealer(NewKeyring())
	require.NoError(t, err)
	return s
}

func claims() *Claims {
	return &Claims{
		Application: "digits", Incarnation: 1 << 63, Context: "user \xff 7", Issued: time.UnixMilli(1700000000123),
		Models: []Model{
			{Model: "a", Propensity: 0.125, Value: policy.Integer(-7), Agreed: true},
			{Model: "b:2", Propensity: 1, Value: policy.Text("seven")},
			{Model: "c", Propensity: 1, Shadow: true, Value: policy.Real(math.Pi)},
			{Model: "d", Propensity: 1, Value: policy.Vector([]float64{0.25, 0.5, 0.25})},
			{Model: "e", Propensity: 1},
			{Model: "f", Propensity: 1, Value: policy.TopClass(900)},
		},
		Features: []float64{0.5, -0.25, 1},
	}
}

func TestSealer_roundTrip(t *testing.T) {
	s := sealer(t)
	want := claims()
	token := s.Seal(want)
	got, err := s.Open(token)
	require.NoError(t, err)
	require.NotZero(t, got.ID)
	got.ID = ID{}
	require.Equal(t, want, got)
	require.Less(t, len(token), 250)
	require.NotContains(t, token, "=")
}

// TestSealer_late: what a prediction can be found by later is carried when one was late.
func TestSealer_late(t *testing.T) {
	s := sealer(t)
	want := claims()
	want.Input = [16]byte{1, 2, 15: 3}
	want.Models[4].Late, want.Models[4].Version = true, "v2"
	want.Models[2].Late, want.Models[2].Propensity, want.Models[2].Value = true, 0.5, policy.Value{}
	got, err := s.Open(s.Seal(want))
	require.NoError(t, err)
	got.ID = ID{}
	require.Equal(t, want, got)
}

func TestSealer_unique(t *testing.T) {
	s := sealer(t)
	s.block.Load().next.Store(math.MaxUint32 - 100) // so that a new block is begun
	var mu sync.Mutex
	var wg sync.WaitGroup
	seen := map[ID]bool{}
	for range 4 {
		wg.Go(func() {
			for range 100 {
				c, err := s.Open(s.Seal(&Claims{}))
				if err == nil {
					mu.Lock()
					seen[c.ID] = true
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	require.Len(t, seen, 400)
}

func TestSealer_largeValues(t *testing.T) {
	s := sealer(t)
	long := make([]float64, 1000)
	long[417] = 1
	got, err := s.Open(s.Seal(&Claims{Models: []Model{
		{Model: "scores", Propensity: 1, Value: policy.Vector(long)},
		{Model: "text", Propensity: 1, Value: policy.Text(strings.Repeat("x", 3000))},
		{Model: "small", Propensity: 1, Value: policy.Integer(3)},
	}}))
	require.NoError(t, err)
	require.Equal(t, policy.TopClass(417), got.Models[0].Value, "the class is kept")
	require.True(t, got.Models[1].Value.Missing())
	require.Equal(t, policy.Integer(3), got.Models[2].Value)
}

// TestSealer_closeScores says that rounding to float32 never changes the class.
func TestSealer_closeScores(t *testing.T) {
	s := sealer(t)
	got, err := s.Open(s.Seal(&Claims{Models: []Model{{Propensity: 1, Value: policy.Vector([]float64{0.5, 0.5 + 1e-12})}}}))
	require.NoError(t, err)
	class, ok := got.Models[0].Value.Class()
	require.True(t, ok)
	require.Equal(t, 1, class)
}

func TestSealer_forged(t *testing.T) {
	s := sealer(t)
	token := s.Seal(claims())
	for i := range token {
		c := byte('A')
		if token[i] == c {
			c = 'B'
		}
		_, err := s.Open(token[:i] + string(c) + token[i+1:])
		require.ErrorIs(t, err, ErrInvalid, "byte %d", i)
		_, err = s.Open(token[:i])
		require.ErrorIs(t, err, ErrInvalid, "cut at %d", i)
	}
	for _, bad := range []string{"", "x", "%%%", token + "A", token + "=", " " + token, strings.Repeat("A", MaxToken+1)} {
		_, err := s.Open(bad)
		require.ErrorIs(t, err, ErrInvalid)
	}
	_, err := sealer(t).Open(token)
	require.ErrorIs(t, err, ErrInvalid, "another installation's")
}

func TestSealer_keyChange(t *testing.T) {
	old := NewKeyring()
	before, err := NewSealer(old)
	require.NoError(t, err)
	fresh := NewKeyring()
	fresh[0] = 2
	after, err := NewSealer(append(fresh, old...))
	require.NoError(t, err)
	_, err = after.Open(before.Seal(claims()))
	require.NoError(t, err)
	_, err = before.Open(after.Seal(claims()))
	require.ErrorIs(t, err, ErrInvalid)
}

func TestNewSealer_bad(t *testing.T) {
	ring := NewKeyring()
	for _, bad := range [][]byte{nil, ring[:10], append(ring, ring...)} {
		_, err := NewSealer(bad)
		require.Error(t, err)
	}
}

// FuzzOpen looks for tokens that are accepted or crash.
func FuzzOpen(f *testing.F) {
	s := sealer(f)
	f.Add(s.Seal(claims())[3:])
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		_, err := s.Open(token)
		require.ErrorIs(t, err, ErrInvalid)
	})
}

// FuzzReadClaims looks behind the authentication: whatever is read can be written and read again.
func FuzzReadClaims(f *testing.F) {
	f.Add(appendClaims(nil, claims()))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, plain []byte) {
		c, err := readClaims(plain)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		again, err := readClaims(appendClaims(nil, c))
		require.NoError(t, err)
		require.Len(t, again.Models, len(c.Models))
	})
}

func BenchmarkSeal(b *testing.B) {
	s := sealer(b)
	c := claims()
	b.ReportAllocs()
	for b.Loop() {
		s.Seal(c)
	}
}

func BenchmarkOpen(b *testing.B) {
	s := sealer(b)
	token := s.Seal(claims())
	raw, err := base64.RawURLEncoding.DecodeString(token)
	require.NoError(b, err)
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		_, _ = s.Open(token)
	}
}
