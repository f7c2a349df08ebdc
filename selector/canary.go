// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/selector/canary"
	"github.com/clipper-serving/clipper/selector/policy"
)

// maxSteps is how many steps of a canary are kept, and how many may lead to its final share.
const maxSteps = 100

// The metrics by which a canary is compared, in the order in which they are told.
const (
	metricLoss = iota
	metricErrors
	metricLatency
	metricCount
)

var metricNames = [metricCount]string{"loss", "errors", "latency"}

// The models that are compared.
const (
	armCanary = iota
	armBaseline
	arms
)

var armNames = [arms]string{"canary", "baseline"}

// canaryProgress is how far a canary has come. It is part of the application's document, so that a
// step and the weights that it sets are one write, and no step is lost or done twice whoever is killed.
// Immutable.
type canaryProgress struct {
	// Run names the sums of the values. It changes when the canary starts anew.
	Run uint64 `json:"run,string"`
	// State is what it is doing.
	State clipperv1.CanaryState `json:"state"`
	// Stages are the shares that it has had in this run, the last one being that of now.
	Stages []canaryStage `json:"stages"`
	// Steps are the last changes of its share, the oldest first.
	Steps []canaryStep `json:"steps"`
}

// canaryStage is a time in which the shares were constant.
type canaryStage struct {
	Share    float64   `json:"share"`
	Baseline float64   `json:"baseline"`
	Begun    time.Time `json:"begun"`
}

type canaryStep struct {
	Time   time.Time    `json:"time"`
	From   float64      `json:"from"`
	To     float64      `json:"to"`
	Reason string       `json:"reason"`
	Tests  []canaryTest `json:"tests,omitempty"`
}

type canaryTest struct {
	Metric        string  `json:"metric"`
	Canary        float64 `json:"canary"`
	Baseline      float64 `json:"baseline"`
	CanaryCount   float64 `json:"canary_count"`
	BaselineCount float64 `json:"baseline_count"`
	Lower         float64 `json:"lower"`
	Upper         float64 `json:"upper"`
	Margin        float64 `json:"margin"`
}

// moved returns the progress after a change of the share, of which the last stage tells.
func (p canaryProgress) moved(s canaryStep) *canaryProgress {
	p.Steps = append(slices.Clone(p.Steps), s)
	p.Steps = p.Steps[max(len(p.Steps)-maxSteps, 0):]
	return &p
}

// continueCanary returns the progress of an application that is about to be written, when before is what it
// replaces, or nil. A canary that is new or was changed gets its initial share, for which the weights of
// app are set; when something else that it depends on was changed, it starts anew from the weights that
// there are.
func continueCanary(before *application, app *clipperv1.Application, incarnation uint64) (*canaryProgress, error) {
	c := app.Canary
	if c == nil {
		return nil, nil //nolint:nilnil // There is none.
	}
	var old *canaryProgress
	if before != nil && before.trial != nil {
		old = before.trial.progress
	}
	p := canaryProgress{Run: rand.Uint64(), State: clipperv1.CanaryState_CANARY_STATE_RUNNING}
	step := canaryStep{Reason: "it begins"}
	if old != nil && before.proto.Canary.Model == c.Model {
		p.Steps, step.From = old.Steps, before.panel.Priors()[before.trial.models[armCanary]]
	}
	switch {
	case old == nil:
		setShare(app, c.InitialShare)
	case !proto.Equal(before.proto.Canary, c):
		setShare(app, c.InitialShare)
		step.Reason = "it begins anew, since the canary was changed"
	case before.incarnation == incarnation && sameTraffic(before.proto, app):
		return old, nil
	default:
		step.Reason = "it begins anew from here, since the application was changed"
	}
	stage, err := stageOf(app)
	if err != nil {
		return nil, err
	}
	switch {
	case stage.Share == 0:
		p.State, step.Reason = clipperv1.CanaryState_CANARY_STATE_ROLLED_BACK, "its weight was set to 0"
	case stage.Share >= c.FinalShare:
		p.State, step.Reason = clipperv1.CanaryState_CANARY_STATE_PROMOTED, "its weight was set to its final share or more"
	}
	p.Stages = []canaryStage{stage}
	step.Time, step.To = stage.Begun, stage.Share
	return p.moved(step), nil
}

