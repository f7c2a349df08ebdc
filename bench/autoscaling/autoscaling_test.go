// SPDX-License-Identifier: Apache-2.0

package autoscaling

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// TestExperiment runs the experiment when it is asked to, and writes the result; else it checks with one
// seed that what is compared can be: every rule runs in every scenario.
func TestExperiment(t *testing.T) {
	file, seeds := os.Getenv(resultVariable), []uint64{1, 2, 3, 4, 5}
	if file == "" {
		if testing.Short() {
			t.Skip("20 simulations take a while")
		}
		seeds = seeds[:1]
	}
	r, err := simulate(func(f func(context.Context)) { synctest.Test(t, func(t *testing.T) { f(t.Context()) }) }, seeds)
	require.NoError(t, err)
	require.Len(t, r.Rows, 20)
	if file != "" {
		data, err := json.Marshal(r)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, data, 0o600))
	}
}
