// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/clipper-serving/clipper/abstraction/metrics"
	"github.com/clipper-serving/clipper/abstraction/prediction"
	"github.com/clipper-serving/clipper/abstraction/queue"
	"github.com/clipper-serving/clipper/containerrpc/containertest"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	starting = clipperv1.ReplicaState_REPLICA_STATE_STARTING
	ready    = clipperv1.ReplicaState_REPLICA_STATE_READY
	failing  = clipperv1.ReplicaState_REPLICA_STATE_FAILED
)

type harness struct {
	*Replica
	t       *testing.T
	queue   *queue.Queue
	changes chan struct{}
}

func start(t *testing.T, address string, tm timing) *harness {
	t.Helper()
	m, err := metrics.New(prometheus.NewRegistry())
	require.NoError(t, err)
	h := &harness{t: t, queue: queue.New(1000, m.Version("m", "1")), changes: make(chan struct{}, 1)}
	h.Replica = Start(Config{
		ID: "a", Address: address, Batching: &clipperv1.Batching{MaxInFlight: 1}, timing: tm,
		Accept: func(d *clipperv1.DescribeResponse) (*clipperv1.Signature, error) { return d.Signature, nil },
		OnChange: func() {
			select {
			case h.changes <- struct{}{}:
			default:
			}
		},
	}, h.queue, m.Version("m", "1"), slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		h.Close()
		h.queue.Refuse(prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA, "gone"))
	})
	return h
}

func (h *harness) await(state clipperv1.ReplicaState) {
	h.t.Helper()
	timeout := time.After(20 * time.Second)
	for h.State() != state {
		select {
		case <-h.changes:
		case <-timeout:
			require.FailNow(h.t, "the state was not reached", "%v: %v", state, h.Status())
		}
	}
}

type answer chan prediction.Result

func (a answer) Receive(_ int, r prediction.Result) { a <- r }

func (h *harness) submit(budget time.Duration) answer {
	a := make(answer, 1)
	h.queue.Submit(&prediction.Request{
		Context: h.t.Context(), Deadline: time.Now().Add(budget), Receiver: a,
		Input: tensor.FromTensors([]*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_BOOL, Data: []byte{1}}}),
	})
	return a
}

// TestReplica_slowIsNotDead: a prediction may take many times as long as a sign of life.
func TestReplica_slowIsNotDead(t *testing.T) {
	c := containertest.Start(t, containertest.Slow(300*time.Millisecond, containertest.Echo))
	h := start(t, c.Address(), timing{health: 5 * time.Millisecond, liveness: 100 * time.Millisecond, stall: time.Hour})
	require.Nil(t, (<-h.submit(time.Hour)).Err)
	require.Equal(t, 1, c.Streams())
}

// TestReplica_hungIsDead: a process that is stopped keeps its connections and answers nothing.
func TestReplica_hungIsDead(t *testing.T) {
	c := containertest.Start(t, containertest.Times(1, containertest.Never, containertest.Echo))
	h := start(t, c.Address(), timing{health: 5 * time.Millisecond, liveness: 50 * time.Millisecond, stall: time.Hour})
	h.await(ready)
	a := h.submit(time.Hour)
	c.SetHanging(true)
	h.await(starting)
	require.Contains(t, h.Status().Message, "no sign of life")
	c.SetHanging(false)
	require.Nil(t, (<-a).Err, "asked again")
}

// TestReplica_swallowedBatch: a container that lives but never answers one batch gets its slot back
// after a while.
func TestReplica_swallowedBatch(t *testing.T) {
	c := containertest.Start(t, containertest.Times(1, containertest.Never, containertest.Echo))
	h := start(t, c.Address(), timing{health: 5 * time.Millisecond, liveness: time.Hour, stall: 20 * time.Millisecond})
	swallowed := h.submit(100 * time.Millisecond)
	require.Eventually(t, func() bool { return len(c.Calls()) == 1 }, 20*time.Second, time.Millisecond)
	next := h.submit(time.Hour)
	require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE, (<-swallowed).Err.Status)
	require.Nil(t, (<-next).Err)
	require.Equal(t, 2, c.Streams())
}

// TestReplica_muchSlowerThanItsDeadlines: a container that answers at last is given the time for it.
func TestReplica_muchSlowerThanItsDeadlines(t *testing.T) {
	c := containertest.Start(t, containertest.Slow(200*time.Millisecond, containertest.Echo))
	h := start(t, c.Address(), timing{health: 5 * time.Millisecond, liveness: time.Hour, stall: 20 * time.Millisecond})
	for (<-h.submit(20 * time.Millisecond)).Err != nil {
		require.Less(t, c.Streams(), 8)
	}
	streams := c.Streams()
	require.Greater(t, streams, 1)
	for range 3 {
		require.Nil(t, (<-h.submit(time.Hour)).Err)
	}
	require.Equal(t, streams, c.Streams(), "and keeps it")
}

// TestReplica_notServing: a container that says so gets nothing new until it says otherwise.
func TestReplica_notServing(t *testing.T) {
	c := containertest.Start(t, containertest.Echo)
	h := start(t, c.Address(), timing{health: 5 * time.Millisecond, liveness: time.Hour, stall: time.Hour})
	h.await(ready)
	c.SetServing(false)
	h.await(starting)
	a := h.submit(time.Hour)
	require.Empty(t, c.Calls())
	c.SetServing(true)
	require.Nil(t, (<-a).Err)
}

func TestReplica_addressThatIsNone(t *testing.T) {
	h := start(t, "%zz", timing{})
	h.await(failing)
	require.NotEmpty(t, h.Status().Message)
	h.Drain(t.Context())
}

func TestReplica_closesWhileConnecting(t *testing.T) {
	h := start(t, containertest.New(t, containertest.Echo).Address(), timing{})
	h.Close()
	h.Close()
}
