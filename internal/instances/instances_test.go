// SPDX-License-Identifier: Apache-2.0

package instances

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/internal/store"
)

const lease = 3 * time.Second

// memory is a store of leases.
type memory struct {
	store.Documents

	mu       sync.Mutex
	away     bool
	last     store.Revision
	docs     map[string]store.Document
	ends     map[string]time.Time
	watchers []chan struct{}
}

func newMemory() *memory {
	return &memory{docs: map[string]store.Document{}, ends: map[string]time.Time{}}
}

func (m *memory) expire() {
	for key, end := range m.ends {
		if !time.Now().Before(end) {
			delete(m.docs, key)
			delete(m.ends, key)
		}
	}
}

func (m *memory) signal() {
	for _, w := range m.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

func (m *memory) PutLease(_ context.Context, key string, value []byte, ttl time.Duration) (store.Revision, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire()
	if m.away {
		return 0, store.ErrUnavailable
	}
	d, found := m.docs[key]
	m.ends[key] = time.Now().Add(ttl)
	if !found || !bytes.Equal(d.Value, value) {
		m.last++
		m.docs[key] = store.Document{Key: key, Value: value, Revision: m.last}
		m.signal()
	}
	return m.docs[key].Revision, nil
}

func (m *memory) Delete(_ context.Context, key string, expect store.Revision) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire()
	d, found := m.docs[key]
	switch {
	case m.away:
		return store.ErrUnavailable
	case !found:
		return store.ErrNotFound
	case d.Revision != expect:
		return store.ErrConflict
	}
	delete(m.docs, key)
	delete(m.ends, key)
	m.signal()
	return nil
}

func (m *memory) List(context.Context, string) ([]store.Document, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire()
	if m.away {
		return nil, store.ErrUnavailable
	}
	var all []store.Document
	for key, d := range m.docs {
		d.TTL = time.Until(m.ends[key])
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b store.Document) int { return bytes.Compare([]byte(a.Key), []byte(b.Key)) })
	return all, nil
}

func (m *memory) Watch(context.Context, string) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := make(chan struct{}, 1)
	m.watchers = append(m.watchers, w)
	return w
}

func (m *memory) setAway(away bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = away
	m.signal()
}

// member is a group that runs.
type member struct {
	*Group
	log  bytes.Buffer
	stop func()                             // gives the lease back
	seen func() (addresses []string, n int) // the live instances, and how often they changed
}

func join(t *testing.T, m *memory, address string) *member {
	j := &member{}
	j.Group = Join(m, address, lease, slog.New(slog.NewTextHandler(&j.log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = j.Run(ctx) })
	var mu sync.Mutex
	changes := 0
	running.Go(func() {
		for {
			select {
			case <-j.Members().Replaced():
				mu.Lock()
				changes++
				mu.Unlock()
			case <-ctx.Done():
				return
			}
		}
	})
	j.seen = func() ([]string, int) {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		var all []string
		for _, i := range j.Members().Instances {
			all = append(all, i.Address)
		}
		return all, changes
	}
	j.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		j.Close()
	})
	t.Cleanup(j.stop)
	return j
}

func (j *member) requireSees(t *testing.T, addresses ...string) {
	t.Helper()
	seen, _ := j.seen()
	require.Equal(t, addresses, seen)
}

func TestGroup_comeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		a := join(t, m, "a:1")
		a.requireSees(t, "a:1")
		b := join(t, m, "b:1")
		for _, j := range []*member{a, b} {
			j.requireSees(t, "a:1", "b:1")
		}
		b.Announce(map[string]Level{"uid": Serving})
		b.Leave()
		a.seen()
		require.Equal(t, map[string]Level{"uid": Serving}, a.Members().Instances[1].Versions)
		require.True(t, a.Members().Instances[1].Leaving)
		_, before := a.seen()
		time.Sleep(time.Hour)
		_, after := a.seen()
		require.Equal(t, before, after, "a renewal is no change")
		b.stop()
		a.requireSees(t, "a:1")
		a.stop()
		require.Empty(t, m.docs)
	})
}

func TestGroup_missesOneThatDied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		a := join(t, m, "a:1")
		_, err := m.PutLease(t.Context(), prefix+"dead:1", Instance{Run: "x"}.encode(), lease)
		require.NoError(t, err)
		a.requireSees(t, "a:1", "dead:1")
		time.Sleep(lease - time.Millisecond)
		a.requireSees(t, "a:1", "dead:1")
		time.Sleep(20 * time.Millisecond)
		a.requireSees(t, "a:1")
	})
}

// The leases end while the store is away. When it is back, the first to renew must not take over
// everything.
func TestGroup_outlivesAStoreThatWasAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		a := join(t, m, "a:1")
		time.Sleep(lease / 6) // So that they do not renew together.
		b := join(t, m, "b:1")
		b.requireSees(t, "a:1", "b:1")
		_, before := a.seen()
		m.setAway(true)
		time.Sleep(time.Minute)
		m.setAway(false)
		time.Sleep(time.Minute)
		for _, j := range []*member{a, b} {
			seen, _ := j.seen()
			require.Equal(t, []string{"a:1", "b:1"}, seen)
		}
		_, after := a.seen()
		require.Equal(t, before, after, "nobody was missed")
	})
}

func TestGroup_waitsForOthersWhenItsLeaseWasMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		a := join(t, m, "a:1")
		b := join(t, m, "b:1")
		_, before := a.seen()
		b.seen()
		m.mu.Lock()
		delete(m.docs, prefix+"b:1")
		own := m.docs[prefix+"a:1"]
		m.last++
		own.Revision = m.last
		m.docs[own.Key] = own
		m.signal()
		m.mu.Unlock()
		seen, after := a.seen()
		require.Equal(t, []string{"a:1", "b:1"}, seen)
		time.Sleep(time.Minute)
		a.requireSees(t, "a:1", "b:1")
		require.Equal(t, before, after)
	})
}

func TestGroup_sameAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		a := join(t, m, "a:1")
		a.requireSees(t, "a:1")
		twin := join(t, m, "a:1")
		time.Sleep(10 * lease)
		twin.seen()
		a.stop()
		twin.stop()
		require.Contains(t, a.log.String()+twin.log.String(), "advertises the same address")
	})
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		var told [][]string
		var watching sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		watching.Go(func() {
			require.NoError(t, Watch(ctx, m, slog.New(slog.DiscardHandler), func(a []string) { told = append(told, a) }))
		})
		synctest.Wait()
		a := join(t, m, "a:1")
		synctest.Wait()
		b := join(t, m, "b:1")
		synctest.Wait()
		a.stop()
		synctest.Wait()
		b.stop()
		synctest.Wait()
		cancel()
		watching.Wait()
		require.Equal(t, [][]string{{"a:1"}, {"a:1", "b:1"}, {"b:1"}}, told, "the last one may be reached still")
	})
}
