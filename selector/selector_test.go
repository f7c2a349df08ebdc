// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/keep"
	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/internal/store/storeopen"
	"github.com/clipper-serving/clipper/internal/store/storetest"
	"github.com/clipper-serving/clipper/internal/tensor"
	"github.com/clipper-serving/clipper/selector/output"
	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/policies"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds the wait for what has no time of its own; only a test that fails uses it up.
const patience = 20 * time.Second

// answer is what a scripted model does.
type answer struct {
	label  int64
	status clipperv1.PredictionStatus // OK when unspecified
	block  bool                       // until the deadline
	delay  time.Duration              // before it answers
	tensor *clipperv1.Tensor          // instead of the label
}

// fakeModels answers by script.
type fakeModels struct {
	mu     sync.Mutex
	script map[string]answer
	asked  map[string]int
	err    error
	// kept is true when the last query's predictions were to be kept.
	kept bool
	// recalled has the hashes that were asked for.
	recalled [][16]byte
}

func newFakeModels(script map[string]answer) *fakeModels {
	return &fakeModels{script: script, asked: map[string]int{}}
}

func (f *fakeModels) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fakeModels) Predict(ctx context.Context, models []*internalv1.ModelReference, _ *tensor.Input) ([]*clipperv1.ModelPrediction, error) {
	f.mu.Lock()
	script, err := maps.Clone(f.script), f.err
	f.kept = keep.From(ctx)
	for _, m := range models {
		f.asked[m.Model]++
	}
	f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	predictions := make([]*clipperv1.ModelPrediction, len(models))
	late, wait := false, time.Duration(0)
	until, _ := ctx.Deadline()
	for i, m := range models {
		a, ok := script[m.Model]
		p := &clipperv1.ModelPrediction{Model: m.Model, Version: "v1", Status: clipperv1.PredictionStatus_PREDICTION_STATUS_OK}
		switch {
		case !ok:
			p.Status = clipperv1.PredictionStatus_PREDICTION_STATUS_NOT_FOUND
		case a.block || a.delay > 0 && a.delay >= time.Until(until):
			late = true
			p.Status = clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE
		case a.status != clipperv1.PredictionStatus_PREDICTION_STATUS_UNSPECIFIED:
			p.Status = a.status
		case a.tensor != nil:
			p.Outputs = []*clipperv1.Tensor{a.tensor}
		default:
			p.Outputs = []*clipperv1.Tensor{labelTensor(a.label)}
		}
		predictions[i] = p
		wait = max(wait, a.delay)
	}
	switch {
	case late:
		<-ctx.Done()
	case wait > 0:
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
	return predictions, nil
}

// Recall remembers what a model says that blocks or takes its time.
func (f *fakeModels) Recall(_ context.Context, models []*internalv1.ModelReference, hash [16]byte) ([]*clipperv1.ModelPrediction, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	f.recalled = append(f.recalled, hash)
	predictions := make([]*clipperv1.ModelPrediction, len(models))
	for i, m := range models {
		predictions[i] = &clipperv1.ModelPrediction{}
		if a := f.script[m.Model]; (a.block || a.delay > 0) && a.label != 0 {
			predictions[i].Status = clipperv1.PredictionStatus_PREDICTION_STATUS_OK
			predictions[i].Outputs = []*clipperv1.Tensor{labelTensor(a.label)}
		}
	}
	return predictions, nil
}

func labelTensor(label int64) *clipperv1.Tensor {
	spec := output.Spec{Task: policy.Task{Kind: policy.Label}, DataType: clipperv1.DataType_DATA_TYPE_INT64}
	return spec.Tensor(policy.Integer(label), nil)
}

func numberTensor(xs ...float64) *clipperv1.Tensor {
	spec := output.Spec{DataType: clipperv1.DataType_DATA_TYPE_FLOAT64}
	if len(xs) == 1 {
		return spec.Tensor(policy.Real(xs[0]), nil)
	}
	return spec.Tensor(policy.Vector(xs), nil)
}

// fakeCatalog knows models that take any list of floats and give an integer, but for those with a
// signature of their own.
type fakeCatalog struct {
	clipperv1.ModelServiceClient
	models map[string]*clipperv1.Model
	err    error
}

func newFakeCatalog(names ...string) *fakeCatalog {
	c := &fakeCatalog{models: map[string]*clipperv1.Model{}}
	for _, name := range names {
		c.add(name, clipperv1.ModelState_MODEL_STATE_READY, &clipperv1.Signature{
			Inputs:  []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{-1}}},
			Outputs: []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_INT64}},
		})
	}
	return c
}

