// SPDX-License-Identifier: Apache-2.0

// Package simulation runs rules for the number of replicas against the real queue, batch controllers and
// latency models, with synthetic replicas. It goes by the clock, so it is to run in virtual time
// (testing/synctest).
package simulation

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/clipper-serving/clipper/abstraction/autoscale"
	"github.com/clipper-serving/clipper/abstraction/batching"
	"github.com/clipper-serving/clipper/abstraction/metrics"
	"github.com/clipper-serving/clipper/abstraction/prediction"
	"github.com/clipper-serving/clipper/abstraction/queue"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

const (
	// noise is the standard deviation of the logarithm of a batch's time; one batch in stallEvery takes
	// stall times as long.
	noise      = 0.1
	stallEvery = 500
	stall      = 3
	// tick is the time between two decisions of a rule.
	tick = 500 * time.Millisecond
	// warmUpRows is the largest batch of a replica's warm-up.
	warmUpRows = 64
	// The phases of bursty arrivals: 1.8 and 0.2 times the rate in turn, for about so long each.
	burstHigh, burstLow, burstPhase = 1.8, 0.2, 0.1
)

// Load is what comes.
type Load struct {
	// Rate returns the queries per second at a time since the begin; Highest is the most of them.
	Rate    func(at time.Duration) float64
	Highest float64
	// Duration is how long it lasts.
	Duration time.Duration
	// Budget is the time that each query has.
	Budget time.Duration
	// Bursty is true for phases of 1.8 and 0.2 times the rate, of about 100 ms each; else arrivals are
	// independent.
	Bursty bool
	// Seed is that of the arrivals and of the replicas' noise.
	Seed uint64
}

// burstiness is the variance of the queries in a tenth of a second, relative to its mean, at a rate. That of
// phases between which the rate is modulated by a part a, whose correlation decays with a time c, is
// 1 + 2·a²·rate·c·(1 - (1-exp(-T/c))·c/T) for a time T.
func (l *Load) burstiness(rate float64) float64 {
	if !l.Bursty {
		return 1
	}
	const (
		a = (burstHigh - burstLow) / 2
		c = burstPhase / 2
		t = 0.1
	)
	return 1 + 2*a*a*rate*c*(1-(1-math.Exp(-t/c))*c/t)
}

// Replica is how long each takes: Fixed + Row·n for a batch, with some noise, and Start to be ready.
type Replica struct{ Fixed, Row, Start time.Duration }

// Rule decides how many replicas there are to be. It is asked twice a second.
type Rule interface {
	Decide(s State) int
}

// State is what a rule sees.
type State struct {
	autoscale.Observed
	// Busy is the sum, over the replicas, of the share of the time since the last decision in which they
	// computed.
	Busy float64
	// Concurrency is the mean number of queries in the system since the last decision.
	Concurrency float64
}

// Sample is the state at one moment.
type Sample struct {
	At time.Duration
	// Rate is the true one, Needed the fewest replicas for it by the true latencies.
	Rate   float64
	Needed int
	// Wanted and Ready are the replicas.
	Wanted, Ready int
}

// Outcome is what became of a run.
type Outcome struct {
	// Queries is their number, InTime the share of them that was answered within the budget.
	Queries int
	InTime  float64
	// ReplicaSeconds is the sum of the times for which replicas were started or ready.
	ReplicaSeconds float64
	// Changes is the number of changes of the number of replicas.
	Changes int
	// Samples are the states at each decision.
	Samples []Sample
}

// Follows returns the longest time after one of the given moments until there were as many ready replicas as
// needed, and at most a third more, and one. It is negative when that did not happen before the next one.
func (o *Outcome) Follows(moments ...time.Duration) time.Duration {
	longest := time.Duration(0)
	for i, from := range moments {
		at := slices.IndexFunc(o.Samples, func(s Sample) bool {
			return s.At >= from && s.Ready >= s.Needed && s.Ready <= s.Needed+1+s.Needed/3
		})
		if at < 0 || i+1 < len(moments) && o.Samples[at].At >= moments[i+1] {
			return -1
		}
		longest = max(longest, o.Samples[at].At-from)
	}
	return longest
}

// Flaps returns how often replicas were added after some had gone, although the load had not changed at
// one of the given moments between the two.
func (o *Outcome) Flaps(moments ...time.Duration) int {
	flaps, down := 0, false
	for i := 1; i < len(o.Samples); i++ {
		at, change := o.Samples[i].At, o.Samples[i].Wanted-o.Samples[i-1].Wanted
		if slices.ContainsFunc(moments, func(m time.Duration) bool { return m > o.Samples[i-1].At && m <= at }) {
			down = false
		}
		if change > 0 && down {
			flaps++
		}
		if change != 0 {
			down = change < 0
		}
	}
	return flaps
}

