// SPDX-License-Identifier: Apache-2.0

package canary

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// alpha is that of a bound when all tests of a canary hold together with probability 0.95.
const alpha = 0.05 / 6

// draw is a value of a given mean.
type draw func(r *rand.Rand, mean float64) float64

func zeroOrOne(r *rand.Rand, mean float64) float64 {
	if r.Float64() < mean {
		return 1
	}
	return 0
}

// spread is as far from 0 and 1 as it can be without a variance: triangular around the mean.
func spread(r *rand.Rand, mean float64) float64 {
	return mean + min(mean, 1-mean)*(r.Float64()-r.Float64())
}

// TestArm_validAtAllTimes looks after every value: the mixture at the true mean exceeds 1/α in at most
// a share α of the runs, which is what all else rests on.
func TestArm_validAtAllTimes(t *testing.T) {
	const runs, values, level = 2000, 2000, 0.05
	for _, mean := range []float64{0.001, 0.02, 0.3, 0.9} {
		for name, value := range map[string]draw{"0 or 1": zeroOrOne, "spread": spread} {
			t.Run(fmt.Sprintf("%v, %s", mean, name), func(t *testing.T) {
				t.Parallel()
				random := rand.New(rand.NewPCG(1, uint64(mean*1000)))
				misses := 0
				for range runs {
					var a Arm
					for range values {
						a.Count++
						a.Sum += value(random, mean)
						if newArm(a, priorWeight).logMixture(mean) >= -math.Log(level) {
							misses++
							break
						}
					}
				}
				require.LessOrEqual(t, float64(misses)/runs, level)
				t.Logf("%.4f of the runs", float64(misses)/runs)
			})
		}
	}
}

// traffic is a canary that grows as a controller lets it: doubling from 4 % at each verdict of the test,
// while the world that both models live in gets better and worse.
type traffic struct {
	random         *rand.Rand
	value          draw
	test           Test
	share          float64
	base, worse    float64
	feedbacks      int // for the canary
	stageFeedbacks int
}

const final = 0.64

func newTraffic(seed uint64, value draw, base, worse, margin float64) *traffic {
	return &traffic{
		random: rand.New(rand.NewPCG(seed, 7)), value: value, share: 0.04, base: base, worse: worse,
		test: Test{Margin: margin, Alpha: alpha, Stages: []Stage{{Odds: 24}}},
	}
}

// next adds what comes until the canary has n more values.
func (f *traffic) next(n int) {
	// A stage's world differs from the last one's, the difference of the models does not.
	world := f.base * (1 + 0.5*math.Sin(float64(len(f.test.Stages)-1)))
	s := &f.test.Stages[len(f.test.Stages)-1]
	for range n {
		s.Canary.Count++
		s.Canary.Sum += f.value(f.random, world+f.worse)
	}
	f.feedbacks += n
	f.stageFeedbacks += n
	for range int(float64(n)*s.Odds + f.random.Float64()) {
		s.Baseline.Count++
		s.Baseline.Sum += f.value(f.random, world)
	}
}

// grow begins a stage of twice the share.
func (f *traffic) grow() (done bool) {
	if f.share *= 2; f.share >= final {
		return true
	}
	f.stageFeedbacks = 0
	f.test.Stages = append(f.test.Stages, Stage{Odds: (1 - f.share) / f.share})
	return false
}