func (c *fakeCatalog) add(name string, state clipperv1.ModelState, signature *clipperv1.Signature) {
	c.models[name] = &clipperv1.Model{Name: name, CurrentVersion: "v1", Versions: []*clipperv1.ModelVersion{
		{Model: name, Version: "v1", Current: true, State: state, Signature: signature},
	}}
}

func (c *fakeCatalog) GetModel(_ context.Context, r *clipperv1.GetModelRequest, _ ...grpc.CallOption) (*clipperv1.GetModelResponse, error) {
	if c.err != nil {
		return nil, c.err
	}
	m, ok := c.models[r.Model]
	if !ok {
		return nil, status.Error(codes.NotFound, "no such model")
	}
	return &clipperv1.GetModelResponse{Model: m}, nil
}

// bench is one selector and what it is connected to.
type bench struct {
	*Service
	admin   applicationService
	models  *fakeModels
	catalog *fakeCatalog
}

// openStore opens an embedded store at a path, so that it can be opened again.
func openStore(t testing.TB, path string) store.Store {
	s, err := storeopen.Open(t.Context(), "file:"+path)
	require.NoError(t, err)
	return s
}

func newStore(t testing.TB) store.Store {
	s := openStore(t, filepath.Join(t.TempDir(), "selector.db"))
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func start(t testing.TB, st store.Store, models *fakeModels) *bench {
	return startWith(t, st.Documents(), st.Sums(), models, Config{StateWait: time.Minute})
}

func startWith(t testing.TB, documents store.Documents, sums store.Sums, models *fakeModels, cfg Config) *bench {
	catalog := newFakeCatalog("a", "b", "c", "d", "e")
	s, err := New(cfg, Deps{
		Documents: documents, Sums: sums, Models: models, ModelService: catalog,
		Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	require.Eventually(t, func() bool { return s.Ready(t.Context()) == nil }, patience, time.Millisecond)
	return &bench{Service: s, admin: applicationService{service: s}, models: models, catalog: catalog}
}

// newBench is a selector on a store of its own.
func newBench(t testing.TB, script map[string]answer) *bench {
	return start(t, newStore(t), newFakeModels(script))
}

// minimal is the least that an application needs.
func minimal(name string, models ...string) *clipperv1.Application {
	app := &clipperv1.Application{Name: name, DefaultOutput: structpb.NewNumberValue(-1), LatencyObjective: durationpb.New(10 * time.Second)}
	for _, m := range models {
		app.Models = append(app.Models, &clipperv1.ApplicationModel{Model: m})
	}
	return app
}

func (b *bench) create(t testing.TB, app *clipperv1.Application) *clipperv1.Application {
	r, err := b.admin.CreateApplication(t.Context(), &clipperv1.CreateApplicationRequest{Application: app})
	require.NoError(t, err)
	return r.Application
}

var input = tensor.FromTensors([]*clipperv1.Tensor{numberTensor(1, 2, 3)})

func (b *bench) query(t testing.TB, app, userContext string) *clipperv1.QueryResponse {
	r, err := b.Query(t.Context(), app, userContext, input)
	require.NoError(t, err)
	return r
}

// label reads the answer.
func label(t testing.TB, r *clipperv1.QueryResponse) int64 {
	spec := output.Spec{Task: policy.Task{Kind: policy.Label}, DataType: clipperv1.DataType_DATA_TYPE_INT64}
	v, err := spec.Read(r.Outputs, nil)
	require.NoError(t, err)
	i, ok := v.Integer()
	require.True(t, ok)
	return i
}

func truth(app, id string, label float64) *clipperv1.FeedbackRequest {
	return &clipperv1.FeedbackRequest{Application: app, FeedbackId: id, Observation: &clipperv1.FeedbackRequest_Truth{Truth: structpb.NewNumberValue(label)}}
}

func (b *bench) state(t testing.TB, app, userContext string) *clipperv1.GetSelectionStateResponse {
	r, err := b.admin.GetSelectionState(t.Context(), &clipperv1.GetSelectionStateRequest{Application: app, Context: userContext})
	require.NoError(t, err)
	return r
}

func weight(r *clipperv1.GetSelectionStateResponse, model string) float64 {
	for _, m := range r.Models {
		if m.Model == model {
			return m.Weight
		}
	}
	return -1
}

func requireError(t testing.TB, err error, code codes.Code, reason clipperv1.ErrorReason, field string) {
	t.Helper()
	require.Error(t, err)
	e := apierror.ToProto(err)
	require.Equal(t, code, codes.Code(e.Code), "%v", err)
	require.Equal(t, reason, e.Reason, "%v", err)
	require.Equal(t, field, e.Field, "%v", err)
}

func TestQuery_ensemble(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 2}, "c": {label: 2}})
	b.create(t, minimal("app", "a", "b", "c"))
	r := b.query(t, "app", "")
	require.EqualValues(t, 2, label(t, r))
	require.False(t, r.IsDefault)
	require.InDelta(t, 2.0/3, r.Confidence, 1e-9)
	require.Len(t, r.Predictions, 3)
	require.NotEmpty(t, r.FeedbackId)
	for i, name := range []string{"a", "b", "c"} {
		require.Equal(t, name, r.Predictions[i].Model)
		require.Equal(t, "v1", r.Predictions[i].Version)
		require.Equal(t, 1.0, r.Predictions[i].Propensity)
		require.False(t, r.Predictions[i].Shadow)
	}
}

