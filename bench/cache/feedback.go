// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/clipper-serving/clipper/bench/layer"
	"github.com/clipper-serving/clipper/bench/load"
	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	feedbackCallers = 16
	feedbackBatch   = 64
	feedbackWindow  = 4 * time.Second
	feedbackInputs  = 8192
	feedbackApp     = "ensemble"
)

// feedback returns how many observations a second are learned from when each names its input, so that
// the four models' predictions have to be found again.
func feedback(ctx context.Context, b system.Binaries, cached bool) (float64, error) {
	c, err := system.StartClipper(b, false)
	if err != nil {
		return 0, err
	}
	defer c.Stop()
	var models []*clipperv1.ApplicationModel
	for _, profile := range []string{"rf", "spark_svm", "linear_svm", "log_reg"} {
		models = append(models, &clipperv1.ApplicationModel{Model: profile})
		err := c.Deploy(ctx, profile, &clipperv1.ModelVersion{
			Container: &clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: layer.Synthetic(b.Synthetic, profile)}}},
			Cache:     &clipperv1.Cache{Disabled: !cached},
			Batching:  layer.Policy("slo"),
		})
		if err != nil {
			return 0, err
		}
	}
	err = c.CreateApplication(ctx, &clipperv1.Application{
		Name: feedbackApp, Models: models,
		Inputs:           []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{16}}},
		Output:           &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_LABEL, DataType: clipperv1.DataType_DATA_TYPE_INT64},
		DefaultOutput:    structpb.NewNumberValue(-1),
		LatencyObjective: durationpb.New(time.Second),
		Policy:           &clipperv1.Policy{Name: "exp4"},
	})
	if err != nil {
		return 0, err
	}
	conn, err := grpc.NewClient(c.QueryGRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()

	// Every input is asked once, as it is before its feedback comes.
	rows := layer.MakeRows(16)[:feedbackInputs]
	queries := clipperv1.NewQueryServiceClient(conn)
	for begin := 0; begin < len(rows); begin += feedbackBatch {
		request := &clipperv1.QueryBatchRequest{Application: feedbackApp}
		for _, row := range rows[begin : begin+feedbackBatch] {
			request.Queries = append(request.Queries, &clipperv1.BatchQuery{Inputs: row})
		}
		answer, err := queries.QueryBatch(ctx, request)
		if err != nil {
			return 0, fmt.Errorf("query: %w", err)
		}
		for _, q := range answer.Results {
			if q.GetResponse() == nil || q.GetResponse().IsDefault {
				return 0, fmt.Errorf("query: %v", q)
			}
		}
	}

	requests := make([]*clipperv1.FeedbackBatchRequest, feedbackInputs/feedbackBatch)
	for i := range requests {
		requests[i] = &clipperv1.FeedbackBatchRequest{Application: feedbackApp}
		for _, row := range rows[i*feedbackBatch : (i+1)*feedbackBatch] {
			requests[i].Items = append(requests[i].Items, &clipperv1.FeedbackRequest{
				Inputs: row, Observation: &clipperv1.FeedbackRequest_Truth{Truth: structpb.NewNumberValue(1)},
			})
		}
	}
	client := clipperv1.NewFeedbackServiceClient(conn)
	next := make(chan *clipperv1.FeedbackBatchRequest)
	sending, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		for i := 0; ; i++ {
			select {
			case next <- requests[i%len(requests)]:
			case <-sending.Done():
				return
			}
		}
	}()
	m := load.Closed(ctx, feedbackCallers, feedbackWindow, func(ctx context.Context) error {
		answer, err := client.FeedbackBatch(ctx, <-next)
		if err != nil {
			return err
		}
		for _, result := range answer.Results {
			if result.GetError() != nil {
				return fmt.Errorf("feedback: %v", result.GetError())
			}
		}
		return nil
	})
	if m.Errors > 0 {
		return 0, fmt.Errorf("%d calls failed, one of them: %w", m.Errors, m.FirstError)
	}
	return m.Throughput * feedbackBatch, ctx.Err()
}
