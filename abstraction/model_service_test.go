// SPDX-License-Identifier: Apache-2.0

package abstraction

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/clipper-serving/clipper/containerrpc/containertest"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/store/storebolt"
)

func requireError(t *testing.T, err error, code codes.Code, reason clipperv1.ErrorReason, field string) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, code, status.Code(err), err)
	require.Equal(t, reason, apierror.Reason(err), err)
	require.Equal(t, field, apierror.ToProto(err).Field, err)
}

// later is the address of a container that nobody has started.
func later(t *testing.T) *clipperv1.Container {
	return addressOf(containertest.New(t, containertest.Echo))
}

func TestDeployRefusesWhatCannotBeStarted(t *testing.T) {
	f := start(t, settings{})
	adapter := func(framework, path string) *clipperv1.Container {
		return &clipperv1.Container{Source: &clipperv1.Container_Adapter{Adapter: &clipperv1.Adapter{Framework: framework, ModelPath: path}}}
	}
	missing := filepath.Join(t.TempDir(), "model.joblib")
	for name, tc := range map[string]struct {
		container   *clipperv1.Container
		code        codes.Code
		reason      clipperv1.ErrorReason
		field, want string
	}{
		"image": {
			&clipperv1.Container{Source: &clipperv1.Container_Image{Image: &clipperv1.Image{Reference: "a/b:1"}}},
			codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_LAUNCH_FAILED, "version.container", "this server has no launcher for images",
		},
		"framework": {
			adapter("torch", "/"), codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_LAUNCH_FAILED,
			"version.container.adapter.framework", "installed are sklearn",
		},
		"saved model": {
			adapter("sklearn", missing), codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_LAUNCH_FAILED,
			"version.container.adapter.model_path", missing,
		},
		"relative path": {
			adapter("sklearn", "model.joblib"), codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD,
			"version.container.adapter.model_path", "absolute",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.DeployModel(t.Context(), &clipperv1.DeployModelRequest{Version: &clipperv1.ModelVersion{Model: "m", Version: "v1", Container: tc.container}})
			requireError(t, err, tc.code, tc.reason, tc.field)
			require.ErrorContains(t, err, tc.want)
			_, err = f.GetModel(t.Context(), &clipperv1.GetModelRequest{Model: "m"})
			requireError(t, err, codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND, "model")
		})
	}
}

func TestAdministrationOfWhatDoesNotExistOrIsNotAllowed(t *testing.T) {
	f := start(t, settings{})
	f.deploy(t, "m", "v1", later(t))
	f.deploy(t, "m", "v2", later(t))
	ctx := t.Context()
	calls := map[string]func(model, version string) error{
		"GetModelVersion": func(m, v string) error {
			_, err := f.GetModelVersion(ctx, &clipperv1.GetModelVersionRequest{Model: m, Version: v})
			return err
		},
		"UpdateModelVersion": func(m, v string) error {
			_, err := f.UpdateModelVersion(ctx, &clipperv1.UpdateModelVersionRequest{Model: m, Version: v})
			return err
		},
		"SetCurrentVersion": func(m, v string) error {
			_, err := f.SetCurrentVersion(ctx, &clipperv1.SetCurrentVersionRequest{Model: m, Version: v})
			return err
		},
		"DeleteModelVersion": func(m, v string) error {
			_, err := f.DeleteModelVersion(ctx, &clipperv1.DeleteModelVersionRequest{Model: m, Version: v})
			return err
		},
	}
	whole := map[string]func(model string) error{
		"GetModel": func(m string) error {
			_, err := f.GetModel(ctx, &clipperv1.GetModelRequest{Model: m})
			return err
		},
		"DeleteModel": func(m string) error {
			_, err := f.DeleteModel(ctx, &clipperv1.DeleteModelRequest{Model: m})
			return err
		},
	}
	for name, call := range calls {
		whole[name] = func(m string) error { return call(m, "v1") }
		t.Run(name, func(t *testing.T) {
			requireError(t, call("m", "v9"), codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND, "version")
			requireError(t, call("m", ""), codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, "version")
			requireError(t, call("m", "../v1"), codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "version")
		})
	}
	for name, call := range whole {
		t.Run(name, func(t *testing.T) {
			requireError(t, call("x"), codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND, "model")
			requireError(t, call(""), codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, "model")
			requireError(t, call("a/b"), codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "model")
		})
	}
	requireError(t, calls["DeleteModelVersion"]("m", "v1"), codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_IN_USE, "version")
	_, err := f.DeployModel(ctx, &clipperv1.DeployModelRequest{Version: &clipperv1.ModelVersion{Model: "m", Version: "v1", Container: later(t)}})
	requireError(t, err, codes.AlreadyExists, clipperv1.ErrorReason_ERROR_REASON_VERSION_EXISTS, "version.version")
	_, err = f.UpdateModelVersion(ctx, &clipperv1.UpdateModelVersionRequest{Model: "m", Version: "v1", Replicas: proto.Uint32(1000)})
	requireError(t, err, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "replicas")
	_, err = f.UpdateModelVersion(ctx, &clipperv1.UpdateModelVersionRequest{Model: "m", Version: "v1", Batching: &clipperv1.Batching{Policy: "x"}})
	requireError(t, err, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "batching.policy")
	_, err = f.DeployModel(ctx, &clipperv1.DeployModelRequest{})
	requireError(t, err, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, "version")
}

