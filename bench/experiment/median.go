// SPDX-License-Identifier: Apache-2.0

package experiment

import "slices"

// Median returns the median of the figures of some rounds, the upper one of an even number. There
// must be one at least.
func Median(figures []float64) float64 {
	sorted := slices.Sorted(slices.Values(figures))
	return sorted[len(sorted)/2]
}
