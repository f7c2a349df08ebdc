// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/abstraction/metrics"
)

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	m, err := metrics.New(reg)
	require.NoError(t, err)
	v := m.Version("m", "1")
	v.BatchRows.Observe(3)
	v.Replicas.WithLabelValues("ready").Set(1)
	m.Version("m", "2")
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
	before, err := testutil.GatherAndCount(reg)
	require.NoError(t, err)
	m.Delete("m", "1")
	after, err := testutil.GatherAndCount(reg)
	require.NoError(t, err)
	require.Equal(t, before/2, after, "a version's series go with it")
	_, err = metrics.New(reg)
	require.Error(t, err)
}
