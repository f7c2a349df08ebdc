// SPDX-License-Identifier: Apache-2.0

// Package homes chooses, among the live instances, the homes of a model version, and among these the
// one for an input. All instances choose alike from the same list, without asking each other.
//
// Both choices are rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to increase
// hit rates", IEEE/ACM Transactions on Networking 6(1), 1998): whoever has the highest score for a
// key gets it. So when an instance comes or goes, only the keys that it gets or had move. Homes of
// different size are weighed by the logarithmic method of Schindelhauer and Schomaker ("Weighted
// distributed hash tables", SPAA 2005): the score is -w/ln(u), with u uniform in (0, 1), and the
// share of a home is its weight's part of all weights.
package homes

import (
	"cmp"
	"math"
	"slices"

	"github.com/zeebo/xxh3"
)

// Choose returns the n best instances for a key, best first; all when there are fewer. The order of
// the instances, each of which is there once, does not matter.
func Choose(key string, instances []string, n int) []string {
	seed := xxh3.HashString(key)
	type scored struct {
		instance string
		score    uint64
	}
	all := make([]scored, len(instances))
	for i, name := range instances {
		all[i] = scored{name, xxh3.HashStringSeed(name, seed)}
	}
	slices.SortFunc(all, func(a, b scored) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.instance, b.instance))
	})
	all = all[:min(max(n, 0), len(all))]
	chosen := make([]string, len(all))
	for i, s := range all {
		chosen[i] = s.instance
	}
	return chosen
}

// Weighted is a home with its part of the queries.
type Weighted struct {
	// ID is a hash that tells it from others; see ID.
	ID uint64
	// Weight is above zero; queries are spread in proportion to it.
	Weight float64
}

// ID returns the hash of an instance's name.
func ID(name string) uint64 { return xxh3.HashString(name) }

// Pick returns the position of the home for an input with this hash, among at least one.
func Pick(input uint64, homes []Weighted) int {
	best, bestScore := 0, math.Inf(-1)
	for i, h := range homes {
		if score := h.Weight / -math.Log(uniform(input^h.ID)); score > bestScore {
			best, bestScore = i, score
		}
	}
	return best
}

// uniform mixes x (the finalizer of SplitMix64) into a number between 0 and 1, both excluded.
func uniform(x uint64) float64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	return (float64(x>>11) + 0.5) / (1 << 53)
}
