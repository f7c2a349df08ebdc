// SPDX-License-Identifier: Apache-2.0

package abstraction

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/clipper-serving/clipper/abstraction/catalog"
	"github.com/clipper-serving/clipper/abstraction/launcher"
	"github.com/clipper-serving/clipper/abstraction/launcher/process"
	"github.com/clipper-serving/clipper/containerrpc/containertest"
	container "github.com/clipper-serving/clipper/containerrpc/go"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/store/storebolt"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// envAnswer makes the test binary a model container that answers everything with this
// number; envTrouble says what is wrong with it.
const (
	envAnswer  = "ABSTRACTION_TEST_ANSWER"
	envTrouble = "ABSTRACTION_TEST_TROUBLE"
)

func TestMain(m *testing.M) {
	if os.Getenv(envAnswer) != "" || os.Getenv(envTrouble) != "" {
		os.Exit(replicaMain())
	}
	goleak.VerifyTestMain(m)
}

func replicaMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	trouble := os.Getenv(envTrouble)
	if code, err := strconv.Atoi(trouble); err == nil {
		fmt.Println("loading the model")
		fmt.Fprintln(os.Stderr, "ValueError: the model is broken")
		return code
	}
	switch trouble {
	case "silent":
		fmt.Println("loading for ever")
		<-ctx.Done()
		return 0
	case "once": // exits with 1 the first time that it is started
		if f, err := os.OpenFile(os.Getenv("ONCE_FILE"), os.O_CREATE|os.O_EXCL, 0o600); err == nil {
			_ = f.Close()
			return 1
		}
	}
	answer, err := strconv.Atoi(os.Getenv(envAnswer))
	if err != nil {
		return launcher.ExitNever
	}
	if err := container.Run(ctx, container.ConfigFromEnvironment(), constant(answer)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// constant is a model that answers everything with the same number.
type constant int

// coldTime is what its first batch takes when the trouble is "cold".
const coldTime = 2500 * time.Millisecond

var cold = sync.OnceFunc(func() {
	if os.Getenv(envTrouble) == "cold" {
		time.Sleep(coldTime)
	}
})

func (c constant) Describe() *clipperv1.DescribeResponse {
	return &clipperv1.DescribeResponse{Signature: &clipperv1.Signature{
		Outputs: []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_INT64}},
	}}
}

func (c constant) Predict(_ context.Context, b *container.Batch) (*container.Result, error) {
	cold()
	if os.Getenv(envTrouble) == "brittle" && slices.Contains(b.Inputs[0].Data, 0) {
		os.Exit(1)
	}
	var data []byte
	for range b.Rows {
		data = binary.LittleEndian.AppendUint64(data, uint64(c))
	}
	return &container.Result{Outputs: []*clipperv1.BatchTensor{{DataType: clipperv1.DataType_DATA_TYPE_INT64, Data: data}}}, nil
}

// replicaOf returns a container that is the test binary.
func replicaOf(t *testing.T, environment ...string) *clipperv1.Container {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	c := &clipperv1.Container{
		Source:      &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: []string{exe}}},
		Environment: map[string]string{"GORACE": "atexit_sleep_ms=0"},
	}
	for i := 0; i < len(environment); i += 2 {
		c.Environment[environment[i]] = environment[i+1]
	}
	return c
}

func answering(t *testing.T, n int) *clipperv1.Container {
	return replicaOf(t, envAnswer, strconv.Itoa(n))
}

func addressOf(c *containertest.Container) *clipperv1.Container {
	return &clipperv1.Container{Source: &clipperv1.Container_Address{Address: &clipperv1.Address{Address: c.Address()}}}
}

// fixture is a service that runs, with its administration.
type fixture struct {
	modelService
	stop func() // ends it; called at the end of the test if not before
}

type settings struct {
	store   string // the store's file
	backoff backoff
}

var shortBackoff = backoff{first: time.Millisecond, last: 50 * time.Millisecond, never: time.Hour, neverLast: time.Hour}

