// SPDX-License-Identifier: Apache-2.0

package abstraction

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/clipper-serving/clipper/abstraction/catalog"
	"github.com/clipper-serving/clipper/abstraction/launcher"
	"github.com/clipper-serving/clipper/containerrpc/containertest"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/instances"
	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// lender is a launcher that lends the same container for every replica that it is asked to start.
type lender struct{ *containertest.Container }

func (l lender) Check(*clipperv1.Container) error { return nil }
func (l lender) Close() error                     { return nil }

func (l lender) Start(context.Context, launcher.Spec) (launcher.Instance, error) {
	done := make(chan struct{})
	return &lent{address: l.Address(), done: done, stop: sync.OnceFunc(func() { close(done) })}, nil
}

// Logs has one line.
func (l lender) Logs(ctx context.Context, q launcher.LogQuery, yield func(launcher.Line) error) error {
	if at := time.Unix(1, 0); at.After(q.Since) {
		if err := yield(launcher.Line{Time: at, Text: "lent at " + l.Address()}); err != nil || !q.Follow {
			return err
		}
	}
	if q.Follow {
		<-ctx.Done()
	}
	return ctx.Err()
}

type lent struct {
	launcher.Instance
	address string
	done    chan struct{}
	stop    func()
}

func (l *lent) Address() string       { return l.address }
func (l *lent) Done() <-chan struct{} { return l.done }
func (l *lent) Stop(context.Context)  { l.stop() }

// member is one of several instances, with the container that its replicas are.
type member struct {
	fixture
	address   string
	container *containertest.Container
}

// startMember runs an instance with an exchange. One without a container cannot start replicas.
func startMember(t testing.TB, docs store.Documents, c *containertest.Container) *member {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var launchers []launcher.Launcher
	if c != nil {
		launchers = append(launchers, lender{c})
	}
	m := &member{address: l.Addr().String(), container: c}
	s, err := New(Config{CacheSize: 16 << 20, DrainTimeout: 20 * time.Second}, Deps{
		Store: docs, Launchers: launchers, Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
		Instance: &Instance{Address: m.address, Lease: 5 * time.Second},
	})
	require.NoError(t, err)
	m.service = s
	s.backoff = shortBackoff
	g := grpc.NewServer()
	draining := make(chan struct{})
	s.Register(g)
	s.RegisterExchange(g, draining)
	var running sync.WaitGroup
	running.Go(func() { _ = g.Serve(l) })
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	m.stop = sync.OnceFunc(func() {
		close(draining)
		g.GracefulStop()
		running.Wait()
		cancel()
		require.NoError(t, <-ran)
		require.NoError(t, s.Close(context.Background()))
	})
	t.Cleanup(m.stop)
	return m
}

// startMembers runs n instances that know each other.
func startMembers(t *testing.T, n int) []*member {
	t.Helper()
	docs := openStore(t)
	var all []*member
	for range n {
		all = append(all, startMember(t, docs, containertest.Start(t, containertest.Echo)))
	}
	for _, m := range all {
		m.awaitMembers(t, n)
	}
	return all
}

// awaitMembers waits until the instance has links to as many as there are.
func (m *member) awaitMembers(t testing.TB, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		m.service.mu.Lock()
		defer m.service.mu.Unlock()
		if len(m.service.group.Members().Instances) != n || len(m.service.peers) != n-1 {
			return false
		}
		for _, p := range m.service.peers {
			if !p.calls.Connected() {
				return false
			}
		}
		return true
	}, time.Minute, time.Millisecond)
}

// enough versions that each of two instances is the home of one, whatever their ports are, but once in
// a million runs.
const enough = 20

func command() *clipperv1.Container {
	return &clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: []string{"serve"}}}}
}

// deployMany deploys m0:v1, m1:v1, ... and waits until they are ready.
func deployMany(t *testing.T, at *member, n int, change ...func(*clipperv1.DeployModelRequest)) []string {
	t.Helper()
	var names []string
	for i := range n {
		name := fmt.Sprintf("m%d", i)
		at.deploy(t, name, "v1", command(), change...)
		names = append(names, name)
	}
	for _, name := range names {
		at.awaitState(t, name, "v1", ready)
	}
	return names
}

func (m *member) home(t testing.TB, model string) string {
	t.Helper()
	v := m.awaitState(t, model, "v1", ready)
	require.Len(t, v.ReplicaStatus, 1, model)
	return v.ReplicaStatus[0].Instance
}

func passedOn(m *member) int { return int(testutil.ToFloat64(m.service.passed)) }

