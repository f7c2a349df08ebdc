// SPDX-License-Identifier: Apache-2.0

package queue_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/clipper-serving/clipper/abstraction/batching"
	"github.com/clipper-serving/clipper/abstraction/prediction"
	"github.com/clipper-serving/clipper/abstraction/queue"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// profile is how long a container takes: fixed + perRow·rows, with noise of 10 % (lognormal) and, one
// time in 500, three times as long.
type profile struct {
	name          string
	fixed, perRow time.Duration
}

// profiles are the six containers of Crankshaw et al., "Clipper", NSDI 2017, Fig. 3, about as fitted
// there.
var profiles = []profile{
	{"no-op", 1500 * time.Microsecond, 15 * time.Microsecond},
	{"linear SVM", 1000 * time.Microsecond, 20 * time.Microsecond},
	{"logistic regression", 2500 * time.Microsecond, 18 * time.Microsecond},
	{"linear SVM in Spark", 1500 * time.Microsecond, 32 * time.Microsecond},
	{"random forest", 9500 * time.Microsecond, 26 * time.Microsecond},
	{"kernel SVM", 6000 * time.Microsecond, 4900 * time.Microsecond},
}

// load is what comes to a queue.
type load struct {
	rate    float64       // queries per second
	warm    time.Duration // how long it lasts before it counts
	counted time.Duration // and how long it counts; at least for minQueries queries
	slo     time.Duration // the time that each has
	bursty  bool          // 1.8 and 0.2 times the rate in turn, for about 100 ms each
}

const minQueries = 3000

// pool is what answers.
type pool struct {
	profile
	replicas int
	slow     int // this many replicas take four times as long
	batching *clipperv1.Batching
	hop      time.Duration // what a batch takes besides, there and back together
	inFlight int           // 0 means 1
	// disturbed is by what factor a replica's batch takes longer, the batch-th of it, that begins at a
	// time since the start; nil: never.
	disturbed func(replica, batch int, at time.Duration) float64
}

// outcome is what became of the queries after warming up.
type outcome struct {
	inTime    float64         // the share answered in time
	latencies []time.Duration // of those answered, sorted
	refusals  time.Duration   // the 95th percentile of the time to a refusal
	batches   int
	rows      int
	queries   []query // all, in the order in which they came
}

func (o outcome) quantile(q float64) time.Duration {
	if len(o.latencies) == 0 {
		return math.MaxInt64
	}
	return o.latencies[int(q*float64(len(o.latencies)-1))]
}

// simulate runs the real queue and controllers in virtual time.
func simulate(t *testing.T, p pool, l load) (o outcome) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { o = run(t, p, l) })
	return o
}

func run(t *testing.T, p pool, l load) outcome {
	random := rand.New(rand.NewPCG(1, 2))
	q := newQueue(t, batching.DefaultMaxQueueRows)
	ctx, cancel := context.WithCancel(t.Context())
	var pulls sync.WaitGroup
	replicas := make([]*container, p.replicas)
	for i := range replicas {
		p := p
		if i < p.slow {
			p.fixed, p.perRow = 4*p.fixed, 4*p.perRow
		}
		c := newContainer(t, q, p, rand.New(rand.NewPCG(3, uint64(i))))
		c.index = i
		replicas[i] = c
		pulls.Go(func() { c.pull(ctx) })
	}
	synctest.Wait()
	warm, counted := int(l.rate*l.warm.Seconds()), max(minQueries, int(l.rate*l.counted.Seconds()))
	m := &meter{begin: time.Now(), queries: make([]query, warm+counted)}
	in := tensor.FromTensors([]*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_BOOL, Data: []byte{1}}})
	next, change, high := 0.0, 0.0, false
	for i := range m.queries {
		rate := l.rate
		if l.bursty {
			if next > change {
				high = !high
				change = next + random.ExpFloat64()*0.1
			}
			rate *= map[bool]float64{true: 1.8, false: 0.2}[high]
		}
		next += random.ExpFloat64() / rate
		at := m.begin.Add(time.Duration(next * float64(time.Second)))
		time.Sleep(time.Until(at))
		m.queries[i].sent = time.Since(m.begin)
		q.Submit(&prediction.Request{Context: ctx, Input: in, Deadline: at.Add(l.slo), Receiver: m, Tag: i})
	}
	time.Sleep(l.slo + time.Minute)
	cancel()
	pulls.Wait()
	q.Close(ctx, errGone)
	m.mu.Lock()
	defer m.mu.Unlock()
	o := outcome{queries: m.queries}
	var refusals []time.Duration
	for i, x := range m.queries {
		require.Equal(t, 1, x.answers, "query %d", i)
		if i < warm {
			continue
		}
		took := x.answered - x.sent
		switch x.status {
		case overloaded:
			refusals = append(refusals, took)
		case unanswered:
			o.latencies = append(o.latencies, took)
			if took <= l.slo {
				o.inTime++
			}
		}
	}
	o.inTime /= float64(counted)
	slices.Sort(o.latencies)
	slices.Sort(refusals)
	if len(refusals) > 0 {
		o.refusals = refusals[len(refusals)*95/100]
	}
	for _, c := range replicas {
		o.batches += c.batches
		o.rows += c.rows
	}
	return o
}

