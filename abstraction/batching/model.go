// SPDX-License-Identifier: Apache-2.0

package batching

import (
	"math"
	"math/bits"
	"sync"
	"time"
)

const (
	// memory is the number of batches that the line remembers: the weight of a batch is multiplied by
	// 1-1/memory with each one that follows.
	memory = 300
	// priorWeight is the number of batches that what was learned earlier counts for.
	priorWeight = 20
	// priorSlope is the share of a batch's time that is taken to depend on its size while batches of
	// one size only have been seen. Low, so that larger ones are tried.
	priorSlope = 0.25
	// slopeWeight is how much that assumption counts against what is seen, in batches whose size
	// differs from the mean by the mean.
	slopeWeight = 0.5
	// bucketMemory is the number of batches that an entry of the table remembers.
	bucketMemory = 32
	// enough is the number of batches from which on an entry counts.
	enough = 8
	// tailQuantile is the share of the batches that the tail is to cover.
	tailQuantile = 0.99
	// tailStep is the step of its approximation, relative to the mean.
	tailStep = 0.02
	// firstTail is the tail before anything is known, relative to the mean.
	firstTail = 0.3
	// outlier is the factor from the expected time on which a batch is taken for a stall.
	outlier = 2
	// changed is the number of outliers in a row that are no stalls but a model that has changed.
	changed = 4
	// company is the part of the time of one row that others may add to it although it is late.
	company = 20
	// remembered is the number of batches that what was learned before a change counts for.
	remembered = 4
	// trustedGrowth is how far beyond the largest size seen the model is believed.
	trustedGrowth = 2
	// buckets are the powers of two up to MaxBatchRows.
	buckets = 17
	// hopMemory is the number of batches that the mean hop remembers.
	hopMemory = 64
)

// Model is what is known of how long a replica takes for a batch, as a function of its rows. It
// learns from every batch:
//
//   - the mean as a line, fixed + slope·rows, by least squares with exponential forgetting (recursive
//     least squares in its sums), and beside it a table of moving averages by power of two. What is
//     expected is the larger of the two, so that a model that is not linear is not underestimated;
//   - the 99th percentile, as a factor on the mean, by stochastic approximation of the quantile
//     (Robbins and Monro, "A Stochastic Approximation Method", 1951): up by 0.99 of a step when a
//     batch took longer, down by 0.01 of one when it did not. Each power of two has its own. Several
//     in a row that take longer count once: then it is the mean that has changed;
//   - the hop, what a batch takes beyond the model's own time.
//
// A batch that takes more than twice what is expected is a stall: it counts as twice; one that takes
// less than half counts as half. The fourth in a row on the same side is no stall but a replica that
// has become slower or faster: all that was learned is scaled by as much, keeps its shape, and counts
// for little from then on. What was seen of sizes that do not come any more is forgotten like the
// line, so that a bad time does not rule them out for ever. Safe for concurrent use.
type Model struct {
	mu           sync.Mutex
	learned      Learned
	fixed, slope float64  // the line, seconds
	outliers     []sample // in a row, on the same side
	drift        float64  // the one of them that is nearest to what was expected, relative to that
	above        bool     // the last batch took longer than the tail
}

// sample is a batch: its rows, and how many seconds it counts as.
type sample struct {
	rows int
	time float64
}

// Learned is what a Model has learned, in a form that can be kept. Times are in seconds. The zero
// value is a model that knows nothing.
type Learned struct {
	// Observations is the number of batches, without those of a prior.
	Observations uint64 `json:"observations"`
	// Largest is the largest batch, in rows.
	Largest int `json:"largest"`
	// Weight and the others are the sums of the least squares: of the weights, the rows, the times,
	// the squared rows, and rows times times.
	Weight   float64 `json:"weight"`
	Rows     float64 `json:"rows"`
	Time     float64 `json:"time"`
	RowsRows float64 `json:"rows_rows"`
	RowsTime float64 `json:"rows_time"`
	// Hop is the mean of what a batch takes beyond the model's own time, HopWeight how many batches
	// it is of.
	Hop       float64 `json:"hop"`
	HopWeight float64 `json:"hop_weight"`
	// Buckets are batches by size; entry i is for 2^i to 2^(i+1)-1 rows.
	Buckets [buckets]Bucket `json:"buckets"`
}

