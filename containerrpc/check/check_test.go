// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"context"
	"encoding/binary"
	"fmt"
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
				done <- container.Run(ctx, container.Config{Address: address, MaxMessageBytes: 8 << 20}, echo{&clipperv1.DescribeResponse{
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
			for _, name := range append(tc.passed, "batch of one", "same answer in every batch", "ids", "batches in flight", "deadline", "large messages", "reconnect") {
				require.Equal(t, check.Passed, results[name].Status, results[name])
			}
			if invalid := results["invalid requests"]; name == "any" {
				require.Equal(t, check.Skipped, invalid.Status)
				require.Contains(t, invalid.Message, "a request without the input or of another type may be right")
			} else {
				require.Equal(t, check.Passed, invalid.Status, invalid)
			}
		})
	}
}

// strict behaves as told, and refuses what breaks the contract or the signature of float32 or text, so that
// only what a test changes is wrong.
func strict(then containertest.Behavior) containertest.Behavior { return strictly(f32, 0, then) }

// strictly is strict for elements of a type, and for at most so many rows; 0: any number.
func strictly(dt clipperv1.DataType, most int, then containertest.Behavior) containertest.Behavior {
	return func(c *containertest.Call) {
		r := c.Request
		good := r.Rows > 0 && len(r.Inputs) == 1 && r.Inputs[0].DataType == dt && (most == 0 || int(r.Rows) <= most)
		if good {
			elements := 0
			for i := range int(r.Rows) {
				shape := r.Inputs[0].Shape
				if len(r.Inputs[0].RowShapes) > 0 {
					shape = r.Inputs[0].RowShapes[i].Dims
				}
				n := 1
				for _, d := range shape {
					n *= int(d)
				}
				elements += n
			}
			good = elements == len(r.Inputs[0].Data)/4+len(r.Inputs[0].Strings)
		}
		if !good {
			refuse(c, "invalid")
			return
		}
		then(c)
	}
}

func refuse(c *containertest.Call, message string) {
	containertest.FailBatch(codes.InvalidArgument, message)(c)
}

// once calls first with the first batch, and behaves then.
func once(first func(*containertest.Call), then containertest.Behavior) containertest.Behavior {
	var do sync.Once
	return func(c *containertest.Call) {
		do.Do(func() { first(c) })
		then(c)
	}
}

// meanwhile tells when batches are being predicted, each for 50 ms, and when none is any more.
func meanwhile(tell func(busy bool)) containertest.Behavior {
	var mu sync.Mutex
	under := 0
	count := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		under += n
		tell(under > 0)
	}
	return func(c *containertest.Call) {
		count(1)
		containertest.Slow(50*time.Millisecond, func(*containertest.Call) {})(c)
		count(-1)
		containertest.Echo(c)
	}
}

// mixed gives each of two batches of a stream that are under way at once the answer of the other.
func mixed() containertest.Behavior {
	var mu sync.Mutex
	var held *containertest.Call
	return func(c *containertest.Call) {
		mu.Lock()
		if other := held; other != nil && other.Context() == c.Context() && other.Request.Rows == c.Request.Rows {
			held = nil
			mu.Unlock()
			c.Send(&clipperv1.PredictResponse{Id: c.Request.Id, Outputs: other.Request.Inputs})
			c.Send(&clipperv1.PredictResponse{Id: other.Request.Id, Outputs: c.Request.Inputs})
			return
		}
		held = c
		mu.Unlock()
		select { // Until another is under way with it.
		case <-time.After(20 * time.Millisecond):
		case <-c.Context().Done():
		}
		mu.Lock()
		alone := held == c
		if alone {
			held = nil
		}
		mu.Unlock()
		if alone {
			containertest.Echo(c)
		}
	}
}

// hangsWhenCancelled computes one batch after the other, each in proportion to its rows, and answers none
// any more when the caller of one has gone meanwhile.
func hangsWhenCancelled() containertest.Behavior {
	turn := make(chan struct{}, 1)
	return func(c *containertest.Call) {
		select {
		case turn <- struct{}{}:
		case <-c.Context().Done():
			return
		}
		select {
		case <-c.Context().Done():
			return // The turn is never given back.
		case <-time.After(time.Duration(c.Request.Rows) * time.Millisecond):
		}
		<-turn
		containertest.Echo(c)
	}
}

