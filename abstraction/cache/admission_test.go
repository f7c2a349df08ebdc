// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAdmission_sample: the sample halves with every judgement that finds nothing of use, down to a
// limit, and is everything again when something is.
func TestAdmission_sample(t *testing.T) {
	var a admission
	stores := func(n, used int) {
		for range used {
			a.hit()
		}
		for range n {
			a.store()
		}
	}
	stores(window, window/worthwhile)
	require.EqualValues(t, 0, a.bits.Load(), "enough were of use")
	stores(window-1, window/worthwhile-1)
	require.EqualValues(t, 0, a.bits.Load(), "not judged yet")
	stores(1, 0)
	require.EqualValues(t, firstBits, a.bits.Load())
	for bits := firstBits + 1; bits <= lastBits; bits++ {
		stores(sparseWindow, sparseWindow/worthwhile-1)
		require.EqualValues(t, bits, a.bits.Load())
	}
	stores(sparseWindow, 0)
	require.EqualValues(t, lastBits, a.bits.Load(), "the sample never ends")
	stores(0, sparseWindow/worthwhile)
	require.EqualValues(t, 0, a.bits.Load())
}
