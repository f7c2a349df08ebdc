// SPDX-License-Identifier: Apache-2.0

package abstraction

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/clipper-serving/clipper/containerrpc/containertest"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

func (f *fixture) setCurrent(t *testing.T, version string) {
	t.Helper()
	_, err := f.SetCurrentVersion(t.Context(), &clipperv1.SetCurrentVersionRequest{Model: "m", Version: version})
	require.NoError(t, err)
}

func (f *fixture) scale(t *testing.T, version string, replicas int) {
	t.Helper()
	_, err := f.UpdateModelVersion(t.Context(), &clipperv1.UpdateModelVersionRequest{Model: "m", Version: version, Replicas: proto.Uint32(uint32(replicas))})
	require.NoError(t, err)
	f.await(t, "m", version, func(v *clipperv1.ModelVersion) bool {
		return len(v.ReplicaStatus) == replicas && !slices.ContainsFunc(v.ReplicaStatus, func(r *clipperv1.Replica) bool {
			return r.State != clipperv1.ReplicaState_REPLICA_STATE_READY
		})
	})
}

func warmUpWith(n uint64) *clipperv1.WarmUp {
	return &clipperv1.WarmUp{Samples: []*clipperv1.WarmUpSample{{Tensors: []*clipperv1.Tensor{
		{DataType: clipperv1.DataType_DATA_TYPE_INT64, Data: binary.LittleEndian.AppendUint64(nil, n)},
	}}}}
}

// TestReloadUnderLoad changes a model in every way while it is asked, and no query fails.
func TestReloadUnderLoad(t *testing.T) {
	f := start(t, settings{})
	f.deploy(t, "m", "v1", answering(t, 1), func(r *clipperv1.DeployModelRequest) { r.Version.Replicas = proto.Uint32(2) })
	v1 := f.awaitState(t, "m", "v1", ready)
	stop := f.load(t, ref("m", ""))

	f.deploy(t, "m", "v2", answering(t, 2), func(r *clipperv1.DeployModelRequest) { r.Version.WarmUp = warmUpWith(5) })
	f.await(t, "m", "v2", func(v *clipperv1.ModelVersion) bool { return v.Current })
	requireAnswer(t, 2, f.ask(t, fresh(), ref("m", ""))[0])

	f.setCurrent(t, "v1") // The roll back is done when the call returns, without a restart.
	requireAnswer(t, 1, f.ask(t, fresh(), ref("m", ""))[0])
	require.Equal(t, pidsOf(t, v1), pidsOf(t, f.version(t, "m", "v1")))
	f.setCurrent(t, "v2")
	requireAnswer(t, 2, f.ask(t, fresh(), ref("m", ""))[0])

	f.scale(t, "v2", 3)
	f.scale(t, "v2", 1)
	f.scale(t, "v1", 0)
	_, err := f.DeleteModelVersion(t.Context(), &clipperv1.DeleteModelVersionRequest{Model: "m", Version: "v1"})
	require.NoError(t, err)
	f.deploy(t, "m", "v1", answering(t, 11))
	f.await(t, "m", "v1", func(v *clipperv1.ModelVersion) bool { return v.Current })
	_, err = f.DeleteModelVersion(t.Context(), &clipperv1.DeleteModelVersionRequest{Model: "m", Version: "v2"})
	require.NoError(t, err)
	requireAnswer(t, 11, f.ask(t, fresh(), ref("m", ""))[0])

	counts := stop()
	for _, answer := range []string{"1", "2", "11"} {
		require.Positive(t, counts[answer], answer)
		delete(counts, answer)
	}
	require.Empty(t, counts)
}

// TestQueryThatMissesTheSwitch: a version may be gone when the query that has found it current comes.
func TestQueryThatMissesTheSwitch(t *testing.T) {
	f := start(t, settings{})
	f.deploy(t, "m", "v1", addressOf(containertest.Start(t, containertest.Echo)))
	f.awaitState(t, "m", "v1", ready)
	gone, noError := f.service.table.Load().find(ref("m", ""))
	require.Nil(t, noError)
	f.deploy(t, "m", "v2", addressOf(containertest.Start(t, containertest.Echo)))
	f.await(t, "m", "v2", func(v *clipperv1.ModelVersion) bool { return v.Current })
	_, err := f.DeleteModelVersion(t.Context(), &clipperv1.DeleteModelVersionRequest{Model: "m", Version: "v1"})
	require.NoError(t, err)

	for _, tc := range []struct {
		ref     *internalv1.ModelReference
		version string
		status  clipperv1.PredictionStatus
	}{
		{ref("m", ""), "v2", clipperv1.PredictionStatus_PREDICTION_STATUS_OK},
		{ref("m", "v1"), "v1", clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA},
	} {
		c := &call{service: f.service, ctx: t.Context(), at: time.Now().Add(time.Minute), input: fresh(), asked: make([]asked, 1), left: 1}
		a := &c.asked[0]
		a.ref, a.route, a.prediction.Version = tc.ref, gone, "v1"
		c.submit(0, gone)
		got := c.wait(t.Context())[0]
		require.Equal(t, tc.status, got.Status, got.Message)
		require.Equal(t, tc.version, got.Version)
	}
}

// TestWarmUpWithQueriesOfTheCurrentVersion: a new version sees what it will be asked before it is.
func TestWarmUpWithQueriesOfTheCurrentVersion(t *testing.T) {
	f := start(t, settings{})
	f.deploy(t, "m", "v1", answering(t, 1))
	in := fresh()
	requireAnswer(t, 1, f.ask(t, in, ref("m", ""))[0])
	c := containertest.Start(t, containertest.Echo)
	f.deploy(t, "m", "v2", addressOf(c))
	f.await(t, "m", "v2", func(v *clipperv1.ModelVersion) bool { return v.Current })
	tensors, err := in.Tensors()
	require.NoError(t, err)
	require.NotEmpty(t, c.Calls())
	require.Equal(t, tensors[0].Data, c.Calls()[0].Inputs[0].Data)
	require.False(t, f.ask(t, in, ref("m", ""))[0].Cached, "what it predicted then is not remembered")
}

