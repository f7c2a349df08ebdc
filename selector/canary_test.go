// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	running    = clipperv1.CanaryState_CANARY_STATE_RUNNING
	promoted   = clipperv1.CanaryState_CANARY_STATE_PROMOTED
	rolledBack = clipperv1.CanaryState_CANARY_STATE_ROLLED_BACK
)

// withCanary is an application that lets in b beside a, in large steps and with wide margins, so that few
// queries decide.
func withCanary() *clipperv1.Application {
	app := minimal("app", "a", "b")
	app.Policy = &clipperv1.Policy{Name: "static"}
	app.Canary = &clipperv1.Canary{
		Model: "b", InitialShare: 0.3, Step: 2, MinFeedbacks: 20, LossMargin: 0.2, ErrorMargin: 0.2, LatencyMargin: 0.2,
	}
	return app
}

func (b *bench) canary(t testing.TB) *clipperv1.GetCanaryResponse {
	r, err := b.admin.GetCanary(t.Context(), &clipperv1.GetCanaryRequest{Application: "app"})
	require.NoError(t, err)
	return r
}

// look does what the service does every second.
func (b *bench) look(t testing.TB) {
	b.countCanaries(t.Context())
	b.moveCanaries(t.Context())
}

// serve queries, with the truth 1 told each time, until the canary is decided or its share is one; at most
// so many times.
func (b *bench) serve(t testing.TB, queries int) (served int) {
	for served < queries {
		for range 20 {
			served++
			if id := b.query(t, "app", "").FeedbackId; id != "" {
				_, err := b.Feedback(t.Context(), truth("app", id, 1), nil)
				require.NoError(t, err)
			}
		}
		b.look(t)
		if b.canary(t).State != running {
			break
		}
	}
	return served
}

func TestCanary(t *testing.T) {
	for _, test := range []struct {
		name   string
		canary answer
		want   clipperv1.CanaryState
		why    string
	}{
		{"equal", answer{label: 1}, promoted, "not worse: loss at most"},
		{"wrong", answer{label: 2}, rolledBack, "worse: loss at least"},
		{"fails", answer{status: clipperv1.PredictionStatus_PREDICTION_STATUS_FAILED}, rolledBack, "worse: errors at least"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t, map[string]answer{"a": {label: 1}, "b": test.canary})
			app := b.create(t, withCanary())
			require.Equal(t, "a", app.Canary.Baseline)
			require.InDelta(t, 0.3, b.canary(t).Share, 1e-9)
			require.Equal(t, running, b.canary(t).State)

			served := b.serve(t, 4000)
			r := b.canary(t)
			require.Equal(t, test.want, r.State, "after %d queries: %v", served, r)
			require.Contains(t, r.Steps[0].Reason, test.why)
			require.Len(t, r.Steps[0].Tests, 3)
			share := map[clipperv1.CanaryState]float64{promoted: 1, rolledBack: 0}[test.want]
			require.InDelta(t, share, r.Share, 1e-9)
			require.InDelta(t, share, weight(b.state(t, "app", ""), "b"), 1e-9)
			if test.want == promoted {
				require.Len(t, r.Steps, 3, "0.3, 0.6, 1")
				require.InDelta(t, 0.6, r.Steps[1].To, 1e-9)
			}
			b.look(t) // The gauges show what was there at the last look.
			gauges := b.metrics.canary
			require.InDelta(t, share, testutil.ToFloat64(gauges.share.WithLabelValues("app")), 1e-9)
			for state, name := range canaryStates {
				require.Equal(t, state == test.want, testutil.ToFloat64(gauges.state.WithLabelValues("app", name)) == 1, name)
			}
			for i, told := range r.Steps[0].Tests {
				require.InDelta(t, told.Canary-told.Baseline, testutil.ToFloat64(gauges.difference.WithLabelValues("app", metricNames[i])), 1e-9)
			}
			// It stays as it is.
			b.serve(t, 20)
			require.Len(t, b.canary(t).Steps, len(r.Steps))
		})
	}
}

// TestCanary_slow: latency counts although nobody tells the truth.
func TestCanary_slow(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 1, delay: 15 * time.Millisecond}})
	app := withCanary()
	app.LatencyObjective.Seconds, app.LatencyObjective.Nanos = 0, 20_000_000
	b.create(t, app)
	for range 100 {
		for range 10 {
			b.query(t, "app", "")
		}
		b.look(t)
		if b.canary(t).State != running {
			break
		}
	}
	r := b.canary(t)
	require.Equal(t, rolledBack, r.State, "%v", r)
	require.Contains(t, r.Steps[0].Reason, "latency")
}

// TestCanary_feedbackCountsOnce: what is told twice is one value, also when the test reads it.
func TestCanary_feedbackCountsOnce(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 1}})
	b.create(t, withCanary())
	for range 30 {
		id := b.query(t, "app", "").FeedbackId
		for range 3 {
			_, err := b.Feedback(t.Context(), truth("app", id, 1), nil)
			require.NoError(t, err)
		}
	}
	loss := b.canary(t).Tests[metricLoss]
	require.Equal(t, 30.0, loss.CanaryCount+loss.BaselineCount)
}

// TestCanary_gone: without its model there is nothing to test.
func TestCanary_gone(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 1}})
	b.create(t, withCanary())
	b.look(t)
	require.Equal(t, running, b.canary(t).State)
	delete(b.catalog.models, "b")
	b.look(t)
	r := b.canary(t)
	require.Equal(t, rolledBack, r.State)
	require.Contains(t, r.Steps[0].Reason, "deleted")
	require.Zero(t, r.Share)
}

