// SPDX-License-Identifier: Apache-2.0

package evaluate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/selector/decisionlog"
	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/exp3"
	"github.com/clipper-serving/clipper/selector/policy/exp4"
)

// said is one model's part of a logged decision: "model propensity prediction"; "-" for none, "!" before a
// shadow.
func record(i int, truth string, said ...string) decisionlog.Record {
	r := decisionlog.Record{
		ID: fmt.Sprint(i), Time: time.Unix(int64(i), 0), Application: "digits", Policy: "static", Output: "-1",
		Feedback: &decisionlog.Feedback{Time: time.Unix(int64(i)+1, 0), Truth: decisionlog.JSON(truth)},
	}
	for _, text := range said {
		m := decisionlog.Model{Shadow: strings.HasPrefix(text, "!")}
		var prediction string
		_, err := fmt.Sscan(strings.TrimPrefix(text, "!"), &m.Model, &m.Propensity, &prediction)
		if err != nil {
			panic(err)
		}
		if prediction != "-" {
			m.Prediction = decisionlog.JSON(prediction)
		}
		if !m.Shadow && m.Prediction != "" {
			r.Output = m.Prediction
		}
		r.Models = append(r.Models, m)
	}
	return r
}

func byName(t *testing.T, r *Report, name string) Estimate {
	for _, e := range r.Estimates {
		if e.Name == name {
			return e
		}
	}
	t.Fatalf("there is no %s in %+v", name, r.Estimates)
	return Estimate{}
}

// TestRun_byHand holds the estimates against numbers that were worked out by hand.
func TestRun_byHand(t *testing.T) {
	log := []decisionlog.Record{
		record(1, "1", "a 0.5 1"),  // r = 1, p/q = 0.25/0.5
		record(2, "1", "b 0.5 2"),  // r = 0, p/q = 0.75/0.5
		record(3, "1", "b 0.25 1"), // r = 1, p/q = 0.75/0.25
		record(4, "1", "a 0.25 -"), // the default is wrong: r = 0, p/q = 0.25/0.25
	}
	r, err := Run(application("static", map[string]float64{"a": 1, "b": 3}, "a", "b"), log, Options{})
	require.NoError(t, err)
	require.Equal(t, 4, r.Used)
	require.False(t, r.Learns)
	require.False(t, r.Exact)
	ips := byName(t, r, IPS)
	require.InDelta(t, (0.5+3)/4, ips.Reward, 1e-12)
	// The terms are 0.5, 0, 3, 0: their variance is (9.25 − 4·0.875²)/3.
	require.InDelta(t, math.Sqrt((9.25-4*0.875*0.875)/3/4), ips.StandardError, 1e-12)
	require.InDelta(t, ips.Reward-1.959964*ips.StandardError, ips.Lower, 1e-6)
	require.InDelta(t, ips.Reward+1.959964*ips.StandardError, ips.Upper, 1e-6)
	snips := byName(t, r, SNIPS)
	v := 3.5 / 6
	require.InDelta(t, v, snips.Reward, 1e-12)
	squares := 0.0
	for _, x := range [][2]float64{{0.5, 0.5}, {0, 1.5}, {3, 3}, {0, 1}} {
		squares += (x[0] - v*x[1]) * (x[0] - v*x[1])
	}
	require.InDelta(t, math.Sqrt(squares/3/4)/1.5, snips.StandardError, 1e-12)
	// Guesses of a and b: ½ ½, then 1 ½, then 1 0, then 1 ½.
	dr := (0.5 + 0.5*(1-0.5)) + (0.625 + 1.5*(0-0.5)) + (0.25 + 3*(1-0)) + (0.625 + 1*(0-1))
	require.InDelta(t, dr/4, byName(t, r, DR).Reward, 1e-12)
	require.InDelta(t, 36.0/(0.25+2.25+9+1), r.EffectiveSamples, 1e-12)
	require.Equal(t, 3.0, r.LargestWeight)
	require.InDelta(t, 0.5, r.Logged.Reward, 1e-12)
	require.Contains(t, strings.Join(r.Warnings, "\n"), "only 4 decisions")
}

// A policy that is judged by its own log has earned what the log has.
func TestRun_onItself(t *testing.T) {
	var log []decisionlog.Record
	random := rand.New(rand.NewPCG(1, 1))
	for i := range 500 {
		m := policy.Draw(random, []float64{0.25, 0.75})
		log = append(log, record(i, "1", []string{"a 0.25 1", "b 0.75 2"}[m]))
	}
	r, err := Run(application("static", map[string]float64{"a": 1, "b": 3}, "a", "b"), log, Options{})
	require.NoError(t, err)
	require.InDelta(t, r.Logged.Reward, byName(t, r, IPS).Reward, 1e-12)
	require.InDelta(t, r.Logged.Reward, byName(t, r, SNIPS).Reward, 1e-12)
	require.InDelta(t, r.Logged.StandardError, byName(t, r, IPS).StandardError, 1e-12)
	require.InDelta(t, 500, r.EffectiveSamples, 1e-9)
	require.Empty(t, r.Warnings)
}

