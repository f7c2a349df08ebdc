// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// instance is the name of the nth instance of the abstraction service, from 1.
func instance(n int) service {
	if n == 1 {
		return abstraction
	}
	return service(string(abstraction) + " " + strconv.Itoa(n))
}

// startInstances runs an installation with several instances of the abstraction service on one
// Redis, of which the first n run.
func startInstances(t *testing.T, n, most int) *system {
	t.Helper()
	s := install(t, three, redis)
	s.settings[abstraction] = append(s.settings[abstraction], "--instance-lease=1s")
	addresses := []string{s.grpc[abstraction]}
	for i := 2; i <= most; i++ {
		name := instance(i)
		s.grpc[name] = freeAddress(t)
		ops := freeAddress(t)
		s.ops[name] = "http://" + ops
		// Of a flag that is given twice, the last counts.
		s.settings[name] = append(slices.Clone(s.settings[abstraction]), "--grpc-listen="+s.grpc[name], "--ops-listen="+ops)
		addresses = append(addresses, s.grpc[name])
	}
	// The selector knows the first one and finds the others; the frontend knows all.
	s.settings[frontend] = append(s.settings[frontend], "--abstraction="+strings.Join(addresses, ","))
	running := []service{selector, frontend}
	for i := range n {
		running = append(running, instance(i+1))
	}
	for _, name := range running {
		s.start(t, name)
	}
	for _, name := range running {
		s.awaitReady(t, name)
	}
	return s
}

// deployMany deploys the models m0, m1, ..., each with an application of the same name, and returns
// their names.
func (s *system) deployMany(t *testing.T, n int, change func(*clipperv1.ModelVersion)) []string {
	t.Helper()
	var names []string
	for i := range n {
		name := "m" + strconv.Itoa(i)
		names = append(names, name)
		v := version(name, "1", environment{"BIAS": strconv.Itoa(100 * i)})
		change(v)
		s.deployVersion(t, v)
		s.create(t, application(name, "single", name))
	}
	return names
}

// replicas returns the replicas of each model, as the administration says, by model.
func (s *system) replicas(t require.TestingT, names []string) map[string][]*clipperv1.Replica {
	all := map[string][]*clipperv1.Replica{}
	for _, name := range names {
		response, err := s.models.GetModelVersion(context.Background(), &clipperv1.GetModelVersionRequest{Model: name, Version: "1"})
		require.NoError(t, err)
		require.Equal(t, clipperv1.ModelState_MODEL_STATE_READY.String(), response.Version.State.String(), response.Version.StateMessage)
		all[name] = response.Version.ReplicaStatus
	}
	return all
}

