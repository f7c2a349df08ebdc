// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/internal/tensor"
	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/token"
)

// Feedback learns from how a query turned out, and returns when that is durable. The query is named by
// its feedback_id, and in is nil, or by its input, which fits the application's signature.
//
// By input, every model that a query may ask is asked (again; the cache may know), and learned from as if
// it had been certain to be asked.
func (s *Service) Feedback(ctx context.Context, f *clipperv1.FeedbackRequest, in *tensor.Input) (*clipperv1.FeedbackResponse, error) {
	app, err := s.application(f.GetApplication())
	if err != nil {
		return nil, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, feedbackTimeout)
		defer cancel()
	}
	var l lesson
	if f.FeedbackId != "" {
		l, err = s.byToken(ctx, app, f)
	} else {
		l, err = s.byInput(ctx, app, f, in)
	}
	if err != nil {
		return nil, err
	}
	response := &clipperv1.FeedbackResponse{}
	for i, loss := range l.losses {
		if loss >= 0 {
			response.Losses = append(response.Losses, &clipperv1.ModelLoss{Model: app.keys[l.choices[i].Model], Loss: loss})
		}
	}
	if len(response.Losses) == 0 {
		s.told(app, l.id, f, nil)
		return response, nil // No model answered then: there is nothing to learn.
	}
	done, err := s.learn(ctx, app, l.context, l.once, policy.Observation{Choices: l.choices, Losses: l.losses, Features: l.features}, l.canary...)
	if err != nil {
		return nil, s.storeError(ctx, "learn", err)
	}
	switch done {
	case counted:
		app.metrics.feedback.Inc()
		s.told(app, l.id, f, response.Losses)
		s.together.add(app, l.choices, l.losses)
	case repeated:
		response.Duplicate = true
		app.metrics.duplicates.Inc()
	case buffered: // It is measured when the store has it.
		s.told(app, l.id, f, response.Losses)
		response.Buffered = true
	}
	return response, nil
}

// lesson is what a feedback teaches, and to whom.
type lesson struct {
	id       token.ID // of the answer; zero when it is not known
	context  string
	once     identity
	choices  []policy.Choice
	losses   []float64
	features []float64
	canary   []store.Update // what it adds to the sums of the application's canary
}

// add adds one model.
func (l *lesson) add(c policy.Choice, loss float64) {
	l.choices = append(l.choices, c)
	l.losses = append(l.losses, loss)
}

// byToken makes a lesson of a feedback_id.
func (s *Service) byToken(ctx context.Context, app *application, f *clipperv1.FeedbackRequest) (lesson, error) {
	sealer := s.sealer.Load()
	if sealer == nil {
		return lesson{}, errStoreUnread()
	}
	claims, err := sealer.Open(f.FeedbackId)
	switch {
	case err != nil:
		return lesson{}, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_INVALID, "feedback_id",
			"feedback_id: it is not one that a query was answered with")
	case claims.Application != app.name:
		return lesson{}, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_APPLICATION, "feedback_id",
			"feedback_id: it belongs to another application than %q", app.name)
	case claims.Incarnation != app.incarnation:
		return lesson{}, apierror.New(codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_EXPIRED, "feedback_id",
			"feedback_id: the application was created again, or its state was reset, since the query was answered")
	case time.Since(claims.Issued) > app.lifetime:
		return lesson{}, apierror.New(codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_EXPIRED, "feedback_id",
			"feedback_id: it is older than the application's feedback_lifetime of %v", app.lifetime)
	}
	loss, err := app.lossOf(f, claims)
	if err != nil {
		return lesson{}, err
	}
	if f.GetTruth() != nil { // A reward is for what was given.
		s.recall(ctx, app, claims)
	}
	l := lesson{id: claims.ID, context: claims.Context, features: claims.Features, once: identity{
		name: "token/" + string(claims.ID[:]), remember: app.lifetime, expires: claims.Issued.Add(app.lifetime),
	}}
	said, known := false, false
	for _, m := range claims.Models {
		x := loss(m)
		said = said || !m.Value.Missing()
		known = known || x >= 0
		// A model that the application no longer has is not learned about.
		if i, ok := app.models[m.Model]; ok {
			l.add(policy.Choice{Model: i, Propensity: m.Propensity, Shadow: m.Shadow}, x)
		}
	}
	if len(l.choices) == 0 {
		return lesson{}, apierror.New(codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_EXPIRED, "feedback_id",
			"feedback_id: none of the models that were asked then is in the application any more; give feedback for newer answers")
	}
	if _, ok := f.Observation.(*clipperv1.FeedbackRequest_Truth); ok && said && !known {
		return lesson{}, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_TRUTH_INVALID, "truth",
			"truth: it cannot be compared with what the models said, as the feedback_id carries it; for scores want as many as they gave, or the true class")
	}
	l.canary = app.trial.losses(claims.Issued, l.choices, l.losses)
	return l, nil
}

