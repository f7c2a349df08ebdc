// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/internal/store/storeopen"
	"github.com/clipper-serving/clipper/internal/store/storetest"
	"github.com/clipper-serving/clipper/selector/policy"
)

// exported is the receiving end of an export.
type exported struct {
	grpc.ServerStream
	ctx  context.Context
	send func(*clipperv1.ExportSelectionStateResponse) error
}

func (e exported) Context() context.Context                             { return e.ctx }
func (e exported) Send(r *clipperv1.ExportSelectionStateResponse) error { return e.send(r) }

func (b *bench) export(t testing.TB, app, userContext string) (all []*clipperv1.ExportSelectionStateResponse, err error) {
	err = b.admin.ExportSelectionState(&clipperv1.ExportSelectionStateRequest{Application: app, Context: userContext}, exported{
		ctx: t.Context(), send: func(r *clipperv1.ExportSelectionStateResponse) error { all = append(all, r); return nil },
	})
	return all, err
}

func (b *bench) contexts(t testing.TB, app, prefix string, size uint32) (names []string) {
	for r := (&clipperv1.ListContextsRequest{Application: app, Prefix: prefix, PageSize: size}); ; {
		page, err := b.admin.ListContexts(t.Context(), r)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page.Contexts), int(size))
		for _, c := range page.Contexts {
			names = append(names, c.Context)
		}
		if r.PageToken = page.NextPageToken; r.PageToken == "" {
			return names
		}
	}
}

func (b *bench) reset(t testing.TB, app, userContext string) {
	_, err := b.admin.ResetSelectionState(t.Context(), &clipperv1.ResetSelectionStateRequest{Application: app, Context: userContext})
	require.NoError(t, err)
}

// read is what a query of a context would be answered from now.
func (b *bench) read(t testing.TB, app, userContext string, into *policy.State) {
	a, err := b.application(app)
	require.NoError(t, err)
	b.Service.state(t.Context(), a, userContext, time.Minute, into)
}

// teach asks for a context and tells the truth.
func (b *bench) teach(t testing.TB, app, userContext string, label float64) {
	_, err := b.Feedback(t.Context(), truth(app, b.query(t, app, userContext).FeedbackId, label), nil)
	require.NoError(t, err)
}

func TestListContexts(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 2}})
	b.create(t, minimal("app", "a", "b"))
	other := minimal("other", "a", "b")
	b.create(t, other)
	b.teach(t, "app", "", 1)
	require.Empty(t, b.contexts(t, "app", "", 2))
	want := []string{"Grüße/☃", "ann", "ann-2", "ann-3", "bob"}
	for _, name := range want {
		b.teach(t, "app", name, 1)
	}
	b.teach(t, "app", "ann", 2)
	b.teach(t, "other", "zoe", 1)
	slices.Sort(want)
	for _, size := range []uint32{1, 2, 5, 100} {
		require.Equal(t, want, b.contexts(t, "app", "", size))
		require.Equal(t, []string{"ann", "ann-2", "ann-3"}, b.contexts(t, "app", "ann", size))
	}
	require.Empty(t, b.contexts(t, "app", "x", 1))
	page, err := b.admin.ListContexts(t.Context(), &clipperv1.ListContextsRequest{Application: "app", Prefix: "ann", PageSize: 1})
	require.NoError(t, err)
	require.EqualValues(t, 2, page.Contexts[0].Observations)
	require.Nil(t, page.Contexts[0].ExpireTime)

	for _, tt := range []struct {
		request *clipperv1.ListContextsRequest
		code    codes.Code
		reason  clipperv1.ErrorReason
		field   string
	}{
		{&clipperv1.ListContextsRequest{Application: "none"}, codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, "application"},
		{&clipperv1.ListContextsRequest{}, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "application"},
		{&clipperv1.ListContextsRequest{Application: "app", PageSize: 1001}, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "page_size"},
		{&clipperv1.ListContextsRequest{Application: "app", PageToken: "!"}, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "page_token"},
		{&clipperv1.ListContextsRequest{Application: "app", PageToken: page.NextPageToken, Prefix: "b"}, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "page_token"},
		{&clipperv1.ListContextsRequest{Application: "app", Prefix: strings.Repeat("x", 257)}, codes.InvalidArgument, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "prefix"},
	} {
		_, err := b.admin.ListContexts(t.Context(), tt.request)
		requireError(t, err, tt.code, tt.reason, tt.field)
	}
}

