// SPDX-License-Identifier: Apache-2.0

package exp

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

func TestCurve(t *testing.T) {
	var c curve
	for i := range 3 * every {
		loss := 0.0
		if i < every {
			loss = 1
		}
		c.add(loss)
	}
	require.Equal(t, 1.0, c.at(every))
	require.Equal(t, 0.5, c.at(2*every))
	require.InDelta(t, 1.0/3, c.at(3*every), 1e-12)
}

func TestOver(t *testing.T) {
	callers := []*caller{{defaults: 1}, {defaults: 2}, {defaults: 6}}
	mean, deviation := over(callers, func(c *caller) float64 { return float64(c.defaults) })
	require.InDelta(t, 3, mean, 1e-12)
	require.InDelta(t, 1.527525, deviation, 1e-6, "the square root of 7 / 3")
}

func TestCaller_learn(t *testing.T) {
	answer := func(label int64, isDefault bool) *clipperv1.QueryResponse {
		return &clipperv1.QueryResponse{IsDefault: isDefault, Outputs: []*clipperv1.Tensor{{Data: binary.LittleEndian.AppendUint64(nil, uint64(label))}}}
	}
	var c caller
	c.learn(answer(3, false), 3)
	c.learn(answer(4, false), 3)
	c.learn(answer(-1, true), 3)
	require.Equal(t, 2.0, c.answers.sum)
	require.Equal(t, 3, c.answers.count)
	require.Equal(t, 1, c.defaults)
}
