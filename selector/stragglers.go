// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/deadline"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/keep"
	"github.com/clipper-serving/clipper/internal/tensor"
	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/token"
)

// late reports whether a model might have answered, had it had more time.
func late(s clipperv1.PredictionStatus) bool {
	return s == clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE || s == clipperv1.PredictionStatus_PREDICTION_STATUS_PENDING
}

// hashLate puts the hash of the input into the claims when a model was late.
func (w *scratch) hashLate(in *tensor.Input) {
	if slices.ContainsFunc(w.claims.Models, func(m token.Model) bool { return m.Late }) {
		w.claims.Input = in.Hash().Bytes()
	}
}

// arrival is the answer of one model: the position of its choice, and either a prediction or an error.
type arrival struct {
	choice     int
	prediction *clipperv1.ModelPrediction
	err        error
}

// askEach asks each model of the choices by a call of its own, and returns one entry for each, in their
// order, as soon as they decide the answer: [policy.Decided]. Those that are missing then are
// PREDICTION_STATUS_PENDING, and their calls go on until the deadline, so that what they say is
// remembered. It costs a goroutine and a copy of the input's bytes for each model, which is why only
// applications that want early answers come here.
//
// ctx is of the caller and before has the time at which the answer is made. The error is the caller's:
// it has left, or the input is not valid.
func (s *Service) askEach(ctx context.Context, before *deadline.Context, app *application, w *scratch, answering int, in *tensor.Input) ([]*clipperv1.ModelPrediction, error) {
	n := len(w.choices)
	refs := app.references(w.choices)
	parent, cancel := context.WithCancel(keep.With(context.WithoutCancel(ctx)))
	stop := context.AfterFunc(s.ctx, cancel)
	at, _ := before.Deadline()
	calls := deadline.With(parent, at)
	arrivals := make(chan arrival, n) // Nobody takes what comes after the answer.
	var left atomic.Int32
	left.Store(int32(n)) //nolint:gosec // At most policy.MaxModels.
	for i := range n {
		s.background.Go(func() {
			a := arrival{choice: i}
			var one []*clipperv1.ModelPrediction
			if one, a.err = s.deps.Models.Predict(calls, refs[i:i+1], in); a.err == nil {
				a.prediction = one[0]
			}
			arrivals <- a
			if left.Add(-1) == 0 {
				stop()
				calls.Cancel()
				cancel()
			}
		})
	}

	var weights [policy.MaxModels]float64
	var pending [policy.MaxModels]bool
	app.policy.Shares(&w.state, weights[:len(app.keys)])
	predictions := make([]*clipperv1.ModelPrediction, n)
	w.values, w.scores = append(w.values[:0], make([]policy.Value, n)...), w.scores[:0]
	for i := range n {
		pending[i] = true
	}
	for range n {
		// Every call ends by the deadline, so this waits for no longer.
		a, ok := deadline.Wait(ctx, arrivals)
		if !ok {
			if status.Code(apierror.From(ctx.Err())) == codes.Canceled {
				cancel()
				return nil, apierror.From(ctx.Err())
			}
			break
		}
		if status.Code(a.err) == codes.InvalidArgument {
			cancel()
			return nil, a.err
		}
		i := a.choice
		pending[i] = false
		if predictions[i] = a.prediction; a.err != nil {
			predictions[i] = entry(refs[i])
			predictions[i].Status, predictions[i].Message = unanswered(a.err)
		}
		w.values[i] = app.read(predictions[i], &w.scores)
		if policy.Decided(app.spec.Task, app.proto.ConfidenceThreshold, weights[:], w.choices[:answering], w.values[:answering], pending[:answering]) {
			break
		}
	}
	missing, why := clipperv1.PredictionStatus_PREDICTION_STATUS_PENDING, "the answer was certain before the model had answered"
	if !time.Now().Before(at) {
		missing, why = unanswered(context.DeadlineExceeded)
	}
	for i, p := range predictions {
		if p == nil {
			predictions[i] = entry(refs[i])
			predictions[i].Status, predictions[i].Message = missing, why
		}
	}
	return predictions, nil
}

func entry(ref *internalv1.ModelReference) *clipperv1.ModelPrediction {
	return &clipperv1.ModelPrediction{Model: ref.Model, Version: ref.Version}
}

// recall fills in what the models said in the end that were late for the answer, as far as it is
// remembered and can be had in a short time.
func (s *Service) recall(ctx context.Context, app *application, claims *token.Claims) {
	var missed []*token.Model
	var refs []*internalv1.ModelReference
	for i := range claims.Models {
		m := &claims.Models[i]
		if known, ok := app.models[m.Model]; ok && m.Late {
			missed = append(missed, m)
			refs = append(refs, &internalv1.ModelReference{Model: app.refs[known].Model, Version: m.Version})
		}
	}
	if len(missed) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RecallWait)
	defer cancel()
	recalled, err := s.deps.Models.Recall(ctx, refs, claims.Input)
	if err != nil {
		s.log.Debug("late predictions cannot be recalled", "application", app.name, "error", err)
		return
	}
	for i, p := range recalled {
		if v := app.read(p, new([]float64)); !v.Missing() {
			missed[i].Value = v
			app.metrics.recalled.Inc()
		}
	}
}
