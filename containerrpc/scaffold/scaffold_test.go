// SPDX-License-Identifier: Apache-2.0

package scaffold_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/containerrpc/check"
	"github.com/clipper-serving/clipper/containerrpc/scaffold"
)

func checkout(t *testing.T) string {
	t.Helper()
	source, err := filepath.Abs("../..")
	require.NoError(t, err)
	require.True(t, scaffold.IsSource(source))
	return source
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"a", "churn", "churn-2", "x1-y2-z3", strings.Repeat("a", 63)} {
		require.NoError(t, scaffold.CheckName(good))
	}
	for _, bad := range []string{"", "Churn", "2churn", "-a", "a-", "a--b", "a_b", "a/b", "../a", "a b", "a\n", "é", strings.Repeat("a", 64)} {
		require.ErrorContains(t, scaffold.CheckName(bad), "expected at most 63 lower-case letters", bad)
	}
}

// TestWrite: every language has what a container needs, and nothing of the templates is left in it.
func TestWrite(t *testing.T) {
	programs := map[string][]string{
		scaffold.Python: {"adapter.py", "requirements.txt", "test_adapter.py"},
		scaffold.CPP:    {"adapter.cc", "CMakeLists.txt", "requirements.txt", "test_adapter.py"},
		scaffold.Go:     {"main.go", "go.mod", "main_test.go"},
	}
	for language, program := range programs {
		for _, source := range []string{"", "/src/my clipper"} {
			folder := filepath.Join(t.TempDir(), "new", "folder")
			names, err := scaffold.Write(folder, scaffold.Container{Name: "churn-2", Language: language, Source: source})
			require.NoError(t, err)
			require.ElementsMatch(t, append(program, "Dockerfile", "README.md", "model.txt"), names)
			for _, name := range names {
				text, err := os.ReadFile(filepath.Join(folder, name))
				require.NoError(t, err)
				for _, left := range []string{"<no value>", "SPDX", "if .Source", "\n\n\n\n"} {
					require.NotContains(t, string(text), left, name)
				}
				require.True(t, strings.HasSuffix(string(text), "\n"), name)
			}
			readme, err := os.ReadFile(filepath.Join(folder, "README.md"))
			require.NoError(t, err)
			require.Contains(t, string(readme), "docker build -t churn-2 .")
			require.Equal(t, source == "", strings.Contains(string(readme), "# change this"))
			if source != "" {
				require.Contains(t, string(readme), source)
			}
		}
	}
}

func TestWrite_overwritesNothing(t *testing.T) {
	folder := t.TempDir()
	c := scaffold.Container{Name: "churn", Language: scaffold.Go}
	require.NoError(t, os.WriteFile(filepath.Join(folder, "notes"), nil, 0o600))
	_, err := scaffold.Write(folder, c)
	require.ErrorIs(t, err, scaffold.ErrExists)
	_, err = scaffold.Write(filepath.Join(folder, "notes"), c)
	require.Error(t, err, "a file is no folder")
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	require.Len(t, entries, 1)

	folder = t.TempDir() // Empty.
	_, err = scaffold.Write(folder, c)
	require.NoError(t, err)
}

func TestWrite_refuses(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "folder")
	for _, c := range []scaffold.Container{{Name: "churn", Language: "cobol"}, {Name: "churn"}, {Name: "../churn", Language: scaffold.Go}} {
		_, err := scaffold.Write(folder, c)
		require.Error(t, err)
		require.NoDirExists(t, folder)
	}
}

// TestWrite_goWorks does what the README of a container in Go says. tools/test-python.sh and
// tools/test-cpp.sh do it for the other languages.
func TestWrite_goWorks(t *testing.T) {
	folder := t.TempDir()
	_, err := scaffold.Write(folder, scaffold.Container{Name: "churn", Language: scaffold.Go, Source: checkout(t)})
	require.NoError(t, err)
	for _, args := range [][]string{{"mod", "tidy"}, {"vet", "."}, {"test", "."}, {"build", "-o", "adapter", "."}} {
		command := exec.CommandContext(t.Context(), "go", args...)
		command.Dir = folder
		command.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
		out, err := command.CombinedOutput()
		require.NoError(t, err, "go %v: %s", args, out)
	}
	formatted, err := exec.CommandContext(t.Context(), "gofmt", "-l", folder).CombinedOutput()
	require.NoError(t, err)
	require.Empty(t, string(formatted))

	address := "unix:" + filepath.Join(folder, "s")
	run := func(model string) *exec.Cmd {
		return exec.CommandContext(t.Context(), filepath.Join(folder, "adapter"), "--address", address, "--model-path", filepath.Join(folder, model))
	}
	var ended *exec.ExitError
	out, err := run("missing").CombinedOutput()
	require.ErrorAs(t, err, &ended)
	require.Equal(t, 78, ended.ExitCode(), string(out))

	container := run("model.txt")
	require.NoError(t, container.Start())
	good, err := check.Run(t.Context(), address, check.Options{Timeout: 30 * time.Second, DrainPID: container.Process.Pid}, func(r check.Result) {
		t.Log(r.Status, r.Name, r.Message)
	})
	require.NoError(t, err)
	require.True(t, good)
	require.NoError(t, container.Wait(), "the exit code is 0")
}
