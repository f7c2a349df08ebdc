// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/selector/decisionlog"
	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/token"
)

func (b *bench) explain(t testing.TB, r *clipperv1.ExplainSelectionRequest) *clipperv1.ExplainSelectionResponse {
	response, err := b.admin.ExplainSelection(t.Context(), r)
	require.NoError(t, err)
	return response
}

func reward(app, id string, x float64) *clipperv1.FeedbackRequest {
	return &clipperv1.FeedbackRequest{Application: app, FeedbackId: id, Observation: &clipperv1.FeedbackRequest_Reward{Reward: x}}
}

func TestExplainSelection(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 2}, "c": {status: clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA}, "d": {label: 7}})
	app := minimal("app", "a", "b", "c", "d")
	app.Models[1].Weight, app.Models[0].Weight, app.Models[2].Weight, app.Models[3].Shadow = 2, 1, 1, true
	b.create(t, app)
	first := b.query(t, "app", "ann")
	b.query(t, "app", "bob")
	feedback, err := b.Feedback(t.Context(), truth("app", first.FeedbackId, 2), nil)
	require.NoError(t, err)

	got := b.explain(t, &clipperv1.ExplainSelectionRequest{Application: "app", Context: "ann"})
	require.Empty(t, cmp.Diff(b.state(t, "app", "ann"), got.State, protocmp.Transform()))
	id, ok := token.IDOf(first.FeedbackId)
	require.True(t, ok)
	status := func(m *clipperv1.DecisionModel, s clipperv1.PredictionStatus) *clipperv1.DecisionModel {
		m.Status, m.Version, m.Propensity = s, "v1", 1
		return m
	}
	require.Len(t, got.Decisions, 1, "of this context")
	d := got.Decisions[0]
	require.WithinDuration(t, time.Now(), d.Time.AsTime(), time.Minute)
	require.Positive(t, d.Latency.AsDuration())
	require.WithinDuration(t, time.Now(), d.Feedback.Time.AsTime(), time.Minute)
	want := &clipperv1.Decision{
		Id: fmt.Sprintf("%x", id), Application: "app", Context: "ann", Policy: "exp4",
		Models: []*clipperv1.DecisionModel{
			status(&clipperv1.DecisionModel{Model: "a", Weight: 0.25, Prediction: structpb.NewNumberValue(1)}, clipperv1.PredictionStatus_PREDICTION_STATUS_OK),
			status(&clipperv1.DecisionModel{Model: "b", Weight: 0.5, Prediction: structpb.NewNumberValue(2)}, clipperv1.PredictionStatus_PREDICTION_STATUS_OK),
			status(&clipperv1.DecisionModel{Model: "c", Weight: 0.25}, clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA),
			status(&clipperv1.DecisionModel{Model: "d", Shadow: true, Prediction: structpb.NewNumberValue(7)}, clipperv1.PredictionStatus_PREDICTION_STATUS_OK),
		},
		Output: structpb.NewNumberValue(2), Confidence: 0.5,
		Feedback: &clipperv1.DecisionFeedback{Truth: structpb.NewNumberValue(2), Reward: proto.Float64(1), Losses: feedback.Losses},
	}
	require.Empty(t, cmp.Diff(want, d, protocmp.Transform(), protocmp.IgnoreFields(d, "time", "latency"), protocmp.IgnoreFields(d.Feedback, "time")))

	all := b.explain(t, &clipperv1.ExplainSelectionRequest{Application: "app"}).Decisions
	require.Len(t, all, 2)
	require.Equal(t, "bob", all[0].Context, "the newest first")
	require.Nil(t, all[0].Feedback)
	require.Len(t, b.explain(t, &clipperv1.ExplainSelectionRequest{Application: "app", Decisions: 1}).Decisions, 1)

	// A decision keeps what decided then.
	b.update(t, &clipperv1.Application{Name: "app", Policy: &clipperv1.Policy{Name: "single"}})
	b.query(t, "app", "bob")
	all = b.explain(t, &clipperv1.ExplainSelectionRequest{Application: "app"}).Decisions
	require.Equal(t, []string{"single", "exp4", "exp4"}, []string{all[0].Policy, all[1].Policy, all[2].Policy})

	_, err = b.admin.DeleteApplication(t.Context(), &clipperv1.DeleteApplicationRequest{Application: "app"})
	require.NoError(t, err)
	b.create(t, minimal("app", "a"))
	require.Empty(t, b.explain(t, &clipperv1.ExplainSelectionRequest{Application: "app"}).Decisions, "they are another application's")

	for _, test := range []struct {
		request *clipperv1.ExplainSelectionRequest
		code    codes.Code
		reason  clipperv1.ErrorReason
		field   string
	}{
		{&clipperv1.ExplainSelectionRequest{Application: "none"}, codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, "application"},
		{&clipperv1.ExplainSelectionRequest{Application: "app", Decisions: 101}, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "decisions"},
	} {
		_, err := b.admin.ExplainSelection(t.Context(), test.request)
		requireError(t, err, test.code, test.reason, test.field)
	}
}

