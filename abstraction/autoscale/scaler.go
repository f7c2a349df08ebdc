// SPDX-License-Identifier: Apache-2.0

// Package autoscale decides how many replicas a model version is to have: as many as answer what comes
// within the time that queries have, by what was learned of how long a replica takes. The use of
// processors does not matter to it.
//
// Everything here is computation: what is observed goes in, a number and its reasons come out.
package autoscale

import (
	"fmt"
	"math"
	"time"
)

const (
	// DefaultTargetLoad is the share of what the replicas can answer that the load may be.
	DefaultTargetLoad = 0.85
	// DefaultIdleTimeout is how long nobody must have asked before the last replica goes.
	DefaultIdleTimeout = 5 * time.Minute

	// Some replicas go only when fewer are enough for a load that is larger by the part hysteresis, and by
	// so many standard deviations of what is measured: what was just let go is not to be missed by chance.
	hysteresis = 0.15
	doubts     = 3
	// drainTime is the time in which what waits is to be worked off beside what comes.
	drainTime = 10 * time.Second
	// The delay before replicas go is so many times as long as one takes to start, within bounds: what is
	// quickly there again need not be kept for long.
	starts = 2
	// The delay is doubled, up to a factor, when what had gone was missed within so many delays, and is as it
	// was when that has not happened for so many.
	soon, forgiven, mostPatience = 4, 40, 8
	shortest, longest            = 5 * time.Second, 5 * time.Minute
)

// Settings are the bounds and the damping.
type Settings struct {
	// Min and Max are the bounds, 0 ≤ Min ≤ Max. With Max 0 nothing is scaled, and what would be needed
	// is still said.
	Min, Max int
	// TargetLoad is the share of what the replicas can answer that the load may be, above 0 and at most
	// 1; 0 is DefaultTargetLoad.
	TargetLoad float64
	// DownDelay is how long fewer replicas must have been enough before some go; 0: twice as long as one
	// takes to start, from 5 s to 5 min.
	DownDelay time.Duration
	// IdleTimeout is how long nobody must have asked before the last replica goes when Min is 0; 0 is
	// DefaultIdleTimeout.
	IdleTimeout time.Duration
}

func (s Settings) target() float64 {
	if s.TargetLoad > 0 {
		return s.TargetLoad
	}
	return DefaultTargetLoad
}

func (s Settings) idleTimeout() time.Duration {
	if s.IdleTimeout > 0 {
		return s.IdleTimeout
	}
	return DefaultIdleTimeout
}

// Delay returns how long fewer replicas must have been enough, when one takes so long to start.
func (s Settings) Delay(start time.Duration) time.Duration {
	if s.DownDelay > 0 {
		return s.DownDelay
	}
	return min(max(starts*start.Round(time.Second/10), shortest), longest)
}

// Observed is what is known when a decision is made.
type Observed struct {
	// Now is the time; it never runs back.
	Now time.Time
	// Demand is what comes, at all instances together.
	Demand Demand
	// Plan is what replicas can do. It returns the zero Batch while nothing is known.
	Plan Plan
	// Replicas is the number that is wanted now, Ready that which can serve, Starting that which cannot
	// yet and has not failed.
	Replicas, Ready, Starting int
	// Failing says why a replica cannot be started; empty when each can.
	Failing string
	// Start is how long a replica takes to start; 0 when that is not known.
	Start time.Duration
	// Keep is true when the last replica must not go, whatever comes.
	Keep bool
}

// Decision is how many replicas are to be there, and why.
type Decision struct {
	// Replicas is the number that is wanted from now on.
	Replicas int
	// Needed is the fewest that meet the objective now, whatever the bounds; 0 when nothing comes or
	// nothing is known.
	Needed int
	// Load is what was counted on.
	Load Load
	// Batch is what each of the needed replicas is to do; zero when nothing is known.
	Batch Batch
	// Ratio is the load relative to what the replicas that are ready can take; above 1 more are needed.
	// Of none, it is as if there were one.
	Ratio float64
	// Why says why there are so many, Held what keeps the number from being another one; in words, for
	// people.
	Why, Held string
}

// Scaler decides for one version. It remembers what was needed before. Not safe for concurrent use. The
// zero value has seen nothing.
type Scaler struct {
	needs []need    // within the delay: each is the most from its time on
	began time.Time // when it was asked first
	grown time.Time // when it last wanted more than there were; at first, when it was asked first

	shrunk time.Time // when it last let some go
	before int       // how many there were
	// When and how many were wanted when some that had gone were last missed soon, and by how many times
	// longer than the delay replicas are kept since then; 0 is 1.
	regret   time.Time
	missed   int
	patience int
}

// need is how many replicas were needed at a time, with some reserve.
type need struct {
	at       time.Time
	replicas int
}

// Decide returns how many replicas there are to be now. It is to be asked a few times per second at
// most, and at once when a query waits and there is no replica.
func (s *Scaler) Decide(settings Settings, o Observed) Decision {
	if s.began.IsZero() {
		s.began, s.grown = o.Now, o.Now
	}
	d := Decision{Replicas: o.Replicas}
	d.Load = Load{Rate: o.Demand.Rate, Burstiness: o.Demand.Burstiness}
	load := d.Load
	load.Rate += float64(o.Demand.Waiting) / drainTime.Seconds()
	target := settings.target()
	d.Needed = load.Need(o.Plan, target)
	d.Batch = o.Plan(max(d.Needed, 1))
	k := max(o.Ready, 1)
	d.Ratio = load.Ratio(k, o.Plan(k), target)

	reserved := load
	reserved.Rate += hysteresis*load.Rate + doubts*math.Sqrt(load.Burstiness*load.Rate/window.Seconds())
	delay := s.delay(settings, o, d.Needed)
	fewest := s.remember(o, reserved.Need(o.Plan, target), delay)
	s.choose(settings, o, fewest, delay, &d)
	return d
}

