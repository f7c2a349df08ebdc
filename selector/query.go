// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/deadline"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/tensor"
	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/token"
)

// scratch is the memory of one query.
type scratch struct {
	state    policy.State
	features []float64
	choices  []policy.Choice
	values   []policy.Value
	answer   policy.Value // of the models, whether it is given or not
	scores   []float64
	claims   token.Claims
}

// Query answers one query within the application's latency objective and ctx's deadline, whichever is
// sooner: with what has arrived by then, or with the default output. The input fits the application's
// signature. The answer has no id, and is not modified after it was returned.
func (s *Service) Query(ctx context.Context, application, userContext string, in *tensor.Input) (*clipperv1.QueryResponse, error) {
	arrival := time.Now()
	app, err := s.application(application)
	if err != nil {
		return nil, err
	}
	sealer := s.sealer.Load()
	if sealer == nil {
		return nil, errStoreUnread()
	}
	limit := app.objective
	if at, ok := ctx.Deadline(); ok {
		limit = min(limit, at.Sub(arrival))
	}
	if ctx.Err() != nil {
		return nil, apierror.From(ctx.Err())
	}
	if limit <= 0 {
		return nil, apierror.From(context.DeadlineExceeded)
	}
	before := deadline.With(ctx, arrival.Add(limit-min(s.cfg.AnswerMargin, limit/10)))
	defer before.Cancel()

	w := s.scratch.Get().(*scratch)
	defer s.scratch.Put(w)
	s.state(before, app, userContext, min(s.cfg.StateWait, limit/4), &w.state)
	w.features = app.features(in, w.features[:0])
	answering := s.choose(before, app, w, in, limit)
	asking := before
	if app.remote != nil {
		asking = deadline.With(before, arrival.Add(limit-min(s.cfg.AnswerMargin, limit/10)-limit/combineShare))
		defer asking.Cancel()
	}
	var predictions []*clipperv1.ModelPrediction
	if app.proto.AnswerEarly && len(w.choices) > 1 {
		predictions, err = s.askEach(ctx, before, app, w, answering, in)
	} else {
		predictions, err = s.deps.Models.Predict(asking, app.references(w.choices), in)
	}
	if err != nil {
		switch status.Code(apierror.From(err)) {
		case codes.Canceled:
			if ctx.Err() != nil {
				return nil, apierror.From(ctx.Err())
			}
		case codes.InvalidArgument:
			return nil, err
		}
		predictions = nil
	}
	response := s.answer(before, app, w, answering, predictions, err)
	w.hashLate(in)
	response.FeedbackId = s.seal(sealer, app, userContext, w, arrival)
	for _, c := range w.choices {
		app.metrics.asked[c.Model].Inc()
	}
	took := time.Since(arrival)
	app.metrics.answered(response, w.choices, took)
	s.decided(app, w, response, userContext, arrival, took)
	app.trial.observe(w.choices, response, took)
	return response, nil
}

// Predict asks a model itself: no application has a part in it, and nothing is learned. What goes wrong
// with the model is in the prediction, which is not modified after it was returned.
func (s *Service) Predict(ctx context.Context, model *internalv1.ModelReference, in *tensor.Input) (*clipperv1.ModelPrediction, error) {
	predictions, err := s.deps.Models.Predict(ctx, []*internalv1.ModelReference{model}, in)
	if err != nil {
		return nil, err
	}
	return predictions[0], nil
}

// references returns the models of the choices, without allocating when they are neighbours.
func (a *application) references(choices []policy.Choice) []*internalv1.ModelReference {
	from := choices[0].Model
	for i, c := range choices {
		if c.Model != from+i {
			refs := make([]*internalv1.ModelReference, len(choices))
			for i, c := range choices {
				refs[i] = a.refs[c.Model]
			}
			return refs
		}
	}
	to := from + len(choices)
	return a.refs[from:to:to]
}

// answer makes the answer of the predictions, of which the first ones answer and the others are
// shadows. When there are none, failure is why. It leaves the values of the predictions and
// whether they agree in w.
func (s *Service) answer(ctx context.Context, app *application, w *scratch, answering int, predictions []*clipperv1.ModelPrediction, failure error) *clipperv1.QueryResponse {
	s.readPredictions(app, w, predictions)
	parts := make([]clipperv1.ModelPrediction, len(w.choices))
	response := &clipperv1.QueryResponse{Predictions: make([]*clipperv1.ModelPrediction, len(w.choices))}
	for i, c := range w.choices {
		part := &parts[i]
		part.Model, part.Version = app.refs[c.Model].Model, app.refs[c.Model].Version
		part.Propensity, part.Shadow = c.Propensity, c.Shadow
		switch {
		case i >= len(predictions):
			part.Status, part.Message = unanswered(failure)
		case predictions[i].GetStatus() == clipperv1.PredictionStatus_PREDICTION_STATUS_OK && w.values[i].Missing():
			part.Version = predictions[i].Version
			part.Status = clipperv1.PredictionStatus_PREDICTION_STATUS_FAILED
			_, err := app.spec.Read(predictions[i].Outputs, new([]float64))
			part.Message = "the model's output cannot be used: " + err.Error()
		default:
			p := predictions[i]
			part.Version, part.Status, part.Outputs, part.Message, part.Cached = p.Version, p.Status, p.Outputs, p.Message, p.Cached
			part.RetryAfter = p.RetryAfter
		}
		response.Predictions[i] = part
	}

	combined, failed := app.combine(ctx, w, answering)
	response.Confidence = combined.Confidence
	switch {
	case combined.Value.Missing() && failed:
		response.DefaultReason = clipperv1.DefaultReason_DEFAULT_REASON_POLICY_FAILED
	case combined.Value.Missing() && slices.ContainsFunc(w.values[:answering], policy.Value.Present):
		// A policy that gives no answer to predictions does not trust any.
		response.DefaultReason = clipperv1.DefaultReason_DEFAULT_REASON_LOW_CONFIDENCE
	case combined.Value.Missing():
		response.DefaultReason = missingReason(response.Predictions[:answering])
	case combined.Confidence < app.proto.ConfidenceThreshold:
		response.DefaultReason = clipperv1.DefaultReason_DEFAULT_REASON_LOW_CONFIDENCE
	default:
		response.Outputs = app.outputs(combined.Value, w.values[:answering], response.Predictions)
	}
	w.answer = combined.Value
	given := combined.Value
	if response.DefaultReason != clipperv1.DefaultReason_DEFAULT_REASON_UNSPECIFIED {
		response.IsDefault = true
		response.Outputs = app.defaultOutputs
		// A reward is for what was given; nobody is to be praised or blamed for the default.
		given = policy.Value{}
	}
	w.claims.Models = w.claims.Models[:0]
	for i, c := range w.choices {
		m := token.Model{
			Model: app.keys[c.Model], Propensity: c.Propensity, Shadow: c.Shadow, Value: w.values[i],
			Agreed: !given.Missing() && app.spec.Task.Agree(given, w.values[i]),
		}
		if part := response.Predictions[i]; late(part.Status) {
			m.Late, m.Version = true, part.Version
		}
		w.claims.Models = append(w.claims.Models, m)
	}
	return response
}

