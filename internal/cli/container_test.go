// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/containerrpc/containertest"
	"github.com/clipper-serving/clipper/internal/cli"
)

func TestContainerCheck(t *testing.T) {
	c := containertest.Start(t, containertest.WrongRows)
	code, stdout, stderr := run(t, "", "", "container", "check", c.Address())
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, stdout, "✓ reachable: unix:")
	require.Contains(t, stdout, "✗ batch of one: the answer to a batch of 1 rows cannot be used")
	require.Contains(t, stdout, `- drain: needs "batch of one"`)
	require.Contains(t, stderr, "does not keep the contract")

	code, stdout, _ = run(t, "", "", "container", "check", c.Address(), "--json")
	require.Equal(t, cli.ExitFailed, code)
	var report struct {
		Passed bool
		Checks []struct{ Name, Status, Message string }
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &report))
	require.False(t, report.Passed)
	require.Equal(t, "failed", report.Checks[3].Status)

	for _, args := range [][]string{{"--timeout", "0s"}, {"--sample", "["}, {"--drain-pid", "-1"}, {}} {
		words := append([]string{"container", "check"}, args...)
		if len(args) > 0 {
			words = append(words, c.Address())
		}
		code, _, stderr = run(t, "", "", words...)
		require.Equal(t, cli.ExitUsage, code, stderr)
	}
}
