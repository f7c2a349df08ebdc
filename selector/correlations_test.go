// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/selector/policy"
)

func (b *bench) correlations(t testing.TB, app string) *clipperv1.GetModelCorrelationsResponse {
	r, err := b.admin.GetModelCorrelations(t.Context(), &clipperv1.GetModelCorrelationsRequest{Application: app})
	require.NoError(t, err)
	return r
}

// Of five models, a and c always say the same, and b mostly what they say; d is always right, and e
// has its own mind.
func TestGetModelCorrelations(t *testing.T) {
	const queries = 400
	b := newBench(t, nil)
	app := minimal("app", "c", "a", "b", "d", "e")
	b.create(t, app)
	random := rand.New(rand.NewPCG(1, 2))
	wrong := map[string]float64{}
	for range queries {
		right := func(p float64) int64 {
			if random.Float64() < p {
				return 1
			}
			return 2
		}
		said := map[string]answer{"a": {label: right(0.7)}, "d": {label: 1}, "e": {label: right(0.5)}}
		said["c"], said["b"] = said["a"], said["a"]
		if random.Float64() < 0.02 {
			said["b"] = answer{label: 3 - said["a"].label}
		}
		b.models.mu.Lock()
		b.models.script = said
		b.models.mu.Unlock()
		r, err := b.Feedback(t.Context(), truth("app", b.query(t, "app", "").FeedbackId, 1), nil)
		require.NoError(t, err)
		for _, l := range r.Losses {
			wrong[l.Model] += l.Loss
		}
	}
	got := b.correlations(t, "app")
	require.Len(t, got.Pairs, 10)
	for i, p := range got.Pairs {
		require.Equal(t, float64(queries), p.Observations)
		require.InDelta(t, wrong[p.First]/queries, p.FirstLoss, 1e-9)
		require.InDelta(t, wrong[p.Second]/queries, p.SecondLoss, 1e-9)
		switch {
		case p.First == "d" || p.Second == "d":
			require.Nil(t, p.Correlation, "it is never wrong")
			require.GreaterOrEqual(t, i, 6, "they come last")
		case p.First == "c" && p.Second == "a":
			require.Zero(t, i, "the most alike first")
			require.InDelta(t, 1, p.GetCorrelation(), 1e-9)
			require.Greater(t, p.GetCorrelationLower(), 0.95)
		case p.First == "e" || p.Second == "e":
			require.Less(t, math.Abs(p.GetCorrelation()), 4/math.Sqrt(queries))
		}
	}
	require.Len(t, got.SuggestedGroups, 1)
	require.Equal(t, []string{"c", "a", "b"}, got.SuggestedGroups[0].Models, "in the application's order")
	require.InDelta(t, 0.95, got.SuggestedGroups[0].Correlation, 0.04)

	// What is declared is not suggested, as long as it is all.
	models := minimal("app", "c", "a", "b", "d", "e")
	models.Models[0].Group, models.Models[1].Group = "g", "g"
	b.update(t, models)
	require.Len(t, b.correlations(t, "app").SuggestedGroups, 1, "b is not in it")
	models.Models[2].Group = "g"
	b.update(t, models)
	require.Empty(t, b.correlations(t, "app").SuggestedGroups)

	_, err := b.admin.DeleteApplication(t.Context(), &clipperv1.DeleteApplicationRequest{Application: "app"})
	require.NoError(t, err)
	keys, err := b.deps.Sums.Keys(t.Context(), "selection/", "", 10)
	require.NoError(t, err)
	require.Empty(t, keys)
	_, err = b.admin.GetModelCorrelations(t.Context(), &clipperv1.GetModelCorrelationsRequest{Application: "app"})
	requireError(t, err, codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, "application")
}

// What one instance learned is in the report of another after it has ended, at the latest.
func TestGetModelCorrelations_instances(t *testing.T) {
	st := newStore(t)
	script := map[string]answer{"a": {label: 1}, "b": {label: 2}}
	one, two := start(t, st, newFakeModels(script)), start(t, st, newFakeModels(script))
	one.create(t, minimal("app", "a", "b"))
	require.NoError(t, two.apps.Refresh(t.Context()))
	for range 3 {
		_, err := one.Feedback(t.Context(), truth("app", one.query(t, "app", "").FeedbackId, 1), nil)
		require.NoError(t, err)
	}
	one.Close()
	pairs := two.correlations(t, "app").Pairs
	require.Len(t, pairs, 1)
	require.Equal(t, 3.0, pairs[0].Observations)
	require.Zero(t, pairs[0].FirstLoss)
	require.Equal(t, 1.0, pairs[0].SecondLoss)
}

// lossy does what it is told and then says that nobody knows.
type lossy struct {
	store.Sums
	mu    sync.Mutex
	fails bool
}

