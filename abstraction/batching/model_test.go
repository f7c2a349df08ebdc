// SPDX-License-Identifier: Apache-2.0

package batching_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/clipper-serving/clipper/abstraction/batching"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// noisy is a container with noise of 10 % (lognormal).
type noisy struct {
	model
	random *rand.Rand
}

func newNoisy(fixed, perRow time.Duration) *noisy {
	return &noisy{model{fixed, perRow}, rand.New(rand.NewPCG(7, 7))}
}

func (n *noisy) observation(rows int) batching.Observation {
	t := float64(n.fixed) + float64(rows)*float64(n.perRow)
	return batching.Observation{Rows: rows, Latency: time.Duration(t * math.Exp(0.1*n.random.NormFloat64()-0.005))}
}

// teach lets a model see batches of random sizes up to a bound.
func (n *noisy) teach(m *batching.Model, batches, largest int) {
	for range batches {
		m.Observe(n.observation(1 + n.random.IntN(largest)))
	}
}

func near(t *testing.T, want, got time.Duration, tolerance float64, message string) {
	t.Helper()
	require.InEpsilon(t, want.Seconds(), got.Seconds(), tolerance, message)
}

func TestModel_learnsTheLineAndTheTail(t *testing.T) {
	m, c := batching.NewModel(batching.Learned{}), newNoisy(2*time.Millisecond, 50*time.Microsecond)
	require.Zero(t, m.Mean(1), "nothing is known")
	c.teach(m, 2000, 200)
	for _, rows := range []int{10, 100, 200, 390} {
		near(t, 2*time.Millisecond+time.Duration(rows)*50*time.Microsecond, m.Mean(rows), 0.1, "mean")
	}
	near(t, time.Duration(1.25*float64(7*time.Millisecond)), m.Tail(100), 0.12, "the 99th percentile of the noise is 1.26")
}

func TestModel_aStallMovesNothing(t *testing.T) {
	m, c := batching.NewModel(batching.Learned{}), newNoisy(2*time.Millisecond, 50*time.Microsecond)
	c.teach(m, 500, 200)
	before := m.Mean(100)
	m.Observe(batching.Observation{Rows: 100, Latency: 100 * before})
	near(t, before, m.Mean(100), 0.05, "one stall in 500")
}

func TestModel_followsAChange(t *testing.T) {
	slow, fast := model{10 * time.Millisecond, 200 * time.Microsecond}, model{2 * time.Millisecond, 40 * time.Microsecond}
	for name, change := range map[string][2]model{"slower": {fast, slow}, "faster": {slow, fast}} {
		t.Run(name, func(t *testing.T) {
			m := batching.NewModel(batching.Learned{})
			newNoisy(change[0].fixed, change[0].perRow).teach(m, 1000, 100)
			newNoisy(change[1].fixed, change[1].perRow).teach(m, 60, 100)
			near(t, change[1].fixed+50*change[1].perRow, m.Mean(50), 0.2, "after 60 batches")
		})
	}
}

// TestModel_aChangeKeepsTheCurve: four batches of one size tell how much slower a replica has become, and
// what was known of other sizes still says how the time goes with the size.
func TestModel_aChangeKeepsTheCurve(t *testing.T) {
	m := batching.NewModel(batching.Learned{})
	newNoisy(2*time.Millisecond, 40*time.Microsecond).teach(m, 1000, 100)
	slower := newNoisy(10*time.Millisecond, 200*time.Microsecond)
	for range 4 {
		m.Observe(slower.observation(100))
	}
	for _, rows := range []int{1, 10, 50, 100} {
		near(t, 10*time.Millisecond+time.Duration(rows)*200*time.Microsecond, m.Mean(rows), 0.25, "mean")
	}
	require.Less(t, m.Tail(100), m.Mean(100)*3/2, "the change is not taken for a tail")
}

// TestModel_forgetsABadTime: a size that was slow for a while, and is avoided since, is not avoided for ever.
func TestModel_forgetsABadTime(t *testing.T) {
	m, c := batching.NewModel(batching.Learned{}), newNoisy(time.Millisecond, 20*time.Microsecond)
	c.teach(m, 500, 100)
	for range 10 {
		m.Observe(batching.Observation{Rows: 150, Latency: 7 * time.Millisecond})
	}
	require.Greater(t, m.Mean(150), 6*time.Millisecond)
	c.teach(m, 1500, 100)
	near(t, 4*time.Millisecond, m.Mean(150), 0.1, "mean")
}

func TestModel_isNotFooledByACurve(t *testing.T) {
	m := batching.NewModel(batching.Learned{})
	random := rand.New(rand.NewPCG(1, 1))
	at := func(rows int) time.Duration { // A step at 128 rows, as of memory that is full.
		if rows >= 128 {
			return 30 * time.Millisecond
		}
		return 5 * time.Millisecond
	}
	for range 2000 {
		rows := 1 + random.IntN(255)
		m.Observe(batching.Observation{Rows: rows, Latency: at(rows)})
	}
	for _, rows := range []int{10, 60, 140, 250} {
		require.GreaterOrEqual(t, m.Tail(rows), at(rows)*95/100, "%d rows", rows)
	}
}

func TestModel_hop(t *testing.T) {
	m := batching.NewModel(batching.Learned{})
	require.Zero(t, m.Hop())
	for range 100 {
		m.Observe(batching.Observation{Rows: 1, Latency: 3 * time.Millisecond, Predict: 2 * time.Millisecond})
		m.Observe(batching.Observation{Rows: 1, Latency: 3 * time.Millisecond}) // Sent ahead: says nothing.
	}
	near(t, time.Millisecond, m.Hop(), 0.01, "hop")
}

