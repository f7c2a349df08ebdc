// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// profile is how long a model takes: Fixed + PerRow·rows.
type profile struct {
	Fixed  time.Duration
	PerRow time.Duration
}

// profiles are those of the six containers in figure 3 of Crankshaw et al., Clipper: A Low-Latency
// Online Prediction Serving System, NSDI 2017: the middle of the range of the authors' fits of
// three runs. Their fits are of the 99th percentile, so that means with noise on top of them are
// a little slower than the originals.
var profiles = map[string]profile{
	"noop":       {Fixed: 2200 * time.Microsecond, PerRow: 15300 * time.Nanosecond},
	"linear_svm": {Fixed: 3150 * time.Microsecond, PerRow: 19250 * time.Nanosecond},
	"log_reg":    {Fixed: 2550 * time.Microsecond, PerRow: 17750 * time.Nanosecond},
	"spark_svm":  {Fixed: 1500 * time.Microsecond, PerRow: 32500 * time.Nanosecond},
	"rf":         {Fixed: 9450 * time.Microsecond, PerRow: 26 * time.Microsecond},
	"kernel_svm": {Fixed: 6 * time.Millisecond, PerRow: 4930 * time.Microsecond},
}

func profileNamed(name string) (profile, error) {
	p, ok := profiles[name]
	if !ok {
		return p, fmt.Errorf("there is no profile %q; there are %s", name, strings.Join(slices.Sorted(maps.Keys(profiles)), ", "))
	}
	return p, nil
}

// clock draws how long batches take.
type clock struct {
	profile
	// Noise is the standard deviation of the logarithm of a factor whose median is 1.
	Noise float64
	// StallChance is the share of batches that take Stall times as long.
	StallChance, Stall float64
	// StallEvery is the number of batches from one that stalls to the next, besides those by chance; 0:
	// none do.
	StallEvery int
	random     *rand.Rand

	untilStall int // the batches before the next one that stalls; -1 until it is drawn
}

// next returns the duration of a batch.
func (c *clock) next(rows int) time.Duration {
	d := float64(c.Fixed) + float64(c.PerRow)*float64(rows)
	// Both are drawn for every batch, so that the same seed gives the same noise with and without
	// stalls.
	d *= math.Exp(c.Noise * c.random.NormFloat64())
	stalls := c.random.Float64() < c.StallChance
	if c.StallEvery > 0 {
		if c.untilStall < 0 { // Containers that begin together do not stall together.
			c.untilStall = c.random.IntN(c.StallEvery)
		}
		if c.untilStall == 0 {
			stalls, c.untilStall = true, c.StallEvery
		}
		c.untilStall--
	}
	if stalls {
		d *= c.Stall
	}
	return time.Duration(d)
}
