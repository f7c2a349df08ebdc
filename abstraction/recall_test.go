// SPDX-License-Identifier: Apache-2.0

package abstraction

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/clipper-serving/clipper/containerrpc/containertest"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// TestRecall: what comes after the deadline is remembered where its model is at home, and recalled
// from there through any instance. Nothing is computed for it.
func TestRecall(t *testing.T) {
	all := startMembers(t, 2)
	names := deployMany(t, all[0], enough)
	open := make(chan struct{})
	var models []*internalv1.ModelReference
	for _, name := range names {
		models = append(models, ref(name, "v1"))
	}
	for _, m := range all {
		m.container.Behave(containertest.Gate(open, containertest.Echo))
	}

	in := fresh()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	got, err := all[0].service.Predict(ctx, models, in)
	require.NoError(t, err)
	for _, p := range got {
		require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE, p.Status)
	}
	hash := in.Hash().Bytes()
	recall := func(m *member, hash [16]byte) []*clipperv1.ModelPrediction {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		found, err := m.service.Recall(ctx, append(models, ref("none", "v1"), ref(names[0], "v9")), hash)
		require.NoError(t, err)
		require.Len(t, found, len(models)+2)
		return found
	}
	requireNothing := func(found []*clipperv1.ModelPrediction) {
		for _, p := range found {
			require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_UNSPECIFIED, p.Status)
			require.Empty(t, p.Outputs)
		}
	}
	requireNothing(recall(all[0], hash))

	close(open)
	for _, m := range all {
		var found []*clipperv1.ModelPrediction
		require.Eventually(t, func() bool {
			found = recall(m, hash)
			return !slices.ContainsFunc(found[:len(models)], func(p *clipperv1.ModelPrediction) bool {
				return p.Status != clipperv1.PredictionStatus_PREDICTION_STATUS_OK
			})
		}, time.Minute, time.Millisecond)
		for i, p := range found[:len(models)] {
			requireAnswer(t, answerTo(in), p)
			require.Equal(t, names[i], p.Model)
			require.Equal(t, "v1", p.Version)
		}
		requireNothing(found[len(models):])
	}
	rows := all[0].container.Rows() + all[1].container.Rows()
	requireNothing(recall(all[0], fresh().Hash().Bytes()))
	require.Equal(t, rows, all[0].container.Rows()+all[1].container.Rows())
}

// TestRecall_withoutTime: who has no time left learns nothing of what is elsewhere, and does not wait.
func TestRecall_withoutTime(t *testing.T) {
	all := startMembers(t, 2)
	names := deployMany(t, all[0], enough)
	var models []*internalv1.ModelReference
	for _, name := range names {
		models = append(models, ref(name, "v1"))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	found, err := all[0].service.Recall(ctx, models, fresh().Hash().Bytes())
	require.NoError(t, err)
	require.Len(t, found, len(models))
}

// TestLatePredictionsAreCounted says also that a prediction that came in time is none.
func TestLatePredictionsAreCounted(t *testing.T) {
	f := start(t, settings{})
	open := make(chan struct{})
	f.deploy(t, "m", "v1", addressOf(containertest.Start(t, containertest.Gate(open, containertest.Echo))))
	f.awaitState(t, "m", "v1", ready)
	late := func() float64 { return testutil.ToFloat64(f.service.serving.Metrics.Version("m", "v1").Late) }

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := f.service.Predict(ctx, refs("m"), fresh())
	require.NoError(t, err)
	require.Zero(t, late())
	close(open)
	require.Eventually(t, func() bool { return late() == 1 }, time.Minute, time.Millisecond)
	f.ask(t, fresh(), ref("m", ""))
	require.Equal(t, 1.0, late())
}

// TestKeepTravelsWithTheQuery: of a version that stores little, what is to be kept can be recalled,
// also when the query came over the wire or was passed on.
func TestKeepTravelsWithTheQuery(t *testing.T) {
	all := startMembers(t, 2)
	names := deployMany(t, all[0], enough)
	var away string
	for _, name := range names {
		if all[0].home(t, name) == all[1].address {
			away = name
		}
	}
	require.NotEmpty(t, away)
	const unused = 6000 // stores, after which little is stored
	for range unused {
		all[1].ask(t, fresh(), ref(away, "v1"))
	}
	recalled := func(in *tensor.Input) bool {
		found, err := all[1].service.Recall(t.Context(), []*internalv1.ModelReference{ref(away, "v1")}, in.Hash().Bytes())
		require.NoError(t, err)
		return found[0].Status == clipperv1.PredictionStatus_PREDICTION_STATUS_OK
	}
	ask := func(in *tensor.Input, wanted bool) {
		payload, err := proto.Marshal(&internalv1.PredictModels{
			Models: []*internalv1.ModelReference{ref(away, "v1")}, Input: in.Encoded(), Keep: wanted,
		})
		require.NoError(t, err)
		_, err = all[0].service.servePredict(t.Context(), payload)
		require.NoError(t, err)
	}
	var others []*tensor.Input
	for range 20 {
		in := fresh()
		others = append(others, in)
		ask(in, false)
	}
	for range 20 {
		in := fresh()
		ask(in, true)
		require.Eventually(t, func() bool { return recalled(in) }, time.Minute, time.Millisecond)
	}
	stored := 0
	for _, in := range others {
		if recalled(in) {
			stored++
		}
	}
	require.Less(t, stored, 10, "a sample of one in 256")
}
