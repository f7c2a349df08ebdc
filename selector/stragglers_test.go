// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/tensor"
	"github.com/clipper-serving/clipper/selector/policy/policies"
)

const (
	wasOK      = clipperv1.PredictionStatus_PREDICTION_STATUS_OK
	wasPending = clipperv1.PredictionStatus_PREDICTION_STATUS_PENDING
	wasLate    = clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE
	wasFailed  = clipperv1.PredictionStatus_PREDICTION_STATUS_FAILED
	hurry      = 20 * time.Millisecond
	atMargin   = hurry - time.Millisecond // when an answer is made that waits for the deadline
)

// urgent is an application with an objective of 20 ms.
func urgent(early bool, models ...string) *clipperv1.Application {
	app := minimal("app", models...)
	app.LatencyObjective, app.AnswerEarly = durationpb.New(hurry), early
	return app
}

func statusesOf(r *clipperv1.QueryResponse) []clipperv1.PredictionStatus {
	var all []clipperv1.PredictionStatus
	for _, p := range r.Predictions {
		all = append(all, p.Status)
	}
	return all
}

// TestQuery_missing holds every policy against every set of models that do not answer in time: the
// answer is the vote of those that have, it comes at the deadline, and at once when all that were
// asked have answered.
func TestQuery_missing(t *testing.T) {
	names := []string{"a", "b", "c"}
	labels := map[string]int64{"a": 2, "b": 1, "c": 2}
	for _, name := range policies.Names() {
		for _, early := range []bool{false, true} {
			for missing := range 1 << len(names) {
				t.Run(fmt.Sprintf("%s, early %v, without %03b", name, early, missing), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						script := map[string]answer{}
						for i, m := range names {
							script[m] = answer{label: labels[m], block: missing>>i&1 == 1}
						}
						b := newBench(t, script)
						app := urgent(early, names...)
						app.Policy = &clipperv1.Policy{Name: name}
						b.create(t, app)
						begin := time.Now()
						r := b.query(t, "app", "")
						took := time.Since(begin)

						votes, late := map[int64]int{}, 0
						for _, p := range r.Predictions {
							switch {
							case p.Status == wasOK:
								votes[labels[p.Model]]++
							case script[p.Model].block:
								late++
							default:
								require.Equal(t, wasPending, p.Status)
							}
						}
						asked := len(r.Predictions)
						want, most := int64(-1), 0
						for _, l := range []int64{1, 2} { // Of the same number of votes the smaller label wins.
							if votes[l] > most {
								want, most = l, votes[l]
							}
						}
						require.Equal(t, want, label(t, r))
						require.InDelta(t, float64(most)/float64(asked), r.Confidence, 1e-9)
						require.Equal(t, most == 0, r.IsDefault)
						if r.IsDefault {
							require.Equal(t, clipperv1.DefaultReason_DEFAULT_REASON_DEADLINE, r.DefaultReason)
						}
						switch {
						case late == 0, early && asked == 3 && votes[2] == 2:
							require.Zero(t, took)
						default:
							require.Equal(t, atMargin, took)
						}
					})
				})
			}
		}
	}
}

