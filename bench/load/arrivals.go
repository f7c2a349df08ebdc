// SPDX-License-Identifier: Apache-2.0

package load

import (
	"time"

	"github.com/clipper-serving/clipper/internal/loadgen"
)

// Arrivals is how queries are spread over time.
type Arrivals = loadgen.Arrivals

// The kinds of arrivals that experiments use.
const (
	Poisson = loadgen.Poisson
	Bursty  = loadgen.Bursty
)

// Schedule returns the moments of arrivals at a mean rate per second, as times since the begin, for
// d. The same seed gives the same schedule.
func Schedule(a Arrivals, rate float64, d time.Duration, seed uint64) []time.Duration {
	return loadgen.Moments([]loadgen.Stage{{From: rate, To: rate, Duration: d}}, a, seed)
}
