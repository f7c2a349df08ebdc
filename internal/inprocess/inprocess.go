// SPDX-License-Identifier: Apache-2.0

// Package inprocess connects gRPC clients to services of the same process.
//
// A [Conn] is both ends at once: services are registered on it as on a
// grpc.Server, and generated clients (and grpc-gateway) call through it as
// through a grpc.ClientConn. There is no socket and no encoding; messages are
// copied, so that the two sides never share memory.
//
//	conn := inprocess.New(
//		[]grpc.UnaryServerInterceptor{rpc.Unary},
//		[]grpc.StreamServerInterceptor{rpc.Stream},
//	)
//	clipperv1.RegisterQueryServiceServer(conn, service)
//	client := clipperv1.NewQueryServiceClient(conn)
//
// What a handler sees is what it would see behind a socket: the caller's
// outgoing metadata as incoming metadata, its deadline and its cancellation, a
// peer (whose address is "inprocess"), headers and trailers. What a client
// sees is a status error, as from a server. Two things differ. Values in the
// caller's context stay visible to the handler, which lets a trace go on. And
// limits on the size of a message do not apply: who reads from outside sets them.
//
// A unary handler runs on its caller's goroutine, because starting another one
// would be most of the cost of a call. It therefore returns when the handler
// does; handlers must watch their context, as they must behind a socket.
//
// The package inprocgrpc of github.com/fullstorydev/grpchan has the same
// purpose. It was measured at 5 µs and 20 allocations for the smallest unary
// call, against half a microsecond and 10 here, and brings a protobuf code
// generator and the superseded protobuf module with it.
package inprocess

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Conn carries calls to the services registered on it. It is safe for
// concurrent use once all services are registered.
type Conn struct {
	unary   grpc.UnaryServerInterceptor
	stream  grpc.StreamServerInterceptor
	methods map[string]method
}

// method is one callable method: either unary or stream is set.
type method struct {
	service any
	unary   grpc.MethodHandler
	stream  *grpc.StreamDesc
}

var (
	_ grpc.ClientConnInterface = (*Conn)(nil)
	_ grpc.ServiceRegistrar    = (*Conn)(nil)
)

// New returns a connection without services. The interceptors wrap every
// handler; the first is the outermost.
func New(unary []grpc.UnaryServerInterceptor, stream []grpc.StreamServerInterceptor) *Conn {
	return &Conn{
		unary:   chainUnary(unary),
		stream:  chainStream(stream),
		methods: make(map[string]method),
	}
}

// RegisterService makes a service callable. All services are registered before
// the first call. Like grpc.Server, it treats a second registration of the same
// service as a mistake in the program: it panics.
func (c *Conn) RegisterService(desc *grpc.ServiceDesc, service any) {
	add := func(name string, m method) {
		full := "/" + desc.ServiceName + "/" + name
		if _, ok := c.methods[full]; ok {
			panic(fmt.Sprintf("inprocess: service %s is registered twice", desc.ServiceName))
		}
		c.methods[full] = m
	}
	for i := range desc.Methods {
		add(desc.Methods[i].MethodName, method{service: service, unary: desc.Methods[i].Handler})
	}
	for i := range desc.Streams {
		add(desc.Streams[i].StreamName, method{service: service, stream: &desc.Streams[i]})
	}
}

// Invoke performs a unary call. Of the call options it honours grpc.Header,
// grpc.Trailer, grpc.Peer and grpc.OnFinish; the others concern a transport,
// which there is none of.
func (c *Conn) Invoke(ctx context.Context, fullMethod string, args, reply any, opts ...grpc.CallOption) error {
	call := transportStream{method: fullMethod}
	err := c.invoke(ctx, &call, args, reply)
	call.report(err, opts)
	return err
}

// InvokeShared performs a unary call as Invoke does, and returns the message of the handler itself
// instead of a copy. The handler may keep it or give it to others as well: it is to be read only.
func (c *Conn) InvokeShared(ctx context.Context, fullMethod string, args any) (reply any, err error) {
	return c.call(ctx, &transportStream{method: fullMethod}, args)
}

func (c *Conn) invoke(ctx context.Context, call *transportStream, args, reply any) error {
	result, err := c.call(ctx, call, args)
	if err != nil {
		return err
	}
	return copyMessage(reply, result)
}

// call returns what the handler returns, with the error that a client gets.
func (c *Conn) call(ctx context.Context, call *transportStream, args any) (any, error) {
	m, ok := c.methods[call.method]
	if !ok || m.unary == nil {
		return nil, unimplemented(call.method)
	}
	if err := ctx.Err(); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	result, err := m.unary(m.service, serverContext(ctx, call), func(in any) error { return copyMessage(in, args) }, c.unary)
	if err != nil {
		return nil, statusError(ctx, err)
	}
	return result, nil
}

// serverContext is what the handler runs in: the caller's context, with
// metadata, peer and transport as on the far side of a socket.
func serverContext(ctx context.Context, call *transportStream) context.Context {
	sent, ok := metadata.FromOutgoingContext(ctx)
	if ok {
		// The handler's own calls must not carry its caller's metadata along.
		ctx = metadata.NewOutgoingContext(ctx, nil)
	}
	if _, received := metadata.FromIncomingContext(ctx); ok || received {
		ctx = metadata.NewIncomingContext(ctx, sent)
	}
	ctx = peer.NewContext(ctx, &self)
	return grpc.NewContextWithServerTransportStream(ctx, call)
}

// copyMessage makes dst equal to src.
func copyMessage(dst, src any) error {
	to, ok := dst.(proto.Message)
	if !ok {
		return status.Errorf(codes.Internal, "message of type %T is not a protobuf message", dst)
	}
	from, ok := src.(proto.Message)
	if !ok {
		return status.Errorf(codes.Internal, "message of type %T is not a protobuf message", src)
	}
	if to.ProtoReflect().Descriptor() != from.ProtoReflect().Descriptor() {
		return status.Errorf(codes.Internal, "message of type %T where %T is expected", src, dst)
	}
	proto.Reset(to)
	proto.Merge(to, from)
	return nil
}

// statusError turns what a handler returned into what a client over a socket
// would get. A caller whose time is over hears that, whatever the handler says.
func statusError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	if s, ok := status.FromError(err); ok {
		return s.Err()
	}
	return status.FromContextError(err).Err()
}

func unimplemented(fullMethod string) error {
	return status.Errorf(codes.Unimplemented, "unknown method %s", fullMethod)
}

func chainUnary(interceptors []grpc.UnaryServerInterceptor) grpc.UnaryServerInterceptor {
	if len(interceptors) <= 1 {
		return only(interceptors)
	}
	first, rest := interceptors[0], chainUnary(interceptors[1:])
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		return first(ctx, req, info, func(ctx context.Context, req any) (any, error) {
			return rest(ctx, req, info, handler)
		})
	}
}

func chainStream(interceptors []grpc.StreamServerInterceptor) grpc.StreamServerInterceptor {
	if len(interceptors) <= 1 {
		return only(interceptors)
	}
	first, rest := interceptors[0], chainStream(interceptors[1:])
	return func(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return first(service, stream, info, func(service any, stream grpc.ServerStream) error {
			return rest(service, stream, info, handler)
		})
	}
}

func only[T any](list []T) (one T) {
	if len(list) == 1 {
		one = list[0]
	}
	return one
}

// self is the peer that handlers and clients see.
var self = peer.Peer{Addr: address{}, LocalAddr: address{}}

type address struct{}

var _ net.Addr = address{}

func (address) Network() string { return "inprocess" }
func (address) String() string  { return "inprocess" }
