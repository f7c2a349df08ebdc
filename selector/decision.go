// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"encoding/hex"
	"slices"
	"sync/atomic"
	"time"

	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/token"
)

// maxTruth is the most bytes of a truth that are kept with a decision.
const maxTruth = 4096

// decision is one answered query, kept to be explained or logged. Immutable but for the feedback.
type decision struct {
	app        *application
	id         token.ID
	time       time.Time
	latency    time.Duration
	context    string
	models     []decidedModel
	answer     policy.Value // of the models; missing when there was none
	reason     clipperv1.DefaultReason
	confidence float64
	features   []float64
	feedback   atomic.Pointer[clipperv1.DecisionFeedback]
}

// decidedModel is one model's part.
type decidedModel struct {
	choice  policy.Choice
	weight  float64
	version string
	status  clipperv1.PredictionStatus
	value   policy.Value
}

// decided remembers a decision and logs it, as far as the application wants that. w holds what the answer
// was made of.
func (s *Service) decided(app *application, w *scratch, r *clipperv1.QueryResponse, userContext string, arrival time.Time, took time.Duration) {
	remember := app.recent.wants(arrival)
	if !remember && app.sampled == 0 {
		return
	}
	id, ok := token.IDOf(r.FeedbackId)
	logged := ok && s.sampled(app, id)
	if !ok || !remember && !logged {
		return
	}
	d := newDecision(app, w, r, userContext)
	d.id, d.time, d.latency = id, arrival, took
	if remember {
		app.recent.add(d)
	}
	if logged {
		s.decisionLog.Add(app.name, app.proto.DecisionLog.Format, d.proto)
	}
}

// sampleSpace is in how many parts the decisions are divided, to log a share of them.
const sampleSpace = 1 << 53

func sampleOf(rate float64) uint64 { return uint64(rate * sampleSpace) }

// sampled reports whether a decision is logged. The id decides, so that its feedback is logged, too,
// wherever that arrives.
func (s *Service) sampled(app *application, id token.ID) bool {
	return app.sampled > 0 && s.decisionLog != nil && xxh3.Hash(id[:])%sampleSpace < app.sampled
}

// newDecision copies what the answer was made of: w is used again.
func newDecision(app *application, w *scratch, r *clipperv1.QueryResponse, userContext string) *decision {
	d := &decision{
		app:        app,
		context:    userContext,
		models:     make([]decidedModel, len(w.choices)),
		reason:     r.DefaultReason,
		confidence: r.Confidence,
		features:   slices.Clone(w.features),
	}
	var buffer [policy.MaxModels]float64
	shares := buffer[:len(app.keys)]
	app.policy.Shares(&w.state, shares)
	room := token.MaxValues // As much as a token would carry.
	for i, c := range w.choices {
		part := r.Predictions[i]
		d.models[i] = decidedModel{choice: c, weight: shares[c.Model], version: part.Version, status: part.Status, value: retain(w.values[i], &room)}
	}
	if !r.IsDefault {
		room = token.MaxValues
		d.answer = retain(w.answer, &room)
	}
	return d
}

// retain returns a copy of a value that takes no more than what room is left; of scores that do not fit it is
// the class of the largest.
func retain(v policy.Value, room *int) policy.Value {
	if xs, ok := v.Vector(); ok {
		if size := 4 * len(xs); size <= *room {
			*room -= size
			return policy.Vector(slices.Clone(xs))
		}
		class, _ := v.Class()
		return policy.TopClass(class)
	}
	if text, ok := v.Text(); ok {
		if len(text) > *room {
			return policy.Value{}
		}
		*room -= len(text)
	}
	return v
}

// proto returns the decision as the API has it, without the feedback.
func (d *decision) proto() *clipperv1.Decision {
	p := &clipperv1.Decision{
		Id:            hex.EncodeToString(d.id[:]),
		Time:          timestamppb.New(d.time),
		Application:   d.app.name,
		Context:       d.context,
		Policy:        d.app.proto.Policy.Name,
		Output:        d.app.spec.JSON(d.answer),
		DefaultReason: d.reason,
		Confidence:    d.confidence,
		Latency:       durationpb.New(d.latency),
		Features:      d.features,
	}
	if d.reason != clipperv1.DefaultReason_DEFAULT_REASON_UNSPECIFIED {
		p.Output = d.app.proto.DefaultOutput
	}
	for _, m := range d.models {
		p.Models = append(p.Models, &clipperv1.DecisionModel{
			Model:      d.app.keys[m.choice.Model],
			Version:    m.version,
			Propensity: m.choice.Propensity,
			Weight:     m.weight,
			Shadow:     m.choice.Shadow,
			Status:     m.status,
			Prediction: d.app.spec.JSON(m.value),
		})
	}
	return p
}

// told joins a feedback that was counted with its decision, as far as this instance remembers or logs
// that one.
func (s *Service) told(app *application, id token.ID, f *clipperv1.FeedbackRequest, losses []*clipperv1.ModelLoss) {
	if id == (token.ID{}) {
		return // By input: there is no decision to join.
	}
	now := timestamppb.Now()
	app.recent.told(id, func(d *decision) *clipperv1.DecisionFeedback { return d.outcome(f, losses, now) })
	if s.sampled(app, id) {
		s.decisionLog.Add(app.name, app.proto.DecisionLog.Format, func() *clipperv1.Decision {
			return &clipperv1.Decision{Id: hex.EncodeToString(id[:]), Application: app.name, Feedback: feedbackOf(f, losses, now)}
		})
	}
}

// feedbackOf returns a feedback as the decision log has it. Of the reward it knows what was told: the answer
// is with the decision, which may be elsewhere.
func feedbackOf(f *clipperv1.FeedbackRequest, losses []*clipperv1.ModelLoss, at *timestamppb.Timestamp) *clipperv1.DecisionFeedback {
	o := &clipperv1.DecisionFeedback{Time: at, Losses: losses}
	switch told := f.Observation.(type) {
	case *clipperv1.FeedbackRequest_Reward:
		o.Reward = proto.Float64(told.Reward)
	case *clipperv1.FeedbackRequest_Truth:
		if proto.Size(told.Truth) <= maxTruth {
			o.Truth = told.Truth
		}
	}
	return o
}

// outcome is the same with the reward of the decision's answer.
func (d *decision) outcome(f *clipperv1.FeedbackRequest, losses []*clipperv1.ModelLoss, at *timestamppb.Timestamp) *clipperv1.DecisionFeedback {
	o := feedbackOf(f, losses, at)
	told, ok := f.Observation.(*clipperv1.FeedbackRequest_Truth)
	if !ok {
		return o
	}
	truth, err := d.app.spec.Truth(told.Truth)
	if err != nil {
		return o
	}
	if loss := d.app.spec.Task.Loss(truth, d.given()); loss >= 0 {
		o.Reward = proto.Float64(1 - loss)
	}
	return o
}

// given is what the caller got.
func (d *decision) given() policy.Value {
	if d.reason == clipperv1.DefaultReason_DEFAULT_REASON_UNSPECIFIED {
		return d.answer
	}
	v, err := d.app.spec.Output(d.app.proto.DefaultOutput)
	if err != nil {
		return policy.Value{} // It was checked when the application was made.
	}
	return v
}
