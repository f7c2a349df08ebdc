// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// noLabel is the default output of the tests' applications. No model gives it.
const noLabel = -1

// input is a row as the tests' model takes it.
func input(x ...float64) []*clipperv1.Tensor {
	var data []byte
	for _, v := range x {
		data = binary.LittleEndian.AppendUint64(data, math.Float64bits(v))
	}
	return []*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT64, Shape: []int64{int64(len(x))}, Data: data}}
}

// label reads an output of the tests' model.
func label(t require.TestingT, outputs []*clipperv1.Tensor) int64 {
	require.Len(t, outputs, 1)
	require.Equal(t, clipperv1.DataType_DATA_TYPE_INT64, outputs[0].DataType)
	require.Empty(t, outputs[0].Shape)
	require.Len(t, outputs[0].Data, 8)
	return int64(binary.LittleEndian.Uint64(outputs[0].Data))
}

func truth(v float64) *clipperv1.FeedbackRequest_Truth {
	return &clipperv1.FeedbackRequest_Truth{Truth: structpb.NewNumberValue(v)}
}

// environment steers the tests' model.
type environment map[string]string

// version is a version of the tests' model.
func version(model, name string, env environment) *clipperv1.ModelVersion {
	return &clipperv1.ModelVersion{
		Model: model, Version: name,
		Container: &clipperv1.Container{
			Source:      &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: []string{programs.container}}},
			Environment: env,
		},
	}
}

// deploy deploys the version "1" of a model and waits until it is ready.
func (s *system) deploy(t *testing.T, model string, env environment) {
	t.Helper()
	s.deployVersion(t, version(model, "1", env))
}

func (s *system) deployVersion(t *testing.T, v *clipperv1.ModelVersion) {
	t.Helper()
	_, err := s.models.DeployModel(t.Context(), &clipperv1.DeployModelRequest{Version: v})
	require.NoError(t, err)
	s.awaitState(t, v.Model, v.Version, clipperv1.ModelState_MODEL_STATE_READY)
}

// awaitState waits until a version is in a state, and returns it.
func (s *system) awaitState(t *testing.T, model, version string, state clipperv1.ModelState) *clipperv1.ModelVersion {
	t.Helper()
	var got *clipperv1.ModelVersion
	require.EventuallyWithT(t, func(c *assertCollect) {
		response, err := s.models.GetModelVersion(t.Context(), &clipperv1.GetModelVersionRequest{Model: model, Version: version})
		require.NoError(c, err)
		got = response.Version
		require.Equal(c, state.String(), got.State.String(), got.StateMessage)
	}, patience, poll)
	return got
}

// application is an application of labels with the given policy and models. Its latency objective
// is so long that only what never answers misses it.
func application(name, policy string, models ...string) *clipperv1.Application {
	app := &clipperv1.Application{
		Name:             name,
		DefaultOutput:    structpb.NewNumberValue(noLabel),
		LatencyObjective: durationpb.New(20 * time.Second),
		Policy:           &clipperv1.Policy{Name: policy},
	}
	for _, m := range models {
		app.Models = append(app.Models, &clipperv1.ApplicationModel{Model: m})
	}
	return app
}

func (s *system) create(t *testing.T, app *clipperv1.Application) *clipperv1.Application {
	t.Helper()
	response, err := s.applications.CreateApplication(t.Context(), &clipperv1.CreateApplicationRequest{Application: app})
	require.NoError(t, err)
	return response.Application
}

// ask queries an application.
func (s *system) ask(t *testing.T, app string, x ...float64) *clipperv1.QueryResponse {
	t.Helper()
	return s.askAs(t, app, "", x...)
}

// askAs queries an application in a context.
func (s *system) askAs(t *testing.T, app, user string, x ...float64) *clipperv1.QueryResponse {
	t.Helper()
	response, err := s.queries.Query(t.Context(), &clipperv1.QueryRequest{Application: app, Context: user, Inputs: input(x...)})
	require.NoError(t, err)
	return response
}

// askSelector queries an application and returns the selector's answer. When the machine pauses for
// longer than an answer has to travel, the frontend gives its own, which says nothing of models; then it
// asks again.
func (s *system) askSelector(t *testing.T, app string, x ...float64) *clipperv1.QueryResponse {
	t.Helper()
	for range 10 {
		if r := s.ask(t, app, x...); len(r.Predictions) > 0 {
			return r
		}
	}
	require.FailNow(t, "the selector has not answered in time, ten times")
	return nil
}

// predicted requires that an answer is a prediction and returns it.
func predicted(t require.TestingT, r *clipperv1.QueryResponse) int64 {
	require.False(t, r.IsDefault, "the default output: %v", r)
	require.Equal(t, clipperv1.DefaultReason_DEFAULT_REASON_UNSPECIFIED, r.DefaultReason)
	return label(t, r.Outputs)
}

// defaulted requires that an answer is the default output and returns why.
func defaulted(t require.TestingT, r *clipperv1.QueryResponse) clipperv1.DefaultReason {
	require.True(t, r.IsDefault, "a prediction: %v", r)
	require.EqualValues(t, noLabel, label(t, r.Outputs))
	return r.DefaultReason
}

// learn tells the truth about an answer.
func (s *system) learn(t *testing.T, app string, r *clipperv1.QueryResponse, label float64) *clipperv1.FeedbackResponse {
	t.Helper()
	response, err := s.feedback.Feedback(t.Context(), &clipperv1.FeedbackRequest{
		Application: app, FeedbackId: r.FeedbackId, Observation: truth(label),
	})
	require.NoError(t, err)
	return response
}

// state returns what an application has learned.
func (s *system) state(t require.TestingT, app, user string) *clipperv1.GetSelectionStateResponse {
	response, err := s.applications.GetSelectionState(context.Background(), &clipperv1.GetSelectionStateRequest{Application: app, Context: user})
	require.NoError(t, err)
	return response
}

// weights returns the share of the weight that each model has.
func weights(state *clipperv1.GetSelectionStateResponse) map[string]float64 {
	of := map[string]float64{}
	for _, m := range state.Models {
		of[m.Model] = m.Weight
	}
	return of
}

// awaitObservations waits until as many feedbacks have been counted, and returns the state.
func (s *system) awaitObservations(t *testing.T, app, user string, n int) *clipperv1.GetSelectionStateResponse {
	t.Helper()
	var state *clipperv1.GetSelectionStateResponse
	require.EventuallyWithT(t, func(c *assertCollect) {
		state = s.state(c, app, user)
		require.EqualValues(c, n, state.Observations)
	}, patience, poll)
	return state
}

// rest is a call of the REST API.
type rest struct {
	method, url, body string
	header            http.Header
}

// call returns the HTTP status and the body of the answer, which is always JSON.
func (r rest) call(t *testing.T) (int, map[string]any) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), r.method, r.url, strings.NewReader(r.body))
	require.NoError(t, err)
	for key, values := range r.header {
		request.Header[key] = values
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	var object map[string]any
	decoder := json.NewDecoder(bytes.NewReader(text))
	require.NoError(t, decoder.Decode(&object), "%s", text)
	return response.StatusCode, object
}

// post posts a body to a path of an application on the query listener and requires success.
func (s *system) post(t *testing.T, app, path, body string) map[string]any {
	t.Helper()
	status, object := rest{method: http.MethodPost, url: s.queryURL + "/v1/applications/" + app + "/" + path, body: body}.call(t)
	require.Equal(t, http.StatusOK, status, object)
	return object
}