// What was told of the answer is shown, or what the truth says of it, the default output included.
func TestExplainSelection_reward(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {status: clipperv1.PredictionStatus_PREDICTION_STATUS_FAILED}, "c": {label: 3}})
	b.create(t, minimal("app", "a"))
	sure := minimal("sure", "a", "c")
	sure.ConfidenceThreshold = 1
	b.create(t, sure)
	for _, test := range []struct {
		app      string
		feedback func(app, id string, x float64) *clipperv1.FeedbackRequest
		told     float64
		want     float64
		output   float64
		reason   clipperv1.DefaultReason
	}{
		{"app", truth, 1, 1, 1, clipperv1.DefaultReason_DEFAULT_REASON_UNSPECIFIED},
		{"app", truth, 2, 0, 1, clipperv1.DefaultReason_DEFAULT_REASON_UNSPECIFIED},
		{"app", reward, 0.25, 0.25, 1, clipperv1.DefaultReason_DEFAULT_REASON_UNSPECIFIED},
		{"sure", truth, -1, 1, -1, clipperv1.DefaultReason_DEFAULT_REASON_LOW_CONFIDENCE},
		{"sure", truth, 1, 0, -1, clipperv1.DefaultReason_DEFAULT_REASON_LOW_CONFIDENCE},
	} {
		r := b.query(t, test.app, "")
		_, err := b.Feedback(t.Context(), test.feedback(test.app, r.FeedbackId, test.told), nil)
		require.NoError(t, err)
		d := b.explain(t, &clipperv1.ExplainSelectionRequest{Application: test.app, Decisions: 1}).Decisions[0]
		require.Equal(t, test.want, d.Feedback.GetReward(), "%+v", test)
		require.Equal(t, test.output, d.Output.GetNumberValue(), "%+v", test)
		require.Equal(t, test.reason, d.DefaultReason)
	}
}

func TestRecent(t *testing.T) {
	const size = 4
	r := newRecent(size)
	start := time.Unix(1000, 0)
	for i := range byte(10) {
		require.True(t, r.wants(start.Add(time.Duration(i)*recentSpacing)))
		r.add(&decision{id: token.ID{i + 1}})
	}
	ids := func(fits func(*decision) bool) (ids []byte) {
		for _, d := range r.latest(3, fits) {
			ids = append(ids, d.id[0])
		}
		return ids
	}
	all := func(*decision) bool { return true }
	require.Equal(t, []byte{10, 9, 8}, ids(all))
	require.Equal(t, []byte{7}, ids(func(d *decision) bool { return d.id[0] < 8 }))
	require.Len(t, r.byID, size)
	require.Nil(t, r.find(token.ID{6}))
	require.Equal(t, byte(7), r.find(token.ID{7}).id[0])

	// Of a busy application as many as there is room for, then one in each spacing.
	r = newRecent(size)
	kept := 0
	const queries = 1000
	for i := range queries {
		if r.wants(start.Add(time.Duration(i) * recentSpacing / 10)) {
			kept++
		}
	}
	require.InDelta(t, size+queries/10, kept, 2)
}

// Large outputs are not kept: of scores the class is, of a text nothing.
func TestKeep(t *testing.T) {
	room := token.MaxValues
	small := []float64{0.25, 0.75}
	kept := retain(policy.Vector(small), &room)
	small[0] = 9 // The memory of a query is used again.
	xs, _ := kept.Vector()
	require.Equal(t, []float64{0.25, 0.75}, xs)
	large := make([]float64, token.MaxValues/4)
	large[5] = 1
	class, ok := retain(policy.Vector(large), &room).TopClass()
	require.True(t, ok, "it does not fit beside the first")
	require.Equal(t, 5, class)
	require.True(t, retain(policy.Text(strings.Repeat("x", token.MaxValues)), &room).Missing())
	require.Equal(t, policy.Text("x"), retain(policy.Text("x"), &room))
}