func TestQuery_policies(t *testing.T) {
	for _, name := range policies.Names() {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 1}, "c": {label: 5}})
			app := minimal("app", "a", "b", "c")
			app.Policy = &clipperv1.Policy{Name: name}
			app.Models[2].Shadow = true
			b.create(t, app)
			for range 20 {
				r := b.query(t, "app", "user")
				require.EqualValues(t, 1, label(t, r))
				require.InDelta(t, 1, r.Confidence, 1e-9)
				last := r.Predictions[len(r.Predictions)-1]
				require.True(t, last.Shadow)
				require.Equal(t, "c", last.Model)
				switch name {
				case "exp4", "majority", "mean":
					require.Len(t, r.Predictions, 3)
				default:
					require.Len(t, r.Predictions, 2)
				}
				_, err := b.Feedback(t.Context(), truth("app", r.FeedbackId, 1), nil)
				require.NoError(t, err)
			}
			shadow := b.state(t, "app", "").Models[2]
			require.Equal(t, 20.0, shadow.Statistics["count"], "shadow models are learned about")
			require.Equal(t, 20.0, shadow.Statistics["loss"])
			require.Zero(t, shadow.Weight)
		})
	}
}

func TestQuery_numbersAndScores(t *testing.T) {
	b := newBench(t, map[string]answer{
		"a": {tensor: numberTensor(2)}, "b": {tensor: numberTensor(4)},
		"c": {tensor: numberTensor(0.5, 0.5)}, "d": {tensor: numberTensor(0, 1)},
	})
	number := minimal("number", "a", "b")
	number.Output = &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_NUMBER, Range: &clipperv1.NumberRange{Min: 0, Max: 10}}
	b.catalog.models = newFakeCatalog().models
	for _, name := range []string{"a", "b", "c", "d"} {
		b.catalog.add(name, clipperv1.ModelState_MODEL_STATE_READY, &clipperv1.Signature{})
	}
	require.Equal(t, clipperv1.DataType_DATA_TYPE_FLOAT64, b.create(t, number).Output.DataType)
	r := b.query(t, "number", "")
	require.InDelta(t, 3, tensor.Float(r.Outputs[0], 0), 1e-9)
	require.InDelta(t, 0.9, r.Confidence, 1e-9)
	f, err := b.Feedback(t.Context(), truth("number", r.FeedbackId, 3.5), nil)
	require.NoError(t, err)
	require.InDelta(t, 0.15, f.Losses[0].Loss, 1e-9)
	require.InDelta(t, 0.05, f.Losses[1].Loss, 1e-9)

	scores := minimal("scores", "c", "d")
	scores.Output = &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_SCORES, Classes: []string{"cat", "dog"}}
	list, err := structpb.NewList([]any{1, 0})
	require.NoError(t, err)
	scores.DefaultOutput = structpb.NewListValue(list)
	b.create(t, scores)
	r = b.query(t, "scores", "")
	require.Equal(t, []int64{2}, r.Outputs[0].Shape)
	require.InDelta(t, 0.25, tensor.Float(r.Outputs[0], 0), 1e-9)
	require.InDelta(t, 0.75, tensor.Float(r.Outputs[0], 1), 1e-9)
	f, err = b.Feedback(t.Context(), &clipperv1.FeedbackRequest{
		Application: "scores", FeedbackId: r.FeedbackId,
		Observation: &clipperv1.FeedbackRequest_Truth{Truth: structpb.NewStringValue("dog")},
	}, nil)
	require.NoError(t, err)
	require.Equal(t, 1.0, f.Losses[0].Loss)
	require.Equal(t, 0.0, f.Losses[1].Loss)
}

