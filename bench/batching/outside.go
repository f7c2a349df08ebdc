// SPDX-License-Identifier: Apache-2.0

package batching

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
	// outsideRate is one that the edge bears on two cores which it shares with everything else.
	outsideRate   = 5000
	outsideWindow = 5 * time.Second
	outsideApp    = "linear"
	outsideFloats = 16
)

// fromOutside measures the whole of Clipper in one process, asked over one gRPC stream by this one.
func fromOutside(ctx context.Context, b system.Binaries, batching *clipperv1.Batching) ([]any, error) {
	c, err := system.StartClipper(b, false)
	if err != nil {
		return nil, err
	}
	defer c.Stop()
	err = c.Serve(ctx, outsideApp, &clipperv1.ModelVersion{
		Container: &clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: layer.Synthetic(b.Synthetic, "linear_svm")}}},
		Cache:     &clipperv1.Cache{Disabled: true},
		Batching:  batching,
	}, &clipperv1.Application{
		Inputs:           []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{outsideFloats}}},
		Output:           &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_LABEL, DataType: clipperv1.DataType_DATA_TYPE_INT64},
		DefaultOutput:    structpb.NewNumberValue(-1),
		LatencyObjective: durationpb.New(layer.Objective),
	})
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(c.QueryGRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := clipperv1.NewQueryServiceClient(conn).QueryStream(ctx)
	if err != nil {
		return nil, err
	}

	rows := layer.MakeRows(outsideFloats)
	o := load.NewOpen(load.OpenConfig{
		Schedule: load.Schedule(load.Poisson, outsideRate, layer.Warm+outsideWindow, 1), WarmUp: layer.Warm, Objective: layer.Objective,
	})
	failed := make(chan error, 1)
	go func() {
		for {
			answer, err := stream.Recv()
			if err != nil {
				failed <- err
				return
			}
			o.Done(int(answer.Sequence), outcome(answer.Result))
		}
	}()
	var sendErr error
	m := o.Run(ctx, func(i int, _ time.Time) {
		err := stream.Send(&clipperv1.QueryStreamRequest{
			Sequence: uint64(i), Query: &clipperv1.QueryRequest{Application: outsideApp, Inputs: rows[i%len(rows)]},
		})
		if err != nil && sendErr == nil {
			sendErr = err
		}
	})
	select {
	case err := <-failed:
		return nil, err
	default:
	}
	switch {
	case sendErr != nil:
		return nil, sendErr
	case m.Failed > 0 || m.Lost > 0:
		return nil, fmt.Errorf("%d of %d queries failed, %d were lost", m.Failed, m.Offered, m.Lost)
	}
	return []any{
		"linear_svm", fmt.Sprintf("slo, asked from outside at %d/s: %.2f %% in time", outsideRate, 100*m.Fraction()),
		m.Goodput(), ms(m.P50), ms(m.P99), "-", "-", "-", "-",
	}, nil
}

func outcome(r *clipperv1.QueryResult) load.Outcome {
	switch {
	case r.GetResponse() == nil:
		return load.Failed
	case r.GetResponse().IsDefault:
		return load.Expired
	}
	return load.Answered
}
