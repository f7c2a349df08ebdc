// SPDX-License-Identifier: Apache-2.0

// Package profile measures how long a model container takes for batches of growing size, and says what
// that means for a latency objective and a load. It speaks the container RPC itself, past the queue.
package profile

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/clipper-serving/clipper/abstraction/batching"
	"github.com/clipper-serving/clipper/containerrpc/check"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	// DefaultRows is the largest batch of a version that names no limit.
	DefaultRows = batching.DefaultMaxBatchRows
	// MostRows is the largest batch that any version may name.
	MostRows = batching.MaxBatchRows
)

const (
	// fewestRounds is how many rounds must fit into the time, so that a size is worth measuring.
	fewestRounds = 10
	// messageBytes bounds the batches of a container that names no limit; the Python runtime takes as much.
	messageBytes = 64 << 20
	// failuresInRow is how many sizes in a row may fail until no larger one is tried.
	failuresInRow = 2
	// corrections is how many sizes are measured because a plan wants them.
	corrections = 3
)

// Options say how to measure.
type Options struct {
	// Samples are inputs that the model accepts, each the JSON text of one. Without them rows are made up
	// from the signature.
	Samples [][]byte
	// Timeout is the longest that one answer may take, and that the container may take to be ready. It
	// must be positive.
	Timeout time.Duration
	// MaxRows is the largest batch to try, at least 1. The container's own limits hold too.
	MaxRows int
	// MaxLatency is the time of a batch from which on no larger ones are tried. It must be positive.
	MaxLatency time.Duration
	// Time is about how long to measure, Rounds how many batches of each size at most. Both must be
	// positive.
	Time   time.Duration
	Rounds int
	// SLO is the latency objective that Plan will be asked for: the batch for it is measured too. 0: none.
	SLO time.Duration
}

// Profile is what was measured. Times are in microseconds, from before a batch is encoded until after its
// answer is decoded, with one batch under way.
type Profile struct {
	// Points are the sizes in ascending order.
	Points []Point `json:"points"`
	// Line is fitted to the medians.
	Line Line `json:"line"`
	// Stopped says why no larger batches were tried.
	Stopped string `json:"stopped"`
	// Memory is the container's; nil when it is not known.
	Memory *Memory `json:"memory,omitempty"`
	// Properties are the container's words about itself.
	Properties map[string]string `json:"properties,omitempty"`
}

// Point is what was seen of batches of one size.
type Point struct {
	Rows int `json:"rows"`
	// Batches is the number measured, without the first one, which may have had something to prepare.
	Batches      int     `json:"batches"`
	MeanMicros   float64 `json:"mean_micros"`
	MedianMicros float64 `json:"median_micros"`
	P95Micros    float64 `json:"p95_micros"`
	P99Micros    float64 `json:"p99_micros"`
	// Tail is the 99th percentile relative to the median, of this size and those beside it together: a few
	// batches of one size say little of one in a hundred. Plans go by it.
	Tail float64 `json:"tail"`
	// ModelMicros is the median of the model's own time; 0 when the container does not tell.
	ModelMicros float64 `json:"model_micros,omitempty"`
	// RowsPerSecond is the throughput of a replica that has such batches one after the other.
	RowsPerSecond float64 `json:"rows_per_second"`
	// Error says why batches of this size are of no use; then the times mean nothing.
	Error string `json:"error,omitempty"`
}

// run is one measurement.
type run struct {
	Options
	session *check.Session
	series  []*series
	stopped string
}

// series are the batches of one size.
type series struct {
	request     *clipperv1.PredictRequest
	took, model []float64 // microseconds
	quickest    float64   // of took and the first batch
	err         error
}

