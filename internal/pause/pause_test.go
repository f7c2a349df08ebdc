// SPDX-License-Identifier: Apache-2.0

package pause_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/internal/pause"
)

func TestUntil_isNeverEarly(t *testing.T) {
	for _, d := range []time.Duration{-time.Hour, 0, time.Nanosecond, 20 * time.Microsecond, 3 * time.Millisecond} {
		moment := time.Now().Add(d)
		pause.Until(moment)
		require.False(t, time.Now().Before(moment), "%v", d)
	}
}

// BenchmarkUntil reports how late a pause ends, in microseconds at the median and at p99.
func BenchmarkUntil(b *testing.B) {
	for _, d := range []time.Duration{100 * time.Microsecond, 3 * time.Millisecond, 10 * time.Millisecond} {
		b.Run(fmt.Sprint(d), func(b *testing.B) {
			var late []time.Duration
			for b.Loop() {
				moment := time.Now().Add(d)
				pause.Until(moment)
				late = append(late, time.Since(moment))
			}
			slices.Sort(late)
			b.ReportMetric(float64(late[len(late)/2].Nanoseconds())/1e3, "us-late-p50")
			b.ReportMetric(float64(late[len(late)*99/100].Nanoseconds())/1e3, "us-late-p99")
		})
	}
}
