// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/store"
)

// evidence gives the stage of now so many feedbacks, errors and latencies of 0 of both models that a step is due.
func (b *bench) evidence(t testing.TB) {
	app, err := b.application("app")
	require.NoError(t, err)
	deltas := map[string]float64{}
	for arm := range arms {
		for metric := range metricCount {
			deltas[canaryField(app.trial.stage(), arm, metric, "count")] = 1000
		}
	}
	_, err = b.deps.Sums.Add(t.Context(), "", 0, store.Update{Key: app.trial.sumsKey, Deltas: deltas})
	require.NoError(t, err)
}

// TestCanary_countedOnce: what is written again, because nobody knew whether it was written, counts once, and
// nothing that comes meanwhile is lost.
func TestCanary_countedOnce(t *testing.T) {
	st := newStore(t)
	sums := &lossy{Sums: st.Sums()}
	b := startWith(t, st.Documents(), sums, newFakeModels(map[string]answer{
		"a": {label: 1}, "b": {status: clipperv1.PredictionStatus_PREDICTION_STATUS_FAILED},
	}), Config{StateWait: time.Minute})
	app := withCanary()
	app.Canary.ErrorMargin = 1 // It shall go on.
	b.create(t, app)
	failed := 0
	ask := func() {
		for range 10 {
			if b.query(t, "app", "").IsDefault {
				failed++
			}
		}
	}
	sums.set(true)
	for range 3 {
		ask()
		b.countCanaries(t.Context())
	}
	sums.set(false)
	ask()
	b.countCanaries(t.Context()) // What was tried before goes first.
	b.countCanaries(t.Context())
	errors := b.canary(t).Tests[metricErrors]
	require.Equal(t, 40.0, errors.CanaryCount+errors.BaselineCount)
	require.InDelta(t, float64(failed), errors.CanaryCount, 0)
	require.InDelta(t, 1, errors.Canary, 1e-9)
	require.Zero(t, errors.Baseline)
}

// lossyDocuments writes and then says that nobody knows.
type lossyDocuments struct {
	store.Documents
	fails atomic.Bool
}

func (l *lossyDocuments) Put(ctx context.Context, key string, value []byte, expect store.Revision) (store.Revision, error) {
	revision, err := l.Documents.Put(ctx, key, value, expect)
	if l.fails.Load() {
		return 0, fmt.Errorf("lost the answer: %w", store.ErrUnavailable)
	}
	return revision, err
}

// TestCanary_unknownStep: a step of which nobody knows whether it was made is made once.
func TestCanary_unknownStep(t *testing.T) {
	st := newStore(t)
	documents := &lossyDocuments{Documents: st.Documents()}
	b := startWith(t, documents, st.Sums(), newFakeModels(map[string]answer{"a": {label: 1}, "b": {label: 1}}), Config{StateWait: time.Minute})
	b.create(t, withCanary())
	documents.fails.Store(true)
	b.evidence(t)
	for range 3 {
		b.look(t)
		require.Len(t, b.canary(t).Steps, 2)
	}
	documents.fails.Store(false)
	b.look(t)
	r := b.canary(t)
	require.Len(t, r.Steps, 2)
	require.InDelta(t, 0.6, r.Share, 1e-9)
}

// TestCanary_stepsOnce: many that look at the same time make one step.
func TestCanary_stepsOnce(t *testing.T) {
	st := newStore(t)
	models := newFakeModels(map[string]answer{"a": {label: 1}, "b": {label: 1}})
	instances := []*bench{start(t, st, models), start(t, st, models), start(t, st, models)}
	instances[0].create(t, withCanary())
	for _, b := range instances {
		require.NoError(t, b.apps.Refresh(t.Context()))
	}
	instances[0].evidence(t)
	var looking sync.WaitGroup
	for _, b := range instances {
		for range 4 {
			looking.Go(func() { b.moveCanaries(t.Context()) })
		}
	}
	looking.Wait()
	made := 0.0
	for _, b := range instances {
		made += testutil.ToFloat64(b.metrics.canary.steps.WithLabelValues("app", "up"))
	}
	require.Equal(t, 1.0, made)
	for _, b := range instances {
		r := b.canary(t)
		require.Len(t, r.Steps, 2)
		require.InDelta(t, 0.6, r.Share, 1e-9)
	}
}