// Run measures the container at an address ("unix:/path" or "host:port"); tell is told what is being
// done. When the container dies on the way, the profile has what was measured and the error says when
// it died.
func Run(ctx context.Context, address string, o Options, tell func(string)) (*Profile, error) {
	session, err := check.Open(ctx, address, check.Options{Samples: o.Samples, Timeout: o.Timeout})
	if err != nil {
		return nil, err
	}
	defer session.Close()
	r := &run{Options: o, session: session}
	begin := time.Now()
	err = r.grow(ctx, tell)
	if err == nil {
		tell(fmt.Sprintf("measuring %d sizes", len(r.series)))
		until := begin.Add(o.Time)
		if o.SLO > 0 { // The batch for it takes its share.
			until = begin.Add(o.Time * 3 / 4)
		}
		err = r.rounds(ctx, r.series, until)
	}
	for i := 0; err == nil && r.series[0].err == nil && o.SLO > 0 && i < corrections; i++ {
		n := r.profile().Plan(o.SLO).Rows
		if n == 0 || r.find(n) != nil {
			break
		}
		tell(fmt.Sprintf("measuring batches of %d rows, the largest for the objective", n))
		var s *series
		if s, err = r.add(ctx, n); err == nil {
			err = r.rounds(ctx, []*series{s}, time.Now().Add(o.Time/(4*corrections)))
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if first := r.series[0]; first.err != nil {
		return nil, first.err
	}
	p := r.profile()
	p.Memory = memory(address)
	return p, err
}

func (s *series) rows() int { return int(s.request.Rows) }

func (r *run) find(rows int) *series {
	for _, s := range r.series {
		if s.rows() == rows {
			return s
		}
	}
	return nil
}

// grow makes a series of each size until one is large enough.
func (r *run) grow(ctx context.Context, tell func(string)) error {
	limit, why := r.limit()
	spent, failures := 0.0, 0
	for n := 1; ; n = min(2*n, limit) {
		tell(fmt.Sprintf("trying %d rows", n))
		s, err := r.add(ctx, n)
		if err != nil {
			return err
		}
		if failures++; s.err == nil {
			failures = 0
			spent += s.quickest
		}
		switch {
		case n == 1 && s.err != nil:
			return s.err
		case n == limit:
			r.stopped = why
		case failures == failuresInRow:
			r.stopped = fmt.Sprintf("%d sizes in a row failed", failures)
		case s.err == nil && s.quickest > micros(r.MaxLatency):
			r.stopped = fmt.Sprintf("a batch took longer than %s", r.MaxLatency)
		case s.err == nil && fewestRounds*(spent+2*s.quickest) > micros(r.Time)/2:
			r.stopped = fmt.Sprintf("%s are too short to measure larger ones", r.Time)
		default:
			continue
		}
		return nil
	}
}

// limit returns the largest size and what makes it so.
func (r *run) limit() (rows int, why string) {
	rows, why = r.MaxRows, fmt.Sprintf("%d rows are the most that were to be tried", r.MaxRows)
	d := r.session.Description()
	if m := int(d.MaxBatchRows); m > 0 && m <= rows {
		rows, why = m, fmt.Sprintf("the container takes %d rows at most", m)
	}
	bytes := uint64(messageBytes)
	if m := d.MaxMessageBytes; m > 0 {
		bytes = min(m, bytes)
	}
	bytes -= min(bytes, 4096)                                   // For what is around the rows.
	if m := max(1, int(bytes)/r.session.RowBytes()); m < rows { //nolint:gosec // At most 64 MiB.
		rows, why = m, fmt.Sprintf("more than %d rows are too large a message", m)
	}
	return rows, why
}

// add begins the series of a size with a batch that does not count and one that does. The error is the
// container's end; that of a size is in its series.
func (r *run) add(ctx context.Context, rows int) (*series, error) {
	s := &series{request: r.session.Batch(rows), quickest: math.Inf(1)}
	r.series = append(r.series, s)
	slices.SortFunc(r.series, func(a, b *series) int { return a.rows() - b.rows() })
	for range 2 {
		s.took, s.model = nil, nil
		if err := r.measure(ctx, s); err != nil || s.err != nil {
			return s, err
		}
	}
	return s, nil
}

// measure adds a batch to a series that has not failed.
func (r *run) measure(ctx context.Context, s *series) error {
	took, resp, err := r.session.Predict(ctx, s.request)
	if err == nil {
		s.took = append(s.took, micros(took))
		s.model = append(s.model, float64(resp.PredictMicros))
		s.quickest = min(s.quickest, micros(took))
		return nil
	}
	s.err = err
	// Is it the size, or the container?
	if _, _, dead := r.session.Predict(ctx, r.series[0].request); dead != nil && len(r.series[0].took) > 0 {
		if s == r.series[0] { // What it did until then is worth telling.
			s.err = nil
		}
		return fmt.Errorf("a batch of %d rows: %w. After that the container did not answer a batch of one any more", s.rows(), err)
	}
	return nil
}

// rounds measures the series by turns, so that what the machine does beside concerns them all.
func (r *run) rounds(ctx context.Context, all []*series, until time.Time) error {
	for range r.Rounds - 1 {
		for _, s := range all {
			if s.err != nil {
				continue
			}
			if !time.Now().Before(until) {
				return nil
			}
			if err := r.measure(ctx, s); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *run) profile() *Profile {
	p := &Profile{Stopped: r.stopped, Properties: r.session.Description().Properties}
	for _, s := range r.series {
		p.Points = append(p.Points, s.point())
	}
	good := p.good()
	for i := range good {
		var relative []float64
		for j := max(0, i-1); j <= min(i+1, len(good)-1); j++ {
			for _, t := range r.series[j].took {
				relative = append(relative, t/good[j].MedianMicros)
			}
		}
		slices.Sort(relative)
		good[i].Tail = quantile(relative, 0.99)
	}
	p.Line = fit(good)
	return p
}

func (s *series) point() Point {
	p := Point{Rows: s.rows(), Batches: len(s.took)}
	if s.err != nil {
		p.Error = s.err.Error()
		return p
	}
	took := slices.Sorted(slices.Values(s.took))
	sum := 0.0
	for _, t := range took {
		sum += t
	}
	p.MeanMicros = sum / float64(len(took))
	p.MedianMicros, p.P95Micros, p.P99Micros = quantile(took, 0.5), quantile(took, 0.95), quantile(took, 0.99)
	p.ModelMicros = quantile(slices.Sorted(slices.Values(s.model)), 0.5)
	p.RowsPerSecond = float64(p.Rows) / p.MeanMicros * 1e6
	return p
}

// quantile returns the smallest of sorted values that a share q of them does not exceed.
func quantile(sorted []float64, q float64) float64 {
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