func TestExportSelectionState(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 2}})
	b.create(t, minimal("app", "a", "b"))
	for i := range exportPage + 3 {
		b.teach(t, "app", fmt.Sprintf("user-%02d", i), float64(1+i%2))
	}
	all, err := b.export(t, "app", "")
	require.NoError(t, err)
	require.Len(t, all, 1+exportPage+3)
	for i, r := range all {
		want := ""
		if i > 0 {
			want = fmt.Sprintf("user-%02d", i-1)
		}
		require.Equal(t, want, r.Context)
		require.True(t, proto.Equal(b.state(t, "app", r.Context), r.State), "as GetSelectionState says")
	}
	one, err := b.export(t, "app", "user-07")
	require.NoError(t, err)
	require.Len(t, one, 1)
	require.True(t, proto.Equal(all[8], one[0]))

	_, err = b.export(t, "none", "")
	requireError(t, err, codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, "application")
	for _, name := range []string{"nobody", strings.Repeat("x", 5000)} {
		_, err = b.export(t, "app", name)
		requireError(t, err, codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_CONTEXT_NOT_FOUND, "context")
	}
	gone := fmt.Errorf("the caller has gone")
	err = b.admin.ExportSelectionState(&clipperv1.ExportSelectionStateRequest{Application: "app"}, exported{
		ctx: t.Context(), send: func(*clipperv1.ExportSelectionStateResponse) error { return gone },
	})
	require.ErrorIs(t, err, gone)
}

func TestResetSelectionState(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 2}})
	b.create(t, minimal("app", "a", "b"))
	b.create(t, minimal("other", "a", "b"))
	for range 3 {
		for _, name := range []string{"ann", "bob", ""} {
			b.teach(t, "app", name, 2)
		}
		b.teach(t, "other", "ann", 2)
	}
	early := b.query(t, "app", "ann").FeedbackId
	b.reset(t, "app", "ann")
	require.Equal(t, []string{"bob"}, b.contexts(t, "app", "", 10))
	require.Zero(t, b.state(t, "app", "ann").Observations)
	require.EqualValues(t, 9, b.state(t, "app", "").Observations, "what all share stays")
	_, err := b.Feedback(t.Context(), truth("app", early, 2), nil)
	require.NoError(t, err, "feedback for an earlier answer counts")
	require.EqualValues(t, 1, b.state(t, "app", "ann").Observations)

	early = b.query(t, "app", "bob").FeedbackId
	b.reset(t, "app", "")
	require.Empty(t, b.contexts(t, "app", "", 10))
	for _, name := range []string{"", "ann", "bob"} {
		s := b.state(t, "app", name)
		require.Zero(t, s.Observations)
		require.InDelta(t, 0.5, weight(s, "a"), 1e-12)
		var state policy.State
		b.read(t, "app", name, &state)
		require.Equal(t, []float64{0, 0}, state.Statistics, "this instance goes on from nothing at once")
	}
	r, err := b.Feedback(t.Context(), truth("app", early, 2), nil)
	require.NoError(t, err)
	require.False(t, r.Duplicate)
	require.EqualValues(t, 1, b.state(t, "app", "bob").Observations)
	require.EqualValues(t, 3, b.state(t, "other", "ann").Observations, "another application's stay")

	for name, reason := range map[string]clipperv1.ErrorReason{"app": clipperv1.ErrorReason_ERROR_REASON_CONTEXT_NOT_FOUND, "none": clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND} {
		_, err := b.admin.ResetSelectionState(t.Context(), &clipperv1.ResetSelectionStateRequest{Application: name, Context: "nobody"})
		requireError(t, err, codes.NotFound, reason, map[string]string{"app": "context", "none": "application"}[name])
	}
}

// TestResetSelectionState_instances: another instance notices when it reads the state again, and
// feedback that arrives at both meanwhile does no harm.
func TestResetSelectionState_instances(t *testing.T) {
	st := newStore(t)
	models := newFakeModels(map[string]answer{"a": {label: 1}, "b": {label: 2}})
	cfg := Config{StateWait: time.Minute, StateRefresh: time.Millisecond}
	one, other := startWith(t, st.Documents(), st.Sums(), models, cfg), startWith(t, st.Documents(), st.Sums(), models, cfg)
	one.create(t, minimal("app", "a", "b"))
	require.NoError(t, other.apps.Refresh(t.Context()))
	for range 20 {
		other.teach(t, "app", "ann", 2)
	}
	one.reset(t, "app", "")
	require.Eventually(t, func() bool {
		var state policy.State
		other.read(t, "app", "ann", &state)
		return state.Statistics[0] == 0 && state.Statistics[1] == 0
	}, patience, time.Millisecond)

	var acknowledged atomic.Int64
	var group sync.WaitGroup
	for _, b := range []*bench{one, other} {
		group.Go(func() {
			for range 50 {
				r, err := b.Feedback(t.Context(), truth("app", b.query(t, "app", "ann").FeedbackId, 2), nil)
				if err != nil || r.Duplicate {
					t.Errorf("feedback: %v, %v", r, err)
					return
				}
				acknowledged.Add(1)
			}
		})
	}
	for range 5 {
		one.reset(t, "app", "")
	}
	group.Wait()
	for _, name := range []string{"", "ann"} {
		s := one.state(t, "app", name)
		require.LessOrEqual(t, s.Observations, float64(acknowledged.Load()))
		for _, m := range s.Models {
			require.Equal(t, s.Observations, m.Statistics["count"], "sums that belong together were reset by half")
		}
	}
	one.reset(t, "app", "")
	require.Empty(t, one.contexts(t, "app", "", 10))
	one.teach(t, "app", "ann", 2)
	require.EqualValues(t, 1, one.state(t, "app", "ann").Observations)
}

