// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
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

func TestContainerNew(t *testing.T) {
	t.Chdir(t.TempDir()) // No checkout is above it.
	checkout := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(checkout, "go.mod"), []byte("module github.com/clipper-serving/clipper\n"), 0o600))

	code, stdout, stderr := run(t, "", "", "container", "new", "--lang", "python", "churn")
	require.Zero(t, code, stderr)
	require.Equal(t, "churn/Dockerfile\nchurn/README.md\nchurn/adapter.py\nchurn/model.txt\nchurn/requirements.txt\nchurn/test_adapter.py\n", stdout)
	require.Contains(t, stderr, "churn/README.md says how to build")
	require.FileExists(t, "churn/adapter.py")

	code, _, stderr = run(t, "", "", "container", "new", "--lang", "go", "churn")
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, stderr, "churn exists already, and nothing is overwritten: name another folder with --directory")
	require.NoFileExists(t, "churn/go.mod")

	for _, args := range [][]string{{"--directory", "named", "--clipper", checkout}, {"--directory", filepath.Join(checkout, "models", "found")}} {
		if len(args) == 2 {
			t.Chdir(checkout)
		}
		code, _, stderr = run(t, "", "", append([]string{"container", "new", "--lang", "go", "churn"}, args...)...)
		require.Zero(t, code, stderr)
		module, err := os.ReadFile(filepath.Join(args[1], "go.mod"))
		require.NoError(t, err)
		require.Contains(t, string(module), fmt.Sprintf("clipper => %q", checkout))
	}

	for _, args := range [][]string{{"churn"}, {"--lang", "cobol", "churn"}, {"--lang", "go"}, {"--lang", "go", "Churn"}, {"--lang", "go", "other", "--clipper", t.TempDir()}} {
		code, _, stderr = run(t, "", "", append([]string{"container", "new"}, args...)...)
		require.Equal(t, cli.ExitUsage, code, stderr)
		require.NoDirExists(t, "other")
	}
}
