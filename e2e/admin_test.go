// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
)

// testVersions deploys, switches, rolls back and deletes versions under an application.
func testVersions(t *testing.T, s *system) {
	const model, app, pinned = "versions", "versions", "versions-pinned"
	answers := func(want int64) func(*assertCollect) {
		return func(c *assertCollect) {
			r, err := s.queries.Query(t.Context(), &clipperv1.QueryRequest{Application: app, Inputs: input(1, 0)})
			require.NoError(c, err)
			require.EqualValues(c, want, predicted(c, r))
		}
	}
	setCurrent := func(version string) {
		response, err := s.models.SetCurrentVersion(t.Context(), &clipperv1.SetCurrentVersionRequest{Model: model, Version: version})
		require.NoError(t, err)
		require.Equal(t, version, response.Model.CurrentVersion)
	}
	remove := func(version string) error {
		_, err := s.models.DeleteModelVersion(t.Context(), &clipperv1.DeleteModelVersionRequest{Model: model, Version: version})
		return err
	}
	before := s.containers(t)

	s.deploy(t, model, nil)
	s.create(t, application(app, "", model))
	require.EqualValues(t, 1, predicted(t, s.ask(t, app, 1, 0)))

	// A later version becomes current when it is ready.
	s.deployVersion(t, version(model, "2", environment{"BIAS": "10"}))
	require.EventuallyWithT(t, answers(11), patience, poll)
	got, err := s.models.GetModel(t.Context(), &clipperv1.GetModelRequest{Model: model})
	require.NoError(t, err)
	require.Equal(t, "2", got.Model.CurrentVersion)
	require.Len(t, got.Model.Versions, 2)

	// And back, at once.
	setCurrent("1")
	require.EqualValues(t, 1, predicted(t, s.ask(t, app, 1, 0)))

	// One that is to wait does not become current.
	_, err = s.models.DeployModel(t.Context(), &clipperv1.DeployModelRequest{Version: version(model, "3", environment{"BIAS": "20"}), KeepCurrent: true})
	require.NoError(t, err)
	s.awaitState(t, model, "3", clipperv1.ModelState_MODEL_STATE_READY)
	require.EqualValues(t, 1, predicted(t, s.ask(t, app, 1, 0)))

	// An application can ask for a version.
	pin := application(pinned, "", model)
	pin.Models[0].Version = "3"
	s.create(t, pin)
	r := s.ask(t, pinned, 1, 0)
	require.EqualValues(t, 21, predicted(t, r))
	require.Equal(t, "3", r.Predictions[0].Version)

	// A version is immutable while it exists, and the current one stays.
	_, err = s.models.DeployModel(t.Context(), &clipperv1.DeployModelRequest{Version: version(model, "2", nil)})
	requireStatus(t, err, codes.AlreadyExists, clipperv1.ErrorReason_ERROR_REASON_VERSION_EXISTS)
	requireStatus(t, remove("1"), codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_IN_USE)
	require.NoError(t, remove("2"))
	_, err = s.models.GetModelVersion(t.Context(), &clipperv1.GetModelVersionRequest{Model: model, Version: "2"})
	requireStatus(t, err, codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND)

	// A name that was freed is another version: nothing of the old one is remembered.
	s.deployVersion(t, version(model, "2", environment{"BIAS": "30"}))
	setCurrent("2")
	require.EqualValues(t, 31, predicted(t, s.ask(t, app, 1, 0)))

	// With the model, everything of it goes; its applications stay and answer their default.
	_, err = s.models.DeleteModel(t.Context(), &clipperv1.DeleteModelRequest{Model: model})
	require.NoError(t, err)
	require.ElementsMatch(t, before, s.containers(t), "containers of a deleted model")
	r = s.ask(t, app, 1, 0)
	require.Equal(t, clipperv1.DefaultReason_DEFAULT_REASON_NO_REPLICA, defaulted(t, r))
	require.Equal(t, []clipperv1.PredictionStatus{clipperv1.PredictionStatus_PREDICTION_STATUS_NOT_FOUND}, statuses(r))
	_, err = s.models.GetModel(t.Context(), &clipperv1.GetModelRequest{Model: model})
	requireStatus(t, err, codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND)
	_, err = s.applications.DeleteApplication(t.Context(), &clipperv1.DeleteApplicationRequest{Application: app})
	require.NoError(t, err)
	_, err = s.queries.Query(t.Context(), &clipperv1.QueryRequest{Application: app, Inputs: input(1, 0)})
	requireStatus(t, err, codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND)
}