// sameTraffic reports whether values of a canary from before and after a change can be compared.
func sameTraffic(a, b *clipperv1.Application) bool {
	return proto.Equal(a.Policy, b.Policy) && proto.Equal(a.Output, b.Output) && proto.Equal(a.LatencyObjective, b.LatencyObjective) &&
		slices.EqualFunc(a.Models, b.Models, func(x, y *clipperv1.ApplicationModel) bool { return proto.Equal(x, y) })
}

// setShare sets the weights so that the canary has a share of the queries, and the others have what
// is left in the proportions that they have; the baseline all of it when they have none.
func setShare(app *clipperv1.Application, share float64) {
	// What the others weigh together; the members of a group weigh as much as the largest.
	groups, others := map[string]float64{}, 0.0
	for _, m := range app.Models {
		switch {
		case m.Shadow || modelKey(m) == app.Canary.Model:
		case m.Group != "":
			others += max(m.Weight-groups[m.Group], 0)
			groups[m.Group] = max(groups[m.Group], m.Weight)
		default:
			others += m.Weight
		}
	}
	for _, m := range app.Models {
		switch key := modelKey(m); {
		case m.Shadow:
		case key == app.Canary.Model:
			m.Weight = share
		case others > 0:
			m.Weight *= (1 - share) / others
		case key == app.Canary.Baseline:
			m.Weight = 1 - share
		}
	}
}

// stageOf returns the stage that an application's weights make, from now on.
func stageOf(app *clipperv1.Application) (canaryStage, error) {
	built, err := newApplication(app, 0)
	if err != nil {
		return canaryStage{}, err
	}
	priors := built.panel.Priors()
	return canaryStage{
		Share: priors[built.models[app.Canary.Model]], Baseline: priors[built.models[app.Canary.Baseline]],
		Begun: time.Now().UTC().Truncate(time.Millisecond), // as tokens tell the time
	}, nil
}

// trial is an application's canary as queries and feedback use it. Immutable but for its tally.
type trial struct {
	spec      *clipperv1.Canary
	progress  *canaryProgress
	models    [arms]int
	sumsKey   string
	objective time.Duration
	tally     *canaryTally
}

// sumsOfRun returns the key of a canary's sums.
func (a *application) sumsOfRun(run uint64) string {
	return a.canaryPrefix + strconv.FormatUint(run, 36)
}

// overCanary reports whether a key has the sums of a canary's run that is over.
func (a *application) overCanary(key string) bool {
	return strings.HasPrefix(key, a.canaryPrefix) && (a.trial == nil || a.trial.sumsKey != key)
}

func newTrial(app *application, p *canaryProgress, tally func(sumsKey string) *canaryTally) *trial {
	t := &trial{
		spec: app.proto.Canary, progress: p, objective: app.objective,
		sumsKey: app.sumsOfRun(p.Run),
	}
	for arm, key := range [arms]string{t.spec.Model, t.spec.Baseline} {
		t.models[arm] = app.models[key]
	}
	if t.running() {
		t.tally = tally(t.sumsKey)
	}
	return t
}

func (t *trial) running() bool {
	return t != nil && t.progress.State == clipperv1.CanaryState_CANARY_STATE_RUNNING
}

func (t *trial) stage() int { return len(t.progress.Stages) - 1 }

// arm returns which of the two a model is.
func (t *trial) arm(model int) (arm int, ok bool) {
	arm = slices.Index(t.models[:], model)
	return arm, arm >= 0
}

// canaryField names a sum: how many values of a metric a model has in a stage, or their sum.
func canaryField(stage, arm, metric int, what string) string {
	return fmt.Sprintf("%d/%s/%s/%s", stage, armNames[arm], metricNames[metric], what)
}

// addTo adds the sums of values of one metric to deltas.
func addTo(deltas map[string]float64, stage, arm, metric int, a canary.Arm) {
	deltas[canaryField(stage, arm, metric, "count")] += a.Count
	deltas[canaryField(stage, arm, metric, "sum")] += a.Sum
}

