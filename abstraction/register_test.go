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

func TestRegisterReplica(t *testing.T) {
	f := start(t, settings{})
	one, two := containertest.Start(t, containertest.Echo), containertest.Start(t, containertest.Echo)
	register := func(id string, c *containertest.Container, lease time.Duration) *clipperv1.RegisterReplicaResponse {
		resp, err := f.RegisterReplica(t.Context(), &clipperv1.RegisterReplicaRequest{
			Model: "m", Version: "v1", Replica: id, Address: c.Address(), Lease: durationpb.New(lease),
		})
		require.NoError(t, err)
		require.Equal(t, lease, resp.Lease.AsDuration())
		return resp
	}
	require.False(t, register("one", one, time.Hour).Deployed, "held until the version is deployed")
	registered := &clipperv1.Container{Source: &clipperv1.Container_Registered{Registered: &clipperv1.Registered{}}}
	f.deploy(t, "m", "v1", registered)
	v := f.awaitState(t, "m", "v1", ready)
	require.Len(t, v.ReplicaStatus, 1)
	require.True(t, v.ReplicaStatus[0].Registered)
	require.Equal(t, "one", v.ReplicaStatus[0].Id)
	require.Empty(t, v.ReplicaStatus[0].Instance, "there is only one")
	load := f.load(t, ref("m", ""))

	require.True(t, register("two", two, time.Hour).Deployed)
	f.await(t, "m", "v1", func(v *clipperv1.ModelVersion) bool {
		return v.State == ready && v.StateMessage == "2 of 2 replicas ready"
	})
	register("one", one, 0)
	f.await(t, "m", "v1", func(v *clipperv1.ModelVersion) bool { return len(v.ReplicaStatus) == 1 })
	register("one", one, time.Hour) // It is back.
	register("two", one, time.Hour) // And the other one has moved.
	f.await(t, "m", "v1", func(v *clipperv1.ModelVersion) bool {
		return v.StateMessage == "2 of 2 replicas ready" && v.ReplicaStatus[1].Address == one.Address()
	})
	require.Empty(t, refusals(load()), "no query is lost")

	// Stopped, it uses none; started, all.
	update := func(n uint32) {
		_, err := f.UpdateModelVersion(t.Context(), &clipperv1.UpdateModelVersionRequest{Model: "m", Version: "v1", Replicas: proto.Uint32(n)})
		require.NoError(t, err)
	}
	update(0)
	f.await(t, "m", "v1", func(v *clipperv1.ModelVersion) bool { return v.State == stopped && len(v.ReplicaStatus) == 0 })
	update(3)
	f.await(t, "m", "v1", func(v *clipperv1.ModelVersion) bool {
		return v.State == degraded && v.StateMessage == "2 of 3 replicas ready"
	})

	register("one", one, 0)
	register("two", one, 0)
	v = f.await(t, "m", "v1", func(v *clipperv1.ModelVersion) bool { return len(v.ReplicaStatus) == 0 })
	require.Contains(t, v.StateMessage, "none has registered")
	require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA, f.ask(t, fresh(), ref("m", ""))[0].Status)
}

func TestRegisterReplica_besideLaunchedOnes(t *testing.T) {
	f := start(t, settings{})
	c := containertest.Start(t, containertest.Echo)
	f.deploy(t, "m", "v1", addressOf(c))
	f.awaitState(t, "m", "v1", ready)
	_, err := f.RegisterReplica(t.Context(), &clipperv1.RegisterReplicaRequest{Model: "m", Version: "v1", Replica: "more", Address: c.Address(), Lease: durationpb.New(time.Second)})
	require.NoError(t, err)
	f.await(t, "m", "v1", func(v *clipperv1.ModelVersion) bool { return v.StateMessage == "2 of 2 replicas ready" })
	// The lease ends.
	f.await(t, "m", "v1", func(v *clipperv1.ModelVersion) bool { return v.StateMessage == "1 of 1 replicas ready" })
}

func TestRegisterReplicaRefuses(t *testing.T) {
	f := start(t, settings{})
	good := func(change func(*clipperv1.RegisterReplicaRequest)) *clipperv1.RegisterReplicaRequest {
		req := &clipperv1.RegisterReplicaRequest{Model: "m", Version: "v1", Replica: "r", Address: "10.0.0.7:9000"}
		change(req)
		return req
	}
	invalid, missing := clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD
	for name, tc := range map[string]struct {
		req    *clipperv1.RegisterReplicaRequest
		reason clipperv1.ErrorReason
		field  string
	}{
		"model":        {good(func(r *clipperv1.RegisterReplicaRequest) { r.Model = "a/b" }), invalid, "model"},
		"version":      {good(func(r *clipperv1.RegisterReplicaRequest) { r.Version = "" }), missing, "version"},
		"replica":      {good(func(r *clipperv1.RegisterReplicaRequest) { r.Replica = "" }), missing, "replica"},
		"number":       {good(func(r *clipperv1.RegisterReplicaRequest) { r.Replica = "007" }), invalid, "replica"},
		"no address":   {good(func(r *clipperv1.RegisterReplicaRequest) { r.Address = "" }), missing, "address"},
		"no port":      {good(func(r *clipperv1.RegisterReplicaRequest) { r.Address = "10.0.0.7" }), invalid, "address"},
		"short lease":  {good(func(r *clipperv1.RegisterReplicaRequest) { r.Lease = durationpb.New(time.Millisecond) }), invalid, "lease"},
		"long lease":   {good(func(r *clipperv1.RegisterReplicaRequest) { r.Lease = durationpb.New(2 * time.Hour) }), invalid, "lease"},
		"broken lease": {good(func(r *clipperv1.RegisterReplicaRequest) { r.Lease = &durationpb.Duration{Seconds: 1, Nanos: -1} }), invalid, "lease"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.RegisterReplica(t.Context(), tc.req)
			requireError(t, err, codes.InvalidArgument, tc.reason, tc.field)
		})
	}
	resp, err := f.RegisterReplica(t.Context(), good(func(*clipperv1.RegisterReplicaRequest) {}))
	require.NoError(t, err)
	require.Equal(t, 15*time.Second, resp.Lease.AsDuration(), "the default")
	// To remove one, its address need not be known, nor need there be one.
	for range 2 {
		_, err = f.RegisterReplica(t.Context(), good(func(r *clipperv1.RegisterReplicaRequest) { r.Address, r.Lease = "", durationpb.New(0) }))
		require.NoError(t, err)
	}
}
