// SPDX-License-Identifier: Apache-2.0

package single_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/selector/policy/policytest"
	"github.com/clipper-serving/clipper/selector/policy/single"
)

func TestConformance(t *testing.T) {
	p, err := single.New(nil)
	require.NoError(t, err)
	policytest.Conformance(t, p)
}

func BenchmarkPolicy(b *testing.B) {
	p, err := single.New(nil)
	require.NoError(b, err)
	policytest.Benchmark(b, p)
}
