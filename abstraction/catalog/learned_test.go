// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/abstraction/batching"
)

func TestLearned_isKeptUntilTheVersionGoes(t *testing.T) {
	c, docs := open(t)
	require.NoError(t, c.Deploy(t.Context(), spec("m", "v1"), false, nil))
	uid := view(t, c).Model("m").Version("v1").UID
	got, err := c.Learned(t.Context(), "m", "v1", uid)
	require.NoError(t, err)
	require.Zero(t, got)

	m := batching.NewModel(batching.Learned{})
	for n := range 20 {
		m.Observe(batching.Observation{Rows: 1 + n, Latency: time.Duration(1+n) * time.Millisecond})
		require.NoError(t, c.SaveLearned(t.Context(), "m", "v1", uid, m.Learned()))
	}
	got, err = c.Learned(t.Context(), "m", "v1", uid)
	require.NoError(t, err)
	require.Equal(t, m.Learned(), got)
	require.Len(t, view(t, c).Models, 1, "it is no model")

	got, err = c.Learned(t.Context(), "m", "v1", "another of the same name")
	require.NoError(t, err)
	require.Zero(t, got)

	_, err = c.DeleteModel(t.Context(), "m")
	require.NoError(t, err)
	require.NoError(t, c.Remove(t.Context(), view(t, c).Model("m").Version("v1")))
	left, err := docs.List(t.Context(), "learned/")
	require.NoError(t, err)
	require.Empty(t, left)
}

// FuzzLearned gives Learned what a store might hold: it is used only when it can have been learned.
func FuzzLearned(f *testing.F) {
	for _, s := range []string{`{"uid":"u"}`, `{"uid":"u","latency":{"weight":1,"largest":1,"rows":1}}`, `{"uid":"u","latency":{"weight":-1}}`, `[`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l := decodeLearned(b, "u")
		require.True(t, l.Valid())
		m := batching.NewModel(l)
		m.Observe(batching.Observation{Rows: 3, Latency: time.Millisecond})
		require.GreaterOrEqual(t, m.Tail(3), m.Mean(3))
		require.GreaterOrEqual(t, m.Mean(3), time.Duration(0))
	})
}
