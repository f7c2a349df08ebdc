// SPDX-License-Identifier: Apache-2.0

package oip

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/clipper-serving/clipper/gen/go/inference"
)

// served is what requests are counted for.
type served struct{ name, version string }

// counts are the requests of one application or version.
type counts struct {
	rows, success, fail      uint64
	successTime, failureTime time.Duration
	last                     time.Time
}

// statistics counts the requests that this server answered. Safe for concurrent use.
type statistics struct {
	mu sync.Mutex
	of map[served]*counts
}

// observe counts a request to what exists.
func (s *statistics) observe(to target, rows int, err error, took time.Duration) {
	key := to.served()
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.of[key]
	if c == nil {
		c = &counts{}
		s.of[key] = c
	}
	if err != nil {
		c.fail, c.failureTime = c.fail+1, c.failureTime+took
		return
	}
	c.success, c.successTime = c.success+1, c.successTime+took
	c.rows += uint64(rows)
	c.last = time.Now()
}

func (t target) served() served {
	if t.app != nil {
		return served{t.name(), applicationVersion}
	}
	return served{t.name(), t.version.GetVersion()}
}

// ModelStatistics implements the protocol's extension: what this server has counted of the requests of
// the protocol since it started. What the queues and the models take is in the metrics.
func (s *Server) ModelStatistics(ctx context.Context, req *inference.ModelStatisticsRequest) (*inference.ModelStatisticsResponse, error) {
	name, version := req.GetName(), req.GetVersion()
	res := &inference.ModelStatisticsResponse{}
	if name != "" {
		to, err := s.resolve(ctx, name, version, true)
		if err != nil {
			return nil, err
		}
		if version == "" && to.app == nil {
			for _, v := range to.model.GetVersions() {
				res.ModelStats = append(res.ModelStats, s.statistics.read(served{name, v.GetVersion()}))
			}
			return res, nil
		}
		res.ModelStats = append(res.ModelStats, s.statistics.read(to.served()))
		return res, nil
	}
	entries, err := s.index(ctx)
	if err != nil {
		return nil, err
	}
	keep := map[served]bool{}
	for _, e := range entries {
		key := served{e.GetName(), e.GetVersion()}
		keep[key] = true
		res.ModelStats = append(res.ModelStats, s.statistics.read(key))
	}
	s.statistics.forget(keep)
	slices.SortFunc(res.ModelStats, func(a, b *inference.ModelStatistics) int {
		return cmp.Or(cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetVersion(), b.GetVersion()))
	})
	return res, nil
}

// read returns what was counted.
func (s *statistics) read(key served) *inference.ModelStatistics {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.of[key]
	if c == nil {
		c = &counts{}
	}
	stats := &inference.ModelStatistics{
		Name: key.name, Version: key.version,
		InferenceCount: c.rows,
		ExecutionCount: c.success,
		InferenceStats: &inference.InferStatistics{
			Success: duration(c.success, c.successTime),
			Fail:    duration(c.fail, c.failureTime),
		},
	}
	if !c.last.IsZero() {
		stats.LastInference = uint64(c.last.UnixMilli())
	}
	return stats
}

// forget removes the counts of what no longer exists.
func (s *statistics) forget(keep map[served]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.of {
		if !keep[key] {
			delete(s.of, key)
		}
	}
}

func duration(count uint64, d time.Duration) *inference.StatisticDuration {
	return &inference.StatisticDuration{Count: count, Ns: uint64(d.Nanoseconds())}
}