// Run lets a load come to replicas whose number is a rule's. It begins with some replicas that are ready.
func Run(ctx context.Context, l Load, r Replica, replicas int, rule Rule) (*Outcome, error) {
	m, err := metrics.New(prometheus.NewRegistry())
	if err != nil {
		return nil, err
	}
	s := &system{
		load: l, replica: r, rule: rule, begin: time.Now(),
		queue: queue.New(batching.DefaultMaxQueueRows, m.Version("m", "1")), random: rand.New(rand.NewPCG(l.Seed, 1)), //nolint:gosec // A simulation.
	}
	for range replicas {
		if err := s.start(ctx, 0); err != nil {
			return nil, err
		}
	}
	s.submit(ctx)
	time.Sleep(time.Second + l.Budget) // What is under way ends.
	for len(s.containers) > 0 {
		s.stop()
	}
	s.pulls.Wait()
	s.queue.Close(ctx, prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA, "the end"))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outcome.InTime = float64(s.inTime) / float64(max(s.outcome.Queries, 1))
	return &s.outcome, nil
}

// system is a queue with replicas. Its methods are called by one goroutine, but for Receive.
type system struct {
	load    Load
	replica Replica
	rule    Rule
	begin   time.Time
	queue   *queue.Queue
	random  *rand.Rand
	pulls   sync.WaitGroup

	containers []*container  // those that start included
	seen       time.Duration // the last decision
	outcome    Outcome
	prior      batching.Learned

	mu       sync.Mutex
	due      []time.Duration // when each query came
	inTime   int
	open     int           // queries in the system
	area     float64       // the integral of open
	areaFrom time.Duration // until when
}

// submit lets the queries come, and asks the rule twice a second.
func (s *system) submit(ctx context.Context) {
	in := tensor.FromTensors([]*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_BOOL, Data: []byte{1}}})
	next, phase, high := tick, 0.0, false
	for at := time.Duration(0); ; {
		factor := 1.0
		if s.load.Bursty {
			if at.Seconds() >= phase {
				high, phase = !high, at.Seconds()+burstPhase*s.random.ExpFloat64()
			}
			if factor = burstLow; high {
				factor = burstHigh
			}
		}
		// Arrivals of the highest rate are thinned out (Lewis and Shedler, 1979).
		highest := s.load.Highest * burstHigh
		at += time.Duration(s.random.ExpFloat64() / highest * float64(time.Second))
		for ; next <= min(at, s.load.Duration); next += tick {
			time.Sleep(time.Until(s.begin.Add(next)))
			s.decide(ctx, next)
		}
		if at >= s.load.Duration {
			return
		}
		if s.random.Float64()*highest >= factor*s.load.Rate(at) {
			continue
		}
		due := s.begin.Add(at)
		time.Sleep(time.Until(due))
		s.mu.Lock()
		s.count(1)
		s.due = append(s.due, at)
		s.mu.Unlock()
		s.queue.Submit(&prediction.Request{Context: ctx, Input: in, Deadline: due.Add(s.load.Budget), Receiver: s, Tag: s.outcome.Queries})
		s.outcome.Queries++
	}
}

// count adds to the queries in the system. The lock is held.
func (s *system) count(n int) {
	now := time.Since(s.begin)
	s.area += float64(s.open) * (now - s.areaFrom).Seconds()
	s.areaFrom = now
	s.open += n
}

// Receive implements prediction.Receiver.
func (s *system) Receive(tag int, r prediction.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(-1)
	if r.Err == nil && time.Since(s.begin)-s.due[tag] <= s.load.Budget {
		s.inTime++
	}
}

// decide asks the rule and follows it.
func (s *system) decide(ctx context.Context, at time.Duration) {
	state := State{Observed: autoscale.Observed{
		Now: time.Now(), Demand: s.queue.Demand(), Replicas: len(s.containers), Start: s.replica.Start,
	}}
	learned := batching.Learned{}
	for _, c := range s.containers {
		if c.isReady() {
			state.Ready++
			learned.Merge(c.model.Learned())
		}
		state.Busy += c.takeBusy().Seconds() / (at - s.seen).Seconds()
	}
	if learned.Observations > 0 {
		s.prior = learned
	}
	state.Starting = state.Replicas - state.Ready
	model, budget := batching.NewModel(s.prior), state.Demand.Budget()
	state.Plan = func(k int) autoscale.Batch {
		rows, mean := batching.Plan(nil, 0, model, budget, k)
		return autoscale.Batch{Rows: rows, Time: mean}
	}
	s.mu.Lock()
	s.count(0)
	state.Concurrency, s.area = s.area/(at-s.seen).Seconds(), 0
	s.mu.Unlock()

	before := len(s.containers)
	wanted := s.rule.Decide(state)
	if wanted != before {
		s.outcome.Changes++
	}
	s.outcome.ReplicaSeconds += float64(before) * (at - s.seen).Seconds()
	s.seen = at
	for len(s.containers) < wanted {
		if err := s.start(ctx, s.replica.Start); err != nil {
			panic(err) // The policy exists.
		}
	}
	for len(s.containers) > wanted {
		s.stop()
	}
	rate := s.load.Rate(at)
	s.outcome.Samples = append(s.outcome.Samples, Sample{
		At: at, Rate: rate, Needed: s.needed(rate), Wanted: wanted, Ready: state.Ready,
	})
}