func instancesOf(replicas []*clipperv1.Replica) []string {
	var all []string
	for _, r := range replicas {
		all = append(all, r.Instance)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// queries are callers that ask all models about ever new inputs, and count what is not answered as
// it should be: a query that is lost, late, answered by default or wrong.
type queries struct {
	answered atomic.Int64
	failures chan error
	stop     context.CancelFunc
	callers  sync.WaitGroup
}

func (s *system) askAll(t *testing.T, names []string) *queries {
	ctx, stop := context.WithCancel(t.Context())
	q := &queries{failures: make(chan error, 100), stop: stop}
	t.Cleanup(q.end)
	var next atomic.Int64
	for range 8 {
		q.callers.Go(func() {
			for ctx.Err() == nil {
				n := next.Add(1)
				i := int(n) % len(names)
				answer, err := s.queries.Query(ctx, &clipperv1.QueryRequest{Application: names[i], Inputs: input(float64(n), 1)})
				switch {
				case ctx.Err() != nil:
					return
				case err == nil && answer.IsDefault:
					err = fmt.Errorf("the default: %v", answer)
				case err == nil && label(t, answer.Outputs) != n+int64(100*i):
					err = fmt.Errorf("asked %s about %d: %v", names[i], n, answer)
				}
				if err == nil {
					q.answered.Add(1)
					continue
				}
				select {
				case q.failures <- err:
				default:
				}
			}
		})
	}
	q.await(t, 200)
	return q
}

// await waits until n more queries have been answered.
func (q *queries) await(t *testing.T, n int64) {
	t.Helper()
	goal := q.answered.Load() + n
	require.Eventually(t, func() bool { return q.answered.Load() >= goal }, patience, poll)
}

func (q *queries) end() {
	q.stop()
	q.callers.Wait()
}

// finish ends the callers. Every query must have had its answer.
func (q *queries) finish(t *testing.T) {
	t.Helper()
	q.end()
	close(q.failures)
	for err := range q.failures {
		t.Errorf("a query failed: %v", err)
	}
	t.Logf("%d queries answered", q.answered.Load())
}

func unchanged(*clipperv1.ModelVersion) {}

// TestInstances_kill kills one of three instances under load: what was at home there is served by
// the others, and nothing else moves.
func TestInstances_kill(t *testing.T) {
	s := startInstances(t, 3, 3)
	names := s.deployMany(t, 9, unchanged)
	before := s.replicas(t, names)
	victim := instance(2)
	var theirs []string
	for _, name := range names {
		require.Len(t, before[name], 1)
		if before[name][0].Instance == s.grpc[victim] {
			theirs = append(theirs, name)
		}
	}
	q := s.askAll(t, names)
	s.kill(t, victim)
	require.EventuallyWithT(t, func(c *assertCollect) {
		for name, replicas := range s.replicas(c, names) {
			require.Len(c, replicas, 1)
			if !slices.Contains(theirs, name) {
				require.Equal(c, before[name][0].StateTime.AsTime(), replicas[0].StateTime.AsTime(), "%s was started again", name)
				continue
			}
			require.NotEqual(c, s.grpc[victim], replicas[0].Instance, name)
		}
	}, patience, poll)
	q.await(t, 500)

	// Back at its address, it is the same instance: what was its own comes back.
	s.start(t, victim)
	s.awaitReady(t, victim)
	require.EventuallyWithT(t, func(c *assertCollect) {
		for name, replicas := range s.replicas(c, names) {
			require.Equal(c, instancesOf(before[name]), instancesOf(replicas), name)
		}
	}, patience, poll)
	q.await(t, 500)
	q.finish(t)
	t.Logf("%d of %d models were at home there", len(theirs), len(names))
}

// TestInstances_comeAndGo adds an instance under load and stops one in good order: only what has
// another home then moves, and no query notices.
func TestInstances_comeAndGo(t *testing.T) {
	s := startInstances(t, 2, 3)
	names := s.deployMany(t, 9, unchanged)
	before := s.replicas(t, names)
	q := s.askAll(t, names)

	added := instance(3)
	s.start(t, added)
	s.awaitReady(t, added)
	q.await(t, 200)
	moved := 0
	require.EventuallyWithT(t, func(c *assertCollect) {
		moved = 0
		for name, replicas := range s.replicas(c, names) {
			require.Len(c, replicas, 1, "%s is handed over", name)
			if replicas[0].Instance == s.grpc[added] {
				moved++
				continue
			}
			require.Equal(c, before[name][0].Instance, replicas[0].Instance, name)
			require.Equal(c, before[name][0].StateTime.AsTime(), replicas[0].StateTime.AsTime(), "%s was started again", name)
		}
	}, patience, poll)
	q.await(t, 500)
	t.Logf("%d of %d models moved", moved, len(names))

	stopped := instance(1)
	s.running[stopped].signal(t, syscall.SIGTERM)
	require.Zero(t, s.running[stopped].wait(t))
	delete(s.running, stopped)
	q.await(t, 500)
	for name, replicas := range s.replicas(t, names) {
		require.NotEqual(t, s.grpc[stopped], replicas[0].Instance, name)
	}
	q.finish(t)
	require.NotContains(t, s.logs[len(s.logs)-1].output.String(), "not handed over")
}

// TestInstances_homes gives a version two homes, and kills one of them.
func TestInstances_homes(t *testing.T) {
	s := startInstances(t, 2, 2)
	names := s.deployMany(t, 2, func(v *clipperv1.ModelVersion) {
		v.Replicas = proto.Uint32(2)
		if v.Model == "m0" {
			v.Homes = 2
		}
	})
	both := []string{s.grpc[instance(1)], s.grpc[instance(2)]}
	slices.Sort(both)
	before := s.replicas(t, names)
	require.Equal(t, both, instancesOf(before["m0"]), "the replicas are spread")
	require.Len(t, instancesOf(before["m1"]), 1)
	q := s.askAll(t, names)
	s.kill(t, instance(2))
	q.await(t, 500)
	require.EventuallyWithT(t, func(c *assertCollect) {
		for name, replicas := range s.replicas(c, names) {
			require.Equal(c, []string{s.grpc[instance(1)]}, instancesOf(replicas), name)
			require.Len(c, replicas, 2)
		}
	}, patience, poll)
	s.start(t, instance(2))
	s.awaitReady(t, instance(2))
	_, err := s.models.UpdateModelVersion(t.Context(), &clipperv1.UpdateModelVersionRequest{Model: "m1", Version: "1", Homes: proto.Uint32(2)})
	require.NoError(t, err)
	require.EventuallyWithT(t, func(c *assertCollect) {
		for name, replicas := range s.replicas(c, names) {
			require.Equal(c, both, instancesOf(replicas), name)
			require.Len(c, replicas, 2)
		}
	}, patience, poll)
	q.await(t, 500)
	q.finish(t)

	// What an instance left when it was killed is stopped when nobody has come for it.
	require.EventuallyWithT(t, func(c *assertCollect) { require.Len(c, s.containers(c), 2*len(names)) }, patience, poll)

	// Any instance removes a version, and it is gone at all of them when the call returns.
	for _, name := range names {
		_, err = s.applications.DeleteApplication(t.Context(), &clipperv1.DeleteApplicationRequest{Application: name})
		require.NoError(t, err)
		_, err = s.models.DeleteModel(t.Context(), &clipperv1.DeleteModelRequest{Model: name})
		require.NoError(t, err)
	}
	require.Empty(t, s.containers(t))
}

// registered runs a container that registers as a replica of m0:1.
func (s *system) registered(t *testing.T, at service) *process {
	t.Helper()
	t.Setenv("CLIPPER_CONTAINER_ADDRESS", freeAddress(t))
	t.Setenv("CLIPPER_MODEL_NAME", "m0")
	t.Setenv("CLIPPER_MODEL_VERSION", "1")
	t.Setenv("CLIPPER_REGISTER_ADDRESS", s.grpc[at])
	p := startProcess(t, "container", programs.container)
	t.Cleanup(func() { p.kill(t) })
	for _, name := range []string{"CLIPPER_CONTAINER_ADDRESS", "CLIPPER_MODEL_NAME", "CLIPPER_MODEL_VERSION", "CLIPPER_REGISTER_ADDRESS"} {
		require.NoError(t, os.Unsetenv(name))
	}
	return p
}

// TestRegister runs a version whose replicas are containers that somebody else has started.
func TestRegister(t *testing.T) {
	s := startInstances(t, 2, 2)
	first := s.registered(t, instance(1)) // Before there is such a version.
	v := version("m0", "1", nil)
	v.Container = &clipperv1.Container{Source: &clipperv1.Container_Registered{Registered: &clipperv1.Registered{}}}
	s.deployVersion(t, v)
	s.create(t, application("m0", "single", "m0"))
	q := s.askAll(t, []string{"m0"})

	second := s.registered(t, instance(2))
	require.EventuallyWithT(t, func(c *assertCollect) {
		require.Len(c, s.replicas(c, []string{"m0"})["m0"], 2)
	}, patience, poll)
	shown, code := s.clipper(t, "", "model", "show", "m0")
	require.Zero(t, code)
	for _, r := range s.replicas(t, []string{"m0"})["m0"] {
		require.Contains(t, shown, r.Id)
		require.Contains(t, shown, r.Instance)
	}

	// It leaves before it stops: no query is lost.
	first.signal(t, syscall.SIGTERM)
	require.Zero(t, first.wait(t))
	require.EventuallyWithT(t, func(c *assertCollect) {
		require.Len(c, s.replicas(c, []string{"m0"})["m0"], 1)
	}, patience, poll)
	q.await(t, 200)

	// The version moves with its registered replica, which nobody starts again.
	home := s.replicas(t, []string{"m0"})["m0"][0].Instance
	for i := range 2 {
		if s.grpc[instance(i+1)] == home {
			s.kill(t, instance(i+1))
		}
	}
	require.EventuallyWithT(t, func(c *assertCollect) {
		replicas := s.replicas(c, []string{"m0"})["m0"]
		require.Len(c, replicas, 1)
		require.True(c, replicas[0].Registered)
		require.NotEqual(c, home, replicas[0].Instance)
	}, patience, poll)
	q.await(t, 200)
	q.finish(t)

	// One that dies is gone when its lease has ended.
	second.kill(t)
	_, err := s.models.RegisterReplica(t.Context(), &clipperv1.RegisterReplicaRequest{
		Model: "m0", Version: "1", Replica: "short", Address: "127.0.0.1:9", Lease: durationpb.New(time.Second),
	})
	require.NoError(t, err)
	require.EventuallyWithT(t, func(c *assertCollect) {
		response, err := s.models.GetModelVersion(t.Context(), &clipperv1.GetModelVersionRequest{Model: "m0", Version: "1"})
		require.NoError(c, err)
		require.Empty(c, response.Version.ReplicaStatus)
		require.Contains(c, response.Version.StateMessage, "none has registered")
	}, patience, poll)
	answer := s.ask(t, "m0", 1, 0)
	require.True(t, answer.IsDefault)
	require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA, answer.Predictions[0].Status)
}
