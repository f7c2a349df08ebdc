// SPDX-License-Identifier: Apache-2.0

package thompson

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// stated is the error that the package comment states.
const stated = 0.01

// exactly computes what best does with a uniform grid so fine that it needs no thought.
func exactly(beliefs []belief, dst []float64) {
	low, high := math.Inf(1), math.Inf(-1)
	for _, b := range beliefs {
		low, high = min(low, b.mean-12*b.deviation), max(high, b.mean+12*b.deviation)
	}
	if beliefs[0].beta {
		low, high = 0, 1
	}
	const n = 1 << 18
	h := (high - low) / n
	below := make([]float64, len(beliefs))
	for k := range n {
		x := low + (float64(k)+0.5)*h
		masses := make([]float64, len(beliefs))
		for i, b := range beliefs {
			if b.beta {
				masses[i] = h * math.Exp(b.right*math.Log(x)+b.wrong*math.Log(1-x)-b.norm)
			} else {
				masses[i] = h * math.Exp(-(x-b.mean)*(x-b.mean)/(2*b.deviation*b.deviation)-b.norm)
			}
		}
		for i, m := range masses {
			for j := range masses {
				if j != i {
					m *= below[j] + masses[j]/2
				}
			}
			dst[i] += m
		}
		for i, m := range masses {
			below[i] += m
		}
	}
}

// TestBest holds the grid to the stated error, for models that were asked equally
// often and for such that were not at all.
func TestBest(t *testing.T) {
	for _, test := range []struct {
		name   string
		counts []float64
		losses []float64
	}{
		{"nothing known", []float64{0, 0, 0}, []float64{0, 0, 0}},
		{"one answer", []float64{1, 0}, []float64{1, 0}},
		{"a fraction", []float64{0.3, 0.5}, []float64{0.2, 0.1}},
		{"alike", []float64{100, 100, 100, 100, 100}, []float64{20, 22, 24, 26, 28}},
		{"few losses", []float64{500, 480, 510}, []float64{0, 1, 2}},
		{"no reward", []float64{500, 480, 510}, []float64{500, 480, 510}},
		{"one is new", []float64{10000, 3, 50}, []float64{1000, 1, 6}},
		{"one is very new", []float64{1e6, 1}, []float64{1e5, 0}},
		{"long known", []float64{1e6, 1e6, 9e5}, []float64{300000, 300300, 270000}},
		{"one is far behind", []float64{1000, 1000}, []float64{100, 900}},
		{"many", []float64{10, 20, 30, 40, 50, 60, 70, 80, 90, 100}, []float64{3, 5, 7, 9, 11, 13, 15, 17, 19, 21}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for name, believe := range map[string]func(right, wrong float64) belief{"beta": betaBelief, "normal": normalBelief} {
				beliefs := make([]belief, len(test.counts))
				for i, n := range test.counts {
					beliefs[i] = believe(n-test.losses[i], test.losses[i])
					beliefs[i].model = i
				}
				got, want := make([]float64, len(beliefs)), make([]float64, len(beliefs))
				exactly(beliefs, want)
				best(beliefs, got)
				worst := 0.0
				for i := range got {
					worst = max(worst, math.Abs(got[i]-want[i]))
				}
				t.Logf("%s: %.3g, off by %.2g", name, want, worst)
				require.LessOrEqual(t, worst, stated, "%s: %v is not %v", name, got, want)
			}
		})
	}
}

// TestBest_error holds the stated bound over random counts of all sizes.
func TestBest_error(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 5))
	worst := 0.0
	for range 60 {
		beliefs := make([]belief, 2+random.IntN(4))
		for i := range beliefs {
			n := math.Exp(random.Float64() * math.Log(1e5))
			l := n * (0.05 + 0.2*random.Float64()*random.Float64())
			if random.IntN(3) == 0 {
				l = min(float64(random.IntN(4)), n)
			}
			beliefs[i] = betaBelief(n-l, l)
			beliefs[i].model = i
		}
		got, want := make([]float64, len(beliefs)), make([]float64, len(beliefs))
		exactly(beliefs, want)
		best(beliefs, got)
		for i := range got {
			worst = max(worst, math.Abs(got[i]-want[i]))
		}
	}
	t.Logf("off by %.2g at most", worst)
	require.Less(t, worst, stated)
}
