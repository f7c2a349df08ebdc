// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/selector/custom/customtest"
)

// customApp is an application whose policy is a program of its own.
func customApp(p *customtest.Policy, models ...string) *clipperv1.Application {
	app := minimal("app", models...)
	app.Policy = &clipperv1.Policy{Name: "custom", Address: p.Address, Parameters: map[string]float64{"epsilon": 0.1}}
	return app
}

// customBench is a selector with such an application: the models a and b say 1 and 2.
func customBench(t *testing.T) (*bench, *customtest.Policy) {
	p := customtest.Start(t)
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 2}, "c": {label: 3}})
	app := customApp(p, "a", "b", "c")
	app.Models[0].Weight, app.Models[1].Weight, app.Models[2].Weight = 1, 3, 1
	app.Models[2].Shadow = true
	b.create(t, app)
	return b, p
}

// failures returns how often a call failed for a reason.
func (b *bench) failures(t *testing.T, call, reason string) float64 {
	families, err := b.deps.Registerer.(*prometheus.Registry).Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() != "clipper_selector_policy_failures_total" {
			continue
		}
		for _, m := range family.Metric {
			if labels := labelsOf(m); labels["call"] == call && labels["reason"] == reason {
				return m.Counter.GetValue()
			}
		}
	}
	return 0
}

func labelsOf(m *dto.Metric) map[string]string {
	labels := map[string]string{}
	for _, pair := range m.Label {
		labels[pair.GetName()] = pair.GetValue()
	}
	return labels
}

func TestCustom(t *testing.T) {
	b, p := customBench(t)
	r := b.query(t, "app", "")
	require.EqualValues(t, 1, label(t, r), "the policy takes the first")
	require.Equal(t, 0.75, r.Confidence)
	require.Len(t, r.Predictions, 3)
	require.True(t, r.Predictions[2].Shadow, "shadows are asked besides")

	asked := p.Latest().Select
	require.Equal(t, map[string]float64{"epsilon": 0.1}, asked.Parameters)
	require.Equal(t, []float64{1, 2, 3}, asked.Features)
	require.Len(t, asked.State.Models, 2, "a shadow has no part in the state")
	require.Equal(t, "b", asked.State.Models[1].Model)
	require.InDelta(t, 0.75, asked.State.Models[1].Weight, 1e-12)
	require.Equal(t, []float64{0, 0}, asked.State.Models[1].Statistics)
	combined := p.Latest().Combine
	require.Equal(t, clipperv1.OutputKind_OUTPUT_KIND_LABEL, combined.Output.Kind)
	require.Len(t, combined.Predictions, 2)
	require.Equal(t, 2.0, combined.Predictions[1].Prediction.GetNumberValue())

	f, err := b.Feedback(t.Context(), truth("app", r.FeedbackId, 2), nil)
	require.NoError(t, err)
	require.Len(t, f.Losses, 3)
	require.Len(t, p.Latest().Observe.Losses, 2)
	b.query(t, "app", "")
	require.Equal(t, []float64{1, 1}, p.Latest().Select.State.Models[0].Statistics)
	require.Equal(t, []float64{1, 0}, p.Latest().Select.State.Models[1].Statistics)
	state := b.state(t, "app", "")
	require.Equal(t, "custom", state.Policy)
	require.Equal(t, map[string]float64{"tries": 1, "regret": 1, "count": 1, "loss": 1}, state.Models[0].Statistics)
}

// TestCustom_contexts says that contexts and the shared prior are as with any policy.
func TestCustom_contexts(t *testing.T) {
	b, p := customBench(t)
	for range 20 {
		_, err := b.Feedback(t.Context(), truth("app", b.query(t, "app", "ann").FeedbackId, 2), nil)
		require.NoError(t, err)
	}
	b.query(t, "app", "bob")
	require.Equal(t, []float64{10, 10}, p.Latest().Select.State.Models[0].Statistics, "the shared state counts as ten observations")
	require.Equal(t, 20.0, b.state(t, "app", "ann").Observations)
}

