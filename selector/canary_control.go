// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/selector/canary"
)

const (
	// canaryPeriod is how often canaries are looked at.
	canaryPeriod = time.Second
	// canaryTimeout bounds one look at all of them, and the last count at the end.
	canaryTimeout = 5 * time.Second
)

// runCanaries counts what canaries and baselines do, and moves the canaries' shares, until the service
// ends.
//
// Every instance does so, and none needs to be chosen: a step is one compare-and-swap of the application's
// document, so of those that see the same, one makes it, and the others see that it is made.
func (s *Service) runCanaries() {
	ticker := time.NewTicker(canaryPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-s.ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), canaryTimeout)
			defer cancel()
			s.countCanaries(ctx)
			return
		case <-ticker.C:
		}
		ctx, cancel := context.WithTimeout(s.ctx, canaryTimeout)
		s.countCanaries(ctx)
		s.moveCanaries(ctx)
		cancel()
	}
}

// countCanaries writes what this instance has counted to the store. What cannot be written is written the next
// time.
func (s *Service) countCanaries(ctx context.Context) {
	current := map[string]bool{}
	for entry := range s.apps.Snapshot().All() {
		if t := entry.Value.trial; t.running() {
			current[t.sumsKey] = true
		}
	}
	if err := s.canaries.flush(ctx, s.deps.Sums, current); err != nil && ctx.Err() == nil {
		s.log.Debug("errors and latencies of canaries cannot be stored, keeping them", "error", err)
	}
}

// moveCanaries makes the steps that are due.
func (s *Service) moveCanaries(ctx context.Context) {
	for entry := range s.apps.Snapshot().All() {
		app := entry.Value
		if app.trial == nil {
			s.metrics.canary.forget(app.name)
			continue
		}
		s.metrics.canary.show(app)
		if !app.trial.running() {
			continue
		}
		err := s.moveCanary(ctx, app)
		switch {
		case err == nil, errors.Is(err, store.ErrConflict), ctx.Err() != nil:
			// Somebody else has made the step, or changed the application: the next look is at what is there then.
		case errors.Is(err, store.ErrUnavailable):
			s.log.Debug("a canary cannot be looked at, it stays as it is", "application", app.name, "error", err)
		default:
			s.log.Error("a canary cannot be moved", "application", app.name, "error", err)
		}
	}
}

// moveCanary makes a step of one application's canary if it is due.
func (s *Service) moveCanary(ctx context.Context, app *application) error {
	t := app.trial
	sums, err := s.deps.Sums.Get(ctx, t.sumsKey)
	if err != nil {
		return err
	}
	tests := t.tests(sums)
	s.metrics.canary.compare(app.name, tests)
	if gone := s.canaryGone(ctx, app); gone != "" {
		return s.moveTo(ctx, app, 0, gone, tests)
	}
	var worse []int
	notWorse := true
	for i, test := range tests {
		verdict := test.Verdict()
		if verdict == canary.Worse {
			worse = append(worse, i)
		}
		notWorse = notWorse && verdict == canary.NotWorse
	}
	switch {
	case len(worse) > 0:
		return s.moveTo(ctx, app, 0, "worse: "+tell(tests, worse, "at least"), tests)
	case notWorse && sums[canaryField(t.stage(), armCanary, metricLoss, "count")] >= float64(t.spec.MinFeedbacks):
		next := min(t.progress.Stages[t.stage()].Share*t.spec.Step, t.spec.FinalShare)
		return s.moveTo(ctx, app, next, "not worse: "+tell(tests, []int{metricLoss, metricErrors, metricLatency}, "at most"), tests)
	}
	return nil
}

// tell says what tests have shown.
func tell(tests [metricCount]canary.Test, which []int, how string) string {
	texts := make([]string, len(which))
	for i, metric := range which {
		lower, upper := tests[metric].Bounds()
		bound := upper
		if how == "at least" {
			bound = lower
		}
		texts[i] = fmt.Sprintf("%s %s %+.3g (%g allowed)", metricNames[metric], how, bound, tests[metric].Margin)
	}
	return strings.Join(texts, ", ")
}

// canaryGone says that there is no such model any more, or nothing while it is not known that it is
// gone.
func (s *Service) canaryGone(ctx context.Context, app *application) string {
	ref := app.refs[app.trial.models[armCanary]]
	response, err := s.deps.ModelService.GetModel(ctx, &clipperv1.GetModelRequest{Model: ref.Model})
	switch {
	case status.Code(err) == codes.NotFound:
		return fmt.Sprintf("the model %q was deleted", ref.Model)
	case err != nil || ref.Version == "":
		return ""
	case !slices.ContainsFunc(response.GetModel().GetVersions(), func(v *clipperv1.ModelVersion) bool { return v.GetVersion() == ref.Version }):
		return fmt.Sprintf("the version %q of the model %q was deleted", ref.Version, ref.Model)
	}
	return ""
}

