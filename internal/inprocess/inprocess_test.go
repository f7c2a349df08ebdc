// SPDX-License-Identifier: Apache-2.0

package inprocess_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/clipper-serving/clipper/internal/inprocess"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a service whose methods are given by each test.
type fake struct {
	testpb.UnimplementedTestServiceServer
	unary  func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error)
	input  func(testpb.TestService_StreamingInputCallServer) error
	output func(*testpb.StreamingOutputCallRequest, testpb.TestService_StreamingOutputCallServer) error
	duplex func(testpb.TestService_FullDuplexCallServer) error
}

func (f *fake) UnaryCall(ctx context.Context, req *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return f.unary(ctx, req)
}

func (f *fake) StreamingInputCall(s testpb.TestService_StreamingInputCallServer) error {
	return f.input(s)
}

func (f *fake) StreamingOutputCall(req *testpb.StreamingOutputCallRequest, s testpb.TestService_StreamingOutputCallServer) error {
	return f.output(req, s)
}

func (f *fake) FullDuplexCall(s testpb.TestService_FullDuplexCallServer) error { return f.duplex(s) }

// both runs a test body over this package and over grpc-go, which is the
// reference for what has to happen.
func both(t *testing.T, service *fake, body func(t *testing.T, client testpb.TestServiceClient)) {
	t.Run("in process", func(t *testing.T) {
		conn := inprocess.New(nil, nil)
		testpb.RegisterTestServiceServer(conn, service)
		body(t, testpb.NewTestServiceClient(conn))
	})
	t.Run("over a connection", func(t *testing.T) {
		listener := bufconn.Listen(1 << 16)
		server := grpc.NewServer(grpc.WaitForHandlers(true))
		testpb.RegisterTestServiceServer(server, service)
		go server.Serve(listener)
		t.Cleanup(server.Stop)
		conn, err := grpc.NewClient("passthrough:///bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, conn.Close()) })
		body(t, testpb.NewTestServiceClient(conn))
	})
}

func payload(s string) *testpb.Payload { return &testpb.Payload{Body: []byte(s)} }

func TestUnary_metadataHeadersTrailers(t *testing.T) {
	service := &fake{unary: func(ctx context.Context, req *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		if got := md.Get("user"); len(got) != 1 || got[0] != "ada" {
			return nil, status.Errorf(codes.Internal, "user metadata is %v", got)
		}
		if md, ok := metadata.FromOutgoingContext(ctx); ok && len(md) > 0 {
			return nil, status.Errorf(codes.Internal, "outgoing metadata is %v", md)
		}
		if _, ok := peer.FromContext(ctx); !ok {
			return nil, status.Error(codes.Internal, "no peer")
		}
		if name, _ := grpc.Method(ctx); name != testpb.TestService_UnaryCall_FullMethodName {
			return nil, status.Errorf(codes.Internal, "method is %q", name)
		}
		_ = grpc.SetHeader(ctx, metadata.Pairs("h", "1"))
		_ = grpc.SendHeader(ctx, metadata.Pairs("h", "2"))
		if err := grpc.SetHeader(ctx, metadata.Pairs("h", "late")); err == nil {
			return nil, status.Error(codes.Internal, "a header after the headers is accepted")
		}
		_ = grpc.SetTrailer(ctx, metadata.Pairs("t", "3"))
		return &testpb.SimpleResponse{Payload: req.GetPayload()}, nil
	}}
	both(t, service, func(t *testing.T, client testpb.TestServiceClient) {
		var header, trailer metadata.MD
		var p peer.Peer
		finished := 0
		ctx := metadata.AppendToOutgoingContext(t.Context(), "User", "ada")
		got, err := client.UnaryCall(ctx, &testpb.SimpleRequest{Payload: payload("x")},
			grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&p), grpc.OnFinish(func(error) { finished++ }))
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(&testpb.SimpleResponse{Payload: payload("x")}, got, protocmp.Transform()))
		require.Equal(t, []string{"1", "2"}, header.Get("h"))
		require.Equal(t, []string{"3"}, trailer.Get("t"))
		require.NotNil(t, p.Addr)
		require.Equal(t, 1, finished)
	})
}

