// SPDX-License-Identifier: Apache-2.0

package selector

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
	"github.com/clipper-serving/clipper/internal/keep"
	"github.com/clipper-serving/clipper/internal/priority"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// RemoteModels is Models over the wire. Safe for concurrent use.
type RemoteModels struct {
	calls *exchange.Client
}

var _ Models = (*RemoteModels)(nil)

// NewRemoteModels returns the models of the abstraction service at the other end of a connection,
// which was made with exchange.DialOptions. It works while Run runs.
func NewRemoteModels(conn grpc.ClientConnInterface, log *slog.Logger) *RemoteModels {
	return &RemoteModels{calls: exchange.NewClient("abstraction service", conn, log)}
}

// Run keeps the link until ctx is done.
func (r *RemoteModels) Run(ctx context.Context) error { return r.calls.Run(ctx) }

// Reachable returns an error while there is no link.
func (r *RemoteModels) Reachable(context.Context) error {
	if !r.calls.Connected() {
		return errors.New("the abstraction service cannot be reached")
	}
	return nil
}

// Predict implements Models.
func (r *RemoteModels) Predict(ctx context.Context, models []*internalv1.ModelReference, in *tensor.Input) ([]*clipperv1.ModelPrediction, error) {
	payload, err := r.calls.Call(ctx, internalv1.Method_METHOD_PREDICT, &internalv1.PredictModels{
		Models: models, Input: in.Encoded(), Priority: uint32(priority.From(ctx)), Keep: keep.From(ctx),
	}, true)
	if err != nil {
		return nil, err
	}
	return readPredictions(payload, len(models))
}

// Recall implements Models. There is no time to wait for a link.
func (r *RemoteModels) Recall(ctx context.Context, models []*internalv1.ModelReference, hash [16]byte) ([]*clipperv1.ModelPrediction, error) {
	payload, err := r.calls.Try(ctx, internalv1.Method_METHOD_RECALL, &internalv1.RecallPredictions{Models: models, Hash: hash[:]})
	if err != nil {
		return nil, err
	}
	return readPredictions(payload, len(models))
}

// readPredictions reads a reply about so many models.
func readPredictions(payload []byte, models int) ([]*clipperv1.ModelPrediction, error) {
	var reply internalv1.ModelPredictions
	if err := proto.Unmarshal(payload, &reply); err != nil {
		return nil, fmt.Errorf("decode predictions: %w", err)
	}
	if len(reply.Predictions) != models {
		return nil, fmt.Errorf("asked %d models, got %d predictions", models, len(reply.Predictions))
	}
	return reply.Predictions, nil
}