func start(t *testing.T, set settings) *fixture {
	t.Helper()
	if set.store == "" {
		set.store = filepath.Join(t.TempDir(), "store")
	}
	if set.backoff == (backoff{}) {
		set.backoff = shortBackoff
	}
	log := slog.New(slog.DiscardHandler)
	db, err := storebolt.Open(t.Context(), set.store)
	require.NoError(t, err)
	run, err := os.MkdirTemp("", "clp") //nolint:usetesting // The path of TempDir is too long for a unix socket.
	require.NoError(t, err)
	adapters := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(adapters, "sklearn"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(adapters, "sklearn", "adapter.py"), nil, 0o600))
	processes, err := process.New(process.Config{RunDirectory: run, LogDirectory: t.TempDir(), AdapterDirectory: adapters, Python: "sh"}, log)
	require.NoError(t, err)
	s, err := New(Config{CacheSize: 16 << 20, DrainTimeout: 20 * time.Second}, Deps{
		Store: db.Documents(), Launchers: []launcher.Launcher{processes}, Logger: log, Registerer: prometheus.NewRegistry(),
	})
	require.NoError(t, err)
	s.backoff = set.backoff
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	f := &fixture{modelService: modelService{service: s}}
	f.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-ran)
		closing, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		require.NoError(t, s.Close(closing))
		require.NoError(t, processes.Close())
		require.NoError(t, db.Close())
		require.NoError(t, os.RemoveAll(run))
	})
	t.Cleanup(f.stop)
	require.NoError(t, s.catalog.Refresh(t.Context()))
	s.apply()
	return f
}

func (f *fixture) deploy(t testing.TB, model, version string, c *clipperv1.Container, change ...func(*clipperv1.DeployModelRequest)) *clipperv1.ModelVersion {
	t.Helper()
	req := &clipperv1.DeployModelRequest{Version: &clipperv1.ModelVersion{Model: model, Version: version, Container: c}}
	for _, ch := range change {
		ch(req)
	}
	resp, err := f.DeployModel(t.Context(), req)
	require.NoError(t, err)
	return resp.Version
}

func (f *fixture) version(t testing.TB, model, version string) *clipperv1.ModelVersion {
	t.Helper()
	resp, err := f.GetModelVersion(t.Context(), &clipperv1.GetModelVersionRequest{Model: model, Version: version})
	require.NoError(t, err)
	return resp.Version
}

