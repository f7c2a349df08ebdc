// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"encoding/base64"
	"maps"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/token"
)

// everything reads all sums of a store, to the last bit.
func everything(t testing.TB, sums store.Sums) map[string]map[string]uint64 {
	keys, err := sums.Keys(t.Context(), "", "", 1000)
	require.NoError(t, err)
	all := map[string]map[string]uint64{}
	for _, key := range keys {
		all[key] = map[string]uint64{}
		fields, err := sums.Get(t.Context(), key)
		require.NoError(t, err)
		for field, x := range fields {
			all[key][field] = math.Float64bits(x)
		}
	}
	return all
}

// kinds creates an application of each kind of output, and learns a little with each.
func kinds(t testing.TB) (b *bench, ids map[string]string) {
	b = newBench(t, map[string]answer{
		"a": {label: 1}, "b": {tensor: numberTensor(2.5)}, "c": {tensor: numberTensor(0.5, 0.5)},
		"d": {tensor: &clipperv1.Tensor{DataType: clipperv1.DataType_DATA_TYPE_STRING, Strings: []string{"cat"}}},
	})
	for _, name := range []string{"a", "b", "c", "d"} {
		b.catalog.add(name, clipperv1.ModelState_MODEL_STATE_READY, &clipperv1.Signature{})
	}
	label := minimal("label", "a")
	label.Output = &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_LABEL, DataType: clipperv1.DataType_DATA_TYPE_INT32}
	number := minimal("number", "b")
	number.Output = &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_NUMBER, Range: &clipperv1.NumberRange{Min: -1, Max: 10}}
	scores := minimal("scores", "c")
	scores.Output = &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_SCORES, Classes: []string{"cat", "dog"}}
	scores.DefaultOutput = jsonValue(t, `[1, 0]`)
	text := minimal("text", "d")
	text.Output = &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_LABEL, DataType: clipperv1.DataType_DATA_TYPE_STRING}
	text.DefaultOutput = structpb.NewStringValue("none")
	ids = map[string]string{}
	good := map[string]string{"label": `1`, "number": `2`, "scores": `"dog"`, "text": `"cat"`}
	for _, app := range []*clipperv1.Application{label, number, scores, text} {
		b.create(t, app)
		for range 3 {
			_, err := b.Feedback(t.Context(), feedbackJSON(t, app.Name, b.query(t, app.Name, "user").FeedbackId, good[app.Name]), nil)
			require.NoError(t, err)
		}
		ids[app.Name] = b.query(t, app.Name, "user").FeedbackId
	}
	return b, ids
}

func jsonValue(t testing.TB, text string) *structpb.Value {
	v := &structpb.Value{}
	require.NoError(t, v.UnmarshalJSON([]byte(text)))
	return v
}

// feedbackJSON is feedback with a truth in JSON.
func feedbackJSON(t testing.TB, app, id, text string) *clipperv1.FeedbackRequest {
	return &clipperv1.FeedbackRequest{Application: app, FeedbackId: id, Observation: &clipperv1.FeedbackRequest_Truth{Truth: jsonValue(t, text)}}
}

// TestFeedback_badTruth gives truths and rewards that do not fit, for every kind of output: each is refused
// with the field at fault, and what is stored stays the same to the last bit.
func TestFeedback_badTruth(t *testing.T) {
	b, ids := kinds(t)
	before := everything(t, b.deps.Sums)
	refuse := func(name string, f *clipperv1.FeedbackRequest, field string) {
		t.Run(name, func(t *testing.T) {
			_, err := b.Feedback(t.Context(), f, nil)
			requireError(t, err, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_TRUTH_INVALID, field)
			require.ErrorContains(t, err, field+": ")
			require.Equal(t, before, everything(t, b.deps.Sums))
		})
	}
	for app, truths := range map[string][]string{
		"label":  {`"one"`, `1.5`, `null`, `true`, `[1]`, `{"a": 1}`, `3e9`, `1e300`, `[]`},
		"number": {`"2"`, `null`, `false`, `[2]`, `{}`},
		"scores": {`"bird"`, `2`, `-1`, `0.5`, `null`, `[]`, `["cat"]`, `[1, 0, 0]`, `[1]`, `[1, null]`, `{}`},
		"text":   {`1`, `null`, `["cat"]`, `{}`, `true`},
	} {
		for _, text := range truths {
			refuse(app+" "+text, feedbackJSON(t, app, ids[app], text), "truth")
		}
		for name, x := range map[string]float64{"NaN": math.NaN(), "infinite": math.Inf(1)} {
			refuse(app+" "+name, &clipperv1.FeedbackRequest{Application: app, FeedbackId: ids[app], Observation: &clipperv1.FeedbackRequest_Truth{Truth: structpb.NewNumberValue(x)}}, "truth")
		}
		for name, x := range map[string]float64{"above": 1.01, "below": -0.01, "NaN": math.NaN(), "infinite": math.Inf(-1)} {
			refuse(app+" reward "+name, &clipperv1.FeedbackRequest{Application: app, FeedbackId: ids[app], Observation: &clipperv1.FeedbackRequest_Reward{Reward: x}}, "reward")
		}
	}
	for app, text := range map[string]string{"label": `7`, "number": `10`, "scores": `[0.25, 0.75]`, "text": `"dog"`} {
		f, err := b.Feedback(t.Context(), feedbackJSON(t, app, ids[app], text), nil)
		require.NoError(t, err, "the feedback_id is as good as before")
		require.False(t, f.Duplicate)
	}
}

