// SPDX-License-Identifier: Apache-2.0

package queue_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// TestSubmit_beforeTheFirstReplica: while there is no replica, what cannot wait for the first one is
// refused at once, what can waits, and both are told when to come back. All of it is demand.
func TestSubmit_beforeTheFirstReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s := newQueue(t, 10), &sink{}
		q.SetFirst(time.Now().Add(3 * time.Second))

		q.Submit(request(s, 1, time.Now().Add(2*time.Second)))
		require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA, s.status(1))
		require.Equal(t, 3*time.Second, s.all(1)[0].Err.RetryAfter)

		q.Submit(request(s, 2, time.Now().Add(4*time.Second)))
		q.Submit(request(s, 3, time.Time{}))
		require.Empty(t, s.all(2))
		d := q.Demand()
		require.Equal(t, 2, d.Waiting)
		time.Sleep(time.Second)
		d = q.Demand()
		require.InDelta(t, 3, d.Rate, 0.001, "three rows in a second")
		require.Equal(t, time.Second, d.Idle)

		time.Sleep(3*time.Second + time.Millisecond)
		require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE, s.status(2))
		require.Equal(t, time.Second, s.all(2)[0].Err.RetryAfter, "it is late; nobody knows by how much")

		// With a replica nobody is refused for that.
		q.SetFirst(time.Now().Add(time.Hour))
		p := newPuller(q, limits(10, 1))
		q.Submit(request(s, 4, time.Now().Add(time.Second)))
		batches := pulling(t, p)
		items := <-batches
		require.ElementsMatch(t, []int{3, 4}, tags(items))
		answer(p, items)
		require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_OK, s.status(4))
	})
}
