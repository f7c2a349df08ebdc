// SPDX-License-Identifier: Apache-2.0

package batching_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/abstraction/batching"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// TestPlan: the batch that fits, by the rule of slo; the size that is set for those that do not ask.
func TestPlan(t *testing.T) {
	m := batching.NewModel(batching.Learned{})
	rows, mean := batching.Plan(nil, 0, m, time.Second, 1)
	require.Zero(t, rows+int(mean), "nothing is known")
	for range 3000 { // The tail is learned slowly.
		for n := 1; n <= 16; n *= 2 {
			m.Observe(batching.Observation{Rows: n, Latency: 10*time.Millisecond + time.Duration(n)*time.Millisecond})
		}
	}
	for _, c := range []struct {
		cfg       *clipperv1.Batching
		container int
		budget    time.Duration
		replicas  int
		want      int
	}{
		{nil, 0, 100 * time.Millisecond, 1, 40},           // 2·(10 + n) ≤ 100
		{nil, 0, 100 * time.Millisecond, 4, 70},           // 1.25·(10 + n) ≤ 100
		{nil, 0, 0, 1, 40},                                // no deadline: twice the default objective of 50 ms
		{nil, 8, 100 * time.Millisecond, 1, 8},            // the container's limit
		{nil, 0, time.Millisecond, 1, 1},                  // too little for any
		{&clipperv1.Batching{Policy: "none"}, 0, 0, 1, 1}, // by hand
		{&clipperv1.Batching{Policy: "fixed", MaxBatchRows: 12}, 0, time.Millisecond, 1, 12},
	} {
		rows, mean := batching.Plan(c.cfg, c.container, m, c.budget, c.replicas)
		require.InDelta(t, c.want, rows, 0.06*float64(c.want), "%v", c)
		require.InEpsilon(t, float64(10+rows), float64(mean)/1e6, 0.05)
	}
}
