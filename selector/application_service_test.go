// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

func TestCreateApplication_defaults(t *testing.T) {
	b := newBench(t, nil)
	got := b.create(t, &clipperv1.Application{
		Name: "app", DefaultOutput: structpb.NewNumberValue(0),
		Models:     []*clipperv1.ApplicationModel{{Model: "a"}, {Model: "b", Version: "v1"}},
		CreateTime: nil, Etag: "ignored",
	})
	require.NotEmpty(t, got.Etag)
	require.WithinDuration(t, time.Now(), got.CreateTime.AsTime(), time.Minute)
	want := &clipperv1.Application{
		Name:             "app",
		Inputs:           []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{-1}}},
		Output:           &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_LABEL, DataType: clipperv1.DataType_DATA_TYPE_INT64},
		LatencyObjective: durationpb.New(100 * time.Millisecond),
		FeedbackLifetime: durationpb.New(time.Hour),
		DefaultOutput:    structpb.NewNumberValue(0),
		Policy:           &clipperv1.Policy{Name: "exp4"},
		Models:           []*clipperv1.ApplicationModel{{Model: "a", Weight: 1}, {Model: "b", Version: "v1", Weight: 1}},
		PriorWeight:      10,
	}
	diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(want, "create_time", "update_time", "etag"))
	require.Empty(t, diff)

	read, err := b.admin.GetApplication(t.Context(), &clipperv1.GetApplicationRequest{Application: "app"})
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(got, read.Application, protocmp.Transform()), "as it was returned")

	single := b.create(t, minimal("single", "a"))
	require.Equal(t, "single", single.Policy.Name)
}

