// SPDX-License-Identifier: Apache-2.0

package abstraction

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/clipper-serving/clipper/internal/exchange"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/keep"
	"github.com/clipper-serving/clipper/internal/priority"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// RegisterExchange registers the stream that selectors and other instances ask for predictions on.
// Closing draining ends the streams after the last reply.
func (s *Service) RegisterExchange(r grpc.ServiceRegistrar, draining <-chan struct{}) {
	s.draining = draining
	exchange.NewServer(map[internalv1.Method]exchange.Handler{
		internalv1.Method_METHOD_PREDICT:  s.servePredict,
		internalv1.Method_METHOD_DESCRIBE: s.serveDescribe,
		internalv1.Method_METHOD_RECALL:   s.serveRecall,
	}, draining, s.log).Register(r)
}

// servePredict answers one call.
func (s *Service) servePredict(ctx context.Context, payload []byte) (proto.Message, error) {
	var call internalv1.PredictModels
	if err := proto.Unmarshal(payload, &call); err != nil {
		return nil, fmt.Errorf("decode call: %w", err)
	}
	ctx = priority.With(ctx, call.Priority)
	if call.Keep {
		ctx = keep.With(ctx)
	}
	if call.Forwarded {
		return s.predictForwarded(ctx, call.Models, tensor.FromEncoded(call.Input)), nil
	}
	predictions, err := s.Predict(ctx, call.Models, tensor.FromEncoded(call.Input))
	if err != nil {
		return nil, err
	}
	return &internalv1.ModelPredictions{Predictions: predictions}, nil
}

// serveRecall answers one question for what is remembered.
func (s *Service) serveRecall(ctx context.Context, payload []byte) (proto.Message, error) {
	var call internalv1.RecallPredictions
	if err := proto.Unmarshal(payload, &call); err != nil {
		return nil, fmt.Errorf("decode call: %w", err)
	}
	var hash [16]byte
	if copy(hash[:], call.Hash); len(call.Hash) != len(hash) {
		return nil, fmt.Errorf("decode call: the hash has %d bytes, want %d", len(call.Hash), len(hash))
	}
	return &internalv1.ModelPredictions{Predictions: s.recall(ctx, call.Models, hash, call.Forwarded)}, nil
}

func (s *Service) serveDescribe(_ context.Context, payload []byte) (proto.Message, error) {
	var call internalv1.DescribeVersions
	if err := proto.Unmarshal(payload, &call); err != nil {
		return nil, fmt.Errorf("decode call: %w", err)
	}
	return &internalv1.VersionReports{Reports: s.reportHere(call.Uids, call.Batching)}, nil
}