func TestListModelsInPages(t *testing.T) {
	f := start(t, settings{})
	list := func(size uint32, token string) (names []string, next string) {
		resp, err := f.ListModels(t.Context(), &clipperv1.ListModelsRequest{PageSize: size, PageToken: token})
		require.NoError(t, err)
		for _, m := range resp.Models {
			require.Len(t, m.Versions, 1)
			require.Equal(t, "v1", m.CurrentVersion)
			names = append(names, m.Name)
		}
		return names, resp.NextPageToken
	}
	names, next := list(0, "")
	require.Empty(t, names)
	require.Empty(t, next)
	for _, m := range []string{"c", "a-b", "a", "a.b"} {
		f.deploy(t, m, "v1", later(t))
	}
	names, next = list(2, "")
	require.Equal(t, []string{"a", "a-b"}, names)
	require.NotEmpty(t, next)
	_, err := f.DeleteModel(t.Context(), &clipperv1.DeleteModelRequest{Model: "a-b"}) // a token outlives its model
	require.NoError(t, err)
	names, next = list(2, next)
	require.Equal(t, []string{"a.b", "c"}, names)
	require.Empty(t, next)

	for _, token := range []string{"%", "YS9i"} {
		_, err = f.ListModels(t.Context(), &clipperv1.ListModelsRequest{PageToken: token})
		requireError(t, err, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "page_token")
	}
	_, err = f.ListModels(t.Context(), &clipperv1.ListModelsRequest{PageSize: 1001})
	requireError(t, err, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "page_size")
}

func TestDeploysAndDeletesAtTheSameTime(t *testing.T) {
	f := start(t, settings{})
	errs := make([]error, 8)
	var all sync.WaitGroup
	for i := range errs {
		c := answering(t, i)
		all.Go(func() {
			_, errs[i] = f.DeployModel(t.Context(), &clipperv1.DeployModelRequest{Version: &clipperv1.ModelVersion{Model: "m", Version: "v1", Container: c}})
		})
	}
	all.Wait()
	winner := -1
	for i, err := range errs {
		if err == nil {
			require.Equal(t, -1, winner)
			winner = i
			continue
		}
		requireError(t, err, codes.AlreadyExists, clipperv1.ErrorReason_ERROR_REASON_VERSION_EXISTS, "version.version")
	}
	require.NotEqual(t, -1, winner)
	requireAnswer(t, winner, f.ask(t, fresh(), ref("m", ""))[0])

	for i := range errs {
		all.Go(func() {
			_, errs[i] = f.DeleteModel(t.Context(), &clipperv1.DeleteModelRequest{Model: "m"})
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			requireError(t, err, codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND, "model")
		}
	}
	_, err := f.GetModel(t.Context(), &clipperv1.GetModelRequest{Model: "m"})
	requireError(t, err, codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND, "model")
}

func TestDeleteGoesOnWhenItsCallerLeaves(t *testing.T) {
	f := start(t, settings{})
	open := make(chan struct{})
	c := containertest.Start(t, containertest.Gate(open, containertest.Echo))
	f.deploy(t, "m", "v1", addressOf(c))
	f.awaitState(t, "m", "v1", ready)
	asked := make(chan clipperv1.PredictionStatus)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		got, _ := f.service.Predict(ctx, refs("m"), fresh())
		asked <- got[0].Status
	}()
	require.Eventually(t, func() bool { return c.Rows() == 1 }, time.Minute, time.Millisecond)

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := f.DeleteModel(ctx, &clipperv1.DeleteModelRequest{Model: "m"})
	requireError(t, err, codes.DeadlineExceeded, clipperv1.ErrorReason_ERROR_REASON_DEADLINE, "")
	v := f.version(t, "m", "v1")
	require.Equal(t, clipperv1.ModelState_MODEL_STATE_DELETING, v.State)
	close(open)
	require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_OK, <-asked, "what was asked before is answered")
	if _, err := f.DeleteModel(t.Context(), &clipperv1.DeleteModelRequest{Model: "m"}); err != nil {
		requireError(t, err, codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND, "model")
	}
}

func TestVersionWithoutItsLauncherSaysSo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "store")
	f := start(t, settings{store: file})
	f.deploy(t, "m", "v1", answering(t, 1))
	f.stop()

	db, err := storebolt.Open(t.Context(), file)
	require.NoError(t, err)
	defer db.Close()
	s, err := New(Config{CacheSize: 1 << 20}, Deps{Store: db.Documents(), Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close(t.Context())) }()
	f = &fixture{modelService: modelService{service: s}}
	v := f.version(t, "m", "v1")
	require.Equal(t, failed, v.State)
	require.Contains(t, v.StateMessage, "cannot be run by this server")
}

func TestStoreThatIsGoneStopsAdministrationOnly(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	db, err := storebolt.Open(t.Context(), filepath.Join(t.TempDir(), "store"))
	require.NoError(t, err)
	s, err := New(Config{CacheSize: 1 << 20, DrainTimeout: time.Minute}, Deps{Store: db.Documents(), Logger: log, Registerer: prometheus.NewRegistry()})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close(t.Context())) }()
	f := &fixture{modelService: modelService{service: s}}
	require.Error(t, s.Ready(t.Context()))
	got, err := s.Predict(t.Context(), refs("m"), fresh())
	require.NoError(t, err)
	require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_UNAVAILABLE, got[0].Status)
	f.deploy(t, "m", "v1", addressOf(containertest.Start(t, containertest.Echo)))
	require.NoError(t, s.Ready(t.Context()))

	require.NoError(t, db.Close())
	_, err = f.GetModel(t.Context(), &clipperv1.GetModelRequest{Model: "m"})
	requireError(t, err, codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, "")
	_, err = f.DeployModel(t.Context(), &clipperv1.DeployModelRequest{Version: &clipperv1.ModelVersion{Model: "m", Version: "v2", Container: later(t)}})
	requireError(t, err, codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, "")
	require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_OK, f.ask(t, fresh(), ref("m", ""))[0].Status)
}