// await waits until a version is as wanted and returns it.
func (f *fixture) await(t testing.TB, model, version string, wanted func(*clipperv1.ModelVersion) bool) *clipperv1.ModelVersion {
	t.Helper()
	var v *clipperv1.ModelVersion
	for end := time.Now().Add(time.Minute); ; {
		if v = f.version(t, model, version); wanted(v) {
			return v
		}
		require.True(t, time.Now().Before(end), "the version stays %v", v)
		select { // A poll, since states are not pushed to callers.
		case <-time.After(2 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
}

func (f *fixture) awaitState(t testing.TB, model, version string, state clipperv1.ModelState) *clipperv1.ModelVersion {
	t.Helper()
	return f.await(t, model, version, func(v *clipperv1.ModelVersion) bool { return v.State == state })
}

var inputs atomic.Int64

// fresh returns an input that was never asked before.
func fresh() *tensor.Input {
	return tensor.FromTensors([]*clipperv1.Tensor{{
		DataType: clipperv1.DataType_DATA_TYPE_INT64, Data: binary.LittleEndian.AppendUint64(nil, uint64(inputs.Add(1))),
	}})
}

func ref(model, version string) *internalv1.ModelReference {
	return &internalv1.ModelReference{Model: model, Version: version}
}

// ask predicts with plenty of time.
func (f *fixture) ask(t testing.TB, in *tensor.Input, models ...*internalv1.ModelReference) []*clipperv1.ModelPrediction {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, err := f.service.Predict(ctx, models, in)
	require.NoError(t, err)
	require.Len(t, got, len(models))
	for i, p := range got {
		require.Equal(t, models[i].Model, p.Model)
	}
	return got
}

func requireAnswer(t *testing.T, want int, p *clipperv1.ModelPrediction) {
	t.Helper()
	require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_OK, p.Status, p.Message)
	require.Len(t, p.Outputs, 1)
	require.Equal(t, want, int(tensor.Float(p.Outputs[0], 0)))
}

// load asks again and again, from several goroutines, until the function that it returns is
// called, which returns how often what was answered: a status, or the number of an OK.
func (f *fixture) load(t *testing.T, model *internalv1.ModelReference) func() map[string]int {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	var mu sync.Mutex
	counts := map[string]int{}
	var asking sync.WaitGroup
	first := make(chan struct{})
	var once sync.Once
	for range 4 {
		asking.Go(func() {
			for ctx.Err() == nil {
				limited, done := context.WithTimeout(context.Background(), time.Minute)
				got, err := f.service.Predict(limited, []*internalv1.ModelReference{model}, fresh())
				done()
				if err != nil {
					panic(err)
				}
				answer := got[0].Status.String()
				if got[0].Status == clipperv1.PredictionStatus_PREDICTION_STATUS_OK {
					answer = strconv.Itoa(int(tensor.Float(got[0].Outputs[0], 0)))
				}
				mu.Lock()
				counts[answer]++
				mu.Unlock()
				once.Do(func() { close(first) })
				if got[0].Status != clipperv1.PredictionStatus_PREDICTION_STATUS_OK {
					// What is refused at once is not asked again at once.
					select {
					case <-ctx.Done():
					case <-time.After(time.Millisecond):
					}
				}
			}
		})
	}
	<-first
	return func() map[string]int {
		cancel()
		asking.Wait()
		return counts
	}
}

const (
	starting = clipperv1.ModelState_MODEL_STATE_STARTING
	ready    = clipperv1.ModelState_MODEL_STATE_READY
	degraded = clipperv1.ModelState_MODEL_STATE_DEGRADED
	failed   = clipperv1.ModelState_MODEL_STATE_FAILED
	stopped  = clipperv1.ModelState_MODEL_STATE_STOPPED
)

func TestDeployedModelPredicts(t *testing.T) {
	f := start(t, settings{})
	require.NoError(t, f.service.Ready(t.Context()))
	v := f.deploy(t, "m", "v1", answering(t, 7))
	require.True(t, v.Current)
	require.Contains(t, []clipperv1.ModelState{starting, ready}, v.State)
	require.Equal(t, "slo", v.Batching.Policy)

	in := fresh() // asked while the replica starts: held, not refused
	got := f.ask(t, in, ref("m", ""), ref("m", "v1"))
	for _, p := range got {
		requireAnswer(t, 7, p)
		require.Equal(t, "v1", p.Version)
	}
	require.True(t, f.ask(t, in, ref("m", ""))[0].Cached)

	v = f.awaitState(t, "m", "v1", ready)
	require.Equal(t, "1 of 1 replicas ready", v.StateMessage)
	require.Equal(t, clipperv1.DataType_DATA_TYPE_INT64, v.Signature.Outputs[0].DataType, "the container's description")
	require.Len(t, v.ReplicaStatus, 1)
	require.Equal(t, clipperv1.ReplicaState_REPLICA_STATE_READY, v.ReplicaStatus[0].State)
	require.Contains(t, v.ReplicaStatus[0].Address, "unix:")
	require.NotNil(t, v.ReplicaStatus[0].StateTime)
}

func TestWhatCannotBeAskedIsNotFound(t *testing.T) {
	f := start(t, settings{})
	f.deploy(t, "m", "v1", answering(t, 7))
	got := f.ask(t, fresh(), ref("x", ""), ref("m", ""), ref("m", "v9"))
	require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_NOT_FOUND, got[0].Status)
	require.Equal(t, `there is no model "x"`, got[0].Message)
	requireAnswer(t, 7, got[1])
	require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_NOT_FOUND, got[2].Status)
	require.Equal(t, "v9", got[2].Version)
	require.Empty(t, f.ask(t, fresh()))
}

