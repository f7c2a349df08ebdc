// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/layer"
	"github.com/clipper-serving/clipper/bench/load"
	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

const (
	missWindow  = 1500 * time.Millisecond
	missRounds  = 7
	missCallers = 64
)

// missed is what the cache does to a load that it never helps.
type missed struct {
	// off and on are queries per second.
	off, on float64
	// cost is the share of processor time that it adds to a query; measured over gRPC only.
	cost float64
}

// missesOutside measures the whole of Clipper. Its processor time says more than the throughput does,
// which the client, the container and chance have a part in.
func missesOutside(ctx context.Context, b system.Binaries, log io.Writer) (missed, error) {
	var systems [2]*system.Clipper
	var clients [2]clipperv1.QueryServiceClient
	for i := range systems {
		c, err := system.StartClipper(b, false)
		if err != nil {
			return missed{}, err
		}
		defer c.Stop()
		err = c.Serve(ctx, "noop", &clipperv1.ModelVersion{
			Container: &clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: []string{b.Noop}}}},
			Cache:     &clipperv1.Cache{Disabled: i == 0},
		}, &clipperv1.Application{
			Inputs:           []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{16}}},
			Output:           &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_LABEL, DataType: clipperv1.DataType_DATA_TYPE_INT64},
			DefaultOutput:    structpb.NewNumberValue(-1),
			LatencyObjective: durationpb.New(time.Second),
		})
		if err != nil {
			return missed{}, err
		}
		conn, err := grpc.NewClient(c.QueryGRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return missed{}, err
		}
		defer func() { _ = conn.Close() }()
		systems[i], clients[i] = c, clipperv1.NewQueryServiceClient(conn)
	}
	var asked atomic.Int64
	var rates, costs [2][]float64
	var added []float64
	for round := range missRounds {
		for i := range systems {
			i = (i + round) % 2 // Which one comes first changes, so that neither gains by the order.
			before, err := systems[i].Processes[0].CPU()
			if err != nil {
				return missed{}, err
			}
			begin := asked.Load()
			m := load.Closed(ctx, missCallers, missWindow, func(ctx context.Context) error {
				answer, err := clients[i].Query(ctx, &clipperv1.QueryRequest{Application: "noop", Inputs: freshTensors(asked.Add(1))})
				if err == nil && answer.IsDefault {
					err = fmt.Errorf("the default output was given: %v", answer)
				}
				return err
			})
			if m.Errors > 0 {
				return missed{}, fmt.Errorf("%d queries failed, one of them: %w", m.Errors, m.FirstError)
			}
			after, err := systems[i].Processes[0].CPU()
			if err != nil {
				return missed{}, err
			}
			rates[i] = append(rates[i], m.Throughput)
			costs[i] = append(costs[i], (after-before).Seconds()/float64(asked.Load()-begin))
		}
		added = append(added, costs[1][round]/costs[0][round]-1)
		_, _ = fmt.Fprintf(log, "misses over gRPC, round %d of %d: off %.0f/s, %.1f us, on %.0f/s, %.1f us\n",
			round+1, missRounds, rates[0][round], 1e6*costs[0][round], rates[1][round], 1e6*costs[1][round])
	}
	return missed{experiment.Median(rates[0]), experiment.Median(rates[1]), experiment.Median(added)}, ctx.Err()
}

// missesInside measures the layer alone at its limit, where the cache weighs most.
func missesInside(ctx context.Context, b system.Binaries, log io.Writer) (missed, error) {
	var layers [2]*layer.Layer
	for i := range layers {
		var err error
		layers[i], err = layer.Start(ctx, layer.Config{Containers: [][]string{{b.Noop}}, Batching: layer.Policy("slo"), Cached: i == 1})
		if err != nil {
			return missed{}, err
		}
		defer layers[i].Stop()
	}
	var rates [2][]float64
	var asked int64
	for round := range missRounds {
		for i := range layers {
			i = (i + round) % 2
			begin := asked
			rate, answers, err := layers[i].Saturate(ctx, layer.Saturation{
				Outstanding: outstanding, Warm: missWindow / 4, For: missWindow,
				Input: func(n int64) *tensor.Input { return tensor.FromTensors(freshTensors(begin + n)) },
			})
			if err != nil {
				return missed{}, err
			}
			asked += 4*answers + outstanding // More than there were.
			rates[i] = append(rates[i], rate)
		}
		_, _ = fmt.Fprintf(log, "misses beside the layer, round %d of %d: off %.0f/s, on %.0f/s\n", round+1, missRounds, rates[0][round], rates[1][round])
	}
	return missed{off: experiment.Median(rates[0]), on: experiment.Median(rates[1])}, nil
}
