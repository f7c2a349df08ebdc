// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/priority"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// modelTimeout is the most time that a model itself has to answer: there is no objective for it.
const modelTimeout = time.Minute

// anyInput takes the input of a model, which knows itself what fits it.
var anyInput = &application{objective: modelTimeout}

func (q queryServer) PredictModel(ctx context.Context, req *clipperv1.PredictModelRequest) (*clipperv1.PredictModelResponse, error) {
	rows := req.GetRows()
	switch {
	case req.GetModel() == "":
		return nil, missing("model", "model is missing: expected the name of a model")
	case req.GetPriority() > priority.Max:
		return nil, invalid("priority", "priority: want 1, the highest, to %d, or 0 for the default, not %d", priority.Max, req.GetPriority())
	}
	if err := checkBatch("rows", len(rows)); err != nil {
		return nil, err
	}
	inputs := make([]*tensor.Input, len(rows))
	for i, row := range rows {
		in, err := q.s.input(anyInput, row.GetInputs(), nil)
		if err != nil {
			return nil, inRow(i, err)
		}
		inputs[i] = in
	}
	limit, err := q.s.limit(ctx, anyInput, req.GetTimeout(), time.Now())
	if err != nil {
		return nil, err
	}
	defer limit.Cancel()
	asking := priority.With(limit, req.GetPriority())
	model := &internalv1.ModelReference{Model: req.GetModel(), Version: req.GetVersion()}
	predictions := make([]*clipperv1.ModelPrediction, len(rows))
	failures := make([]error, len(rows))
	each(len(rows), q.s.cfg.BatchConcurrency, func(i int) {
		predictions[i], failures[i] = q.s.deps.Selector.Predict(asking, model, inputs[i])
	})
	for _, err := range failures {
		if err != nil {
			return nil, unreachable(selectorName, err)
		}
	}
	return &clipperv1.PredictModelResponse{Predictions: predictions}, nil
}

// inRow says in which row an input is wrong.
func inRow(i int, err error) error {
	e := apierror.ToProto(err)
	path := fmt.Sprintf("rows[%d]", i)
	if e.GetField() == "" {
		return apierror.New(codes.Code(e.GetCode()), e.GetReason(), path, "%s: %s", path, status.Convert(err).Message())
	}
	return apierror.New(codes.Code(e.GetCode()), e.GetReason(), path+"."+e.GetField(), "%s.%s", path, status.Convert(err).Message())
}
