// SPDX-License-Identifier: Apache-2.0

package canary

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/clipper-serving/clipper/bench/experiment"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	sequential "github.com/clipper-serving/clipper/selector/canary"
)

const (
	// lifetimes is how many canaries of each kind are simulated.
	lifetimes = 1000
	// most is the feedbacks for the canary after which one is left undecided.
	most = 20_000
	// spread is how far a latency is from its mean, at most, as a share of the objective.
	spread = 0.01
)

// simulated are the kinds of the system, and the hardest one: worse by just the margin, so that no decision about
// the loss is right.
var simulated = append(slices.Clone(kinds), kind{name: "at the margin", errors: baselineErrors + lossMargin, time: baselineTime})

// simulation is many canaries of a kind.
type simulation struct {
	kind      kind
	outcomes  map[clipperv1.CanaryState]int
	feedbacks []float64 // of those that were decided
	wrong     int       // in how many a bound was wrong at some time
}

func simulateAll(ctx context.Context, log io.Writer) ([]*simulation, error) {
	var all []*simulation
	for n, k := range simulated {
		results := make([]outcome, lifetimes)
		group, simulating := errgroup.WithContext(ctx)
		group.SetLimit(runtime.GOMAXPROCS(0))
		for i := range results {
			group.Go(func() error {
				results[i] = simulate(k, uint64(n), uint64(i))
				return simulating.Err()
			})
		}
		if err := group.Wait(); err != nil {
			return nil, err
		}
		s := &simulation{kind: k, outcomes: map[clipperv1.CanaryState]int{}}
		for _, r := range results {
			s.outcomes[r.state]++
			if r.state != clipperv1.CanaryState_CANARY_STATE_RUNNING {
				s.feedbacks = append(s.feedbacks, float64(r.feedbacks))
			}
			if r.wrong {
				s.wrong++
			}
		}
		slices.Sort(s.feedbacks)
		_, _ = fmt.Fprintf(log, "simulated %s: %v, a bound wrong in %d\n", k.name, s.outcomes, s.wrong)
		all = append(all, s)
	}
	return all, nil
}

// outcome is what has become of one canary.
type outcome struct {
	state     clipperv1.CanaryState
	feedbacks int
	wrong     bool
}

// metric is what is known of one, and what is true.
type metric struct {
	test     sequential.Test
	baseline float64 // mean
	more     float64 // the canary's is more by
	draw     func(r *rand.Rand, mean float64) float64
}

// simulate leads one canary's life by the rules of docs/canary.md.
func simulate(k kind, seed, number uint64) outcome {
	random := rand.New(rand.NewPCG(seed, number)) //nolint:gosec // A simulation.
	alpha := (1 - confidence) / 6
	latency := func(t float64) float64 { return t / objective.Seconds() }
	metrics := []*metric{
		{sequential.Test{Margin: lossMargin, Alpha: alpha}, baselineErrors, k.errors - baselineErrors, zeroOrOne},
		{sequential.Test{Margin: errorMargin, Alpha: alpha}, 0, k.failures, zeroOrOne},
		{sequential.Test{Margin: latencyMargin, Alpha: alpha}, latency(baselineTime.Seconds()), latency((k.time - baselineTime).Seconds()), around},
	}
	o := outcome{state: clipperv1.CanaryState_CANARY_STATE_RUNNING}
	for stage, share := 0, initialShare; ; stage++ {
		for _, m := range metrics {
			m.test.Stages = append(m.test.Stages, sequential.Stage{Odds: (1 - share) / share})
		}
		// The world changes from stage to stage, for both.
		world := 1 + 0.3*math.Sin(float64(stage))
		inStage := 0
		for o.state == clipperv1.CanaryState_CANARY_STATE_RUNNING {
			n := 1 + o.feedbacks/12
			if o.feedbacks+n > most {
				return o
			}
			for _, m := range metrics {
				m.next(random, n, world)
			}
			o.feedbacks += n
			inStage += n
			worse, notWorse := false, true
			for _, m := range metrics {
				verdict := m.test.Verdict()
				worse = worse || verdict == sequential.Worse
				notWorse = notWorse && verdict == sequential.NotWorse
				// A test of the truth says nothing, unless a bound is wrong.
				truth := m.test
				truth.Margin = m.more
				o.wrong = o.wrong || truth.Verdict() != sequential.Undecided
			}
			if worse {
				o.state = clipperv1.CanaryState_CANARY_STATE_ROLLED_BACK
				return o
			}
			if notWorse && inStage >= minFeedbacks {
				break
			}
		}
		if share *= step; share >= 1 {
			o.state = clipperv1.CanaryState_CANARY_STATE_PROMOTED
			return o
		}
	}
}

// next adds n values of the canary, and as many of the baseline as come meanwhile.
func (m *metric) next(random *rand.Rand, n int, world float64) {
	s := &m.test.Stages[len(m.test.Stages)-1]
	baseline := m.baseline * world
	for range n {
		s.Canary.Count++
		s.Canary.Sum += m.draw(random, baseline+m.more)
	}
	for range int(float64(n)*s.Odds + random.Float64()) {
		s.Baseline.Count++
		s.Baseline.Sum += m.draw(random, baseline)
	}
}

func zeroOrOne(r *rand.Rand, mean float64) float64 {
	if r.Float64() < mean {
		return 1
	}
	return 0
}

func around(r *rand.Rand, mean float64) float64 {
	return mean + min(spread, mean)*(2*r.Float64()-1)
}

func (s *simulation) row() []any {
	cells := []any{
		"simulation", s.kind.name, s.kind.errors, s.kind.failures, s.kind.time.Seconds() * 1e3,
		s.outcomes[clipperv1.CanaryState_CANARY_STATE_PROMOTED], s.outcomes[clipperv1.CanaryState_CANARY_STATE_ROLLED_BACK], s.outcomes[clipperv1.CanaryState_CANARY_STATE_RUNNING],
	}
	if len(s.feedbacks) > 0 {
		cells = append(cells, s.feedbacks[len(s.feedbacks)/2], s.feedbacks[len(s.feedbacks)*95/100])
	} else {
		cells = append(cells, "-", "-")
	}
	return append(cells, 100*float64(s.wrong)/lifetimes, "-")
}

// bars hold what was wrong against what the confidence allows.
func (s *simulation) bars() []experiment.Bar {
	const allowed = 100 * (1 - confidence)
	wrong := s.outcomes[clipperv1.CanaryState_CANARY_STATE_PROMOTED] + s.outcomes[clipperv1.CanaryState_CANARY_STATE_ROLLED_BACK]
	if s.kind.name != "at the margin" {
		wrong -= s.outcomes[s.kind.want()]
	}
	return []experiment.Bar{
		experiment.AtMost(fmt.Sprintf("simulation: wrong decisions, %s", s.kind.name), 100*float64(wrong)/lifetimes, "%", allowed),
		experiment.AtMost(fmt.Sprintf("simulation: a bound wrong at any time, %s", s.kind.name), 100*float64(s.wrong)/lifetimes, "%", allowed),
	}
}