func TestCustom_chooses(t *testing.T) {
	b, p := customBench(t)
	p.Play(customtest.Script{Select: func(context.Context, *clipperv1.SelectModelsRequest) (*clipperv1.SelectModelsResponse, error) {
		return &clipperv1.SelectModelsResponse{Choices: []*clipperv1.PolicyChoice{{Model: 1, Propensity: 0.3}}}, nil
	}})
	r := b.query(t, "app", "")
	require.EqualValues(t, 2, label(t, r))
	require.Len(t, r.Predictions, 2)
	require.Equal(t, 0.3, r.Predictions[0].Propensity)
	_, err := b.Feedback(t.Context(), truth("app", r.FeedbackId, 1), nil)
	require.NoError(t, err)
	losses := p.Latest().Observe.Losses
	require.Len(t, losses, 1)
	require.EqualValues(t, 1, losses[0].Choice.Model)
	require.Equal(t, 0.3, losses[0].Choice.Propensity)
	require.Equal(t, 1.0, losses[0].GetLoss())
}

// TestCustom_answers says that the answer is the policy's, whatever the models say.
func TestCustom_answers(t *testing.T) {
	b, p := customBench(t)
	combine := func(r *clipperv1.CombinePredictionsResponse) {
		p.Play(customtest.Script{Combine: func(context.Context, *clipperv1.CombinePredictionsRequest) (*clipperv1.CombinePredictionsResponse, error) {
			return r, nil
		}})
	}
	combine(customtest.Answer(7, 1))
	require.EqualValues(t, 7, label(t, b.query(t, "app", "")), "no model said so")

	combine(&clipperv1.CombinePredictionsResponse{Confidence: 0.2})
	r := b.query(t, "app", "")
	require.True(t, r.IsDefault)
	require.Equal(t, clipperv1.DefaultReason_DEFAULT_REASON_LOW_CONFIDENCE, r.DefaultReason)
	require.Equal(t, 0.2, r.Confidence)
}