func TestInstances_eachVersionHasOneHome(t *testing.T) {
	all := startMembers(t, 3)
	names := deployMany(t, all[0], 12)
	at := map[string][]string{}
	for _, name := range names {
		home := all[0].home(t, name)
		at[home] = append(at[home], name)
		for _, m := range all[1:] {
			require.Equal(t, home, m.home(t, name), "every instance says the same")
		}
	}
	require.Greater(t, len(at), 1, "the versions are spread")

	// One query to all models, through each instance: each is predicted at its home, and remembered
	// there for the others.
	in, models := fresh(), []*internalv1.ModelReference{}
	for _, name := range names {
		models = append(models, ref(name, ""))
	}
	all[0].askUntilCached(t, in, models...)
	for _, m := range all {
		require.GreaterOrEqual(t, m.container.Rows(), len(at[m.address]))
		require.Equal(t, len(at[m.address]) > 0, m.container.Rows() > 0)
	}
	for _, m := range all[1:] {
		for j, p := range m.ask(t, in, models...) {
			requireAnswer(t, answerTo(in), p)
			require.Equal(t, "v1", p.Version)
			require.True(t, p.Cached, names[j])
		}
		require.Equal(t, len(names)-len(at[m.address]), passedOn(m))
	}
}

// askUntilCached asks until all answers are remembered, as they are a moment after they were given.
func (m *member) askUntilCached(t testing.TB, in *tensor.Input, models ...*internalv1.ModelReference) {
	t.Helper()
	require.Eventually(t, func() bool {
		return !slices.ContainsFunc(m.ask(t, in, models...), func(p *clipperv1.ModelPrediction) bool { return !p.Cached })
	}, time.Minute, time.Millisecond)
}

// answerTo returns what the containers answer to an input.
func answerTo(in *tensor.Input) int {
	tensors, err := in.Tensors()
	if err != nil {
		panic(err)
	}
	return int(tensor.Float(tensors[0], 0))
}

func TestInstances_aForwardedQueryIsNotPassedOn(t *testing.T) {
	all := startMembers(t, 2)
	names := deployMany(t, all[0], 6)
	for _, name := range names {
		for _, m := range all {
			got := m.service.predictForwarded(t.Context(), []*internalv1.ModelReference{ref(name, "v1"), ref("nothing", "v1")}, fresh())
			require.Len(t, got.Predictions, 2)
			want := []uint32{1}
			if m.home(t, name) != m.address {
				want = []uint32{0, 1}
			}
			require.Equal(t, want, got.Elsewhere)
			require.Zero(t, passedOn(m))
		}
	}
}

func TestInstances_comeAndGoWithoutAGap(t *testing.T) {
	docs := openStore(t)
	first := startMember(t, docs, containertest.Start(t, containertest.Echo))
	first.awaitMembers(t, 1)
	names := deployMany(t, first, enough)
	var loads []func() map[string]int
	for _, name := range names {
		loads = append(loads, first.load(t, ref(name, "")))
	}
	second := startMember(t, docs, containertest.Start(t, containertest.Echo))
	second.awaitMembers(t, 2)
	require.Eventually(t, func() bool {
		moved := 0
		for _, name := range names {
			v := first.version(t, name, "v1")
			if len(v.ReplicaStatus) == 1 && v.ReplicaStatus[0].Instance == second.address {
				moved++
			}
		}
		first.service.mu.Lock()
		defer first.service.mu.Unlock()
		return moved > 0 && moved+len(first.service.running) == len(names)
	}, time.Minute, 10*time.Millisecond)

	// It hands over what it took, and everything is as before.
	second.service.Leave(t.Context())
	second.stop()
	for _, name := range names {
		require.Equal(t, first.address, first.home(t, name))
	}
	for _, stop := range loads {
		require.Empty(t, refusals(stop()), "nothing but predictions")
	}
}

// refusals returns what was answered to load that is no prediction.
func refusals(counts map[string]int) []string {
	var all []string
	for answer := range counts {
		if _, err := strconv.Atoi(answer); err != nil {
			all = append(all, answer)
		}
	}
	return all
}

// A home that cannot run a version does not take it over from the one that can.
func TestInstances_standIn(t *testing.T) {
	docs := openStore(t)
	able := startMember(t, docs, containertest.Start(t, containertest.Echo))
	able.awaitMembers(t, 1)
	names := deployMany(t, able, enough)
	unable := startMember(t, docs, nil)
	unable.awaitMembers(t, 2)
	require.Eventually(t, func() bool {
		unable.service.mu.Lock()
		defer unable.service.mu.Unlock()
		return len(unable.service.unusable) > 0
	}, time.Minute, time.Millisecond)
	refused := 0
	for _, name := range names {
		require.Equal(t, able.address, unable.home(t, name))
		if v := unable.version(t, name, "v1"); v.StateMessage != "1 of 1 replicas ready" {
			require.Contains(t, v.StateMessage, "one of its homes cannot run it")
			refused++
		}
		for _, m := range []*member{able, unable} {
			p := m.ask(t, fresh(), ref(name, ""))[0]
			require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_OK, p.Status, p.Message)
		}
	}
	require.Positive(t, refused)
}

