// SPDX-License-Identifier: Apache-2.0

package ratelimit_test

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/ratelimit"
)

func TestLimiter_rate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(&clipperv1.Limits{QueriesPerSecond: 10, Burst: 5}, nil)
		require.Nil(t, l.Acquire(5))
		r := l.Acquire(2)
		require.Equal(t, &ratelimit.Refusal{Limit: ratelimit.Rate, Most: 5, RetryAfter: 200 * time.Millisecond}, r)
		time.Sleep(r.RetryAfter - time.Millisecond)
		require.NotNil(t, l.Acquire(2), "a refused query costs nothing, and the time is no guess")
		time.Sleep(time.Millisecond)
		require.Nil(t, l.Acquire(2))
		require.Zero(t, l.Acquire(6).RetryAfter, "more than the burst never fits")
	})
}

func TestLimiter_concurrency(t *testing.T) {
	l := ratelimit.New(&clipperv1.Limits{Concurrency: 3}, nil)
	require.Nil(t, l.Acquire(2))
	require.Equal(t, ratelimit.Concurrency, l.Acquire(2).Limit)
	require.Nil(t, l.Acquire(1))
	l.Release(2)
	require.Nil(t, l.Acquire(2))
	require.Zero(t, l.Acquire(4).RetryAfter)
}

func TestLimiter_refusedByRateIsNotInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(&clipperv1.Limits{QueriesPerSecond: 1, Concurrency: 1}, nil)
		require.Nil(t, l.Acquire(1))
		l.Release(1)
		require.Equal(t, ratelimit.Rate, l.Acquire(1).Limit)
		time.Sleep(time.Second)
		require.Nil(t, l.Acquire(1))
	})
}

func TestNew(t *testing.T) {
	require.Nil(t, ratelimit.New(nil, nil))
	var none *ratelimit.Limiter
	require.Nil(t, none.Acquire(1000))
	none.Release(1000)

	old := ratelimit.New(&clipperv1.Limits{QueriesPerSecond: 1}, nil)
	require.Same(t, old, ratelimit.New(&clipperv1.Limits{QueriesPerSecond: 1}, old))
	require.NotSame(t, old, ratelimit.New(&clipperv1.Limits{QueriesPerSecond: 2}, old))
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		limits *clipperv1.Limits
		field  string
	}{
		{nil, ""},
		{&clipperv1.Limits{QueriesPerSecond: 0.5, Burst: 1, Concurrency: 1}, ""},
		{&clipperv1.Limits{QueriesPerSecond: -1}, "queries_per_second"},
		{&clipperv1.Limits{QueriesPerSecond: math.NaN()}, "queries_per_second"},
		{&clipperv1.Limits{QueriesPerSecond: math.Inf(1)}, "queries_per_second"},
		{&clipperv1.Limits{Burst: 1}, "burst"},
		{&clipperv1.Limits{QueriesPerSecond: 1, Burst: math.MaxUint32}, "burst"},
		{&clipperv1.Limits{Concurrency: math.MaxUint32}, "concurrency"},
	} {
		field, err := ratelimit.Check(tt.limits)
		require.Equal(t, tt.field, field)
		require.Equal(t, tt.field != "", err != nil)
	}
}
