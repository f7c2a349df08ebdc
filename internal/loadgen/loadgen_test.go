// SPDX-License-Identifier: Apache-2.0

package loadgen

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a fake whose answers take as long, and are, as a test says.
type server struct {
	query    func(ctx context.Context, i int) (Answer, error)
	feedback func(ctx context.Context, i int, id string) error
}

func (s server) Query(i int) func(context.Context) (Answer, error) {
	return func(ctx context.Context) (Answer, error) { return s.query(ctx, i) }
}

func (s server) Feedback(ctx context.Context, i int, id string) error { return s.feedback(ctx, i, id) }

// sleepUntil is for tests: the exact pause does not know the clock of synctest.
func sleepUntil(t time.Time) { time.Sleep(time.Until(t)) }

// sleep is how a fake takes time.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// steady is a constant load on a server that is never full.
func steady(rate float64, length time.Duration) Config {
	return Config{
		Stages: []Stage{{rate, rate, length}}, Arrivals: Constant, Timeout: 10 * time.Second, MaxInFlight: 1 << 20, until: sleepUntil,
	}
}

func run1(t *testing.T, c Config, s server) *Report {
	t.Helper()
	return Run(t.Context(), c, s, func(Progress) {})
}

// A server that stalls for a second is seen by the queries that were due in it, also by those that a
// generator which waits for answers would never have sent.
func TestRun_noCoordinatedOmission(t *testing.T) {
	for name, inFlight := range map[string]int{"sent": 1 << 20, "held back": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				c := steady(100, 10*time.Second)
				c.MaxInFlight = inFlight
				r := run1(t, c, server{query: func(ctx context.Context, _ int) (Answer, error) {
					if now := time.Since(begin); now >= 5*time.Second && now < 6*time.Second {
						return Answer{}, sleep(ctx, 6*time.Second-now)
					}
					return Answer{}, sleep(ctx, time.Millisecond)
				}})
				require.Equal(t, 1000, r.Counts.Asked)
				require.Equal(t, 1000, r.Counts.Answered)
				require.InEpsilon(t, 1000, r.Latency.Max, 0.02)
				require.InEpsilon(t, 900, r.Latency.P99, 0.05, "a tenth of the queries wait between 0 and 1 s")
				require.InEpsilon(t, 500, r.Latency.P95, 0.1)
				require.InDelta(t, 1, r.Latency.P50, 0.2)
				if inFlight == 1 {
					require.Greater(t, r.Generator.Held, 90)
					require.Contains(t, r.Warnings[0], "had to wait in the generator")
					require.InEpsilon(t, 1000, r.Generator.Lag.Max, 0.02)
				} else {
					require.Zero(t, r.Generator.Held)
					require.Zero(t, r.Generator.Late)
				}
			})
		})
	}
}

// The same stall looks harmless to callers who wait: 4 of 40,000 queries are slow. So the loop is labelled.
func TestRun_closed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		r := run1(t, Config{Concurrency: 4, Duration: 10 * time.Second, WarmUp: time.Second, Timeout: time.Minute}, server{query: func(ctx context.Context, _ int) (Answer, error) {
			if now := time.Since(begin); now >= 5*time.Second && now < 6*time.Second {
				return Answer{}, sleep(ctx, 6*time.Second-now)
			}
			return Answer{}, sleep(ctx, time.Millisecond)
		}})
		require.Equal(t, "closed", r.Loop)
		require.InDelta(t, 1, r.Latency.P999, 0.2)
		require.InEpsilon(t, 1000, r.Latency.Max, 0.02)
		require.InEpsilon(t, 3600, r.Rates.Answered, 0.01)
		require.Contains(t, r.Warnings[0], "closed loop")
	})
}