// TestTest_validAtAllTimes: in 200 canaries that grow in a world that changes, looked at all the time, the
// difference is outside of the bounds at most as often as is promised.
func TestTest_validAtAllTimes(t *testing.T) {
	const runs = 200
	for _, c := range []struct {
		name        string
		value       draw
		base, worse float64
	}{
		{"equal", zeroOrOne, 0.1, 0},
		{"rare", zeroOrOne, 0.002, 0},
		{"worse", zeroOrOne, 0.1, 0.05},
		{"better", zeroOrOne, 0.2, -0.05},
		{"equal and spread", spread, 0.3, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			missed := 0
			for run := range uint64(runs) {
				f := newTraffic(run, c.value, c.base, c.worse, c.worse)
			life:
				for f.feedbacks < 4000 {
					f.next(1 + f.feedbacks/8)
					fits := fitAll(f.test.Stages)
					for _, s := range []side{above, below} {
						if logEvidence(fits, c.worse, s) >= -math.Log(alpha) {
							missed++
							break life
						}
					}
					if f.stageFeedbacks >= 1000 && f.grow() {
						break
					}
				}
			}
			require.LessOrEqual(t, float64(missed)/runs, 2*alpha+3*math.Sqrt(2*alpha/runs))
			t.Logf("%.4f of the canaries, at most %.4f", float64(missed)/runs, 2*alpha)
		})
	}
}

// TestTest_power: after how many values of the canary the verdict comes, and which.
func TestTest_power(t *testing.T) {
	const runs = 40
	for _, c := range []struct {
		name                string
		base, worse, margin float64
		want                Verdict
		within              int // values of the canary, in at least 95 % of the runs
	}{
		{"fails always", 0.001, 0.999, 0.02, Worse, 20},
		{"fails half of the time", 0.001, 0.499, 0.02, Worse, 40},
		{"twice the loss", 0.1, 0.1, 0.02, Worse, 1000},
		{"half more than the loss", 0.1, 0.05, 0.02, Worse, 5000},
		{"equal, low loss", 0.02, 0, 0.02, NotWorse, 3000},
		{"equal", 0.1, 0, 0.02, NotWorse, 12000},
		{"equal, no errors", 0, 0, 0.02, NotWorse, 500},
		{"better", 0.2, -0.05, 0.02, NotWorse, 1200},
		{"latency, equal", 0.3, 0, 0.1, NotWorse, 1000},
		{"latency, three times", 0.2, 0.4, 0.1, Worse, 150},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var after []int
			for run := range uint64(runs) {
				f := newTraffic(run, zeroOrOne, c.base, c.worse, c.margin)
				verdict := Undecided
				for verdict == Undecided && f.feedbacks < 20*c.within {
					f.next(1 + f.feedbacks/20)
					verdict = f.test.Verdict()
				}
				if verdict == c.want && f.feedbacks <= c.within {
					after = append(after, f.feedbacks)
				}
			}
			require.GreaterOrEqual(t, len(after), runs*95/100)
			total := 0
			for _, n := range after {
				total += n
			}
			t.Logf("after %d on average", total/len(after))
		})
	}
}

// TestTest_stagesAreNotAddedUp: the canary is better by 0.05 in each stage, but got most of its traffic
// when everything was hard. Added up, it would look worse.
func TestTest_stagesAreNotAddedUp(t *testing.T) {
	test := Test{Margin: 0.02, Alpha: alpha, Stages: []Stage{
		{Canary: Arm{Count: 1000, Sum: 50}, Baseline: Arm{Count: 99000, Sum: 9900}, Odds: 99},
		{Canary: Arm{Count: 10000, Sum: 4500}, Baseline: Arm{Count: 10000, Sum: 5000}, Odds: 1},
	}}
	require.Equal(t, NotWorse, test.Verdict())
	lower, upper := test.Bounds()
	require.Less(t, lower, -0.05)
	require.Greater(t, upper, -0.05)
	require.Less(t, upper, 0.0)
	canary, baseline := test.Standardised()
	require.InDelta(t, 4550.0/11000, canary, 1e-12)
	require.InDelta(t, (1000*0.1+10000*0.5)/11000, baseline, 1e-12)
	require.InDelta(t, -0.05, canary-baseline, 1e-12)
}