// A handler that calls on must not pass on who called it, nor set its caller's
// headers.
func TestUnary_nestedCallsAreSeparate(t *testing.T) {
	inner := inprocess.New(nil, nil)
	testpb.RegisterTestServiceServer(inner, &fake{unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		return &testpb.SimpleResponse{Username: fmt.Sprint(md)}, grpc.SetHeader(ctx, metadata.Pairs("inner", "1"))
	}})
	outer := &fake{unary: func(ctx context.Context, req *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		return testpb.NewTestServiceClient(inner).UnaryCall(ctx, req)
	}}
	both(t, outer, func(t *testing.T, client testpb.TestServiceClient) {
		var header metadata.MD
		ctx := metadata.AppendToOutgoingContext(t.Context(), "user", "ada")
		got, err := client.UnaryCall(ctx, &testpb.SimpleRequest{}, grpc.Header(&header))
		require.NoError(t, err)
		require.Equal(t, "map[]", got.GetUsername())
		require.Empty(t, header.Get("inner"))
	})
}

func TestUnary_errors(t *testing.T) {
	detailed, err := status.New(codes.NotFound, "no such model").WithDetails(payload("why"))
	require.NoError(t, err)
	tests := []struct {
		name string
		give error
		want *status.Status
	}{
		{"status", status.Error(codes.ResourceExhausted, "queue full"), status.New(codes.ResourceExhausted, "queue full")},
		{"status with details", detailed.Err(), detailed},
		{"plain", errors.New("broken"), status.New(codes.Unknown, "broken")},
		{"context", context.DeadlineExceeded, status.New(codes.DeadlineExceeded, "context deadline exceeded")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			service := &fake{unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) { return nil, tt.give }}
			both(t, service, func(t *testing.T, client testpb.TestServiceClient) {
				_, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{})
				require.Empty(t, cmp.Diff(tt.want.Proto(), status.Convert(err).Proto(), protocmp.Transform()))
			})
		})
	}
}

func TestUnary_deadlineAndCancellation(t *testing.T) {
	service := &fake{unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	both(t, service, func(t *testing.T, client testpb.TestServiceClient) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{})
		require.Equal(t, codes.DeadlineExceeded, status.Code(err))
		_, err = client.UnaryCall(ctx, &testpb.SimpleRequest{})
		require.Equal(t, codes.DeadlineExceeded, status.Code(err), "the deadline has passed before the call")

		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		_, err = client.UnaryCall(ctx, &testpb.SimpleRequest{})
		require.Equal(t, codes.Canceled, status.Code(err))
	})
}

func TestUnary_aCallerWhoseTimeIsOverHearsThat(t *testing.T) {
	conn := inprocess.New(nil, nil)
	testpb.RegisterTestServiceServer(conn, &fake{unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		<-ctx.Done()
		return nil, errors.New("gave up")
	}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := testpb.NewTestServiceClient(conn).UnaryCall(ctx, &testpb.SimpleRequest{})
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))
}

func TestUnknownMethod(t *testing.T) {
	both(t, &fake{}, func(t *testing.T, client testpb.TestServiceClient) {
		_, err := client.UnimplementedCall(t.Context(), &testpb.Empty{})
		require.Equal(t, codes.Unimplemented, status.Code(err))
	})
	conn := inprocess.New(nil, nil)
	require.Equal(t, codes.Unimplemented, status.Code(conn.Invoke(t.Context(), "/a.B/C", &testpb.Empty{}, &testpb.Empty{})))
	_, err := conn.NewStream(t.Context(), &grpc.StreamDesc{}, "/a.B/C")
	require.Equal(t, codes.Unimplemented, status.Code(err))
}

