// SPDX-License-Identifier: Apache-2.0

package load

import (
	"math"
)

// Search bounds a search for a capacity.
type Search struct {
	// From is the rate that is tried first.
	From float64
	// Step, greater than 1, is the factor to the next rate until one rate is borne and one is not.
	Step float64
	// Precision is how near those two are in the end: 0.02 means within 2 %.
	Precision float64
	// Probes is the most rates that are tried.
	Probes int
}

// Capacity returns the highest rate that was borne and what was measured at it; a rate of 0 when
// none was. bears measures at a rate and says whether it is borne.
func Capacity[M any](s Search, bears func(rate float64) (M, bool, error)) (best float64, at M, err error) {
	low, high := 0.0, math.Inf(1)
	for rate, probes := s.From, 0; probes < s.Probes; probes++ {
		m, ok, err := bears(rate)
		if err != nil {
			return 0, at, err
		}
		if ok {
			low, at = rate, m
		} else {
			high = rate
		}
		switch {
		case low == 0:
			rate /= s.Step
		case math.IsInf(high, 1):
			rate *= s.Step
		case high/low <= 1+s.Precision:
			return low, at, nil
		default:
			rate = math.Sqrt(low * high)
		}
	}
	return low, at, nil
}