// TestModel_priorIsOvercome: what was learned on another machine is soon forgotten, but serves until
// then.
func TestModel_priorIsOvercome(t *testing.T) {
	old := batching.NewModel(batching.Learned{})
	newNoisy(10*time.Millisecond, time.Millisecond).teach(old, 5000, 100)
	b, err := json.Marshal(old.Learned())
	require.NoError(t, err)
	var kept batching.Learned
	require.NoError(t, json.Unmarshal(b, &kept))
	require.Equal(t, old.Learned(), kept)
	require.True(t, kept.Valid())

	m := batching.NewModel(kept)
	near(t, 60*time.Millisecond, m.Mean(50), 0.1, "at first")
	require.Zero(t, m.Learned().Observations)
	newNoisy(time.Millisecond, 100*time.Microsecond).teach(m, 50, 100)
	near(t, 6*time.Millisecond, m.Mean(50), 0.25, "after 50 batches")
}

func TestLearned_merge(t *testing.T) {
	var sum batching.Learned
	require.True(t, sum.Valid())
	for range 3 {
		m := batching.NewModel(batching.Learned{})
		newNoisy(2*time.Millisecond, 50*time.Microsecond).teach(m, 500, 100)
		sum.Merge(m.Learned())
	}
	require.EqualValues(t, 1500, sum.Observations)
	near(t, 7*time.Millisecond, batching.NewModel(sum).Mean(100), 0.1, "of all")
}

func TestLearned_damaged(t *testing.T) {
	for _, l := range []batching.Learned{
		{Weight: math.NaN(), Largest: 1},
		{Weight: -1, Largest: 1},
		{Weight: 1},
		{Largest: 1},
		{Weight: 1, Largest: 1 << 30},
		{Weight: 1, Largest: 1, Time: math.Inf(1)},
	} {
		require.False(t, l.Valid(), "%+v", l)
	}
}

// TestModel_staysSane: whatever is observed, the times are finite, not negative, and a size is found.
func TestModel_staysSane(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := batching.NewModel(batching.Learned{})
		c, err := batching.New(&clipperv1.Batching{}, 0, m)
		require.NoError(t, err)
		for range rapid.IntRange(1, 100).Draw(t, "batches") {
			m.Observe(batching.Observation{
				Rows:    rapid.IntRange(0, 70000).Draw(t, "rows"),
				Latency: time.Duration(rapid.Int64Range(-1, int64(time.Hour)).Draw(t, "latency")),
				Predict: time.Duration(rapid.Int64Range(-1, int64(time.Hour)).Draw(t, "predict")),
			})
			rows := rapid.IntRange(1, 70000).Draw(t, "asked")
			if mean, tail := m.Mean(rows), m.Tail(rows); mean < 0 || tail < mean || tail > 1<<62 {
				t.Fatalf("%d rows: mean %v, tail %v", rows, mean, tail)
			}
			l := m.Learned()
			if n := c.Next(batching.Backlog{Rows: 1, HeadSlack: time.Hour, HeadBudget: time.Hour}).Rows; n > max(1, 2*l.Largest) {
				t.Fatalf("%d rows, the largest batch had %d", n, l.Largest)
			}
			if l.Largest <= batching.MaxBatchRows && !l.Valid() {
				t.Fatalf("not valid: %+v", l)
			}
		}
	})
}

func TestSLO_takesWhatTheHeadCanAfford(t *testing.T) {
	m := batching.NewModel(batching.Learned{})
	newNoisy(2*time.Millisecond, 50*time.Microsecond).teach(m, 3000, 300)
	next := func(cfg *clipperv1.Batching, b batching.Backlog) batching.Decision {
		c, err := batching.New(cfg, 0, m)
		require.NoError(t, err)
		return c.Next(b)
	}
	const slack, budget = 10 * time.Millisecond, 20 * time.Millisecond
	one := next(nil, batching.Backlog{Rows: 999, HeadSlack: slack, HeadBudget: budget})
	require.LessOrEqual(t, m.Tail(one.Rows), slack)
	require.Greater(t, m.Tail(one.Rows+2), slack, "the largest")
	require.Equal(t, batching.Deadline, one.Why)
	require.InEpsilon(t, one.Rows, one.Target, 0.05, "two in a row must fit into the budget")
	four := next(nil, batching.Backlog{Rows: 999, HeadSlack: slack, HeadBudget: budget, Replicas: 4})
	require.Greater(t, four.Target, one.Target*14/10, "staggered replicas can have larger batches")
	busy := next(nil, batching.Backlog{Rows: 999, HeadSlack: slack, HeadBudget: budget, Rate: 1e6})
	require.Greater(t, busy.Target, one.Target, "there are enough that have waited for less")

	late := next(nil, batching.Backlog{Rows: 999, HeadSlack: -slack, HeadBudget: budget})
	require.LessOrEqual(t, m.Tail(late.Rows), m.Tail(1)*106/100)
	require.Positive(t, late.Rows)

	capped := next(&clipperv1.Batching{MaxBatchRows: 5}, batching.Backlog{Rows: 999, HeadSlack: slack, HeadBudget: budget})
	require.Equal(t, batching.Decision{Rows: 5, Target: 5, Why: batching.Maximum}, capped)
	probing := next(nil, batching.Backlog{Rows: 9999, HeadSlack: time.Hour, HeadBudget: time.Hour})
	require.Equal(t, batching.Decision{Rows: 600, Target: 600, Why: batching.Probing}, probing)
}