func TestAnswersAtTheDeadlineWithWhatIsThere(t *testing.T) {
	f := start(t, settings{})
	open := make(chan struct{})
	slow := containertest.Start(t, containertest.Gate(open, containertest.Echo))
	f.deploy(t, "slow", "v1", addressOf(slow))
	f.deploy(t, "fast", "v1", addressOf(containertest.Start(t, containertest.Echo)))
	f.awaitState(t, "slow", "v1", ready)
	f.awaitState(t, "fast", "v1", ready)

	in := fresh()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	got, err := f.service.Predict(ctx, []*internalv1.ModelReference{ref("slow", ""), ref("fast", "")}, in)
	require.NoError(t, err)
	require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
	require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE, got[0].Status)
	require.NotEmpty(t, got[0].Message)
	require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_OK, got[1].Status)

	// What came too late is remembered, and changes nothing that the caller has.
	before := proto.CloneOf(got[0])
	close(open)
	require.Eventually(t, func() bool {
		_, found := f.service.serving.Cache.Lookup("slow", "v1", in)
		return found
	}, time.Minute, time.Millisecond)
	require.True(t, proto.Equal(before, got[0]))
	require.True(t, f.ask(t, in, ref("slow", ""))[0].Cached)
}

func TestLaterVersionBecomesCurrentWhenItIsReady(t *testing.T) {
	f := start(t, settings{})
	f.deploy(t, "m", "v1", answering(t, 1))
	f.awaitState(t, "m", "v1", ready)
	stop := f.load(t, ref("m", ""))

	f.deploy(t, "m", "v2", answering(t, 2))
	f.await(t, "m", "v2", func(v *clipperv1.ModelVersion) bool { return v.Current })
	f.deploy(t, "m", "v3", answering(t, 3), func(r *clipperv1.DeployModelRequest) { r.KeepCurrent = true })
	f.awaitState(t, "m", "v3", ready)
	require.True(t, f.version(t, "m", "v2").Current)
	requireAnswer(t, 2, f.ask(t, fresh(), ref("m", ""))[0])
	requireAnswer(t, 1, f.ask(t, fresh(), ref("m", "v1"))[0])
	requireAnswer(t, 3, f.ask(t, fresh(), ref("m", "v3"))[0])

	resp, err := f.SetCurrentVersion(t.Context(), &clipperv1.SetCurrentVersionRequest{Model: "m", Version: "v1"})
	require.NoError(t, err)
	require.Equal(t, "v1", resp.Model.CurrentVersion)
	requireAnswer(t, 1, f.ask(t, fresh(), ref("m", ""))[0])

	counts := stop()
	require.Positive(t, counts["1"])
	delete(counts, "1")
	delete(counts, "2")
	require.Empty(t, counts, "no query was lost or answered by v3")
}

func TestVersionThatCannotServeDoesNotBecomeCurrent(t *testing.T) {
	for name, tc := range map[string]struct {
		trouble string
		want    []string
	}{
		"it will never work": {"78", []string{"exited with code 78", "deploy it as a new version", "after 1h0m0s", "ValueError: the model is broken"}},
		"it ends":            {"1", []string{"exited with code 1", "Look for the cause", "ValueError: the model is broken"}},
		"it ends well":       {"0", []string{"exited with code 0", "must serve until it gets SIGTERM"}},
		"it is never ready":  {"silent", []string{"was not ready to serve for 1s", "container.start_timeout", "loading for ever"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, settings{})
			f.deploy(t, "m", "v1", answering(t, 1))
			c := replicaOf(t, envTrouble, tc.trouble)
			if tc.trouble == "silent" {
				c.StartTimeout = durationpb.New(time.Second)
			}
			f.deploy(t, "m", "v2", c)
			v := f.awaitState(t, "m", "v2", failed)
			require.Contains(t, v.StateMessage, "0 of 1 replicas ready; replica 0:")
			for _, want := range tc.want {
				require.Contains(t, v.ReplicaStatus[0].Message, want)
				require.Contains(t, v.StateMessage, want)
			}
			require.False(t, v.Current)
			requireAnswer(t, 1, f.ask(t, fresh(), ref("m", ""))[0])
			p := f.ask(t, fresh(), ref("m", "v2"))[0]
			require.NotEqual(t, clipperv1.PredictionStatus_PREDICTION_STATUS_OK, p.Status)
		})
	}
}

