// SPDX-License-Identifier: Apache-2.0

package serving_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/abstraction/prediction"
	"github.com/clipper-serving/clipper/abstraction/serving"
	container "github.com/clipper-serving/clipper/containerrpc/go"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// noop answers one byte to every row.
type noop struct{}

func (noop) Describe() *clipperv1.DescribeResponse { return &clipperv1.DescribeResponse{} }

func (noop) Predict(_ context.Context, b *container.Batch) (*container.Result, error) {
	return &container.Result{Outputs: []*clipperv1.BatchTensor{{DataType: clipperv1.DataType_DATA_TYPE_UINT8, Data: make([]byte, b.Rows)}}}, nil
}

// BenchmarkVersion is a query's whole way through the layer to a no-op container behind a unix
// socket in the same process and back, by a number of callers who each wait for their answer.
func BenchmarkVersion(b *testing.B) {
	for _, size := range []int{64, 3136} {
		for _, callers := range []int{1, 64, 1024} {
			for _, cached := range []bool{false, true} {
				b.Run(fmt.Sprintf("bytes=%d/callers=%d/cache=%v", size, callers, cached), func(b *testing.B) {
					benchmark(b, size, callers, cached)
				})
			}
		}
	}
}

func benchmark(b *testing.B, size, callers int, cached bool) {
	l, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- container.Serve(ctx, container.Config{}, l, noop{}) }()
	h := start(b, serving.Config{Cache: &clipperv1.Cache{Disabled: !cached}})
	h.Connect("a", "unix:"+l.Addr().String())
	h.await("a", clipperv1.ReplicaState_REPLICA_STATE_READY)

	var left atomic.Int64
	left.Store(int64(b.N))
	finished := make(chan struct{}, callers)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range callers {
		c := &caller{h: h, left: &left, finished: finished, tensor: clipperv1.Tensor{DataType: clipperv1.DataType_DATA_TYPE_UINT8, Shape: []int64{int64(size)}, Data: make([]byte, size)}}
		c.tensor.Data[0], c.tensor.Data[1] = byte(i), byte(i>>8) // Not coalesced.
		c.next()
	}
	for range callers {
		<-finished
	}
	b.StopTimer()
	h.Close(b.Context())
	cancel()
	require.NoError(b, <-done)
}

// caller asks again when it is answered.
type caller struct {
	h        *harness
	tensor   clipperv1.Tensor
	left     *atomic.Int64
	finished chan<- struct{}
}

func (c *caller) next() {
	if c.left.Add(-1) < 0 {
		c.finished <- struct{}{}
		return
	}
	c.h.Submit(&prediction.Request{
		Context: context.Background(), Input: tensor.FromTensors([]*clipperv1.Tensor{&c.tensor}),
		Deadline: time.Now().Add(time.Minute), Receiver: c,
	})
}

func (c *caller) Receive(_ int, r prediction.Result) {
	if r.Err != nil {
		panic(r.Err)
	}
	c.next()
}