func TestMessages_areNotShared(t *testing.T) {
	var seen []*testpb.SimpleRequest
	answer := &testpb.SimpleResponse{Payload: payload("answer")}
	service := &fake{
		unary: func(_ context.Context, req *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			seen = append(seen, req)
			return answer, nil
		},
		duplex: func(s testpb.TestService_FullDuplexCallServer) error {
			req, err := s.Recv()
			if err != nil {
				return err
			}
			req.Payload.Body[0] = 'X'
			res := &testpb.StreamingOutputCallResponse{Payload: req.GetPayload()}
			if err := s.Send(res); err != nil {
				return err
			}
			res.Payload.Body[1] = 'Y'
			return nil
		},
	}
	both(t, service, func(t *testing.T, client testpb.TestServiceClient) {
		seen = nil
		req := &testpb.SimpleRequest{Payload: payload("question")}
		got, err := client.UnaryCall(t.Context(), req)
		require.NoError(t, err)
		got.Payload.Body[0] = '?'
		req.Payload.Body[0] = '?'
		require.Equal(t, "answer", string(answer.GetPayload().GetBody()))
		require.Equal(t, "question", string(seen[0].GetPayload().GetBody()))

		stream, err := client.FullDuplexCall(t.Context())
		require.NoError(t, err)
		sent := &testpb.StreamingOutputCallRequest{Payload: payload("abc")}
		require.NoError(t, stream.Send(sent))
		res, err := stream.Recv()
		require.NoError(t, err)
		_, err = stream.Recv()
		require.ErrorIs(t, err, io.EOF)
		require.Equal(t, "Xbc", string(res.GetPayload().GetBody()))
		require.Equal(t, "abc", string(sent.GetPayload().GetBody()))
	})
}

func TestClientStream(t *testing.T) {
	service := &fake{input: func(s testpb.TestService_StreamingInputCallServer) error {
		var size int32
		for {
			req, err := s.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			if string(req.GetPayload().GetBody()) == "stop" {
				return status.Error(codes.InvalidArgument, "stopped")
			}
			size += int32(len(req.GetPayload().GetBody()))
		}
		s.SetTrailer(metadata.Pairs("t", "1"))
		return s.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: size})
	}}
	both(t, service, func(t *testing.T, client testpb.TestServiceClient) {
		var trailer metadata.MD
		stream, err := client.StreamingInputCall(t.Context(), grpc.Trailer(&trailer))
		require.NoError(t, err)
		for range 100 {
			require.NoError(t, stream.Send(&testpb.StreamingInputCallRequest{Payload: payload("12345")}))
		}
		got, err := stream.CloseAndRecv()
		require.NoError(t, err)
		require.EqualValues(t, 500, got.GetAggregatedPayloadSize())
		require.Equal(t, []string{"1"}, trailer.Get("t"))
		require.Equal(t, []string{"1"}, stream.Trailer().Get("t"))

		stream, err = client.StreamingInputCall(t.Context())
		require.NoError(t, err)
		require.NoError(t, stream.Send(&testpb.StreamingInputCallRequest{Payload: payload("stop")}))
		for err == nil { // A sender learns of the end, however much it still has to send.
			err = stream.Send(&testpb.StreamingInputCallRequest{Payload: payload("more")})
		}
		require.ErrorIs(t, err, io.EOF)
		_, err = stream.CloseAndRecv()
		require.Equal(t, codes.InvalidArgument, status.Code(err))
	})
}

func TestClientStream_withoutResponse(t *testing.T) {
	both(t, &fake{input: func(testpb.TestService_StreamingInputCallServer) error { return nil }},
		func(t *testing.T, client testpb.TestServiceClient) {
			stream, err := client.StreamingInputCall(t.Context())
			require.NoError(t, err)
			_, err = stream.CloseAndRecv()
			require.Equal(t, codes.Internal, status.Code(err))
		})
}