// Bucket is what was seen of batches of about one size.
type Bucket struct {
	// Weight is the number of batches, at most those that are remembered.
	Weight float64 `json:"weight"`
	// Rows and Time are the means.
	Rows float64 `json:"rows"`
	Time float64 `json:"time"`
	// Tail is the 99th percentile of a batch's time relative to the mean, minus 1.
	Tail float64 `json:"tail"`
}

// Valid reports whether l is of a kind that a Model can have learned; what was stored may have been
// damaged.
func (l *Learned) Valid() bool {
	numbers := []float64{l.Weight, l.Rows, l.Time, l.RowsRows, l.RowsTime, l.Hop, l.HopWeight}
	for _, b := range l.Buckets {
		numbers = append(numbers, b.Weight, b.Rows, b.Time, b.Tail)
	}
	for _, x := range numbers {
		if !(x >= 0) || x > 1e15 { // Not a number is neither.
			return false
		}
	}
	return l.Largest >= 0 && l.Largest <= MaxBatchRows && (l.Weight == 0) == (l.Largest == 0)
}

// Merge adds what another replica of the same version has learned.
func (l *Learned) Merge(o Learned) {
	l.Observations += o.Observations
	l.Largest = max(l.Largest, o.Largest)
	l.Weight += o.Weight
	l.Rows += o.Rows
	l.Time += o.Time
	l.RowsRows += o.RowsRows
	l.RowsTime += o.RowsTime
	l.Hop, l.HopWeight = mean(l.Hop, l.HopWeight, o.Hop, o.HopWeight)
	for i := range l.Buckets {
		b, other := &l.Buckets[i], o.Buckets[i]
		b.Rows, _ = mean(b.Rows, b.Weight, other.Rows, other.Weight)
		b.Tail, _ = mean(b.Tail, b.Weight, other.Tail, other.Weight)
		b.Time, b.Weight = mean(b.Time, b.Weight, other.Time, other.Weight)
	}
}

// mean returns the mean of two means and its weight.
func mean(a, aw, b, bw float64) (m, w float64) {
	w = aw + bw
	if w == 0 {
		return 0, 0
	}
	return (a*aw + b*bw) / w, w
}

// limit makes what was learned count for at most so many batches.
func (l *Learned) limit(weight float64) {
	if l.Weight > weight {
		f := weight / l.Weight
		l.Weight *= f
		l.Rows *= f
		l.Time *= f
		l.RowsRows *= f
		l.RowsTime *= f
	}
	l.HopWeight = min(l.HopWeight, weight)
	for i := range l.Buckets {
		l.Buckets[i].Weight = min(l.Buckets[i].Weight, weight)
	}
}

// scale makes every batch seen so much longer.
func (l *Learned) scale(factor float64) {
	l.Time *= factor
	l.RowsTime *= factor
	for i := range l.Buckets {
		l.Buckets[i].Time *= factor
	}
}

// NewModel returns a model that believes the prior as much as a few batches; the zero Learned is no
// prior.
func NewModel(prior Learned) *Model {
	m := &Model{learned: prior}
	m.learned.Observations = 0
	m.learned.limit(priorWeight)
	m.fit()
	return m
}

// Learned returns what the model has learned.
func (m *Model) Learned() Learned {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.learned
}

// Observe learns from a batch that was answered.
func (m *Model) Observe(o Observation) {
	t := o.Latency.Seconds()
	if t <= 0 || o.Rows < 1 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	l := &m.learned
	l.Observations++
	expected := m.expect(o.Rows)
	m.learnTail(o.Rows, t, expected)
	if expected > 0 && o.Rows <= trustedGrowth*l.Largest && (t > outlier*expected || t < expected/outlier) {
		m.suspect(o.Rows, t, expected)
	} else {
		m.believe()
		m.learn(o.Rows, t)
	}
	if o.Predict > 0 && o.Predict <= o.Latency {
		hop := (o.Latency - o.Predict).Seconds()
		if l.HopWeight >= enough { // A stall of the machine says nothing about the way.
			hop = min(hop, outlier*l.Hop)
		}
		l.HopWeight = min(l.HopWeight+1, hopMemory)
		l.Hop += (hop - l.Hop) / l.HopWeight
	}
}