// meter notes what became of each query.
type meter struct {
	begin   time.Time
	mu      sync.Mutex
	queries []query
}

type query struct {
	sent, answered time.Duration
	status         clipperv1.PredictionStatus // unspecified when there is a prediction
	answers        int
}

func (m *meter) Receive(tag int, r prediction.Result) {
	m.mu.Lock()
	defer m.mu.Unlock()
	x := &m.queries[tag]
	x.answered = time.Since(m.begin)
	if r.Err != nil {
		x.status = r.Err.Status
	}
	x.answers++
}

// container is a replica that answers batches one after the other, in virtual time.
type container struct {
	pool
	puller     *queue.Puller
	controller batching.Controller
	model      *batching.Model
	random     *rand.Rand
	index      int
	started    time.Time

	mu            sync.Mutex
	free          time.Time // when it has done what it has
	lastAnswer    time.Time
	batches, rows int
}

func newContainer(t *testing.T, q *queue.Queue, p pool, random *rand.Rand) *container {
	c := &container{pool: p, random: random, started: time.Now(), model: batching.NewModel(batching.Learned{})}
	var err error
	c.controller, err = batching.New(p.batching, 0, c.model)
	require.NoError(t, err)
	c.puller = q.NewPuller(fmt.Sprint(random.Uint32()), queue.Limits{
		Controller: c.controller, Model: c.model, Bytes: 1 << 30, InFlight: max(1, p.inFlight),
		MaxDelay: p.batching.GetMaxDelay().AsDuration(), AutoDelay: p.batching.GetAutoDelay(),
	}, func(items *[]queue.Item) { c.work(slices.Clone(*items)) })
	return c
}

func (c *container) pull(ctx context.Context) {
	for {
		items, err := c.puller.Pull(ctx, nil)
		if err != nil {
			return
		}
		c.work(items)
	}
}

func (c *container) work(items []queue.Item) {
	c.mu.Lock()
	defer c.mu.Unlock()
	took := float64(c.fixed) + float64(len(items))*float64(c.perRow)
	took *= math.Exp(0.1*c.random.NormFloat64() - 0.005)
	if c.random.IntN(500) == 0 {
		took *= 3
	}
	sent := time.Now()
	if c.disturbed != nil {
		took *= c.disturbed(c.index, c.batches, sent.Sub(c.started))
	}
	begin := sent.Add(c.hop / 2)
	if c.free.After(begin) {
		begin = c.free
	}
	c.free = begin.Add(time.Duration(took))
	c.batches++
	c.rows += len(items)
	time.AfterFunc(time.Until(c.free.Add(c.hop/2)), func() {
		c.mu.Lock()
		now, o := time.Now(), batching.Observation{Rows: len(items), Predict: time.Duration(took)}
		from := sent
		if c.lastAnswer.After(from) {
			from, o.Predict = c.lastAnswer, 0
		}
		o.Latency, c.lastAnswer = now.Sub(from), now
		c.mu.Unlock()
		for _, it := range items {
			it.Request.Reply(prediction.Result{})
		}
		c.model.Observe(o)
		c.controller.Observe(o)
		if next := c.puller.Done(len(items)); next != nil {
			c.work(slices.Clone(*next))
		}
	})
}

// at20ms is load at a rate for queries that have 20 ms, once what is learned has settled.
func at20ms(rate float64) load {
	return load{rate: rate, warm: 500 * time.Millisecond, counted: 500 * time.Millisecond, slo: 20 * time.Millisecond}
}

func policy(name string) *clipperv1.Batching { return &clipperv1.Batching{Policy: name} }

// sustained are rates in queries per second, just above what slo answers at 99 % in time, for each
// profile on one and on four replicas. They are measured with the simulation, and only say where the
// properties below are looked at.
var sustained = map[string][2]float64{
	"no-op":               {53000, 200000},
	"linear SVM":          {43000, 165000},
	"logistic regression": {36500, 148000},
	"linear SVM in Spark": {25000, 94000},
	"random forest":       {16, 330},
	"kernel SVM":          {3, 200},
}

