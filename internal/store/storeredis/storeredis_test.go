// SPDX-License-Identifier: Apache-2.0

package storeredis

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openURL(tb testing.TB, address string) *DB {
	tb.Helper()
	db, err := Open(address)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, db.Close()) })
	return db
}

// opener gives each test a namespace of its own on one server.
func opener(server *storetest.Redis) storetest.Opener {
	return func(tb testing.TB) (one, other store.Store) {
		address := server.URL() + "?namespace=" + url.QueryEscape(tb.Name())
		return openURL(tb, address), openURL(tb, address)
	}
}

func TestDocuments(t *testing.T) { storetest.Documents(t, opener(storetest.StartRedis(t))) }
func TestSums(t *testing.T)      { storetest.Sums(t, opener(storetest.StartRedis(t))) }
func TestFollower(t *testing.T)  { storetest.Follower(t, opener(storetest.StartRedis(t))) }

// TestCluster runs the suites against a cluster node, which refuses scripts whose
// keys are in different slots.
func TestCluster(t *testing.T) {
	open := opener(storetest.StartRedis(t, storetest.WithClusterNode()))
	t.Run("documents", func(t *testing.T) { storetest.Documents(t, open) })
	t.Run("sums", func(t *testing.T) { storetest.Sums(t, open) })
}

func TestNamespacesAreApart(t *testing.T) {
	server, ctx := storetest.StartRedis(t), t.Context()
	a, b := openURL(t, server.URL()), openURL(t, server.URL()+"?namespace=b")
	_, err := a.Documents().Put(ctx, "k", nil, 0)
	require.NoError(t, err)
	_, err = a.Sums().Add(ctx, "o", time.Hour, store.Update{Key: "k", Deltas: map[string]float64{"n": 1}})
	require.NoError(t, err)

	docs, err := b.Documents().List(ctx, "")
	require.NoError(t, err)
	require.Empty(t, docs)
	applied, err := b.Sums().Add(ctx, "o", time.Hour)
	require.NoError(t, err)
	require.True(t, applied)
	keys, err := b.Sums().Keys(ctx, "", "", 1)
	require.NoError(t, err)
	require.Empty(t, keys)
}

// TestKill kills the server in the middle of writes, several times on the same
// data. The handle stays open and heals by itself.
func TestKill(t *testing.T) {
	server := storetest.StartRedis(t, storetest.WithAppendOnly())
	db := openURL(t, server.URL())
	var acknowledged []string
	for run := range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		count, killAfter := 0, 1+rand.IntN(2000)
		due, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			storetest.WriteUntil(ctx, db, strconv.Itoa(run), func(identity string) {
				mu.Lock()
				defer mu.Unlock()
				acknowledged = append(acknowledged, identity)
				if count++; count == killAfter {
					close(due)
				}
			})
		}()
		select {
		case <-due:
		case <-done: // before its time, which CheckSurvivors or the count would show
		}
		server.Kill()
		<-done
		cancel()
		require.GreaterOrEqual(t, count, killAfter)
		server.Restart()
		answers(t, db)
		storetest.CheckSurvivors(t, db, acknowledged)
	}
}

// answers waits until the store has found its server again.
func answers(t *testing.T, db *DB) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, err := db.Documents().List(t.Context(), "probe")
		return err == nil
	}, 20*time.Second, 10*time.Millisecond)
}

