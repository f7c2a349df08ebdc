// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/clipper-serving/clipper/internal/exchange"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/priority"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// RegisterExchange registers the stream that frontends send queries and feedback on. Closing
// draining ends the streams after the last reply.
func (s *Service) RegisterExchange(r grpc.ServiceRegistrar, draining <-chan struct{}) {
	exchange.NewServer(map[internalv1.Method]exchange.Handler{
		internalv1.Method_METHOD_QUERY:    s.serveQuery,
		internalv1.Method_METHOD_FEEDBACK: s.serveFeedback,
		internalv1.Method_METHOD_PREDICT:  s.servePredict,
	}, draining, s.log).Register(r)
}

func (s *Service) serveQuery(ctx context.Context, payload []byte) (proto.Message, error) {
	var call internalv1.SelectorQuery
	if err := proto.Unmarshal(payload, &call); err != nil {
		return nil, fmt.Errorf("decode call: %w", err)
	}
	answer, err := s.Query(priority.With(ctx, call.Priority), call.Application, call.Context, tensor.FromEncoded(call.Input))
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// servePredict passes a question to a model itself on, as it came.
func (s *Service) servePredict(ctx context.Context, payload []byte) (proto.Message, error) {
	var call internalv1.PredictModels
	if err := proto.Unmarshal(payload, &call); err != nil {
		return nil, fmt.Errorf("decode call: %w", err)
	}
	predictions, err := s.deps.Models.Predict(priority.With(ctx, call.Priority), call.Models, tensor.FromEncoded(call.Input))
	if err != nil {
		return nil, err
	}
	return &internalv1.ModelPredictions{Predictions: predictions}, nil
}

func (s *Service) serveFeedback(ctx context.Context, payload []byte) (proto.Message, error) {
	var call internalv1.SelectorFeedback
	if err := proto.Unmarshal(payload, &call); err != nil {
		return nil, fmt.Errorf("decode call: %w", err)
	}
	var in *tensor.Input
	if call.Input != nil {
		in = tensor.FromEncoded(call.Input)
	}
	acknowledgement, err := s.Feedback(ctx, call.Feedback, in)
	if err != nil {
		return nil, err
	}
	return acknowledgement, nil
}
