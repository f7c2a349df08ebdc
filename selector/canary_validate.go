// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"math"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Limits and defaults of a canary.
const (
	minShare             = 1e-6
	defaultInitialShare  = 0.01
	defaultStep          = 2
	defaultMinFeedbacks  = 100
	defaultLossMargin    = 0.02
	defaultErrorMargin   = 0.02
	defaultLatencyMargin = 0.1
	defaultConfidence    = 0.95
)

// completeCanary checks an application's canary and fills in the defaults. The models and the policy are
// complete.
func completeCanary(app *clipperv1.Application) error {
	c := app.Canary
	if c == nil {
		return nil
	}
	if app.Policy.Name != "static" {
		return invalid("canary", "the policy is %q, want the policy static, which has shares that can be moved", app.Policy.Name)
	}
	if err := completeCanaryModels(app); err != nil {
		return err
	}
	for _, f := range []struct {
		name      string
		value     *float64
		otherwise float64
		ok        func(float64) bool
		want      string
	}{
		{"initial_share", &c.InitialShare, defaultInitialShare, func(x float64) bool { return x >= minShare && x < 1 }, "at least 0.000001 and less than 1"},
		{"final_share", &c.FinalShare, 1, inUnit, "more than 0 and at most 1"},
		{"step", &c.Step, defaultStep, func(x float64) bool { return x > 1 && !math.IsInf(x, 0) }, "a finite number of more than 1"},
		{"loss_margin", &c.LossMargin, defaultLossMargin, inUnit, "more than 0 and at most 1"},
		{"error_margin", &c.ErrorMargin, defaultErrorMargin, inUnit, "more than 0 and at most 1"},
		{"latency_margin", &c.LatencyMargin, defaultLatencyMargin, inUnit, "more than 0 and at most 1"},
		{"confidence", &c.Confidence, defaultConfidence, func(x float64) bool { return x >= 0.5 && x < 1 }, "at least 0.5 and less than 1"},
	} {
		if *f.value == 0 {
			*f.value = f.otherwise
		}
		if !f.ok(*f.value) {
			return invalid("canary."+f.name, "it is %v, want %s", *f.value, f.want)
		}
	}
	if c.MinFeedbacks == 0 {
		c.MinFeedbacks = defaultMinFeedbacks
	}
	if c.InitialShare >= c.FinalShare {
		return invalid("canary.initial_share", "it is %v, want less than the final_share of %v", c.InitialShare, c.FinalShare)
	}
	if steps := math.Log(c.FinalShare/c.InitialShare) / math.Log(c.Step); steps > maxSteps {
		return invalid("canary.step", "it is %v, with which %.0f steps lead to the final_share, want one so large that there are at most %d", c.Step, math.Ceil(steps), maxSteps)
	}
	return nil
}

func inUnit(x float64) bool { return x > 0 && x <= 1 }

// completeCanaryModels does so for the canary's model and its baseline.
func completeCanaryModels(app *clipperv1.Application) error {
	c := app.Canary
	models := map[string]*clipperv1.ApplicationModel{}
	var others []string
	weight := 0.0 // of the others
	for _, m := range app.Models {
		key := modelKey(m)
		models[key] = m
		if !m.Shadow && key != c.Model {
			others = append(others, key)
			weight += m.Weight
		}
	}
	if c.Model == "" {
		return missing("canary.model", "want the model that is let in, as models lists it")
	}
	if models[c.Model] == nil {
		return invalid("canary.model", "the application has no model %q, want one as models lists it", shorten(c.Model))
	}
	if c.Baseline == "" {
		if len(others) != 1 {
			return missing("canary.baseline", "want the model that it is compared with, since there are %d others that may answer", len(others))
		}
		c.Baseline = others[0]
	}
	if c.Model == c.Baseline {
		return invalid("canary.baseline", "it is the canary itself, want another model")
	}
	for _, f := range []struct{ field, key string }{{"canary.model", c.Model}, {"canary.baseline", c.Baseline}} {
		switch m := models[f.key]; {
		case m == nil:
			return invalid(f.field, "the application has no model %q, want one as models lists it", shorten(f.key))
		case m.Shadow:
			return invalid(f.field, "the model %q is a shadow model, want one that answers", f.key)
		case m.Group != "":
			return invalid(f.field, "the model %q is in the group %q, want one with a share of its own", f.key, m.Group)
		}
	}
	if weight > 0 && models[c.Baseline].Weight == 0 {
		return invalid("canary.baseline", "the model %q has the weight 0, so there is nothing to compare with, want one that is asked", c.Baseline)
	}
	return nil
}