// lastingSums keeps what has a life in memory, by the clock of a test.
type lastingSums struct {
	store.Sums
	mu      sync.Mutex
	groups  map[string]map[string]float64
	expires map[string]time.Time
}

func (s *lastingSums) Add(_ context.Context, _ string, _ time.Duration, updates ...store.Update) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range updates {
		s.sweep(u.Key)
		if s.groups[u.Key] == nil {
			s.groups[u.Key] = map[string]float64{}
		}
		for field, delta := range u.Deltas {
			s.groups[u.Key][field] += delta
		}
		delete(s.expires, u.Key)
		if u.TTL > 0 {
			s.expires[u.Key] = time.Now().Add(u.TTL)
		}
	}
	return true, nil
}

func (s *lastingSums) sweep(key string) {
	if at, ok := s.expires[key]; ok && !time.Now().Before(at) {
		delete(s.groups, key)
		delete(s.expires, key)
	}
}

func (s *lastingSums) Get(ctx context.Context, key string) (map[string]float64, error) {
	g, err := s.Group(ctx, key)
	return g.Sums, err
}

func (s *lastingSums) Group(_ context.Context, key string) (store.Group, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(key)
	g := store.Group{Key: key, Sums: map[string]float64{}}
	for field, x := range s.groups[key] {
		g.Sums[field] = x
	}
	if at, ok := s.expires[key]; ok {
		g.TTL = time.Until(at)
	}
	return g, nil
}

// noDocuments is an empty store of documents without anything in the background.
type noDocuments struct{ store.Documents }

func (noDocuments) Get(context.Context, string) (store.Document, error) {
	return store.Document{}, store.ErrUnavailable
}

func (noDocuments) List(context.Context, string) ([]store.Document, error) { return nil, nil }

func (noDocuments) Watch(ctx context.Context, _ string) <-chan struct{} {
	return make(chan struct{})
}

// TestContextLifetime: the local copy of a context ends when its sums do, which is so long after the
// last feedback, and begins at nothing then.
func TestContextLifetime(t *testing.T) {
	st := newStore(t)
	app := minimal("app", "a", "b")
	app.ContextLifetime = durationpb.New(time.Hour)
	app.PriorWeight = -1
	start(t, st, newFakeModels(nil)).create(t, app)
	document, err := st.Documents().Get(t.Context(), documents+"app")
	require.NoError(t, err)

	synctest.Test(t, func(t *testing.T) {
		sums := &lastingSums{groups: map[string]map[string]float64{}, expires: map[string]time.Time{}}
		ctx := t.Context()
		// With a refresh of a year, what is seen is the copy.
		instance := func() *Service {
			s, err := New(Config{StateRefresh: 8760 * time.Hour, StateWait: time.Second}, Deps{
				Documents: noDocuments{}, Sums: sums, Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
			})
			require.NoError(t, err)
			return s
		}
		s := instance()
		app, err := s.decode(document)
		require.NoError(t, err)
		learn := func(loss float64) {
			done, err := s.learn(ctx, app, "ann", identity{}, policy.Observation{
				Choices: []policy.Choice{{Model: 0, Propensity: 1}, {Model: 1, Propensity: 1}}, Losses: []float64{loss, 1 - loss},
			})
			require.NoError(t, err)
			require.Equal(t, counted, done)
		}
		observations := func() float64 {
			l := s.read(ctx, app, app.stateKey("ann"), s.copyOf(app, "ann"), time.Now().Add(time.Second))
			if l == nil {
				return 0
			}
			return l.Observations
		}
		require.Zero(t, observations())
		learn(1)
		time.Sleep(40 * time.Minute)
		learn(1)
		time.Sleep(40 * time.Minute)
		require.EqualValues(t, 2, observations(), "its life begins again with each feedback")
		time.Sleep(20*time.Minute - time.Nanosecond)
		require.EqualValues(t, 2, observations())
		time.Sleep(time.Nanosecond)
		require.Zero(t, observations())
		var state policy.State
		s.state(ctx, app, "ann", time.Second, &state)
		require.Equal(t, []float64{0, 0}, state.Statistics)
		learn(0)
		require.EqualValues(t, 1, observations())
		synctest.Wait()

		// The copy that another instance reads has the life that is left.
		other := instance()
		time.Sleep(30 * time.Minute)
		read := func() *learned {
			return other.read(ctx, app, app.stateKey("ann"), other.copyOf(app, "ann"), time.Now().Add(time.Second))
		}
		require.EqualValues(t, 1, read().Observations)
		learn(0) // Here, which the other instance does not know.
		time.Sleep(30 * time.Minute)
		require.EqualValues(t, 2, read().Observations, "it looks again before it forgets")
		time.Sleep(30 * time.Minute)
		require.Zero(t, read().Observations)
		g, err := sums.Get(ctx, app.sharedKey)
		require.NoError(t, err)
		require.EqualValues(t, 4, g[fieldObservations], "what all share stays for ever")
		other.Close()
		s.Close()
	})
}