// TestUnavailable checks that whatever happens to the server, calls fail within
// their deadline, and work again when it is back, with nothing done by anyone.
func TestUnavailable(t *testing.T) {
	server := storetest.StartRedis(t, storetest.WithAppendOnly())
	for name, outage := range map[string]struct{ begin, end func() }{
		"killed": {server.Kill, server.Restart},
		"paused": {server.Pause, server.Resume},
	} {
		t.Run(name, func(t *testing.T) {
			// Only the callers' deadlines can end a call.
			db := openURL(t, server.URL()+"?read_timeout=1h&write_timeout=1h&namespace="+name)
			ctx := t.Context()
			update := store.Update{Key: "k", Deltas: map[string]float64{"n": 1}}
			_, err := db.Sums().Add(ctx, "before", time.Hour, update)
			require.NoError(t, err)
			f := store.Follow(db.Documents(), "", func(doc store.Document) (string, error) { return string(doc.Value), nil }, store.FollowConfig{Resync: time.Hour})
			defer f.Close()
			require.NoError(t, f.Refresh(ctx))

			outage.begin()
			for call, do := range map[string]func(context.Context) error{
				"add":      func(ctx context.Context) error { _, err := db.Sums().Add(ctx, "during", time.Hour, update); return err },
				"get sums": func(ctx context.Context) error { _, err := db.Sums().Get(ctx, "k"); return err },
				"keys":     func(ctx context.Context) error { _, err := db.Sums().Keys(ctx, "", "", 1); return err },
				"get":      func(ctx context.Context) error { _, err := db.Documents().Get(ctx, "k"); return err },
				"list":     func(ctx context.Context) error { _, err := db.Documents().List(ctx, ""); return err },
				"put": func(ctx context.Context) error {
					_, err := db.Documents().Put(ctx, "during", nil, 0)
					return err
				},
				"refresh": f.Refresh,
			} {
				ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
				result := make(chan error, 1)
				go func() { result <- do(ctx) }()
				select {
				case err := <-result:
					require.ErrorIs(t, err, store.ErrUnavailable, call)
					if name == "paused" {
						require.ErrorIs(t, err, context.DeadlineExceeded, call)
					}
				case <-time.After(20 * time.Second):
					require.Fail(t, "the call does not end", call)
				}
				cancel()
			}
			outage.end()

			answers(t, db)
			require.Eventually(t, func() bool {
				_, err := db.Sums().Add(ctx, "during", time.Hour, update)
				return err == nil
			}, 20*time.Second, 10*time.Millisecond)
			got, err := db.Sums().Get(ctx, "k")
			require.NoError(t, err)
			require.Equal(t, map[string]float64{"n": 2}, got, "counted once, whether or not the lost call was done")

			// The subscription heals too: nothing but a signal makes f look again.
			other := openURL(t, server.URL()+"?namespace="+name)
			_, err = other.Documents().Put(ctx, "after", []byte("seen"), 0)
			require.NoError(t, err)
			deadline := time.After(20 * time.Second)
			for {
				s := f.Snapshot()
				if entry, _ := s.Get("after"); entry.Value == "seen" {
					break
				}
				select {
				case <-s.Replaced():
				case <-deadline:
					require.Fail(t, "the follower never heard of the change")
				}
			}
		})
	}
}

