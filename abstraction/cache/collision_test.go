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
	v := c.Open("m", "1", nil, nil, nil)
	input := func(b byte) *tensor.Input {
		return tensor.FromTensors([]*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_UINT8, Data: []byte{b}}})
	}
	c.entries.Set(key{v.id, input(1).Hash()}, &entry{input: input(2), weight: 1})
	_, found := v.lookup(input(1))
	require.False(t, found)
	c.entries.Set(key{v.id, input(1).Hash()}, &entry{input: input(1), weight: 1})
	_, found = v.lookup(input(1))
	require.True(t, found)
}
