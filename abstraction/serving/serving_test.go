// SPDX-License-Identifier: Apache-2.0

package serving_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"

	"github.com/clipper-serving/clipper/abstraction/cache"
	"github.com/clipper-serving/clipper/abstraction/metrics"
	"github.com/clipper-serving/clipper/abstraction/prediction"
	"github.com/clipper-serving/clipper/abstraction/serving"
	"github.com/clipper-serving/clipper/containerrpc/containertest"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ok          = clipperv1.PredictionStatus_PREDICTION_STATUS_OK
	failed      = clipperv1.PredictionStatus_PREDICTION_STATUS_FAILED
	deadline    = clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE
	noReplica   = clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA
	overloaded  = clipperv1.PredictionStatus_PREDICTION_STATUS_OVERLOADED
	unavailable = clipperv1.PredictionStatus_PREDICTION_STATUS_UNAVAILABLE
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

type harness struct {
	*serving.Version
	t       testing.TB
	changes chan struct{}
	cache   *cache.Cache
	metrics *prometheus.Registry
}

func start(t testing.TB, cfg serving.Config) *harness {
	t.Helper()
	h := &harness{t: t, changes: make(chan struct{}, 1), metrics: prometheus.NewRegistry()}
	m, err := metrics.New(h.metrics)
	require.NoError(t, err)
	h.cache, err = cache.New(1 << 20)
	require.NoError(t, err)
	t.Cleanup(h.cache.Close)
	cfg.Model, cfg.Version = "m", "1"
	if cfg.WarmUp == nil { // Most tests count what comes.
		cfg.WarmUp = &clipperv1.WarmUp{Disabled: true}
	}
	cfg.OnChange = func() {
		select {
		case h.changes <- struct{}{}:
		default:
		}
	}
	h.Version, err = serving.New(cfg, serving.Deps{Cache: h.cache, Metrics: m, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		h.Close(ctx)
	})
	return h
}

// await waits until a replica has the state.
func (h *harness) await(id string, state clipperv1.ReplicaState) *clipperv1.Replica {
	h.t.Helper()
	timeout := time.After(patience)
	for {
		for _, r := range h.Replicas() {
			if r.Id == id && r.State == state {
				return r
			}
		}
		select {
		case <-h.changes:
		case <-timeout:
			require.FailNow(h.t, "replica did not reach the state", "%v: %v", state, h.Replicas())
		}
	}
}

func (h *harness) connect(id string, c *containertest.Container) {
	h.t.Helper()
	h.Connect(id, c.Address())
	h.await(id, clipperv1.ReplicaState_REPLICA_STATE_READY)
}

func row(values ...byte) *tensor.Input {
	return tensor.FromTensors([]*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_UINT8, Shape: []int64{int64(len(values))}, Data: values}})
}

// answers collects results and fails the test when a request gets two.
type answers struct {
	t       testing.TB
	mu      sync.Mutex
	results map[int]prediction.Result
	more    chan struct{}
}

func newAnswers(t testing.TB) *answers {
	return &answers{t: t, results: map[int]prediction.Result{}, more: make(chan struct{}, 1)}
}

func (a *answers) Receive(tag int, r prediction.Result) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, twice := a.results[tag]; twice {
		a.t.Errorf("request %d was answered twice", tag)
	}
	a.results[tag] = r
	select {
	case a.more <- struct{}{}:
	default:
	}
}

// wait returns the results when there are n.
func (a *answers) wait(n int) map[int]prediction.Result {
	a.t.Helper()
	timeout := time.After(patience)
	for {
		a.mu.Lock()
		have := len(a.results)
		a.mu.Unlock()
		if have >= n {
			return a.results
		}
		select {
		case <-a.more:
		case <-timeout:
			require.FailNow(a.t, "requests were not answered", "%d of %d", have, n)
		}
	}
}

func (h *harness) submit(a *answers, tag int, in *tensor.Input, budget time.Duration) {
	h.Submit(&prediction.Request{Context: h.t.Context(), Input: in, Deadline: time.Now().Add(budget), Receiver: a, Tag: tag})
}

// ask submits one request and returns its result.
func (h *harness) ask(in *tensor.Input, budget time.Duration) prediction.Result {
	h.t.Helper()
	a := newAnswers(h.t)
	h.submit(a, 0, in, budget)
	return a.wait(1)[0]
}

