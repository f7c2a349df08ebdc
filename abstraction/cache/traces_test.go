// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/zeebo/xxh3"
)

func TestTraces(t *testing.T) {
	all := newTraces(bytesPerPlace) // One place for all.
	require.EqualValues(t, 4, all.bytes())
	of := func(hi uint64) trace { return all.of(key{1, xxh3.Uint128{Hi: hi}}) }
	one, two := of(2), of(4)

	require.False(t, one.is(asked))
	require.False(t, of(0).is(asked), "nobody was here yet")
	one.note(asked)
	require.True(t, one.is(asked))
	require.False(t, one.is(stored))
	require.False(t, two.is(asked))

	two.note(stored)
	require.True(t, two.is(stored))
	require.True(t, one.is(asked), "the kinds have room of their own")

	two.note(asked)
	require.True(t, two.is(asked))
	require.False(t, one.is(asked), "the latest has the place")
	require.True(t, two.is(stored))
}

func TestTraces_versionsHaveOtherPlaces(t *testing.T) {
	all := newTraces(1 << 20)
	hash := xxh3.Uint128{Hi: 1 << 32, Lo: 7}
	const versions = 16
	for v := range uint64(versions) {
		all.of(key{v, hash}).note(asked)
	}
	for v := range uint64(versions) {
		require.True(t, all.of(key{v, hash}).is(asked), "version %d", v)
	}
}

func TestNewTraces(t *testing.T) {
	for cacheBytes, places := range map[int64]int{
		1: 1, bytesPerPlace: 1, 3 * bytesPerPlace: 2, 1 << 20: 1 << 12, 1 << 40: maxPlaces,
	} {
		require.Len(t, newTraces(cacheBytes), places, "%d bytes", cacheBytes)
	}
}
