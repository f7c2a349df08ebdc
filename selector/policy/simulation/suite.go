// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"fmt"
	"math"

	"github.com/clipper-serving/clipper/selector/policy/policies"
)

// Case is a policy on a stream, and what is proven about it.
type Case struct {
	// Policy and Parameters are as an application gives them.
	Policy     string
	Parameters map[string]float64
	// Stream is the stream's name, and Make makes one.
	Stream string
	Make   func() Stream
	Steps  int
	// Pseudo is true when the bound is on the pseudo-regret, and not on the regret.
	Pseudo bool
	// Bound is what the mean regret may be at most, and Source where that is from.
	Bound  float64
	Source string
	// Reference is the name of the policy in the reference implementation; empty when it has none.
	Reference string
}

// Name names the case.
func (c Case) Name() string {
	name := c.Policy
	if c.Parameters["gaussian"] == 1 {
		name += " (Gaussian)"
	}
	return name + ", " + c.Stream
}

// Regrets plays the case with as many seeds and returns each regret.
func (c Case) Regrets(seeds int) ([]float64, error) {
	p, err := policies.New(c.Policy, c.Parameters)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name(), err)
	}
	regrets := make([]float64, seeds)
	for seed := range regrets {
		r := Play(p, c.Make(), c.Steps, uint64(seed), nil)
		regrets[seed] = r.Regret()
		if c.Pseudo {
			regrets[seed] = r.PseudoRegret()
		}
	}
	return regrets, nil
}

// stream is a stream of the suite. means is nil when it is not stationary.
type stream struct {
	name   string
	models int
	means  []float64
	make   func() Stream
}

func streams(steps int) []stream {
	stationary := func(name string, errors ...float64) stream {
		return stream{name, len(errors), errors, func() Stream { return Stationary(errors...) }}
	}
	return []stream{
		stationary("close", 0.2, 0.25, 0.3),
		stationary("far", 0.1, 0.5, 0.9, 0.5, 0.6),
		stationary("all bad", 1, 1, 1),
		{"switches", 4, nil, func() Stream { return Switching(steps/10, 0.1, 0.6, 4) }},
		{"fails", 5, nil, func() Stream { return Failing(0, steps/5, 2*steps/5, 0.1, 0.2, 0.3, 0.4, 0.5) }},
		{"trap", 2, nil, Trap},
	}
}

