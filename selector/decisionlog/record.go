// SPDX-License-Identifier: Apache-2.0

package decisionlog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Record is a line or row of the log: a decision, or a feedback, which has the decision's id, the
// application and nothing else. As JSON it has the form of the API's message Decision; as Parquet the
// same columns, the latency in seconds, and the values as JSON texts.
type Record struct {
	ID            string    `json:"id" parquet:"id"`
	Time          time.Time `json:"time,omitzero" parquet:"time,optional,timestamp(microsecond)"`
	Application   string    `json:"application" parquet:"application,dict"`
	Context       string    `json:"context,omitempty" parquet:"context"`
	Policy        string    `json:"policy,omitempty" parquet:"policy,dict"`
	Models        []Model   `json:"models,omitempty" parquet:"models,list"`
	Output        JSON      `json:"output,omitempty" parquet:"output,json"`
	DefaultReason string    `json:"default_reason,omitempty" parquet:"default_reason,dict"`
	Confidence    float64   `json:"confidence,omitempty" parquet:"confidence"`
	Latency       Seconds   `json:"latency,omitempty" parquet:"latency"`
	Features      []float64 `json:"features,omitempty" parquet:"features,list"`
	Feedback      *Feedback `json:"feedback,omitempty" parquet:"feedback,optional"`
}

// Model is one model in a decision; see the message DecisionModel.
type Model struct {
	Model      string  `json:"model" parquet:"model,dict"`
	Version    string  `json:"version,omitempty" parquet:"version,dict"`
	Propensity float64 `json:"propensity" parquet:"propensity"`
	Weight     float64 `json:"weight" parquet:"weight"`
	Shadow     bool    `json:"shadow,omitempty" parquet:"shadow"`
	Status     string  `json:"status,omitempty" parquet:"status,dict"`
	Prediction JSON    `json:"prediction,omitempty" parquet:"prediction,json"`
}

// Feedback is what became known about a decision; see the message DecisionFeedback.
type Feedback struct {
	Time   time.Time `json:"time" parquet:"time,timestamp(microsecond)"`
	Truth  JSON      `json:"truth,omitempty" parquet:"truth,json"`
	Reward *float64  `json:"reward,omitempty" parquet:"reward,optional"`
	Losses []Loss    `json:"losses,omitempty" parquet:"losses,list"`
}

// Loss is the loss of one model, in [0, 1].
type Loss struct {
	Model string  `json:"model" parquet:"model,dict"`
	Loss  float64 `json:"loss" parquet:"loss"`
}

// JSON is a value as compact JSON text; empty when there is none.
type JSON string

// MarshalJSON implements json.Marshaler.
func (j JSON) MarshalJSON() ([]byte, error) { return []byte(j), nil }

// UnmarshalJSON implements json.Unmarshaler.
func (j *JSON) UnmarshalJSON(text []byte) error {
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return err
	}
	*j = JSON(compact.String())
	return nil
}

// Value returns what the text says; nil when it is empty.
func (j JSON) Value() (*structpb.Value, error) {
	if j == "" {
		return nil, nil
	}
	v := &structpb.Value{}
	if err := v.UnmarshalJSON([]byte(j)); err != nil {
		return nil, fmt.Errorf("value %.40q: %w", string(j), err)
	}
	return v, nil
}

func newJSON(v *structpb.Value) JSON {
	if v == nil {
		return ""
	}
	text, err := json.Marshal(v.AsInterface()) // protojson varies its spaces.
	if err != nil {
		return "" // A number that is not finite; there are none.
	}
	return JSON(text)
}

// Seconds is a duration; as JSON a text, "0.0012s".
type Seconds float64

// MarshalJSON implements json.Marshaler.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return []byte(`"` + strconv.FormatFloat(float64(s), 'f', 6, 64) + `s"`), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Seconds) UnmarshalJSON(text []byte) error {
	number, ok := strings.CutSuffix(strings.Trim(string(text), `"`), "s")
	x, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil {
		return fmt.Errorf("duration %.40q: want seconds as in \"0.5s\"", string(text))
	}
	*s = Seconds(x)
	return nil
}

// NewRecord returns a decision, with or without its feedback, as a record.
func NewRecord(d *clipperv1.Decision) *Record {
	r := &Record{
		ID:          d.GetId(),
		Application: d.GetApplication(),
		Context:     d.GetContext(),
		Policy:      d.GetPolicy(),
		Output:      newJSON(d.GetOutput()),
		Confidence:  d.GetConfidence(),
		Latency:     Seconds(d.GetLatency().AsDuration().Round(time.Microsecond).Seconds()),
		Features:    d.GetFeatures(),
	}
	if d.GetTime() != nil {
		r.Time = microseconds(d.GetTime().AsTime())
	}
	if d.GetDefaultReason() != clipperv1.DefaultReason_DEFAULT_REASON_UNSPECIFIED {
		r.DefaultReason = d.GetDefaultReason().String()
	}
	for _, m := range d.GetModels() {
		r.Models = append(r.Models, Model{
			Model: m.GetModel(), Version: m.GetVersion(), Propensity: m.GetPropensity(), Weight: m.GetWeight(),
			Shadow: m.GetShadow(), Status: m.GetStatus().String(), Prediction: newJSON(m.GetPrediction()),
		})
	}
	if f := d.GetFeedback(); f != nil {
		r.Feedback = &Feedback{Time: microseconds(f.GetTime().AsTime()), Truth: newJSON(f.GetTruth()), Reward: f.Reward}
		for _, l := range f.GetLosses() {
			r.Feedback.Losses = append(r.Feedback.Losses, Loss{Model: l.GetModel(), Loss: l.GetLoss()})
		}
	}
	return r
}

func microseconds(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// isDecision tells a decision from a feedback.
func (r *Record) isDecision() bool { return !r.Time.IsZero() }

// valid reports whether a record that was read can be one that was written: readers need not be afraid of
// its numbers.
func (r *Record) valid() bool {
	if r.ID == "" || r.Application == "" || !r.isDecision() && r.Feedback == nil {
		return false
	}
	for _, m := range r.Models {
		if m.Model == "" || !(m.Propensity > 0 && m.Propensity <= 1) || !(m.Weight >= 0 && m.Weight <= 1) || !m.Prediction.valid() {
			return false
		}
	}
	for _, x := range r.Features {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return false
		}
	}
	if !r.Output.valid() || !(r.Confidence >= 0 && r.Confidence <= 1) || !(r.Latency >= 0 && r.Latency < 1e9) {
		return false
	}
	if f := r.Feedback; f != nil {
		if f.Reward != nil && !unit(*f.Reward) || !f.Truth.valid() {
			return false
		}
		for _, l := range f.Losses {
			if l.Model == "" || !unit(l.Loss) {
				return false
			}
		}
	}
	return true
}

func (j JSON) valid() bool { return j == "" || json.Valid([]byte(j)) }

func unit(x float64) bool { return x >= 0 && x <= 1 }