func TestCrashLoopIsCountedAndEndsWhenTheCauseDoes(t *testing.T) {
	f := start(t, settings{})
	f.deploy(t, "loop", "v1", replicaOf(t, envTrouble, "1"))
	f.deploy(t, "once", "v1", replicaOf(t, envAnswer, "5", envTrouble, "once", "ONCE_FILE", filepath.Join(t.TempDir(), "started")))
	v := f.awaitState(t, "once", "v1", ready)
	require.EqualValues(t, 1, v.ReplicaStatus[0].Restarts)
	require.Empty(t, v.ReplicaStatus[0].Message)
	f.await(t, "loop", "v1", func(v *clipperv1.ModelVersion) bool {
		return v.State == failed && v.ReplicaStatus[0].Restarts > 2
	})
	requireAnswer(t, 5, f.ask(t, fresh(), ref("once", ""))[0])
}

// pidsOf returns the processes that serve the replicas of a version.
func pidsOf(t *testing.T, v *clipperv1.ModelVersion) map[string]int {
	t.Helper()
	pids := map[string]int{}
	for _, r := range v.ReplicaStatus {
		if len(r.Address) < len("unix:.sock") {
			continue
		}
		text, err := os.ReadFile(r.Address[len("unix:"):len(r.Address)-len(".sock")] + ".pid")
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		require.NoError(t, err)
		var pid int
		_, err = fmt.Sscan(string(text), &pid)
		require.NoError(t, err)
		pids[r.Id] = pid
	}
	return pids
}

func TestKilledReplicaIsStartedAgainAndLosesNoQuery(t *testing.T) {
	f := start(t, settings{})
	f.deploy(t, "m", "v1", answering(t, 1), func(r *clipperv1.DeployModelRequest) { r.Version.Replicas = proto.Uint32(2) })
	v := f.awaitState(t, "m", "v1", ready)
	stop := f.load(t, ref("m", ""))
	for range 3 {
		pids := pidsOf(t, v)
		require.Len(t, pids, 2)
		restarts := v.ReplicaStatus[0].Restarts
		require.NoError(t, syscall.Kill(pids["0"], syscall.SIGKILL))
		v = f.await(t, "m", "v1", func(v *clipperv1.ModelVersion) bool {
			return v.State == ready && v.ReplicaStatus[0].Restarts == restarts+1
		})
	}
	counts := stop()
	require.Positive(t, counts["1"])
	delete(counts, "1")
	require.Empty(t, counts)
}

func TestScale(t *testing.T) {
	f := start(t, settings{})
	f.deploy(t, "m", "v1", answering(t, 1))
	f.awaitState(t, "m", "v1", ready)
	stop := f.load(t, ref("m", ""))
	scale := func(n uint32) *clipperv1.ModelVersion {
		resp, err := f.UpdateModelVersion(t.Context(), &clipperv1.UpdateModelVersionRequest{Model: "m", Version: "v1", Replicas: proto.Uint32(n)})
		require.NoError(t, err)
		require.Equal(t, n, resp.Version.GetReplicas())
		return resp.Version
	}
	require.Contains(t, []clipperv1.ModelState{degraded, ready}, scale(3).State)
	v := f.await(t, "m", "v1", func(v *clipperv1.ModelVersion) bool { return v.State == ready && len(v.ReplicaStatus) == 3 })
	pids := pidsOf(t, v)
	require.Len(t, pids, 3)
	scale(1)
	v = f.await(t, "m", "v1", func(v *clipperv1.ModelVersion) bool { return len(v.ReplicaStatus) == 1 })
	require.Equal(t, ready, v.State)
	require.Equal(t, "0", v.ReplicaStatus[0].Id)
	require.ErrorIs(t, syscall.Kill(pids["2"], 0), syscall.ESRCH)
	counts := stop()
	delete(counts, "1")
	require.Empty(t, counts, "scaling down drains")

	require.Equal(t, stopped, scale(0).State)
	f.await(t, "m", "v1", func(v *clipperv1.ModelVersion) bool { return len(v.ReplicaStatus) == 0 })
	require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA, f.ask(t, fresh(), ref("m", ""))[0].Status)
	require.ErrorIs(t, syscall.Kill(pids["0"], 0), syscall.ESRCH)
	scale(1)
	f.awaitState(t, "m", "v1", ready)
	requireAnswer(t, 1, f.ask(t, fresh(), ref("m", ""))[0])
}