func requireStatus(t require.TestingT, err error, code codes.Code, reason clipperv1.ErrorReason) {
	require.Equal(t, code.String(), status.Code(err).String(), "%v", err)
	require.Equal(t, reason.String(), apierror.Reason(err).String(), "%v", err)
}

// testReplicas scales a version up and down, and kills a replica, while it is queried.
func testReplicas(t *testing.T, s *system) {
	const model, app = "replicas", "replicas"
	v := version(model, "1", nil)
	v.Cache = &clipperv1.Cache{Disabled: true}
	s.deployVersion(t, v)
	s.create(t, application(app, "", model))
	others := len(s.containers(t)) - 1

	ctx, stop := context.WithCancel(t.Context())
	var answered atomic.Int64
	var load sync.WaitGroup
	failures := make(chan string, 1)
	for range 4 {
		load.Go(func() {
			for ctx.Err() == nil {
				r, err := s.queries.Query(ctx, &clipperv1.QueryRequest{Application: app, Inputs: input(1, 1)})
				if ctx.Err() != nil {
					return
				}
				// A replica that is killed takes no query with it: another one gets it.
				if err != nil || r.IsDefault {
					select {
					case failures <- fmt.Sprintf("%v: %v", err, r):
					default:
					}
					return
				}
				answered.Add(1)
			}
		})
	}
	more := func() { // The load goes on.
		from := answered.Load()
		require.Eventually(t, func() bool { return answered.Load() >= from+20 || len(failures) > 0 }, patience, poll)
	}
	scale := func(n uint32) {
		_, err := s.models.UpdateModelVersion(t.Context(), &clipperv1.UpdateModelVersionRequest{Model: model, Version: "1", Replicas: &n})
		require.NoError(t, err)
		require.EventuallyWithT(t, func(c *assertCollect) {
			response, err := s.models.GetModelVersion(t.Context(), &clipperv1.GetModelVersionRequest{Model: model, Version: "1"})
			require.NoError(c, err)
			require.Equal(c, clipperv1.ModelState_MODEL_STATE_READY, response.Version.State, response.Version.StateMessage)
			require.Len(c, response.Version.ReplicaStatus, int(n))
			require.Len(c, s.containers(c), others+int(n))
		}, patience, poll)
		more()
	}
	more()
	known := s.containers(t)
	scale(3)

	// A replica that dies is started again, and its batches go to the others.
	victim := slices.DeleteFunc(s.containers(t), func(pid int) bool { return slices.Contains(known, pid) })[0]
	require.NoError(t, syscall.Kill(victim, syscall.SIGKILL))
	require.EventuallyWithT(t, func(c *assertCollect) {
		response, err := s.models.GetModelVersion(t.Context(), &clipperv1.GetModelVersionRequest{Model: model, Version: "1"})
		require.NoError(c, err)
		require.Equal(c, clipperv1.ModelState_MODEL_STATE_READY, response.Version.State, response.Version.StateMessage)
		restarts := uint32(0)
		for _, r := range response.Version.ReplicaStatus {
			restarts += r.Restarts
		}
		require.EqualValues(c, 1, restarts)
		require.NotContains(c, s.containers(c), victim)
		require.Len(c, s.containers(c), others+3)
	}, patience, poll)
	more()
	scale(1)
	stop()
	load.Wait()
	require.Empty(t, failures)
}

