// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"context"
	"encoding/binary"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/clipper-serving/clipper/containerrpc/check"
	"github.com/clipper-serving/clipper/containerrpc/containertest"
	container "github.com/clipper-serving/clipper/containerrpc/go"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const f32 = clipperv1.DataType_DATA_TYPE_FLOAT32

// echo answers each row with itself, through the Go runtime.
type echo struct{ description *clipperv1.DescribeResponse }

func (e echo) Describe() *clipperv1.DescribeResponse { return e.description }

func (echo) Predict(_ context.Context, b *container.Batch) (*container.Result, error) {
	return &container.Result{Outputs: b.Inputs}, nil
}

// checked returns the results of a check by name.
func checked(t *testing.T, address string, o check.Options) (bool, map[string]check.Result) {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	results := map[string]check.Result{}
	good, err := check.Run(t.Context(), address, o, func(r check.Result) { results[r.Name] = r })
	require.NoError(t, err)
	return good, results
}

// TestRun_rightContainers: containers of the Go runtime with signatures of all kinds pass.
func TestRun_rightContainers(t *testing.T) {
	spec := func(dt clipperv1.DataType, shape ...int64) *clipperv1.TensorSpec {
		return &clipperv1.TensorSpec{DataType: dt, Shape: shape}
	}
	named := func(name string, s *clipperv1.TensorSpec) *clipperv1.TensorSpec {
		s.Name = name
		return s
	}
	for name, tc := range map[string]struct {
		inputs []*clipperv1.TensorSpec
		rows   uint32
		passed []string // beside those that always are
	}{
		"any":      {nil, 0, nil},
		"floats":   {[]*clipperv1.TensorSpec{spec(f32, 3)}, 8, nil},
		"halves":   {[]*clipperv1.TensorSpec{spec(clipperv1.DataType_DATA_TYPE_FLOAT16, 2)}, 1, nil},
		"integers": {[]*clipperv1.TensorSpec{spec(clipperv1.DataType_DATA_TYPE_INT16)}, 0, nil},
		"ragged":   {[]*clipperv1.TensorSpec{spec(f32, -1, 2)}, 0, []string{"rows of different shapes"}},
		"text":     {[]*clipperv1.TensorSpec{spec(clipperv1.DataType_DATA_TYPE_STRING)}, 0, []string{"unusual text"}},
		"several":  {[]*clipperv1.TensorSpec{named("a", spec(f32, 2)), named("b", spec(clipperv1.DataType_DATA_TYPE_BYTES))}, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			address := "unix:" + filepath.Join(t.TempDir(), "s")
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				done <- container.Run(ctx, container.Config{Address: address}, echo{&clipperv1.DescribeResponse{
					Signature: &clipperv1.Signature{Inputs: tc.inputs, Outputs: tc.inputs}, MaxBatchRows: tc.rows,
				}})
			}()
			good, results := checked(t, address, check.Options{})
			stop()
			require.NoError(t, <-done)
			for _, r := range results {
				require.NotEqual(t, check.Failed, r.Status, r)
			}
			require.True(t, good)
			for _, name := range append(tc.passed, "batch of one", "same answer in every batch", "invalid requests", "ids", "batches in flight", "deadline", "large messages", "reconnect") {
				require.Equal(t, check.Passed, results[name].Status, results[name])
			}
		})
	}
}

// strict answers like Echo, and refuses what breaks the contract, so that only what a test changes is
// wrong.
func strict(then containertest.Behavior) containertest.Behavior {
	return func(c *containertest.Call) {
		r := c.Request
		if r.Rows == 0 || len(r.Inputs) != 1 || r.Inputs[0].DataType != f32 || len(r.Inputs[0].Data) != int(r.Rows)*8 {
			c.Send(&clipperv1.PredictResponse{Id: r.Id, Error: &clipperv1.Error{Code: uint32(codes.InvalidArgument), Message: "invalid"}})
			return
		}
		then(c)
	}
}