// Suite is every policy that learns, on stationary streams and, where something is proven of it, on adversarial
// ones. The rates are such that exp3 and exp4 do not meet their floor, of which the proofs know nothing.
func Suite() []Case {
	// Of long the bounds of epsilon-greedy and linucb say something.
	const steps, long = 2000, 20000
	const eta, gamma, floor, epsilon = 0.01, 0.05, 1e-9, 0.1
	T := float64(steps)
	var cases []Case
	for _, s := range streams(steps) {
		k := float64(s.models)
		add := func(c Case) {
			c.Stream, c.Make = s.name, s.make
			if c.Steps == 0 {
				c.Steps = steps
			}
			cases = append(cases, c)
		}
		add(Case{
			Policy: "exp3", Parameters: map[string]float64{"eta": eta, "gamma": gamma, "floor": floor}, Reference: "exp3",
			Bound: math.Log(k)/eta + eta*k*T/2 + gamma*T, Source: "ln K/η + ηKT/2 + γT: Auer et al. 2002, with the losses' variance as in Bubeck and Cesa-Bianchi 2012, theorem 3.1",
		})
		add(Case{
			Policy: "exp4", Parameters: map[string]float64{"eta": eta, "floor": floor}, Reference: "exp4",
			Bound: math.Log(k)/eta + eta*T/8, Source: "ln K/η + ηT/8: Cesa-Bianchi and Lugosi 2006, theorem 2.2",
		})
		if s.means == nil {
			continue
		}
		add(Case{
			Policy: "epsilon-greedy", Parameters: map[string]float64{"epsilon": epsilon}, Pseudo: true, Steps: long,
			Bound: epsilonGreedy(s.means, long, epsilon), Source: "Σ Δ (ε/K + x e^(−x/5) + 2/Δ² e^(−Δ²x/2)), x = εt/2K: Auer et al. 2002 (UCB1), proof of theorem 3",
		})
		add(Case{
			Policy: "ucb1", Pseudo: true, Reference: "ucb1",
			Bound: ucb1(s.means, steps), Source: "8 Σ ln T/Δ + (1 + π²/3) Σ Δ: Auer et al. 2002 (UCB1), theorem 1",
		})
		if s.name == "all bad" { // There is nothing to learn; it costs much to be told.
			continue
		}
		add(Case{
			Policy: "thompson", Pseudo: true, Reference: "thompson",
			Bound: math.Sqrt(k * T * math.Log(T)), Source: "O(√(KT ln T)), here with the constant 1: Agrawal and Goyal 2017, theorem 1.2",
		})
		add(Case{
			Policy: "thompson", Parameters: map[string]float64{"gaussian": 1}, Pseudo: true, Reference: "thompson-gaussian",
			Bound: math.Sqrt(k * T * math.Log(k)), Source: "O(√(KT ln K)), here with the constant 1: Agrawal and Goyal 2017, theorem 1.3",
		})
	}
	const arms = 5
	cases = append(cases, Case{
		Policy: "thompson", Stream: "uniform", Make: func() Stream { return Uniform(arms) }, Steps: steps, Pseudo: true, Reference: "thompson",
		Bound: math.Sqrt(arms * T * math.Log(arms) / 2), Source: "√(½ KT ln K) over the prior: Russo and Van Roy 2016, proposition 1",
	})
	const dimension, arm = 4, 2
	radius := 0.5*math.Sqrt(dimension*math.Log(20*(1+2*long/dimension))) + 0.7
	return append(cases, Case{
		Policy: "linucb", Parameters: map[string]float64{"dimension": 1, "alpha": radius}, Stream: "linear", Make: Linear, Steps: long, Pseudo: true,
		Bound:  linear(long, dimension),
		Source: fmt.Sprintf("4 √(Td ln(λ + TL²/d)) (√λ S + ½ √(2 ln 1/δ + d ln(1 + TL²/λd))), d = %d for %d models: Abbasi-Yadkori et al. 2011, theorem 3", dimension, arm),
	})
}

// gaps are by how much models are worse than the best, without those that are not.
func gaps(means []float64) []float64 {
	best := math.Inf(1)
	for _, m := range means {
		best = min(best, m)
	}
	var all []float64
	for _, m := range means {
		if m > best {
			all = append(all, m-best)
		}
	}
	return all
}

func ucb1(means []float64, steps int) float64 {
	bound := 0.0
	for _, gap := range gaps(means) {
		bound += 8*math.Log(float64(steps))/gap + (1+math.Pi*math.Pi/3)*gap
	}
	return bound
}

// epsilonGreedy sums the proof's bound on the probability that a step asks a worse model, for an epsilon that
// stays. All of these together are 1 at most.
func epsilonGreedy(means []float64, steps int, epsilon float64) float64 {
	bound, k := 0.0, float64(len(means))
	all := gaps(means)
	for t := range steps {
		x := epsilon * float64(t) / (2 * k)
		exploring, greedy, worst := 0.0, 0.0, 0.0
		for _, gap := range all {
			exploring += gap * epsilon / k
			greedy += gap * 2 * (x*math.Exp(-x/5) + 2/(gap*gap)*math.Exp(-gap*gap*math.Floor(x)/2))
			worst = max(worst, gap)
		}
		bound += exploring + min(greedy, (1-epsilon)*worst)
	}
	return bound
}

// linear is the bound for a probability of 0.95, rewards of 0 and 1, features of a norm of at most √2, the ridge 1
// and coefficients of a norm S of at most 0.7.
func linear(steps, d float64) float64 {
	const ridge, norm, coefficients, delta = 1, 2, 0.7, 0.05
	return 4 * math.Sqrt(steps*d*math.Log(ridge+steps*norm/d)) *
		(math.Sqrt(ridge)*coefficients + 0.5*math.Sqrt(2*math.Log(1/delta)+d*math.Log(1+steps*norm/(ridge*d))))
}