// readPredictions puts what the models said into w.values; missing where it cannot be used.
func (s *Service) readPredictions(app *application, w *scratch, predictions []*clipperv1.ModelPrediction) {
	w.values, w.scores = w.values[:0], w.scores[:0]
	for i := range w.choices {
		var v policy.Value
		if i < len(predictions) {
			v = app.read(predictions[i], &w.scores)
		}
		w.values = append(w.values, v)
	}
}

// read returns what a prediction says, missing when it cannot be used. Scores are appended to buffer.
func (a *application) read(p *clipperv1.ModelPrediction, buffer *[]float64) policy.Value {
	if p.GetStatus() != clipperv1.PredictionStatus_PREDICTION_STATUS_OK {
		return policy.Value{}
	}
	v, err := a.spec.Read(p.Outputs, buffer)
	if err != nil {
		return policy.Value{}
	}
	return v
}

// outputs returns the answer as tensors: those of a model that said just this, when there is one.
func (a *application) outputs(answer policy.Value, values []policy.Value, predictions []*clipperv1.ModelPrediction) []*clipperv1.Tensor {
	var like *clipperv1.Tensor
	for i, v := range values {
		if v.Missing() {
			continue
		}
		said := predictions[i].Outputs
		if v.Same(answer) && len(said) == 1 && said[0].DataType == a.spec.DataType {
			return said
		}
		if like == nil || a.spec.Task.Kind == policy.Label && v.Same(answer) {
			like = said[0]
		}
	}
	return []*clipperv1.Tensor{a.spec.Tensor(answer, like)}
}

// unanswered says what became of every prediction when the call for them failed.
func unanswered(err error) (clipperv1.PredictionStatus, string) {
	err = apierror.From(err)
	switch status.Code(err) {
	case codes.DeadlineExceeded, codes.Canceled:
		return clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE, "the model had not answered when the deadline came"
	case codes.ResourceExhausted:
		return clipperv1.PredictionStatus_PREDICTION_STATUS_OVERLOADED, status.Convert(err).Message()
	}
	return clipperv1.PredictionStatus_PREDICTION_STATUS_UNAVAILABLE, "the service that runs the models could not be reached"
}

// missingReason says why there is no answer. When a model might still have answered, it was the
// deadline; else what all models have in common; else that models failed.
func missingReason(predictions []*clipperv1.ModelPrediction) clipperv1.DefaultReason {
	common := clipperv1.DefaultReason_DEFAULT_REASON_UNSPECIFIED
	for _, p := range predictions {
		reason := clipperv1.DefaultReason_DEFAULT_REASON_MODELS_FAILED
		switch p.Status {
		case clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE:
			return clipperv1.DefaultReason_DEFAULT_REASON_DEADLINE
		case clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA, clipperv1.PredictionStatus_PREDICTION_STATUS_NOT_FOUND:
			reason = clipperv1.DefaultReason_DEFAULT_REASON_NO_REPLICA
		case clipperv1.PredictionStatus_PREDICTION_STATUS_OVERLOADED:
			reason = clipperv1.DefaultReason_DEFAULT_REASON_OVERLOADED
		case clipperv1.PredictionStatus_PREDICTION_STATUS_UNAVAILABLE:
			reason = clipperv1.DefaultReason_DEFAULT_REASON_UNAVAILABLE
		}
		if common != clipperv1.DefaultReason_DEFAULT_REASON_UNSPECIFIED && common != reason {
			reason = clipperv1.DefaultReason_DEFAULT_REASON_MODELS_FAILED
		}
		common = reason
	}
	return common
}

// seal makes the feedback_id.
func (s *Service) seal(sealer *token.Sealer, app *application, userContext string, w *scratch, issued time.Time) string {
	w.claims.Application, w.claims.Incarnation = app.name, app.incarnation
	w.claims.Context, w.claims.Issued, w.claims.Features = userContext, issued, w.features
	return sealer.Seal(&w.claims)
}