func status(r prediction.Result) clipperv1.PredictionStatus {
	if r.Err == nil {
		return ok
	}
	return r.Err.Status
}

func TestSubmit_answersEachRowWithItsOwn(t *testing.T) {
	c := containertest.Start(t, containertest.Echo)
	h := start(t, serving.Config{})
	h.connect("a", c)
	a := newAnswers(t)
	const n = 500
	for i := range n {
		values := make([]byte, 2+i%3) // Rows of different shapes share batches.
		values[0], values[1] = byte(i), byte(i>>8)
		h.submit(a, i, row(values...), patience)
	}
	for i, r := range a.wait(n) {
		require.Nil(t, r.Err)
		require.Len(t, r.Outputs, 1)
		require.Equal(t, []byte{byte(i), byte(i >> 8)}, r.Outputs[0].Data[:2])
		require.Equal(t, []int64{int64(2 + i%3)}, r.Outputs[0].Shape)
	}
	require.Equal(t, n, c.Rows())
	require.Less(t, len(c.Calls()), n, "rows were batched")
}

func TestSubmit_keepsStringsAndUnlikeInputsApart(t *testing.T) {
	c := containertest.Start(t, containertest.Echo)
	h := start(t, serving.Config{})
	h.connect("a", c)
	a := newAnswers(t)
	for i := range 60 {
		in := row(byte(i))
		switch i % 3 {
		case 1:
			in = tensor.FromTensors([]*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_STRING, Shape: []int64{2}, Strings: []string{"x", fmt.Sprint(i)}}})
		case 2:
			in = tensor.FromTensors([]*clipperv1.Tensor{
				{Name: "a", DataType: clipperv1.DataType_DATA_TYPE_BYTES, ByteStrings: [][]byte{{byte(i)}}},
				{Name: "b", DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{0}}, // An empty tensor.
			})
		}
		h.submit(a, i, in, patience)
	}
	for i, r := range a.wait(60) {
		require.Nil(t, r.Err)
		switch i % 3 {
		case 0:
			require.Equal(t, []byte{byte(i)}, r.Outputs[0].Data)
		case 1:
			require.Equal(t, []string{"x", fmt.Sprint(i)}, r.Outputs[0].Strings)
		case 2:
			require.Equal(t, [][]byte{{byte(i)}}, r.Outputs[0].ByteStrings)
			require.Equal(t, "b", r.Outputs[1].Name)
			require.Empty(t, r.Outputs[1].Data)
		}
	}
}

func TestSubmit_reportsWhatTheContainerSays(t *testing.T) {
	uint8Out := &clipperv1.Signature{Outputs: []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_UINT8, AnyShape: true}}}
	floatOut := &clipperv1.Signature{Outputs: []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, AnyShape: true}}}
	for name, tc := range map[string]struct {
		behavior  containertest.Behavior
		signature *clipperv1.Signature
		want      clipperv1.PredictionStatus
		message   string
	}{
		"batch error":       {containertest.FailBatch(codes.Internal, "out of memory"), nil, failed, "out of memory"},
		"container's time":  {containertest.FailBatch(codes.DeadlineExceeded, "too late"), nil, deadline, "too late"},
		"row error":         {containertest.FailRows("bad pixel", 0), nil, failed, "bad pixel"},
		"row out of range":  {containertest.FailRows("bad pixel", 7), nil, failed, "row 7 of 1"},
		"row error twice":   {containertest.FailRows("bad pixel", 0, 0), nil, failed, "two errors for row 0"},
		"too many rows":     {containertest.WrongRows, nil, failed, "too many"},
		"no such type":      {containertest.WrongType, nil, failed, "data_type 99"},
		"not the signature": {containertest.Echo, floatOut, failed, "signature says float32"},
		"the signature":     {containertest.Echo, uint8Out, ok, ""},
		"out of order pair": {containertest.Stalling(2, time.Millisecond, containertest.Echo), nil, ok, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := containertest.Start(t, tc.behavior)
			h := start(t, serving.Config{Signature: tc.signature})
			h.connect("a", c)
			r := h.ask(row(1), patience)
			require.Equal(t, tc.want, status(r))
			if r.Err != nil {
				require.Contains(t, r.Err.Message, tc.message)
			}
			c.Behave(containertest.Echo)
			if tc.signature != floatOut {
				require.Nil(t, h.ask(row(2), patience).Err, "the replica goes on")
			}
			require.Equal(t, 1, c.Streams(), "on the same stream")
		})
	}
}