// TestWarmUpIsNotPartOfTheStart: a container that serves in time is not stopped for being cold.
func TestWarmUpIsNotPartOfTheStart(t *testing.T) {
	f := start(t, settings{})
	f.deploy(t, "m", "v1", replicaOf(t, envAnswer, "1", envTrouble, "cold"), func(r *clipperv1.DeployModelRequest) {
		r.Version.WarmUp = warmUpWith(5)
		r.Version.Container.StartTimeout = durationpb.New(coldTime - 500*time.Millisecond)
	})
	f.await(t, "m", "v1", func(v *clipperv1.ModelVersion) bool {
		return len(v.ReplicaStatus) == 1 && v.ReplicaStatus[0].Message == "warming up"
	})
	v := f.awaitState(t, "m", "v1", ready)
	require.Zero(t, v.ReplicaStatus[0].Restarts)
	requireAnswer(t, 1, f.ask(t, fresh(), ref("m", ""))[0])
}

// TestWarmUpThatKills: inputs that nobody asked about do not keep a version from serving.
func TestWarmUpThatKills(t *testing.T) {
	f := start(t, settings{})
	f.deploy(t, "m", "v1", replicaOf(t, envAnswer, "1", envTrouble, "brittle"), func(r *clipperv1.DeployModelRequest) {
		r.Version.Signature = &clipperv1.Signature{Inputs: []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_BOOL}}}
	})
	v := f.awaitState(t, "m", "v1", ready)
	require.EqualValues(t, 2, v.ReplicaStatus[0].Restarts)
	in := tensor.FromTensors([]*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_BOOL, Data: []byte{1}}})
	requireAnswer(t, 1, f.ask(t, in, ref("m", ""))[0])
}

// TestVersionThatCannotPredictItsSamples does not become current, and says why.
func TestVersionThatCannotPredictItsSamples(t *testing.T) {
	f := start(t, settings{})
	f.deploy(t, "m", "v1", answering(t, 1))
	c := containertest.Start(t, containertest.FailBatch(codes.Internal, "shape mismatch"))
	v := f.deploy(t, "m", "v2", addressOf(c), func(r *clipperv1.DeployModelRequest) { r.Version.WarmUp = warmUpWith(5) })
	require.Len(t, v.WarmUp.Samples, 1)
	require.Equal(t, 10*time.Second, v.WarmUp.TimeLimit.AsDuration())
	v = f.awaitState(t, "m", "v2", failed)
	require.Contains(t, v.StateMessage, "shape mismatch")
	require.Contains(t, v.StateMessage, "deploy it as a new version")
	require.False(t, v.Current)
	require.Len(t, v.WarmUp.Samples, 1)
	requireAnswer(t, 1, f.ask(t, fresh(), ref("m", ""))[0])

	resp, err := f.GetModel(t.Context(), &clipperv1.GetModelRequest{Model: "m"})
	require.NoError(t, err)
	require.Empty(t, resp.Model.Versions[1].WarmUp.Samples, "they would be many")
	require.NotNil(t, resp.Model.Versions[1].WarmUp.TimeLimit)

	c.Behave(containertest.Echo) // Somebody has repaired it.
	f.await(t, "m", "v2", func(v *clipperv1.ModelVersion) bool { return v.Current && v.State == ready })
}

// TestOldVersionsAreRemovedWhenTheNewOneServes: not before, since a version that never starts must not
// cost the one that answers.
func TestOldVersionsAreRemovedWhenTheNewOneServes(t *testing.T) {
	f := start(t, settings{})
	keep := func(n uint32) func(*clipperv1.DeployModelRequest) {
		return func(r *clipperv1.DeployModelRequest) { r.KeepVersions = &n }
	}
	f.deploy(t, "m", "v1", answering(t, 1), keep(1))
	f.awaitState(t, "m", "v1", ready)
	f.deploy(t, "m", "v2", answering(t, 2))
	f.await(t, "m", "v2", func(v *clipperv1.ModelVersion) bool { return v.Current })
	stop := f.load(t, ref("m", ""))
	f.deploy(t, "m", "never", later(t), keep(0))
	f.deploy(t, "m", "v3", answering(t, 3), keep(1))
	f.await(t, "m", "v3", func(v *clipperv1.ModelVersion) bool { return v.Current })
	require.Eventually(t, func() bool {
		r, err := f.GetModel(t.Context(), &clipperv1.GetModelRequest{Model: "m"})
		require.NoError(t, err)
		require.EqualValues(t, 1, r.Model.GetKeepVersions())
		var left []string
		for _, v := range r.Model.Versions {
			left = append(left, v.Version)
		}
		return slices.Equal(left, []string{"never", "v3"})
	}, 10*time.Second, 10*time.Millisecond)
	requireAnswer(t, 3, f.ask(t, fresh(), ref("m", ""))[0])
	counts := stop()
	delete(counts, "2")
	delete(counts, "3")
	require.Empty(t, counts, "no query was lost")
	_, err := f.DeployModel(t.Context(), &clipperv1.DeployModelRequest{KeepVersions: proto.Uint32(1001), Version: &clipperv1.ModelVersion{Model: "m", Version: "v9", Container: later(t)}})
	requireError(t, err, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "keep_versions")
}