func TestQuery_default(t *testing.T) {
	status := func(s clipperv1.PredictionStatus) answer { return answer{status: s} }
	failed := status(clipperv1.PredictionStatus_PREDICTION_STATUS_FAILED)
	noReplica := status(clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA)
	overloaded := status(clipperv1.PredictionStatus_PREDICTION_STATUS_OVERLOADED)
	for _, test := range []struct {
		name   string
		a, b   answer
		err    error
		reason clipperv1.DefaultReason
	}{
		{"deadline", answer{block: true}, failed, nil, clipperv1.DefaultReason_DEFAULT_REASON_DEADLINE},
		{"failed", failed, noReplica, nil, clipperv1.DefaultReason_DEFAULT_REASON_MODELS_FAILED},
		{"no replica", noReplica, noReplica, nil, clipperv1.DefaultReason_DEFAULT_REASON_NO_REPLICA},
		{"overloaded", overloaded, overloaded, nil, clipperv1.DefaultReason_DEFAULT_REASON_OVERLOADED},
		{"unusable", answer{tensor: numberTensor(0.5)}, answer{tensor: numberTensor(1, 2)}, nil, clipperv1.DefaultReason_DEFAULT_REASON_MODELS_FAILED},
		{"unreachable", answer{}, answer{}, apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "", "gone"), clipperv1.DefaultReason_DEFAULT_REASON_UNAVAILABLE},
		{"broken", answer{}, answer{}, errors.New("broken"), clipperv1.DefaultReason_DEFAULT_REASON_UNAVAILABLE},
		{"low confidence", answer{label: 1}, answer{label: 2}, nil, clipperv1.DefaultReason_DEFAULT_REASON_LOW_CONFIDENCE},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t, map[string]answer{"a": test.a, "b": test.b})
			b.models.fail(test.err)
			app := minimal("app", "a", "b")
			app.ConfidenceThreshold = 0.6
			app.LatencyObjective = durationpb.New(50 * time.Millisecond)
			b.create(t, app)
			r := b.query(t, "app", "")
			require.True(t, r.IsDefault)
			require.Equal(t, test.reason, r.DefaultReason)
			require.EqualValues(t, -1, label(t, r))
			require.NotEmpty(t, r.FeedbackId)
			require.Len(t, r.Predictions, 2)
			// Feedback for it is taken; there may be nothing to learn.
			_, err := b.Feedback(t.Context(), truth("app", r.FeedbackId, 1), nil)
			require.NoError(t, err)
		})
	}
}

func TestQuery_straggler(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 4}, "b": {block: true}})
	app := minimal("app", "a", "b")
	app.LatencyObjective = durationpb.New(50 * time.Millisecond)
	b.create(t, app)
	r := b.query(t, "app", "")
	require.EqualValues(t, 4, label(t, r))
	require.InDelta(t, 0.5, r.Confidence, 1e-9, "reduced by the weight that is missing")
	require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE, r.Predictions[1].Status)
}

func TestQuery_errors(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 4}})
	b.create(t, minimal("app", "a"))
	_, err := b.Query(t.Context(), "none", "", input)
	requireError(t, err, codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, "application")

	past, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	_, err = b.Query(past, "app", "", input)
	requireError(t, err, codes.DeadlineExceeded, clipperv1.ErrorReason_ERROR_REASON_DEADLINE, "")

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = b.Query(gone, "app", "", input)
	require.Equal(t, codes.Canceled, status.Code(err))

	b.models.fail(apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE, "inputs", "no"))
	_, err = b.Query(t.Context(), "app", "", input)
	requireError(t, err, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE, "inputs")
}