// An ensemble's log replays an ensemble to the last digit, learning, contexts, default output and all.
func TestRun_replaysEnsemble(t *testing.T) {
	app := application("exp4", nil, "a", "b", "c")
	app.Policy.Parameters = map[string]float64{"eta": 0.5}
	app.ConfidenceThreshold = 0.6
	random := rand.New(rand.NewPCG(2, 2))
	p, err := exp4.New(app.Policy.Parameters)
	require.NoError(t, err)
	own := map[string][]float64{"ann": make([]float64, 3), "bob": make([]float64, 3), "": make([]float64, 3)}
	observed := map[string]float64{}
	task := policy.Task{Kind: policy.Label}
	var log []decisionlog.Record
	want := 0.0
	choices := []policy.Choice{{Model: 0, Propensity: 1}, {Model: 1, Propensity: 1}, {Model: 2, Propensity: 1}}
	const queries = 300
	for i := range queries {
		user := []string{"ann", "bob", ""}[random.IntN(3)]
		var values []policy.Value
		var said []string
		for m, name := range []string{"a", "b", "c"} {
			label := 1 + random.IntN(m+2)
			values = append(values, policy.Integer(int64(label)))
			said = append(said, fmt.Sprintf("%s 1 %d", name, label))
		}
		r := record(i, "1", said...)
		r.Context = user
		log = append(log, r)

		// A context's own sums and, as far as it has little of its own, what the others have learned.
		sums := func(user string) *policy.State {
			return &policy.State{Priors: []float64{1. / 3, 1. / 3, 1. / 3}, Statistics: slices.Clone(own[user])}
		}
		state := func(user string) *policy.State {
			s := sums(user)
			if user != "" {
				for k := range s.Statistics {
					s.Statistics[k] += 10 / (10 + observed[user]) * (own[""][k] - own[user][k])
				}
			}
			return s
		}
		combined := p.Combine(state(user), task, choices, values, nil)
		if combined.Confidence >= app.ConfidenceThreshold && combined.Value.Equal(policy.Integer(1)) {
			want++
		}
		o := policy.Observation{Choices: choices}
		for _, v := range values {
			o.Losses = append(o.Losses, task.Loss(policy.Integer(1), v))
		}
		deltas := map[string][]float64{"": make([]float64, 3)}
		p.Observe(sums(""), o, deltas[""])
		if user != "" {
			deltas[user] = make([]float64, 3)
			p.Observe(sums(user), o, deltas[user])
		}
		for user, d := range deltas {
			for k := range d {
				own[user][k] += d[k]
			}
		}
		observed[user]++
	}
	r, err := Run(app, log, Options{})
	require.NoError(t, err)
	require.True(t, r.Exact)
	require.True(t, r.Learns)
	require.Len(t, r.Estimates, 1)
	require.InDelta(t, want/queries, byName(t, r, Replay).Reward, 1e-12)
	require.Empty(t, r.Warnings)
}

// A bandit that is replayed on an ensemble's log earns what it earns when it runs.
func TestRun_replaysBandit(t *testing.T) {
	const queries, seeds = 400, 200
	random := rand.New(rand.NewPCG(3, 3))
	var log []decisionlog.Record
	losses := make([][3]float64, queries)
	for i := range losses {
		var said []string
		for m, name := range []string{"a", "b", "c"} {
			label := 1
			if random.Float64() > models.means[m] {
				label, losses[i][m] = 2, 1
			}
			said = append(said, fmt.Sprintf("%s 1 %d", name, label))
		}
		log = append(log, record(i, "1", said...))
	}
	app := application("exp3", nil, "a", "b", "c")
	r, err := Run(app, log, Options{Replays: seeds, Seed: 1})
	require.NoError(t, err)
	require.True(t, r.Exact)

	p, err := exp3.New(nil)
	require.NoError(t, err)
	total := 0.0
	for seed := range uint64(seeds) {
		random := rand.New(rand.NewPCG(seed, 99))
		s := &policy.State{Priors: []float64{1. / 3, 1. / 3, 1. / 3}, Statistics: make([]float64, 3)}
		deltas := make([]float64, 3)
		for i := range losses {
			c := p.Select(s, &policy.Query{Random: random}, nil)
			total += 1 - losses[i][c[0].Model]
			p.Observe(s, policy.Observation{Choices: c, Losses: []float64{losses[i][c[0].Model]}}, deltas)
			for k := range deltas {
				s.Statistics[k] += deltas[k]
			}
		}
	}
	// Of 200 runs of 400 queries each: some 0.002 of noise.
	require.InDelta(t, total/queries/seeds, byName(t, r, Replay).Reward, 0.01)
	again, err := Run(app, log, Options{Replays: seeds, Seed: 1})
	require.NoError(t, err)
	require.Equal(t, r, again, "the same seed gives the same report")
}