func TestSubmit_rowErrorsLeaveOtherRowsAlone(t *testing.T) {
	open := make(chan struct{})
	c := containertest.Start(t, containertest.Gate(open, func(c *containertest.Call) {
		if c.Request.Rows < 3 {
			containertest.Echo(c)
			return
		}
		containertest.FailRows("bad", 2, 0)(c)
	}))
	h := start(t, serving.Config{Batching: &clipperv1.Batching{Policy: "fixed", MaxBatchRows: 4, MaxInFlight: 1}})
	h.connect("a", c)
	a := newAnswers(t)
	h.submit(a, 0, row(0), patience) // Keeps the container busy until the others wait.
	for i := 1; i < 5; i++ {
		h.submit(a, i, row(byte(i)), patience)
	}
	close(open)
	a.wait(5)
	bad := 0
	for _, call := range c.Calls() {
		for i := range int(call.Rows) {
			r := a.results[int(call.Inputs[0].Data[i])]
			if call.Rows >= 3 && (i == 0 || i == 2) {
				require.Equal(t, failed, status(r))
				bad++
				continue
			}
			require.Nil(t, r.Err)
		}
	}
	require.Equal(t, 2, bad, "five rows make two batches, one of which has at least three")
}

// TestSubmit_survivesBrokenStreams plays containers that break the stream with their first answer
// and are well afterwards: nothing is lost, since there is time to ask again.
func TestSubmit_survivesBrokenStreams(t *testing.T) {
	for name, b := range map[string]containertest.Behavior{
		"garbage":    containertest.Garbage,
		"unknown id": containertest.UnknownID,
		"status":     func(c *containertest.Call) { c.Break(codes.Internal, "lost my mind") },
		"end":        func(c *containertest.Call) { c.Break(codes.OK, "") },
	} {
		t.Run(name, func(t *testing.T) {
			c := containertest.Start(t, containertest.Times(1, b, containertest.Echo))
			h := start(t, serving.Config{})
			h.connect("a", c)
			r := h.ask(row(1), patience)
			require.Nil(t, r.Err)
			require.Equal(t, 2, c.Streams())
		})
	}
}

func TestSubmit_secondAnswerResetsTheStream(t *testing.T) {
	c := containertest.Start(t, containertest.Times(1, containertest.Twice, containertest.Echo))
	h := start(t, serving.Config{})
	h.connect("a", c)
	for i := range 20 {
		require.Nil(t, h.ask(row(byte(i)), patience).Err)
	}
	require.Equal(t, 2, c.Streams())
}

func TestSubmit_answersOutOfOrder(t *testing.T) {
	c := containertest.Start(t, containertest.OutOfOrder())
	h := start(t, serving.Config{Batching: &clipperv1.Batching{Policy: "none"}})
	h.connect("a", c)
	a := newAnswers(t)
	for i := range 10 {
		h.submit(a, i, row(byte(i)), patience)
	}
	for i, r := range a.wait(10) {
		require.Equal(t, []byte{byte(i)}, r.Outputs[0].Data)
	}
	require.Equal(t, 1, c.Streams())
}

// TestSubmit_givesUpOnAPoisonousInput: an input that kills every container is not tried for ever.
func TestSubmit_givesUpOnAPoisonousInput(t *testing.T) {
	c := containertest.Start(t, func(c *containertest.Call) { c.Break(codes.Unavailable, "segmentation fault") })
	h := start(t, serving.Config{})
	h.connect("a", c)
	r := h.ask(row(1), patience)
	require.Equal(t, unavailable, status(r))
	require.Contains(t, r.Err.Message, "segmentation fault")
	require.Len(t, c.Calls(), 3)
}

func TestSubmit_retriesOnAnotherReplica(t *testing.T) {
	open := make(chan struct{})
	dying := containertest.Start(t, containertest.Gate(open, containertest.Die))
	h := start(t, serving.Config{})
	h.connect("dying", dying)
	a := newAnswers(t)
	for i := range 50 {
		h.submit(a, i, row(byte(i)), patience)
	}
	well := containertest.Start(t, containertest.Echo)
	h.connect("well", well)
	close(open)
	for i, r := range a.wait(50) {
		require.Nil(t, r.Err, "request %d", i)
	}
	require.Equal(t, 50, well.Rows())
}