// suspect holds an outlier back until it is known whether it was a stall or the first batch after a
// change. The lock is held.
func (m *Model) suspect(rows int, t, expected float64) {
	ratio, slower := t/expected, t > expected
	if len(m.outliers) > 0 && slower != (m.drift > 1) {
		m.believe()
	}
	switch {
	case len(m.outliers) == 0:
		m.drift = ratio
	case slower:
		m.drift = min(m.drift, ratio)
	default:
		m.drift = max(m.drift, ratio)
	}
	m.outliers = append(m.outliers, sample{rows, min(max(t, expected/outlier), outlier*expected)})
	if len(m.outliers) < changed {
		return
	}
	m.outliers = m.outliers[:0]
	m.learned.scale(m.drift)
	m.learned.limit(remembered)
	m.learn(rows, t)
}

// believe learns from the outliers that were held back: they were stalls. The lock is held.
func (m *Model) believe() {
	for _, o := range m.outliers {
		m.learn(o.rows, o.time)
	}
	m.outliers = m.outliers[:0]
}

// learn adds a batch to the line and the table. The lock is held.
func (m *Model) learn(rows int, t float64) {
	const keep = 1 - 1.0/memory
	l, n := &m.learned, float64(rows)
	l.Largest = max(l.Largest, rows)
	l.Weight = keep*l.Weight + 1
	l.Rows = keep*l.Rows + n
	l.Time = keep*l.Time + t
	l.RowsRows = keep*l.RowsRows + n*n
	l.RowsTime = keep*l.RowsTime + n*t
	for i := range l.Buckets {
		l.Buckets[i].Weight *= keep
	}
	b := &l.Buckets[bucket(rows)]
	b.Weight = min(b.Weight+1, bucketMemory)
	b.Rows += (n - b.Rows) / b.Weight
	b.Time += (t - b.Time) / b.Weight
	m.fit()
}

// fit solves the least squares: the slope is that of the data and, with a little weight, of the
// assumption that priorSlope of the mean depends on the size.
func (m *Model) fit() {
	l := &m.learned
	if l.Weight == 0 {
		return
	}
	rows, t := l.Rows/l.Weight, l.Time/l.Weight
	spread := max(0, l.RowsRows-l.Rows*rows)
	common := l.RowsTime - l.Rows*t
	ridge := slopeWeight * rows * rows
	m.slope = max(0, (common+ridge*priorSlope*t/rows)/(spread+ridge))
	m.fixed = t - m.slope*rows
	if m.fixed < 0 {
		m.fixed, m.slope = 0, t/rows
	}
}

// learnTail moves the tail of a size towards its quantile.
func (m *Model) learnTail(rows int, t, expected float64) {
	b := &m.learned.Buckets[bucket(rows)]
	if b.Weight == 0 {
		b.Tail = m.tail(rows)
	}
	if expected == 0 || b.Weight < enough {
		return // While the mean is not known, neither is what is above it.
	}
	switch above := t/expected-1 > b.Tail; {
	case !above:
		b.Tail = max(0, b.Tail-tailStep*(1-tailQuantile))
		m.above = false
	case !m.above:
		b.Tail += tailStep * tailQuantile
		m.above = true
	}
}

// tail returns the relative tail of a size: its own, or else that of the next smaller one, or else of
// the next larger one, that was seen. The lock is held.
func (m *Model) tail(rows int) float64 {
	at := bucket(rows)
	for i := at; i >= 0; i-- {
		if b := &m.learned.Buckets[i]; b.Weight > 0 {
			return b.Tail
		}
	}
	for i := at + 1; i < buckets; i++ {
		if b := &m.learned.Buckets[i]; b.Weight > 0 {
			return b.Tail
		}
	}
	return firstTail
}

// expect returns the mean in seconds, 0 when nothing is known. The lock is held.
func (m *Model) expect(rows int) float64 {
	if m.learned.Weight == 0 {
		return 0
	}
	n := float64(rows)
	t := m.fixed + m.slope*n
	if b := &m.learned.Buckets[bucket(rows)]; b.Weight >= enough {
		t = max(t, b.Time+m.slope*(n-b.Rows))
	}
	return t
}

func bucket(rows int) int { return min(max(bits.Len(uint(rows))-1, 0), buckets-1) } //nolint:gosec // At least 1.