// TestCanary_changed: whoever changes weights or the canary makes it begin anew from there; other changes
// leave it alone.
func TestCanary_changed(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 1}})
	b.create(t, withCanary())
	b.serve(t, 20)
	counted := b.canary(t).Tests[metricErrors].CanaryCount
	require.NotZero(t, counted)

	change := func(change func(*clipperv1.Application), field string) *clipperv1.GetCanaryResponse {
		r, err := b.admin.GetApplication(t.Context(), &clipperv1.GetApplicationRequest{Application: "app"})
		require.NoError(t, err)
		changed := proto.CloneOf(r.Application)
		change(changed)
		_, err = b.admin.UpdateApplication(t.Context(), &clipperv1.UpdateApplicationRequest{
			Application: changed, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{field}},
		})
		require.NoError(t, err)
		return b.canary(t)
	}
	r := change(func(a *clipperv1.Application) { a.Description = "for people" }, "description")
	require.Equal(t, counted, r.Tests[metricErrors].CanaryCount)
	require.Len(t, r.Steps, 1)

	r = change(func(a *clipperv1.Application) { a.Models[0].Weight, a.Models[1].Weight = 1, 1 }, "models")
	require.Equal(t, running, r.State)
	require.InDelta(t, 0.5, r.Share, 1e-9)
	require.Zero(t, r.Tests[metricErrors].CanaryCount)
	require.Contains(t, r.Steps[0].Reason, "anew")

	r = change(func(a *clipperv1.Application) { a.Canary.InitialShare = 0.1 }, "canary")
	require.InDelta(t, 0.1, r.Share, 1e-9)

	r = change(func(a *clipperv1.Application) { a.Models[0].Weight, a.Models[1].Weight = 1, 0 }, "models")
	require.Equal(t, rolledBack, r.State)

	_, err := b.admin.UpdateApplication(t.Context(), &clipperv1.UpdateApplicationRequest{
		Application: &clipperv1.Application{Name: "app"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"canary"}},
	})
	require.NoError(t, err)
	_, err = b.admin.GetCanary(t.Context(), &clipperv1.GetCanaryRequest{Application: "app"})
	requireError(t, err, codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_NO_CANARY, "application")
	keys, err := b.deps.Sums.Keys(t.Context(), "selection/app/", "", 100)
	require.NoError(t, err)
	for _, key := range keys {
		require.NotContains(t, key, "/canary/", "nothing is left of it")
	}
}

// TestCanary_survives: steps and values are in the store, and each step is made once by whoever is first.
func TestCanary_survives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "selector.db")
	st := openStore(t, path)
	models := newFakeModels(map[string]answer{"a": {label: 1}, "b": {label: 1}})
	first, second := start(t, st, models), start(t, st, models)
	first.create(t, withCanary())
	require.Eventually(t, func() bool {
		_, err := second.application("app")
		return err == nil
	}, patience, time.Millisecond)
	for round := 0; len(first.canary(t).Steps) == 1; round++ {
		require.Less(t, round, 200, "no step is made")
		for range 20 {
			id := first.query(t, "app", "").FeedbackId
			_, err := second.Feedback(t.Context(), truth("app", id, 1), nil)
			require.NoError(t, err)
		}
		first.look(t)
		second.look(t)
	}
	before := first.canary(t)
	require.Len(t, before.Steps, 2)
	require.InDelta(t, 0.6, before.Share, 1e-9)
	first.Close()
	second.Close()
	require.NoError(t, st.Close())

	st = openStore(t, path)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	again := start(t, st, models)
	after := again.canary(t)
	require.Equal(t, before.Steps[0].Reason, after.Steps[0].Reason)
	require.InDelta(t, before.Share, after.Share, 1e-9)
	require.GreaterOrEqual(t, after.Tests[metricErrors].CanaryCount, before.Tests[metricErrors].CanaryCount)
	again.serve(t, 4000)
	require.Equal(t, promoted, again.canary(t).State)
}

func TestCanary_invalid(t *testing.T) {
	b := newBench(t, nil)
	for field, change := range map[string]func(*clipperv1.Application){
		"canary":               func(a *clipperv1.Application) { a.Policy.Name = "exp3" },
		"canary.model":         func(a *clipperv1.Application) { a.Canary.Model = "c" },
		"canary.baseline":      func(a *clipperv1.Application) { a.Canary.Baseline = "b" },
		"canary.initial_share": func(a *clipperv1.Application) { a.Canary.InitialShare = 1.5 },
		"canary.final_share":   func(a *clipperv1.Application) { a.Canary.FinalShare = -1 },
		"canary.step":          func(a *clipperv1.Application) { a.Canary.Step = 1 },
		"canary.loss_margin":   func(a *clipperv1.Application) { a.Canary.LossMargin = 2 },
		"canary.confidence":    func(a *clipperv1.Application) { a.Canary.Confidence = 1 },
	} {
		app := withCanary()
		change(app)
		_, err := b.admin.CreateApplication(t.Context(), &clipperv1.CreateApplicationRequest{Application: app})
		requireError(t, err, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field)
	}
	app := withCanary()
	app.Models = append(app.Models, &clipperv1.ApplicationModel{Model: "c"})
	_, err := b.admin.CreateApplication(t.Context(), &clipperv1.CreateApplicationRequest{Application: app})
	requireError(t, err, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, "canary.baseline")
}