func TestQuery_early(t *testing.T) {
	const ms = time.Millisecond
	for _, test := range []struct {
		name     string
		script   map[string]answer
		change   func(*clipperv1.Application)
		took     time.Duration
		label    int64
		reason   clipperv1.DefaultReason
		statuses []clipperv1.PredictionStatus
	}{
		{
			name:   "two of three agree",
			script: map[string]answer{"a": {label: 7, delay: 2 * ms}, "b": {label: 7, delay: 5 * ms}, "c": {label: 1, block: true}},
			took:   5 * ms, label: 7, statuses: []clipperv1.PredictionStatus{wasOK, wasOK, wasPending},
		}, {
			name:   "the third decides",
			script: map[string]answer{"a": {label: 7}, "b": {label: 8, delay: 5 * ms}, "c": {label: 8, delay: 9 * ms}},
			took:   9 * ms, label: 8, statuses: []clipperv1.PredictionStatus{wasOK, wasOK, wasOK},
		}, {
			name:   "one has wasFailed, and cannot disagree any more",
			script: map[string]answer{"a": {label: 7, delay: 2 * ms}, "b": {status: wasFailed}, "c": {label: 7, block: true}},
			took:   atMargin, label: 7, statuses: []clipperv1.PredictionStatus{wasOK, wasFailed, wasLate},
		}, {
			name:   "the confidence does not suffice yet",
			script: map[string]answer{"a": {label: 7}, "b": {label: 7}, "c": {label: 7, delay: 9 * ms}},
			change: func(app *clipperv1.Application) { app.ConfidenceThreshold = 0.9 },
			took:   9 * ms, label: 7, statuses: []clipperv1.PredictionStatus{wasOK, wasOK, wasOK},
		}, {
			name:   "the confidence cannot suffice any more",
			script: map[string]answer{"a": {label: 7}, "b": {label: 8}, "c": {label: 7, delay: 9 * ms}},
			change: func(app *clipperv1.Application) { app.ConfidenceThreshold = 0.9 },
			took:   0, label: -1, reason: clipperv1.DefaultReason_DEFAULT_REASON_LOW_CONFIDENCE, statuses: []clipperv1.PredictionStatus{wasOK, wasOK, wasPending},
		}, {
			name:   "shadow models are not waited for",
			script: map[string]answer{"a": {label: 7}, "b": {label: 8, block: true}, "c": {label: 8, block: true}},
			change: func(app *clipperv1.Application) { app.Models[1].Shadow, app.Models[2].Shadow = true, true },
			took:   0, label: 7, statuses: []clipperv1.PredictionStatus{wasOK, wasPending, wasPending},
		}, {
			name:   "all have wasFailed",
			script: map[string]answer{"a": {status: wasFailed, delay: ms}, "b": {status: wasFailed}, "c": {status: wasFailed}},
			took:   ms, label: -1, reason: clipperv1.DefaultReason_DEFAULT_REASON_MODELS_FAILED, statuses: []clipperv1.PredictionStatus{wasFailed, wasFailed, wasFailed},
		}, {
			name:   "not wanted",
			script: map[string]answer{"a": {label: 7}, "b": {label: 7}, "c": {label: 7, delay: 9 * ms}},
			change: func(app *clipperv1.Application) { app.AnswerEarly = false },
			took:   9 * ms, label: 7, statuses: []clipperv1.PredictionStatus{wasOK, wasOK, wasOK},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, test.script)
				app := urgent(true, "a", "b", "c")
				if test.change != nil {
					test.change(app)
				}
				b.create(t, app)
				begin := time.Now()
				r := b.query(t, "app", "")
				require.Equal(t, test.took, time.Since(begin))
				require.Equal(t, test.label, label(t, r))
				require.Equal(t, test.reason, r.DefaultReason)
				require.Equal(t, test.statuses, statusesOf(r))
				early := 0.0
				for _, s := range test.statuses {
					if s == wasPending {
						early = 1
					}
				}
				require.Equal(t, early, testutil.ToFloat64(b.metrics.early.WithLabelValues("app")))
				synctest.Wait()
				require.Equal(t, test.name != "not wanted", b.models.kept)
				require.Equal(t, map[string]int{"a": 1, "b": 1, "c": 1}, b.models.asked)
			})
		})
	}
}

// TestQuery_earlyNumbers: an average is moved by whatever comes, so all are waited for.
func TestQuery_earlyNumbers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, map[string]answer{"a": {tensor: numberTensor(2)}, "b": {tensor: numberTensor(4), delay: 9 * time.Millisecond}})
		b.catalog.models = newFakeCatalog().models
		for _, name := range []string{"a", "b"} {
			b.catalog.add(name, clipperv1.ModelState_MODEL_STATE_READY, &clipperv1.Signature{})
		}
		app := urgent(true, "a", "b")
		app.Output = &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_NUMBER, Range: &clipperv1.NumberRange{Min: 0, Max: 10}}
		b.create(t, app)
		begin := time.Now()
		r := b.query(t, "app", "")
		require.Equal(t, 9*time.Millisecond, time.Since(begin))
		require.InDelta(t, 3, tensor.Float(r.Outputs[0], 0), 1e-9)
	})
}