// oneStream ends every stream beside the one that it began with, while that is open.
func oneStream() containertest.Behavior {
	var mu sync.Mutex
	owner := context.Context(nil)
	return func(c *containertest.Call) {
		mu.Lock()
		defer mu.Unlock()
		if owner != nil && owner != c.Context() {
			select {
			case <-owner.Done():
			case <-time.After(100 * time.Millisecond): // A stream that has ended is known to have, by then.
				c.Break(codes.Unavailable, "one caller at a time")
				return
			}
		}
		owner = c.Context()
		containertest.Echo(c)
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
	vectors := func(d *clipperv1.DescribeResponse) { d.Signature.Inputs[0].Shape[0] = -1 }
	text := func(d *clipperv1.DescribeResponse) {
		d.Signature.Inputs[0].DataType, d.Signature.Inputs[0].Shape = clipperv1.DataType_DATA_TYPE_STRING, nil
	}
	strictText := func(then containertest.Behavior) containertest.Behavior {
		return strictly(clipperv1.DataType_DATA_TYPE_STRING, 0, then)
	}
	var running *containertest.Container
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
		"mixes batches up":       {strict(mixed()), nil, "batches in flight", check.Failed, "the answer of another one"},
		"rows of one shape": {strict(func(c *containertest.Call) {
			if len(c.Request.Inputs[0].RowShapes) > 0 {
				refuse(c, "shapes differ")
				return
			}
			containertest.Echo(c)
		}), vectors, "rows of different shapes", check.Failed, "answered alone, but not in one batch"},
		"rows cut wrongly": {changed(func(q *clipperv1.PredictRequest, r *clipperv1.PredictResponse) {
			slices.Reverse(r.Outputs[0].RowShapes)
		}), vectors, "rows of different shapes", check.Failed, "cut the elements by row_shapes"},
		"text ends the stream": {strictText(func(c *containertest.Call) {
			if slices.Contains(c.Request.Inputs[0].Strings, "") {
				c.Break(codes.Internal, "no words")
				return
			}
			containertest.Echo(c)
		}), text, "unusual text", check.Failed, "ended the stream with Internal (no words)"},
		"text fails the batch": {strictText(func(c *containertest.Call) {
			if slices.ContainsFunc(c.Request.Inputs[0].Strings, func(s string) bool { return len(s) > 1000 }) {
				refuse(c, "too long")
				return
			}
			containertest.Echo(c)
		}), text, "unusual text", check.Warned, `failed the whole batch ("too long")`},
		"gRPC's own limit": {strict(func(c *containertest.Call) {
			if proto.Size(c.Request) > 4<<20 {
				c.Break(codes.ResourceExhausted, "larger than max")
				return
			}
			containertest.Echo(c)
		}), nil, "large messages", check.Failed, "raise what the server receives"},
		"dies of a large message": {strict(func(c *containertest.Call) {
			if proto.Size(c.Request) > 1<<20 {
				containertest.Die(c)
				return
			}
			containertest.Echo(c)
		}), func(d *clipperv1.DescribeResponse) { d.MaxMessageBytes = 1 << 20 }, "large messages", check.Failed, "after a message above max_message_bytes"},
		"no health while busy":       {strict(once(func(*containertest.Call) { running.SetHanging(true) }, containertest.Echo)), nil, "health while busy", check.Failed, "Answer health checks on a thread of their own"},
		"not serving while busy":     {strict(once(func(*containertest.Call) { running.SetServing(false) }, containertest.Echo)), nil, "health while busy", check.Failed, "a container that can predict is SERVING"},
		"not serving during a batch": {strict(meanwhile(func(busy bool) { running.SetServing(!busy) })), nil, "health while busy", check.Failed, "a container that can predict is SERVING"},
		"hangs when cancelled": {
			strictly(f32, 40, hangsWhenCancelled()), func(d *clipperv1.DescribeResponse) { d.MaxBatchRows = 40 },
			"cancellation", check.Failed, "after streams that the caller cancelled: no answer",
		},
		"one stream": {strict(oneStream()), nil, "reconnect", check.Failed, "with two streams open"},
	} {
		t.Run(name, func(t *testing.T) {
			d := right()
			if tc.describe != nil {
				tc.describe(d)
			}
			c := containertest.Start(t, tc.behavior)
			c.SetDescription(d)
			running = c
			good, results := checked(t, c.Address(), check.Options{Timeout: 2 * time.Second})
			r := results[tc.check]
			require.Equal(t, tc.status, r.Status, "%+v", results)
			require.Contains(t, r.Message, tc.message)
			require.Equal(t, tc.status != check.Failed, good, "%+v", results)
		})
	}
}

// TestRun_slowModel: it is asked for health during batches of few rows, and not of all that it takes.
func TestRun_slowModel(t *testing.T) {
	c := containertest.Start(t, containertest.Linear(0, 60*time.Millisecond))
	c.SetDescription(&clipperv1.DescribeResponse{MaxBatchRows: 8})
	_, results := checked(t, c.Address(), check.Options{})
	r := results["health while busy"]
	require.Equal(t, check.Passed, r.Status, r)
	var asked, batches, rows int
	_, err := fmt.Sscanf(r.Message, "answered %d times while %d batches of %d rows were predicted", &asked, &batches, &rows)
	require.NoError(t, err, r.Message)
	require.LessOrEqual(t, rows, 3)
	require.GreaterOrEqual(t, asked, batches)
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