// remember notes what is needed now and returns the most that was needed within the delay.
func (s *Scaler) remember(o Observed, replicas int, delay time.Duration) int {
	for len(s.needs) > 0 && s.needs[len(s.needs)-1].replicas <= replicas {
		s.needs = s.needs[:len(s.needs)-1] // Never the most again.
	}
	s.needs = append(s.needs, need{o.Now, replicas})
	for s.needs[0].at.Before(o.Now.Add(-delay)) {
		s.needs = s.needs[1:]
	}
	return s.needs[0].replicas
}

// delay returns how long fewer replicas must have been enough now: longer when some were missed soon after
// they had gone, until that has not happened for a while, or the load is quite another one.
func (s *Scaler) delay(settings Settings, o Observed, needed int) time.Duration {
	delay := settings.Delay(o.Start)
	if s.patience > 1 && (o.Now.Sub(s.regret) > forgiven*delay || needed > 2*s.missed || 2*needed < s.missed) {
		s.patience = 1
	}
	return time.Duration(max(s.patience, 1)) * delay
}

// grow notes that more are wanted than there are. When no more than there were, it was chance that let some
// go, or a load that comes and goes.
func (s *Scaler) grow(settings Settings, o Observed, wanted int) {
	s.grown = o.Now
	if wanted <= s.before && o.Now.Sub(s.shrunk) < soon*settings.Delay(o.Start) {
		s.regret, s.missed, s.patience = o.Now, wanted, min(2*max(s.patience, 1), mostPatience)
	}
}

// choose decides. fewest is what was needed at most within the delay.
func (s *Scaler) choose(settings Settings, o Observed, fewest int, delay time.Duration, d *Decision) {
	d.Why = why(o, d)
	if settings.Max == 0 {
		return
	}
	lowest := settings.Min
	if lowest == 0 && s.busy(settings, o) {
		lowest = 1
	}
	wanted := max(d.Needed, lowest)
	if d.Load.Rate > 0 && d.Batch.Rate() == 0 {
		wanted = max(wanted, o.Replicas)
	}
	switch {
	case wanted > settings.Max:
		d.Held = fmt.Sprintf("%d replicas are needed and %d is the maximum: what is too much is refused", wanted, settings.Max)
		wanted = settings.Max
	case d.Needed < settings.Min:
		d.Held = fmt.Sprintf("%d is the minimum", settings.Min)
	}
	have := min(o.Replicas, settings.Max) // The bounds may have changed.
	switch {
	case wanted == 0:
		d.Held = ""
		d.Why = fmt.Sprintf("nobody has asked for %v; the next query starts a replica", settings.idleTimeout())
	case wanted > have && have >= lowest && o.Failing != "":
		d.Held = fmt.Sprintf("%d replicas are wanted; no more are tried while one cannot be started: %s", wanted, o.Failing)
		wanted = have
	case wanted > have:
		s.grow(settings, o, wanted)
	case wanted < have && o.Starting > 0 && o.Failing == "":
		d.Held = "fewer would do; none goes while one is being started"
		wanted = have
	case wanted < have:
		if wanted = min(max(wanted, fewest), have); o.Now.Sub(s.grown) < delay {
			wanted = have
		}
		if wanted == have {
			d.Held = fmt.Sprintf("fewer would do; some go when fewer have been enough for %v, for somewhat more load too", delay)
			break
		}
		s.shrunk, s.before = o.Now, have
		d.Why = fmt.Sprintf("fewer have been enough for %v; %s", delay, d.Why)
	}
	d.Replicas = wanted
}

// busy reports whether a version that may have no replica is to have one.
func (s *Scaler) busy(settings Settings, o Observed) bool {
	idle := o.Demand.Idle
	if idle < 0 { // Nobody has asked: it gets as long as after a query.
		idle = o.Now.Sub(s.began)
		return o.Keep || o.Replicas > 0 && idle < settings.idleTimeout()
	}
	return o.Keep || o.Demand.Waiting > 0 || idle < settings.idleTimeout()
}

// why says what the number follows from.
func why(o Observed, d *Decision) string {
	switch {
	case d.Load.Rate == 0 && o.Demand.Waiting == 0:
		return "nothing comes"
	case d.Batch.Rate() == 0 && o.Ready == 0:
		return "a query waits, and how long a replica takes is not known yet"
	case d.Batch.Rate() == 0:
		return "how long a replica takes is not known yet"
	}
	waiting := ""
	if o.Demand.Waiting > 0 {
		waiting = fmt.Sprintf(", and %d that wait,", o.Demand.Waiting)
	}
	return fmt.Sprintf("%.4g rows/s%s need %d: each answers %.4g rows/s in batches of %d, and a margin is kept for bursts",
		d.Load.Rate, waiting, d.Needed, d.Batch.Rate(), d.Batch.Rows)
}
