// SPDX-License-Identifier: Apache-2.0

package policies_test

import (
	"errors"
	"io/fs"
	"math"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/internal/recorded"
	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/policies"
)

func TestNew(t *testing.T) {
	for _, name := range policies.Names() {
		p, err := policies.New(name, nil)
		require.NoError(t, err)
		require.NotNil(t, p)

		_, err = policies.New(name, map[string]float64{"speed": 1})
		var parameter *policy.ParameterError
		require.ErrorAs(t, err, &parameter, name)
		require.Equal(t, "speed", parameter.Name)
	}
	_, err := policies.New("exp5", nil)
	require.ErrorContains(t, err, `"exp5"`)
}

func TestNew_outOfRange(t *testing.T) {
	for _, test := range []struct {
		policy, parameter string
		value             float64
	}{
		{"exp3", "eta", -1},
		{"exp3", "eta", math.NaN()},
		{"exp3", "eta", math.Inf(1)},
		{"exp3", "gamma", 1.1},
		{"exp3", "floor", 0},
		{"exp4", "eta", 11},
		{"exp4", "floor", 2},
		{"epsilon-greedy", "epsilon", 1.5},
		{"ucb1", "scale", -0.1},
		{"ucb1", "epsilon", 2},
		{"thompson", "gaussian", 2},
		{"thompson", "gaussian", 0.5},
		{"linucb", "dimension", 0},
		{"linucb", "dimension", 33},
		{"linucb", "dimension", 2.5},
		{"linucb", "alpha", 11},
		{"linucb", "ridge", 0},
		{"linucb", "epsilon", -1},
	} {
		_, err := policies.New(test.policy, map[string]float64{test.parameter: test.value})
		var parameter *policy.ParameterError
		require.ErrorAs(t, err, &parameter)
		require.Equal(t, test.parameter, parameter.Name)
	}
}

// TestPaperFailure replays figure 8 of the Clipper paper: what five CIFAR-10 networks answered, 20,000 queries, the
// best network failing from 5,000 to 10,000. The cumulative errors are those of the paper's rule on
// the same data, and must not be exceeded.
func TestPaperFailure(t *testing.T) {
	const from, to, queries, seeds = 5000, 10000, 20000, 20
	c, err := recorded.ReadCIFAR(recorded.Data(filepath.Join("..", "..", "..")))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("skipped: %v; set %s to the folder that has paper/cifar", err, recorded.DataVariable)
	}
	require.NoError(t, err)
	noise := 0
	for network := range c.Networks {
		if c.Error(network) < c.Error(noise) {
			noise = network
		}
	}
	for _, test := range []struct {
		name, policy string
		parameters   map[string]float64
		slack        float64 // The paper's numbers have three digits.
		want         map[int]float64
	}{
		{"the paper's exp3", "exp3", map[string]float64{"gamma": 0, "floor": 1e-9}, 0.0005, map[int]float64{from: .118, to: .167, queries: .146}},
		// Exploring costs one query in a hundred.
		{"exp3", "exp3", nil, 0.002, map[int]float64{from: .118, to: .167, queries: .146}},
		{"exp4", "exp4", nil, 0.0005, map[int]float64{from: .114, to: .156, queries: .151}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := policies.New(test.policy, test.parameters)
			require.NoError(t, err)
			got := map[int]float64{}
			task := policy.Task{Kind: policy.Label}
			for seed := range uint64(seeds) {
				random := rand.New(rand.NewPCG(seed, 8))
				q := &policy.Query{Random: random}
				s := &policy.State{Priors: []float64{.2, .2, .2, .2, .2}, Statistics: make([]float64, 5)}
				order := random.Perm(len(c.Truth))
				errors := 0.0
				for step := range queries {
					row := order[step%len(order)]
					truth := policy.Integer(c.Truth[row])
					choices := p.Select(s, q, nil)
					predictions := make([]policy.Value, len(choices))
					losses := make([]float64, len(choices))
					for i, choice := range choices {
						label := int64(c.Networks[choice.Model].Class(row))
						if choice.Model == noise && step >= from && step < to {
							label = random.Int64N(10)
						}
						predictions[i] = policy.Integer(label)
						losses[i] = task.Loss(truth, predictions[i])
					}
					errors += task.Loss(truth, p.Combine(s, task, choices, predictions, nil).Value)
					deltas := make([]float64, len(s.Statistics))
					p.Observe(s, policy.Observation{Choices: choices, Losses: losses}, deltas)
					for i, d := range deltas {
						s.Statistics[i] += d
					}
					if _, ok := test.want[step+1]; ok {
						got[step+1] += errors / float64(step+1) / seeds
					}
				}
			}
			t.Logf("cumulative error: %.4v", got)
			for step, want := range test.want {
				require.LessOrEqual(t, got[step], want+test.slack, "after %d queries", step)
			}
		})
	}
}
