// SPDX-License-Identifier: Apache-2.0

package autoscale_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/clipper-serving/clipper/abstraction/autoscale"
)

// line returns the plan of replicas that take fixed + row·n for a batch, for queries with a budget.
func line(fixed, row, budget time.Duration) autoscale.Plan {
	return func(k int) autoscale.Batch {
		longest := time.Duration(float64(budget) * float64(k) / float64(k+1))
		n := max(1, int((longest-fixed)/max(row, 1)))
		return autoscale.Batch{Rows: n, Time: fixed + time.Duration(n)*row}
	}
}

func unknown(int) autoscale.Batch { return autoscale.Batch{} }

var (
	start  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	model  = line(8*time.Millisecond, 2*time.Millisecond, 50*time.Millisecond) // 8 to 20 rows, 350 to 450 rows/s
	steady = func(rate float64) autoscale.Demand {
		return autoscale.Demand{Rate: rate, Burstiness: 1, Urgency: 20 * rate}
	}
)

func TestDecide(t *testing.T) {
	nothing := autoscale.Demand{Idle: -1}
	idle := autoscale.Demand{Idle: time.Hour, Burstiness: 1}
	zeroTo8 := autoscale.Settings{Max: 8}
	twoTo8 := autoscale.Settings{Min: 2, Max: 8}
	for _, c := range []struct {
		name     string
		settings autoscale.Settings
		o        autoscale.Observed
		after    time.Duration // the same was seen for so long
		want     int
		held     string
	}{
		{"by hand", autoscale.Settings{}, autoscale.Observed{Demand: steady(5000), Plan: model, Replicas: 1, Ready: 1}, 0, 1, ""},
		{"enough", twoTo8, autoscale.Observed{Demand: steady(400), Plan: model, Replicas: 2, Ready: 2}, time.Hour, 2, ""},
		{"too few", twoTo8, autoscale.Observed{Demand: steady(1000), Plan: model, Replicas: 2, Ready: 2}, 0, 4, ""},
		{"the maximum", twoTo8, autoscale.Observed{Demand: steady(50000), Plan: model, Replicas: 8, Ready: 8}, 0, 8, "is the maximum"},
		{"the minimum", twoTo8, autoscale.Observed{Demand: steady(1), Plan: model, Replicas: 2, Ready: 2}, time.Hour, 2, "2 is the minimum"},
		{"the minimum has grown", twoTo8, autoscale.Observed{Demand: nothing, Plan: unknown}, 0, 2, "2 is the minimum"},
		{"the maximum has shrunk", twoTo8, autoscale.Observed{Demand: steady(50000), Plan: model, Replicas: 20, Ready: 20}, 0, 8, "is the maximum"},
		{"not yet", twoTo8, autoscale.Observed{Demand: steady(1), Plan: model, Replicas: 8, Ready: 8}, 4 * time.Second, 8, "fewer would do"},
		{"down", twoTo8, autoscale.Observed{Demand: steady(1), Plan: model, Replicas: 8, Ready: 8}, 6 * time.Second, 2, "minimum"},
		{"as slowly as it starts", twoTo8, autoscale.Observed{Demand: steady(1), Plan: model, Replicas: 8, Ready: 8, Start: time.Minute}, 119 * time.Second, 8, "2m0s"},
		{"not while starting", twoTo8, autoscale.Observed{Demand: steady(1), Plan: model, Replicas: 8, Ready: 7, Starting: 1}, time.Hour, 8, "being started"},
		{"cannot start", twoTo8, autoscale.Observed{Demand: steady(2000), Plan: model, Replicas: 3, Ready: 2, Failing: "no space"}, 0, 3, "no space"},
		{"cannot start, and is not needed", twoTo8, autoscale.Observed{Demand: steady(1), Plan: model, Replicas: 3, Ready: 2, Starting: 1, Failing: "no space"}, time.Minute, 2, ""},
		{"nothing is known", twoTo8, autoscale.Observed{Demand: steady(2000), Plan: unknown, Replicas: 5, Ready: 5}, time.Hour, 5, ""},
		{"a first query", zeroTo8, autoscale.Observed{Demand: autoscale.Demand{Waiting: 1}, Plan: unknown}, 0, 1, ""},
		{"a query that was refused", zeroTo8, autoscale.Observed{Demand: autoscale.Demand{Idle: time.Second}, Plan: unknown}, 0, 1, ""},
		{"nobody has ever asked", zeroTo8, autoscale.Observed{Demand: nothing, Plan: unknown}, 0, 0, ""},
		{"deployed and not asked yet", zeroTo8, autoscale.Observed{Demand: nothing, Plan: unknown, Replicas: 1, Ready: 1}, time.Minute, 1, ""},
		{"deployed and never asked", zeroTo8, autoscale.Observed{Demand: nothing, Plan: unknown, Replicas: 1, Ready: 1}, time.Hour, 0, ""},
		{"is to become current", zeroTo8, autoscale.Observed{Demand: nothing, Plan: unknown, Replicas: 1, Failing: "exit", Keep: true}, time.Hour, 1, ""},
		{"asked a while ago", zeroTo8, autoscale.Observed{Demand: autoscale.Demand{Idle: time.Minute}, Plan: model, Replicas: 1, Ready: 1}, time.Hour, 1, ""},
		{"idle", zeroTo8, autoscale.Observed{Demand: idle, Plan: model, Replicas: 1, Ready: 1}, time.Hour, 0, ""},
		{"idle after much", zeroTo8, autoscale.Observed{Demand: idle, Plan: model, Replicas: 8, Ready: 8}, time.Hour, 0, ""},
		{"many wait", zeroTo8, autoscale.Observed{Demand: autoscale.Demand{Waiting: 50000, Burstiness: 1}, Plan: model, Replicas: 1, Ready: 1}, 0, 8, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s autoscale.Scaler
			c.o.Now = start
			d := s.Decide(c.settings, c.o)
			for c.o.Now.Sub(start) < c.after && d.Replicas == c.o.Replicas {
				c.o.Now = c.o.Now.Add(500 * time.Millisecond)
				d = s.Decide(c.settings, c.o)
			}
			require.Equal(t, c.want, d.Replicas, "%+v", d)
			require.Contains(t, d.Held, c.held)
			require.NotEmpty(t, d.Why)
		})
	}
}

