// SPDX-License-Identifier: Apache-2.0

package feedback

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	streams    = 4
	inFlight   = 512
	callers    = 4
	batchItems = 1000
	askItems   = 1000
)

// ask asks queries, in as many contexts, and returns feedback for their answers.
func ask(ctx context.Context, conn grpc.ClientConnInterface, contexts int) ([]*clipperv1.FeedbackRequest, error) {
	client := clipperv1.NewQueryServiceClient(conn)
	input := []*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{1}, Data: make([]byte, 4)}}
	all := make([]*clipperv1.FeedbackRequest, perRound)
	return all, each(callers, perRound/askItems, func(batch int) error {
		request := &clipperv1.QueryBatchRequest{Application: app}
		for i := range askItems {
			q := &clipperv1.BatchQuery{Inputs: input}
			if contexts > 1 {
				q.Context = fmt.Sprint("user", (batch*askItems+i)%contexts)
			}
			request.Queries = append(request.Queries, q)
		}
		response, err := client.QueryBatch(ctx, request)
		if err != nil {
			return err
		}
		for i, r := range response.Results {
			if r.GetResponse() == nil || r.GetResponse().IsDefault {
				return fmt.Errorf("no prediction: %v", r)
			}
			all[batch*askItems+i] = &clipperv1.FeedbackRequest{
				Application: app, FeedbackId: r.GetResponse().FeedbackId,
				Observation: &clipperv1.FeedbackRequest_Truth{Truth: structpb.NewNumberValue(float64(i % 2))},
			}
		}
		return nil
	})
}

// each calls f with 0 to n-1 from a number of goroutines, and returns an error if one fails.
func each(goroutines, n int, f func(int) error) error {
	var (
		next  atomic.Int64
		work  sync.WaitGroup
		fails = make(chan error, goroutines)
	)
	for range goroutines {
		work.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					fails <- err
					return
				}
			}
		})
	}
	work.Wait()
	close(fails)
	return <-fails
}

// batches sends feedback by FeedbackBatch.
func batches(ctx context.Context, conn grpc.ClientConnInterface, all []*clipperv1.FeedbackRequest) error {
	client := clipperv1.NewFeedbackServiceClient(conn)
	chunks := slices.Collect(slices.Chunk(all, batchItems))
	return each(callers, len(chunks), func(i int) error {
		response, err := client.FeedbackBatch(ctx, &clipperv1.FeedbackBatchRequest{Application: app, Items: chunks[i]})
		if err != nil {
			return err
		}
		for _, result := range response.Results {
			if err := counted(result); err != nil {
				return err
			}
		}
		return nil
	})
}

// stream sends feedback by FeedbackStream.
func stream(ctx context.Context, conn grpc.ClientConnInterface, all []*clipperv1.FeedbackRequest) error {
	client := clipperv1.NewFeedbackServiceClient(conn)
	return each(streams, streams, func(i int) error {
		share := all[i*len(all)/streams : (i+1)*len(all)/streams]
		s, err := client.FeedbackStream(ctx)
		if err != nil {
			return err
		}
		slots := make(chan struct{}, inFlight)
		sent := make(chan error, 1)
		go func() {
			for k, f := range share {
				select {
				case slots <- struct{}{}:
				case <-s.Context().Done():
					sent <- s.Context().Err()
					return
				}
				if err := s.Send(&clipperv1.FeedbackStreamRequest{Sequence: uint64(k), Feedback: f}); err != nil {
					sent <- err
					return
				}
			}
			sent <- s.CloseSend()
		}()
		n := 0
		for ; ; n++ {
			response, err := s.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			if err := counted(response.Result); err != nil {
				return err
			}
			<-slots
		}
		if n != len(share) {
			return fmt.Errorf("%d of %d feedbacks were acknowledged", n, len(share))
		}
		return <-sent
	})
}

// counted returns an error unless feedback was counted.
func counted(r *clipperv1.FeedbackResult) error {
	if response := r.GetResponse(); response == nil || response.Duplicate || response.Buffered || len(response.Losses) != models {
		return fmt.Errorf("not counted: %v", r)
	}
	return nil
}
