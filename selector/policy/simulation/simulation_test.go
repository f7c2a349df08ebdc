// SPDX-License-Identifier: Apache-2.0

package simulation_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/selector/policy/policies"
	"github.com/clipper-serving/clipper/selector/policy/simulation"
)

const seeds = 100

func TestPlay(t *testing.T) {
	p, err := policies.New("single", nil)
	require.NoError(t, err)
	r := simulation.Play(p, simulation.Stationary(1, 0.25, 0), 1000, 1, nil)
	require.Equal(t, 1000.0, r.Loss)
	require.Equal(t, 1000.0, r.Regret())
	require.Equal(t, 1000.0, r.PseudoRegret())
	require.InDelta(t, 250, r.Models[1], 70)

	r = simulation.Play(p, simulation.Trap(), 1001, 1, nil)
	require.Equal(t, []float64{500.5, 500}, r.Models)

	r = simulation.Play(p, simulation.Failing(0, 10, 30, 0, 0.5), 100, 1, nil)
	require.Equal(t, 20.0, r.Loss)
	r = simulation.Play(p, simulation.Switching(10, 0, 1, 4), 100, 1, nil)
	require.Equal(t, 70.0, r.Loss, "of 100 steps the first model is the best at the first 10 of each 40")
	require.Equal(t, 70.0, r.PseudoRegret())
}

// TestRegret holds the mean regret of every policy that learns below what is proven about it.
func TestRegret(t *testing.T) {
	for _, c := range simulation.Suite() {
		t.Run(c.Name(), func(t *testing.T) {
			regrets, err := c.Regrets(seeds)
			require.NoError(t, err)
			mean, _ := simulation.Mean(regrets)
			t.Logf("regret %.1f, bound %.1f: %s", mean, c.Bound, c.Source)
			require.LessOrEqual(t, mean, c.Bound)
		})
	}
}

// TestRegret_canFail says that the bounds tell a policy that learns from one that does not.
func TestRegret_canFail(t *testing.T) {
	for _, c := range simulation.Suite() {
		if c.Stream != "far" {
			continue // Of models that are nearly alike, not much can be lost.
		}
		c.Policy, c.Parameters, c.Pseudo = "static", nil, false
		regrets, err := c.Regrets(seeds)
		require.NoError(t, err)
		mean, _ := simulation.Mean(regrets)
		require.Greater(t, mean, c.Bound)
	}
}

// TestReference holds the policies against an implementation that shares nothing with them but the papers.
func TestReference(t *testing.T) {
	python, err := simulation.Python(t.Context())
	if err != nil {
		t.Skipf("skipped: the reference implementation needs a Python with numpy: %v; `make test-go` installs it", err)
	}
	all, err := simulation.Agreement(t.Context(), python, seeds)
	require.NoError(t, err)
	require.NotEmpty(t, all)
	for _, a := range all {
		t.Logf("%-32s ours %8.2f ± %.2f, reference %8.2f ± %.2f: %+.2f errors apart", a.Case.Name(), a.Mean, a.Error, a.ReferenceMean, a.ReferenceError, a.Apart())
		require.LessOrEqual(t, math.Abs(a.Apart()), float64(simulation.Noise), a.Case.Name())
	}
}
