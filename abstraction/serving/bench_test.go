// SPDX-License-Identifier: Apache-2.0

package serving_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
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
			for _, cache := range []string{"off", "misses", "hits"} {
				b.Run(fmt.Sprintf("bytes=%d/callers=%d/cache=%s", size, callers, cache), func(b *testing.B) {
					benchmark(b, size, callers, cache)
				})
			}
		}
	}
}

func benchmark(b *testing.B, size, callers int, cache string) {
	l, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- container.Serve(ctx, container.Config{}, l, noop{}) }()
	h := start(b, serving.Config{Cache: &clipperv1.Cache{Disabled: cache == "off"}})
	h.Connect("a", "unix:"+l.Addr().String())
	h.await("a", clipperv1.ReplicaState_REPLICA_STATE_READY)

	var left atomic.Int64
	left.Store(int64(b.N))
	finished := make(chan struct{}, callers)
	b.ReportAllocs()
	b.ResetTimer()
	before := processorTime(b)
	for i := range callers {
		c := &caller{h: h, left: &left, finished: finished, data: make([]byte, size), again: cache == "hits"}
		binary.LittleEndian.PutUint64(c.data, uint64(i)) // Not coalesced.
		c.next()
	}
	for range callers {
		<-finished
	}
	b.StopTimer()
	b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op")
	h.Close(b.Context())
	cancel()
	require.NoError(b, <-done)
}

// processorTime is what the process has used, which says more than the clock when others use the
// machine too.
func processorTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// caller asks again when it is answered.
type caller struct {
	h        *harness
	data     []byte // of the input; its first 8 bytes are a number
	again    bool   // asks about the same input again, and about a new one otherwise
	left     *atomic.Int64
	finished chan<- struct{}
}

func (c *caller) next() {
	left := c.left.Add(-1)
	if left < 0 {
		c.finished <- struct{}{}
		return
	}
	if !c.again {
		c.data = slices.Clone(c.data)
		binary.LittleEndian.PutUint64(c.data, uint64(left)<<32|binary.LittleEndian.Uint64(c.data)&math.MaxUint32)
	}
	c.h.Submit(&prediction.Request{
		Context: context.Background(), Input: tensor.FromTensors([]*clipperv1.Tensor{{
			DataType: clipperv1.DataType_DATA_TYPE_UINT8, Shape: []int64{int64(len(c.data))}, Data: c.data,
		}}),
		Deadline: time.Now().Add(time.Minute), Receiver: c,
	})
}

func (c *caller) Receive(_ int, r prediction.Result) {
	if r.Err != nil {
		panic(r.Err)
	}
	c.next()
}