func TestFeedback_learns(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 2}, "c": {label: 3}})
	b.create(t, minimal("app", "a", "b", "c"))
	require.InDelta(t, 1.0/3, weight(b.state(t, "app", ""), "c"), 1e-9)
	for range 30 {
		r := b.query(t, "app", "")
		f, err := b.Feedback(t.Context(), truth("app", r.FeedbackId, 3), nil)
		require.NoError(t, err)
		require.False(t, f.Duplicate)
		require.Len(t, f.Losses, 3)
	}
	state := b.state(t, "app", "")
	require.Equal(t, "exp4", state.Policy)
	require.Equal(t, 30.0, state.Observations)
	require.Greater(t, weight(state, "c"), 0.95)
	require.Equal(t, 30.0, state.Models[0].Statistics["count"])
	require.Equal(t, 30.0, state.Models[0].Statistics["loss"])
	require.Zero(t, state.Models[2].Statistics["loss"])
	// This instance's own additions are seen at once.
	require.EqualValues(t, 3, label(t, b.query(t, "app", "")))
}

func TestFeedback_context(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 2}})
	app := minimal("app", "a", "b")
	app.PriorWeight = 5
	b.create(t, app)
	for range 20 {
		r := b.query(t, "app", "ann")
		_, err := b.Feedback(t.Context(), truth("app", r.FeedbackId, 1), nil)
		require.NoError(t, err)
	}
	ann, bob, shared := b.state(t, "app", "ann"), b.state(t, "app", "bob"), b.state(t, "app", "")
	require.Equal(t, 20.0, ann.Observations)
	require.Equal(t, 20.0, shared.Observations)
	require.Zero(t, bob.Observations)
	require.Greater(t, weight(shared, "a"), 0.9)
	require.Equal(t, weight(shared, "a"), weight(ann, "a"), "nothing that ann said counts twice")
	require.Equal(t, weight(shared, "a"), weight(bob, "a"), "a new context begins as the shared state is")
	for i := range 20 {
		b.teach(t, "app", "bob", 2)
		want := 5 / (5 + float64(i+1))
		got := b.state(t, "app", "bob").Models[0].Statistics["log_weight"]
		own := -0.1 * float64(i+1) // eta · (1 − the mean of 1 and 0), 0.2 · 0.5.
		require.InDelta(t, own+want*ann.Models[0].Statistics["log_weight"], got, 1e-9, "the prior fades")
	}
	require.Less(t, weight(b.state(t, "app", "bob"), "a"), 0.5)

	b.update(t, &clipperv1.Application{Name: "app", PriorWeight: -1})
	require.Equal(t, 0.5, weight(b.state(t, "app", "carl"), "a"), "no prior at all")
}

func (b *bench) update(t testing.TB, app *clipperv1.Application) *clipperv1.Application {
	r, err := b.admin.UpdateApplication(t.Context(), &clipperv1.UpdateApplicationRequest{Application: app})
	require.NoError(t, err)
	return r.Application
}

func TestFeedback_reward(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 1}, "c": {label: 3}})
	b.create(t, minimal("app", "a", "b", "c"))
	r := b.query(t, "app", "")
	f, err := b.Feedback(t.Context(), &clipperv1.FeedbackRequest{Application: "app", FeedbackId: r.FeedbackId, Observation: &clipperv1.FeedbackRequest_Reward{Reward: 0.75}}, nil)
	require.NoError(t, err)
	var losses []float64
	for _, l := range f.Losses {
		losses = append(losses, l.Loss)
	}
	require.Equal(t, []float64{0.25, 0.25, 0.75}, losses)
}

