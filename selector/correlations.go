// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/selector/policy"
)

const (
	// togetherInterval is how long the sums of pairs are in this instance's memory only.
	togetherInterval = time.Second
	// togetherTimeout bounds one addition to the store, and so what remains to be done at shutdown.
	togetherTimeout = 2 * time.Second

	// alike is the lower bound of a correlation from which on two models should share a group.
	alike = 0.7
	// fewestTogether is how many queries two models must have answered before that is said of them.
	fewestTogether = 30
)

// pair names two models, as the application lists them.
type pair struct{ first, second string }

// pairSums are sums over the queries that both models answered and whose truth is known: of x and y,
// the losses of the first and the second, x, y, x², y² and xy. They are what a correlation is made of.
type pairSums struct{ n, x, y, xx, yy, xy float64 }

func (p *pairSums) add(x, y float64) {
	p.n++
	p.x += x
	p.y += y
	p.xx += x * x
	p.yy += y * y
	p.xy += x * y
}

// pairFields are the names of the sums in the store, before a slash and the names of the models.
var pairFields = []string{"n", "x", "y", "xx", "yy", "xy"}

func (p *pairSums) values() []*float64 { return []*float64{&p.n, &p.x, &p.y, &p.xx, &p.yy, &p.xy} }

// correlation returns Pearson's correlation, and the lower end of its one-sided interval of 95 %. ok is
// false while a loss never changes.
//
// By Fisher's transformation, artanh r is about normal. Its variance is 1/(n − 3) for losses that are spread
// like a normal distribution, which is taken for those that are no labels'. For losses of 0 and 1 that would
// be far too small; theirs follows from the numbers of the four outcomes.
func (p *pairSums) correlation() (r, lower float64, ok bool) {
	r, ok = pearson(p.n, p.x, p.y, p.xx, p.yy, p.xy)
	if !ok || p.n <= 3 {
		return r, -1, ok
	}
	const normal95 = 1.6448536269514722
	if p.zeroOne() {
		shrunk, deviation := p.outcomes()
		return r, math.Tanh(math.Atanh(shrunk) - normal95*deviation), true
	}
	most := 1 - 1/p.n // artanh 1 is infinite, and a few queries that agree prove little.
	return r, math.Tanh(math.Atanh(min(max(r, -most), most)) - normal95/math.Sqrt(p.n-3)), true
}

func pearson(n, x, y, xx, yy, xy float64) (r float64, ok bool) {
	variances := (n*xx - x*x) * (n*yy - y*y)
	if !(variances > 1e-12*n*n) {
		return 0, false
	}
	return min(max((n*xy-x*y)/math.Sqrt(variances), -1), 1), true
}

// zeroOne reports whether every loss is 0 or 1: others have smaller squares.
func (p *pairSums) zeroOne() bool {
	const rounding = 1e-9
	return p.x-p.xx <= rounding*p.n && p.y-p.yy <= rounding*p.n
}

// outcomes returns the correlation of losses of 0 and 1, and the standard deviation of its artanh. Half a query
// is added to each of the four outcomes (Haldane and Anscombe), so that what has not been seen is not taken
// for impossible. With u and v, the losses less their means and divided by their deviations, the influence
// of a query on r is uv − r(u² + v²)/2; the variance of r is the mean square of that, divided by n.
func (p *pairSums) outcomes() (r, deviation float64) {
	const half = 0.5
	n := p.n + 4*half
	counts := [2][2]float64{{p.n - p.x - p.y + p.xy + half, p.y - p.xy + half}, {p.x - p.xy + half, p.xy + half}}
	x, y := (p.x+2*half)/n, (p.y+2*half)/n
	deviationX, deviationY := math.Sqrt(x*(1-x)), math.Sqrt(y*(1-y))
	r = (counts[1][1]/n - x*y) / (deviationX * deviationY)
	square := 0.0
	for i, row := range counts {
		for j, count := range row {
			u, v := (float64(i)-x)/deviationX, (float64(j)-y)/deviationY
			influence := u*v - r*(u*u+v*v)/2
			square += count * influence * influence
		}
	}
	return r, math.Sqrt(square) / n / (1 - r*r)
}

// together are the sums of pairs that this instance has not added to the store yet. Safe for concurrent
// use. A crash loses them, about a second's worth: the report is the only reader, and is not worth a
// durable write for each feedback.
type together struct {
	mu      sync.Mutex
	pending map[string]map[pair]*pairSums // by the application's key

	flushing sync.Mutex  // held by who adds to the store
	unsure   []*addition // may be in the store already
}

// add counts a feedback for each pair of its models.
func (t *together) add(app *application, choices []policy.Choice, losses []float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, x := range losses {
		for j := i + 1; j < len(losses) && x >= 0; j++ {
			if losses[j] < 0 {
				continue
			}
			first, second, x, y := app.keys[choices[i].Model], app.keys[choices[j].Model], x, losses[j]
			if first > second { // The order in which the application lists them may change.
				first, second, x, y = second, first, y, x
			}
			if t.pending == nil {
				t.pending = map[string]map[pair]*pairSums{}
			}
			pairs := t.pending[app.togetherKey]
			if pairs == nil {
				pairs = map[pair]*pairSums{}
				t.pending[app.togetherKey] = pairs
			}
			sums := pairs[pair{first, second}]
			if sums == nil {
				sums = &pairSums{}
				pairs[pair{first, second}] = sums
			}
			sums.add(x, y)
		}
	}
}