// losses returns what feedback to an answer of that time adds to the sums: nothing, unless the answer was
// given in this run. The propensity tells the stage, since shares only grow in a run.
func (t *trial) losses(issued time.Time, choices []policy.Choice, losses []float64) []store.Update {
	if !t.running() {
		return nil
	}
	deltas := map[string]float64{}
	for i, c := range choices {
		arm, ok := t.arm(c.Model)
		if !ok || c.Shadow || losses[i] < 0 {
			continue
		}
		stage := slices.IndexFunc(t.progress.Stages, func(s canaryStage) bool {
			share := [arms]float64{s.Share, s.Baseline}[arm]
			return math.Abs(share-c.Propensity) <= 1e-9*share && !issued.Before(s.Begun)
		})
		if stage >= 0 {
			addTo(deltas, stage, arm, metricLoss, canary.Arm{Count: 1, Sum: losses[i]})
		}
	}
	return t.update(deltas)
}

// drawnLosses does so for feedback by input, which tells the loss of every model at once. One of them is
// drawn as a query would have drawn it, since the tests need values that are of one model each.
func (t *trial) drawnLosses(random *rand.Rand, choices []policy.Choice, losses []float64) []store.Update {
	if !t.running() {
		return nil
	}
	now := t.progress.Stages[t.stage()]
	arm := policy.Draw(random, []float64{now.Share, now.Baseline, max(1-now.Share-now.Baseline, 0)})
	deltas := map[string]float64{}
	for i, c := range choices {
		if arm < arms && t.models[arm] == c.Model && losses[i] >= 0 {
			addTo(deltas, t.stage(), arm, metricLoss, canary.Arm{Count: 1, Sum: losses[i]})
		}
	}
	return t.update(deltas)
}

func (t *trial) update(deltas map[string]float64) []store.Update {
	if len(deltas) == 0 {
		return nil
	}
	return []store.Update{{Key: t.sumsKey, Deltas: deltas}}
}

// observe counts an answer that the choices led to, for errors and latency.
func (t *trial) observe(choices []policy.Choice, r *clipperv1.QueryResponse, took time.Duration) {
	if !t.running() {
		return
	}
	for i, c := range choices {
		if arm, ok := t.arm(c.Model); ok && !c.Shadow {
			failed := r.Predictions[i].Status != clipperv1.PredictionStatus_PREDICTION_STATUS_OK
			t.tally.add(t.stage(), arm, failed, min(took.Seconds()/t.objective.Seconds(), 1))
		}
	}
}

// tests returns the tests of the sums.
func (t *trial) tests(sums map[string]float64) [metricCount]canary.Test {
	margins := [metricCount]float64{t.spec.LossMargin, t.spec.ErrorMargin, t.spec.LatencyMargin}
	var tests [metricCount]canary.Test
	for metric := range tests {
		// Each test has two bounds, and all are right together with the confidence.
		tests[metric] = canary.Test{Margin: margins[metric], Alpha: (1 - t.spec.Confidence) / (2 * metricCount)}
		for i, s := range t.progress.Stages {
			if s.Share <= 0 || s.Baseline <= 0 {
				continue
			}
			arm := func(arm int) canary.Arm {
				return canary.Arm{Count: sums[canaryField(i, arm, metric, "count")], Sum: sums[canaryField(i, arm, metric, "sum")]}
			}
			tests[metric].Stages = append(tests[metric].Stages, canary.Stage{
				Canary: arm(armCanary), Baseline: arm(armBaseline), Odds: s.Baseline / s.Share,
			})
		}
	}
	return tests
}

// read returns what the tests say in numbers.
func readTests(tests [metricCount]canary.Test) []canaryTest {
	read := make([]canaryTest, len(tests))
	for i, test := range tests {
		r := canaryTest{Metric: metricNames[i], Margin: test.Margin}
		r.Canary, r.Baseline = test.Standardised()
		r.Lower, r.Upper = test.Bounds()
		for _, s := range test.Stages {
			r.CanaryCount += s.Canary.Count
			r.BaselineCount += s.Baseline.Count
		}
		read[i] = r
	}
	return read
}