func TestFeedback_errors(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 2}})
	b.create(t, minimal("app", "a", "b"))
	b.create(t, minimal("other", "a"))
	id := b.query(t, "app", "").FeedbackId
	reward := func(x float64) *clipperv1.FeedbackRequest {
		return &clipperv1.FeedbackRequest{Application: "app", FeedbackId: id, Observation: &clipperv1.FeedbackRequest_Reward{Reward: x}}
	}
	app, err := b.application("app")
	require.NoError(t, err)
	w := &scratch{}
	old := b.seal(b.sealer.Load(), app, "", w, time.Now().Add(-2*time.Hour))
	nan := 0.0
	nan /= nan
	for _, test := range []struct {
		name   string
		f      *clipperv1.FeedbackRequest
		in     *tensor.Input
		code   codes.Code
		reason clipperv1.ErrorReason
		field  string
	}{
		{"unknown application", truth("none", id, 1), nil, codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, "application"},
		{"forged", truth("app", id[:len(id)-4]+"AAAA", 1), nil, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_INVALID, "feedback_id"},
		{"garbage", truth("app", "hello", 1), nil, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_INVALID, "feedback_id"},
		{"another application", truth("other", id, 1), nil, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_APPLICATION, "feedback_id"},
		{"expired", truth("app", old, 1), nil, codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_EXPIRED, "feedback_id"},
		{"fraction", truth("app", id, 1.5), nil, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_TRUTH_INVALID, "truth"},
		{"nothing", &clipperv1.FeedbackRequest{Application: "app", FeedbackId: id}, nil, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, "truth"},
		{"reward too large", reward(1.1), nil, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_TRUTH_INVALID, "reward"},
		{"reward NaN", reward(nan), nil, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_TRUTH_INVALID, "reward"},
		{"no query", truth("app", "", 1), nil, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, "feedback_id"},
		{"reward for an input", &clipperv1.FeedbackRequest{Application: "app", Observation: &clipperv1.FeedbackRequest_Reward{Reward: 1}}, input, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_TRUTH_INVALID, "reward"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := b.Feedback(t.Context(), test.f, test.in)
			requireError(t, err, test.code, test.reason, test.field)
		})
	}
	require.Zero(t, b.state(t, "app", "").Observations, "no state is harmed")
	_, err = b.Feedback(t.Context(), truth("app", id, 1), nil)
	require.NoError(t, err, "the feedback_id is as good as before")
}

func TestFeedback_duplicate(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 2}})
	b.create(t, minimal("app", "a", "b"))
	f := truth("app", b.query(t, "app", "ann").FeedbackId, 1)
	for i := range 5 {
		r, err := b.Feedback(t.Context(), f, nil)
		require.NoError(t, err)
		require.Equal(t, i > 0, r.Duplicate)
		require.Len(t, r.Losses, 2)
	}
	require.Equal(t, 1.0, b.state(t, "app", "ann").Observations)
	require.Equal(t, 1.0, b.state(t, "app", "").Observations)
}

func TestFeedback_byInput(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 2}})
	app := minimal("app", "a", "b")
	app.Policy = &clipperv1.Policy{Name: "exp3"}
	b.create(t, app)
	f := truth("app", "", 1)
	f.Context = "ann"
	for range 2 {
		r, err := b.Feedback(t.Context(), f, input)
		require.NoError(t, err)
		require.Len(t, r.Losses, 2, "every model is asked")
	}
	f.Id = "one"
	for i := range 2 {
		r, err := b.Feedback(t.Context(), f, input)
		require.NoError(t, err)
		require.Equal(t, i == 1, r.Duplicate)
	}
	state := b.state(t, "app", "ann")
	require.Equal(t, 3.0, state.Observations)
	require.Greater(t, weight(state, "a"), 0.5)

	b.models.fail(errors.New("gone"))
	_, err := b.Feedback(t.Context(), f, input)
	requireError(t, err, codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "")
}

// TestInstances is what several selectors on one store do: nothing is lost, nothing counts twice.
func TestInstances(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) (store.Store, store.Store){
		"bolt": func(t *testing.T) (store.Store, store.Store) {
			s := newStore(t)
			return s, s
		},
		"redis": func(t *testing.T) (store.Store, store.Store) {
			server := storetest.StartRedis(t)
			var stores []store.Store
			for range 2 {
				s, err := storeopen.Open(t.Context(), server.URL())
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, s.Close()) })
				stores = append(stores, s)
			}
			return stores[0], stores[1]
		},
	} {
		t.Run(name, func(t *testing.T) {
			one, other := open(t)
			models := newFakeModels(map[string]answer{"a": {label: 1}, "b": {label: 2}})
			instances := []*bench{start(t, one, models), start(t, other, models)}
			instances[0].create(t, minimal("app", "a", "b"))
			require.Eventually(t, func() bool {
				_, err := instances[1].application("app")
				return err == nil
			}, patience, time.Millisecond, "the other instance learns of the application")

			const writers, each = 4, 25
			var wg sync.WaitGroup
			failures := make(chan error, writers*each*2)
			for w := range writers {
				wg.Go(func() {
					for i := range each {
						r, err := instances[(w+i)%2].Query(t.Context(), "app", fmt.Sprintf("user %d", i%3), input)
						if err != nil {
							failures <- err
							continue
						}
						// The answer's feedback goes to both, and counts once.
						for _, b := range instances {
							if _, err := b.Feedback(t.Context(), truth("app", r.FeedbackId, 1), nil); err != nil {
								failures <- err
							}
						}
					}
				})
			}
			wg.Wait()
			close(failures)
			for err := range failures {
				require.NoError(t, err)
			}
			for _, b := range instances {
				require.Equal(t, float64(writers*each), b.state(t, "app", "").Observations)
				users := 0.0
				for i := range 3 {
					users += b.state(t, "app", fmt.Sprintf("user %d", i)).Observations
				}
				require.Equal(t, float64(writers*each), users)
			}
		})
	}
}

func TestRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "selector.db")
	models := newFakeModels(map[string]answer{"a": {label: 1}, "b": {label: 2}, "c": {label: 2}})
	before := openStore(t, path)
	b := start(t, before, models)
	b.create(t, minimal("app", "a", "b", "c"))
	for range 30 {
		_, err := b.Feedback(t.Context(), truth("app", b.query(t, "app", "ann").FeedbackId, 1), nil)
		require.NoError(t, err)
	}
	require.EqualValues(t, 1, label(t, b.query(t, "app", "ann")))
	id, want := b.query(t, "app", "ann").FeedbackId, b.state(t, "app", "ann")
	b.Close()
	require.NoError(t, before.Close())

	after := openStore(t, path)
	defer func() { require.NoError(t, after.Close()) }()
	b = start(t, after, models)
	defer b.Close()
	require.True(t, proto.Equal(want, b.state(t, "app", "ann")))
	require.EqualValues(t, 1, label(t, b.query(t, "app", "ann")), "the first answer uses what was learned")
	r, err := b.Feedback(t.Context(), truth("app", id, 1), nil)
	require.NoError(t, err, "a feedback_id from before is good")
	require.False(t, r.Duplicate)
}

// brokenSums is a store that does not answer.
type brokenSums struct{ store.Sums }

func (brokenSums) Get(context.Context, string) (map[string]float64, error) {
	return nil, fmt.Errorf("get: %w", store.ErrUnavailable)
}

func (brokenSums) Add(context.Context, string, time.Duration, ...store.Update) (bool, error) {
	return false, fmt.Errorf("add: %w", store.ErrUnavailable)
}

func TestStoreOutage(t *testing.T) {
	st := newStore(t)
	b := startWith(t, st.Documents(), brokenSums{}, newFakeModels(map[string]answer{"a": {label: 1}, "b": {label: 1}}), Config{})
	b.create(t, minimal("app", "a", "b"))
	r := b.query(t, "app", "ann")
	require.EqualValues(t, 1, label(t, r), "queries go on from the initial weights")
	_, err := b.Feedback(t.Context(), truth("app", r.FeedbackId, 1), nil)
	requireError(t, err, codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, "")
	_, err = b.admin.GetSelectionState(t.Context(), &clipperv1.GetSelectionStateRequest{Application: "app"})
	requireError(t, err, codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, "")
}

func TestWatchApplications(t *testing.T) {
	b := newBench(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	updates := make(chan []string, 16)
	done := make(chan error)
	go func() {
		done <- b.WatchApplications(ctx, func(apps []*clipperv1.Application) {
			names := []string{}
			for _, a := range apps {
				names = append(names, a.Name+"@"+a.Etag)
			}
			updates <- names
		})
	}()
	require.Empty(t, <-updates, "at once")
	want := []string{}
	for _, name := range []string{"y", "x"} {
		want = append(want, name+"@"+b.create(t, minimal(name, "a")).Etag)
	}
	slices.Sort(want)
	require.Eventually(t, func() bool { return slices.Equal(<-updates, want) }, patience, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
}

func BenchmarkQuery(b *testing.B) {
	bench := newBench(b, map[string]answer{"a": {label: 1}, "b": {label: 2}, "c": {label: 2}, "d": {label: 2}, "e": {label: 2}})
	bench.create(b, minimal("app", "a", "b", "c", "d", "e"))
	b.ReportAllocs()
	for b.Loop() {
		bench.query(b, "app", "")
	}
}