func TestRun_figures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := steady(1000, 2*time.Second)
		c.Stages = append(c.Stages, Stage{500, 500, 2 * time.Second})
		c.WarmUp = time.Second
		var shown []Progress
		r := Run(t.Context(), c, server{query: func(ctx context.Context, i int) (Answer, error) {
			if i < 1000 {
				return Answer{}, sleep(ctx, 5*time.Second) // The warm-up, which does not count.
			}
			switch i % 10 {
			case 0:
				return Answer{Default: "DEADLINE"}, sleep(ctx, 20*time.Millisecond)
			case 1:
				return Answer{}, &Failure{Reason: "OVERLOADED", Message: "too much"}
			case 2:
				return Answer{}, errors.New("odd")
			case 3:
				return Answer{Cached: true}, nil
			}
			return Answer{}, sleep(ctx, 10*time.Millisecond)
		}}, func(p Progress) { shown = append(shown, p) })
		require.Equal(t, 3000, r.Counts.Asked)
		require.Equal(t, 3000, r.Counts.Sent)
		require.Equal(t, 2400, r.Counts.Answered)
		require.Equal(t, 300, r.Counts.Defaults)
		require.Equal(t, 300, *r.Counts.Cached)
		require.Equal(t, 600, r.Counts.Errors)
		require.Equal(t, map[string]int{"DEADLINE": 300}, r.Defaults)
		require.Equal(t, []ErrorCount{{"OTHER", 300, "odd"}, {"OVERLOADED", 300, "too much"}}, r.Errors)
		require.Equal(t, 2400, r.Latency.Count, "refusals are no latencies")
		require.InEpsilon(t, 10, r.Latency.P50, 0.01)
		require.InEpsilon(t, 20, r.Latency.P99, 0.01)
		require.Equal(t, 750.0, r.Rates.Asked)
		require.Equal(t, []string{"1000@2s", "500@2s"}, []string{r.Stages[0].Stage, r.Stages[1].Stage})
		require.Equal(t, 1000.0, r.Stages[0].Rates.Asked)
		require.Equal(t, 400.0, r.Stages[1].Rates.Answered)
		require.Len(t, r.Timeline, 20)
		require.InEpsilon(t, 500, r.Timeline[19].Rates.Sent, 0.02)
		require.Equal(t, 100.0, r.Distribution[len(r.Distribution)-1].Percent)
		require.Equal(t, time.Second, shown[0].Elapsed)
		require.InEpsilon(t, 1000, shown[0].Sent, 0.02)
		require.Equal(t, 5*time.Second, shown[1].Length)
	})
}

// What is not answered, or not even sent, until the run ends is late by all that time, and an error.
func TestRun_neverAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := steady(10, 10*time.Second)
		c.Timeout, c.MaxInFlight = 3*time.Second, 5
		r := run1(t, c, server{query: func(ctx context.Context, _ int) (Answer, error) {
			<-ctx.Done()
			return Answer{}, ctx.Err()
		}})
		require.Equal(t, 100, r.Counts.Asked)
		require.Equal(t, 100, r.Counts.Errors)
		require.Zero(t, r.Counts.Answered)
		require.Equal(t, 100, r.Latency.Count)
		require.Greater(t, r.Latency.P50, 3000.0)
		reasons := map[string]int{}
		for _, e := range r.Errors {
			reasons[e.Reason] = e.Count
		}
		require.Equal(t, 100, reasons[Timeout]+reasons[Unsent]+reasons[Unanswered])
		require.Positive(t, reasons[Timeout])
		require.Positive(t, reasons[Unsent])
		require.Less(t, r.Counts.Sent, 100)
	})
}

func TestRun_replay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		times := []time.Duration{0, time.Second, time.Second, 3 * time.Second}
		begin, got := time.Now(), make([]time.Duration, len(times))
		r := run1(t, Config{Times: times, Timeout: time.Second, MaxInFlight: 10, until: sleepUntil}, server{query: func(_ context.Context, i int) (Answer, error) {
			got[i] = time.Since(begin)
			return Answer{}, nil
		}})
		require.Equal(t, times, got)
		require.Equal(t, 4, r.Counts.Answered)
	})
}

func TestRun_feedback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := steady(1000, 2*time.Second)
		c.Feedback, c.FeedbackDelay, c.WarmUp = 0.25, time.Second, time.Second
		begin := time.Now()
		var all atomic.Int64
		r := run1(t, c, server{
			query: func(_ context.Context, i int) (Answer, error) {
				if i%2 == 0 {
					return Answer{}, nil // There can be no feedback.
				}
				return Answer{FeedbackID: "id"}, nil
			},
			feedback: func(ctx context.Context, i int, id string) error {
				all.Add(1)
				due := time.Duration(i)*time.Millisecond + 500*time.Microsecond
				if id != "id" || (time.Since(begin)-due-time.Second).Abs() > time.Microsecond {
					return errors.New("at another time, or for another answer")
				}
				if i%5 == 0 {
					return &Failure{Reason: "FEEDBACK_EXPIRED", Message: "too late"}
				}
				return sleep(ctx, 2*time.Millisecond)
			},
		})
		require.InDelta(t, 250, r.Feedback.Sent, 50, "a quarter of the half that can have it")
		require.Greater(t, int(all.Load()), r.Feedback.Sent, "the warm-up's is given and not counted")
		require.Len(t, r.Feedback.Errors, 1)
		require.Equal(t, "FEEDBACK_EXPIRED", r.Feedback.Errors[0].Reason)
		require.Equal(t, r.Feedback.Sent, r.Feedback.Accepted+r.Feedback.Errors[0].Count)
		require.InEpsilon(t, 2, r.Feedback.Latency.P50, 0.01)
	})
}