// take returns what has been gathered, as additions to the store.
func (t *together) take() (additions []*addition) {
	t.mu.Lock()
	pending := t.pending
	t.pending = nil
	t.mu.Unlock()
	for key, pairs := range pending {
		deltas := map[string]float64{}
		for p, sums := range pairs {
			for i, value := range sums.values() {
				if *value != 0 {
					deltas[pairFields[i]+"/"+p.first+"/"+p.second] = *value
				}
			}
		}
		additions = append(additions, newAddition(key, deltas))
	}
	return additions
}

// flushTogether adds to the store what has been gathered. What a store that cannot be reached may or may not have
// got is kept with its identity, and counts once.
func (s *Service) flushTogether(ctx context.Context) error {
	t := &s.together
	t.flushing.Lock()
	defer t.flushing.Unlock()
	if len(t.unsure) == 0 { // Else what is new waits in memory, where it is small.
		t.unsure = t.take()
	}
	snapshot := s.apps.Snapshot()
	live := map[string]bool{}
	for entry := range snapshot.All() {
		live[entry.Value.togetherKey] = true
	}
	for len(t.unsure) > 0 {
		if next := t.unsure[0]; live[next.update.Key] || !snapshot.Synced() { // Nobody would delete it.
			switch err := next.add(ctx, s.deps.Sums); {
			case errors.Is(err, store.ErrUnavailable):
				return err
			case err != nil:
				s.log.Warn("sums of correlations were not added to the store", "error", err)
			}
		}
		t.unsure = t.unsure[1:]
	}
	return nil
}

// addTogether adds to the store from time to time and at the end.
func (s *Service) addTogether() {
	tick := time.NewTicker(togetherInterval)
	defer tick.Stop()
	flush := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), togetherTimeout)
		defer cancel()
		if err := s.flushTogether(ctx); err != nil {
			s.log.Debug("the correlations of models are not in the store yet", "error", err)
		}
	}
	for {
		select {
		case <-tick.C:
			flush()
		case <-s.ctx.Done():
			flush()
			return
		}
	}
}

// GetModelCorrelations returns how the errors of the application's models go together.
func (a applicationService) GetModelCorrelations(ctx context.Context, r *clipperv1.GetModelCorrelationsRequest) (*clipperv1.GetModelCorrelationsResponse, error) {
	s := a.service
	app, err := s.fresh(ctx, r.GetApplication(), "application")
	if err != nil {
		return nil, err
	}
	if err := s.flushTogether(ctx); err != nil {
		return nil, s.storeError(ctx, "add correlations", err)
	}
	sums, err := s.deps.Sums.Get(ctx, app.togetherKey)
	if err != nil {
		return nil, s.storeError(ctx, "read correlations", err)
	}
	response := &clipperv1.GetModelCorrelationsResponse{}
	for i, first := range app.keys {
		for _, second := range app.keys[i+1:] {
			if p := newModelPair(first, second, sums); p != nil {
				response.Pairs = append(response.Pairs, p)
			}
		}
	}
	slices.SortStableFunc(response.Pairs, func(a, b *clipperv1.ModelPair) int {
		return cmp.Compare(rank(b), rank(a))
	})
	response.SuggestedGroups = app.suggest(response.Pairs)
	return response, nil
}

// rank orders pairs; those without a correlation are last.
func rank(p *clipperv1.ModelPair) float64 {
	if p.Correlation == nil {
		return -2
	}
	return *p.Correlation
}

// newModelPair returns what the store has of two models; nil when that is nothing.
func newModelPair(first, second string, sums map[string]float64) *clipperv1.ModelPair {
	swapped := first > second
	names := "/" + first + "/" + second
	if swapped {
		names = "/" + second + "/" + first
	}
	var s pairSums
	for i, value := range s.values() {
		*value = sums[pairFields[i]+names]
	}
	if s.n <= 0 {
		return nil
	}
	if swapped {
		s.x, s.y, s.xx, s.yy = s.y, s.x, s.yy, s.xx
	}
	p := &clipperv1.ModelPair{First: first, Second: second, Observations: s.n, FirstLoss: s.x / s.n, SecondLoss: s.y / s.n}
	if r, lower, ok := s.correlation(); ok {
		p.Correlation, p.CorrelationLower = proto.Float64(r), proto.Float64(lower)
	}
	return p
}

// suggest returns the groups that models should share: those that are connected by pairs that are alike,
// unless they share one already.
func (a *application) suggest(pairs []*clipperv1.ModelPair) []*clipperv1.SuggestedGroup {
	component := make([]int, len(a.keys)) // the smallest model that it is connected with
	for i := range component {
		component[i] = i
	}
	join := func(i, j int) {
		from, to := max(component[i], component[j]), min(component[i], component[j])
		for k := range component {
			if component[k] == from {
				component[k] = to
			}
		}
	}
	for _, p := range pairs {
		if p.Correlation != nil && *p.CorrelationLower >= alike && p.Observations >= fewestTogether {
			join(a.models[p.First], a.models[p.Second])
		}
	}
	var groups []*clipperv1.SuggestedGroup
	for root := range a.keys {
		g := &clipperv1.SuggestedGroup{Correlation: 1}
		declared := map[string]bool{}
		for i, key := range a.keys {
			if component[i] == root {
				g.Models = append(g.Models, key)
				declared[cmp.Or(a.proto.Models[i].Group, "/"+key)] = true // No group's name has a slash.
			}
		}
		if len(g.Models) < 2 || len(declared) < 2 {
			continue
		}
		for _, p := range pairs {
			if p.Correlation != nil && component[a.models[p.First]] == root && component[a.models[p.Second]] == root {
				g.Correlation = min(g.Correlation, *p.Correlation)
			}
		}
		groups = append(groups, g)
	}
	return groups
}