func TestUpdateBatchingAndCache(t *testing.T) {
	f := start(t, settings{})
	f.deploy(t, "m", "v1", answering(t, 1))
	in := fresh()
	requireAnswer(t, 1, f.ask(t, in, ref("m", ""))[0])
	resp, err := f.UpdateModelVersion(t.Context(), &clipperv1.UpdateModelVersionRequest{
		Model: "m", Version: "v1", Cache: &clipperv1.Cache{Disabled: true}, Batching: &clipperv1.Batching{Policy: "none"},
	})
	require.NoError(t, err)
	require.EqualValues(t, 1, resp.Version.GetReplicas(), "what is absent stays")
	require.Equal(t, "none", resp.Version.Batching.Policy)
	require.EqualValues(t, 2, resp.Version.Batching.MaxInFlight)
	p := f.ask(t, in, ref("m", ""))[0]
	requireAnswer(t, 1, p)
	require.False(t, p.Cached)
}

func TestDeleteUnderLoad(t *testing.T) {
	f := start(t, settings{})
	f.deploy(t, "m", "v1", answering(t, 1))
	f.deploy(t, "m", "v2", answering(t, 2))
	f.await(t, "m", "v2", func(v *clipperv1.ModelVersion) bool { return v.Current })
	v := f.awaitState(t, "m", "v1", ready)
	pid := pidsOf(t, v)["0"]
	stopV1, stopCurrent := f.load(t, ref("m", "v1")), f.load(t, ref("m", ""))

	_, err := f.DeleteModelVersion(t.Context(), &clipperv1.DeleteModelVersionRequest{Model: "m", Version: "v1"})
	require.NoError(t, err)
	require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
	p := f.ask(t, fresh(), ref("m", "v1"))[0]
	require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_NOT_FOUND, p.Status)

	counts := stopV1()
	require.Positive(t, counts["1"])
	for _, expected := range []string{"1", "PREDICTION_STATUS_NOT_FOUND", "PREDICTION_STATUS_NO_REPLICA"} {
		delete(counts, expected)
	}
	require.Empty(t, counts)
	counts = stopCurrent()
	delete(counts, "2")
	require.Empty(t, counts)

	// The same name is a new version.
	f.deploy(t, "m", "v1", answering(t, 11))
	requireAnswer(t, 11, f.ask(t, fresh(), ref("m", "v1"))[0])
	_, err = f.DeleteModel(t.Context(), &clipperv1.DeleteModelRequest{Model: "m"})
	require.NoError(t, err)
	require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_NOT_FOUND, f.ask(t, fresh(), ref("m", ""))[0].Status)
	list, err := f.ListModels(t.Context(), &clipperv1.ListModelsRequest{})
	require.NoError(t, err)
	require.Empty(t, list.Models)
}

func TestDeletePurgesTheCache(t *testing.T) {
	f := start(t, settings{})
	in := fresh()
	f.deploy(t, "m", "v1", answering(t, 1))
	requireAnswer(t, 1, f.ask(t, in, ref("m", ""))[0])
	_, err := f.DeleteModelVersion(t.Context(), &clipperv1.DeleteModelVersionRequest{Model: "m", Version: "v1"})
	require.NoError(t, err)
	f.deploy(t, "m", "v1", answering(t, 2))
	requireAnswer(t, 2, f.ask(t, in, ref("m", ""))[0])
}

func TestServiceGoesOnWhereItsPredecessorEnded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "store")
	f := start(t, settings{store: file})
	f.deploy(t, "m", "v1", answering(t, 1))
	f.deploy(t, "m", "v2", answering(t, 2), func(r *clipperv1.DeployModelRequest) { r.Version.Replicas = proto.Uint32(2) })
	f.await(t, "m", "v2", func(v *clipperv1.ModelVersion) bool { return v.Current && v.State == ready })
	pids := pidsOf(t, f.version(t, "m", "v2"))
	require.Len(t, pids, 2)
	stop := f.load(t, ref("m", ""))
	f.stop()
	for _, pid := range pids {
		require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
	}
	counts := stop()
	require.Positive(t, counts["2"])
	for _, expected := range []string{"2", "PREDICTION_STATUS_UNAVAILABLE", "PREDICTION_STATUS_NO_REPLICA"} {
		delete(counts, expected)
	}
	require.Empty(t, counts)

	f = start(t, settings{store: file})
	requireAnswer(t, 2, f.ask(t, fresh(), ref("m", ""))[0])
	requireAnswer(t, 1, f.ask(t, fresh(), ref("m", "v1"))[0])
	v := f.awaitState(t, "m", "v2", ready)
	require.Len(t, v.ReplicaStatus, 2)
	require.True(t, v.Current)
}