func TestCreateApplication_invalid(t *testing.T) {
	b := newBench(t, nil)
	b.create(t, minimal("taken", "a"))
	b.catalog.add("text", clipperv1.ModelState_MODEL_STATE_READY, &clipperv1.Signature{
		Inputs:  []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_STRING}},
		Outputs: []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_STRING}},
	})
	b.catalog.add("number", clipperv1.ModelState_MODEL_STATE_READY, &clipperv1.Signature{
		Inputs:  []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{4}}},
		Outputs: []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32}},
	})
	b.catalog.add("starting", clipperv1.ModelState_MODEL_STATE_STARTING, nil)
	const (
		bad     = clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD
		none    = clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD
		wrong   = clipperv1.ErrorReason_ERROR_REASON_POLICY_INVALID
		mispair = clipperv1.ErrorReason_ERROR_REASON_SIGNATURE_MISMATCH
	)
	for _, test := range []struct {
		field  string
		reason clipperv1.ErrorReason
		code   codes.Code
		change func(*clipperv1.Application)
	}{
		{"name", none, codes.InvalidArgument, func(a *clipperv1.Application) { a.Name = "" }},
		{"name", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.Name = "-a" }},
		{"context_lifetime", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.ContextLifetime = durationpb.New(59 * time.Second) }},
		{"context_lifetime", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.ContextLifetime = durationpb.New(-time.Hour) }},
		{"context_lifetime", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.ContextLifetime = durationpb.New(100_000 * time.Hour) }},
		{"name", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.Name = "a/b" }},
		{"name", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.Name = strings.Repeat("a", 64) }},
		{"name", clipperv1.ErrorReason_ERROR_REASON_APPLICATION_EXISTS, codes.AlreadyExists, func(a *clipperv1.Application) { a.Name = "taken" }},
		{"description", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.Description = strings.Repeat("a", 5000) }},
		{"confidence_threshold", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.ConfidenceThreshold = math.NaN() }},
		{"confidence_threshold", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.ConfidenceThreshold = 1.1 }},
		{"prior_weight", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.PriorWeight = math.Inf(1) }},
		{"latency_objective", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.LatencyObjective = durationpb.New(time.Microsecond) }},
		{"latency_objective", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.LatencyObjective = durationpb.New(2 * time.Hour) }},
		{"feedback_lifetime", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.FeedbackLifetime = durationpb.New(0) }},
		{"models", none, codes.InvalidArgument, func(a *clipperv1.Application) { a.Models = nil }},
		{"models", bad, codes.InvalidArgument, func(a *clipperv1.Application) {
			for i := range 64 {
				a.Models = append(a.Models, &clipperv1.ApplicationModel{Model: fmt.Sprint("m", i)})
			}
		}},
		{"models", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.Models[0].Shadow, a.Models[1].Shadow = true, true }},
		{"models", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.Models[0].Shadow, a.Models[0].Weight = true, 1 }},
		{"models[1]", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.Models[1].Model = "a" }},
		{"models[1].model", none, codes.InvalidArgument, func(a *clipperv1.Application) { a.Models[1].Model = "" }},
		{"models[1].model", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.Models[1].Model = "a b" }},
		{"models[1].model", clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND, codes.NotFound, func(a *clipperv1.Application) { a.Models[1].Model = "none" }},
		{"models[1].version", clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND, codes.NotFound, func(a *clipperv1.Application) { a.Models[1].Version = "v9" }},
		{"models[1].version", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.Models[1].Version = ":" }},
		{"models[1].group", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.Models[1].Group = " " }},
		{"models[1].weight", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.Models[1].Weight = -1 }},
		{"models[1].weight", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.Models[1].Weight = math.NaN() }},
		{"models[1]", mispair, codes.FailedPrecondition, func(a *clipperv1.Application) { a.Models[1].Model = "text" }},
		{"inputs", mispair, codes.FailedPrecondition, func(a *clipperv1.Application) { a.Models[0].Model = "starting" }},
		{"policy.name", wrong, codes.InvalidArgument, func(a *clipperv1.Application) { a.Policy = &clipperv1.Policy{Name: "best"} }},
		{"policy.parameters.eta", wrong, codes.InvalidArgument, func(a *clipperv1.Application) {
			a.Policy = &clipperv1.Policy{Name: "exp3", Parameters: map[string]float64{"eta": -1}}
		}},
		{"policy.parameters.speed", wrong, codes.InvalidArgument, func(a *clipperv1.Application) {
			a.Policy = &clipperv1.Policy{Parameters: map[string]float64{"speed": 1}}
		}},
		{"policy.parameters.gaussian", wrong, codes.InvalidArgument, func(a *clipperv1.Application) {
			a.Policy = &clipperv1.Policy{Name: "thompson", Parameters: map[string]float64{"gaussian": 0.5}}
		}},
		{"policy.parameters.dimension", wrong, codes.InvalidArgument, func(a *clipperv1.Application) {
			a.Policy = &clipperv1.Policy{Name: "linucb", Parameters: map[string]float64{"dimension": 8.5}}
		}},
		{"policy", wrong, codes.InvalidArgument, func(a *clipperv1.Application) {
			a.Policy = &clipperv1.Policy{Name: "linucb", Parameters: map[string]float64{"dimension": 32}}
			for i := range 12 {
				a.Models = append(a.Models, &clipperv1.ApplicationModel{Model: fmt.Sprint("m", i)})
			}
		}},
		{"inputs", bad, codes.InvalidArgument, func(a *clipperv1.Application) {
			a.Policy, a.Models = &clipperv1.Policy{Name: "linucb"}, []*clipperv1.ApplicationModel{{Model: "text"}}
			a.DefaultOutput = structpb.NewStringValue("x")
		}},
		{"inputs", bad, codes.InvalidArgument, func(a *clipperv1.Application) {
			a.Policy, a.Inputs = &clipperv1.Policy{Name: "linucb"}, []*clipperv1.TensorSpec{{Shape: []int64{4}}}
		}},
		{"output.loss", bad, codes.InvalidArgument, func(a *clipperv1.Application) {
			a.Output = &clipperv1.OutputSpec{Loss: 9}
		}},
		{"output.loss", bad, codes.InvalidArgument, func(a *clipperv1.Application) {
			a.Output = &clipperv1.OutputSpec{Loss: clipperv1.Loss_LOSS_LOG}
		}},
		{"output.loss", bad, codes.InvalidArgument, func(a *clipperv1.Application) {
			a.Models = []*clipperv1.ApplicationModel{{Model: "number"}}
			a.Output = &clipperv1.OutputSpec{Range: &clipperv1.NumberRange{Max: 1}, Loss: clipperv1.Loss_LOSS_ZERO_ONE}
		}},
		{"answer_early", bad, codes.InvalidArgument, func(a *clipperv1.Application) {
			a.Policy, a.AnswerEarly = &clipperv1.Policy{Name: "custom", Address: "localhost:7100"}, true
		}},
		{"inputs[0].shape", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.Inputs = []*clipperv1.TensorSpec{{Shape: []int64{-2}}} }},
		{"inputs[1].name", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.Inputs = []*clipperv1.TensorSpec{{Name: "x"}, {Name: "x"}} }},
		{"models[0]", mispair, codes.FailedPrecondition, func(a *clipperv1.Application) { a.Inputs = []*clipperv1.TensorSpec{{Shape: []int64{2, 2}}} }},
		{"models[0]", mispair, codes.FailedPrecondition, func(a *clipperv1.Application) {
			a.Inputs = []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_INT8, Shape: []int64{4}}}
		}},
		{"output.data_type", bad, codes.InvalidArgument, func(a *clipperv1.Application) {
			a.Output = &clipperv1.OutputSpec{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32}
		}},
		{"output.range", bad, codes.InvalidArgument, func(a *clipperv1.Application) {
			a.Output = &clipperv1.OutputSpec{Range: &clipperv1.NumberRange{Max: 1}}
		}},
		{"output.range", none, codes.InvalidArgument, func(a *clipperv1.Application) { a.Models = []*clipperv1.ApplicationModel{{Model: "number"}} }},
		{"output.range", bad, codes.InvalidArgument, func(a *clipperv1.Application) {
			a.Output = &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_NUMBER, Range: &clipperv1.NumberRange{Min: 1, Max: 1}}
		}},
		{"output.classes[1]", bad, codes.InvalidArgument, func(a *clipperv1.Application) {
			a.Output = &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_SCORES, Classes: []string{"x", "x"}}
		}},
		{"default_output", none, codes.InvalidArgument, func(a *clipperv1.Application) { a.DefaultOutput = nil }},
		{"default_output", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.DefaultOutput = structpb.NewNumberValue(0.5) }},
		{"default_output", bad, codes.InvalidArgument, func(a *clipperv1.Application) { a.DefaultOutput = structpb.NewStringValue("x") }},
	} {
		app := minimal("app", "a", "b")
		test.change(app)
		t.Run(test.field, func(t *testing.T) {
			_, err := b.admin.CreateApplication(t.Context(), &clipperv1.CreateApplicationRequest{Application: app})
			requireError(t, err, test.code, test.reason, test.field)
			require.True(t, strings.HasPrefix(err.Error(), "rpc error: code = "+test.code.String()+" desc = "+test.field), "the message names the field: %v", err)
		})
	}
	_, err := b.admin.CreateApplication(t.Context(), &clipperv1.CreateApplicationRequest{})
	requireError(t, err, codes.InvalidArgument, none, "application")
}