func (l *lossy) Add(ctx context.Context, once string, ttl time.Duration, updates ...store.Update) (bool, error) {
	applied, err := l.Sums.Add(ctx, once, ttl, updates...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fails {
		return false, fmt.Errorf("lost the answer: %w", store.ErrUnavailable)
	}
	return applied, err
}

func (l *lossy) set(fails bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fails = fails
}

// An addition that may or may not have been done counts once.
func TestGetModelCorrelations_outage(t *testing.T) {
	st := newStore(t)
	sums := &lossy{Sums: st.Sums()}
	b := startWith(t, st.Documents(), sums, newFakeModels(map[string]answer{"a": {label: 1}, "b": {label: 2}}), Config{StateWait: time.Minute})
	b.create(t, minimal("app", "a", "b"))
	learn := func() {
		_, err := b.Feedback(t.Context(), truth("app", b.query(t, "app", "").FeedbackId, 1), nil)
		require.NoError(t, err)
	}
	learn()
	sums.set(true)
	for range 3 {
		_, err := b.admin.GetModelCorrelations(t.Context(), &clipperv1.GetModelCorrelationsRequest{Application: "app"})
		requireError(t, err, codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, "")
	}
	sums.set(false)
	learn()
	b.correlations(t, "app") // The old ones go first; the new ones follow.
	require.Equal(t, 2.0, b.correlations(t, "app").Pairs[0].Observations)
}

func TestPairSums(t *testing.T) {
	var s pairSums
	xs, ys := []float64{0, 0.5, 1, 0.25, 0.75}, []float64{0.1, 0.4, 0.8, 0.5, 0.6}
	meanX, meanY := 0.5, 0.48
	var xy, xx, yy float64
	for i := range xs {
		s.add(xs[i], ys[i])
		xy += (xs[i] - meanX) * (ys[i] - meanY)
		xx += (xs[i] - meanX) * (xs[i] - meanX)
		yy += (ys[i] - meanY) * (ys[i] - meanY)
	}
	r, lower, ok := s.correlation()
	require.True(t, ok)
	require.InDelta(t, xy/math.Sqrt(xx*yy), r, 1e-12)
	most := math.Min(r, 1-1.0/5)
	require.InDelta(t, math.Tanh(math.Atanh(most)-1.6448536269514722/math.Sqrt2), lower, 1e-12)

	var three, thirty, constant pairSums
	for i := range 30 {
		if i < 3 {
			three.add(float64(i%2), float64(i%2))
		}
		thirty.add(float64(i/29), float64(i/29))
	}
	r, lower, ok = three.correlation()
	require.True(t, ok)
	require.Equal(t, 1.0, r)
	require.Equal(t, -1.0, lower, "three queries prove nothing")
	r, lower, ok = thirty.correlation()
	require.True(t, ok)
	require.Equal(t, 1.0, r)
	require.Less(t, lower, alike, "one error in common proves little")
	constant.add(1, 0)
	constant.add(1, 1)
	_, _, ok = constant.correlation()
	require.False(t, ok)
}

// TestPairSums_coverage holds the bound against what it promises: it is not above the true correlation in
// 95 % of all cases, or a little more.
func TestPairSums_coverage(t *testing.T) {
	const runs, queries = 4000, 300
	random := rand.New(rand.NewPCG(3, 4))
	labels := func(rate, same float64) func() (x, y float64) {
		draw := func() float64 {
			if random.Float64() < rate {
				return 1
			}
			return 0
		}
		return func() (x, y float64) {
			x = draw()
			if random.Float64() < same {
				return x, x
			}
			return x, draw()
		}
	}
	for name, test := range map[string]struct {
		correlation float64
		losses      func() (x, y float64)
	}{
		"labels, half wrong":    {0.8, labels(0.5, 0.8)},
		"labels, a tenth wrong": {0.7, labels(0.1, 0.7)},
		"labels, independent":   {0, labels(0.2, 0)},
		"numbers": {0.6, func() (x, y float64) {
			common := random.NormFloat64()
			x, y = common*math.Sqrt(0.6)+random.NormFloat64()*math.Sqrt(0.4), common*math.Sqrt(0.6)+random.NormFloat64()*math.Sqrt(0.4)
			return 0.5 + x/20, 0.5 + y/20
		}},
	} {
		t.Run(name, func(t *testing.T) {
			covered := 0
			for range runs {
				var s pairSums
				for range queries {
					s.add(test.losses())
				}
				if _, lower, ok := s.correlation(); ok && lower <= test.correlation {
					covered++
				}
			}
			t.Logf("covered: %.4f", float64(covered)/runs)
			require.InDelta(t, 0.96, float64(covered)/runs, 0.02)
		})
	}
}

func BenchmarkTogether(b *testing.B) {
	app := &application{togetherKey: "k"}
	var choices []policy.Choice
	for i := range 5 {
		app.keys = append(app.keys, fmt.Sprint(i))
		choices = append(choices, policy.Choice{Model: i})
	}
	var t together
	losses := []float64{0, 1, 0, 0, 1}
	b.ReportAllocs()
	for b.Loop() {
		t.add(app, choices, losses)
	}
}