func TestRemovalThatWasInterruptedIsFinished(t *testing.T) {
	file := filepath.Join(t.TempDir(), "store")
	f := start(t, settings{store: file})
	f.deploy(t, "m", "v1", answering(t, 1))
	f.deploy(t, "m", "v2", answering(t, 2), func(r *clipperv1.DeployModelRequest) { r.KeepCurrent = true })
	f.stop()

	db, err := storebolt.Open(t.Context(), file)
	require.NoError(t, err)
	marker := catalog.Open(db.Documents(), slog.New(slog.DiscardHandler))
	_, err = marker.Delete(t.Context(), "m", "v2")
	require.NoError(t, err)
	marker.Close()
	require.NoError(t, db.Close())

	f = start(t, settings{store: file})
	require.Eventually(t, func() bool {
		resp, err := f.GetModel(t.Context(), &clipperv1.GetModelRequest{Model: "m"})
		return err == nil && len(resp.Model.Versions) == 1
	}, time.Minute, time.Millisecond)
	requireAnswer(t, 1, f.ask(t, fresh(), ref("m", ""))[0])
}

func TestReplicasOfSomebodyElse(t *testing.T) {
	f := start(t, settings{})
	c := containertest.New(t, containertest.Echo)
	f.deploy(t, "m", "v1", addressOf(c))
	f.await(t, "m", "v1", func(v *clipperv1.ModelVersion) bool {
		return v.State == starting && strings.Contains(v.StateMessage, "no such file") // it says why
	})
	c.Start()
	v := f.awaitState(t, "m", "v1", ready)
	require.Equal(t, c.Address(), v.ReplicaStatus[0].Address)
	require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_OK, f.ask(t, fresh(), ref("m", ""))[0].Status)
	c.Kill()
	f.await(t, "m", "v1", func(v *clipperv1.ModelVersion) bool { return v.State != ready })
	c.Start()
	f.awaitState(t, "m", "v1", ready)
	_, err := f.DeleteModel(t.Context(), &clipperv1.DeleteModelRequest{Model: "m"})
	require.NoError(t, err)
}

// TestBatchingIsExplainedAndOutlivesTheService: what was learned is told, and kept when the service
// ends.
func TestBatchingIsExplainedAndOutlivesTheService(t *testing.T) {
	store := filepath.Join(t.TempDir(), "store")
	f := start(t, settings{store: store})
	f.deploy(t, "m", "v1", answering(t, 7))
	f.awaitState(t, "m", "v1", ready)
	for range 30 {
		requireAnswer(t, 7, f.ask(t, fresh(), ref("m", ""))[0])
	}
	explained, err := f.GetBatching(t.Context(), &clipperv1.GetBatchingRequest{Model: "m", Version: "v1"})
	require.NoError(t, err)
	require.Equal(t, "slo", explained.Batching.Policy)
	require.Len(t, explained.Replicas, 1)
	require.Positive(t, explained.Replicas[0].Observations)
	require.NotEmpty(t, explained.Replicas[0].Decisions)
	require.NotEmpty(t, explained.Replicas[0].Latencies)
	for _, missing := range []*clipperv1.GetBatchingRequest{{Model: "m", Version: "v2"}, {Model: "n", Version: "v1"}} {
		_, err = f.GetBatching(t.Context(), missing)
		require.Equal(t, codes.NotFound, status.Code(err))
	}
	f.stop()

	f = start(t, settings{store: store})
	f.awaitState(t, "m", "v1", ready)
	explained, err = f.GetBatching(t.Context(), &clipperv1.GetBatchingRequest{Model: "m", Version: "v1"})
	require.NoError(t, err)
	require.Len(t, explained.Replicas, 1)
	require.Zero(t, explained.Replicas[0].Observations)
	require.NotEmpty(t, explained.Replicas[0].Latencies, "as learned before")
}