func TestInstances_severalHomes(t *testing.T) {
	all := startMembers(t, 2)
	names := deployMany(t, all[0], 1, func(req *clipperv1.DeployModelRequest) {
		req.Version.Homes, req.Version.Replicas = 2, proto.Uint32(4)
	})
	for _, m := range all {
		v := m.awaitState(t, names[0], "v1", ready)
		require.Len(t, v.ReplicaStatus, 4)
		counts := map[string]int{}
		for _, r := range v.ReplicaStatus {
			counts[r.Instance]++
		}
		require.Equal(t, map[string]int{all[0].address: 2, all[1].address: 2}, counts)
	}
	// Each input has its home, whoever is asked: the other one remembers nothing.
	const n = 64
	for _, m := range all {
		require.Eventually(t, func() bool { return len(m.service.table.Load().models[names[0]].current.peers) == 2 }, time.Minute, time.Millisecond)
	}
	for range n {
		in := fresh()
		all[0].askUntilCached(t, in, ref(names[0], ""))
		require.True(t, all[1].ask(t, in, ref(names[0], ""))[0].Cached)
	}
	for _, m := range all {
		require.Greater(t, m.container.Rows(), n/8)
	}

	// Back to one home: the replicas follow.
	_, err := all[1].UpdateModelVersion(t.Context(), &clipperv1.UpdateModelVersionRequest{Model: names[0], Version: "v1", Homes: proto.Uint32(1)})
	require.NoError(t, err)
	all[0].await(t, names[0], "v1", func(v *clipperv1.ModelVersion) bool {
		return v.State == ready && v.Homes == 1 && len(v.ReplicaStatus) == 4 && v.ReplicaStatus[0].Instance == v.ReplicaStatus[3].Instance
	})
}

func TestInstances_statusOfOneThatDoesNotAnswer(t *testing.T) {
	all := startMembers(t, 2)
	names := deployMany(t, all[0], enough)
	var theirs string
	for _, name := range names {
		if all[0].home(t, name) == all[1].address {
			theirs = name
		}
	}
	require.NotEmpty(t, theirs)
	all[0].service.mu.Lock()
	peer := all[0].service.peers[all[1].address]
	all[0].service.mu.Unlock()
	peer.stop() // As a network that is cut.
	v := all[0].version(t, theirs, "v1")
	require.Equal(t, clipperv1.ModelState_MODEL_STATE_UNSPECIFIED, v.State)
	require.Contains(t, v.StateMessage, "the state is not known: no answer from the instance "+all[1].address)

	// A query waits for it, and says why it has no answer.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	got, err := all[0].service.Predict(ctx, refs(theirs), fresh())
	require.NoError(t, err)
	require.Equal(t, clipperv1.PredictionStatus_PREDICTION_STATUS_UNAVAILABLE, got[0].Status)
	require.Contains(t, got[0].Message, "cannot be reached")
}

func TestInstances_deleteWaitsForTheHome(t *testing.T) {
	all := startMembers(t, 2)
	names := deployMany(t, all[0], 4)
	for _, name := range names {
		home := all[0].home(t, name)
		for _, m := range all {
			if m.address == home {
				continue
			}
			_, err := m.DeleteModel(t.Context(), &clipperv1.DeleteModelRequest{Model: name})
			require.NoError(t, err)
		}
	}
	for _, m := range all {
		m.service.mu.Lock()
		require.Empty(t, m.service.running)
		require.Empty(t, m.service.closing)
		m.service.mu.Unlock()
	}
}

func documentOf(spec *clipperv1.ModelVersion) *catalog.Version {
	return &catalog.Version{UID: "uid", Spec: spec}
}

