// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/selector/policy"
)

// stateID names a context's state in memory. A change of the application makes new ones, since the
// rows of the state are its models.
type stateID struct {
	app     *application
	context string
}

// learned is the sums of one key as the policy's matrix. Immutable.
type learned struct {
	policy.Sums
	expires time.Time // zero for what stays
}

// sums are those of l, or nil.
func (l *learned) sums() *policy.Sums {
	if l == nil {
		return nil
	}
	return &l.Sums
}

// live returns l, or nil when it has expired.
func (l *learned) live(now time.Time) *learned {
	if l == nil || !l.expires.IsZero() && !now.Before(l.expires) {
		return nil
	}
	return l
}

func (a *application) learned(sums map[string]float64) *learned {
	l := &learned{Sums: policy.Sums{Observations: sums[fieldObservations], Statistics: make([]float64, len(a.statistics))}}
	for i, field := range a.statistics {
		l.Statistics[i] = sums[field]
	}
	return l
}

// stateCopy is the local copy of one key. It is read again in the background when it is used and
// old, and own additions are put in at once. An addition that is made while it is read may be seen
// once too often or too late, until it is read the next time.
type stateCopy struct {
	current atomic.Pointer[learned]
	tried   atomic.Int64 // when it was last read or could not be, in nanoseconds since 1970
	loading atomic.Bool
	first   chan struct{} // closed after the first attempt
	once    sync.Once
	mu      sync.Mutex // held by who replaces current
}

func newStateCopy() *stateCopy { return &stateCopy{first: make(chan struct{})} }

// ended says whether what was read last has expired since.
func (c *stateCopy) ended() bool {
	l := c.current.Load()
	return l != nil && !l.expires.IsZero() && l.live(time.Now()) == nil
}

// add puts in what this instance has added to the store, to be kept for the given time or, when it is 0,
// for ever.
func (c *stateCopy) add(deltas []float64, lifetime time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.current.Load()
	if before == nil {
		return
	}
	after := &learned{Sums: policy.Sums{Observations: 1, Statistics: slices.Clone(deltas)}}
	now := time.Now()
	if before.live(now) != nil {
		after.Observations += before.Observations
		for i, x := range before.Statistics {
			after.Statistics[i] += x
		}
	}
	if lifetime > 0 {
		after.expires = now.Add(lifetime)
	}
	c.current.Store(after)
}

// forget empties the copy, and has it read again when it is next used.
func (c *stateCopy) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if before := c.current.Load(); before != nil {
		c.current.Store(&learned{Sums: policy.Sums{Statistics: make([]float64, len(before.Statistics))}})
	}
	c.tried.Store(0)
}

// read returns the copy of a key's sums. The first reader waits for the store until the given time; nil
// means that it has not answered, or that they have expired.
func (s *Service) read(ctx context.Context, app *application, key string, c *stateCopy, until time.Time) *learned {
	now := time.Now()
	l := c.current.Load().live(now)
	tried := c.tried.Load()
	if now.UnixNano()-tried >= int64(s.cfg.StateRefresh) && c.loading.CompareAndSwap(false, true) {
		s.load(app, key, c)
	}
	if l == nil && s.outage.known() {
		return s.buffer.learned(app, key) // Nobody waits for a store that is away.
	}
	if l != nil || tried != 0 {
		return l // After a failure nobody waits; the next try is due after the refresh time.
	}
	timer := time.NewTimer(until.Sub(now))
	defer timer.Stop()
	select {
	case <-c.first:
	case <-timer.C:
	case <-ctx.Done():
	}
	return c.current.Load()
}

// load reads the sums in the background. The caller has set c.loading.
func (s *Service) load(app *application, key string, c *stateCopy) {
	select {
	case s.loads <- struct{}{}:
	default: // The store is slow: those that are waiting go first.
		c.loading.Store(false)
		return
	}
	if s.ctx.Err() != nil {
		<-s.loads
		c.loading.Store(false)
		return
	}
	s.background.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, storeTimeout)
		defer cancel()
		read, err := s.readState(ctx, app, key)
		if err == nil {
			c.mu.Lock()
			c.current.Store(read)
			c.mu.Unlock()
		} else if s.ctx.Err() == nil {
			s.missed(storeTimeout, err)
			s.log.Debug("selection state cannot be read, going on with the last known", "application", app.name, "error", err)
		}
		c.tried.Store(time.Now().UnixNano())
		c.once.Do(func() { close(c.first) })
		c.loading.Store(false)
		<-s.loads
	})
}