// TestCreateApplication_startingModel says that with its own specification an application does not have to
// wait for its models.
func TestCreateApplication_startingModel(t *testing.T) {
	b := newBench(t, nil)
	b.catalog.add("starting", clipperv1.ModelState_MODEL_STATE_STARTING, nil)
	app := minimal("app", "starting")
	app.Inputs = []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{4}}}
	_, err := b.admin.CreateApplication(t.Context(), &clipperv1.CreateApplicationRequest{Application: app})
	requireError(t, err, codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_SIGNATURE_MISMATCH, "output.kind")
	require.ErrorContains(t, err, "wait until the model is ready")
	b.catalog.add("silent", clipperv1.ModelState_MODEL_STATE_READY, nil)
	_, err = b.admin.CreateApplication(t.Context(), &clipperv1.CreateApplicationRequest{Application: minimal("app", "silent")})
	require.ErrorContains(t, err, `the model "silent" does not declare it: give output.kind`)
	app.Output = &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_LABEL}
	app.DefaultOutput = structpb.NewStringValue("unknown")
	require.Equal(t, clipperv1.DataType_DATA_TYPE_STRING, b.create(t, app).Output.DataType)
}

func TestListApplications(t *testing.T) {
	b := newBench(t, nil)
	for _, name := range []string{"c", "a", "e", "b", "d"} {
		b.create(t, minimal(name, "a"))
	}
	var names []string
	token, pages := "", 0
	for {
		r, err := b.admin.ListApplications(t.Context(), &clipperv1.ListApplicationsRequest{PageSize: 2, PageToken: token})
		require.NoError(t, err)
		for _, a := range r.Applications {
			names = append(names, a.Name)
		}
		pages++
		if token = r.NextPageToken; token == "" {
			break
		}
	}
	require.Equal(t, []string{"a", "b", "c", "d", "e"}, names)
	require.Equal(t, 3, pages)

	_, err := b.admin.ListApplications(t.Context(), &clipperv1.ListApplicationsRequest{PageToken: "?"})
	requireError(t, err, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "page_token")
	_, err = b.admin.ListApplications(t.Context(), &clipperv1.ListApplicationsRequest{PageSize: 1001})
	requireError(t, err, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "page_size")
}

