// SPDX-License-Identifier: Apache-2.0

package priority_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/internal/priority"
)

func TestFrom(t *testing.T) {
	for given, want := range map[uint32]uint8{0: 0, 1: 1, 8: 8, 9: 8, math.MaxUint32: 8} {
		require.Equal(t, want, priority.From(priority.With(t.Context(), given)), "%d", given)
	}
}
