// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// testAutoscaling: replicas come with the load and go with it, to none; the next query starts one and is
// answered by it.
func testAutoscaling(t *testing.T, s *system) {
	v := version("elastic", "1", environment{"DELAY": "50ms"})
	v.Batching = &clipperv1.Batching{Policy: "none", MaxInFlight: 1}
	v.Cache = &clipperv1.Cache{Disabled: true}
	v.Autoscaling = &clipperv1.Autoscaling{MaxReplicas: 3, ScaleDownDelay: durationpb.New(time.Second), IdleTimeout: durationpb.New(2 * time.Second)}
	s.deployVersion(t, v)
	s.create(t, application("elastic", "single", "elastic"))

	ctx, stop := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for i := range 6 {
		callers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				answer, err := s.queries.Query(ctx, &clipperv1.QueryRequest{Application: "elastic", Inputs: input(float64(n), 0)})
				if ctx.Err() == nil && (err != nil || answer.IsDefault) {
					t.Errorf("caller %d: %v, %v", i, err, answer)
					return
				}
			}
		})
	}
	s.awaitReplicas(t, "elastic", 3)
	stop()
	callers.Wait()
	s.awaitReplicas(t, "elastic", 0)
	stopped := s.awaitState(t, "elastic", "1", clipperv1.ModelState_MODEL_STATE_STOPPED)
	require.Contains(t, stopped.StateMessage, "the next query starts one")

	require.EqualValues(t, 7, predicted(t, s.ask(t, "elastic", 7, 0)))
	explained, err := s.models.GetBatching(t.Context(), &clipperv1.GetBatchingRequest{Model: "elastic", Version: "1"})
	require.NoError(t, err)
	scaling := explained.Scaling
	require.NotNil(t, scaling)
	require.NotEmpty(t, scaling.Why)
	require.GreaterOrEqual(t, len(scaling.Changes), 3, "up, down, and up again: %v", scaling.Changes)
	require.Zero(t, scaling.Changes[0].From)
	require.EqualValues(t, 1, scaling.Changes[0].To)
	require.Positive(t, scaling.StartTime.AsDuration())
}

// awaitReplicas waits until the version "1" of a model has so many replicas, and all of them are ready.
func (s *system) awaitReplicas(t *testing.T, model string, n int) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assertCollect) {
		response, err := s.models.GetModelVersion(t.Context(), &clipperv1.GetModelVersionRequest{Model: model, Version: "1"})
		require.NoError(c, err)
		require.EqualValues(c, n, response.Version.GetReplicas())
		require.Len(c, response.Version.ReplicaStatus, n)
		for _, r := range response.Version.ReplicaStatus {
			require.Equal(c, clipperv1.ReplicaState_REPLICA_STATE_READY, r.State)
		}
	}, patience, poll)
}