// Shadow models make an ensemble, or another model, known without being asked by the policy.
func TestRun_shadows(t *testing.T) {
	var log []decisionlog.Record
	for i := range 200 {
		log = append(log, record(i, "1", fmt.Sprintf("a 1 %d", 1+i%2), "!b 1 1"))
	}
	r, err := Run(application("single", nil, "b", "a"), log, Options{})
	require.NoError(t, err)
	require.True(t, r.Exact)
	require.Equal(t, 1.0, byName(t, r, Replay).Reward)
	require.Equal(t, 0.5, r.Logged.Reward)
}

// A model that the target may not ask is the same as one of no weight: what others earned still counts
// as a decision.
func TestRun_fewerModels(t *testing.T) {
	var log []decisionlog.Record
	for i := range 400 {
		log = append(log, record(i, "1", []string{"a 0.25 1", "b 0.75 1", "b 0.75 2", "b 0.75 1"}[i%4]))
	}
	few, err := Run(application("static", nil, "b"), log, Options{})
	require.NoError(t, err)
	require.Equal(t, 400, few.Used)
	require.InDelta(t, 2./3, byName(t, few, IPS).Reward, 1e-9)
	require.InDelta(t, 2./3, byName(t, few, SNIPS).Reward, 1e-9)
	weightless, err := Run(application("static", map[string]float64{"b": 1}, "a", "b"), log, Options{})
	require.NoError(t, err)
	require.Equal(t, few.Estimates, weightless.Estimates)
}

func TestRun_frozen(t *testing.T) {
	var log []decisionlog.Record
	for i := range 400 {
		log = append(log, record(i, "1", []string{"a 0.5 1", "b 0.5 2"}[i%2]))
	}
	app := application("exp3", nil, "a", "b")
	app.Policy.Parameters = map[string]float64{"gamma": 0}
	state := &clipperv1.GetSelectionStateResponse{Models: []*clipperv1.ModelSelectionState{
		{Model: "b", Statistics: map[string]float64{"log_weight": math.Log(3)}},
	}}
	p, err := exp3.New(nil)
	require.NoError(t, err)
	state.Models[0].Statistics = map[string]float64{p.Statistics()[0]: math.Log(3)}
	r, err := Run(app, log, Options{Frozen: state})
	require.NoError(t, err)
	require.False(t, r.Learns)
	require.InDelta(t, 0.25, byName(t, r, IPS).Reward, 1e-9, "it asks a, which is always right, in a quarter of the cases")
	require.Contains(t, strings.Join(r.Warnings, "\n"), "flatters")
}

func TestRun_warnings(t *testing.T) {
	many := func(n int, one func(i int) decisionlog.Record) (log []decisionlog.Record) {
		for i := range n {
			log = append(log, one(i))
		}
		return log
	}
	a := func(i int) decisionlog.Record { return record(i, "1", "a 1 1") }
	weights := map[string]float64{"a": 1, "b": 1}
	for name, test := range map[string]struct {
		app  *clipperv1.Application
		log  []decisionlog.Record
		want string
	}{
		"never asked": {application("static", weights, "a", "b"), many(200, a), "50 % of the choices are for models that the log never asked"},
		"silent": {application("single", nil, "a"), many(200, func(i int) decisionlog.Record {
			r := a(i)
			if i%2 == 0 {
				r.Feedback = nil
			}
			return r
		}), "100 of 200 decisions have no feedback"},
		"heavy": {application("single", nil, "a", "b"), many(200, func(i int) decisionlog.Record {
			if i == 100 {
				return record(i, "1", "a 0.005 1")
			}
			return record(i, "1", "b 0.995 1")
		}), "the weight 200"},
		"few effective": {application("single", nil, "a", "b"), many(200, func(i int) decisionlog.Record {
			if i%20 == 0 {
				return record(i, "1", "a 0.05 1")
			}
			return record(i, "1", "b 0.95 1")
		}), "10 effective samples of 200"},
		"foreign": {application("single", nil, "a"), many(200, func(i int) decisionlog.Record { return record(i, "1", "a 1 1", "!z 1 1") }), "the application does not have them"},
		"partly an ensemble": {application("majority", nil, "a", "b"), many(400, func(i int) decisionlog.Record {
			if i%2 == 0 {
				return a(i)
			}
			return record(i, "1", "a 1 1", "b 1 1")
		}), "200 decisions did not ask all models of the ensemble"},
		"rewards": {application("majority", nil, "a", "b"), many(200, func(i int) decisionlog.Record {
			r := record(i, "", "a 1 1", "b 1 1")
			one := 1.0
			r.Feedback.Reward = &one
			r.Feedback.Losses = []decisionlog.Loss{{Model: "a"}, {Model: "b"}}
			return r
		}), "have a reward and no truth"},
		"learned from the log": {application("ucb1", nil, "a", "b"), many(200, func(i int) decisionlog.Record { return record(i, "1", []string{"a 0.5 1", "b 0.5 1"}[i%2]) }), "not from its own"},
		"no features":          {application("linucb", nil, "a", "b"), many(200, func(i int) decisionlog.Record { return record(i, "1", []string{"a 0.5 1", "b 0.5 1"}[i%2]) }), "have no features"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Run(test.app, test.log, Options{})
			require.NoError(t, err)
			require.Contains(t, strings.Join(r.Warnings, "\n"), test.want)
		})
	}
}