func TestReplica_returnsAfterDeath(t *testing.T) {
	c := containertest.Start(t, containertest.Times(1, containertest.Die, containertest.Echo))
	h := start(t, serving.Config{})
	h.connect("a", c)
	a := newAnswers(t)
	h.submit(a, 0, row(1), patience)
	h.await("a", clipperv1.ReplicaState_REPLICA_STATE_STARTING)
	c.Start()
	require.Nil(t, a.wait(1)[0].Err, "held until the container is back")
}

func TestReplica_holdsRequestsUntilItHasStarted(t *testing.T) {
	c := containertest.New(t, containertest.Echo)
	h := start(t, serving.Config{})
	h.Connect("a", c.Address())
	a := newAnswers(t)
	h.submit(a, 0, row(1), patience)
	c.Start()
	require.Nil(t, a.wait(1)[0].Err)
}

func TestReplica_failsWhenItDoesNotStart(t *testing.T) {
	c := containertest.New(t, containertest.Echo)
	h := start(t, serving.Config{StartTimeout: 50 * time.Millisecond})
	h.Connect("a", c.Address())
	a := newAnswers(t)
	h.submit(a, 0, row(1), time.Hour)
	require.Equal(t, noReplica, status(a.wait(1)[0]), "what was held is answered when there is no hope")
	require.NotEmpty(t, h.await("a", clipperv1.ReplicaState_REPLICA_STATE_FAILED).Message)
	require.Equal(t, noReplica, status(h.ask(row(2), time.Hour)), "and refused from then on")
	c.Start()
	h.await("a", clipperv1.ReplicaState_REPLICA_STATE_READY)
	require.Nil(t, h.ask(row(3), patience).Err, "and yet it is tried again")
}

func TestReplica_waitsUntilTheContainerIsServing(t *testing.T) {
	c := containertest.New(t, containertest.Echo)
	c.SetServing(false)
	c.Start()
	h := start(t, serving.Config{})
	h.Connect("a", c.Address())
	for h.Replicas()[0].Message == "" {
		<-h.changes
	}
	require.Equal(t, clipperv1.ReplicaState_REPLICA_STATE_STARTING, h.Replicas()[0].State)
	c.SetServing(true)
	h.await("a", clipperv1.ReplicaState_REPLICA_STATE_READY)
}

func TestReplica_refusesTheWrongContainer(t *testing.T) {
	spec := func(dt clipperv1.DataType, shape ...int64) *clipperv1.Signature {
		return &clipperv1.Signature{Inputs: []*clipperv1.TensorSpec{{DataType: dt, Shape: shape}}}
	}
	want := spec(clipperv1.DataType_DATA_TYPE_FLOAT32, 784)
	for name, tc := range map[string]struct {
		description *clipperv1.DescribeResponse
		message     string
	}{
		"another model": {&clipperv1.DescribeResponse{Model: "other"}, "other"},
		"type":          {&clipperv1.DescribeResponse{Signature: spec(clipperv1.DataType_DATA_TYPE_INT8, 784)}, "int8"},
		"shape":         {&clipperv1.DescribeResponse{Signature: spec(clipperv1.DataType_DATA_TYPE_FLOAT32, 28, 28)}, "[28 28]"},
		"number":        {&clipperv1.DescribeResponse{Signature: &clipperv1.Signature{Inputs: make([]*clipperv1.TensorSpec, 2)}}, "2 inputs"},
	} {
		t.Run(name, func(t *testing.T) {
			c := containertest.New(t, containertest.Echo)
			c.SetDescription(tc.description)
			c.Start()
			h := start(t, serving.Config{Signature: want})
			h.Connect("a", c.Address())
			require.Contains(t, h.await("a", clipperv1.ReplicaState_REPLICA_STATE_FAILED).Message, tc.message)
		})
	}
}

