// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/clipper-serving/clipper/abstraction/batching"
	"github.com/clipper-serving/clipper/abstraction/metrics"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// remembered is the number of decisions that are kept of a replica.
const remembered = 20

// decision is how a batch came about.
type decision struct {
	batching.Decision
	at       int64
	slack    time.Duration
	expected time.Duration
	waiting  int
	rows     int
	shed     int
	shared   bool // the rest was left to other replicas
	full     bool // no more rows would have been allowed
	ahead    bool
}

// history is a ring of decisions.
type history struct {
	ring [remembered]decision
	n    int
}

func (h *history) add(d decision) {
	h.ring[h.n%remembered] = d
	h.n++
}

// newest returns the decisions, newest first.
func (h *history) newest() []decision {
	out := make([]decision, 0, min(h.n, remembered))
	for i := h.n - 1; i >= max(0, h.n-remembered); i-- {
		out = append(out, h.ring[i%remembered])
	}
	return out
}

// why says in words what set the size of the batch.
func (d *decision) why() string {
	var b strings.Builder
	switch {
	case d.shared:
		b.WriteString("its share of what waited: other replicas answer the rest sooner")
	case d.rows >= d.waiting:
		b.WriteString("all that waited")
	case !d.full:
		b.WriteString("as many as fit into one message and are of one kind")
	default:
		fmt.Fprintf(&b, "%s", map[batching.Reason]string{
			batching.Deadline:  "more would make the most urgent query late",
			batching.Objective: "more would take longer than the latency objective",
			batching.Probing:   "twice the largest batch seen: what more would take is not known",
			batching.Climbing:  "the size that additive increase has reached",
			batching.Maximum:   "the maximum",
		}[d.Why])
	}
	if d.shed > 0 {
		fmt.Fprintf(&b, "; overload: %d late queries were shed, which would have kept the batch below its target of %d", d.shed, d.Target)
	}
	if d.ahead {
		b.WriteString("; sent ahead to hide the way to the container")
	}
	return b.String()
}

// Status returns what waits and why it waits.
func (q *Queue) Status() *clipperv1.QueueStatus {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := &clipperv1.QueueStatus{
		Rows: uint32(len(q.items)), InFlightRows: uint32(q.inFlight), //nolint:gosec // Both are bounded.
		Delay: durationpb.New(q.delay), DrainRate: q.load.drain,
		Overloaded: q.load.overloaded && q.now()-q.load.strained <= calm*q.load.budget,
		Dropped:    map[string]uint64{},
	}
	for reason, n := range q.dropped {
		if n > 0 {
			s.Dropped[metrics.Drop(reason).String()] = n
		}
	}
	return s
}

// Replicas returns what is known of the replicas that take batches, sorted by id.
func (q *Queue) Replicas() []*clipperv1.ReplicaBatching {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make([]*clipperv1.ReplicaBatching, 0, len(q.pullers))
	for _, p := range q.pullers {
		out = append(out, p.explain())
	}
	slices.SortFunc(out, func(a, b *clipperv1.ReplicaBatching) int { return strings.Compare(a.Replica, b.Replica) })
	return out
}

// explain says what is known of the replica. The lock is held.
func (p *Puller) explain() *clipperv1.ReplicaBatching {
	m := p.limits.Model
	fixed, row := m.Line()
	learned := m.Learned()
	r := &clipperv1.ReplicaBatching{
		Replica: p.id, FixedMicros: micros(fixed), RowMicros: micros(row), HopMicros: micros(m.Hop()),
		Observations: learned.Observations,
		LargestRows:  uint32(learned.Largest), TargetRows: uint32(p.target), //nolint:gosec // Both are bounded.
		InFlightBatches: uint32(p.batches), InFlightRows: uint32(p.rows), //nolint:gosec // Both are bounded.
	}
	if p.target > 0 {
		r.TailMicros = micros(m.Tail(p.target))
	}
	for _, point := range m.Points() {
		r.Latencies = append(r.Latencies, &clipperv1.LatencyPoint{
			Rows: uint32(point.Rows), Observations: point.Weight, //nolint:gosec // Bounded.
			ObservedMicros: micros(point.Observed), ExpectedMicros: micros(point.Expected), TailMicros: micros(point.Tail),
		})
	}
	for _, d := range p.history.newest() {
		decision := &clipperv1.BatchDecision{
			Time: timestamppb.New(p.queue.epoch.Add(time.Duration(d.at))),
			Rows: uint32(d.rows), Waiting: uint32(d.waiting + d.shed), Shed: uint32(d.shed), //nolint:gosec // Bounded.
			ExpectedMicros: micros(d.expected), Ahead: d.ahead, Why: d.why(),
		}
		if d.slack != 0 {
			decision.Slack = durationpb.New(d.slack)
		}
		r.Decisions = append(r.Decisions, decision)
	}
	return r
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
