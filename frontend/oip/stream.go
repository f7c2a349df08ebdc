// SPDX-License-Identifier: Apache-2.0

package oip

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/gen/go/inference"
	"github.com/clipper-serving/clipper/internal/apierror"
)

// statusKey is the key of the metadata by which Triton's clients ask for errors as a status, which ends
// the stream.
const statusKey = "triton_grpc_error"

// streamed is a request of a stream and what became of it.
type streamed struct {
	req *inference.ModelInferRequest
	res *inference.ModelInferResponse
	err error
}

// ModelStreamInfer implements the protocol's extension. A bounded number of requests is in flight, and
// the answers leave in the order of the requests: clients do not always look at the identifiers.
func (s *Server) ModelStreamInfer(stream grpc.BidiStreamingServer[inference.ModelInferRequest, inference.ModelStreamInferResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	var (
		pending  = make(chan chan streamed, max(s.deps.StreamInFlight, 1))
		ended    = make(chan error, 1)
		inFlight sync.WaitGroup
	)
	defer inFlight.Wait() // After the cancel, which ends what is in flight.
	defer cancel()
	inFlight.Add(1) // The reader, while it may start something.
	// Recv cannot be interrupted but by the end of the stream, which is when this function returns; so
	// reading is in two steps, and only the second one counts as in flight.
	requests := make(chan *inference.ModelInferRequest)
	go func() {
		for {
			req, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case requests <- req:
			case <-ctx.Done():
				return
			}
		}
	}()
	finished := make(chan error, 1) // Why no more is taken, when all that was taken is in pending.
	go func() {
		defer inFlight.Done()
		defer close(pending)
		for {
			select {
			case req := <-requests:
				done := make(chan streamed, 1)
				select {
				case pending <- done:
				case <-ctx.Done():
					finished <- apierror.From(ctx.Err())
					return
				}
				inFlight.Go(func() {
					res, err := s.ModelInfer(ctx, req)
					done <- streamed{req: req, res: res, err: err}
				})
			case err := <-ended:
				if errors.Is(err, io.EOF) {
					err = nil
				}
				finished <- err
				return
			case <-s.deps.Draining:
				finished <- apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "",
					"the server is shutting down: open the stream again; what was not answered was not read")
				return
			case <-ctx.Done():
				finished <- apierror.From(ctx.Err())
				return
			}
		}
	}()
	for done := range pending {
		if err := s.send(stream, <-done); err != nil {
			return err
		}
	}
	return <-finished
}

// send sends an answer in the call's dialect. An error ends the stream.
func (s *Server) send(stream grpc.BidiStreamingServer[inference.ModelInferRequest, inference.ModelStreamInferResponse], a streamed) error {
	ctx := stream.Context()
	plain := s.dialect(ctx) == MLServer
	if a.err != nil && (plain || slices.Contains(metadata.ValueFromIncomingContext(ctx, statusKey), "true")) {
		return a.err
	}
	if plain {
		return stream.SendMsg(a.res)
	}
	if a.err != nil {
		return stream.Send(&inference.ModelStreamInferResponse{
			ErrorMessage:  message(a.err),
			InferResponse: &inference.ModelInferResponse{ModelName: a.req.GetModelName(), ModelVersion: a.req.GetModelVersion(), Id: a.req.GetId()},
		})
	}
	if a.req.GetParameters()["triton_enable_empty_final_response"].GetBoolParam() {
		if a.res.Parameters == nil {
			a.res.Parameters = map[string]*inference.InferParameter{}
		}
		// A request has one answer, so that the first is the last.
		a.res.Parameters["triton_final_response"] = &inference.InferParameter{ParameterChoice: &inference.InferParameter_BoolParam{BoolParam: true}}
	}
	return stream.Send(&inference.ModelStreamInferResponse{InferResponse: a.res})
}