func TestServerStream(t *testing.T) {
	service := &fake{output: func(req *testpb.StreamingOutputCallRequest, s testpb.TestService_StreamingOutputCallServer) error {
		if err := s.SetHeader(metadata.Pairs("h", "1")); err != nil {
			return err
		}
		for _, p := range req.GetResponseParameters() {
			if err := s.Send(&testpb.StreamingOutputCallResponse{Payload: payload(fmt.Sprint(p.GetSize()))}); err != nil {
				return err
			}
		}
		return status.Error(codes.Aborted, "the end")
	}}
	both(t, service, func(t *testing.T, client testpb.TestServiceClient) {
		req := &testpb.StreamingOutputCallRequest{}
		for i := range 50 {
			req.ResponseParameters = append(req.ResponseParameters, &testpb.ResponseParameters{Size: int32(i)})
		}
		stream, err := client.StreamingOutputCall(t.Context(), req)
		require.NoError(t, err)
		header, err := stream.Header()
		require.NoError(t, err)
		require.Equal(t, []string{"1"}, header.Get("h"))
		for i := range 50 {
			res, err := stream.Recv()
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(i), string(res.GetPayload().GetBody()))
		}
		_, err = stream.Recv()
		require.Equal(t, codes.Aborted, status.Code(err))
		_, err = stream.Recv()
		require.Equal(t, codes.Aborted, status.Code(err), "the end is told again")
	})
}

func TestServerStream_headerOfAnEmptyStream(t *testing.T) {
	both(t, &fake{output: func(*testpb.StreamingOutputCallRequest, testpb.TestService_StreamingOutputCallServer) error {
		return nil
	}},
		func(t *testing.T, client testpb.TestServiceClient) {
			stream, err := client.StreamingOutputCall(t.Context(), &testpb.StreamingOutputCallRequest{})
			require.NoError(t, err)
			_, err = stream.Header()
			require.NoError(t, err)
			_, err = stream.Recv()
			require.ErrorIs(t, err, io.EOF)
		})
}

func TestDuplex_pingPong(t *testing.T) {
	service := &fake{duplex: func(s testpb.TestService_FullDuplexCallServer) error {
		for {
			req, err := s.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if err := s.Send(&testpb.StreamingOutputCallResponse{Payload: req.GetPayload()}); err != nil {
				return err
			}
		}
	}}
	both(t, service, func(t *testing.T, client testpb.TestServiceClient) {
		stream, err := client.FullDuplexCall(t.Context())
		require.NoError(t, err)
		for i := range 100 {
			want := fmt.Sprint(i)
			require.NoError(t, stream.Send(&testpb.StreamingOutputCallRequest{Payload: payload(want)}))
			got, err := stream.Recv()
			require.NoError(t, err)
			require.Equal(t, want, string(got.GetPayload().GetBody()))
		}
		require.NoError(t, stream.CloseSend())
		require.NoError(t, stream.CloseSend())
		_, err = stream.Recv()
		require.ErrorIs(t, err, io.EOF)
		require.Error(t, stream.Send(&testpb.StreamingOutputCallRequest{}))
	})
}

func TestDuplex_cancellationReachesBothEnds(t *testing.T) {
	handler := make(chan error, 1)
	service := &fake{duplex: func(s testpb.TestService_FullDuplexCallServer) error {
		if err := s.SendHeader(nil); err != nil {
			return err
		}
		_, err := s.Recv()
		handler <- err
		return err
	}}
	both(t, service, func(t *testing.T, client testpb.TestServiceClient) {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := client.FullDuplexCall(ctx)
		require.NoError(t, err)
		_, err = stream.Header()
		require.NoError(t, err)
		cancel()
		require.Equal(t, codes.Canceled, status.Code(<-handler))
		_, err = stream.Recv()
		require.Equal(t, codes.Canceled, status.Code(err))
		err = nil
		for err == nil {
			err = stream.Send(&testpb.StreamingOutputCallRequest{})
		}
	})
}

