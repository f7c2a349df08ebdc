// SPDX-License-Identifier: Apache-2.0

package abstraction

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/clipper-serving/clipper/abstraction/launcher"
	"github.com/clipper-serving/clipper/abstraction/prediction"
	"github.com/clipper-serving/clipper/containerrpc/containertest"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/internal/store/storebolt"
)

func refs(models ...string) []*internalv1.ModelReference {
	var all []*internalv1.ModelReference
	for _, m := range models {
		all = append(all, &internalv1.ModelReference{Model: m})
	}
	return all
}

func openStore(t testing.TB) store.Documents {
	t.Helper()
	db, err := storebolt.Open(t.Context(), filepath.Join(t.TempDir(), "store"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db.Documents()
}

func newCall(n int) *call { return &call{asked: make([]asked, n), left: n} }

func TestCallReturnsAsSoonAsAllHaveAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		c := newCall(2)
		begin := time.Now()
		for i := range 2 {
			time.AfterFunc(time.Duration(i+1)*time.Second, func() {
				c.Receive(i, prediction.Result{Outputs: []*clipperv1.Tensor{{Name: string(rune('a' + i))}}, Cached: i == 1})
			})
		}
		got := c.wait(ctx)
		require.Equal(t, 2*time.Second, time.Since(begin))
		require.Equal(t, "a", got[0].Outputs[0].Name)
		require.Equal(t, "b", got[1].Outputs[0].Name)
		require.False(t, got[0].Cached)
		require.True(t, got[1].Cached)
	})
}

func TestCallReturnsAtTheDeadlineAndIgnoresWhatComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c := newCall(3)
		c.Receive(1, prediction.Result{Err: prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_OVERLOADED, "full")})
		begin := time.Now()
		got := c.wait(ctx)
		require.Equal(t, time.Second, time.Since(begin))
		c.Receive(0, prediction.Result{Outputs: []*clipperv1.Tensor{{}}})
		c.Receive(2, prediction.Result{Err: prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_FAILED, "late")})
		for _, i := range []int{0, 2} {
			require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE, got[i].Status)
			require.Empty(t, got[i].Outputs)
		}
		require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_OVERLOADED, got[1].Status)
		require.Equal(t, "full", got[1].Message)
	})
}

func TestCallTakesResultsFromManyGoroutines(t *testing.T) {
	for range 200 {
		c := newCall(8)
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() { c.Receive(i, prediction.Result{}) })
		}
		for _, p := range c.wait(t.Context()) {
			require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_OK, p.Status)
		}
		all.Wait()
	}
}

// answerer answers at once, as the cache does.
type answerer struct{ result prediction.Result }

func (a answerer) Submit(r *prediction.Request) { r.Reply(a.result) }

func TestCallThatIsAnsweredAtOnceIsLean(t *testing.T) {
	a := answerer{prediction.Result{Outputs: []*clipperv1.Tensor{{}}}}
	allocations := testing.AllocsPerRun(1000, func() {
		c := newCall(4)
		for i := range c.asked {
			c.asked[i].request = prediction.Request{Receiver: c, Tag: i}
			a.Submit(&c.asked[i].request)
		}
		c.wait(t.Context())
	})
	require.LessOrEqual(t, allocations, 3.0)
}