// testAdministration reads, changes and deletes, over gRPC and REST.
func testAdministration(t *testing.T, s *system) {
	s.deploy(t, "administration-a", nil)
	s.deploy(t, "administration-b", environment{"BIAS": "1"})
	get := func(name string) *clipperv1.Application {
		response, err := s.applications.GetApplication(t.Context(), &clipperv1.GetApplicationRequest{Application: name})
		require.NoError(t, err)
		return response.Application
	}

	const app = "administration"
	created := s.create(t, application(app, "exp4", "administration-a"))
	require.Empty(t, cmp.Diff(created, get(app), protocmp.Transform()))
	require.NotEmpty(t, created.Etag)
	require.NotNil(t, created.CreateTime)
	require.InDelta(t, 10, created.PriorWeight, 0)
	require.EqualValues(t, 3600, created.FeedbackLifetime.AsDuration().Seconds())

	s.learn(t, app, s.ask(t, app, 1, 0), 1)

	// What is named changes, at once, and nothing else; what was learned stays.
	change := proto.CloneOf(created)
	change.Description = "with two models"
	change.Models = append(change.Models, &clipperv1.ApplicationModel{Model: "administration-b", Weight: 1})
	change.ConfidenceThreshold = 1
	response, err := s.applications.UpdateApplication(t.Context(), &clipperv1.UpdateApplicationRequest{
		Application: change, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"description", "models"}},
	})
	require.NoError(t, err)
	require.Equal(t, "with two models", response.Application.Description)
	require.Len(t, response.Application.Models, 2)
	require.Zero(t, response.Application.ConfidenceThreshold)
	require.NotEqual(t, created.Etag, response.Application.Etag)
	require.Equal(t, []string{"administration-a", "administration-b"}, asked(s.ask(t, app, 1, 0)))
	s.awaitObservations(t, app, "", 1)

	_, err = s.applications.UpdateApplication(t.Context(), &clipperv1.UpdateApplicationRequest{
		Application: change, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"description"}},
	})
	requireStatus(t, err, codes.Aborted, clipperv1.ErrorReason_ERROR_REASON_CONFLICT)

	// Pages follow each other.
	for i := range 5 {
		s.create(t, application(fmt.Sprintf("administration-page-%d", i), "", "administration-a"))
	}
	var names []string
	for token := ""; ; {
		page, err := s.applications.ListApplications(t.Context(), &clipperv1.ListApplicationsRequest{PageSize: 2, PageToken: token})
		require.NoError(t, err)
		require.LessOrEqual(t, len(page.Applications), 2)
		for _, a := range page.Applications {
			names = append(names, a.Name)
		}
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	require.True(t, slices.IsSorted(names), names)
	require.Equal(t, 1, count(names, app))
	require.Equal(t, 1, count(names, "administration-page-4"))

	var models []string
	for token := ""; ; {
		page, err := s.models.ListModels(t.Context(), &clipperv1.ListModelsRequest{PageSize: 1, PageToken: token})
		require.NoError(t, err)
		for _, m := range page.Models {
			models = append(models, m.Name)
		}
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	require.True(t, slices.IsSorted(models), models)
	require.Equal(t, 1, count(models, "administration-b"))

	t.Run("REST", func(t *testing.T) {
		ok := func(method, path, body string) map[string]any {
			t.Helper()
			code, object := rest{method: method, url: s.adminURL + path, body: body}.call(t)
			require.Equal(t, http.StatusOK, code, object)
			return object
		}
		ok("POST", "/v1/models", fmt.Sprintf(`{"version": {"model": "administration-rest", "version": "1",
			"container": {"command": {"arguments": [%q]}, "environment": {"BIAS": "5"}}}}`, programs.container))
		s.awaitState(t, "administration-rest", "1", clipperv1.ModelState_MODEL_STATE_READY)
		require.Equal(t, "1", ok("GET", "/v1/models/administration-rest", "")["model"].(map[string]any)["current_version"])
		ok("POST", "/v1/applications", `{"name": "administration-rest", "default_output": -1, "latency_objective": "20s",
			"models": [{"model": "administration-rest"}]}`)
		require.EqualValues(t, 6, predicted(t, s.ask(t, "administration-rest", 1, 0)))
		got := ok("PATCH", "/v1/applications/administration-rest", `{"description": "changed"}`)["application"].(map[string]any)
		require.Equal(t, "changed", got["description"])
		require.Equal(t, "20s", got["latency_objective"])
		require.InDelta(t, 0, ok("GET", "/v1/applications/administration-rest/state", "")["observations"], 0)
		require.Contains(t, ok("GET", "/v1/applications?page_size=1", ""), "next_page_token")
		ok("PATCH", "/v1/models/administration-rest/versions/1", `{"replicas": 2}`)
		s.awaitState(t, "administration-rest", "1", clipperv1.ModelState_MODEL_STATE_READY)
		ok("PUT", "/v1/models/administration-rest/current-version", `{"version": "1"}`)
		ok("DELETE", "/v1/applications/administration-rest", "")
		ok("DELETE", "/v1/models/administration-rest", "")
	})

	t.Run("deleted and created again", func(t *testing.T) {
		old := s.ask(t, app, 2, 0)
		_, err := s.applications.DeleteApplication(t.Context(), &clipperv1.DeleteApplicationRequest{Application: app})
		require.NoError(t, err)
		s.create(t, application(app, "exp4", "administration-a"))
		require.Zero(t, s.state(t, app, "").Observations, "nothing is left of what was learned")
		_, err = s.feedback.Feedback(t.Context(), &clipperv1.FeedbackRequest{Application: app, FeedbackId: old.FeedbackId, Observation: truth(2)})
		require.Equal(t, codes.FailedPrecondition, status.Code(err), "feedback for the application of before: %v", err)
	})
}

func count(list []string, of string) (n int) {
	for _, s := range list {
		if s == of {
			n++
		}
	}
	return n
}

// testConcurrentAdministration lets many do the same at once: one wins, and the others hear why not.
func testConcurrentAdministration(t *testing.T, s *system) {
	s.deploy(t, "concurrent", nil)
	const n = 12
	race := func(what string, lost codes.Code, do func(i int) error) {
		t.Helper()
		results := make([]error, n)
		var group sync.WaitGroup
		for i := range n {
			group.Go(func() { results[i] = do(i) })
		}
		group.Wait()
		won := 0
		for _, err := range results {
			if err == nil {
				won++
				continue
			}
			require.Equal(t, lost.String(), status.Code(err).String(), "%s: %v", what, err)
			require.NotEqual(t, clipperv1.ErrorReason_ERROR_REASON_UNSPECIFIED, apierror.Reason(err), "%s: %v", what, err)
		}
		require.Equal(t, 1, won, what)
	}
	race("create application", codes.AlreadyExists, func(i int) error {
		app := application("concurrent", "", "concurrent")
		app.Description = fmt.Sprint(i)
		_, err := s.applications.CreateApplication(t.Context(), &clipperv1.CreateApplicationRequest{Application: app})
		return err
	})
	response, err := s.applications.GetApplication(t.Context(), &clipperv1.GetApplicationRequest{Application: "concurrent"})
	require.NoError(t, err)
	race("update application", codes.Aborted, func(i int) error {
		_, err := s.applications.UpdateApplication(t.Context(), &clipperv1.UpdateApplicationRequest{
			Application: &clipperv1.Application{Name: "concurrent", Etag: response.Application.Etag, Description: fmt.Sprint("changed by ", i)},
			UpdateMask:  &fieldmaskpb.FieldMask{Paths: []string{"description"}},
		})
		return err
	})
	race("delete application", codes.NotFound, func(int) error {
		_, err := s.applications.DeleteApplication(t.Context(), &clipperv1.DeleteApplicationRequest{Application: "concurrent"})
		return err
	})
	race("deploy version", codes.AlreadyExists, func(i int) error {
		v := version("concurrent", "2", environment{"BIAS": fmt.Sprint(i)})
		_, err := s.models.DeployModel(t.Context(), &clipperv1.DeployModelRequest{Version: v, KeepCurrent: true})
		return err
	})
	s.awaitState(t, "concurrent", "2", clipperv1.ModelState_MODEL_STATE_READY)
}