func TestUpdateApplication(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 2}, "c": {label: 2}})
	created := b.create(t, minimal("app", "a", "b"))
	for range 20 {
		_, err := b.Feedback(t.Context(), truth("app", b.query(t, "app", "").FeedbackId, 1), nil)
		require.NoError(t, err)
	}
	learned := weight(b.state(t, "app", ""), "a")
	require.Greater(t, learned, 0.9)

	updated := b.update(t, &clipperv1.Application{Name: "app", Description: "new", ConfidenceThreshold: 0.25})
	require.Equal(t, "new", updated.Description)
	require.NotEqual(t, created.Etag, updated.Etag)
	require.True(t, proto.Equal(created.CreateTime, updated.CreateTime))
	require.True(t, proto.Equal(created.LatencyObjective, updated.LatencyObjective))

	_, err := b.admin.UpdateApplication(t.Context(), &clipperv1.UpdateApplicationRequest{Application: &clipperv1.Application{Name: "app", Etag: created.Etag}})
	requireError(t, err, codes.Aborted, clipperv1.ErrorReason_ERROR_REASON_CONFLICT, "etag")

	r, err := b.admin.UpdateApplication(t.Context(), &clipperv1.UpdateApplicationRequest{
		Application: &clipperv1.Application{Name: "app", Description: "not this", Etag: updated.Etag},
		UpdateMask:  &fieldmaskpb.FieldMask{Paths: []string{"confidence_threshold"}},
	})
	require.NoError(t, err)
	require.Equal(t, "new", r.Application.Description)
	require.Zero(t, r.Application.ConfidenceThreshold)

	// What was learned stays with the models that stay, and a new one begins as an average one.
	b.update(t, &clipperv1.Application{Name: "app", Models: minimal("", "c", "a", "b").Models})
	state := b.state(t, "app", "")
	require.InDelta(t, 20, state.Observations, 0)
	require.Greater(t, weight(state, "a"), weight(state, "c"))
	require.Greater(t, weight(state, "c"), weight(state, "b"))

	for field, request := range map[string]*clipperv1.UpdateApplicationRequest{
		"application": {},
		"name":        {Application: &clipperv1.Application{}},
		"update_mask": {Application: &clipperv1.Application{Name: "app"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"etag"}}},
		"models":      {Application: &clipperv1.Application{Name: "app"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"models"}}},
	} {
		_, err := b.admin.UpdateApplication(t.Context(), request)
		require.Error(t, err, field)
		require.Contains(t, err.Error(), field)
	}
	_, err = b.admin.UpdateApplication(t.Context(), &clipperv1.UpdateApplicationRequest{Application: &clipperv1.Application{Name: "none"}})
	requireError(t, err, codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, "application")
}