// BenchmarkPredict asks four models, all of which remember the answer.
func BenchmarkPredict(b *testing.B) {
	s, err := New(Config{CacheSize: 1 << 20, DrainTimeout: time.Minute}, Deps{
		Store: openStore(b), Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	require.NoError(b, err)
	defer func() { require.NoError(b, s.Close(b.Context())) }()
	c := addressOf(containertest.Start(b, containertest.Echo))
	names := []string{"a", "b", "c", "d"}
	for _, m := range names {
		_, err := modelService{service: s}.DeployModel(b.Context(), &clipperv1.DeployModelRequest{
			Version: &clipperv1.ModelVersion{Model: m, Version: "v1", Container: c},
		})
		require.NoError(b, err)
	}
	models, in := refs(names...), fresh()
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	_, err = s.Predict(ctx, models, in)
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		got, err := s.Predict(ctx, models, in)
		if err != nil || !got[3].Cached {
			b.Fatal(got[3], err)
		}
	}
}

func TestBackoff(t *testing.T) {
	b := backoff{first: time.Second, last: 10 * time.Second, never: time.Minute, neverLast: 3 * time.Minute}
	for failures, seconds := range map[int]float64{1: 1, 2: 2, 3: 4, 4: 8, 5: 10, 6: 10, 1 << 20: 10} {
		require.InDelta(t, seconds, b.delay(failures, false).Seconds(), 0, failures)
	}
	for failures, minutes := range map[int]float64{1: 1, 2: 2, 3: 3, 100: 3} {
		require.InDelta(t, minutes, b.delay(failures, true).Minutes(), 0, failures)
	}
}

func TestFailuresAreForgottenAfterServingForAWhile(t *testing.T) {
	r := &replica{version: &version{
		backoff: backoff{first: time.Second, last: time.Hour, never: time.Minute, neverLast: time.Hour},
		service: &Service{changed: make(chan struct{}, 1)},
		log:     slog.New(slog.DiscardHandler),
	}}
	require.Equal(t, time.Second, r.failed(failure{}))
	require.Equal(t, 2*time.Second, r.failed(failure{served: stableAfter - 1}))
	require.Equal(t, 4*time.Second, r.failed(failure{}))
	require.Equal(t, time.Second, r.failed(failure{served: stableAfter}))
	require.Equal(t, 2*time.Minute, r.failed(failure{never: true}))
	require.True(t, r.status().failing)
	require.Contains(t, r.status().Message, "after 2m0s")
}

func TestSummarize(t *testing.T) {
	replica := func(state clipperv1.ReplicaState, change ...func(*replicaStatus)) replicaStatus {
		s := replicaStatus{Replica: &clipperv1.Replica{Id: "0", State: state}}
		for _, c := range change {
			c(&s)
		}
		return s
	}
	failing := func(s *replicaStatus) { s.failing, s.Message = true, "it broke" }
	leaving := func(s *replicaStatus) { s.leaving = true }
	const (
		up       = clipperv1.ReplicaState_REPLICA_STATE_READY
		begin    = clipperv1.ReplicaState_REPLICA_STATE_STARTING
		down     = clipperv1.ReplicaState_REPLICA_STATE_FAILED
		draining = clipperv1.ReplicaState_REPLICA_STATE_DRAINING
	)
	for name, tc := range map[string]struct {
		wanted   int
		replicas []replicaStatus
		state    clipperv1.ModelState
		message  string
	}{
		"none wanted":           {0, nil, stopped, "no replica is wanted"},
		"none wanted, one goes": {0, []replicaStatus{replica(draining, leaving)}, stopped, "no replica is wanted"},
		"starting":              {1, []replicaStatus{replica(begin)}, starting, "0 of 1 replicas ready; one may take 2m0s to start"},
		"ready":                 {2, []replicaStatus{replica(up), replica(up)}, ready, "2 of 2 replicas ready"},
		"one goes":              {1, []replicaStatus{replica(up), replica(draining, leaving)}, ready, "1 of 1 replicas ready"},
		"one starts":            {2, []replicaStatus{replica(up), replica(begin)}, degraded, "1 of 2 replicas ready"},
		"one failed":            {2, []replicaStatus{replica(up), replica(down, failing)}, degraded, "1 of 2 replicas ready; replica 0: it broke"},
		"failed":                {1, []replicaStatus{replica(down, failing)}, failed, "0 of 1 replicas ready; replica 0: it broke"},
		"failed and tried":      {1, []replicaStatus{replica(begin, failing)}, failed, "it broke"},
		"unreachable":           {1, []replicaStatus{replica(down)}, failed, "0 of 1"},
		"one failed, one new":   {2, []replicaStatus{replica(down, failing), replica(begin)}, starting, "it broke"},
	} {
		t.Run(name, func(t *testing.T) {
			state, message, replicas := summarize(tc.wanted, tc.replicas, &clipperv1.Container{StartTimeout: durationpb.New(2 * time.Minute)})
			require.Equal(t, tc.state, state)
			require.Contains(t, message, tc.message)
			require.Len(t, replicas, len(tc.replicas))
		})
	}
}

// ended is a replica that has ended.
type ended struct {
	launcher.Instance
	exit launcher.Exit
	log  []string
}

func (e ended) Exit() launcher.Exit { return e.exit }
func (e ended) Logs(n int) []string { return e.log[max(0, len(e.log)-n):] }

func TestFailureSaysWhatHappenedAndWhatToDo(t *testing.T) {
	for name, tc := range map[string]struct {
		exit launcher.Exit
		log  []string
		want string
	}{
		"code":    {launcher.Exit{Code: 2}, []string{"a", "b"}, "the replica exited with code 2. Look for the cause in its log. It is started again after 1s. The last lines of its log:\na\nb"},
		"package": {launcher.Exit{Code: 1}, []string{"Traceback", "ModuleNotFoundError: No module named 'numpy'"}, "the replica exited with code 1. Its Python lacks a package. The README of an adapter says what to install, into a .venv in the adapter's folder or for the interpreter of --python. It is started again after 1s. The last lines of its log:\nTraceback\nModuleNotFoundError: No module named 'numpy'"},
		"killed":  {launcher.Exit{Code: -1, Signal: "killed"}, nil, "the replica was ended by the signal killed. Perhaps the machine has too little memory for it. It is started again after 1s."},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.want, exitFailure(ended{exit: tc.exit, log: tc.log}).message(time.Second))
		})
	}
	long := make([]string, messageLines)
	for i := range long {
		long[i] = string(make([]rune, 1000))
	}
	require.Less(t, len(failure{what: "x", log: long}.message(time.Second)), messageBytes+200)
}
