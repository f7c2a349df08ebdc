// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// traffic is queries, each with its feedback, from several callers.
type traffic struct {
	predictions, defaults atomic.Int64
	sent, acknowledged    atomic.Int64 // Feedback.
	failures              chan error   // What must not happen.
	stop                  context.CancelFunc
	callers               sync.WaitGroup
}

// load starts traffic to an application. While a frontend is down, its clients see UNAVAILABLE;
// otherwise every query is answered, at worst with the default output.
func (s *system) load(t *testing.T, app string) *traffic {
	ctx, stop := context.WithCancel(t.Context())
	l := &traffic{failures: make(chan error, 1), stop: stop}
	t.Cleanup(l.end)
	fail := func(err error) {
		if ctx.Err() == nil && status.Code(err) != codes.Unavailable {
			select {
			case l.failures <- err:
			default:
			}
		}
	}
	for range 4 {
		l.callers.Go(func() {
			for ctx.Err() == nil {
				answer, err := s.queries.Query(ctx, &clipperv1.QueryRequest{Application: app, Inputs: input(1, 0)})
				if err != nil {
					fail(err)
					continue
				}
				if answer.IsDefault {
					l.defaults.Add(1)
				} else {
					l.predictions.Add(1)
				}
				if answer.FeedbackId == "" { // Nothing was selected, so there is nothing to learn from.
					continue
				}
				l.sent.Add(1)
				response, err := s.feedback.Feedback(ctx, &clipperv1.FeedbackRequest{Application: app, FeedbackId: answer.FeedbackId, Observation: truth(1)})
				if err != nil {
					fail(err)
					continue
				}
				if len(response.Losses) > 0 { // Of an answer without predictions there is nothing to learn.
					l.acknowledged.Add(1)
				}
			}
		})
	}
	return l
}

// await waits until a count has grown by n from now on.
func (l *traffic) await(t *testing.T, count *atomic.Int64, n int64) {
	t.Helper()
	goal := count.Load() + n
	require.Eventually(t, func() bool { return count.Load() >= goal }, patience, poll)
}

func (l *traffic) end() {
	l.stop()
	l.callers.Wait()
}

// TestKill kills each service under load and starts it again, without a restart of the others:
// predictions come back, and what was acknowledged is counted.
func TestKill(t *testing.T) {
	for _, b := range []backend{embedded, redis} {
		t.Run(string(b), func(t *testing.T) {
			s := start(t, three, b)
			s.deploy(t, "good", nil)
			s.deploy(t, "bad", environment{"BIAS": "1"})
			app := application("a", "exp4", "good", "bad")
			app.LatencyObjective = durationpb.New(300 * time.Millisecond)
			s.create(t, app)
			l := s.load(t, "a")
			l.await(t, &l.predictions, 50)
			for range 2 {
				for _, victim := range []service{abstraction, selector, frontend} {
					s.kill(t, victim)
					if victim != frontend {
						l.await(t, &l.defaults, 4)
					}
					s.start(t, victim)
					l.await(t, &l.predictions, 50)
					l.await(t, &l.acknowledged, 50)
				}
			}
			l.end()
			select {
			case err := <-l.failures:
				t.Fatalf("a query or feedback failed: %v", err)
			default:
			}
			// What was sent without an acknowledgement may or may not be counted, and nothing twice.
			require.EventuallyWithT(t, func(c *assertCollect) {
				observations := int64(s.state(c, "a", "").Observations)
				require.GreaterOrEqual(c, observations, l.acknowledged.Load())
				require.LessOrEqual(c, observations, l.sent.Load())
			}, patience, poll)
		})
	}
}

// TestTakesOver kills the service that has started replicas: its successor serves with the same ones.
func TestTakesOver(t *testing.T) {
	for _, f := range []form{one, three} {
		t.Run(string(f), func(t *testing.T) {
			s := start(t, f, embedded)
			v := version("m", "1", nil)
			v.Replicas = proto.Uint32(2)
			s.deployVersion(t, v)
			s.awaitReplicas(t, "m", 2)
			before := s.containers(t)
			require.Len(t, before, 2)
			s.create(t, application("a", "single", "m"))
			victim := s.services[0]
			for range 2 {
				s.kill(t, victim)
				s.start(t, victim)
				s.awaitReady(t, victim)
				s.awaitReplicas(t, "m", 2)
				require.EventuallyWithT(t, func(c *assertCollect) {
					answer, err := s.queries.Query(t.Context(), &clipperv1.QueryRequest{Application: "a", Inputs: input(3, 0)})
					require.NoError(c, err)
					require.False(c, answer.IsDefault, answer.DefaultReason)
				}, patience, poll)
				require.ElementsMatch(t, before, s.containers(t))
			}
			s.running[victim].signal(t, syscall.SIGTERM)
			require.Zero(t, s.running[victim].wait(t))
			require.Empty(t, s.containers(t), "a server that is asked to end takes them with it")
		})
	}
}

// TestStart_inAnyOrder starts each service before the ones that it needs.
func TestStart_inAnyOrder(t *testing.T) {
	s := install(t, three, embedded)
	for _, name := range []service{frontend, selector, abstraction} {
		s.start(t, name)
	}
	for _, name := range s.services {
		s.awaitReady(t, name)
	}
	s.deploy(t, "m", nil)
	s.create(t, application("a", "single", "m"))
	require.EqualValues(t, 3, predicted(t, s.ask(t, "a", 3, 0)))
}