// TestSimulation_overload: at 1.5 times what can be answered, two thirds is the most that can be; at
// least 60 % of what is offered is answered in time, and what is not is refused soon.
func TestSimulation_overload(t *testing.T) {
	for _, profile := range profiles {
		for i, replicas := range []int{1, 4} {
			t.Run(fmt.Sprint(profile.name, replicas), func(t *testing.T) {
				p := pool{profile: profile, replicas: replicas}
				o := simulate(t, p, at20ms(1.5*sustained[profile.name][i]))
				require.Greater(t, o.inTime, 0.60)
				if profile.perRow < time.Millisecond && profile.fixed < 5*time.Millisecond {
					require.Less(t, o.refusals, 5*time.Millisecond, "95 % of the refusals; a stall of a replica may make a few more wait")
				}
			})
		}
	}
}

// TestSimulation_belowCapacity: at 85 % of rates that are somewhat above the capacity, 98.5 % of the
// queries are answered in time, also at once after nothing was known. Whether it is 99 % at 90 % of the
// capacity itself, as is wanted, needs more queries than a test can have: the experiments tell.
func TestSimulation_belowCapacity(t *testing.T) {
	for _, profile := range profiles {
		for i, replicas := range []int{1, 4} {
			t.Run(fmt.Sprint(profile.name, replicas), func(t *testing.T) {
				o := simulate(t, pool{profile: profile, replicas: replicas}, at20ms(0.85*sustained[profile.name][i]))
				require.GreaterOrEqual(t, o.inTime, 0.985)
			})
		}
	}
}

// TestSimulation_lowLoad: nobody waits for a batch to fill.
func TestSimulation_lowLoad(t *testing.T) {
	for _, profile := range profiles {
		for _, replicas := range []int{1, 4} {
			rate := 0.05 / (profile.fixed + profile.perRow).Seconds()
			slo := simulate(t, pool{profile: profile, replicas: replicas}, at20ms(rate)).quantile(0.5)
			none := simulate(t, pool{profile: profile, replicas: replicas, batching: policy("none")}, at20ms(rate)).quantile(0.5)
			require.LessOrEqual(t, slo.Seconds(), 1.05*none.Seconds(), profile.name)
		}
	}
}

// TestSimulation_collapse: what additive increase answers in time under overload, for comparison. A
// queue that lets everything in has only late rows.
func TestSimulation_collapse(t *testing.T) {
	l := at20ms(1.5 * sustained["linear SVM"][0])
	p := pool{profile: profiles[1], replicas: 1}
	planned := simulate(t, p, l).inTime
	p.batching = policy("aimd")
	require.Less(t, 10*simulate(t, p, l).inTime, planned)
}

// TestSimulation_fromCold: additive increase needs some hundred batches to find the size; a latency
// model a dozen.
func TestSimulation_fromCold(t *testing.T) {
	l := load{rate: 40000, counted: 200 * time.Millisecond, slo: 20 * time.Millisecond}
	p := pool{profile: profiles[1], replicas: 1}
	require.Greater(t, simulate(t, p, l).inTime, 0.95)
	p.batching = policy("aimd")
	require.Less(t, simulate(t, p, l).inTime, 0.8)
}

// TestSimulation_slowReplica: one replica of four is four times slower. 95 % of their summed capacity
// is used.
func TestSimulation_slowReplica(t *testing.T) {
	one := sustained["linear SVM"][1] / 4
	p := pool{profile: profiles[1], replicas: 4, slow: 1}
	require.GreaterOrEqual(t, simulate(t, p, at20ms(0.95*0.95*3.25*one)).inTime, 0.98)
}

// TestSimulation_hopelessReplica: one replica of four takes longer for one row than queries have. The
// others answer what it would have been late with, at low load too, where it is often idle.
func TestSimulation_hopelessReplica(t *testing.T) {
	for rate, least := range map[float64]float64{100: 0.97, 1000: 0.99, 80000: 0.99} {
		p := pool{profile: profiles[1], replicas: 4, disturbed: func(replica, _ int, _ time.Duration) float64 {
			if replica == 0 {
				return 30
			}
			return 1
		}}
		require.GreaterOrEqual(t, simulate(t, p, at20ms(rate)).inTime, least, "%v/s", rate)
	}
}

// TestSimulation_aheadWhereItHelps: a second batch under way hides the way to a container where that
// is long for the batch, and changes nothing where it is short.
func TestSimulation_aheadWhereItHelps(t *testing.T) {
	answered := func(hop time.Duration, inFlight int) float64 {
		p := pool{profile: profile{"", time.Millisecond, 50 * time.Microsecond}, replicas: 2, hop: hop, inFlight: inFlight, batching: &clipperv1.Batching{MaxBatchRows: 60}}
		l := at20ms(60000)
		return simulate(t, p, l).inTime * l.rate
	}
	require.Greater(t, answered(2*time.Millisecond, 2), 1.2*answered(2*time.Millisecond, 1))
	require.InEpsilon(t, answered(100*time.Microsecond, 1), answered(100*time.Microsecond, 2), 0.05)
}