// changed answers with an echo that is changed first.
func changed(change func(*clipperv1.PredictRequest, *clipperv1.PredictResponse)) containertest.Behavior {
	return strict(func(c *containertest.Call) {
		resp := proto.CloneOf(containertest.EchoOf(c.Request))
		change(c.Request, resp)
		c.Send(resp)
	})
}

// TestRun_wrongContainers: each breaks one rule, and the check names it.
func TestRun_wrongContainers(t *testing.T) {
	right := func() *clipperv1.DescribeResponse {
		pair := []*clipperv1.TensorSpec{{DataType: f32, Shape: []int64{2}}}
		return &clipperv1.DescribeResponse{Signature: &clipperv1.Signature{Inputs: pair, Outputs: pair}}
	}
	var mu sync.Mutex
	first := map[string]bool{}
	for name, tc := range map[string]struct {
		behavior containertest.Behavior
		describe func(*clipperv1.DescribeResponse)
		check    string
		status   check.Status
		message  string
	}{
		"type that does not exist": {containertest.Echo, func(d *clipperv1.DescribeResponse) { d.Signature.Inputs[0].DataType = 99 }, "description", check.Failed, "does not exist"},
		"dimension of -2":          {containertest.Echo, func(d *clipperv1.DescribeResponse) { d.Signature.Inputs[0].Shape[0] = -2 }, "description", check.Failed, "or -1 for any"},
		"names": {containertest.Echo, func(d *clipperv1.DescribeResponse) {
			d.Signature.Inputs = append(d.Signature.Inputs, d.Signature.Inputs[0])
		}, "description", check.Failed, "name of its own"},
		"never answers":   {containertest.Never, nil, "batch of one", check.Failed, "no answer within"},
		"wrong rows":      {containertest.WrongRows, nil, "batch of one", check.Failed, "cannot be used"},
		"unknown id":      {containertest.UnknownID, nil, "batch of one", check.Failed, "copy the request's id"},
		"refuses":         {containertest.FailBatch(codes.Unknown, "I want more"), nil, "batch of one", check.Failed, `"I want more". Give a real input with --sample`},
		"ends the stream": {func(c *containertest.Call) { c.Break(codes.Internal, "oops") }, nil, "batch of one", check.Failed, "ended the stream with Internal (oops)"},
		"only one row": {strict(func(c *containertest.Call) {
			if c.Request.Rows > 1 {
				containertest.FailBatch(codes.Unknown, "one, please")(c)
				return
			}
			containertest.Echo(c)
		}), nil, "batches of many", check.Failed, "one, please"},
		"order": {changed(func(_ *clipperv1.PredictRequest, r *clipperv1.PredictResponse) {
			data := r.Outputs[0].Data
			rows := slices.Collect(slices.Chunk(slices.Clone(data), 8))
			slices.Reverse(rows)
			r.Outputs[0].Data = slices.Concat(rows...)
		}), nil, "same answer in every batch", check.Failed, "answer of another row"},
		"depends on the batch": {changed(func(q *clipperv1.PredictRequest, r *clipperv1.PredictResponse) {
			binary.LittleEndian.PutUint32(r.Outputs[0].Data, math.Float32bits(100+float32(q.Rows)))
		}), nil, "same answer in every batch", check.Failed, "must not depend on the other rows"},
		"random": {strict(func(c *containertest.Call) {
			resp := proto.CloneOf(containertest.EchoOf(c.Request))
			binary.LittleEndian.PutUint32(resp.Outputs[0].Data, math.Float32bits(float32(c.Number)))
			c.Send(resp)
		}), nil, "same answer in every batch", check.Warned, "answered differently the second time"},
		"lenient": {containertest.Echo, nil, "invalid requests", check.Failed, "answered as if it were right"},
		"invalid ends the stream": {func(c *containertest.Call) {
			if len(c.Request.Inputs) == 0 {
				c.Break(codes.InvalidArgument, "no input")
				return
			}
			strict(containertest.Echo)(c)
		}, nil, "invalid requests", check.Failed, "without the input: the container ended the stream"},
		"one bad row fails all": {strict(func(c *containertest.Call) {
			for at := 0; at < len(c.Request.Inputs[0].Data); at += 4 {
				if x := math.Float32frombits(binary.LittleEndian.Uint32(c.Request.Inputs[0].Data[at:])); x != x {
					containertest.FailBatch(codes.Unknown, "NaN")(c)
					return
				}
			}
			containertest.Echo(c)
		}), nil, "a row that fails", check.Warned, "give row_errors"},
		"twice": {strict(containertest.Twice), nil, "batch of one", check.Failed, "answered twice"},
		"overflow": {changed(func(q *clipperv1.PredictRequest, r *clipperv1.PredictResponse) {
			if int64(q.TimeoutMicros) < 0 {
				r.Outputs, r.Error = nil, &clipperv1.Error{Code: uint32(codes.DeadlineExceeded), Message: "late"}
			}
		}), nil, "deadline", check.Failed, "largest timeout_micros"},
		"limit that is not kept": {strict(containertest.Echo), func(d *clipperv1.DescribeResponse) { d.MaxBatchRows = 4 }, "large batches", check.Failed, "although max_batch_rows is 4"},
		"mixes batches up": {strict(func(c *containertest.Call) { // The second of two that follow each other has the first one's answer.
			mu.Lock()
			mixed := c.Request.Id == 1 && c.Request.Rows == 1 && first["seen 0"]
			first["seen 0"] = c.Request.Id == 0
			mu.Unlock()
			resp := proto.CloneOf(containertest.EchoOf(c.Request))
			if mixed && c.Request.TimeoutMicros == 0 && c.Number > 12 {
				binary.LittleEndian.PutUint32(resp.Outputs[0].Data, math.Float32bits(42))
			}
			c.Send(resp)
		}), nil, "batches in flight", check.Failed, "the answer of another one"},
	} {
		t.Run(name, func(t *testing.T) {
			d := right()
			if tc.describe != nil {
				tc.describe(d)
			}
			c := containertest.Start(t, tc.behavior)
			c.SetDescription(d)
			good, results := checked(t, c.Address(), check.Options{Timeout: 500 * time.Millisecond})
			r := results[tc.check]
			require.Equal(t, tc.status, r.Status, "%+v", results)
			require.Contains(t, r.Message, tc.message)
			require.Equal(t, tc.status != check.Failed, good, "%+v", results)
		})
	}
}

func TestRun_health(t *testing.T) {
	c := containertest.Start(t, containertest.Echo)
	c.SetServing(false)
	good, results := checked(t, c.Address(), check.Options{Timeout: 200 * time.Millisecond})
	require.False(t, good)
	require.Contains(t, results["health"].Message, "not SERVING within")
}

func TestRun_nothingThere(t *testing.T) {
	good, results := checked(t, "unix:"+filepath.Join(t.TempDir(), "none"), check.Options{Timeout: 100 * time.Millisecond})
	require.False(t, good)
	require.Contains(t, results["reachable"].Message, "is it running")
	require.Equal(t, check.Skipped, results["drain"].Status)
}

func TestRun_sampleThatDoesNotFit(t *testing.T) {
	c := containertest.Start(t, containertest.Echo)
	c.SetDescription(&clipperv1.DescribeResponse{Signature: &clipperv1.Signature{Inputs: []*clipperv1.TensorSpec{{DataType: f32, Shape: []int64{2}}}}})
	good, results := checked(t, c.Address(), check.Options{Samples: [][]byte{[]byte(`[1, 2, 3]`)}})
	require.False(t, good)
	require.Contains(t, results["description"].Message, "does not fit the signature")
}