// Mean returns the time that a batch is expected to take; 0 when nothing is known.
func (m *Model) Mean(rows int) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return seconds(m.expect(rows))
}

// Tail returns the 99th percentile of the time of a batch; 0 when nothing is known.
func (m *Model) Tail(rows int) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tailTime(rows)
}

// Quick returns the time that a batch takes when all goes well: as much less than the mean as the tail
// is more, but at least half of the mean; 0 when nothing is known.
func (m *Model) Quick(rows int) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return seconds(m.expect(rows) * max(0.5, 1-m.tail(rows)))
}

func (m *Model) tailTime(rows int) time.Duration {
	return seconds(m.expect(rows) * (1 + m.tail(rows)))
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// affordable returns the most rows, from 1 to limit, whose tail is within the slack, or within little
// more than that of one row.
func (m *Model) affordable(slack time.Duration, limit int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	one := m.tailTime(1)
	return m.within(max(slack, one+one/company), min(limit, m.bound()), m.tailTime)
}

// sustained returns the most rows, from 1 to limit, of batches that follow each other for ever on
// each of some replicas; see slo. A most of 0 is no bound on one batch, a rate of 0 is unknown.
func (m *Model) sustained(budget, most time.Duration, replicas, rate float64, limit int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.within(budget, min(limit, m.bound()), m.cycle(most, replicas, rate))
}

// fits is sustained for an unknown rate, with no bound on what is believed.
func (m *Model) fits(budget, most time.Duration, replicas float64, limit int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.within(budget, limit, m.cycle(most, replicas, 0))
}

// cycle returns how long a query takes at most with batches of some rows that follow each other, as for
// sustained. The lock is held while it is used.
func (m *Model) cycle(most time.Duration, replicas, rate float64) func(rows int) time.Duration {
	return func(rows int) time.Duration {
		t := m.tailTime(rows)
		if most > 0 && t > most {
			return math.MaxInt64
		}
		wait := float64(t) / replicas
		if rate > 0 {
			spread := float64(t) - m.expect(rows)*float64(time.Second)
			wait = min(wait, max(float64(rows)/rate*float64(time.Second), spread/replicas))
		}
		return t + time.Duration(wait)
	}
}

// within returns the most rows, from 1 to limit, whose cost is within the budget. It finds the size by
// bisection. Where a step of the table makes a larger batch look faster, any of the sizes that fit may be
// found.
func (m *Model) within(budget time.Duration, limit int, cost func(int) time.Duration) int {
	if limit <= 1 || cost(limit) <= budget {
		return max(1, limit)
	}
	low, high := 1, limit // low fits or is the least there is; high does not fit.
	for high-low > 1 {
		if middle := int(uint(low+high) >> 1); cost(middle) <= budget { //nolint:gosec // Both are positive.
			low = middle
		} else {
			high = middle
		}
	}
	return low
}

// bound is the largest size that is believed. The lock is held.
func (m *Model) bound() int { return max(1, trustedGrowth*m.learned.Largest) }

// trusted returns the largest size that is believed.
func (m *Model) trusted() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bound()
}

// Hop returns the mean of what a batch takes beyond the model's own time; 0 when the container does
// not tell the model's time.
func (m *Model) Hop() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return seconds(m.learned.Hop)
}

// Line returns the line: the fixed part, and that of each row.
func (m *Model) Line() (fixed, row time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return seconds(m.fixed), seconds(m.slope)
}

// Point is what was seen and what is expected of batches of one size.
type Point struct {
	// Rows is the size.
	Rows int
	// Weight is the number of batches seen, older ones counting less.
	Weight float64
	// Observed, Expected and Tail are the mean that was seen, the mean that is expected, and the 99th
	// percentile that is expected.
	Observed, Expected, Tail time.Duration
}

// Points returns what is known, by size.
func (m *Model) Points() []Point {
	m.mu.Lock()
	defer m.mu.Unlock()
	var points []Point
	for _, b := range m.learned.Buckets {
		if b.Weight == 0 {
			continue
		}
		rows := max(1, int(math.Round(b.Rows)))
		points = append(points, Point{
			Rows: rows, Weight: b.Weight, Observed: seconds(b.Time), Expected: seconds(m.expect(rows)), Tail: m.tailTime(rows),
		})
	}
	return points
}