func TestRun_errors(t *testing.T) {
	silent := record(1, "1", "a 1 1")
	silent.Feedback = nil
	for name, test := range map[string]struct {
		app  *clipperv1.Application
		log  []decisionlog.Record
		want string
	}{
		"empty":          {application("single", nil, "a"), nil, "no decisions"},
		"silent":         {application("single", nil, "a"), []decisionlog.Record{silent}, "none of its decisions has feedback"},
		"never asked":    {application("single", nil, "b", "a"), []decisionlog.Record{record(1, "1", "a 1 1")}, "the log never asked"},
		"no ensemble":    {application("majority", nil, "a", "b"), []decisionlog.Record{record(1, "1", "a 0.5 1")}, "make the others shadow models"},
		"custom":         {application("custom", nil, "a"), nil, "custom"},
		"unknown policy": {application("best", nil, "a"), nil, "best"},
		"no models":      {application("single", nil), nil, "0 models"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Run(test.app, test.log, Options{})
			require.ErrorContains(t, err, test.want)
		})
	}
}

// Whatever the log says, the figures are numbers, and an interval holds its estimate.
func TestRun_anyLog(t *testing.T) {
	names := []string{"epsilon-greedy", "exp3", "exp4", "linucb", "majority", "mean", "single", "static", "thompson", "ucb1"}
	rapid.Check(t, func(t *rapid.T) {
		app := application(rapid.SampledFrom(names).Draw(t, "policy"), nil, "a", "b", "c")
		var log []decisionlog.Record
		for i := range rapid.IntRange(0, 30).Draw(t, "decisions") {
			r := record(i, fmt.Sprint(rapid.IntRange(0, 2).Draw(t, "truth")))
			for _, m := range []string{"a", "b", "c", "d"} {
				if rapid.Bool().Draw(t, "asked") {
					r.Models = append(r.Models, decisionlog.Model{
						Model: m, Propensity: rapid.SampledFrom([]float64{1, 0.5, 1e-6}).Draw(t, "propensity"), Shadow: rapid.Bool().Draw(t, "shadow"),
						Prediction: rapid.SampledFrom([]decisionlog.JSON{"", "0", "1", `"x"`, "[1]", "1e300"}).Draw(t, "prediction"),
					})
				}
			}
			r.Context = rapid.SampledFrom([]string{"", "ann"}).Draw(t, "context")
			r.Features = rapid.SampledFrom([][]float64{nil, {0.5, 1}, {0, 0, 0, 0, 0, 0, 0, 0, 1}}).Draw(t, "features")
			if rapid.Bool().Draw(t, "silent") {
				r.Feedback = nil
			}
			log = append(log, r)
		}
		r, err := Run(app, log, Options{})
		if err != nil {
			return
		}
		for _, e := range append(r.Estimates, r.Logged) {
			for _, x := range []float64{e.Reward, e.Lower, e.Upper, e.StandardError} {
				if math.IsNaN(x) || math.IsInf(x, 0) {
					t.Fatalf("%+v", r)
				}
			}
			if e.Lower > e.Reward || e.Upper < e.Reward {
				t.Fatalf("%+v", e)
			}
		}
	})
}

func TestRidge(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	r := newRidge(3)
	for range 5000 {
		x := []float64{random.Float64(), random.Float64(), 1}
		r.learn(x, 0.5*x[0]-0.25*x[1]+0.1+random.NormFloat64()/100)
	}
	require.InDeltaSlice(t, []float64{0.5, -0.25, 0.1}, r.theta, 0.01)
}
