// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"log/slog"
	"maps"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/config"
	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/internal/store/storeopen"
	"github.com/clipper-serving/clipper/internal/store/storetest"
)

// collect is what the conditions of EventuallyWithT report to.
type collect = assert.CollectT

// outageKind is one way in which a store can be away, and come back.
type outageKind struct {
	name string
	// start returns the address of the store, and what begins and ends an outage.
	start func(t *testing.T) (address string, begin, end func())
}

var outageKinds = []outageKind{
	{"stopped", func(t *testing.T) (string, func(), func()) {
		r := storetest.StartRedis(t, storetest.WithAppendOnly())
		return r.URL(), r.Kill, r.Restart
	}},
	{"paused", func(t *testing.T) (string, func(), func()) {
		r := storetest.StartRedis(t, storetest.WithAppendOnly())
		return r.URL(), r.Pause, r.Resume
	}},
	{"takes no writes", func(t *testing.T) (string, func(), func()) {
		r := storetest.StartRedis(t, storetest.WithAppendOnly())
		set := func(n string) { require.Equal(t, "+OK", r.Command("CONFIG SET min-replicas-to-write "+n)) }
		return r.URL(), func() { set("1") }, func() { set("0") }
	}},
	{"slow", func(t *testing.T) (string, func(), func()) {
		p := storetest.StartProxy(t, storetest.StartRedis(t, storetest.WithAppendOnly()).Address())
		return p.URL(), func() { p.Delay(4 * briefly) }, func() { p.Delay(0) }
	}},
	{"failed over", func(t *testing.T) (string, func(), func()) {
		primary, replica, p := startPair(t)
		return p.URL(), func() {
				awaitCopy(t, primary, replica)
				primary.Kill()
			}, func() {
				replica.Promote(primary)
				p.Lead(replica.Address())
			}
	}},
	{"failed over, the old one still there", func(t *testing.T) (string, func(), func()) {
		primary, replica, p := startPair(t)
		return p.URL(), func() {
				awaitCopy(t, primary, replica)
				replica.Promote(primary)
			}, func() {
				p.Lead(replica.Address()) // The connections to the old one stay.
			}
	}},
}

// briefly is how long feedback waits for the store in these tests.
const briefly = 300 * time.Millisecond

func startPair(t *testing.T) (primary, replica *storetest.Redis, p *storetest.Proxy) {
	primary = storetest.StartRedis(t, storetest.WithAppendOnly())
	replica = storetest.StartRedis(t, storetest.WithAppendOnly(), storetest.WithReplicaOf(primary))
	return primary, replica, storetest.StartProxy(t, primary.Address())
}

// awaitCopy waits until a replica has all sums of its primary: what it has not got when it is promoted
// is lost.
func awaitCopy(t *testing.T, primary, replica *storetest.Redis) {
	from, to := openURL(t, primary.URL()).Sums(), openURL(t, replica.URL()).Sums()
	require.EventuallyWithT(t, func(c *collect) {
		keys, err := from.Keys(t.Context(), "", "", 1000)
		require.NoError(c, err)
		require.NotEmpty(c, keys)
		for _, key := range keys {
			want, err := from.Get(t.Context(), key)
			require.NoError(c, err)
			got, err := to.Get(t.Context(), key)
			require.NoError(c, err)
			require.Equal(c, want, got)
		}
	}, patience, 10*time.Millisecond)
}