// TestNeed_monotone: more load never needs fewer replicas, nor does more burstiness, and what is needed
// is enough.
func TestNeed_monotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plan := line(time.Duration(rapid.IntRange(0, 100_000).Draw(t, "fixed µs"))*time.Microsecond,
			time.Duration(rapid.IntRange(1, 20_000).Draw(t, "row µs"))*time.Microsecond,
			time.Duration(rapid.IntRange(1, 2000).Draw(t, "budget ms"))*time.Millisecond)
		rate, more := rapid.Float64Range(0.01, 1e5).Draw(t, "rate"), rapid.Float64Range(1, 10).Draw(t, "more")
		b := rapid.Float64Range(0, 50).Draw(t, "burstiness")
		target := rapid.Float64Range(0.1, 1).Draw(t, "target")
		l := autoscale.Load{Rate: rate, Burstiness: b}
		n := l.Need(plan, target)
		require.GreaterOrEqual(t, n, 1)
		require.LessOrEqual(t, n, autoscale.MostReplicas)
		require.GreaterOrEqual(t, autoscale.Load{Rate: rate * more, Burstiness: b}.Need(plan, target), n)
		if n < autoscale.MostReplicas {
			require.LessOrEqual(t, l.Ratio(n, plan(n), target), 1.0)
			require.LessOrEqual(t, rate, float64(n)*plan(n).Rate()*1.000001)
		}
	})
}

// TestDecide_bounded: whatever is seen, the number stays within the bounds.
func TestDecide_bounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lowest := rapid.IntRange(0, 10).Draw(t, "min")
		settings := autoscale.Settings{Min: lowest, Max: rapid.IntRange(max(1, lowest), 20).Draw(t, "max")}
		var s autoscale.Scaler
		o := autoscale.Observed{Now: start, Replicas: rapid.IntRange(0, 30).Draw(t, "replicas")}
		for range 50 {
			o.Now = o.Now.Add(time.Duration(rapid.IntRange(0, 10_000).Draw(t, "ms")) * time.Millisecond)
			o.Demand = steady(rapid.Float64Range(0, 10_000).Draw(t, "rate"))
			o.Demand.Waiting = rapid.IntRange(0, 1000).Draw(t, "waiting")
			o.Demand.Idle = time.Duration(rapid.IntRange(-1, 1000).Draw(t, "idle")) * time.Second
			o.Ready = rapid.IntRange(0, o.Replicas).Draw(t, "ready")
			o.Starting = o.Replicas - o.Ready
			o.Failing = rapid.SampledFrom([]string{"", "broken"}).Draw(t, "failing")
			o.Plan = rapid.SampledFrom([]autoscale.Plan{model, unknown}).Draw(t, "plan")
			before := o.Replicas
			o.Replicas = s.Decide(settings, o).Replicas
			require.GreaterOrEqual(t, o.Replicas, settings.Min)
			require.LessOrEqual(t, o.Replicas, settings.Max)
			if o.Failing != "" && before >= max(1, settings.Min) {
				require.LessOrEqual(t, o.Replicas, before)
			}
		}
	})
}

// TestDecide_settles: at a constant load, wherever it begins, the number becomes one that is enough, and
// stays: chance in the measured rate may still let one go, but none of these is started again.
func TestDecide_settles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		settings := autoscale.Settings{Min: rapid.IntRange(0, 3).Draw(t, "min"), Max: 200}
		rate := rapid.Float64Range(1, 20_000).Draw(t, "rate")
		noise := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		var s autoscale.Scaler
		o := autoscale.Observed{Now: start, Plan: model, Replicas: rapid.IntRange(0, 200).Draw(t, "replicas")}
		down, changes := false, 0
		for i := range 300 {
			o.Now = o.Now.Add(500 * time.Millisecond)
			o.Demand = steady(rate * (1 + 0.05*(noise.Float64()-0.5)))
			d := s.Decide(settings, o)
			if i >= 12 {
				require.LessOrEqual(t, autoscale.Load{Rate: 0.975 * rate, Burstiness: 1}.Ratio(d.Replicas, model(d.Replicas), autoscale.DefaultTargetLoad), 1.0)
			}
			if i >= 12 && d.Replicas != o.Replicas {
				changes++
				require.False(t, down && d.Replicas > o.Replicas, "it oscillates")
				down = d.Replicas < o.Replicas
			}
			o.Replicas, o.Ready = d.Replicas, d.Replicas
		}
		require.LessOrEqual(t, changes, 3)
	})
}
