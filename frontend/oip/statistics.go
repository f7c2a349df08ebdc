// SPDX-License-Identifier: Apache-2.0

package oip

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
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

// ModelStatistics implements the protocol's extension. Requests are those of the protocol that this
// server has answered since it started; what queue, model and cache have done for a version they have
// done for all who asked it, applications included.
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
				if err := s.addStatistics(ctx, res, served{name, v.GetVersion()}, true); err != nil {
					return nil, err
				}
			}
			return res, nil
		}
		return res, s.addStatistics(ctx, res, to.served(), to.app == nil)
	}
	entries, err := s.index(ctx)
	if err != nil {
		return nil, err
	}
	keep := map[served]bool{}
	for _, e := range entries {
		key := served{e.GetName(), e.GetVersion()}
		keep[key] = true
		_, err := s.deps.Applications.Application(e.GetName())
		if err := s.addStatistics(ctx, res, key, err != nil); err != nil {
			return nil, err
		}
	}
	s.statistics.forget(keep)
	slices.SortFunc(res.ModelStats, func(a, b *inference.ModelStatistics) int {
		return cmp.Or(cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetVersion(), b.GetVersion()))
	})
	return res, nil
}

// addStatistics adds what was counted for an application or, if it is one, a version of a model.
func (s *Server) addStatistics(ctx context.Context, res *inference.ModelStatisticsResponse, key served, version bool) error {
	stats := s.statistics.read(key)
	res.ModelStats = append(res.ModelStats, stats)
	if !version {
		return nil
	}
	answer, err := s.deps.Models.GetBatching(ctx, &clipperv1.GetBatchingRequest{Model: key.name, Version: key.version})
	if status.Code(err) == codes.NotFound {
		return nil // It has gone in between.
	}
	if err != nil {
		return err
	}
	c := answer.GetCounters()
	stats.ExecutionCount = c.GetBatches()
	stats.InferenceStats.Queue = duration(c.GetQueuedRows(), c.GetQueueTime().AsDuration())
	stats.InferenceStats.ComputeInfer = duration(c.GetBatches(), c.GetBatchTime().AsDuration())
	stats.InferenceStats.CacheHit = duration(c.GetCacheHits(), 0)
	stats.InferenceStats.CacheMiss = duration(c.GetCacheMisses(), 0)
	return nil
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