func TestOutlook_place(t *testing.T) {
	// Which two of the three are homes, and in which order, is a matter of hashes.
	spec := func(change ...func(*clipperv1.ModelVersion)) *clipperv1.ModelVersion {
		v := &clipperv1.ModelVersion{Model: "m", Version: "v1", Container: command(), Replicas: proto.Uint32(3), Homes: 2}
		for _, c := range change {
			c(v)
		}
		return v
	}
	addresses := []string{"a:1", "b:1", "c:1"}
	outlookOf := func(self string, levels map[string]instances.Level, leaving ...string) *outlook {
		o := &outlook{self: self}
		for _, a := range addresses {
			i := instances.Instance{Address: a, Versions: map[string]instances.Level{"uid": levels[a]}}
			for _, l := range leaving {
				i.Leaving = i.Leaving || l == a
			}
			o.members = append(o.members, i)
			if !i.Leaving {
				o.staying = append(o.staying, a)
			}
		}
		return o
	}
	doc := documentOf(spec())
	base := outlookOf("a:1", nil).place(doc, instances.Absent)
	require.Len(t, base.homes, 2)
	first, second := base.homes[0], base.homes[1]
	third := ""
	for _, a := range addresses {
		if a != first && a != second {
			third = a
		}
	}
	require.Equal(t, []int{2, 1}, base.weights, "three replicas")
	require.Equal(t, base.homes, base.candidates(), "none serves yet")

	levels := func(one, two, three instances.Level) map[string]instances.Level {
		return map[string]instances.Level{first: one, second: two, third: three}
	}
	const none, running, serving, complete = instances.Absent, instances.Running, instances.Serving, instances.Complete
	for name, tc := range map[string]struct {
		levels   map[string]instances.Level
		want     []string
		complete bool
	}{
		"all is well":          {levels(complete, complete, none), []string{first, second}, true},
		"one has not begun":    {levels(complete, none, none), []string{first}, false},
		"one has lost some":    {levels(complete, serving, none), []string{first, second}, false},
		"one moves":            {levels(complete, running, complete), []string{first, third}, false},
		"one moves in part":    {levels(complete, serving, serving), []string{first, third}, false},
		"it has moved":         {levels(complete, complete, serving), []string{first, second}, true},
		"both move":            {levels(running, none, complete), []string{third}, false},
		"nobody serves":        {levels(running, running, running), []string{first, second}, false},
		"what ends is no help": {levels(running, complete, running), []string{second}, false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, self := range addresses {
				p := outlookOf(self, tc.levels).place(doc, tc.levels[self])
				require.ElementsMatch(t, tc.want, p.candidates(), "as %s sees it", self)
				require.Equal(t, tc.complete, p.complete)
				require.Equal(t, self != third, p.here != nil)
				if p.here != nil {
					require.Equal(t, !tc.complete, p.here.keep)
				}
			}
		})
	}
	p := outlookOf(first, levels(complete, complete, none), first).place(doc, complete)
	require.Nil(t, p.here, "one that is about to stop is no home")
	require.ElementsMatch(t, []string{second, third}, p.homes)

	one := documentOf(spec(func(v *clipperv1.ModelVersion) { v.Replicas = proto.Uint32(1) }))
	require.Len(t, outlookOf("a:1", nil).place(one, none).homes, 1, "no home without a replica")
	alone := (&outlook{}).place(doc, none)
	require.True(t, alone.complete)
	require.Equal(t, 3, alone.here.count(3))
}

func TestShare(t *testing.T) {
	for of := 1; of <= 5; of++ {
		for n := range 12 {
			seen := 0
			for index := range of {
				s := share{index: index, of: of}
				count := 0
				for number := range n {
					if s.has(number) {
						count++
					}
				}
				require.Equal(t, count, s.count(n))
				seen += count
			}
			require.Equal(t, n, seen, "each replica is at one home")
		}
	}
}

// BenchmarkPredict_forwarded is the cost of a query that reaches the wrong instance, on top of a
// cached prediction: both instances and the exchange between them are in this process.
func BenchmarkPredict_forwarded(b *testing.B) {
	docs := openStore(b)
	c := containertest.Start(b, containertest.Echo)
	one, two := startMember(b, docs, c), startMember(b, docs, c)
	one.awaitMembers(b, 2)
	two.awaitMembers(b, 2)
	var models []*internalv1.ModelReference
	for i := 0; models == nil; i++ {
		name := fmt.Sprintf("m%d", i)
		one.deploy(b, name, "v1", command())
		if one.home(b, name) == two.address {
			models = refs(name)
		}
	}
	in := fresh()
	one.askUntilCached(b, in, models...)
	b.Run("alone", func(b *testing.B) { benchmarkPredict(b, two.service, models, in) })
	b.Run("forwarded", func(b *testing.B) { benchmarkPredict(b, one.service, models, in) })
}

func benchmarkPredict(b *testing.B, s *Service, models []*internalv1.ModelReference, in *tensor.Input) {
	b.ReportAllocs()
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		for pb.Next() {
			got, err := s.Predict(ctx, models, in)
			if err != nil || !got[0].Cached {
				b.Error(got, err)
				return
			}
		}
	})
}