// TestDemoted: when the server becomes a replica and the address leads to another one, writes find it, although
// no connection breaks.
func TestDemoted(t *testing.T) {
	primary := storetest.StartRedis(t)
	replica := storetest.StartRedis(t, storetest.WithReplicaOf(primary))
	proxy := storetest.StartProxy(t, primary.Address())
	db := openURL(t, proxy.URL())
	add := func(ctx context.Context, identity string) error {
		_, err := db.Sums().Add(ctx, identity, time.Hour, store.Update{Key: "k", Deltas: map[string]float64{"n": 1}})
		return err
	}
	// Several connections, of all of which something has been asked.
	var calls sync.WaitGroup
	for i := range 50 {
		calls.Go(func() {
			if err := add(t.Context(), strconv.Itoa(i)); err != nil {
				t.Error(err)
			}
			if _, err := db.Sums().Get(t.Context(), "k"); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	copied := openURL(t, replica.URL())
	require.Eventually(t, func() bool {
		sums, err := copied.Sums().Get(t.Context(), "k")
		return err == nil && sums["n"] == 50
	}, 20*time.Second, 10*time.Millisecond)

	replica.Promote(primary)
	require.ErrorIs(t, add(t.Context(), "during"), store.ErrUnavailable)
	proxy.Lead(replica.Address())
	require.NoError(t, add(t.Context(), "during"))
	sums, err := copied.Sums().Get(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, map[string]float64{"n": 51}, sums)
}

// TestSentinel: when the server is gone, and Sentinel has promoted its replica, reads, writes and watches go
// there by themselves.
func TestSentinel(t *testing.T) {
	primary := storetest.StartRedis(t, storetest.WithAppendOnly())
	replica := storetest.StartRedis(t, storetest.WithAppendOnly(), storetest.WithReplicaOf(primary))
	sentinel := storetest.StartSentinel(t, primary)
	db := openURL(t, "redis://"+sentinel.Address()+"/0?master_name=primary&addr=127.0.0.1:1")
	add := func(identity string) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := db.Sums().Add(ctx, identity, time.Hour, store.Update{Key: "k", Deltas: map[string]float64{"n": 1}})
		return err
	}
	require.NoError(t, add("before"))
	signals := db.Documents().Watch(t.Context(), "")
	copied := openURL(t, replica.URL())
	require.Eventually(t, func() bool {
		sums, err := copied.Sums().Get(t.Context(), "k")
		// The Sentinel has to know the replica, too.
		return err == nil && sums["n"] == 1 && strings.Contains(sentinel.Command("SENTINEL CKQUORUM primary"), "OK") &&
			sentinel.Command("SENTINEL REPLICAS primary") == "*1"
	}, 30*time.Second, 50*time.Millisecond)

	primary.Kill()
	require.ErrorIs(t, add("during"), store.ErrUnavailable)
	require.Eventually(t, func() bool { return add("during") == nil }, 30*time.Second, 50*time.Millisecond)
	require.NoError(t, add("before"), "the identity was copied")
	sums, err := copied.Sums().Get(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, map[string]float64{"n": 2}, sums)
	drain(signals)
	require.Eventually(t, func() bool {
		_, err := copied.Documents().Put(t.Context(), fmt.Sprint(rand.Uint64()), nil, 0)
		require.NoError(t, err)
		return drain(signals)
	}, 20*time.Second, 50*time.Millisecond, "the subscription has moved, too")
}

// drain takes a signal, if there is one.
func drain(signals <-chan struct{}) bool {
	select {
	case <-signals:
		return true
	default:
		return false
	}
}

// TestOpen_serverComesLater checks that a service may start before its Redis.
func TestOpen_serverComesLater(t *testing.T) {
	server := storetest.StartRedis(t)
	server.Kill()
	db := openURL(t, server.URL())
	signals := db.Documents().Watch(t.Context(), "")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := db.Documents().Get(ctx, "k")
	require.ErrorIs(t, err, store.ErrUnavailable)
	server.Restart()
	answers(t, db)
	select {
	case <-signals:
	case <-time.After(20 * time.Second):
		require.Fail(t, "no signal when the connection was found")
	}
}

func TestOpen_refusesAddress(t *testing.T) {
	for _, address := range []string{
		"redis://user:secret@host:6379/x",
		"redis://user:se/cret@host:6379/0",
		"redis://user:secret@host:6379/0?namespace=",
		"redis://user:secret@host:6379/0?namespace=a}b",
		"redis://user:secret@host:6379/0?no_such_parameter=1",
		"http://user:secret@host",
		"redis://user:secret@host:6379/0?master_name=m&password=secret&namespace=",
		"redis://user:secret@host:6379/0?master_name=&password=secret",
		"redis://user:secret@host:6379/0?master_name=m&password=secret&no_such_parameter=1",
		"redis://user:secret@host:6379/0?master_name=m&password=secret&replica_only=true",
		"redis://user:secret@host:6379/0?master_name=m&password=secret&route_randomly=true",
	} {
		_, err := Open(address)
		require.Error(t, err, address)
		require.NotContains(t, err.Error(), "cret")
	}
}

func TestPrefixRange(t *testing.T) {
	for prefix, want := range map[string][2]string{
		"":         {"[", "+"},
		"a":        {"[a", "(b"},
		"a\xff":    {"[a\xff", "(b"},
		"\xff\xff": {"[\xff\xff", "+"},
		"a/":       {"[a/", "(a0"},
	} {
		first, last := prefixRange(prefix)
		require.Equal(t, want, [2]string{first, last})
	}
}

// TestExpired: the names of what has expired do not pile up, whether somebody adds or lists; and a life
// survives a restart.
func TestExpired(t *testing.T) {
	server := storetest.StartRedis(t, storetest.WithAppendOnly())
	db := openURL(t, server.URL())
	ctx := t.Context()
	one := map[string]float64{"n": 1}
	add := func(key string, life time.Duration) {
		t.Helper()
		_, err := db.Sums().Add(ctx, "", 0, store.Update{Key: key, Deltas: one, TTL: life})
		require.NoError(t, err)
	}
	names := func() (index, lives []string) {
		index, err := db.redis.ZRange(ctx, db.names.sumIndex, 0, -1).Result()
		require.NoError(t, err)
		lives, err = db.redis.ZRange(ctx, db.names.sumLives, 0, -1).Result()
		require.NoError(t, err)
		slices.Sort(lives)
		return index, lives
	}
	gone := func(keys int64) func() bool {
		return func() bool {
			n, err := db.redis.Exists(ctx, db.names.sums+"a", db.names.sums+"b", db.names.sums+"c").Result()
			require.NoError(t, err)
			return n == keys
		}
	}
	for _, key := range []string{"a", "b", "c", "grown", "kept"} {
		add(key, time.Millisecond)
	}
	add("grown", time.Hour)
	add("kept", 0)
	require.Eventually(t, gone(0), 20*time.Second, time.Millisecond)
	add("d", time.Hour)
	add("e", time.Hour)
	index, lives := names()
	require.Equal(t, []string{"d", "e", "grown", "kept"}, index)
	require.Equal(t, []string{"d", "e", "grown"}, lives)

	add("a", 2*time.Millisecond)
	add("b", 2*time.Millisecond)
	require.Eventually(t, gone(0), 20*time.Second, time.Millisecond)
	page, err := db.Sums().Keys(ctx, "", "", 1)
	require.NoError(t, err)
	require.Equal(t, []string{"d"}, page)
	index, lives = names()
	require.NotContains(t, index, "a")
	require.NotContains(t, lives, "b")

	server.Kill()
	server.Restart()
	answers(t, db)
	g, err := db.Sums().Group(ctx, "grown")
	require.NoError(t, err)
	require.Positive(t, g.TTL)
	require.LessOrEqual(t, g.TTL, time.Hour)
}

// BenchmarkAdd is feedback as the selector learns from it: a once identity, the
// sums of a context and those of the application.
func BenchmarkAdd(b *testing.B) {
	for _, c := range []struct {
		durable bool
		life    time.Duration
	}{{false, 0}, {true, 0}, {false, time.Hour}} {
		b.Run(fmt.Sprintf("durable=%v,life=%v", c.durable, c.life), func(b *testing.B) {
			var options []storetest.RedisOption
			if c.durable {
				options = append(options, storetest.WithAppendOnly())
			}
			db := openURL(b, storetest.StartRedis(b, options...).URL())
			var n atomic.Int64
			b.SetParallelism(128)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					i := n.Add(1)
					_, err := db.Sums().Add(b.Context(), fmt.Sprintf("%016x", rand.Uint64()), time.Hour,
						store.Update{Key: "app", Deltas: map[string]float64{"n": 1, "a": 0.5, "b": 0.25}},
						store.Update{Key: fmt.Sprintf("app/%d", i%10_000), Deltas: map[string]float64{"n": 1, "a": 0.5, "b": 0.25}, TTL: c.life})
					if err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "adds/s")
		})
	}
}

// TestTruncatedFile: a server that was killed while it wrote a transaction keeps nothing of it, also
// when it is started again and again.
func TestTruncatedFile(t *testing.T) {
	server := storetest.StartRedis(t, storetest.WithAppendOnly())
	db := openURL(t, server.URL())
	add := func(identity string) {
		t.Helper()
		one := map[string]float64{"n": 1}
		applied, err := db.Sums().Add(t.Context(), identity, time.Hour,
			store.Update{Key: "total", Deltas: one}, store.Update{Key: "one/" + identity, Deltas: one})
		require.NoError(t, err)
		require.True(t, applied)
	}
	requireKeys := func(want ...string) {
		t.Helper()
		keys, err := db.Sums().Keys(t.Context(), "one/", "", 100)
		require.NoError(t, err)
		require.Equal(t, want, keys)
		total, err := db.Sums().Get(t.Context(), "total")
		require.NoError(t, err)
		require.Equal(t, map[string]float64{"n": float64(len(want))}, total)
	}
	add("a")
	add("b")
	server.Kill()
	server.Truncate(func(file []byte) int {
		// Within the last command of the transaction: those before it are whole.
		return bytes.LastIndex(file, []byte("once:")) + 2
	})
	server.Restart()
	answers(t, db)
	add("c")
	requireKeys("one/a", "one/c")
	server.Kill()
	server.Restart()
	answers(t, db)
	requireKeys("one/a", "one/c")
}
