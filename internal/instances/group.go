// SPDX-License-Identifier: Apache-2.0

package instances

import (
	"context"
	"crypto/rand"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clipper-serving/clipper/internal/store"
)

// Group is the live instances as one of them sees them. Safe for concurrent use.
//
// What an instance does follows from who else is alive, so it must not be misled by a store that
// was away for longer than the leases last: when that is back, all leases are gone for a moment. An
// instance that misses its own lease therefore keeps what it knew until the lease is back, and for
// half a lease more, in which the others have renewed theirs.
type Group struct {
	docs     store.Documents
	key      string
	ttl      time.Duration
	log      *slog.Logger
	follower *store.Follower[Instance]
	changed  chan struct{} // what this instance says has changed

	mu   sync.Mutex
	self Instance

	members atomic.Pointer[Members]
}

// Members is the live instances at one moment. It never changes.
type Members struct {
	// Instances are sorted by address, the one that asks included. None before it is known itself.
	Instances []Instance

	replaced chan struct{}
}

// Replaced returns a channel that is closed when there is a newer view.
func (m *Members) Replaced() <-chan struct{} { return m.replaced }

// Join returns the group that the instance at the address belongs to while Run runs. The lease, ttl,
// is at least MinLease. The caller closes the group.
func Join(docs store.Documents, address string, ttl time.Duration, log *slog.Logger) *Group {
	g := &Group{
		docs:     docs,
		key:      prefix + address,
		ttl:      ttl,
		log:      log,
		follower: follow(docs, log),
		changed:  make(chan struct{}, 1),
		self:     Instance{Address: address, Run: rand.Text()},
	}
	g.members.Store(&Members{replaced: make(chan struct{})})
	return g
}

// Close stops following. The last view stays readable.
func (g *Group) Close() { g.follower.Close() }

// Address is that of this instance.
func (g *Group) Address() string { return g.self.Address }

// Members returns the live instances as they were last seen.
func (g *Group) Members() *Members { return g.members.Load() }

// Announce says how far the versions are that run here, by UID. It does not wait for the store.
func (g *Group) Announce(versions map[string]Level) {
	g.say(func(i *Instance) { i.Versions = maps.Clone(versions) })
}

// Leave says that this instance is about to stop, so that others take over what it serves.
func (g *Group) Leave() {
	g.say(func(i *Instance) { i.Leaving = true })
}

func (g *Group) say(change func(*Instance)) {
	g.mu.Lock()
	before := g.self
	change(&g.self)
	same := g.self.equal(before)
	g.mu.Unlock()
	if same {
		return
	}
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

// Run holds the lease and follows those of the others until ctx ends; then it gives the lease back.
func (g *Group) Run(ctx context.Context) error {
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	watching.Go(func() { g.watch(ctx) })
	value := func() []byte {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.self.encode()
	}
	return store.HoldLease(ctx, g.docs, g.key, value, g.changed, g.ttl, g.log)
}

func (g *Group) watch(ctx context.Context) {
	missed, warned := false, false
	var before store.Entry[Instance] // the own lease
	for {
		s := g.follower.Snapshot()
		own, found := s.Get(g.key)
		joined := len(g.members.Load().Instances) > 0
		if found && joined && own.Revision != before.Revision && own.Value.equal(before.Value) {
			missed = true // It ended, and was made again before anybody looked.
		}
		before = own
		switch {
		case !found || own.Value.Run != g.self.Run:
			missed = joined
			if found && joined && !warned {
				warned = true
				g.log.Error("another instance advertises the same address: give each one of its own", "address", g.self.Address)
			}
		case missed:
			select {
			case <-ctx.Done():
				return
			case <-time.After(g.ttl / 2):
				missed = false
			}
			continue
		default:
			g.adopt(s)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.Replaced():
		}
	}
}

func (g *Group) adopt(s *store.Snapshot[Instance]) {
	next := &Members{replaced: make(chan struct{})}
	for e := range s.All() {
		next.Instances = append(next.Instances, e.Value)
	}
	before := g.members.Load()
	if slices.EqualFunc(before.Instances, next.Instances, Instance.equal) {
		return
	}
	g.logChange(before.Instances, next.Instances)
	g.members.Store(next)
	close(before.replaced)
}

func (g *Group) logChange(before, now []Instance) {
	has := func(all []Instance, one Instance) bool {
		return slices.ContainsFunc(all, func(i Instance) bool { return i.Address == one.Address })
	}
	for _, i := range now {
		if !has(before, i) && i.Address != g.self.Address {
			g.log.Info("instance joined", "instance", i.Address)
		}
	}
	for _, i := range before {
		if !has(now, i) {
			g.log.Warn("instance is gone", "instance", i.Address)
		}
	}
}
