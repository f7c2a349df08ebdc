// SPDX-License-Identifier: Apache-2.0

package mean_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/selector/policy/mean"
	"github.com/clipper-serving/clipper/selector/policy/policytest"
)

func TestConformance(t *testing.T) {
	p, err := mean.New(nil)
	require.NoError(t, err)
	policytest.Conformance(t, p)
}

func BenchmarkPolicy(b *testing.B) {
	p, err := mean.New(nil)
	require.NoError(b, err)
	policytest.Benchmark(b, p)
}