// Queries, feedback and explanations go on at once.
func TestExplainSelection_concurrent(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}})
	b.create(t, minimal("app", "a"))
	var callers sync.WaitGroup
	for i := range 4 {
		callers.Go(func() {
			for range 100 {
				r, err := b.Query(t.Context(), "app", fmt.Sprint(i), input)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := b.Feedback(t.Context(), truth("app", r.FeedbackId, 1), nil); err != nil {
					t.Error(err)
				}
				if _, err := b.admin.ExplainSelection(t.Context(), &clipperv1.ExplainSelectionRequest{Application: "app", Decisions: 100}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
}

func newLoggingBench(t testing.TB, dir string, script map[string]answer) *bench {
	st := newStore(t)
	return startWith(t, st.Documents(), st.Sums(), newFakeModels(script), Config{StateWait: time.Minute, DecisionLog: decisionlog.Config{Dir: dir}})
}

// A decision is in the log with its feedback or not at all, in the share that was asked for, and what is
// in the log is what is explained.
func TestDecisionLog(t *testing.T) {
	const queries, rate = 400, 0.25
	dir := t.TempDir()
	b := newLoggingBench(t, dir, map[string]answer{"a": {label: 1}, "b": {label: 2}})
	for _, format := range []clipperv1.DecisionLogFormat{clipperv1.DecisionLogFormat_DECISION_LOG_FORMAT_UNSPECIFIED, clipperv1.DecisionLogFormat_DECISION_LOG_FORMAT_PARQUET} {
		app := minimal(fmt.Sprintf("app%d", format), "a", "b")
		app.Policy = &clipperv1.Policy{Name: "exp3"}
		app.DecisionLog = &clipperv1.DecisionLog{SampleRate: rate, Format: format}
		b.create(t, app)
	}
	b.create(t, minimal("quiet", "a"))
	explained := map[string]*clipperv1.Decision{}
	for i := range queries {
		for _, app := range []string{"app0", "app2", "quiet"} {
			r := b.query(t, app, "ann")
			_, err := b.Feedback(t.Context(), truth(app, r.FeedbackId, 1), nil)
			require.NoError(t, err)
		}
		if i < 100 {
			for _, d := range b.explain(t, &clipperv1.ExplainSelectionRequest{Application: "app0", Decisions: 1}).Decisions {
				explained[d.Id] = d
			}
		}
	}
	b.Close()
	for _, app := range []string{"app0", "app2"} {
		got, err := decisionlog.Read(app, dir)
		require.NoError(t, err)
		require.Zero(t, got.Orphans)
		// Five standard deviations of the binomial distribution.
		require.InDelta(t, queries*rate, len(got.Decisions), 5*math.Sqrt(queries*rate*(1-rate)))
		found := 0
		for _, d := range got.Decisions {
			require.NotNil(t, d.Feedback)
			require.Equal(t, app, d.Application)
			if want := explained[d.ID]; want != nil {
				found++
				want.Feedback = proto.CloneOf(want.Feedback)
				want.Feedback.Reward = nil // The log has the answer and the truth, of which the reader makes it.
				require.Empty(t, cmp.Diff(decisionlog.NewRecord(want), &d))
			}
		}
		require.Equal(t, app == "app0", found > 0)
	}
	got, err := decisionlog.Read("quiet", dir)
	require.NoError(t, err)
	require.Empty(t, got.Decisions)
}

func TestDecisionLog_invalid(t *testing.T) {
	without := newBench(t, map[string]answer{"a": {label: 1}})
	with := newLoggingBench(t, t.TempDir(), map[string]answer{"a": {label: 1}})
	for _, test := range []struct {
		bench *bench
		log   *clipperv1.DecisionLog
		code  codes.Code
		field string
	}{
		{without, &clipperv1.DecisionLog{SampleRate: 0.5}, codes.FailedPrecondition, "decision_log"},
		{with, &clipperv1.DecisionLog{SampleRate: 1.5}, codes.InvalidArgument, "decision_log.sample_rate"},
		{with, &clipperv1.DecisionLog{SampleRate: math.NaN()}, codes.InvalidArgument, "decision_log.sample_rate"},
		{with, &clipperv1.DecisionLog{SampleRate: 0.5, Format: 9}, codes.InvalidArgument, "decision_log.format"},
	} {
		app := minimal("app", "a")
		app.DecisionLog = test.log
		_, err := test.bench.admin.CreateApplication(context.Background(), &clipperv1.CreateApplicationRequest{Application: app})
		requireError(t, err, test.code, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, test.field)
	}
	app := minimal("app", "a")
	app.DecisionLog = &clipperv1.DecisionLog{SampleRate: 1}
	require.Equal(t, clipperv1.DecisionLogFormat_DECISION_LOG_FORMAT_JSON_LINES, with.create(t, app).DecisionLog.Format, "the default")
}

// BenchmarkDecision is what one decision costs that is remembered or logged.
func BenchmarkDecision(b *testing.B) {
	bench := newBench(b, map[string]answer{"a": {label: 1}, "b": {label: 2}, "c": {label: 2}, "d": {label: 2}, "e": {label: 2}})
	bench.create(b, minimal("app", "a", "b", "c", "d", "e"))
	r := bench.query(b, "app", "")
	app, err := bench.application("app")
	require.NoError(b, err)
	w := &scratch{}
	bench.Service.state(b.Context(), app, "", time.Second, &w.state)
	w.choices, _ = app.panel.Select(&w.state, &policy.Query{Random: bench.random}, nil)
	for range w.choices {
		w.values = append(w.values, policy.Integer(1))
	}
	b.ReportAllocs()
	for b.Loop() {
		app.recent.add(newDecision(app, w, r, ""))
	}
}

// BenchmarkQuery_logged is BenchmarkQuery with every decision logged.
func BenchmarkQuery_logged(b *testing.B) {
	bench := newLoggingBench(b, b.TempDir(), map[string]answer{"a": {label: 1}, "b": {label: 2}, "c": {label: 2}, "d": {label: 2}, "e": {label: 2}})
	app := minimal("app", "a", "b", "c", "d", "e")
	app.DecisionLog = &clipperv1.DecisionLog{SampleRate: 1}
	bench.create(b, app)
	b.ReportAllocs()
	for b.Loop() {
		bench.query(b, "app", "")
	}
}