func TestSignature_comesFromTheContainer(t *testing.T) {
	c := containertest.New(t, containertest.Echo)
	c.SetDescription(&clipperv1.DescribeResponse{Signature: &clipperv1.Signature{
		Inputs: []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_UINT8, Shape: []int64{2}}},
	}})
	c.Start()
	h := start(t, serving.Config{})
	require.Nil(t, h.Signature())
	h.connect("a", c)
	require.Len(t, h.Signature().Inputs, 1)
	require.Nil(t, h.ask(row(1, 2), patience).Err)
	r := h.ask(row(1), patience)
	require.Equal(t, failed, status(r))
	require.Contains(t, r.Err.Message, "[1]")
	require.Equal(t, 1, c.Rows(), "what does not fit never reaches the container")
}

func TestSubmit_refusesMalformedInputs(t *testing.T) {
	c := containertest.Start(t, containertest.Echo)
	h := start(t, serving.Config{})
	h.connect("a", c)
	for name, in := range map[string]*tensor.Input{
		"no tensor":      tensor.FromTensors(nil),
		"short data":     tensor.FromTensors([]*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT64, Shape: []int64{2}, Data: []byte{1}}}),
		"not an input":   tensor.FromEncoded([]byte{0xff, 0xff}),
		"negative shape": tensor.FromTensors([]*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_BOOL, Shape: []int64{-1}}}),
	} {
		require.Equal(t, failed, status(h.ask(in, patience)), name)
	}
	require.Zero(t, c.Rows())
}

func TestSubmit_noReplica(t *testing.T) {
	h := start(t, serving.Config{})
	require.Equal(t, noReplica, status(h.ask(row(1), time.Hour)))
}

func TestSubmit_refusesWhenTheQueueIsFull(t *testing.T) {
	c := containertest.Start(t, containertest.Never)
	h := start(t, serving.Config{Batching: &clipperv1.Batching{Policy: "none", MaxInFlight: 1, MaxQueueRows: 3}})
	h.connect("a", c)
	a := newAnswers(t)
	const n = 10
	for i := range n {
		h.submit(a, i, row(byte(i)), time.Hour)
	}
	for _, r := range a.wait(n - 4) { // Three wait, one may be under way.
		require.Equal(t, overloaded, status(r))
		require.Positive(t, r.Err.RetryAfter)
	}
}