func openURL(t testing.TB, address string) store.Store {
	s, err := storeopen.Open(t.Context(), address)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// TestOutage begins and ends each kind of outage. Queries are answered from the last known state all
// the time; feedback is refused or buffered; nothing has to be done for the recovery, and in the end what
// was acknowledged is counted once.
func TestOutage(t *testing.T) {
	for _, kind := range outageKinds {
		for _, mode := range []string{"refused", "buffered"} {
			t.Run(kind.name+"/"+mode, func(t *testing.T) {
				address, begin, end := kind.start(t)
				st := openURL(t, address)
				cfg := Config{StateWait: time.Minute, StateRefresh: 10 * time.Millisecond, FeedbackWait: briefly}
				if mode == "buffered" {
					cfg.FeedbackBuffer = t.TempDir()
				}
				b := startWith(t, st.Documents(), st.Sums(), newFakeModels(map[string]answer{"a": {label: 1}, "b": {label: 2}, "c": {label: 2}}), cfg)
				b.create(t, minimal("app", "a", "b", "c"))
				learn(t, b, 20, 1, false)
				require.EqualValues(t, 1, label(t, b.query(t, "app", "")), "a has the weight")

				begin()
				for _, userContext := range []string{"", "known", "new"} {
					r := b.query(t, "app", userContext)
					require.False(t, r.IsDefault)
					require.EqualValues(t, 1, label(t, r), "answered from the last known state")
				}
				acknowledged := 20.0
				var again []string
				if mode == "refused" {
					for range 3 {
						id := b.query(t, "app", "known").FeedbackId
						_, err := b.Feedback(t.Context(), truth("app", id, 2), nil)
						requireError(t, err, codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, "")
						require.ErrorContains(t, err, "the store cannot be reached now; try again")
						again = append(again, id)
					}
				} else {
					again = learn(t, b, 60, 2, true)
					acknowledged += 60
					id := b.query(t, "app", "first heard of").FeedbackId
					_, err := b.Feedback(t.Context(), truth("app", id, 2), nil)
					require.NoError(t, err)
					acknowledged++
					for _, userContext := range []string{"", "known", "new", "first heard of"} {
						require.EqualValues(t, 2, label(t, b.query(t, "app", userContext)), "what is buffered has been learned")
					}
					require.Positive(t, b.buffer.entries())
					require.Positive(t, b.buffer.age())
				}
				require.True(t, b.outage.known())
				require.EqualValues(t, 1, testutil.ToFloat64(b.metrics.outage))
				end()

				// What was refused is sent again, and so is what was acknowledged.
				for _, id := range again {
					require.EventuallyWithT(t, func(c *collect) {
						_, err := b.Feedback(t.Context(), truth("app", id, 2), nil)
						require.NoError(c, err)
					}, patience, 10*time.Millisecond)
				}
				if mode == "refused" {
					acknowledged += float64(len(again))
				}
				require.EventuallyWithT(t, func(c *collect) {
					shared := b.sums(c, "app", "")
					require.Equal(c, acknowledged, shared[fieldObservations])
					require.Equal(c, acknowledged, shared["count/a"])
					require.Equal(c, acknowledged-20, shared["loss/a"])
					known := b.sums(c, "app", "known")[fieldObservations] + b.sums(c, "app", "first heard of")[fieldObservations]
					require.Equal(c, acknowledged, known)
				}, patience, 10*time.Millisecond)
				require.Eventually(t, func() bool { return !b.outage.known() }, patience, time.Millisecond)
				require.Zero(t, testutil.ToFloat64(b.metrics.outage))
				if mode == "buffered" {
					require.Eventually(t, func() bool { return b.buffer.journal.Empty() && b.buffer.entries() == 0 }, patience, time.Millisecond)
					require.Zero(t, b.buffer.age())
					require.Empty(t, b.buffer.keys)
					require.GreaterOrEqual(t, testutil.ToFloat64(b.metrics.buffered), 60.0)
					replayed := testutil.ToFloat64(b.metrics.replayed.WithLabelValues("counted")) + testutil.ToFloat64(b.metrics.replayed.WithLabelValues("duplicate"))
					require.Equal(t, testutil.ToFloat64(b.metrics.buffered), replayed)
					require.Zero(t, testutil.CollectAndCount(b.metrics.dropped))
				}
				f, err := b.Feedback(t.Context(), truth("app", b.query(t, "app", "known").FeedbackId, 2), nil)
				require.NoError(t, err)
				require.False(t, f.Buffered)
			})
		}
	}
}

// learn gives feedback for n answers in the context "known", and returns their ids.
func learn(t testing.TB, b *bench, n int, label float64, buffered bool) (ids []string) {
	for range n {
		id := b.query(t, "app", "known").FeedbackId
		f, err := b.Feedback(t.Context(), truth("app", id, label), nil)
		require.NoError(t, err)
		require.False(t, f.Duplicate)
		require.Equal(t, buffered, f.Buffered)
		ids = append(ids, id)
	}
	return ids
}

// sums reads the store.
func (b *bench) sums(t require.TestingT, application, userContext string) map[string]float64 {
	app, err := b.application(application)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	sums, err := b.deps.Sums.Get(ctx, app.stateKey(userContext))
	require.NoError(t, err)
	return sums
}

// switched is sums that can be away.
type switched struct {
	store.Sums
	away  chan struct{} // closed while they are there
	tried atomic.Int64  // additions of feedback
}

func (s *switched) Add(ctx context.Context, once string, ttl time.Duration, updates ...store.Update) (bool, error) {
	if strings.HasPrefix(once, "token/") {
		s.tried.Add(1)
	}
	select {
	case <-s.away:
		return s.Sums.Add(ctx, once, ttl, updates...)
	default:
		return false, store.ErrUnavailable
	}
}

// startSwitched starts a selector with a buffer whose sums are away until the returned function is called.
func startSwitched(t *testing.T, st store.Store, dir string, size config.Bytes) (*bench, func()) {
	sums := &switched{Sums: st.Sums(), away: make(chan struct{})}
	b := startWith(t, st.Documents(), sums, newFakeModels(map[string]answer{"a": {label: 1}, "b": {label: 2}}),
		Config{StateWait: time.Minute, FeedbackBuffer: dir, FeedbackBufferSize: size})
	return b, func() { close(sums.away) }
}

// TestOutage_known: while the store is known to be away, feedback does not even try it, and what is buffered is
// part of every copy that is read meanwhile.
func TestOutage_known(t *testing.T) {
	b, _ := startSwitched(t, newStore(t), t.TempDir(), 0)
	b.create(t, minimal("app", "a", "b"))
	learn(t, b, 30, 2, true)
	require.EqualValues(t, 1, b.deps.Sums.(*switched).tried.Load())
	app, err := b.application("app")
	require.NoError(t, err)
	for _, userContext := range []string{"", "known"} {
		c := b.copyOf(app, userContext)
		require.Eventually(t, func() bool { return c.loading.CompareAndSwap(false, true) }, patience, time.Millisecond)
		before := c.tried.Load()
		b.load(app, app.stateKey(userContext), c)
		require.Eventually(t, func() bool { return c.tried.Load() > before }, patience, time.Millisecond)
		require.EqualValues(t, 30, c.current.Load().Observations)
	}
}

// TestBuffer_restart: what was buffered survives the selector, is part of what the next one knows at once,
// and is handed over by it.
func TestBuffer_restart(t *testing.T) {
	st, dir := newStore(t), filepath.Join(t.TempDir(), "buffer")
	b, _ := startSwitched(t, st, dir, 0)
	b.create(t, minimal("app", "a", "b"))
	ids := learn(t, b, 30, 2, true)
	_, err := b.Feedback(t.Context(), &clipperv1.FeedbackRequest{Application: "app", Context: "known", Observation: truth("", "", 2).Observation}, input)
	require.NoError(t, err, "without an identity")
	b.Close()

	b, back := startSwitched(t, st, dir, 0)
	require.Equal(t, 31, b.buffer.entries())
	require.EqualValues(t, 2, label(t, b.query(t, "app", "known")))
	f, err := b.Feedback(t.Context(), truth("app", ids[0], 2), nil)
	require.NoError(t, err)
	require.True(t, f.Buffered, "whether it is a duplicate is not known yet")
	back()
	require.EventuallyWithT(t, func(c *collect) {
		require.Zero(c, b.buffer.entries())
		require.EqualValues(c, 31, b.sums(c, "app", "known")[fieldObservations])
	}, patience, time.Millisecond)
	require.EqualValues(t, 1, testutil.ToFloat64(b.metrics.replayed.WithLabelValues("duplicate")))
	f, err = b.Feedback(t.Context(), truth("app", ids[0], 2), nil)
	require.NoError(t, err)
	require.True(t, f.Duplicate)
}

// TestBuffer_life: what is handed over lives as long as what is learned at once.
func TestBuffer_life(t *testing.T) {
	b, back := startSwitched(t, newStore(t), t.TempDir(), 0)
	app := minimal("app", "a", "b")
	app.ContextLifetime = durationpb.New(time.Hour)
	b.create(t, app)
	learn(t, b, 1, 2, true)
	back()
	require.Eventually(t, b.buffer.journal.Empty, patience, time.Millisecond)
	known, err := b.application("app")
	require.NoError(t, err)
	for key, lives := range map[string]bool{known.stateKey("known"): true, known.sharedKey: false} {
		group, err := b.deps.Sums.Group(t.Context(), key)
		require.NoError(t, err)
		require.EqualValues(t, 1, group.Sums[fieldObservations])
		require.Equal(t, lives, group.TTL > 0)
	}
}

// TestBuffer_canary: what was buffered counts for the canary's run in which it was given, and brings no sums of
// an earlier one back.
func TestBuffer_canary(t *testing.T) {
	b, back := startSwitched(t, newStore(t), t.TempDir(), 0)
	app := withCanary()
	b.create(t, app)
	current, err := b.application("app")
	require.NoError(t, err)
	over := current.sumsOfRun(current.trial.progress.Run + 1)
	for i, key := range []string{over, current.trial.sumsKey} {
		once := identity{name: strings.Repeat("x", i+1), remember: time.Hour, expires: time.Now().Add(time.Hour)}
		require.NoError(t, b.buffer.keep(t.Context(), current, once, []store.Update{
			{Key: current.sharedKey, Deltas: map[string]float64{fieldObservations: 1}},
			{Key: key, Deltas: map[string]float64{canaryField(0, armCanary, metricLoss, "count"): 1}},
		}))
	}
	b.outage.signal()
	back()
	require.Eventually(t, b.buffer.journal.Empty, patience, time.Millisecond)
	require.EqualValues(t, 2, b.sums(t, "app", "")[fieldObservations])
	for key, want := range map[string]float64{over: 0, current.trial.sumsKey: 1} {
		sums, err := b.deps.Sums.Get(t.Context(), key)
		require.NoError(t, err)
		require.Equal(t, want, sums[canaryField(0, armCanary, metricLoss, "count")])
	}
}

// TestBuffer_dropped: what may have been forgotten by the store, and what belongs to an application that is
// gone, does not count.
func TestBuffer_dropped(t *testing.T) {
	b, back := startSwitched(t, newStore(t), t.TempDir(), 0)
	b.create(t, minimal("app", "a", "b"))
	b.create(t, minimal("gone", "a", "b"))
	app, err := b.application("app")
	require.NoError(t, err)
	learn(t, b, 1, 2, true)
	expired := identity{name: "token/old", remember: time.Hour, expires: time.Now().Add(-time.Second)}
	require.NoError(t, b.buffer.keep(t.Context(), app, expired, []store.Update{{Key: app.sharedKey, Deltas: map[string]float64{fieldObservations: 1}}}))
	f, err := b.Feedback(t.Context(), truth("gone", b.query(t, "gone", "").FeedbackId, 2), nil)
	require.NoError(t, err)
	require.True(t, f.Buffered)
	require.NoError(t, b.buffer.journal.Append(t.Context(), []byte("no record")))
	_, err = b.admin.DeleteApplication(t.Context(), &clipperv1.DeleteApplicationRequest{Application: "gone"})
	require.NoError(t, err)
	back()
	require.Eventually(t, b.buffer.journal.Empty, patience, time.Millisecond)
	for _, reason := range []string{"expired", "application_gone", "unreadable"} {
		require.EqualValues(t, 1, testutil.ToFloat64(b.metrics.dropped.WithLabelValues(reason)), reason)
	}
	require.Zero(t, b.buffer.entries())
	require.EqualValues(t, 1, b.sums(t, "app", "")[fieldObservations])
	keys, err := b.deps.Sums.Keys(t.Context(), "", "", 100)
	require.NoError(t, err)
	for _, key := range keys {
		require.False(t, strings.HasPrefix(key, "selection/gone/"), key)
	}
}

func TestBuffer_full(t *testing.T) {
	b, back := startSwitched(t, newStore(t), t.TempDir(), 2*config.KiB)
	b.create(t, minimal("app", "a", "b"))
	accepted := 0
	for {
		_, err := b.Feedback(t.Context(), truth("app", b.query(t, "app", "").FeedbackId, 2), nil)
		if err != nil {
			requireError(t, err, codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, "")
			require.ErrorContains(t, err, "the feedback buffer is full")
			break
		}
		accepted++
		require.Less(t, accepted, 100)
	}
	require.Positive(t, accepted)
	back()
	require.EventuallyWithT(t, func(c *collect) {
		require.EqualValues(c, accepted, b.sums(c, "app", "")[fieldObservations])
	}, patience, time.Millisecond)
}

// hurried is a context that says when it will end, and on a slow machine does not mind.
type hurried struct {
	context.Context
	at time.Time
}

func (h hurried) Deadline() (time.Time, bool) { return h.at, true }

func inHurry(t *testing.T, d time.Duration) context.Context {
	return hurried{t.Context(), time.Now().Add(d)}
}

// TestBuffer_hurry: a caller in a hurry is answered in time, and does not make an outage of its haste.
func TestBuffer_hurry(t *testing.T) {
	r := storetest.StartRedis(t)
	st := openURL(t, r.URL())
	b := startWith(t, st.Documents(), st.Sums(), newFakeModels(map[string]answer{"a": {label: 1}}), Config{FeedbackBuffer: t.TempDir(), StateRefresh: time.Hour})
	b.create(t, minimal("app", "a"))
	id := b.query(t, "app", "").FeedbackId
	r.Pause()
	f, err := b.Feedback(inHurry(t, clearTimeout), truth("app", id, 2), nil)
	require.NoError(t, err)
	require.True(t, f.Buffered)
	require.False(t, b.outage.known())
	r.Resume()
	require.EventuallyWithT(t, func(c *collect) {
		require.Zero(c, b.buffer.entries())
		require.EqualValues(c, 1, b.sums(c, "app", "")[fieldObservations])
	}, patience, time.Millisecond)
}

func TestNew_buffer(t *testing.T) {
	st := newStore(t)
	deps := Deps{
		Documents: st.Documents(), Sums: st.Sums(), Models: newFakeModels(nil), ModelService: newFakeCatalog(),
		Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	}
	_, err := New(Config{FeedbackBuffer: "/dev/null/x"}, deps)
	require.ErrorContains(t, err, "feedback-buffer")
	_, err = New(Config{FeedbackWait: -time.Second}, deps)
	require.ErrorContains(t, err, "feedback-wait")
}

// TestFeedback_slowStore: feedback that the store is too slow for is refused in time, with a reason that
// says so, and not by the caller's deadline.
func TestFeedback_slowStore(t *testing.T) {
	p := storetest.StartProxy(t, storetest.StartRedis(t).Address())
	st := openURL(t, p.URL())
	b := startWith(t, st.Documents(), st.Sums(), newFakeModels(map[string]answer{"a": {label: 1}}), Config{StateRefresh: time.Hour})
	app := minimal("app", "a")
	app.LatencyObjective = durationpb.New(time.Second)
	b.create(t, app)
	learn(t, b, 1, 1, false) // The server knows the script from now on.
	id := b.query(t, "app", "").FeedbackId
	p.Delay(time.Second)
	_, err := b.Feedback(inHurry(t, briefly), truth("app", id, 2), nil)
	requireError(t, err, codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, "")
	p.Delay(0)
	var f *clipperv1.FeedbackResponse
	require.EventuallyWithT(t, func(c *collect) {
		var err error
		f, err = b.Feedback(t.Context(), truth("app", id, 2), nil)
		require.NoError(c, err)
	}, patience, 10*time.Millisecond)
	require.True(t, f.Duplicate, "the write that was not waited for was done")
	require.Equal(t, map[string]float64{fieldObservations: 2, "count/a": 2, "loss/a": 1}, onlyCounts(b.sums(t, "app", "")))
}

// onlyCounts leaves out what is the policy's.
func onlyCounts(sums map[string]float64) map[string]float64 {
	sums = maps.Clone(sums)
	maps.DeleteFunc(sums, func(field string, _ float64) bool {
		return field != fieldObservations && !strings.HasPrefix(field, statisticCount+"/") && !strings.HasPrefix(field, statisticLoss+"/")
	})
	return sums
}
