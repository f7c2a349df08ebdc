// SPDX-License-Identifier: Apache-2.0

package batching_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"github.com/clipper-serving/clipper/abstraction/batching"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

func newController(t require.TestingT, cfg *clipperv1.Batching, containerRows int) batching.Controller {
	m := batching.NewModel(batching.Learned{})
	c, err := batching.New(cfg, containerRows, m)
	require.NoError(t, err)
	return replica{c, m}
}

// replica is a controller with its model, which learns first.
type replica struct {
	batching.Controller
	model *batching.Model
}

func (r replica) Observe(o batching.Observation) {
	r.model.Observe(o)
	r.Controller.Observe(o)
}

// model is a container that takes fixed + perRow·rows.
type model struct{ fixed, perRow time.Duration }

// run lets a controller work on a backlog that never ends, in virtual time, and returns the sizes
// of the batches.
func (m model) run(t *testing.T, c batching.Controller, batches int, budget time.Duration) (sizes []int) {
	synctest.Test(t, func(*testing.T) {
		for range batches {
			begin := time.Now()
			n := c.Next(batching.Backlog{Rows: 1 << 20, HeadSlack: budget, HeadBudget: budget}).Rows
			time.Sleep(m.fixed + time.Duration(n)*m.perRow)
			c.Observe(batching.Observation{Rows: n, Latency: time.Since(begin)})
			sizes = append(sizes, n)
		}
	})
	return sizes
}

func TestNew_limits(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg       *clipperv1.Batching
		container int
		want      int
	}{
		"none":                {&clipperv1.Batching{Policy: "none", MaxBatchRows: 9}, 0, 1},
		"fixed":               {&clipperv1.Batching{Policy: "fixed", MaxBatchRows: 32}, 0, 32},
		"fixed by default":    {&clipperv1.Batching{Policy: "fixed"}, 0, 4096},
		"container's limit":   {&clipperv1.Batching{Policy: "fixed", MaxBatchRows: 32}, 8, 8},
		"the largest allowed": {&clipperv1.Batching{Policy: "fixed", MaxBatchRows: 1 << 30}, 0, 65536},
		"aimd begins with 1":  {&clipperv1.Batching{Policy: "aimd"}, 0, 1},
		"slo begins with 1":   {nil, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.want, newController(t, tc.cfg, tc.container).Next(batching.Backlog{Rows: 100000}).Rows)
		})
	}
	_, err := batching.New(&clipperv1.Batching{Policy: "magic"}, 0, nil)
	require.ErrorContains(t, err, "aimd, fixed, none, quantile, slo")
}

func TestAIMD_findsTheObjective(t *testing.T) {
	m := model{fixed: time.Millisecond, perRow: 100 * time.Microsecond}
	for name, tc := range map[string]struct {
		cfg    *clipperv1.Batching
		budget time.Duration
		best   int // The largest batch within the objective.
	}{
		"configured":          {&clipperv1.Batching{Policy: "aimd", LatencyObjective: durationpb.New(10 * time.Millisecond)}, time.Hour, 90},
		"half of the budget":  {&clipperv1.Batching{Policy: "aimd"}, 20 * time.Millisecond, 90},
		"without a deadline":  {&clipperv1.Batching{Policy: "aimd"}, 0, 490},
		"limited by its size": {&clipperv1.Batching{Policy: "aimd", MaxBatchRows: 40}, 20 * time.Millisecond, 40},
	} {
		t.Run(name, func(t *testing.T) {
			sizes := m.run(t, newController(t, tc.cfg, 0), 1000, tc.budget)
			for _, n := range sizes[len(sizes)-100:] {
				require.LessOrEqual(t, n, tc.best+2)
				require.GreaterOrEqual(t, n, int(0.8*float64(tc.best)))
			}
		})
	}
}

func TestAIMD_backsOffByATenth(t *testing.T) {
	c := newController(t, &clipperv1.Batching{Policy: "aimd", LatencyObjective: durationpb.New(10 * time.Millisecond)}, 0)
	for n := c.Next(batching.Backlog{Rows: 1}).Rows; n < 101; n = c.Next(batching.Backlog{Rows: 1}).Rows {
		c.Observe(batching.Observation{Rows: n, Latency: time.Millisecond})
	}
	c.Observe(batching.Observation{Rows: 101, Latency: 9500 * time.Microsecond})
	require.Equal(t, 101, c.Next(batching.Backlog{Rows: 1}).Rows, "held near the objective")
	c.Observe(batching.Observation{Rows: 101, Latency: 11 * time.Millisecond})
	require.Equal(t, 90, c.Next(batching.Backlog{Rows: 1}).Rows)
	c.Observe(batching.Observation{Rows: 50, Latency: time.Millisecond})
	require.Equal(t, 90, c.Next(batching.Backlog{Rows: 1}).Rows, "a batch that is not full proves nothing")
}

func TestAIMD_followsAModelThatChanges(t *testing.T) {
	c := newController(t, &clipperv1.Batching{Policy: "aimd", LatencyObjective: durationpb.New(10 * time.Millisecond)}, 0)
	model{perRow: 100 * time.Microsecond}.run(t, c, 200, time.Second)
	slow := model{perRow: time.Millisecond}.run(t, c, 50, time.Second)
	require.LessOrEqual(t, slow[len(slow)-1], 11)
	fast := model{perRow: 100 * time.Microsecond}.run(t, c, 200, time.Second)
	require.GreaterOrEqual(t, fast[len(fast)-1], 80)
}

func TestControllers_staySane(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		maxRows := rapid.IntRange(1, 5000).Draw(t, "max")
		c := newController(t, &clipperv1.Batching{
			Policy:       rapid.SampledFrom(batching.Policies()).Draw(t, "policy"),
			MaxBatchRows: uint32(maxRows),
		}, 0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			budget := time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "budget"))
			d := c.Next(batching.Backlog{
				Rows: rapid.IntRange(1, 9999).Draw(t, "backlog"), HeadBudget: budget,
				HeadSlack: time.Duration(rapid.Int64Range(-int64(time.Second), int64(budget)).Draw(t, "slack")),
				Replicas:  rapid.IntRange(0, 3).Draw(t, "replicas"), Rate: rapid.Float64Range(0, 1e6).Draw(t, "rate"),
			})
			n := d.Rows
			if n < 1 || n > maxRows || d.Target < 0 || d.Target > maxRows || d.Why == 0 {
				t.Fatalf("%+v is not within 1 and %d, or without a reason", d, maxRows)
			}
			c.Observe(batching.Observation{Rows: rapid.IntRange(1, n).Draw(t, "rows"), Latency: time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "latency"))})
		}
	})
}
