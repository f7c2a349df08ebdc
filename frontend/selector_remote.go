// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/exchange"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/priority"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// RemoteSelector is a Selector over the wire. Safe for concurrent use.
type RemoteSelector struct {
	calls    *exchange.Client
	selector internalv1.SelectorServiceClient
}

var _ Selector = (*RemoteSelector)(nil)

// NewRemoteSelector returns the selector at the other end of a connection, which was made with
// exchange.DialOptions. It works while Run runs.
func NewRemoteSelector(conn grpc.ClientConnInterface, log *slog.Logger) *RemoteSelector {
	return &RemoteSelector{
		calls:    exchange.NewClient("selector", conn, log),
		selector: internalv1.NewSelectorServiceClient(conn),
	}
}

// Run keeps the link until ctx is done.
func (r *RemoteSelector) Run(ctx context.Context) error { return r.calls.Run(ctx) }

// Reachable returns an error while there is no link.
func (r *RemoteSelector) Reachable(context.Context) error {
	if !r.calls.Connected() {
		return errors.New("the selector cannot be reached")
	}
	return nil
}

// Query implements Selector.
func (r *RemoteSelector) Query(ctx context.Context, application, userContext string, in *tensor.Input) (*clipperv1.QueryResponse, error) {
	answer := &clipperv1.QueryResponse{}
	err := r.call(ctx, internalv1.Method_METHOD_QUERY, &internalv1.SelectorQuery{
		Application: application, Context: userContext, Input: in.Encoded(), Priority: uint32(priority.From(ctx)),
	}, true, answer)
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// Predict implements Selector.
func (r *RemoteSelector) Predict(ctx context.Context, model *internalv1.ModelReference, in *tensor.Input) (*clipperv1.ModelPrediction, error) {
	answer := &internalv1.ModelPredictions{}
	err := r.call(ctx, internalv1.Method_METHOD_PREDICT, &internalv1.PredictModels{
		Models: []*internalv1.ModelReference{model}, Input: in.Encoded(), Priority: uint32(priority.From(ctx)),
	}, true, answer)
	if err != nil {
		return nil, err
	}
	if len(answer.Predictions) != 1 {
		return nil, fmt.Errorf("asked one model, got %d predictions", len(answer.Predictions))
	}
	return answer.Predictions[0], nil
}

// Feedback implements Selector. Feedback that has no identity is not sent twice when the link
// breaks, so that it never counts twice.
func (r *RemoteSelector) Feedback(ctx context.Context, f *clipperv1.FeedbackRequest, in *tensor.Input) (*clipperv1.FeedbackResponse, error) {
	argument := &internalv1.SelectorFeedback{Feedback: f}
	if in != nil {
		argument.Input = in.Encoded()
	}
	acknowledgement := &clipperv1.FeedbackResponse{}
	if err := r.call(ctx, internalv1.Method_METHOD_FEEDBACK, argument, f.FeedbackId != "" || f.Id != "", acknowledgement); err != nil {
		return nil, err
	}
	return acknowledgement, nil
}

func (r *RemoteSelector) call(ctx context.Context, method internalv1.Method, argument proto.Message, repeatable bool, reply proto.Message) error {
	payload, err := r.calls.Call(ctx, method, argument, repeatable)
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(payload, reply); err != nil {
		return fmt.Errorf("decode reply: %w", err)
	}
	return nil
}

// WatchApplications implements Selector.
func (r *RemoteSelector) WatchApplications(ctx context.Context, update func([]*clipperv1.Application)) error {
	stream, err := r.selector.WatchApplications(ctx, &internalv1.WatchApplicationsRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		update(m.Applications)
	}
}
