// SPDX-License-Identifier: Apache-2.0

package queue_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSimulation_recovers: whatever was learned while something was wrong, a second after it about as
// many queries are answered in time as if it had never been, below capacity and beyond it.
func TestSimulation_recovers(t *testing.T) {
	const (
		until  = 2 * time.Second // when nothing is wrong any more
		within = time.Second
		always = time.Hour
	)
	type disturbance func(replica, batch int, at time.Duration) float64
	first := func(batches int, factor float64) disturbance {
		return func(_, batch int, _ time.Duration) float64 {
			if batch < batches {
				return factor
			}
			return 1
		}
	}
	during := func(from, to time.Duration, replicas int, factor float64) disturbance {
		return func(replica, _ int, at time.Duration) float64 {
			if replica < replicas && at >= from && at < to {
				return factor
			}
			return 1
		}
	}
	disturbances := []struct {
		name  string
		by    disturbance
		after float64 // how many times as long a batch takes for good
	}{
		{"nothing", nil, 1},
		{"cold start 10", first(1, 10), 1},
		{"cold start 100", first(1, 100), 1},
		{"three cold batches", first(3, 20), 1},
		{"slow for a second", during(time.Second, until, 4, 20), 1},
		{"one slow for a second", during(time.Second, until, 1, 20), 1},
		{"hanging", during(time.Second, time.Second+50*time.Millisecond, 4, 100), 1},
		{"faster for good", during(0, time.Second, 4, 3), 1},
		{"always slow", during(0, always, 4, 3), 3},
		{"slower for good", during(time.Second, always, 4, 3), 3},
	}
	for _, p := range []struct {
		profile  profile
		replicas int
		rate     float64 // about what is sustained
	}{
		{profiles[1], 1, 40000},
		{profiles[2], 1, 30000},
		{profiles[4], 4, 320},
		{profiles[5], 4, 190},
	} {
		for _, share := range []float64{0.5, 1.5} {
			t.Run(fmt.Sprintf("%s/%v", p.profile.name, share), func(t *testing.T) {
				t.Parallel()
				never := map[float64]float64{}
				for _, d := range disturbances {
					l := at20ms(share * p.rate / d.after)
					l.warm = until + within
					inTime := simulate(t, pool{profile: p.profile, replicas: p.replicas, disturbed: d.by}, l).inTime
					if _, ok := never[d.after]; !ok {
						never[d.after] = inTime
					}
					require.GreaterOrEqual(t, inTime, 0.9*never[d.after]-0.01, d.name)
				}
			})
		}
	}
}