// TestCustom_faults plays what a policy may do wrong when it chooses and combines. The query is answered
// in time all the same, from all models, by their weights.
func TestCustom_faults(t *testing.T) {
	choices := func(choices ...*clipperv1.PolicyChoice) customtest.Script {
		return customtest.Script{Select: func(context.Context, *clipperv1.SelectModelsRequest) (*clipperv1.SelectModelsResponse, error) {
			return &clipperv1.SelectModelsResponse{Choices: choices}, nil
		}}
	}
	answers := func(r *clipperv1.CombinePredictionsResponse) customtest.Script {
		return customtest.Script{Combine: func(context.Context, *clipperv1.CombinePredictionsRequest) (*clipperv1.CombinePredictionsResponse, error) {
			return r, nil
		}}
	}
	nan := math.NaN()
	for _, test := range []struct {
		name         string
		script       customtest.Script
		call, reason string
	}{
		{"nobody is chosen", choices(), "select", "invalid"},
		{"unknown model", choices(&clipperv1.PolicyChoice{Model: 2, Propensity: 1}), "select", "invalid"},
		{"far off model", choices(&clipperv1.PolicyChoice{Model: math.MaxUint32, Propensity: 1}), "select", "invalid"},
		{"chosen twice", choices(&clipperv1.PolicyChoice{Model: 1, Propensity: 1}, &clipperv1.PolicyChoice{Model: 1, Propensity: 1}), "select", "invalid"},
		{"propensity 0", choices(&clipperv1.PolicyChoice{Model: 1}), "select", "invalid"},
		{"propensity above 1", choices(&clipperv1.PolicyChoice{Model: 1, Propensity: 1.01}), "select", "invalid"},
		{"propensity NaN", choices(&clipperv1.PolicyChoice{Model: 1, Propensity: nan}), "select", "invalid"},
		{"select hangs", customtest.Script{Select: customtest.Hang[*clipperv1.SelectModelsRequest, *clipperv1.SelectModelsResponse]}, "select", "late"},
		{"select fails", customtest.Script{Select: func(context.Context, *clipperv1.SelectModelsRequest) (*clipperv1.SelectModelsResponse, error) {
			return nil, status.Error(codes.Internal, "broken")
		}}, "select", "failed"},
		{"another kind", answers(customtest.Answer("two", 1)), "combine", "invalid"},
		{"fraction", answers(customtest.Answer(1.5, 1)), "combine", "invalid"},
		{"answer NaN", answers(&clipperv1.CombinePredictionsResponse{Answer: structpb.NewNumberValue(nan)}), "combine", "invalid"},
		{"confidence NaN", answers(customtest.Answer(1, nan)), "combine", "invalid"},
		{"confidence below 0", answers(customtest.Answer(1, -0.1)), "combine", "invalid"},
		{"confidence above 1", answers(customtest.Answer(1, 1.1)), "combine", "invalid"},
		{"combine hangs", customtest.Script{Combine: customtest.Hang[*clipperv1.CombinePredictionsRequest, *clipperv1.CombinePredictionsResponse]}, "combine", "late"},
		{"combine is refused", customtest.Script{Combine: func(context.Context, *clipperv1.CombinePredictionsRequest) (*clipperv1.CombinePredictionsResponse, error) {
			return nil, status.Error(codes.ResourceExhausted, "busy")
		}}, "combine", "failed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, p := customBench(t)
			b.query(t, "app", "") // The policy has described itself.
			if test.reason == "late" {
				b.update(t, &clipperv1.Application{Name: "app", LatencyObjective: durationpb.New(time.Second)})
			}
			p.Play(test.script)
			r := b.query(t, "app", "")
			require.False(t, r.IsDefault)
			require.Len(t, r.Predictions, 3)
			for _, part := range r.Predictions {
				require.Equal(t, 1.0, part.Propensity)
			}
			if test.call == "select" {
				require.EqualValues(t, 1, label(t, r), "the policy still combines")
			} else {
				require.EqualValues(t, 2, label(t, r), "by weight")
				require.InDelta(t, 0.75, r.Confidence, 1e-9)
			}
			require.Equal(t, 1.0, b.failures(t, test.call, test.reason))
			p.Play(customtest.Script{})
			_, err := b.Feedback(t.Context(), truth("app", r.FeedbackId, 1), nil)
			require.NoError(t, err, "and is learned from")
		})
	}
}

// TestCustom_scores says that an answer is as long as the predictions.
func TestCustom_scores(t *testing.T) {
	p := customtest.Start(t)
	b := newBench(t, map[string]answer{"a": {tensor: numberTensor(0.25, 0.75)}, "b": {tensor: numberTensor(0.75, 0.25)}})
	b.catalog.add("a", clipperv1.ModelState_MODEL_STATE_READY, &clipperv1.Signature{})
	b.catalog.add("b", clipperv1.ModelState_MODEL_STATE_READY, &clipperv1.Signature{})
	app := customApp(p, "a", "b")
	app.Output = &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_SCORES}
	app.DefaultOutput = customtest.Answer([]any{0, 0}, 0).Answer
	b.create(t, app)
	combine := func(scores ...any) *clipperv1.QueryResponse {
		p.Play(customtest.Script{Combine: func(context.Context, *clipperv1.CombinePredictionsRequest) (*clipperv1.CombinePredictionsResponse, error) {
			return customtest.Answer(scores, 1), nil
		}})
		return b.query(t, "app", "")
	}
	require.Equal(t, numberTensor(0.9, 0.1).Data, combine(0.9, 0.1).Outputs[0].Data)
	require.Equal(t, numberTensor(0.5, 0.5).Data, combine(1, 0, 0).Outputs[0].Data, "the mean by weight instead")
	require.Equal(t, 1.0, b.failures(t, "combine", "invalid"))
}

