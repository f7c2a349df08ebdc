// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"math"
	"time"

	"github.com/clipper-serving/clipper/abstraction/autoscale"
)

// Latency is Clipper's rule.
type Latency struct {
	Settings autoscale.Settings
	scaler   autoscale.Scaler
}

// Decide implements Rule.
func (r *Latency) Decide(s State) int { return r.scaler.Decide(r.Settings, s.Observed).Replicas }

// Fixed is always the same number.
type Fixed int

// Decide implements Rule.
func (r Fixed) Decide(State) int { return int(r) }

// Concurrency is the rule of the Knative pod autoscaler with its defaults: the mean number of queries in
// the system over 60 s, or over 6 s while that asks for twice the replicas that are ready, by 70 % of what
// one replica is to have at a time; decided every 2 s.
type Concurrency struct {
	// Each is what one replica is to have at a time.
	Each     float64
	Min, Max int

	history []float64 // of the concurrency, newest last
	last    time.Time
	panics  time.Time // until when
	most    int       // in this panic
}

const (
	stableWindow, panicWindow = 60 * time.Second, 6 * time.Second
	panicThreshold            = 2
	utilization               = 0.7
)

// Decide implements Rule.
func (r *Concurrency) Decide(s State) int {
	r.history = append(r.history, s.Concurrency)
	r.history = r.history[max(0, len(r.history)-int(stableWindow/tick)):]
	if s.Now.Sub(r.last) < 2*time.Second {
		return s.Replicas
	}
	r.last = s.Now
	want := func(window time.Duration) int {
		recent := r.history[max(0, len(r.history)-int(window/tick)):]
		return int(math.Ceil(mean(recent) / (utilization * r.Each)))
	}
	wanted, urgent := want(stableWindow), want(panicWindow)
	if urgent >= panicThreshold*max(s.Ready, 1) {
		r.panics = s.Now.Add(stableWindow)
	}
	if s.Now.Before(r.panics) {
		r.most = max(r.most, wanted, urgent, s.Replicas)
		wanted = r.most
	} else {
		r.most = 0
	}
	return min(max(wanted, r.Min), r.Max)
}

// Processor is the rule of Kubernetes' horizontal pod autoscaler for processors with its defaults: the
// replicas by their use relative to 70 %, averaged over 15 s and decided as often, with a tolerance of a
// tenth; and the most that was wanted in the last five minutes when it is fewer.
type Processor struct {
	Min, Max int

	busy    []float64
	wanted  []int // newest last
	decided time.Time
}

const (
	syncPeriod    = 15 * time.Second
	tolerance     = 0.1
	stabilization = 5 * time.Minute
)

// Decide implements Rule.
func (r *Processor) Decide(s State) int {
	r.busy = append(r.busy, s.Busy/float64(max(s.Ready, 1)))
	if r.decided.IsZero() {
		r.decided = s.Now
	}
	if s.Now.Sub(r.decided) < syncPeriod {
		return s.Replicas
	}
	r.decided = s.Now
	ratio := mean(r.busy) / utilization
	r.busy = r.busy[:0]
	wanted := s.Replicas
	if math.Abs(ratio-1) > tolerance {
		wanted = int(math.Ceil(float64(s.Ready) * ratio))
	}
	r.wanted = append(r.wanted, wanted)
	r.wanted = r.wanted[max(0, len(r.wanted)-int(stabilization/syncPeriod)):]
	if wanted < s.Replicas {
		for _, w := range r.wanted {
			wanted = min(max(wanted, w), s.Replicas)
		}
	}
	return min(max(wanted, r.Min), r.Max)
}

func mean(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	return sum / float64(max(len(x), 1))
}
