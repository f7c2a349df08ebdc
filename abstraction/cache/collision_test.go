// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"testing"

	"github.com/stretchr/testify/require"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// TestVersion_collision puts one input's prediction where another's hash points to: it must not be
// found.
func TestVersion_collision(t *testing.T) {
	c, err := New(1 << 20)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	v := c.Open("m", "1", nil, Counters{})
	input := func(b byte) *tensor.Input {
		return tensor.FromTensors([]*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_UINT8, Data: []byte{b}}})
	}
	k := key{v.id, input(1).Hash()}
	for b, want := range map[byte]bool{2: false, 1: true} {
		inputs, err := input(b).Tensors()
		require.NoError(t, err)
		c.entries.Set(k, &entry{inputs: inputs, weight: 1})
		require.Equal(t, want, v.lookup(k, input(1)) != nil)
	}
}