// lossOf returns the loss of a model by what is told, or policy.Unknown.
//
// A truth tells the loss of every prediction. A reward is for the answer: the models that said the same
// have the loss 1 − reward. Those that gave another label were wrong whenever the answer was right, so
// their loss is at least the reward, and this is taken. Shadow models had no part in it. When no model
// said the same, as with a default output, a reward tells nothing about them.
func (a *application) lossOf(f *clipperv1.FeedbackRequest, claims *token.Claims) (func(token.Model) float64, error) {
	switch o := f.Observation.(type) {
	case *clipperv1.FeedbackRequest_Truth:
		truth, err := a.truth(o)
		return func(m token.Model) float64 { return a.spec.Task.Loss(truth, m.Value) }, err
	case *clipperv1.FeedbackRequest_Reward:
		if math.IsNaN(o.Reward) || o.Reward < 0 || o.Reward > 1 {
			return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_TRUTH_INVALID, "reward", "reward: it is %v, want a number from 0 to 1", o.Reward)
		}
		agreed := slices.ContainsFunc(claims.Models, func(m token.Model) bool { return m.Agreed && !m.Shadow })
		return func(m token.Model) float64 {
			switch {
			case !agreed || m.Shadow || m.Value.Missing():
				return policy.Unknown
			case m.Agreed:
				return 1 - o.Reward
			}
			return o.Reward
		}, nil
	}
	return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, "truth", "truth: want a truth or a reward")
}

func (a *application) truth(o *clipperv1.FeedbackRequest_Truth) (policy.Value, error) {
	truth, err := a.spec.Truth(o.Truth)
	if err != nil {
		return policy.Value{}, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_TRUTH_INVALID, "truth", "truth: %v", err)
	}
	return truth, nil
}

// byInput makes a lesson of an input.
func (s *Service) byInput(ctx context.Context, app *application, f *clipperv1.FeedbackRequest, in *tensor.Input) (lesson, error) {
	if in == nil {
		return lesson{}, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, "feedback_id", "feedback_id: want a feedback_id or an input")
	}
	var truth policy.Value
	switch o := f.Observation.(type) {
	case *clipperv1.FeedbackRequest_Truth:
		var err error
		if truth, err = app.truth(o); err != nil {
			return lesson{}, err
		}
	case *clipperv1.FeedbackRequest_Reward:
		return lesson{}, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_TRUTH_INVALID, "reward",
			"reward: a reward is for an answer; give the answer's feedback_id, or the truth")
	default:
		return lesson{}, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, "truth", "truth: want the truth")
	}

	w := s.scratch.Get().(*scratch)
	defer s.scratch.Put(w)
	s.state(ctx, app, f.Context, s.cfg.StateWait, &w.state)
	w.choices, _ = app.panel.Eligible(&w.state, w.choices[:0])
	// The deadline is for the whole call: half of what is left is kept for the store.
	deadline, _ := ctx.Deadline()
	ask, cancel := context.WithTimeout(ctx, time.Until(deadline)/2)
	defer cancel()
	predictions, err := s.deps.Models.Predict(ask, app.references(w.choices), in)
	if err != nil {
		if ctx.Err() != nil {
			return lesson{}, apierror.From(ctx.Err())
		}
		if status.Code(apierror.From(err)) == codes.InvalidArgument {
			return lesson{}, err
		}
		return lesson{}, errNoPrediction()
	}
	s.readPredictions(app, w, predictions)
	// Nothing tells when it was sent first, so it is remembered for as long again as it may be buffered.
	l := lesson{
		context: f.Context, features: app.features(in, nil),
		once: identity{remember: 2 * app.lifetime, expires: time.Now().Add(app.lifetime)},
	}
	if f.Id != "" {
		l.once.name = fmt.Sprintf("input/%s/%x/%q/%s", app.name, app.incarnation, f.Context, f.Id)
	}
	known := false
	for i, c := range w.choices {
		loss := app.spec.Task.Loss(truth, w.values[i])
		known = known || loss >= 0
		l.add(c, loss)
	}
	if !known {
		return lesson{}, errNoPrediction()
	}
	l.canary = app.trial.drawnLosses(s.random, l.choices, l.losses)
	return l, nil
}

func errNoPrediction() error {
	return apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "", "no model could be asked about this input now; try again, or give a feedback_id")
}
