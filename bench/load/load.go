// SPDX-License-Identifier: Apache-2.0

// Package load generates load and measures latency: closed loops of callers who wait, and open
// loops of queries that come when they come.
package load

import (
	"context"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Measurement is what a closed loop saw.
type Measurement struct {
	// Throughput is in calls per second.
	Throughput float64
	// P50 and P99 are latencies.
	P50, P99 time.Duration
	// Errors is the number of calls that failed; they count for nothing else.
	Errors int
	// FirstError is one of the errors.
	FirstError error
}

// Closed runs call in a loop from a number of callers for a while and measures it after a warm-up
// of a quarter of that time. Each caller makes its next call when the last one has returned, so
// the latencies are those of a system whose callers wait; they are not those of an open system.
func Closed(ctx context.Context, callers int, d time.Duration, call func(context.Context) error) Measurement {
	var (
		mu    sync.Mutex
		m     Measurement
		all   = hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 3)
		wg    sync.WaitGroup
		begin = time.Now().Add(d / 4)
		end   = begin.Add(d)
	)
	for range callers {
		wg.Go(func() {
			own := hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 3)
			failed, first := 0, error(nil)
			for start := time.Now(); start.Before(end) && ctx.Err() == nil; {
				err := call(ctx)
				now := time.Now()
				switch {
				case err != nil:
					failed++
					first = err
				case start.After(begin):
					_ = own.RecordValue(now.Sub(start).Microseconds())
				}
				start = now
			}
			mu.Lock()
			defer mu.Unlock()
			all.Merge(own)
			m.Errors += failed
			if first != nil {
				m.FirstError = first
			}
		})
	}
	wg.Wait()
	m.Throughput = float64(all.TotalCount()) / d.Seconds()
	m.P50 = time.Duration(all.ValueAtQuantile(50)) * time.Microsecond
	m.P99 = time.Duration(all.ValueAtQuantile(99)) * time.Microsecond
	return m
}
