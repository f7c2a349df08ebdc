// SPDX-License-Identifier: Apache-2.0

package thompson_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/selector/policy/policytest"
	"github.com/clipper-serving/clipper/selector/policy/thompson"
)

func TestConformance(t *testing.T) {
	for name, gaussian := range map[string]float64{"beta": 0, "gaussian": 1} {
		t.Run(name, func(t *testing.T) {
			p, err := thompson.New(map[string]float64{"gaussian": gaussian})
			require.NoError(t, err)
			policytest.Conformance(t, p)
		})
	}
}

func BenchmarkPolicy(b *testing.B) {
	for name, gaussian := range map[string]float64{"beta": 0, "gaussian": 1} {
		b.Run(name, func(b *testing.B) {
			p, err := thompson.New(map[string]float64{"gaussian": gaussian})
			require.NoError(b, err)
			policytest.Benchmark(b, p)
		})
	}
}
