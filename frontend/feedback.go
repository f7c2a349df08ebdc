// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"context"

	"google.golang.org/grpc"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// feedbackServer is clipper.v1.FeedbackService.
type feedbackServer struct {
	clipperv1.UnimplementedFeedbackServiceServer
	s *Service
}

func (f feedbackServer) Feedback(ctx context.Context, req *clipperv1.FeedbackRequest) (*clipperv1.FeedbackResponse, error) {
	return f.s.feedback(ctx, req)
}

func (f feedbackServer) FeedbackBatch(ctx context.Context, req *clipperv1.FeedbackBatchRequest) (*clipperv1.FeedbackBatchResponse, error) {
	app, err := f.s.application(req.GetApplication())
	if err != nil {
		return nil, err
	}
	items := req.GetItems()
	if err := checkBatch("items", len(items)); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, f.s.cfg.FeedbackTimeout)
	defer cancel()
	results := make([]*clipperv1.FeedbackResult, len(items))
	each(len(items), f.s.cfg.BatchConcurrency, func(i int) {
		var (
			response *clipperv1.FeedbackResponse
			err      error
		)
		if name := items[i].GetApplication(); name != "" && name != app.name {
			err = invalid("application", "application is %q, expected that of the batch, %q, or none", shorten(name), app.name)
		} else {
			response, err = f.s.learn(ctx, app, items[i])
		}
		results[i] = f.s.feedbackResult(ctx, response, err)
	})
	return &clipperv1.FeedbackBatchResponse{Results: results}, nil
}

func (f feedbackServer) FeedbackStream(stream grpc.BidiStreamingServer[clipperv1.FeedbackStreamRequest, clipperv1.FeedbackStreamResponse]) error {
	return serve(f.s, stream, func(ctx context.Context, req *clipperv1.FeedbackStreamRequest) *clipperv1.FeedbackStreamResponse {
		if req.GetFeedback() == nil {
			return &clipperv1.FeedbackStreamResponse{Sequence: req.GetSequence(), Result: f.s.feedbackResult(ctx, nil, missing("feedback", "feedback is missing"))}
		}
		response, err := f.s.feedback(ctx, req.GetFeedback())
		return &clipperv1.FeedbackStreamResponse{Sequence: req.GetSequence(), Result: f.s.feedbackResult(ctx, response, err)}
	})
}

func (s *Service) feedback(ctx context.Context, req *clipperv1.FeedbackRequest) (*clipperv1.FeedbackResponse, error) {
	app, err := s.application(req.GetApplication())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.FeedbackTimeout)
	defer cancel()
	return s.learn(ctx, app, req)
}

// learn passes valid feedback on.
func (s *Service) learn(ctx context.Context, app *application, req *clipperv1.FeedbackRequest) (response *clipperv1.FeedbackResponse, err error) {
	defer func() {
		switch {
		case err != nil:
			app.metrics.rejected.Inc()
		case response.GetDuplicate():
			app.metrics.duplicate.Inc()
		case response.GetBuffered():
			app.metrics.buffered.Inc()
		default:
			app.metrics.counted.Inc()
		}
	}()
	in, err := s.checkFeedback(app, req)
	if err != nil {
		return nil, err
	}
	if in != nil || req.GetApplication() == "" {
		req = &clipperv1.FeedbackRequest{
			Application: app.name,
			FeedbackId:  req.GetFeedbackId(),
			Context:     req.GetContext(),
			Observation: req.GetObservation(),
			Id:          req.GetId(),
		}
	}
	return s.deps.Selector.Feedback(ctx, req, in)
}

// checkFeedback returns the input that feedback names, if it names one.
func (s *Service) checkFeedback(app *application, req *clipperv1.FeedbackRequest) (*tensor.Input, error) {
	hasInput := len(req.GetInputs()) > 0 || len(req.GetInputJson()) > 0
	if err := checkText("context", req.GetContext(), maxContext); err != nil {
		return nil, err
	}
	if err := checkText("id", req.GetId(), maxID); err != nil {
		return nil, err
	}
	if err := checkText("feedback_id", req.GetFeedbackId(), maxFeedbackID); err != nil {
		return nil, err
	}
	switch {
	case req.GetFeedbackId() == "" && !hasInput:
		return nil, missing("feedback_id", "feedback_id is missing: expected it or the query's input")
	case req.GetFeedbackId() != "" && hasInput:
		return nil, invalid("feedback_id", "feedback_id and an input exclude each other: expected one of them")
	}
	switch observation := req.GetObservation().(type) {
	case *clipperv1.FeedbackRequest_Truth:
		if err := checkTruth(app, observation.Truth); err != nil {
			return nil, err
		}
	case *clipperv1.FeedbackRequest_Reward:
		if r := observation.Reward; !(r >= 0 && r <= 1) {
			return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_TRUTH_INVALID, "reward", "reward is %v, expected a number from 0 to 1", r)
		}
		if hasInput {
			return nil, invalid("reward", "reward needs a feedback_id: with an input, expected truth")
		}
	default:
		return nil, missing("truth", "truth is missing: expected truth or reward")
	}
	if !hasInput {
		return nil, nil
	}
	return s.input(app, req.GetInputs(), req.GetInputJson())
}

// feedbackResult is an item of a batch or a stream.
func (s *Service) feedbackResult(ctx context.Context, response *clipperv1.FeedbackResponse, err error) *clipperv1.FeedbackResult {
	if err != nil {
		return &clipperv1.FeedbackResult{Result: &clipperv1.FeedbackResult_Error{Error: s.itemError(ctx, err)}}
	}
	return &clipperv1.FeedbackResult{Result: &clipperv1.FeedbackResult_Response{Response: response}}
}
