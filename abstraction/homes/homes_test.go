// SPDX-License-Identifier: Apache-2.0

package homes

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var instanceNames = rapid.SliceOfNDistinct(rapid.StringMatching(`10\.0\.0\.[1-9][0-9]?:1367`), 1, 12, rapid.ID[string])

func TestChoose_movesOnlyWhatItMust(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := instanceNames.Draw(t, "instances")
		key := rapid.StringN(1, 20, -1).Draw(t, "key")
		n := rapid.IntRange(1, 4).Draw(t, "n")
		before := Choose(key, all, n)
		require.Len(t, before, min(n, len(all)))

		shuffled := rapid.Permutation(all).Draw(t, "shuffled")
		require.Equal(t, before, Choose(key, shuffled, n), "the order of the instances does not matter")

		gone := rapid.SampledFrom(all).Draw(t, "gone")
		without := slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == gone })
		after := Choose(key, without, n)
		stayed := slices.DeleteFunc(slices.Clone(before), func(s string) bool { return s == gone })
		require.Equal(t, stayed, after[:len(stayed)], "homes that live stay homes, in their order")
		require.LessOrEqual(t, len(after)-len(stayed), 1)
	})
}

func TestChoose_isBalanced(t *testing.T) {
	const keys, instances = 6000, 6
	var all []string
	for i := range instances {
		all = append(all, fmt.Sprintf("clipper-%d.clipper:1367", i))
	}
	counts := map[string]int{}
	for i := range keys {
		counts[Choose(fmt.Sprintf("model-%d", i), all, 1)[0]]++
	}
	// Binomial: six standard deviations.
	p := 1.0 / instances
	for name, n := range counts {
		require.InDelta(t, keys*p, n, 6*math.Sqrt(keys*p*(1-p)), name)
	}
	require.Len(t, counts, instances)
}

func TestPick_followsTheWeights(t *testing.T) {
	homes := []Weighted{{ID("a:1"), 1}, {ID("b:1"), 2}, {ID("c:1"), 5}}
	const inputs = 40000
	counts := make([]int, len(homes))
	random := rand.New(rand.NewPCG(1, 2))
	for range inputs {
		counts[Pick(random.Uint64(), homes)]++
	}
	for i, h := range homes {
		p := h.Weight / 8
		require.InDelta(t, inputs*p, counts[i], 6*math.Sqrt(inputs*p*(1-p)))
	}
}

func TestPick_movesOnlyWhatItMust(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := instanceNames.Draw(t, "instances")
		var all []Weighted
		for _, name := range names {
			all = append(all, Weighted{ID(name), float64(rapid.IntRange(1, 9).Draw(t, "weight"))})
		}
		input := rapid.Uint64().Draw(t, "input")
		chosen := all[Pick(input, all)]
		i := rapid.IntRange(0, len(all)-1).Draw(t, "gone")
		without := slices.Delete(slices.Clone(all), i, i+1)
		if len(without) > 0 && all[i] != chosen {
			require.Equal(t, chosen, without[Pick(input, without)], "an input stays while its home lives")
		}
		require.Equal(t, 0, Pick(input, all[:1]))
	})
}