// moveTo gives the canary a share, in one write with the step. Errors are the store's.
func (s *Service) moveTo(ctx context.Context, app *application, share float64, reason string, tests [metricCount]canary.Test) error {
	changed := proto.CloneOf(app.proto)
	changed.UpdateTime = timestamppb.Now()
	setShare(changed, share)
	stage, err := stageOf(changed)
	if err != nil {
		return err
	}
	progress := *app.trial.progress
	step := canaryStep{
		Time: stage.Begun, From: progress.Stages[app.trial.stage()].Share, To: stage.Share, Reason: reason, Tests: readTests(tests),
	}
	switch {
	case share == 0:
		progress.State = clipperv1.CanaryState_CANARY_STATE_ROLLED_BACK
	case share >= app.trial.spec.FinalShare:
		progress.State = clipperv1.CanaryState_CANARY_STATE_PROMOTED
	default:
		progress.Stages = append(slices.Clone(progress.Stages), stage)
	}
	value, err := encodeRecord(app.incarnation, changed, progress.moved(step))
	if err != nil {
		return err
	}
	if _, err := s.deps.Documents.Put(ctx, documents+app.name, value, app.revision); err != nil {
		return err
	}
	s.metrics.canary.moved(app.name, step)
	attributes := []any{
		"application", app.name, "canary", app.trial.spec.Model, "from", step.From, "to", step.To, "reason", reason,
	}
	if share == 0 {
		s.log.Warn("canary rolled back", attributes...)
	} else {
		s.log.Info("canary promoted", attributes...)
	}
	s.catchUp(ctx)
	return nil
}

// replaced returns the application that is about to be replaced, when this instance has it at that revision:
// else the write is going to be refused. Nil when there is none.
func (s *Service) replaced(name string, revision store.Revision) *application {
	if entry, ok := s.apps.Snapshot().Get(documents + name); ok && revision != 0 && entry.Revision == revision {
		return entry.Value
	}
	return nil
}

// endCanary removes the sums of a run that progress, which may be nil, does not go on with.
func (s *Service) endCanary(ctx context.Context, before *application, progress *canaryProgress) {
	if before == nil || before.trial == nil || progress == before.trial.progress {
		return
	}
	keep := ""
	if progress != nil {
		keep = before.sumsOfRun(progress.Run)
	}
	if err := s.forgetCanaries(ctx, before, keep); err != nil {
		s.log.Warn("the sums of a canary that has ended were not removed", "application", before.name, "error", err)
	}
}

// forgetCanaries removes the sums of all runs of an incarnation but one.
func (s *Service) forgetCanaries(ctx context.Context, app *application, but string) error {
	const most = 1000 // There are a few: each run removes those before.
	keys, err := s.deps.Sums.Keys(ctx, app.canaryPrefix, "", most)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if key == but {
			continue
		}
		if err := s.deps.Sums.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// GetCanary returns how far an application's canary has come, and every step with its reason.
func (a applicationService) GetCanary(ctx context.Context, r *clipperv1.GetCanaryRequest) (*clipperv1.GetCanaryResponse, error) {
	s := a.service
	app, err := s.fresh(ctx, r.GetApplication(), "application")
	if err != nil {
		return nil, err
	}
	t := app.trial
	if t == nil {
		return nil, apierror.New(codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_NO_CANARY, "application",
			"application: %q has no canary; set its field canary", app.name)
	}
	sums, err := s.deps.Sums.Get(ctx, t.sumsKey)
	if err != nil {
		return nil, s.storeError(ctx, "read the canary's sums", err)
	}
	response := &clipperv1.GetCanaryResponse{
		State: t.progress.State,
		Share: app.panel.Priors()[t.models[armCanary]],
		Tests: testsToProto(readTests(t.tests(sums))),
	}
	for _, step := range slices.Backward(t.progress.Steps) {
		response.Steps = append(response.Steps, &clipperv1.CanaryStep{
			Time: timestamppb.New(step.Time), From: step.From, To: step.To, Reason: step.Reason, Tests: testsToProto(step.Tests),
		})
	}
	return response, nil
}

func testsToProto(tests []canaryTest) []*clipperv1.CanaryTest {
	var messages []*clipperv1.CanaryTest
	for _, t := range tests {
		messages = append(messages, &clipperv1.CanaryTest{
			Metric: t.Metric, Canary: t.Canary, Baseline: t.Baseline, CanaryCount: t.CanaryCount, BaselineCount: t.BaselineCount,
			Lower: t.Lower, Upper: t.Upper, Margin: t.Margin,
		})
	}
	return messages
}
