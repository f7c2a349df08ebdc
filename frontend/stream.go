// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
)

// serve answers the requests of a stream as their answers become ready. A bounded number is in
// flight: the next is not read before, so that flow control makes the client wait. The stream ends
// when the client has said all and has all answers, or when the server drains and what it had read
// is answered.
func serve[Req, Res any](s *Service, stream grpc.BidiStreamingServer[Req, Res], answer func(context.Context, *Req) *Res) error {
	ctx := stream.Context()
	var (
		slots    = make(chan struct{}, s.cfg.StreamInFlight)
		requests = make(chan *Req)
		ended    = make(chan error, 1)
		inFlight sync.WaitGroup
		sending  sync.Mutex
		sendErr  error // Guarded by sending.
	)
	// Recv cannot be interrupted but by the end of the stream, which is when this function returns.
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
	finish := func(err error) error {
		inFlight.Wait()
		if sendErr != nil {
			return sendErr
		}
		return err
	}
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return finish(apierror.From(ctx.Err()))
		}
		select {
		case req := <-requests:
			inFlight.Go(func() {
				res := answer(ctx, req)
				sending.Lock()
				defer sending.Unlock()
				if sendErr == nil {
					sendErr = stream.Send(res)
				}
				<-slots
			})
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return finish(err)
		case <-ctx.Done():
			return finish(apierror.From(ctx.Err()))
		case <-s.deps.Draining:
			return finish(apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "",
				"the server is shutting down: open the stream again; what was not answered was not read"))
		}
	}
}