// TestCustom_nothing is a policy that fails when no model has answered.
func TestCustom_nothing(t *testing.T) {
	failed := answer{status: clipperv1.PredictionStatus_PREDICTION_STATUS_FAILED}
	p := customtest.Start(t)
	b := newBench(t, map[string]answer{"a": failed})
	b.create(t, customApp(p, "a"))
	r := b.query(t, "app", "")
	require.Equal(t, clipperv1.DefaultReason_DEFAULT_REASON_MODELS_FAILED, r.DefaultReason, "the policy had nothing to combine")
	p.Play(customtest.Script{Combine: func(context.Context, *clipperv1.CombinePredictionsRequest) (*clipperv1.CombinePredictionsResponse, error) {
		return nil, status.Error(codes.Internal, "broken")
	}})
	r = b.query(t, "app", "")
	require.True(t, r.IsDefault)
	require.Equal(t, clipperv1.DefaultReason_DEFAULT_REASON_POLICY_FAILED, r.DefaultReason)
}

// TestCustom_straggler says that a policy has time to combine what has arrived.
func TestCustom_straggler(t *testing.T) {
	p := customtest.Start(t)
	b := newBench(t, map[string]answer{"a": {block: true}, "b": {label: 2}})
	app := customApp(p, "a", "b")
	app.LatencyObjective = durationpb.New(time.Second)
	b.create(t, app)
	r := b.query(t, "app", "")
	require.EqualValues(t, 2, label(t, r))
	require.Equal(t, 0.75, r.Confidence, "the policy's")
	require.Nil(t, p.Latest().Combine.Predictions[0].Prediction)
	require.Zero(t, b.failures(t, "combine", "late"))
}

// TestCustom_observe plays what a policy may do wrong when it learns. Nothing is learned, and the feedback may
// be sent again.
func TestCustom_observe(t *testing.T) {
	deltas := func(deltas ...[]float64) customtest.Script {
		r := &clipperv1.ObserveFeedbackResponse{}
		for _, d := range deltas {
			r.Models = append(r.Models, &clipperv1.PolicyDeltas{Deltas: d})
		}
		return customtest.Script{Observe: func(context.Context, *clipperv1.ObserveFeedbackRequest) (*clipperv1.ObserveFeedbackResponse, error) {
			return r, nil
		}}
	}
	for _, test := range []struct {
		name   string
		script customtest.Script
		reason string
	}{
		{"NaN", deltas([]float64{1, math.NaN()}), "invalid"},
		{"infinite", deltas([]float64{math.Inf(1), 0}), "invalid"},
		{"too short", deltas([]float64{1}), "invalid"},
		{"too long", deltas([]float64{1, 1, 1}), "invalid"},
		{"too many models", deltas(nil, nil, nil), "invalid"},
		{"bad after good", deltas([]float64{1, 1}, []float64{1}), "invalid"},
		{"hangs", customtest.Script{Observe: customtest.Hang[*clipperv1.ObserveFeedbackRequest, *clipperv1.ObserveFeedbackResponse]}, "late"},
		{"fails", customtest.Script{Observe: func(context.Context, *clipperv1.ObserveFeedbackRequest) (*clipperv1.ObserveFeedbackResponse, error) {
			return nil, status.Error(codes.InvalidArgument, "secret of the service")
		}}, "failed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, p := customBench(t)
			f := truth("app", b.query(t, "app", "ann").FeedbackId, 1)
			p.Play(test.script)
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
			defer cancel()
			_, err := b.Feedback(ctx, f, nil)
			requireError(t, err, codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_POLICY_FAILED, "")
			require.NotContains(t, err.Error(), "secret")
			require.Equal(t, 1.0, b.failures(t, "observe", test.reason))
			for _, user := range []string{"", "ann"} {
				state := b.state(t, "app", user)
				require.Zero(t, state.Observations)
				require.Zero(t, state.Models[0].Statistics["count"])
			}
			p.Play(customtest.Script{})
			r, err := b.Feedback(t.Context(), f, nil)
			require.NoError(t, err)
			require.False(t, r.Duplicate)
			require.Equal(t, 1.0, b.state(t, "app", "").Models[0].Statistics["tries"])
		})
	}
}