func TestContextLifetime_list(t *testing.T) {
	b := newBench(t, map[string]answer{"a": {label: 1}, "b": {label: 2}})
	app := minimal("app", "a", "b")
	app.ContextLifetime = durationpb.New(2 * time.Hour)
	b.create(t, app)
	before := time.Now()
	b.teach(t, "app", "ann", 1)
	page, err := b.admin.ListContexts(t.Context(), &clipperv1.ListContextsRequest{Application: "app"})
	require.NoError(t, err)
	require.Len(t, page.Contexts, 1)
	expires := page.Contexts[0].ExpireTime.AsTime()
	require.WithinRange(t, expires, before.Add(2*time.Hour), time.Now().Add(2*time.Hour+time.Second))

	// Without a lifetime again, a context stays from its next feedback on.
	app.ContextLifetime = durationpb.New(0)
	b.update(t, app)
	b.teach(t, "app", "ann", 1)
	page, err = b.admin.ListContexts(t.Context(), &clipperv1.ListContextsRequest{Application: "app"})
	require.NoError(t, err)
	require.Nil(t, page.Contexts[0].ExpireTime)
	require.EqualValues(t, 2, page.Contexts[0].Observations)
}

// TestManyContexts: with 100,000 contexts, a page and an export need memory for what they hold at a
// time and not for all there is.
func TestManyContexts(t *testing.T) {
	const contexts, fields = 100_000, 8
	redis, err := storeopen.Open(t.Context(), storetest.StartRedis(t).URL())
	require.NoError(t, err)
	defer func() { require.NoError(t, redis.Close()) }()
	for name, st := range map[string]store.Store{"file": newStore(t), "redis": redis} {
		t.Run(name, func(t *testing.T) {
			b := start(t, st, newFakeModels(nil))
			b.create(t, minimal("app", "a", "b"))
			app, err := b.application("app")
			require.NoError(t, err)
			deltas := map[string]float64{fieldObservations: 1}
			for i := range fields {
				deltas[fmt.Sprintf("statistic-%d", i)] = float64(i) / 3
			}
			for i := 0; i < contexts; i += 500 {
				var updates []store.Update
				for k := range 500 {
					updates = append(updates, store.Update{Key: app.stateKey(fmt.Sprintf("user-%06d", i+k)), Deltas: deltas})
				}
				_, err := st.Sums().Add(t.Context(), "", 0, updates...)
				require.NoError(t, err)
			}

			heap := func() uint64 {
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				return m.HeapAlloc
			}
			allocated := func(do func()) uint64 {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				do()
				runtime.ReadMemStats(&after)
				return after.TotalAlloc - before.TotalAlloc
			}
			token := ""
			page := func() {
				r, err := b.admin.ListContexts(t.Context(), &clipperv1.ListContextsRequest{Application: "app", PageToken: token, Prefix: "user-05"})
				require.NoError(t, err)
				require.Len(t, r.Contexts, defaultPage)
				token = r.NextPageToken
			}
			page()
			for range 5 {
				require.Less(t, allocated(page), uint64(4<<20), "a page of %d allocates what all %d need", defaultPage, contexts)
			}

			n, start := 0, heap()
			err = b.admin.ExportSelectionState(&clipperv1.ExportSelectionStateRequest{Application: "app"}, exported{
				ctx: t.Context(), send: func(*clipperv1.ExportSelectionStateResponse) error {
					if n++; n%20_000 == 0 {
						require.Less(t, heap(), start+8<<20, "an export keeps what it has sent")
					}
					return nil
				},
			})
			require.NoError(t, err)
			require.Equal(t, contexts+1, n)
			b.reset(t, "app", "")
			require.Empty(t, b.contexts(t, "app", "", 100))
		})
	}
}