// TestTest_laterStageDecides: what was good at a small share and fails at a larger one is found out soon,
// whatever it did before.
func TestTest_laterStageDecides(t *testing.T) {
	test := Test{Margin: 0.02, Alpha: alpha, Stages: []Stage{
		{Canary: Arm{Count: 20000, Sum: 0}, Baseline: Arm{Count: 20000, Sum: 1000}, Odds: 1},
		{Canary: Arm{Count: 200, Sum: 120}, Baseline: Arm{Count: 67, Sum: 4}, Odds: 1. / 3},
	}}
	require.Equal(t, Worse, test.Verdict())
	test.Stages = test.Stages[:1]
	require.Equal(t, NotWorse, test.Verdict())
}

func TestTest_nothingKnown(t *testing.T) {
	for _, stages := range [][]Stage{nil, {{Odds: 99}}, {{Odds: 99}, {Odds: 49}}} {
		test := Test{Margin: 0.02, Alpha: alpha, Stages: stages}
		require.Equal(t, Undecided, test.Verdict())
		lower, upper := test.Bounds()
		require.Equal(t, -1.0, lower)
		require.Equal(t, 1.0, upper)
	}
	canary, baseline := Test{Stages: []Stage{{Odds: 1}}}.Standardised()
	require.Zero(t, canary)
	require.Zero(t, baseline)
}

// TestTest_anySums: bounds are in [−1, 1], hold the difference that one stage has, agree with the verdict,
// and more values of the same mean do not widen them.
func TestTest_anySums(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		arm := func(name string) Arm {
			n := float64(rapid.IntRange(0, 100_000).Draw(t, name+" count"))
			return Arm{Count: n, Sum: n * rapid.Float64Range(0, 1).Draw(t, name+" mean")}
		}
		s := Stage{Canary: arm("canary"), Baseline: arm("baseline"), Odds: math.Exp(rapid.Float64Range(-7, 7).Draw(t, "log odds"))}
		test := Test{Stages: []Stage{s}, Alpha: alpha, Margin: rapid.Float64Range(0.001, 0.9).Draw(t, "margin")}
		lower, upper := test.Bounds()
		require.False(t, math.IsNaN(lower) || math.IsNaN(upper))
		require.GreaterOrEqual(t, lower, -1.0)
		require.LessOrEqual(t, upper, 1.0)
		if s.Canary.Count > 0 && s.Baseline.Count > 0 {
			difference := s.Canary.Mean() - s.Baseline.Mean()
			require.LessOrEqual(t, lower, difference+precision)
			require.GreaterOrEqual(t, upper, difference-precision)
		}
		switch test.Verdict() {
		case Worse:
			require.GreaterOrEqual(t, lower, test.Margin-2*precision)
		case NotWorse:
			require.LessOrEqual(t, upper, test.Margin+2*precision)
		case Undecided:
			require.LessOrEqual(t, lower, test.Margin)
			require.GreaterOrEqual(t, upper, test.Margin)
		}
	})
}

// TestMixture_beta compares the mixture with the integral that it is.
func TestMixture_beta(t *testing.T) {
	const mean, rho, n, s = 0.3, 20.0, 12.0, 5.0
	// The likelihood ratio against the mean, over the prior's density, by the midpoint rule.
	const points = 200_000
	integral, mass := 0.0, 0.0
	for i := range points {
		x := (float64(i) + 0.5) / points
		density := math.Pow(x, rho*mean-1) * math.Pow(1-x, rho*(1-mean)-1)
		mass += density
		integral += density * math.Pow(x/mean, s) * math.Pow((1-x)/(1-mean), n-s)
	}
	require.InDelta(t, math.Log(integral/mass), newArm(Arm{Count: n, Sum: s}, rho).logMixture(mean), 1e-6)
}

func BenchmarkVerdict(b *testing.B) {
	f := newTraffic(1, zeroOrOne, 0.1, 0, 0.02)
	for range 6 {
		f.next(500)
		f.grow()
	}
	for b.Loop() {
		f.test.Verdict()
	}
}

func BenchmarkBounds(b *testing.B) {
	f := newTraffic(1, zeroOrOne, 0.1, 0, 0.02)
	for range 6 {
		f.next(500)
		f.grow()
	}
	for b.Loop() {
		f.test.Bounds()
	}
}