// TestFeedback_modelGone: of the models that are left something is learned; when none is, the feedback is
// refused and nothing is.
func TestFeedback_modelGone(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 2}, "c": {label: 3}})
	b.create(t, minimal("app", "a", "b"))
	first, second := b.query(t, "app", "").FeedbackId, b.query(t, "app", "").FeedbackId
	change := func(models ...string) {
		app := minimal("app", models...)
		_, err := b.admin.UpdateApplication(t.Context(), &clipperv1.UpdateApplicationRequest{Application: &clipperv1.Application{Name: "app", Models: app.Models}})
		require.NoError(t, err)
	}
	change("b", "c")
	f, err := b.Feedback(t.Context(), truth("app", first, 1), nil)
	require.NoError(t, err)
	require.Len(t, f.Losses, 1)
	require.Equal(t, "b", f.Losses[0].Model)
	before := everything(t, b.deps.Sums)
	change("c")
	_, err = b.Feedback(t.Context(), truth("app", second, 1), nil)
	requireError(t, err, codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_EXPIRED, "feedback_id")
	require.ErrorContains(t, err, "none of the models")
	require.Equal(t, before, everything(t, b.deps.Sums))
}

// FuzzFeedback gives feedback with any token and any truth: the answer is an acknowledgement or a client's
// error, never a fault; what is refused changes nothing, and no sum ceases to be a finite number.
func FuzzFeedback(f *testing.F) {
	b, ids := kinds(f)
	for app, id := range ids {
		f.Add(app, []byte(id), `1`, 0.5, true)
		f.Add(app, []byte(id[3:]), `"cat"`, math.NaN(), false)
		f.Add(app, []byte(base64.RawURLEncoding.EncodeToString([]byte(id))), `[0.5, 1e308]`, 2.0, true)
	}
	f.Fuzz(func(t *testing.T, app string, id []byte, text string, reward float64, isTruth bool) {
		request := &clipperv1.FeedbackRequest{Application: app, FeedbackId: string(id), Observation: &clipperv1.FeedbackRequest_Reward{Reward: reward}}
		if isTruth {
			value := &structpb.Value{}
			if value.UnmarshalJSON([]byte(text)) != nil {
				value = nil
			}
			request.Observation = &clipperv1.FeedbackRequest_Truth{Truth: value}
		}
		before := everything(t, b.deps.Sums)
		response, err := b.Feedback(t.Context(), request, nil)
		after := everything(t, b.deps.Sums)
		if err != nil {
			switch code := codes.Code(apierror.ToProto(err).Code); code {
			case codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition:
			default:
				t.Errorf("%v: %v", code, err)
			}
			require.Equal(t, before, after)
			return
		}
		for _, l := range response.Losses {
			require.True(t, l.Loss >= 0 && l.Loss <= 1, "loss %v", l.Loss)
		}
		for key, fields := range after {
			for field, bits := range fields {
				x := math.Float64frombits(bits)
				require.False(t, math.IsNaN(x) || math.IsInf(x, 0), "%s of %s is %v", field, key, x)
			}
		}
	})
}

// FuzzLesson goes behind the authentication: whatever a token of this installation may carry, feedback for it
// is learned or refused, and the state stays finite.
func FuzzLesson(f *testing.F) {
	b, _ := kinds(f)
	f.Add("label", "a", 1.0, int64(1), "cat", 0.5, uint8(0), `1`)
	f.Add("scores", "c", 1e-300, int64(0), "", 0.0, uint8(3), `[1e300, 0]`)
	f.Fuzz(func(t *testing.T, name, model string, propensity float64, integer int64, word string, x float64, form uint8, text string) {
		app, err := b.application(name)
		if err != nil || !(propensity > 0 && propensity <= 1) || math.IsNaN(x) || math.IsInf(x, 0) {
			return // No such token can be made or read.
		}
		values := []policy.Value{policy.Integer(integer), policy.Text(word), policy.Real(x), policy.Vector([]float64{x, 0}), policy.TopClass(int(integer & math.MaxInt32)), {}}
		w := &scratch{}
		w.claims.Models = append(w.claims.Models, token.Model{
			Model: model, Propensity: propensity, Value: values[int(form)%len(values)], Agreed: form&8 != 0, Shadow: form&16 != 0,
		})
		id := b.seal(b.sealer.Load(), app, "user", w, time.Now())
		value := &structpb.Value{}
		if value.UnmarshalJSON([]byte(text)) != nil {
			return
		}
		before := everything(t, b.deps.Sums)
		_, err = b.Feedback(t.Context(), &clipperv1.FeedbackRequest{Application: name, FeedbackId: id, Observation: &clipperv1.FeedbackRequest_Truth{Truth: value}}, nil)
		after := everything(t, b.deps.Sums)
		if err != nil {
			require.True(t, maps.EqualFunc(before, after, maps.Equal[map[string]uint64]), "%v", err)
		}
		for key, fields := range after {
			for field, bits := range fields {
				x := math.Float64frombits(bits)
				require.False(t, math.IsNaN(x) || math.IsInf(x, 0), "%s of %s is %v", field, key, x)
			}
		}
	})
}
