// SPDX-License-Identifier: Apache-2.0

package evaluate

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/structpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/exp3"
)

// application has models of the names, with the weights.
func application(name string, weights map[string]float64, models ...string) *clipperv1.Application {
	app := &clipperv1.Application{
		Name: "digits", Policy: &clipperv1.Policy{Name: name}, DefaultOutput: structpb.NewNumberValue(-1), PriorWeight: 10,
		Output: &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_LABEL, DataType: clipperv1.DataType_DATA_TYPE_INT64},
	}
	for _, m := range models {
		app.Models = append(app.Models, &clipperv1.ApplicationModel{Model: m, Weight: weights[m]})
	}
	return app
}

// world is a stream of queries with features x, uniform in [−1, 1], and the constant 1; model m is right
// with the probability mean_m + slope_m · x. So its mean reward is mean_m.
type world struct{ means, slopes []float64 }

var models = world{means: []float64{0.8, 0.6, 0.5}, slopes: []float64{-0.15, 0.3, 0.45}}

// query returns which models are right, and the features.
func (w world) query(random *rand.Rand) (right []bool, features []float64) {
	x := 2*random.Float64() - 1
	for m, mean := range w.means {
		right = append(right, random.Float64() < mean+w.slopes[m]*x)
	}
	return right, []float64{x, 1}
}

// ask makes one model's part of a sample.
func ask(model int, propensity float64, right bool) asked {
	a := asked{model: model, propensity: propensity, value: policy.Integer(1)}
	if !right {
		a.value, a.loss = policy.Integer(int64(2+model)), 1 // Models that are wrong do not agree.
	}
	return a
}

// logger makes the samples of a log.
type logger func(w world, random *rand.Rand, n int) []sample

// static is a log of one model each, asked with these probabilities, with or without features.
func static(withFeatures bool, probabilities ...float64) logger {
	return func(w world, random *rand.Rand, n int) (samples []sample) {
		for range n {
			right, features := w.query(random)
			m := policy.Draw(random, probabilities)
			s := sample{asked: []asked{ask(m, probabilities[m], right[m])}, truth: policy.Integer(1), reward: 1}
			if withFeatures {
				s.features = features
			}
			samples = append(samples, s)
		}
		return samples
	}
}

// learner is a log of Exp3, whose propensities depend on what it has learned.
func learner(w world, random *rand.Rand, n int) (samples []sample) {
	p, _ := exp3.New(map[string]float64{"eta": 0.02, "gamma": 0.2})
	state := &policy.State{Priors: []float64{1. / 3, 1. / 3, 1. / 3}, Statistics: make([]float64, 3)}
	deltas := make([]float64, 3)
	for range n {
		right, _ := w.query(random)
		c := p.Select(state, &policy.Query{Random: random}, nil)[0]
		a := ask(c.Model, c.Propensity, right[c.Model])
		samples = append(samples, sample{asked: []asked{a}, truth: policy.Integer(1), reward: 1})
		p.Observe(state, policy.Observation{Choices: []policy.Choice{c}, Losses: []float64{a.loss}}, deltas)
		for i, d := range deltas {
			state.Statistics[i] += d
		}
	}
	return samples
}

// ensemble is a log of all models.
func ensemble(w world, random *rand.Rand, n int) (samples []sample) {
	for range n {
		right, _ := w.query(random)
		s := sample{truth: policy.Integer(1), reward: 1}
		for m := range w.means {
			s.asked = append(s.asked, ask(m, 1, right[m]))
		}
		samples = append(samples, s)
	}
	return samples
}

// watched records what a policy's choices are worth.
type watched struct {
	policy.Policy
	w         world
	worth, of *float64
}

func (p watched) Probabilities(s *policy.State, dst []float64) {
	p.Policy.Probabilities(s, dst)
	for m, probability := range dst {
		*p.worth += probability * p.w.means[m]
	}
	*p.of++
}

// TestCoverage holds the 95 % intervals against streams whose truth is known. With 500 runs the share of
// intervals that hold it has a standard deviation of 1 %, so a right interval is between 93 and 97 % with 96 %;
// the seeds are fixed, and a share outside has to be looked into.
func TestCoverage(t *testing.T) {
	const runs, decisions = 500, 1000
	weights := map[string]float64{"a": 0.2, "b": 0.3, "c": 0.5}
	value := 0.2*0.8 + 0.3*0.6 + 0.5*0.5
	for _, test := range []struct {
		name   string
		policy string
		log    logger
		truth  float64 // 0: what its choices were worth
	}{
		{"static of static", "static", static(false, 0.6, 0.3, 0.1), value},
		{"static of static, with features", "static", static(true, 0.6, 0.3, 0.1), value},
		{"static of a learner", "static", learner, value},
		{"static of an ensemble", "static", ensemble, value},
		{"single of static", "single", static(false, 0.2, 0.3, 0.5), 0.8},
		{"exp3 of static", "exp3", static(false, 0.6, 0.3, 0.1), 0},
		{"thompson of static", "thompson", static(false, 0.4, 0.3, 0.3), 0},
		{"majority of an ensemble", "majority", ensemble, majorityOf(models)},
	} {
		t.Run(test.name, func(t *testing.T) {
			covered, bias := map[string]int{}, map[string]float64{}
			for run := range uint64(runs) {
				weights := weights
				if test.policy == "majority" { // One model, one vote.
					weights = nil
				}
				target, err := newTarget(application(test.policy, weights, "a", "b", "c"), Options{})
				require.NoError(t, err)
				var worth, of float64
				if test.truth == 0 {
					target.policy = watched{target.policy, models, &worth, &of}
				}
				var r Report
				target.judge(test.log(models, rand.New(rand.NewPCG(run, 5)), decisions), Options{}, &r)
				truth := test.truth
				if truth == 0 {
					truth = worth / of
				}
				require.Equal(t, decisions, r.Used)
				for _, e := range r.Estimates {
					bias[e.Name] += (e.Reward - truth) / runs
					if e.Lower <= truth && truth <= e.Upper {
						covered[e.Name]++
					}
				}
			}
			for name := range bias {
				n := covered[name]
				t.Logf("%s: %.3f of %d intervals hold the truth, bias %.4f", name, float64(n)/runs, runs, bias[name])
				require.GreaterOrEqual(t, float64(n)/runs, 0.93, name)
				require.LessOrEqual(t, float64(n)/runs, 0.97, name)
			}
		})
	}
}

// majorityOf returns how often the majority is right. Models that are wrong say different things, so that
// one model that is right has as many votes as each of the others, and the smallest label wins: the right one.
func majorityOf(w world) float64 {
	// Mean of 1 − Π (1 − mean − slope · x) over x, by Simpson's rule, which is exact for a cubic polynomial.
	wrong := func(x float64) float64 {
		p := 1.0
		for m, mean := range w.means {
			p *= 1 - mean - w.slopes[m]*x
		}
		return p
	}
	return 1 - (wrong(-1)+4*wrong(0)+wrong(1))/6
}