func TestQuery_earlyErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, map[string]answer{"a": {label: 7, block: true}, "b": {label: 7, block: true}})
		b.create(t, urgent(true, "a", "b"))

		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(3*time.Millisecond, cancel)
		begin := time.Now()
		_, err := b.Query(ctx, "app", "", input)
		requireError(t, err, codes.Canceled, clipperv1.ErrorReason_ERROR_REASON_UNSPECIFIED, "")
		require.Equal(t, 3*time.Millisecond, time.Since(begin), "a caller who leaves does not wait")

		invalid := apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "input", "input: no")
		b.models.fail(invalid)
		_, err = b.Query(t.Context(), "app", "", input)
		require.ErrorIs(t, err, invalid)

		b.models.fail(errors.New("broken"))
		r := b.query(t, "app", "")
		require.Equal(t, clipperv1.DefaultReason_DEFAULT_REASON_UNAVAILABLE, r.DefaultReason)
	})
}

// TestFeedback_late: what a model said after the answer is learned from when the truth is told.
func TestFeedback_late(t *testing.T) {
	for _, early := range []bool{false, true} {
		t.Run(fmt.Sprintf("early %v", early), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, map[string]answer{"a": {label: 7}, "b": {label: 7}, "c": {label: 8, block: true}, "d": {block: true}})
				b.create(t, urgent(early, "a", "b", "c", "d"))
				r := b.query(t, "app", "")
				want := []clipperv1.PredictionStatus{wasOK, wasOK, wasLate, wasLate} // Two that are missing may say 1.
				require.Equal(t, want, statusesOf(r))
				f, err := b.Feedback(t.Context(), truth("app", r.FeedbackId, 7), nil)
				require.NoError(t, err)
				var losses []string
				for _, l := range f.Losses {
					losses = append(losses, fmt.Sprintf("%s %v", l.Model, l.Loss))
				}
				require.Equal(t, []string{"a 0", "b 0", "c 1"}, losses, "d has not answered yet")
				require.Equal(t, [][16]byte{input.Hash().Bytes()}, b.models.recalled)
				require.Equal(t, 1.0, testutil.ToFloat64(b.metrics.recalled.WithLabelValues("app")))
				s := b.state(t, "app", "")
				require.Less(t, weight(s, "c"), weight(s, "d"), "c is known to be wrong")

				// A reward is for what was given, and so is not for c.
				r = b.query(t, "app", "")
				f, err = b.Feedback(t.Context(), &clipperv1.FeedbackRequest{
					Application: "app", FeedbackId: r.FeedbackId, Observation: &clipperv1.FeedbackRequest_Reward{Reward: 1},
				}, nil)
				require.NoError(t, err)
				require.Len(t, f.Losses, 2)
				require.Len(t, b.models.recalled, 1)

				// What cannot be recalled is not known; the feedback counts.
				r = b.query(t, "app", "")
				b.models.fail(errors.New("broken"))
				f, err = b.Feedback(t.Context(), truth("app", r.FeedbackId, 7), nil)
				require.NoError(t, err)
				require.Len(t, f.Losses, 2)
				b.models.fail(nil)

				// A model that the application has no more is not asked about.
				app := urgent(early, "a", "b")
				_, err = b.admin.UpdateApplication(t.Context(), &clipperv1.UpdateApplicationRequest{Application: app, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"models"}}})
				require.NoError(t, err)
				f, err = b.Feedback(t.Context(), truth("app", r.FeedbackId, 7), nil)
				require.NoError(t, err)
				require.True(t, f.Duplicate)
				require.Len(t, b.models.recalled, 1)
			})
		})
	}
}

// TestFeedback_nothingMissing: a token of an answer that lacks nothing carries no hash, and costs no
// look-up.
func TestFeedback_nothingMissing(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 7}, "b": {status: wasFailed}})
	b.create(t, minimal("app", "a", "b"))
	r := b.query(t, "app", "")
	claims, err := b.sealer.Load().Open(r.FeedbackId)
	require.NoError(t, err)
	require.Zero(t, claims.Input)
	_, err = b.Feedback(t.Context(), truth("app", r.FeedbackId, 7), nil)
	require.NoError(t, err)
	require.Empty(t, b.models.recalled)
}

// BenchmarkQuery_early is BenchmarkQuery with answers that do not wait for the deadline.
func BenchmarkQuery_early(b *testing.B) {
	bench := newBench(b, map[string]answer{"a": {label: 1}, "b": {label: 2}, "c": {label: 2}, "d": {label: 2}, "e": {label: 2}})
	app := minimal("app", "a", "b", "c", "d", "e")
	app.AnswerEarly = true
	bench.create(b, app)
	b.ReportAllocs()
	for b.Loop() {
		bench.query(b, "app", "")
	}
}