// TestSubmit_neverAnswered: a container that swallows batches wedges neither the queue nor others.
func TestSubmit_neverAnswered(t *testing.T) {
	silent := containertest.Start(t, containertest.Never)
	h := start(t, serving.Config{})
	h.connect("silent", silent)
	a := newAnswers(t)
	for i := range 20 {
		h.submit(a, i, row(byte(i)), 50*time.Millisecond)
	}
	h.connect("well", containertest.Start(t, containertest.Echo))
	for i := range 20 {
		require.Nil(t, h.ask(row(byte(i), 1), patience).Err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h.Disconnect(ctx, "silent") // Gives back what it has: expired, or for the other.
	for _, r := range a.wait(20) {
		require.Contains(t, []clipperv1.PredictionStatus{ok, deadline}, status(r))
	}
}

func TestSubmit_inputsBeyondTheContainersLimit(t *testing.T) {
	c := containertest.New(t, containertest.Echo)
	c.SetDescription(&clipperv1.DescribeResponse{MaxMessageBytes: 12 << 10, MaxBatchRows: 5})
	c.Start()
	h := start(t, serving.Config{Batching: &clipperv1.Batching{Policy: "fixed"}})
	h.connect("a", c)
	r := h.ask(row(make([]byte, 9<<10)...), patience)
	require.Equal(t, failed, status(r))
	require.Contains(t, r.Err.Message, "more than")
	a := newAnswers(t)
	for i := range 40 {
		h.submit(a, i, row(append(make([]byte, 3<<10), byte(i))...), patience)
	}
	for _, r := range a.wait(40) {
		require.Nil(t, r.Err)
	}
	for _, call := range c.Calls() {
		require.LessOrEqual(t, call.Rows, uint32(2), "the size of a message is kept")
	}
	for i := range 40 {
		h.submit(a, 100+i, row(byte(i)), patience)
	}
	a.wait(80)
	for _, call := range c.Calls() {
		require.LessOrEqual(t, call.Rows, uint32(5))
	}
}

func TestDisconnect_drains(t *testing.T) {
	open := make(chan struct{})
	c := containertest.Start(t, containertest.Gate(open, containertest.Echo))
	h := start(t, serving.Config{})
	h.connect("a", c)
	h.connect("b", containertest.Start(t, containertest.Echo))
	a := newAnswers(t)
	for i := range 20 {
		h.submit(a, i, row(byte(i)), patience)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Disconnect(t.Context(), "a")
	}()
	h.await("a", clipperv1.ReplicaState_REPLICA_STATE_DRAINING)
	close(open)
	<-done
	for _, r := range a.wait(20) {
		require.Nil(t, r.Err)
	}
	require.Len(t, h.Replicas(), 1)
	require.Equal(t, 1, c.Streams())
	h.Disconnect(t.Context(), "unknown")
}

func TestDisconnect_givesBackWhatIsNotFinished(t *testing.T) {
	h := start(t, serving.Config{})
	h.connect("a", containertest.Start(t, containertest.Never))
	a := newAnswers(t)
	for i := range 20 {
		h.submit(a, i, row(byte(i)), patience)
	}
	h.connect("b", containertest.Start(t, containertest.Echo))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h.Disconnect(ctx, "a")
	for _, r := range a.wait(20) {
		require.Nil(t, r.Err)
	}
}

func TestClose_answersEverything(t *testing.T) {
	c := containertest.Start(t, containertest.Linear(time.Millisecond, 10*time.Microsecond))
	h := start(t, serving.Config{})
	h.connect("a", c)
	a := newAnswers(t)
	for i := range 100 {
		h.submit(a, i, row(byte(i)), patience)
	}
	h.Close(t.Context())
	a.mu.Lock()
	require.Len(t, a.results, 100, "when Close returns")
	for _, r := range a.results {
		require.Nil(t, r.Err)
	}
	a.mu.Unlock()
	require.Equal(t, noReplica, status(h.ask(row(1), patience)))
	require.Zero(t, h.cache.Bytes())
}

func TestClose_givesUpWhenItsTimeIsOver(t *testing.T) {
	h := start(t, serving.Config{})
	h.connect("a", containertest.Start(t, containertest.Never))
	a := newAnswers(t)
	for i := range 100 {
		h.submit(a, i, row(byte(i)), time.Hour)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h.Close(ctx)
	for _, r := range a.wait(100) {
		require.Equal(t, noReplica, status(r))
	}
}

func TestCache_remembersUntilDisabled(t *testing.T) {
	c := containertest.Start(t, containertest.Echo)
	h := start(t, serving.Config{})
	h.connect("a", c)
	require.False(t, h.ask(row(1), patience).Cached)
	_, found := h.cache.Lookup("m", "1", row(1))
	for !found { // It is remembered after the answer has gone out.
		_, found = h.cache.Lookup("m", "1", row(1))
	}
	require.True(t, h.ask(row(1), patience).Cached)
	require.NoError(t, h.Update(nil, &clipperv1.Cache{Disabled: true}))
	require.False(t, h.ask(row(1), patience).Cached)
	require.Equal(t, 2, c.Rows())
}

func TestUpdate_changesBatchingAtRunTime(t *testing.T) {
	open := make(chan struct{})
	c := containertest.Start(t, containertest.Gate(open, containertest.Echo))
	h := start(t, serving.Config{Batching: &clipperv1.Batching{Policy: "none"}})
	h.connect("a", c)
	a := newAnswers(t)
	for i := range 100 {
		h.submit(a, i, row(byte(i)), patience)
	}
	require.NoError(t, h.Update(&clipperv1.Batching{Policy: "fixed", MaxBatchRows: 50, MaxInFlight: 1}, nil))
	require.ErrorContains(t, h.Update(&clipperv1.Batching{Policy: "magic"}, nil), "magic")
	close(open)
	a.wait(100)
	calls := c.Calls()
	require.LessOrEqual(t, len(calls), 5)
	require.Equal(t, uint32(50), calls[len(calls)-2].Rows)
}

func TestNew_unknownPolicy(t *testing.T) {
	m, err := metrics.New(prometheus.NewRegistry())
	require.NoError(t, err)
	_, err = serving.New(serving.Config{Batching: &clipperv1.Batching{Policy: "magic"}}, serving.Deps{Metrics: m})
	require.ErrorContains(t, err, `"magic"`)
}