// What was measured until the user ends a run is reported; what was in flight then is no error.
func TestRun_interrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second+time.Microsecond)
		defer cancel()
		r := Run(ctx, steady(100, time.Hour), server{query: func(ctx context.Context, i int) (Answer, error) {
			return Answer{}, sleep(ctx, 100*time.Millisecond)
		}}, func(Progress) {})
		require.True(t, r.Interrupted)
		require.InDelta(t, 190, r.Counts.Answered, 1)
		require.Zero(t, r.Counts.Errors)
		require.InEpsilon(t, 2, r.Seconds, 0.01)
		require.Contains(t, r.Warnings[0], "interrupted")
	})
}

// A generator that cannot make its queries in time says so.
func TestRun_lateGenerator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := steady(100, 2*time.Second)
		c.until = func(t time.Time) { time.Sleep(time.Until(t) + 15*time.Millisecond) }
		r := run1(t, c, server{query: func(context.Context, int) (Answer, error) { return Answer{}, nil }})
		require.Equal(t, 200, r.Counts.Answered)
		require.Equal(t, 200, r.Generator.Late)
		require.Contains(t, r.Warnings[0], "this machine, not the server")
		require.Greater(t, r.Latency.P50, 14.0)
	})
}

func TestObjectives(t *testing.T) {
	r := &Report{
		Counts: Counts{Asked: 1000, Answered: 990, Defaults: 20, Errors: 10}, Rates: Rates{Answered: 99},
		Latency: Latency{Count: 990, P50: 1, P99: 20, P9999: 30},
	}
	for text, want := range map[string]bool{
		"p99=20ms": true, "p99=19.9ms": false, "p99.99=31ms": true, "p50=1ms": true, "max=1ms": true,
		"errors=1%": true, "errors=0.01": true, "errors=0.9%": false, "defaults=2%": true, "defaults=0": false, "rate=99": true, "rate=100": false,
		"p99=20ms, errors=0.1%": false,
	} {
		objectives, err := ParseObjectives(text)
		require.NoError(t, err, text)
		r.Objectives = nil
		require.Equal(t, want, r.Judge(objectives), text)
		require.Len(t, r.Objectives, len(objectives))
	}
	for _, text := range []string{"", "p99", "p98=1ms", "p99=20", "p99=-1ms", "errors=2", "errors=x%", "rate=0", "errors=NaN", "p99=1ms,,"} {
		_, err := ParseObjectives(text)
		require.ErrorContains(t, err, "is no objective", text)
	}
	objectives, err := ParseObjectives("p99=1h,errors=100%")
	require.NoError(t, err)
	require.False(t, (&Report{}).Judge(objectives), "nothing asked, nothing met")
}

func TestCompare(t *testing.T) {
	before := &Report{
		Settings: []Setting{{"protocol", "grpc"}, {"seed", "1"}, {"priority", "2"}},
		Latency:  Latency{P99: 10}, Counts: Counts{Asked: 100, Errors: 1},
	}
	now := &Report{
		Settings: []Setting{{"protocol", "rest"}, {"seed", "2"}, {"timeout", "1s"}},
		Latency:  Latency{P99: 12}, Counts: Counts{Asked: 100, Errors: 2},
	}
	now.Compare(before)
	require.Equal(t, []Difference{{"protocol", "grpc", "rest"}, {"timeout", "", "1s"}, {"priority", "2", ""}}, now.Comparison.Different)
	require.Contains(t, now.Comparison.Figures, Change{"p99", "ms", 10, 12})
	require.Contains(t, now.Comparison.Figures, Change{"errors", "%", 1, 2})
	require.Equal(t, "+20.0%", Change{Before: 10, Now: 12}.Relative())
	require.Empty(t, Change{Now: 1}.Relative())
}