// TestSimulation_aheadNotWhereItWaits: while batches are not full, a second one under way would make rows
// wait for two.
func TestSimulation_aheadNotWhereItWaits(t *testing.T) {
	p99 := func(inFlight int) float64 {
		l := at20ms(2000)
		l.slo = 250 * time.Millisecond
		p := profile{"", 3 * time.Millisecond, 20 * time.Microsecond}
		return simulate(t, pool{profile: p, replicas: 1, hop: 600 * time.Microsecond, inFlight: inFlight}, l).quantile(0.99).Seconds()
	}
	require.LessOrEqual(t, p99(2), 1.05*p99(1))
}

// TestSimulation_burst: a burst on idle replicas takes about the time of its part for each.
func TestSimulation_burst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rows, replicas = 400, 4
		p := pool{profile: profiles[1], replicas: replicas}
		q := newQueue(t, rows)
		ctx, cancel := context.WithCancel(t.Context())
		var pulls sync.WaitGroup
		for i := range replicas {
			c := newContainer(t, q, p, rand.New(rand.NewPCG(9, uint64(i))))
			for n := 1; n <= 400; n++ {
				c.model.Observe(batching.Observation{Rows: n, Latency: p.fixed + time.Duration(n)*p.perRow})
			}
			c.puller.SetLimits(queue.Limits{Controller: c.controller, Model: c.model, Bytes: 1 << 30, InFlight: 1})
			pulls.Go(func() { c.pull(ctx) })
		}
		synctest.Wait()
		m := &meter{begin: time.Now(), queries: make([]query, rows)}
		in := tensor.FromTensors([]*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_BOOL, Data: []byte{1}}})
		var callers sync.WaitGroup
		for tag := range rows {
			callers.Go(func() {
				q.Submit(&prediction.Request{Context: ctx, Input: in, Deadline: time.Now().Add(time.Second), Receiver: m, Tag: tag})
			})
		}
		callers.Wait()
		time.Sleep(time.Second)
		last := time.Duration(0)
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, x := range m.queries {
			last = max(last, x.answered)
		}
		part := p.fixed + rows/replicas*p.perRow
		require.Less(t, last, 2*part, "alone, one replica would take 9 ms")
		cancel()
		pulls.Wait()
	})
}

// TestSimulation_delay: callers who keep a bounded number of queries outstanding, and a container with
// a high fixed cost. They settle in two groups, one of which waits while the other is answered;
// waiting a little for the other group makes one batch of both. Waiting only where that gains by the
// mean rate does no harm.
func TestSimulation_delay(t *testing.T) {
	const callers = 60
	answered := func(b *clipperv1.Batching) (n int) {
		synctest.Test(t, func(t *testing.T) {
			p := pool{profile: profile{"", 2 * time.Millisecond, 5 * time.Microsecond}, replicas: 1, batching: b}
			q := newQueue(t, 1000)
			ctx, cancel := context.WithCancel(t.Context())
			c := newContainer(t, q, p, rand.New(rand.NewPCG(9, 9)))
			var running sync.WaitGroup
			running.Go(func() { c.pull(ctx) })
			in := tensor.FromTensors([]*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_BOOL, Data: []byte{1}}})
			var mu sync.Mutex
			random := rand.New(rand.NewPCG(4, 4))
			for range callers {
				running.Go(func() {
					done := make(waiter, 1)
					for ctx.Err() == nil {
						q.Submit(&prediction.Request{Context: context.Background(), Input: in, Receiver: done})
						<-done
						mu.Lock()
						n++
						think := time.Duration(random.ExpFloat64() * float64(200*time.Microsecond))
						mu.Unlock()
						time.Sleep(think)
					}
				})
			}
			time.Sleep(3 * time.Second)
			cancel()
			time.Sleep(time.Second)
			q.Refuse(errGone)
			running.Wait()
		})
		return n
	}
	at := float64(answered(&clipperv1.Batching{MaxBatchRows: callers}))
	require.Greater(t, float64(answered(&clipperv1.Batching{MaxBatchRows: callers, MaxDelay: durationpb.New(5 * time.Millisecond)})), 1.25*at)
	require.Greater(t, float64(answered(&clipperv1.Batching{MaxBatchRows: callers, AutoDelay: true})), 0.97*at)
}

type waiter chan struct{}

func (w waiter) Receive(int, prediction.Result) { w <- struct{}{} }
