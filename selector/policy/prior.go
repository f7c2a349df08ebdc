// SPDX-License-Identifier: Apache-2.0

package policy

// Sums are the additive statistics of a context, or of all contexts together.
type Sums struct {
	// Observations is how many feedbacks were counted.
	Observations float64
	// Statistics is the matrix [model][statistic], row-major, as in [State].
	Statistics []float64
}

// Derive makes a context's state of its own sums and the shared ones, either of which may be nil. With n
// observations of its own, m of others, which are the shared ones without its own, and the prior's weight w, a
// statistic is
//
//	own + min(w / m, 1) · others    for counts and sums: at most w observations more,
//	own + w / (w + n) · others      for log weights.
//
// A context without observations thus begins with the shared log weights as they are, and with the shared
// means as if they had been learned from w observations; after w of its own, both count the same. A weight of
// 0 or less leaves the own sums. The memory of into is used again.
func (p *Panel) Derive(own, shared *Sums, weight float64, into *State) {
	into.Priors = p.priors
	into.Statistics = append(into.Statistics[:0], make([]float64, len(p.priors)*len(p.logWeights))...)
	n := 0.0
	if own != nil {
		copy(into.Statistics, own.Statistics)
		n = own.Observations
	}
	if shared == nil || weight <= 0 || shared.Observations <= n {
		return
	}
	counted, decided := min(weight/(shared.Observations-n), 1), weight/(weight+n)
	for i, x := range shared.Statistics {
		scale := counted
		if p.logWeights[i%len(p.logWeights)] {
			scale = decided
		}
		// Between own and shared, also when one of the copies is older than the other.
		into.Statistics[i] += scale * (x - into.Statistics[i])
	}
}