// TestCanary_staleStep: a step is refused when somebody has changed the application since it was looked at.
func TestCanary_staleStep(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 1}})
	b.create(t, withCanary())
	stale, err := b.application("app")
	require.NoError(t, err)
	_, err = b.admin.UpdateApplication(t.Context(), &clipperv1.UpdateApplicationRequest{
		Application: &clipperv1.Application{Name: "app", Description: "by a person"},
	})
	require.NoError(t, err)
	require.ErrorIs(t, b.moveTo(t.Context(), stale, 0, "it is late", stale.trial.tests(nil)), store.ErrConflict)
	r, err := b.admin.GetApplication(t.Context(), &clipperv1.GetApplicationRequest{Application: "app"})
	require.NoError(t, err)
	require.Equal(t, "by a person", r.Application.Description)
	require.InDelta(t, 0.3, b.canary(t).Share, 1e-9)
	require.Len(t, b.canary(t).Steps, 1)
}

// TestCanary_lateFeedback: feedback counts for the stage in which the answer was given, and not at all when
// that was before the canary began anew.
func TestCanary_lateFeedback(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 1}})
	b.create(t, withCanary())
	ask := func() (ids []string) {
		for range 20 {
			ids = append(ids, b.query(t, "app", "").FeedbackId)
		}
		return ids
	}
	tell := func(ids []string) {
		for _, id := range ids {
			_, err := b.Feedback(t.Context(), truth("app", id, 1), nil)
			require.NoError(t, err)
		}
	}
	losses := func() (byStage [2]float64) {
		app, err := b.application("app")
		require.NoError(t, err)
		sums, err := b.deps.Sums.Get(t.Context(), app.trial.sumsKey)
		require.NoError(t, err)
		for stage := range byStage {
			for arm := range arms {
				byStage[stage] += sums[canaryField(stage, arm, metricLoss, "count")]
			}
		}
		return byStage
	}
	first, never := ask(), ask()
	b.evidence(t)
	b.look(t)
	require.Len(t, b.canary(t).Steps, 2)
	second := ask()
	tell(first)
	require.Equal(t, [2]float64{2000 + 20, 0}, losses())
	tell(second)
	require.Equal(t, [2]float64{2000 + 20, 20}, losses())

	r, err := b.admin.GetApplication(t.Context(), &clipperv1.GetApplicationRequest{Application: "app"})
	require.NoError(t, err)
	changed := proto.CloneOf(r.Application)
	changed.Canary.MinFeedbacks++
	_, err = b.admin.UpdateApplication(t.Context(), &clipperv1.UpdateApplicationRequest{Application: changed})
	require.NoError(t, err)
	require.InDelta(t, 0.3, b.canary(t).Share, 1e-9, "the same shares as when they were asked")
	tell(never)
	require.Equal(t, [2]float64{}, losses())
}

// TestCanary_byInput: feedback by input asks both models, and counts for one of them, drawn by their shares.
func TestCanary_byInput(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 2}})
	app := withCanary()
	app.Canary.LossMargin = 1 // It shall go on.
	b.create(t, app)
	const told = 400
	for range told {
		f := truth("app", "", 1)
		_, err := b.Feedback(t.Context(), f, input)
		require.NoError(t, err)
	}
	loss := b.canary(t).Tests[metricLoss]
	require.Equal(t, float64(told), loss.CanaryCount+loss.BaselineCount)
	// Six standard deviations around 0.3.
	require.InDelta(t, 0.3*told, loss.CanaryCount, 6*9.2)
	require.InDelta(t, 1, loss.Canary, 1e-9)
	require.Zero(t, loss.Baseline)
}

// TestCanary_longAgo: the steps that are kept are bounded, the latest of them.
func TestCanary_longAgo(t *testing.T) {
	p := &canaryProgress{}
	for i := range 3 * maxSteps {
		p = p.moved(canaryStep{Reason: strings.Repeat("x", i)})
	}
	require.Len(t, p.Steps, maxSteps)
	require.Len(t, p.Steps[maxSteps-1].Reason, 3*maxSteps-1)
}