// needed is how many replicas a rate needs, by the true latencies without their noise.
func (s *system) needed(rate float64) int {
	l := autoscale.Load{Rate: rate, Burstiness: s.load.burstiness(rate)}
	return l.Need(func(k int) autoscale.Batch {
		longest := s.load.Budget.Seconds() * float64(k) / float64(k+1) / (1 + 2.33*noise)
		n := max(1, int((longest-s.replica.Fixed.Seconds())/s.replica.Row.Seconds()))
		return autoscale.Batch{Rows: n, Time: s.replica.Fixed + time.Duration(n)*s.replica.Row}
	}, 1)
}

// start adds a replica that is ready after a while.
func (s *system) start(ctx context.Context, after time.Duration) error {
	c := &container{system: s, model: batching.NewModel(s.prior), random: rand.New(rand.NewPCG(s.load.Seed, s.random.Uint64()))} //nolint:gosec // A simulation.
	var err error
	if c.controller, err = batching.New(nil, 0, c.model); err != nil {
		return err
	}
	s.containers = append(s.containers, c)
	running, cancel := context.WithCancel(ctx)
	c.cancel = cancel
	s.pulls.Go(func() {
		select {
		case <-time.After(after):
		case <-running.Done():
			return
		}
		c.pull(running)
	})
	return nil
}

// stop lets the last replica go; it ends what it has.
func (s *system) stop() {
	last := len(s.containers) - 1
	s.containers[last].cancel()
	s.containers = slices.Delete(s.containers, last, last+1)
}

// container is a replica that answers batches one after the other.
type container struct {
	*system
	puller     *queue.Puller
	controller batching.Controller
	model      *batching.Model
	random     *rand.Rand
	cancel     context.CancelFunc

	lock       sync.Mutex
	ready      bool
	free       time.Time // when it has done what it has
	lastAnswer time.Time
	busy       time.Duration // since it was asked for last
}

func (c *container) isReady() bool {
	c.lock.Lock()
	defer c.lock.Unlock()
	return c.ready
}

// takeBusy returns for how long it has computed since it was last called, what it has begun included.
func (c *container) takeBusy() time.Duration {
	c.lock.Lock()
	defer c.lock.Unlock()
	busy := c.busy
	c.busy = 0
	return busy
}

// pull warms the replica up, as part of its start, and takes batches until ctx ends.
func (c *container) pull(ctx context.Context) {
	for rows := 1; rows <= warmUpRows; rows *= 2 {
		o := batching.Observation{Rows: rows, Latency: c.takes(rows)}
		c.model.Observe(o)
		c.controller.Observe(o)
	}
	c.puller = c.queue.NewPuller(fmt.Sprint(c.random.Uint64()), queue.Limits{
		Controller: c.controller, Model: c.model, Bytes: 1 << 30, InFlight: batching.DefaultMaxInFlight,
	}, func(items *[]queue.Item) { c.work(slices.Clone(*items)) })
	c.lock.Lock()
	c.ready = true
	c.lock.Unlock()
	for {
		items, err := c.puller.Pull(ctx, nil)
		if err != nil {
			return
		}
		c.work(items)
	}
}

// takes returns how long a batch takes.
func (c *container) takes(rows int) time.Duration {
	t := (c.replica.Fixed + time.Duration(rows)*c.replica.Row).Seconds() * math.Exp(noise*c.random.NormFloat64()-noise*noise/2)
	if c.random.IntN(stallEvery) == 0 {
		t *= stall
	}
	return time.Duration(t * float64(time.Second))
}

func (c *container) work(items []queue.Item) {
	c.lock.Lock()
	defer c.lock.Unlock()
	took := c.takes(len(items))
	sent := time.Now()
	begin := sent
	if c.free.After(begin) {
		begin = c.free
	}
	c.free = begin.Add(took)
	c.busy += took
	time.AfterFunc(time.Until(c.free), func() { c.answer(items, sent) })
}

func (c *container) answer(items []queue.Item, sent time.Time) {
	c.lock.Lock()
	now, from := time.Now(), sent
	if c.lastAnswer.After(from) {
		from = c.lastAnswer
	}
	c.lastAnswer = now
	c.lock.Unlock()
	for _, it := range items {
		it.Request.Reply(prediction.Result{})
	}
	o := batching.Observation{Rows: len(items), Latency: now.Sub(from)}
	c.model.Observe(o)
	c.controller.Observe(o)
	if next := c.puller.Done(len(items)); next != nil {
		c.work(slices.Clone(*next))
	}
}