func TestUpdateApplication_concurrent(t *testing.T) {
	b := newBench(t, nil)
	b.create(t, minimal("app", "a", "b"))
	// Without an etag each changes only its own fields, so none is lost.
	errs := make(chan error)
	changes := []*clipperv1.Application{
		{Name: "app", Description: "new"}, {Name: "app", ConfidenceThreshold: 0.5}, {Name: "app", PriorWeight: 3},
	}
	for _, change := range changes {
		go func() {
			_, err := b.admin.UpdateApplication(t.Context(), &clipperv1.UpdateApplicationRequest{Application: change})
			errs <- err
		}()
	}
	for range changes {
		require.NoError(t, <-errs)
	}
	r, err := b.admin.GetApplication(t.Context(), &clipperv1.GetApplicationRequest{Application: "app"})
	require.NoError(t, err)
	require.Equal(t, "new", r.Application.Description)
	require.InDelta(t, 0.5, r.Application.ConfidenceThreshold, 0)
	require.InDelta(t, 3, r.Application.PriorWeight, 0)
}

func TestDeleteApplication(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 2}})
	created := b.create(t, minimal("app", "a", "b"))
	var id string
	for i := range 3 {
		id = b.query(t, "app", fmt.Sprint("user ", i)).FeedbackId
		_, err := b.Feedback(t.Context(), truth("app", id, 1), nil)
		require.NoError(t, err)
	}
	_, err := b.admin.DeleteApplication(t.Context(), &clipperv1.DeleteApplicationRequest{Application: "app", Etag: "old"})
	requireError(t, err, codes.Aborted, clipperv1.ErrorReason_ERROR_REASON_CONFLICT, "etag")
	_, err = b.admin.DeleteApplication(t.Context(), &clipperv1.DeleteApplicationRequest{Application: "app", Etag: created.Etag})
	require.NoError(t, err)
	keys, err := b.deps.Sums.Keys(t.Context(), "", "", 10)
	require.NoError(t, err)
	require.Empty(t, keys, "everything it learned is removed")

	_, err = b.Query(t.Context(), "app", "", input)
	requireError(t, err, codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, "application")
	_, err = b.admin.DeleteApplication(t.Context(), &clipperv1.DeleteApplicationRequest{Application: "app"})
	requireError(t, err, codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, "application")

	// One of the same name starts afresh.
	b.create(t, minimal("app", "a", "b"))
	require.Zero(t, b.state(t, "app", "user 1").Observations)
	_, err = b.Feedback(t.Context(), truth("app", id, 1), nil)
	requireError(t, err, codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_EXPIRED, "feedback_id")
}

func TestGetSelectionState(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 2}})
	app := minimal("app", "a", "b")
	app.Policy = &clipperv1.Policy{Name: "static"}
	app.Models[0].Weight, app.Models[1].Weight = 99, 1
	b.create(t, app)
	state := b.state(t, "app", "")
	require.Equal(t, "static", state.Policy)
	require.InDelta(t, 0.99, state.Models[0].Weight, 1e-9)
	require.InDelta(t, 0.01, state.Models[1].Probability, 1e-9)
	_, err := b.admin.GetSelectionState(t.Context(), &clipperv1.GetSelectionStateRequest{Application: "none"})
	requireError(t, err, codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, "application")
}

func TestModelServiceUnreachable(t *testing.T) {
	b := newBench(t, nil)
	b.catalog.err = missing("x", "y") // any error that is not expected is shown as it is
	_, err := b.admin.CreateApplication(t.Context(), &clipperv1.CreateApplicationRequest{Application: minimal("app", "a")})
	require.Error(t, err)
	b.catalog.err = errStopped()
	_, err = b.admin.CreateApplication(t.Context(), &clipperv1.CreateApplicationRequest{Application: minimal("app", "a")})
	requireError(t, err, codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "")
}
