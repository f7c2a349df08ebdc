// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"maps"
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
	observations float64
	statistics   []float64
}

func (a *application) learned(sums map[string]float64) *learned {
	l := &learned{observations: sums[fieldObservations], statistics: make([]float64, len(a.statistics))}
	for i, field := range a.statistics {
		l.statistics[i] = sums[field]
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

// add puts in what this instance has added to the store.
func (c *stateCopy) add(deltas []float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.current.Load()
	if before == nil {
		return
	}
	after := &learned{observations: before.observations + 1, statistics: make([]float64, len(deltas))}
	for i, d := range deltas {
		after.statistics[i] = before.statistics[i] + d
	}
	c.current.Store(after)
}

// read returns the copy of a key's sums. The first reader waits for the store until the given time; nil
// means that it has not answered.
func (s *Service) read(ctx context.Context, app *application, key string, c *stateCopy, until time.Time) *learned {
	l := c.current.Load()
	tried := c.tried.Load()
	now := time.Now()
	if now.UnixNano()-tried >= int64(s.cfg.StateRefresh) && c.loading.CompareAndSwap(false, true) {
		s.load(app, key, c)
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
		sums, err := s.deps.Sums.Get(ctx, key)
		if err == nil {
			c.mu.Lock()
			c.current.Store(app.learned(sums))
			c.mu.Unlock()
		} else if s.ctx.Err() == nil {
			s.log.Debug("selection state cannot be read, going on with the last known", "application", app.name, "error", err)
		}
		c.tried.Store(time.Now().UnixNano())
		c.once.Do(func() { close(c.first) })
		c.loading.Store(false)
		<-s.loads
	})
}

// copyOf returns the local copy of a context's sums, which may be empty.
func (s *Service) copyOf(app *application, userContext string) *stateCopy {
	if userContext == "" {
		return app.shared
	}
	id := stateID{app, userContext}
	if c, ok := s.states.GetIfPresent(id); ok {
		return c
	}
	c, _ := s.states.SetIfAbsent(id, newStateCopy())
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

// derive makes a context's state of its own sums and the shared ones, either of which may be nil: the
// shared ones count as a prior of at most so many observations as the application says.
func (a *application) derive(userContext string, own, shared *learned, into *policy.State) {
	into.Priors = a.panel.Priors()
	into.Statistics = append(into.Statistics[:0], make([]float64, len(a.statistics))...)
	if own != nil {
		copy(into.Statistics, own.statistics)
	}
	if userContext == "" || shared == nil || a.proto.PriorWeight <= 0 || shared.observations <= 0 {
		return
	}
	scale := min(a.proto.PriorWeight/shared.observations, 1)
	for i, x := range shared.statistics {
		into.Statistics[i] += scale * x
	}
}

// learn adds an observation to the state of a context and to the shared one, in one step. once is as in
// [store.Sums]. It reports whether the observation counted.
func (s *Service) learn(ctx context.Context, app *application, userContext, once string, o policy.Observation) (bool, error) {
	var state policy.State
	update := func(userContext string) (store.Update, []float64, error) {
		s.state(ctx, app, userContext, s.cfg.StateWait, &state)
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
				fields[app.losses[c.Model]] = o.Losses[i]
			}
		}
		return store.Update{Key: app.stateKey(userContext), Deltas: fields}, deltas, nil
	}
	shared, sharedDeltas, err := update("")
	if err != nil {
		return false, err
	}
	updates, ownDeltas := []store.Update{shared}, []float64(nil)
	if userContext != "" {
		var own store.Update
		if own, ownDeltas, err = update(userContext); err != nil {
			return false, err
		}
		updates = append(updates, own)
	}
	applied, err := s.deps.Sums.Add(ctx, once, app.lifetime, updates...)
	if err != nil || !applied {
		return applied, err
	}
	app.shared.add(sharedDeltas)
	if userContext != "" {
		s.copyOf(app, userContext).add(ownDeltas)
	}
	return true, nil
}

// forget removes everything that an incarnation of an application has learned.
func (s *Service) forget(ctx context.Context, app *application) error {
	if err := s.deps.Sums.Delete(ctx, app.sharedKey); err != nil {
		return err
	}
	const page = 1000
	after := ""
	for {
		keys, err := s.deps.Sums.Keys(ctx, app.contextPrefix, after, page)
		if err != nil {
			return err
		}
		for _, key := range keys {
			if err := s.deps.Sums.Delete(ctx, key); err != nil {
				return err
			}
			after = key
		}
		if len(keys) < page {
			return nil
		}
	}
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