// readState reads the sums of one key from the store, with their life if they may have one.
func (s *Service) readState(ctx context.Context, app *application, key string) (*learned, error) {
	if app.contextLifetime == 0 || key == app.sharedKey {
		sums, err := s.deps.Sums.Get(ctx, key)
		if err != nil {
			return nil, err
		}
		s.buffer.addTo(key, sums)
		return app.learned(sums), nil
	}
	group, err := s.deps.Sums.Group(ctx, key)
	if err != nil {
		return nil, err
	}
	s.buffer.addTo(key, group.Sums)
	read := app.learned(group.Sums)
	if group.TTL > 0 {
		read.expires = time.Now().Add(group.TTL)
	}
	return read, nil
}

// copyOf returns the local copy of a context's sums, which may be empty.
func (s *Service) copyOf(app *application, userContext string) *stateCopy {
	if userContext == "" {
		return app.shared
	}
	id := stateID{app, userContext}
	c, ok := s.states.GetIfPresent(id)
	switch {
	case !ok:
		c, _ = s.states.SetIfAbsent(id, newStateCopy())
	case c.ended():
		// Another instance may have learned since, and with that made its life longer: it is read as if
		// for the first time.
		c = newStateCopy()
		s.states.Set(id, c)
	}
	return c
}

// state fills in the state of a context from the local copies, waiting at most wait for those that
// are not there.
func (s *Service) state(ctx context.Context, app *application, userContext string, wait time.Duration, into *policy.State) {
	until := time.Now().Add(wait)
	shared := s.read(ctx, app, app.sharedKey, app.shared, until)
	own := shared
	if userContext != "" {
		own = s.read(ctx, app, app.stateKey(userContext), s.copyOf(app, userContext), until)
	}
	app.derive(userContext, own, shared, into)
}

// sums fills in a state of the sums of a context alone, as state does.
func (s *Service) sums(ctx context.Context, app *application, userContext string, wait time.Duration, into *policy.State) {
	own := s.read(ctx, app, app.stateKey(userContext), s.copyOf(app, userContext), time.Now().Add(wait))
	app.derive("", own, nil, into)
}

// derive makes a context's state of its own sums and the shared ones, either of which may be nil.
func (a *application) derive(userContext string, own, shared *learned, into *policy.State) {
	if userContext == "" {
		shared = nil
	}
	a.panel.Derive(own.sums(), shared.sums(), a.proto.PriorWeight, into)
}

// learn adds an observation to the state of a context and to the shared one, in one step. once is as in
// [lesson], and so is more, which counts together with it. It reports whether the observation counted, or will.
func (s *Service) learn(ctx context.Context, app *application, userContext string, once identity, o policy.Observation, more ...store.Update) (outcome, error) {
	var state policy.State
	update := func(userContext string) (store.Update, []float64, error) {
		// What is added depends on what it is added to, and not on the prior, which fades.
		s.sums(ctx, app, userContext, s.cfg.StateWait, &state)
		deltas := make([]float64, len(app.statistics))
		if err := app.observe(ctx, &state, o, deltas); err != nil {
			return store.Update{}, nil, err
		}
		fields := make(map[string]float64, len(deltas)+2*len(o.Choices)+1)
		for i, d := range deltas {
			if d != 0 {
				fields[app.statistics[i]] = d
			}
		}
		fields[fieldObservations] = 1
		for i, c := range o.Choices {
			if o.Losses[i] >= 0 {
				fields[app.counts[c.Model]] = 1
				if o.Losses[i] > 0 { // What is not there counts as 0.
					fields[app.losses[c.Model]] = o.Losses[i]
				}
			}
		}
		u := store.Update{Key: app.stateKey(userContext), Deltas: fields}
		if userContext != "" {
			u.TTL = app.contextLifetime
		}
		return u, deltas, nil
	}
	shared, sharedDeltas, err := update("")
	if err != nil {
		return 0, err
	}
	updates, ownDeltas := []store.Update{shared}, []float64(nil)
	if userContext != "" {
		var own store.Update
		if own, ownDeltas, err = update(userContext); err != nil {
			return 0, err
		}
		updates = append(updates, own)
	}
	updates = append(updates, more...)
	done, err := s.store(ctx, app, once, updates)
	if err != nil || done == repeated {
		return done, err
	}
	app.shared.add(sharedDeltas, 0)
	if userContext != "" {
		s.copyOf(app, userContext).add(ownDeltas, app.contextLifetime)
	}
	return done, nil
}

// modelStatistics returns the sums of one model by statistic.
func (a *application) modelStatistics(model int, state *policy.State, sums map[string]float64) map[string]float64 {
	names := a.policy.Statistics()
	statistics := make(map[string]float64, len(names)+2)
	for i, name := range names {
		statistics[name] = state.Statistics[model*len(names)+i]
	}
	maps.Copy(statistics, map[string]float64{statisticCount: sums[a.counts[model]], statisticLoss: sums[a.losses[model]]})
	return statistics
}
