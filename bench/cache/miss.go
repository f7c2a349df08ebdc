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
	// Many short rounds: what else goes on in the machine changes a query's processor time by some
	// per cent from one window to the next, which is more than the cache does.
	missWindow  = 500 * time.Millisecond
	missRounds  = 31
	missCallers = 64
)

// missed is what the cache does to a load that it never helps.
type missed struct {
	// off and on are queries per second.
	off, on float64
	// offCPU and onCPU are the seconds of processor time of a query.
	offCPU, onCPU float64
	// added is the share of processor time that the cache adds to a query: the median over the rounds.
	added float64
}

// turns measures with the cache off and on in turn. measure is given 0 for off or 1 for on, and
// returns queries per second and seconds of processor time a query.
func turns(ctx context.Context, what string, log io.Writer, measure func(i int) (rate, cpu float64, err error)) (missed, error) {
	var rates, cpus [2][]float64
	var added []float64
	for round := range missRounds {
		for i := range 2 {
			i = (i + round) % 2 // Which one comes first changes, so that neither gains by the order.
			rate, cpu, err := measure(i)
			if err != nil {
				return missed{}, err
			}
			rates[i], cpus[i] = append(rates[i], rate), append(cpus[i], cpu)
		}
		added = append(added, cpus[1][round]/cpus[0][round]-1)
		_, _ = fmt.Fprintf(log, "misses %s, round %d of %d: off %.0f/s, %.2f us, on %.0f/s, %.2f us\n",
			what, round+1, missRounds, rates[0][round], 1e6*cpus[0][round], rates[1][round], 1e6*cpus[1][round])
	}
	return missed{
		off: experiment.Median(rates[0]), on: experiment.Median(rates[1]),
		offCPU: experiment.Median(cpus[0]), onCPU: experiment.Median(cpus[1]), added: experiment.Median(added),
	}, ctx.Err()
}

// missesOutside measures the whole of Clipper. Its processor time says more than the throughput does,
// which the client, the container and chance have a part in. The cache of one and the same process is
// turned off and on: two processes differ by more than it costs.
func missesOutside(ctx context.Context, b system.Binaries, log io.Writer) (missed, error) {
	const model = "noop"
	c, err := system.StartClipper(b, false)
	if err != nil {
		return missed{}, err
	}
	defer c.Stop()
	err = c.Serve(ctx, model, &clipperv1.ModelVersion{
		Container: &clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: []string{b.Noop}}}},
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
	client := clipperv1.NewQueryServiceClient(conn)
	var asked atomic.Int64
	ask := func(window time.Duration) (load.Measurement, error) {
		m := load.Closed(ctx, missCallers, window, func(ctx context.Context) error {
			answer, err := client.Query(ctx, &clipperv1.QueryRequest{Application: model, Inputs: freshTensors(asked.Add(1))})
			if err == nil && answer.IsDefault {
				err = fmt.Errorf("the default output was given: %v", answer)
			}
			return err
		})
		if m.Errors > 0 {
			return m, fmt.Errorf("%d queries failed, one of them: %w", m.Errors, m.FirstError)
		}
		return m, nil
	}
	return turns(ctx, "over gRPC", log, func(i int) (rate, cpu float64, err error) {
		if err := c.SetCache(ctx, model, i == 1); err != nil {
			return 0, 0, err
		}
		// The change is followed by then.
		if _, err := ask(missWindow / 4); err != nil {
			return 0, 0, err
		}
		before, err := c.Processes[0].CPU()
		if err != nil {
			return 0, 0, err
		}
		begin := asked.Load()
		m, err := ask(missWindow)
		if err != nil {
			return 0, 0, err
		}
		after, err := c.Processes[0].CPU()
		return m.Throughput, (after - before).Seconds() / float64(asked.Load()-begin), err
	})
}

// missesInside measures the layer alone at its limit, where the cache weighs most. The processor time
// is that of this process: the layer's and the generator's, without the container's.
func missesInside(ctx context.Context, b system.Binaries, log io.Writer) (missed, error) {
	l, err := layer.Start(ctx, layer.Config{Containers: [][]string{{b.Noop}}, Batching: layer.Policy("slo"), Cached: true})
	if err != nil {
		return missed{}, err
	}
	defer l.Stop()
	var asked int64
	return turns(ctx, "beside the layer", log, func(i int) (rate, cpu float64, err error) {
		if err := l.SetCached(i == 1); err != nil {
			return 0, 0, err
		}
		begin := asked
		var before, after time.Duration
		rate, answers, err := l.Saturate(ctx, layer.Saturation{
			Outstanding: outstanding, Warm: missWindow / 4, For: missWindow,
			Input: func(n int64) *tensor.Input { return tensor.FromTensors(freshTensors(begin + n)) },
			Begin: func() { before = system.OwnCPU() },
			End:   func() { after = system.OwnCPU() },
		})
		asked += 4*answers + outstanding // More than there were.
		return rate, (after - before).Seconds() / float64(answers), err
	})
}
