// SPDX-License-Identifier: Apache-2.0

// Package exchange carries calls between two services on one long-lived gRPC stream. Whatever is
// waiting when the writer becomes free goes out in one message, with no delay added: under load a
// call costs a fraction of a unary RPC, and a lone call is sent at once.
//
// A Client waits for a server that is not there yet, reconnects when the stream breaks, and sends
// calls that may be repeated again. A Server runs each call in a goroutine of its own, under the
// caller's deadline, and drains without losing a reply.
package exchange

import (
	"sync"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/clipper-serving/clipper/internal/apierror"
)

// maxMessageBytes is where one message ends and the next begins. It keeps well below
// MaxReceiveBytes, so that one more call of the largest size still fits.
const maxMessageBytes = 1 << 20

// MaxReceiveBytes is the largest message that either side accepts.
const MaxReceiveBytes = 256 << 20

// windowBytes is what a server may send ahead. A fixed window spares the pings and window updates by
// which gRPC would otherwise measure the connection at every message.
const windowBytes = 16 << 20

// DialOptions returns the options that a connection for exchanges needs: messages as large as the
// server takes, reconnection within a second, and a probe that finds a peer that is gone silently.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxReceiveBytes), grpc.MaxCallSendMsgSize(MaxReceiveBytes)),
		grpc.WithInitialWindowSize(windowBytes),
		grpc.WithInitialConnWindowSize(windowBytes),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: minBackoff, Multiplier: 2, Jitter: 0.2, MaxDelay: maxBackoff},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
	}
}

// outbox gathers items until the writer takes them. Safe for concurrent use.
type outbox[T any] struct {
	mu     sync.Mutex
	items  []T
	wake   chan struct{}
	sizeOf func(T) int
}

func newOutbox[T any](sizeOf func(T) int) *outbox[T] {
	return &outbox[T]{wake: make(chan struct{}, 1), sizeOf: sizeOf}
}

// put adds an item and wakes the writer.
func (o *outbox[T]) put(item T) {
	o.mu.Lock()
	o.items = append(o.items, item)
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// take moves waiting items into dst, up to the size of one message, at least one if any waits.
func (o *outbox[T]) take(dst []T) []T {
	dst = dst[:0]
	o.mu.Lock()
	defer o.mu.Unlock()
	size, n := 0, 0
	for n < len(o.items) && (n == 0 || size < maxMessageBytes) {
		size += o.sizeOf(o.items[n])
		n++
	}
	dst = append(dst, o.items[:n]...)
	rest := copy(o.items, o.items[n:])
	clear(o.items[rest:])
	o.items = o.items[:rest]
	return dst
}

// encodeStatus returns err as an encoded google.rpc.Status.
func encodeStatus(err error) []byte {
	b, marshalErr := proto.Marshal(status.Convert(apierror.From(err)).Proto())
	if marshalErr != nil { // A detail that is not valid UTF-8; the code and the message still are.
		b, _ = proto.Marshal(&spb.Status{Code: int32(status.Code(err))})
	}
	return b
}

// decodeStatus is the inverse of encodeStatus.
func decodeStatus(b []byte) error {
	var st spb.Status
	if err := proto.Unmarshal(b, &st); err != nil {
		return apierror.From(err)
	}
	return status.ErrorProto(&st)
}
