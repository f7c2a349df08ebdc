// SPDX-License-Identifier: Apache-2.0

package abstraction

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/clipper-serving/clipper/containerrpc/containertest"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// elastic lets the number of replicas follow the load.
func elastic(least, most uint32) func(*clipperv1.DeployModelRequest) {
	return func(r *clipperv1.DeployModelRequest) {
		r.Version.Autoscaling = &clipperv1.Autoscaling{
			MinReplicas: least, MaxReplicas: most,
			ScaleDownDelay: durationpb.New(100 * time.Millisecond), IdleTimeout: durationpb.New(100 * time.Millisecond),
		}
	}
}

// scaled returns why there are so many replicas, once that was looked at.
func (f *fixture) scaled(t *testing.T, model, version string, wanted func(*clipperv1.ScalingStatus) bool) *clipperv1.ScalingStatus {
	t.Helper()
	var got *clipperv1.ScalingStatus
	require.Eventually(t, func() bool {
		resp, err := f.GetBatching(t.Context(), &clipperv1.GetBatchingRequest{Model: model, Version: version})
		require.NoError(t, err)
		got = resp.Scaling
		return got != nil && wanted(got)
	}, time.Minute, 5*time.Millisecond, "%v", got)
	return got
}

// TestScaleToZero: what nobody asks has no replica; a query starts one and waits for it.
func TestScaleToZero(t *testing.T) {
	f := start(t, settings{})
	f.deploy(t, "m", "1", answering(t, 5), elastic(0, 2))
	v := f.awaitState(t, "m", "1", clipperv1.ModelState_MODEL_STATE_STOPPED)
	require.Contains(t, v.StateMessage, "the next query starts one")
	// The first may still be answered by the replica that goes.
	s := f.scaled(t, "m", "1", func(s *clipperv1.ScalingStatus) bool {
		if s.Replicas > 0 {
			return false
		}
		require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_OK, f.ask(t, fresh(), ref("m", ""))[0].Status)
		return len(s.Changes) >= 3
	})
	require.Contains(t, s.Why, "nobody has asked")
	require.EqualValues(t, 0, s.Changes[1].From)
	require.EqualValues(t, 1, s.Changes[1].To)
}

// TestInstances_scale: of several instances, one decides for all, and a query starts a replica whichever
// instance it reaches.
func TestInstances_scale(t *testing.T) {
	all := startMembers(t, 3)
	deployMany(t, all[0], 1, elastic(0, 4), func(r *clipperv1.DeployModelRequest) {
		r.Version.Homes, r.Version.Cache = 2, &clipperv1.Cache{Disabled: true}
	})
	view := all[0].service.catalog.View()
	model := view.Models[len(view.Models)-1].Name
	for _, m := range all {
		m.awaitState(t, model, "v1", clipperv1.ModelState_MODEL_STATE_STOPPED)
		in := fresh()
		requireAnswer(t, answerTo(in), m.ask(t, in, ref(model, ""))[0])
	}
	deciding := 0
	for _, m := range all {
		m.service.mu.Lock()
		for _, v := range m.service.running {
			if status, _ := v.scaling.now(); status != nil {
				deciding++
			}
		}
		m.service.mu.Unlock()
	}
	require.Equal(t, 1, deciding)
}

// TestScaleFailing: a query for a replica that cannot start is refused with the time of the next try.
func TestScaleFailing(t *testing.T) {
	f := start(t, settings{backoff: backoff{first: time.Hour, last: time.Hour, never: time.Hour, neverLast: time.Hour}})
	f.deploy(t, "m", "1", replicaOf(t, envTrouble, "1"), elastic(0, 4))
	f.await(t, "m", "1", func(v *clipperv1.ModelVersion) bool {
		return len(v.ReplicaStatus) == 1 && v.ReplicaStatus[0].State == clipperv1.ReplicaState_REPLICA_STATE_FAILED
	})
	var p *clipperv1.ModelPrediction
	require.Eventually(t, func() bool {
		p = f.ask(t, fresh(), ref("m", ""))[0]
		return p.RetryAfter != nil
	}, time.Minute, time.Millisecond)
	require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA, p.Status)
	require.Equal(t, time.Hour, p.RetryAfter.AsDuration())
}

// TestScaleBounds: bounds can be set, changed and removed while the version runs.
func TestScaleBounds(t *testing.T) {
	f := start(t, settings{})
	v := f.deploy(t, "m", "1", answering(t, 5), elastic(2, 4))
	require.EqualValues(t, 2, v.GetReplicas())
	require.InDelta(t, 0.85, v.Autoscaling.TargetLoad, 0)
	update := func(r *clipperv1.UpdateModelVersionRequest) (*clipperv1.ModelVersion, error) {
		r.Model, r.Version = "m", "1"
		resp, err := f.UpdateModelVersion(t.Context(), r)
		return resp.GetVersion(), err
	}
	_, err := update(&clipperv1.UpdateModelVersionRequest{Replicas: proto.Uint32(1)})
	requireError(t, err, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "replicas")
	_, err = update(&clipperv1.UpdateModelVersionRequest{Autoscaling: &clipperv1.Autoscaling{MinReplicas: 3, MaxReplicas: 2}})
	requireError(t, err, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "autoscaling.min_replicas")

	v, err = update(&clipperv1.UpdateModelVersionRequest{Autoscaling: &clipperv1.Autoscaling{MinReplicas: 3, MaxReplicas: 4}})
	require.NoError(t, err)
	require.EqualValues(t, 3, v.GetReplicas())
	f.awaitState(t, "m", "1", clipperv1.ModelState_MODEL_STATE_READY)
	s := f.scaled(t, "m", "1", func(s *clipperv1.ScalingStatus) bool { return s.ReadyReplicas == 3 })
	require.Equal(t, "3 is the minimum", s.Held)

	v, err = update(&clipperv1.UpdateModelVersionRequest{Replicas: proto.Uint32(1), Autoscaling: &clipperv1.Autoscaling{}})
	require.NoError(t, err)
	require.EqualValues(t, 1, v.GetReplicas())
	require.Nil(t, v.Autoscaling)
	f.scaled(t, "m", "1", func(s *clipperv1.ScalingStatus) bool { return s.Autoscaling == nil && s.Replicas == 1 })

	c := containertest.Start(t, containertest.Echo)
	_, err = f.DeployModel(t.Context(), &clipperv1.DeployModelRequest{Version: &clipperv1.ModelVersion{
		Model: "far", Version: "1", Container: addressOf(c), Autoscaling: &clipperv1.Autoscaling{MaxReplicas: 2},
	}})
	requireError(t, err, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "version.autoscaling")
}
