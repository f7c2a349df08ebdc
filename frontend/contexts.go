// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"context"
	"errors"
	"fmt"
	"io"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/auth"
)

func (a applicationServer) ListContexts(ctx context.Context, req *clipperv1.ListContextsRequest) (*clipperv1.ListContextsResponse, error) {
	return forward(ctx, selectorName, a.s.deps.Applications.ListContexts, req)
}

func (a applicationServer) ResetSelectionState(ctx context.Context, req *clipperv1.ResetSelectionStateRequest) (*clipperv1.ResetSelectionStateResponse, error) {
	return forward(ctx, selectorName, a.s.deps.Applications.ResetSelectionState, req)
}

func (a applicationServer) ExportSelectionState(req *clipperv1.ExportSelectionStateRequest, stream grpc.ServerStreamingServer[clipperv1.ExportSelectionStateResponse]) error {
	return forwardStream(selectorName, a.s.deps.Applications.ExportSelectionState, req, stream)
}

// forwardStream is forward for a call that is answered with a stream. It takes the next message when the
// caller has taken the last.
func forwardStream[Req, Res any](
	service string, call func(context.Context, *Req, ...grpc.CallOption) (grpc.ServerStreamingClient[Res], error),
	req *Req, to grpc.ServerStreamingServer[Res],
) error {
	ctx, cancel := context.WithCancel(to.Context())
	defer cancel()
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = metadata.NewOutgoingContext(ctx, auth.Strip(md))
	}
	from, err := call(ctx, req)
	for err == nil {
		var res *Res
		if res, err = from.Recv(); err != nil {
			break
		}
		if err := to.Send(res); err != nil {
			return fmt.Errorf("send to the caller: %w", err)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return unreachable(service, err)
}

// appendChunk appends a message of a stream, as the gateway wraps it, or why the stream has failed.
func appendChunk(b []byte, chunk any) ([]byte, error) {
	switch c := chunk.(type) {
	case map[string]any:
		if m, ok := c["result"].(proto.Message); ok {
			b, err := appendMessage(append(b, `{"result":`...), m)
			return append(b, '}'), err
		}
	case map[string]proto.Message:
		if s, ok := c["error"].(*spb.Status); ok {
			b = appendError(append(b, `{"error":`...), apierror.ToProto(status.ErrorProto(s)))
			return append(b, '}'), nil
		}
	}
	return nil, fmt.Errorf("write %T as JSON: neither a message nor a part of a stream", chunk)
}
