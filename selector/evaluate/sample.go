// SPDX-License-Identifier: Apache-2.0

package evaluate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/clipper-serving/clipper/selector/decisionlog"
	"github.com/clipper-serving/clipper/selector/policy"
)

// sample is a decision that counts.
type sample struct {
	context  string
	features []float64
	asked    []asked // those of the models that the target may ask, in the application's order
	truth    policy.Value
	reward   float64 // of the answer that was given, or unknown
	unknown  bool    // the loss of a model that was asked is not known
}

// asked is a model that a decision asked.
type asked struct {
	model      int
	propensity float64
	value      policy.Value
	loss       float64
}

// find returns what a decision knows of a model, or nil.
func (s *sample) find(model int) *asked {
	for i := range s.asked {
		if s.asked[i].model == model {
			return &s.asked[i]
		}
	}
	return nil
}

// excluded counts the decisions that do not count, by reason, and those that count in part.
type excluded struct {
	silent      int // no feedback
	unasked     int // not all models of an ensemble were asked
	unknown     int // the loss of a model that was asked is not known
	foreign     int // models that the application does not have
	untrue      int // a reward, but no truth
	featureless int
	contexts    bool
}

// why says why nothing is left.
func (e excluded) why(t *target, decisions int) string {
	switch {
	case decisions == 0:
		return "it has no decisions of the application"
	case e.silent == decisions:
		return "none of its decisions has feedback"
	case t.ensemble && e.unasked > 0:
		return "an ensemble needs what all its models say, and the log's policy did not ask all of them; log an ensemble, or make the others shadow models"
	}
	return fmt.Sprintf("of its %d decisions, %d have no feedback, and of %d the loss of a model that was asked is not known", decisions, e.silent, e.unknown)
}

// samples returns the decisions that count for a target.
func (t *target) samples(decisions []decisionlog.Record) ([]sample, excluded) {
	var e excluded
	samples := make([]sample, 0, len(decisions))
	for i := range decisions {
		d := &decisions[i]
		if d.Feedback == nil {
			e.silent++
			continue
		}
		s := t.sample(d, &e)
		switch {
		case t.ensemble && !t.allAsked(&s):
			e.unasked++
			continue
		case s.unknown:
			e.unknown++
			continue
		case t.ensemble && (s.cut() || t.answer(t.state(""), &s, t.members) == unknown):
			e.unknown++
			continue
		}
		if s.truth.Missing() {
			e.untrue++
		}
		if len(s.features) == 0 {
			e.featureless++
		}
		e.contexts = e.contexts || s.context != ""
		samples = append(samples, s)
	}
	return samples, e
}

// sample reads one decision. A model that said nothing in time earned what the default output earns.
func (t *target) sample(d *decisionlog.Record, e *excluded) sample {
	s := sample{context: d.Context, features: d.Features, reward: unknown}
	if v, err := d.Feedback.Truth.Value(); err == nil && v != nil {
		if truth, err := t.spec.Truth(v); err == nil {
			s.truth = truth
		}
	}
	foreign := false
	for _, m := range d.Models {
		model, ok := t.models[m.Model]
		if !ok {
			// The log may name a version where the application does not.
			name, _, _ := strings.Cut(m.Model, ":")
			model, ok = t.models[name]
		}
		foreign = foreign || !ok
		a := asked{model: model, propensity: m.Propensity, loss: unknown}
		if v, err := m.Prediction.Value(); err == nil {
			a.value, _ = t.spec.Prediction(v) // What cannot be read is missing.
		}
		for _, l := range d.Feedback.Losses {
			if l.Model == m.Model {
				a.loss = l.Loss
			}
		}
		if a.loss == unknown {
			said := a.value
			if said.Missing() {
				said = t.defaultValue
			}
			a.loss = t.spec.Task.Loss(s.truth, said)
		}
		switch {
		case a.loss == unknown: // Of a shadow model a reward tells nothing; it is as if it had not been asked.
			s.unknown = s.unknown || !m.Shadow
		case ok && t.priors()[model] > 0:
			s.asked = append(s.asked, a)
		}
	}
	if foreign {
		e.foreign++
	}
	s.reward = t.given(d, &s)
	return s
}

// given returns the reward of the answer that was given.
func (t *target) given(d *decisionlog.Record, s *sample) float64 {
	if d.Feedback.Reward != nil {
		return *d.Feedback.Reward
	}
	v, err := d.Output.Value()
	if err != nil {
		return unknown
	}
	output, err := t.spec.Prediction(v)
	if err != nil {
		return unknown
	}
	if loss := t.spec.Task.Loss(s.truth, output); loss >= 0 {
		return 1 - loss
	}
	return unknown
}

// cut reports whether of the scores of a model only the largest one's class was logged.
func (s *sample) cut() bool {
	return slices.ContainsFunc(s.asked, func(a asked) bool { _, ok := a.value.TopClass(); return ok })
}

// certain reports whether a decision asked a model for certain.
func (s *sample) certain(model int) bool {
	a := s.find(model)
	return a != nil && a.propensity == 1
}
