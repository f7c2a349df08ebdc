// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/abstraction/launcher"
	"github.com/clipper-serving/clipper/abstraction/launcher/launchertest"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// requireGroups skips a test on a machine without control groups, which `make test` says, also in CI: no package can
// be installed for them. tools/test-limits.sh runs it in a virtual machine, where CLIPPER_REQUIRE_LIMITS makes it fail.
func requireGroups(t *testing.T) *Launcher {
	t.Helper()
	l := newLauncher(t, Config{})
	if l.groups == nil {
		if os.Getenv("CLIPPER_REQUIRE_LIMITS") != "" {
			require.Fail(t, "no control groups", l.unlimited.Error())
		}
		t.Skipf("no control groups: %v", l.unlimited)
	}
	return l
}

func read(t *testing.T, parts ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(parts...))
	require.NoError(t, err)
	return strings.TrimSpace(string(text))
}

func TestLimitsAreTheKernels(t *testing.T) {
	l := requireGroups(t)
	c := self(t)
	c.Environment = map[string]string{launchertest.EnvBehaviour: "serve"}
	c.Resources = &clipperv1.Resources{Cpus: 0.25, MemoryBytes: 512 << 20}
	i, err := l.Start(t.Context(), spec(c))
	require.NoError(t, err)
	launchertest.Greeting(t, i)
	dir := groupOf(i)
	require.Equal(t, strconv.Itoa(i.(*replica).started.PID), read(t, dir, "cgroup.procs"))
	require.Equal(t, "25000 100000", read(t, dir, "cpu.max"))
	require.Equal(t, strconv.Itoa(512<<20), read(t, dir, "memory.max"))
	require.Equal(t, strconv.Itoa(maxProcesses), read(t, dir, "pids.max"))
	i.Stop(t.Context())
	require.NoDirExists(t, dir)

	c.Resources = nil
	free, err := l.Start(t.Context(), spec(c))
	require.NoError(t, err)
	dir = groupOf(free)
	require.Equal(t, "max", read(t, dir, "memory.max"))
	require.Equal(t, "max 100000", read(t, dir, "cpu.max"))
	require.NoError(t, l.Close())
	require.NoDirExists(t, l.groups.dir)
}

// groupOf returns the directory of a replica's control group.
func groupOf(i launcher.Instance) string {
	r := i.(*replica)
	return filepath.Join(r.keeper.group, r.started.ID)
}

func TestProcessorTimeIsHeldBack(t *testing.T) {
	l := requireGroups(t)
	c := commandContainer("sh", "-c", "while :; do :; done")
	c.Resources = &clipperv1.Resources{Cpus: 0.05}
	i, err := l.Start(t.Context(), spec(c))
	require.NoError(t, err)
	throttled := func() bool { return !strings.Contains(read(t, groupOf(i), "cpu.stat"), "nr_throttled 0") }
	require.Eventually(t, throttled, time.Minute, 10*time.Millisecond)
}

func TestWhatHasLeftTheProcessGroupEndsToo(t *testing.T) {
	i, err := requireGroups(t).Start(t.Context(), spec(commandContainer("sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!; exit 5")))
	require.NoError(t, err)
	<-i.Done()
	require.Equal(t, launcher.Exit{Code: 5}, i.Exit())
	pid, err := strconv.Atoi(i.Logs(1)[0])
	require.NoError(t, err)
	_, err = startTime(pid)
	require.Error(t, err)
}

func TestGroupOfADeadKeeperIsRemoved(t *testing.T) {
	requireGroups(t)
	dir := shortDirectory(t)
	s := startServer(t, dir, time.Hour)
	s.kill(t)
	require.DirExists(t, s.Group)
	killKeeper(t, s)

	newLauncher(t, Config{RunDirectory: dir})
	require.NoDirExists(t, s.Group)
}

func TestGroupOfNobodyIsLeftAlone(t *testing.T) {
	other := t.TempDir()
	run := shortDirectory(t)
	dead := filepath.Join(run, "dead")
	require.NoError(t, os.Mkdir(dead, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dead, lockName), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dead, groupName), []byte(other), 0o600))
	newLauncher(t, Config{RunDirectory: run})
	require.DirExists(t, other)
	require.NoDirExists(t, dead)
}

// Where there are no limits, one who asks for them is told so, not left without.
func TestLimitsThatCannotBeAreRefused(t *testing.T) {
	l := newLauncher(t, Config{})
	if l.groups != nil {
		require.NoError(t, removeGroup(l.groups.dir))
		l.own.group = ""
	}
	l.groups, l.unlimited = nil, errors.New("there are none")
	c := commandContainer("sh")
	require.NoError(t, l.Check(c))
	for _, r := range []*clipperv1.Resources{{MemoryBytes: 1 << 30}, {Cpus: 1}} {
		c.Resources = r
		var field *launcher.FieldError
		require.ErrorAs(t, l.Check(c), &field)
		require.Equal(t, "resources", field.Field)
		require.Contains(t, field.Message, "there are none")
		require.Contains(t, field.Message, "--launcher docker")
		_, err := l.Start(t.Context(), spec(c))
		require.ErrorAs(t, err, &field)
	}
}

func TestANamedGroupMustBeThere(t *testing.T) {
	run := shortDirectory(t)
	_, err := New(Config{RunDirectory: run, LogDirectory: t.TempDir(), Cgroup: "/no-such-group"}, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "cgroup: replicas cannot have limits below it")
	left, err := filepath.Glob(filepath.Join(run, "*", lockName))
	require.NoError(t, err)
	require.Empty(t, left)
}