// TestCustom_dies kills the policy under queries, and lets it come back.
func TestCustom_dies(t *testing.T) {
	b, p := customBench(t)
	require.EqualValues(t, 1, label(t, b.query(t, "app", "")))
	described := p.Calls("describe")
	for range 3 {
		p.Kill()
		r := b.query(t, "app", "")
		require.EqualValues(t, 2, label(t, r), "the models' weights decide")
		_, err := b.Feedback(t.Context(), truth("app", r.FeedbackId, 1), nil)
		requireError(t, err, codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_POLICY_FAILED, "")

		p.Revive(t)
		require.Eventually(t, func() bool {
			r, err := b.Query(t.Context(), "app", "", input)
			return err == nil && label(t, r) == 1
		}, patience, 10*time.Millisecond, "it is found again")
		require.Greater(t, p.Calls("describe"), described, "and described itself anew")
		described = p.Calls("describe")
		_, err = b.Feedback(t.Context(), truth("app", r.FeedbackId, 1), nil)
		require.NoError(t, err)
	}
	require.Equal(t, 3.0, b.state(t, "app", "").Observations)
}

// TestCustom_diesInTheMiddle breaks off a call.
func TestCustom_diesInTheMiddle(t *testing.T) {
	b, p := customBench(t)
	b.query(t, "app", "")
	arrived := make(chan struct{})
	p.Play(customtest.Script{Combine: func(ctx context.Context, _ *clipperv1.CombinePredictionsRequest) (*clipperv1.CombinePredictionsResponse, error) {
		close(arrived)
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	answered := make(chan *clipperv1.QueryResponse, 1)
	go func() {
		r, _ := b.Query(context.Background(), "app", "", input)
		answered <- r
	}()
	<-arrived
	p.Kill()
	require.EqualValues(t, 2, label(t, <-answered))
	require.Equal(t, 1.0, b.failures(t, "combine", "unavailable"))
}

// TestCustom_otherStatistics is a policy that comes back with other sums.
func TestCustom_otherStatistics(t *testing.T) {
	b, p := customBench(t)
	_, err := b.Feedback(t.Context(), truth("app", b.query(t, "app", "").FeedbackId, 2), nil)
	require.NoError(t, err)
	p.Kill()
	p.Play(customtest.Script{
		Describe: func(context.Context, *clipperv1.DescribePolicyRequest) (*clipperv1.DescribePolicyResponse, error) {
			return &clipperv1.DescribePolicyResponse{Statistics: []string{"squares", "regret"}}, nil
		},
	})
	p.Revive(t)
	require.Eventually(t, func() bool {
		b.query(t, "app", "")
		return b.failures(t, "describe", "invalid") == 1
	}, patience, 10*time.Millisecond)
	r := b.query(t, "app", "")
	require.EqualValues(t, 2, label(t, r), "it is not asked")
	_, err = b.Feedback(t.Context(), truth("app", r.FeedbackId, 2), nil)
	requireError(t, err, codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_POLICY_FAILED, "")

	updated := b.update(t, &clipperv1.Application{Name: "app", Description: "with its new sums"})
	require.Equal(t, []string{"squares", "regret"}, updated.Policy.Statistics)
	require.EqualValues(t, 1, label(t, b.query(t, "app", "")))
	require.Equal(t, []float64{0, 1}, p.Latest().Select.State.Models[0].Statistics, "what has the same name is kept")
}

func TestCustom_create(t *testing.T) {
	p := customtest.Start(t)
	gone := customtest.Start(t)
	gone.Kill()
	describe := func(r *clipperv1.DescribePolicyResponse, err error) customtest.Script {
		return customtest.Script{Describe: func(context.Context, *clipperv1.DescribePolicyRequest) (*clipperv1.DescribePolicyResponse, error) {
			return r, err
		}}
	}
	named := func(names ...string) customtest.Script {
		return describe(&clipperv1.DescribePolicyResponse{Statistics: names}, nil)
	}
	many := make(map[string]float64)
	for i := range 65 {
		many[strings.Repeat("x", i+1)] = 1
	}
	const unreached = clipperv1.ErrorReason_ERROR_REASON_POLICY_FAILED
	const field, refused = clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, clipperv1.ErrorReason_ERROR_REASON_POLICY_INVALID
	for _, test := range []struct {
		name    string
		policy  *clipperv1.Policy
		script  customtest.Script
		code    codes.Code
		reason  clipperv1.ErrorReason
		field   string
		message string
	}{
		{"no address", &clipperv1.Policy{}, customtest.Script{}, codes.InvalidArgument, field, "policy.address", "localhost:7100"},
		{"no port", &clipperv1.Policy{Address: "localhost"}, customtest.Script{}, codes.InvalidArgument, field, "policy.address", "host:port"},
		{"a scheme", &clipperv1.Policy{Address: "xds:///policy"}, customtest.Script{}, codes.InvalidArgument, field, "policy.address", "host:port"},
		{"another machine", &clipperv1.Policy{Address: "policy.example:7100"}, customtest.Script{}, codes.InvalidArgument, field, "policy.address", "policy-hosts"},
		{"relative socket", &clipperv1.Policy{Address: "unix:policy.sock"}, customtest.Script{}, codes.InvalidArgument, field, "policy.address", "absolute"},
		{"long", &clipperv1.Policy{Address: strings.Repeat("x", 300)}, customtest.Script{}, codes.InvalidArgument, field, "policy.address", "256"},
		{"an address for another", &clipperv1.Policy{Name: "exp4", Address: p.Address}, customtest.Script{}, codes.InvalidArgument, field, "policy.address", "custom"},
		{"a parameter that is no number", &clipperv1.Policy{Address: p.Address, Parameters: map[string]float64{"x": math.NaN()}}, customtest.Script{}, codes.InvalidArgument, refused, "policy.parameters.x", "finite"},
		{"nobody there", &clipperv1.Policy{Address: gone.Address}, customtest.Script{}, codes.FailedPrecondition, unreached, "policy.address", "start the policy's service"},
		{"no socket", &clipperv1.Policy{Address: "unix:///none/policy.sock"}, customtest.Script{}, codes.FailedPrecondition, unreached, "policy.address", "start the policy's service"},
		{"refuses", &clipperv1.Policy{Address: p.Address}, describe(nil, status.Error(codes.InvalidArgument, "epsilon is 3, want 0 to 1")), codes.InvalidArgument, refused, "policy.parameters", "epsilon is 3, want 0 to 1"},
		{"not a policy", &clipperv1.Policy{Address: p.Address}, describe(nil, status.Error(codes.Unimplemented, "unknown service")), codes.FailedPrecondition, unreached, "policy.address", "SelectionPolicyService"},
		{"fails", &clipperv1.Policy{Address: p.Address}, describe(nil, status.Error(codes.Internal, "no licence")), codes.FailedPrecondition, unreached, "policy.address", "no licence"},
		{"too many statistics", &clipperv1.Policy{Address: p.Address}, named(make([]string, 65)...), codes.FailedPrecondition, unreached, "policy.address", "at most 64"},
		{"statistic without a name", &clipperv1.Policy{Address: p.Address}, named(""), codes.FailedPrecondition, unreached, "policy.address", "letters"},
		{"statistic with a slash", &clipperv1.Policy{Address: p.Address}, named("a/b"), codes.FailedPrecondition, unreached, "policy.address", "letters"},
		{"statistic twice", &clipperv1.Policy{Address: p.Address}, named("a", "a"), codes.FailedPrecondition, unreached, "policy.address", "twice"},
		{"statistic of ours", &clipperv1.Policy{Address: p.Address}, named("loss"), codes.FailedPrecondition, unreached, "policy.address", "every policy"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t, nil)
			p.Play(test.script)
			app := minimal("app", "a")
			app.Policy = test.policy
			if app.Policy.Name == "" {
				app.Policy.Name = "custom"
			}
			_, err := b.admin.CreateApplication(t.Context(), &clipperv1.CreateApplicationRequest{Application: app})
			requireError(t, err, test.code, test.reason, test.field)
			require.ErrorContains(t, err, test.message)
			_, err = b.application("app")
			require.Error(t, err)
		})
	}
	t.Run("answer early", func(t *testing.T) {
		b := newBench(t, nil)
		app := customApp(p, "a")
		app.AnswerEarly = true
		_, err := b.admin.CreateApplication(t.Context(), &clipperv1.CreateApplicationRequest{Application: app})
		requireError(t, err, codes.InvalidArgument, field, "answer_early")
	})
	t.Run("too many parameters", func(t *testing.T) {
		b := newBench(t, nil)
		app := minimal("app", "a")
		app.Policy = &clipperv1.Policy{Name: "custom", Address: p.Address, Parameters: many}
		_, err := b.admin.CreateApplication(t.Context(), &clipperv1.CreateApplicationRequest{Application: app})
		require.ErrorContains(t, err, "parameter")
	})
}

// TestCustom_change goes from a custom policy to another and back.
func TestCustom_change(t *testing.T) {
	b, p := customBench(t)
	p.Kill()
	_, err := b.admin.UpdateApplication(t.Context(), &clipperv1.UpdateApplicationRequest{Application: &clipperv1.Application{Name: "app", Description: "x"}})
	requireError(t, err, codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_POLICY_FAILED, "policy.address")

	updated := b.update(t, &clipperv1.Application{Name: "app", Policy: &clipperv1.Policy{Name: "exp4", Statistics: []string{"forged"}}})
	require.Empty(t, updated.Policy.Statistics)
	require.EqualValues(t, 2, label(t, b.query(t, "app", "")))

	p.Revive(t)
	b.update(t, &clipperv1.Application{Name: "app", Policy: &clipperv1.Policy{Name: "custom", Address: p.Address}})
	require.EqualValues(t, 1, label(t, b.query(t, "app", "")))
}

// TestCustom_forgets says that measurements and connections go with the application.
func TestCustom_forgets(t *testing.T) {
	b, _ := customBench(t)
	b.query(t, "app", "")
	families := func() int {
		n := 0
		all, err := b.deps.Registerer.(*prometheus.Registry).Gather()
		require.NoError(t, err)
		for _, family := range all {
			if strings.HasPrefix(family.GetName(), "clipper_selector_policy_") {
				n += len(family.Metric)
			}
		}
		return n
	}
	require.NotZero(t, families())
	_, err := b.admin.DeleteApplication(t.Context(), &clipperv1.DeleteApplicationRequest{Application: "app"})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return families() == 0 }, patience, time.Millisecond)
}

// BenchmarkQuery_custom is what a policy adds that answers at once, on this machine.
func BenchmarkQuery_custom(b *testing.B) {
	p := customtest.Start(b)
	bench := newBench(b, map[string]answer{"a": {label: 1}, "b": {label: 2}, "c": {label: 2}, "d": {label: 2}, "e": {label: 2}})
	bench.create(b, customApp(p, "a", "b", "c", "d", "e"))
	b.ReportAllocs()
	for b.Loop() {
		bench.query(b, "app", "")
	}
}
