// SPDX-License-Identifier: Apache-2.0

package stragglers

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/clipper-serving/clipper/bench/layer"
	"github.com/clipper-serving/clipper/bench/load"
	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// floats is the width of a query.
const floats = 16

// measurement is what a mode did at a size.
type measurement struct {
	load.OpenMeasurement
	// missing is the share of the models asked that had not answered when the answer was given, and
	// accuracy that of the answers that are right; the default output is not.
	missing, accuracy float64
}

// session is a load on applications of one size, in turn, over one stream. One generator sends all of
// it: two that wait for their moments would keep two cores from everything else.
type session struct {
	size     int
	modes    []string
	schedule []time.Duration
	missing  []atomic.Int64 // by mode, as right
	right    []atomic.Int64
}

// ask asks the applications of the modes with so many models, each at the same rate.
func ask(ctx context.Context, c *system.Clipper, window time.Duration, size int, modes ...string) ([]measurement, error) {
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
	n := len(modes)
	s := &session{
		size: size, modes: modes, missing: make([]atomic.Int64, n), right: make([]atomic.Int64, n),
		schedule: load.Schedule(load.Poisson, float64(n*rate), warm+window, uint64(size)),
	}
	o := load.NewOpen(load.OpenConfig{Schedule: s.schedule, WarmUp: warm, Objective: layer.Objective})
	ended := make(chan error, 1)
	go func() {
		for {
			answer, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			o.Done(int(answer.Sequence), s.take(int(answer.Sequence), answer.Result.GetResponse()))
		}
	}()
	var sendErr error
	rows := makeRows(len(s.schedule))
	all := o.Run(ctx, func(i int, _ time.Time) {
		err := stream.Send(&clipperv1.QueryStreamRequest{
			Sequence: uint64(i), Query: &clipperv1.QueryRequest{Application: application(modes[i%n], size), Inputs: rows[i]},
		})
		if err != nil && sendErr == nil {
			sendErr = err
		}
	})
	select {
	case err := <-ended:
		return nil, err
	default:
	}
	switch {
	case sendErr != nil:
		return nil, sendErr
	case all.Failed > 0 || all.Lost > 0:
		return nil, fmt.Errorf("%d of %d queries failed, %d were lost", all.Failed, all.Offered, all.Lost)
	}
	measurements := make([]measurement, n)
	for k := range modes {
		m := &measurements[k]
		m.OpenMeasurement = o.Measure(func(i int) bool { return i%n == k })
		m.missing = float64(s.missing[k].Load()) / float64(m.Offered*size)
		m.accuracy = float64(s.right[k].Load()) / float64(m.Offered)
	}
	return measurements, nil
}

// take counts the answer to query i, when it is not one of the warm-up. Every answer is one, the default
// output too: what counts is when it came.
func (s *session) take(i int, r *clipperv1.QueryResponse) load.Outcome {
	if r == nil {
		return load.Failed
	}
	if s.schedule[i] < warm {
		return load.Answered
	}
	arrived := 0
	for _, p := range r.Predictions {
		if p.Status == clipperv1.PredictionStatus_PREDICTION_STATUS_OK {
			arrived++
		}
	}
	mode := i % len(s.modes)
	s.missing[mode].Add(int64(s.size - arrived))
	if len(r.Outputs) == 1 && len(r.Outputs[0].Data) == 8 && binary.LittleEndian.Uint64(r.Outputs[0].Data) == uint64(truth(i)) {
		s.right[mode].Add(1)
	}
	return load.Answered
}

// truth is the label of query i. The modes, which take turns, get the same labels as often.
func truth(i int) int { return i / 2 * 7 % 10 }

// makeRows returns the inputs of n queries: the label, the query's number, which makes it unlike all
// others, and what an image might be.
func makeRows(n int) [][]*clipperv1.Tensor {
	rows := make([][]*clipperv1.Tensor, n)
	for i := range rows {
		data := make([]byte, 0, 4*floats)
		for j := range floats {
			x := float32((i*31+j*17)%97) / 97
			switch j {
			case 0:
				x = float32(truth(i))
			case 1:
				x = float32(i)
			}
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(x))
		}
		rows[i] = []*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{floats}, Data: data}}
	}
	return rows
}