func TestInterceptors_wrapInOrder(t *testing.T) {
	var got []string
	unary := func(name string) grpc.UnaryServerInterceptor {
		return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			got = append(got, name+info.FullMethod)
			return handler(ctx, req)
		}
	}
	stream := func(name string) grpc.StreamServerInterceptor {
		return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			got = append(got, fmt.Sprint(name, info.FullMethod, info.IsClientStream, info.IsServerStream))
			return handler(srv, ss)
		}
	}
	conn := inprocess.New([]grpc.UnaryServerInterceptor{unary("a "), unary("b "), unary("c ")},
		[]grpc.StreamServerInterceptor{stream("a "), stream("b ")})
	testpb.RegisterTestServiceServer(conn, &fake{
		unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			return &testpb.SimpleResponse{}, nil
		},
		output: func(*testpb.StreamingOutputCallRequest, testpb.TestService_StreamingOutputCallServer) error {
			return nil
		},
	})
	client := testpb.NewTestServiceClient(conn)
	_, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{})
	require.NoError(t, err)
	s, err := client.StreamingOutputCall(t.Context(), &testpb.StreamingOutputCallRequest{})
	require.NoError(t, err)
	_, err = s.Recv()
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, []string{
		"a /grpc.testing.TestService/UnaryCall", "b /grpc.testing.TestService/UnaryCall", "c /grpc.testing.TestService/UnaryCall",
		"a /grpc.testing.TestService/StreamingOutputCallfalse true", "b /grpc.testing.TestService/StreamingOutputCallfalse true",
	}, got)
}

func TestRegisterService_twice(t *testing.T) {
	conn := inprocess.New(nil, nil)
	testpb.RegisterTestServiceServer(conn, &fake{})
	require.Panics(t, func() { testpb.RegisterTestServiceServer(conn, &fake{}) })
}

func TestInvoke_wrongTypes(t *testing.T) {
	conn := inprocess.New(nil, nil)
	testpb.RegisterTestServiceServer(conn, &fake{unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		return &testpb.SimpleResponse{}, nil
	}})
	const name = testpb.TestService_UnaryCall_FullMethodName
	require.Equal(t, codes.Internal, status.Code(conn.Invoke(t.Context(), name, "text", &testpb.SimpleResponse{})))
	require.Equal(t, codes.Internal, status.Code(conn.Invoke(t.Context(), name, &testpb.Empty{}, &testpb.SimpleResponse{})))
	require.Equal(t, codes.Internal, status.Code(conn.Invoke(t.Context(), name, &testpb.SimpleRequest{}, &testpb.Empty{})))
}

// BenchmarkUnary is the cost that this package adds to a call; the handler does
// nothing.
func BenchmarkUnary(b *testing.B) {
	conn := inprocess.New(nil, nil)
	res := &testpb.SimpleResponse{Payload: payload("answer")}
	testpb.RegisterTestServiceServer(conn, &fake{unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		return res, nil
	}})
	client := testpb.NewTestServiceClient(conn)
	req := &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 784*4)}}
	ctx := metadata.AppendToOutgoingContext(b.Context(), "user", "ada")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.UnaryCall(ctx, req); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDuplex(b *testing.B) {
	conn := inprocess.New(nil, nil)
	testpb.RegisterTestServiceServer(conn, &fake{duplex: func(s testpb.TestService_FullDuplexCallServer) error {
		for {
			req, err := s.Recv()
			if err != nil {
				return nil //nolint:nilerr // The client has gone.
			}
			if err := s.Send(&testpb.StreamingOutputCallResponse{Payload: req.GetPayload()}); err != nil {
				return err
			}
		}
	}})
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	stream, err := testpb.NewTestServiceClient(conn).FullDuplexCall(ctx)
	require.NoError(b, err)
	req := &testpb.StreamingOutputCallRequest{Payload: payload("question")}
	b.ReportAllocs()
	for b.Loop() {
		if err := stream.Send(req); err != nil {
			b.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			b.Fatal(err)
		}
	}
}
