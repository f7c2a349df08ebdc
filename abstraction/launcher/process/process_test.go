// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/clipper-serving/clipper/abstraction/launcher"
	"github.com/clipper-serving/clipper/abstraction/launcher/launchertest"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// envServer makes the test binary a server that starts a replica and waits to be
// killed; it holds the run directory.
const envServer = "PROCESS_TEST_SERVER"

func TestMain(m *testing.M) {
	if code, ran := launchertest.Main(); ran {
		os.Exit(code)
	}
	if text := os.Getenv(envServer); text != "" {
		if err := serve(text); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	goleak.VerifyTestMain(m)
}

// server is a server in a process of its own, with two replicas, m@1@0 and m@1@1, which do not exit with their
// parent.
type server struct {
	Replicas []Started
	Keeper   int
	Group    string

	command *exec.Cmd
}

// serve is what that process does, until it is killed.
func serve(text string) error {
	dir, claim, _ := strings.Cut(text, " ")
	wait, err := time.ParseDuration(claim)
	if err != nil {
		return err
	}
	l, err := New(Config{RunDirectory: dir, LogDirectory: dir, ClaimTime: wait}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	s := server{}
	for _, name := range []string{"0", "1"} {
		one := spec(commandContainer("sh", "-c", chatter))
		one.Replica = name
		i, err := l.Start(context.Background(), one)
		if err != nil {
			return err
		}
		s.Replicas = append(s.Replicas, i.(*replica).started)
	}
	s.Keeper, s.Group = l.own.pid, l.own.group
	if err := json.NewEncoder(os.Stdout).Encode(s); err != nil {
		return err
	}
	select {}
}

// chatter says that it has begun, and ends well when it is asked to.
const chatter = `exec 2>/dev/null; trap 'echo asked; exit 7' TERM; echo begun; while :; do sleep 0.05; done`

func startServer(t *testing.T, dir string, claim time.Duration) *server {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	s := &server{command: exec.Command(exe)}
	s.command.Env = append(os.Environ(), envServer+"="+dir+" "+claim.String())
	out, err := s.command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, s.command.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal([]byte(line), s), line)
	t.Cleanup(func() { _ = syscall.Kill(s.Keeper, syscall.SIGTERM) }) // If it is there still.
	return s
}

// kill is what ends a server that is not asked.
func (s *server) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, s.command.Process.Kill())
	_ = s.command.Wait()
}

// killKeeper does the same to the keeper that it has left, whose replicas do not end by themselves.
func killKeeper(t *testing.T, s *server) {
	t.Helper()
	require.NoError(t, syscall.Kill(s.Keeper, syscall.SIGKILL))
	require.Eventually(t, func() bool { _, err := startTime(s.Keeper); return err != nil }, 10*time.Second, time.Millisecond)
	_, err := startTime(s.Replicas[0].PID)
	require.NoError(t, err, "it must outlive its keeper for the test to be one")
}

// shortDirectory is needed since the path of a unix socket is short.
func shortDirectory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "clp") //nolint:usetesting // The path of TempDir is too long.
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

func newLauncher(t *testing.T, cfg Config) *Launcher {
	t.Helper()
	if cfg.RunDirectory == "" {
		cfg.RunDirectory = shortDirectory(t)
	}
	cfg.LogDirectory = t.TempDir()
	l, err := New(cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

func self(t *testing.T) *clipperv1.Container {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	return commandContainer(exe)
}

func commandContainer(arguments ...string) *clipperv1.Container {
	return &clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: arguments}}}
}

func spec(c *clipperv1.Container) launcher.Spec {
	return launcher.Spec{Model: "m", Version: "1", Replica: "0", Container: c}
}

func TestConformance(t *testing.T) {
	launchertest.Run(t, launchertest.Suite{
		New: func(t *testing.T, grace time.Duration) launcher.Launcher {
			return newLauncher(t, Config{StopTimeout: grace})
		},
		Container: self,
		Unlimited: unlimited(t),
	})
}

// unlimited says why replicas cannot be held to limits on this machine; it is empty when they can.
func unlimited(t *testing.T) string {
	t.Helper()
	if err := newLauncher(t, Config{}).unlimited; err != nil {
		return err.Error()
	}
	return ""
}

func TestEnvironmentHoldsNoSettingsOfTheServer(t *testing.T) {
	t.Setenv("CLIPPER_STORE", "redis://user:secret@host")
	t.Setenv("HTTP_PROXY", "kept")
	c := self(t)
	c.Environment = map[string]string{launchertest.EnvBehaviour: "serve", "PATH_EXTRA": "a=b"}
	i, err := newLauncher(t, Config{}).Start(t.Context(), spec(c))
	require.NoError(t, err)
	env := launchertest.Greeting(t, i)
	require.NotContains(t, strings.Join(env, "\n"), "secret")
	require.Contains(t, env, "HTTP_PROXY=kept")
	require.Contains(t, env, "PATH_EXTRA=a=b")
	require.Contains(t, env, "CLIPPER_EXIT_WITH_PARENT=1")
	require.Contains(t, env, "CLIPPER_CONTAINER_ADDRESS="+i.Address())
}

func TestSocketIsPrivateAndRemoved(t *testing.T) {
	c := self(t)
	c.Environment = map[string]string{launchertest.EnvBehaviour: "serve"}
	l := newLauncher(t, Config{})
	i, err := l.Start(t.Context(), spec(c))
	require.NoError(t, err)
	launchertest.Greeting(t, i)
	info, err := os.Stat(l.own.dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	i.Stop(t.Context())
	left, err := filepath.Glob(filepath.Join(l.own.dir, "[0-9]*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestWhatAReplicaStartsEndsWithIt(t *testing.T) {
	l := newLauncher(t, Config{})
	i, err := l.Start(t.Context(), spec(commandContainer("sh", "-c", "sleep 1000 & echo $!; exit 5")))
	require.NoError(t, err)
	<-i.Done()
	require.Equal(t, launcher.Exit{Code: 5}, i.Exit())
	require.Len(t, i.Logs(1), 1)
	pid, err := strconv.Atoi(i.Logs(1)[0])
	require.NoError(t, err)
	require.Eventually(t, func() bool { _, err := startTime(pid); return err != nil }, 10*time.Second, 5*time.Millisecond)
}

func TestReplicaEndsWithItsKeeper(t *testing.T) {
	c := self(t)
	c.Environment = map[string]string{launchertest.EnvBehaviour: "serve"}
	l := newLauncher(t, Config{})
	i, err := l.Start(t.Context(), spec(c))
	require.NoError(t, err)
	launchertest.Greeting(t, i)
	require.NoError(t, syscall.Kill(l.own.pid, syscall.SIGKILL))
	<-i.Done()
	require.Contains(t, i.Exit().String(), "ended with the process that kept it")
	require.Empty(t, i.Logs(5))
	i.Stop(t.Context())

	// The next start has a keeper again.
	next, err := l.Start(t.Context(), spec(c))
	require.NoError(t, err)
	launchertest.Greeting(t, next)
}

func TestLeftoversOfADeadKeeperAreKilled(t *testing.T) {
	dir := shortDirectory(t)
	s := startServer(t, dir, time.Hour)
	s.kill(t)
	killKeeper(t, s)
	newLauncher(t, Config{RunDirectory: dir})
	for _, r := range s.Replicas {
		_, err := startTime(r.PID)
		require.Error(t, err)
	}
	requireFolders(t, dir, 1)
}

// requireFolders says how many launchers there are.
func requireFolders(t *testing.T, dir string, n int) {
	t.Helper()
	folders, err := filepath.Glob(filepath.Join(dir, "*", lockName))
	require.NoError(t, err)
	require.Len(t, folders, n)
}

func TestTakesOver(t *testing.T) {
	dir := shortDirectory(t)
	s := startServer(t, dir, time.Hour)
	start := func(l *Launcher, name, script string) *replica {
		one := spec(commandContainer("sh", "-c", script))
		one.Replica = name
		i, err := l.Start(t.Context(), one)
		require.NoError(t, err)
		return i.(*replica)
	}
	// Nothing is taken from a server that lives.
	other := newLauncher(t, Config{RunDirectory: dir})
	require.NotEqual(t, s.Replicas[0].PID, start(other, "0", chatter).started.PID)
	requireFolders(t, dir, 2)

	s.kill(t)
	next := newLauncher(t, Config{RunDirectory: dir})
	next.cfg.LogDirectory = dir
	same := start(next, "0", chatter)
	require.Equal(t, s.Replicas[0], same.started, "it goes on")
	require.Zero(t, same.Exit())
	require.Equal(t, []string{"begun"}, same.Logs(5))
	// One that is made from something else is started anew, in the place of the one before.
	changed := start(next, "1", "echo changed; exec sleep 1000")
	require.NotEqual(t, s.Replicas[1].PID, changed.started.PID)
	_, err := startTime(s.Replicas[1].PID)
	require.Error(t, err)

	// It is no child of this process; its log and its code are known all the same.
	lines := make(chan string, 10)
	followed := make(chan error, 1)
	go func() {
		followed <- next.Logs(t.Context(), launcher.LogQuery{Model: "m", Version: "1", Replica: "0", Tail: 5, Follow: true}, func(line launcher.Line) error {
			lines <- line.Text
			return nil
		})
	}()
	require.Equal(t, "begun", <-lines)
	same.Stop(t.Context())
	require.Equal(t, launcher.Exit{Code: 7}, same.Exit())
	require.Equal(t, "asked", <-lines)
	require.NoError(t, <-followed)
	require.NoError(t, next.Close())
	requireFolders(t, dir, 1)
}

func TestWhatNobodyTakesOverIsStopped(t *testing.T) {
	dir := shortDirectory(t)
	s := startServer(t, dir, time.Second)
	s.kill(t)
	for _, r := range append(s.Replicas, Started{PID: s.Keeper}) {
		require.Eventually(t, func() bool { _, err := startTime(r.PID); return err != nil }, 20*time.Second, 10*time.Millisecond)
	}
	requireFolders(t, dir, 0)
	text, err := os.ReadFile(filepath.Join(dir, "m@1@1.log"))
	require.NoError(t, err)
	require.Contains(t, string(text), "replica exited with code 7", "it was asked to end")
}

func TestAReusedProcessIDIsNotKilled(t *testing.T) {
	dir := shortDirectory(t)
	dead := filepath.Join(dir, "dead")
	require.NoError(t, os.Mkdir(dead, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dead, lockName), nil, 0o600))
	other := exec.Command("sleep", "1000")
	require.NoError(t, other.Start())
	t.Cleanup(func() { _ = other.Process.Kill(); _ = other.Wait() })
	for name, text := range map[string]string{
		"1.pid": fmt.Sprintf("%d 12345\n", other.Process.Pid), // another start time
		"2.pid": "",
		"3.pid": "-1 5",
		"4.pid": "1 5",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dead, name), []byte(text), 0o600))
	}
	newLauncher(t, Config{RunDirectory: dir})
	_, err := startTime(other.Process.Pid)
	require.NoError(t, err)
	require.NoDirExists(t, dead)
}

func TestNewRefusesADirectory(t *testing.T) {
	open := shortDirectory(t)
	require.NoError(t, os.Chmod(open, 0o755))
	for name, tc := range map[string]struct{ dir, want string }{
		"that others can enter": {open, "accessible to other users"},
		"with a long path":      {filepath.Join(shortDirectory(t), strings.Repeat("x", 90)), "too long for a unix socket"},
		"that is a file":        {"/dev/null", "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(Config{RunDirectory: tc.dir, LogDirectory: t.TempDir()}, slog.New(slog.DiscardHandler))
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestDefaultDirectories(t *testing.T) {
	dir := shortDirectory(t)
	t.Setenv("TMPDIR", dir)
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(dir, "none"))
	log := slog.New(slog.DiscardHandler)
	l, err := New(Config{}, log)
	require.NoError(t, err)
	user := filepath.Join(dir, fmt.Sprintf("clipper-%d", os.Getuid()))
	require.Equal(t, user, filepath.Dir(l.own.dir))
	require.DirExists(t, filepath.Join(user, "logs"))
	require.NoError(t, l.Close())

	t.Setenv("XDG_RUNTIME_DIR", dir)
	l, err = New(Config{}, log)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "clipper"), filepath.Dir(l.own.dir))
	require.NoError(t, l.Close())

	require.NoError(t, os.Chmod(user, 0o777))
	_, err = New(Config{}, log)
	require.ErrorContains(t, err, "log directory")
}

func TestAdapters(t *testing.T) {
	adapters := t.TempDir()
	write := func(name string, mode os.FileMode, text string) {
		path := filepath.Join(adapters, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), mode))
	}
	write("sklearn/adapter.py", 0o600, "echo python: $0 $CLIPPER_MODEL_PATH $PYTHONUNBUFFERED")
	write("own/adapter.py", 0o600, "")
	write("own/.venv/bin/python", 0o700, "#!/bin/sh\necho own: $1")
	write("native/adapter", 0o700, "#!/bin/sh\necho native: $CLIPPER_MODEL_PATH")
	write("empty/README.md", 0o600, "")
	model := filepath.Join(t.TempDir(), "model")
	require.NoError(t, os.WriteFile(model, nil, 0o600))
	// A shell stands in for the interpreter.
	l := newLauncher(t, Config{AdapterDirectory: adapters, Python: "sh"})
	container := func(framework, path string) *clipperv1.Container {
		return &clipperv1.Container{Source: &clipperv1.Container_Adapter{Adapter: &clipperv1.Adapter{Framework: framework, ModelPath: path}}}
	}

	for framework, want := range map[string]string{
		"sklearn": "python: " + filepath.Join(adapters, "sklearn/adapter.py") + " " + model + " 1",
		"own":     "own: " + filepath.Join(adapters, "own/adapter.py"),
		"native":  "native: " + model,
	} {
		i, err := l.Start(t.Context(), spec(container(framework, model)))
		require.NoError(t, err)
		<-i.Done()
		require.Equal(t, []string{want}, i.Logs(1))
	}
	// Whether it needs a saved model, an adapter says itself.
	i, err := l.Start(t.Context(), spec(container("native", "")))
	require.NoError(t, err)
	<-i.Done()
	require.Equal(t, []string{"native:"}, i.Logs(1))

	for name, tc := range map[string]struct {
		container   *clipperv1.Container
		field, want string
	}{
		"unknown framework": {container("torch", model), "adapter.framework", "installed are native, own, sklearn"},
		"escape":            {container("../"+filepath.Base(adapters)+"/sklearn", model), "adapter.framework", "no adapter"},
		"no file":           {container("sklearn", "/no/such/model"), "adapter.model_path", `"/no/such/model" cannot be read on the machine that runs the replica: no such file`},
		"no program":        {commandContainer("no-such-program"), "command.arguments", "cannot be executed"},
		"relative program":  {commandContainer("./sh"), "command.arguments", "cannot be executed"},
		"no arguments":      {commandContainer(), "command.arguments", "missing"},
		"GPUs": {&clipperv1.Container{
			Source:    container("sklearn", model).Source,
			Resources: &clipperv1.Resources{Gpus: 1},
		}, "resources.gpus", "--launcher docker"},
		"no directory": {&clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{
			Arguments: []string{"sh"}, Directory: "/no/such/directory",
		}}}, "command.directory", "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			var field *launcher.FieldError
			require.ErrorAs(t, l.Check(tc.container), &field)
			require.Equal(t, tc.field, field.Field)
			require.Contains(t, field.Message, tc.want)
		})
	}

	without := newLauncher(t, Config{AdapterDirectory: adapters, Python: "no-such-python"})
	require.ErrorContains(t, without.Check(container("sklearn", model)), "--python")
	require.NoError(t, without.Check(container("native", model)))
	require.ErrorContains(t, newLauncher(t, Config{AdapterDirectory: t.TempDir()}).Check(container("native", model)), "none is installed")
}

func TestLogIsBoundedAndGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.log")
	l, err := openLog(path)
	require.NoError(t, err)
	_, _ = fmt.Fprint(l, "half")
	require.Equal(t, []string{"half"}, l.tail(5))
	_, _ = fmt.Fprint(l, " line\r\n\nbad \xff byte\n", strings.Repeat("y", 3*tailLine), "\nz")
	require.Equal(t, []string{"half line", "", "bad \uFFFD byte", strings.Repeat("y", tailLine), "z"}, l.tail(5))
	require.Equal(t, []string{"half line", "", "bad \uFFFD byte", strings.Repeat("y", 3*tailLine)}, logged(t, path, launcher.LogQuery{Tail: 10}))

	// One who follows gets every line, over the changes of files.
	block := []byte(strings.Repeat(strings.Repeat("0123456789abcde ", 8)+"\n", 1<<12))
	blocks := 3 * maxLogFile / len(block)
	got, done := 0, make(chan error, 1)
	turn := make(chan struct{}, 1)
	reader := &logReader{path: path}
	reader.files, err = openFiles(path)
	require.NoError(t, err)
	go func() {
		defer reader.close()
		done <- reader.read(t.Context(), launcher.LogQuery{Follow: true}, l.await(), func(launcher.Line) error {
			if got++; got%(1<<12) == 0 {
				turn <- struct{}{}
			}
			return nil
		})
	}()
	for range blocks {
		_, _ = l.Write(block)
		<-turn // A slower reader may lose lines, a faster one may not.
	}
	require.Len(t, l.tail(1000), tailLines)
	require.NoError(t, l.end("replica exited with code 0"))
	require.NoError(t, l.end("again"))
	require.NoError(t, <-done)
	// And the z from before, which became a part of the first of these lines.
	require.Equal(t, blocks<<12, got)
	_, err = l.Write([]byte("late\n"))
	require.NoError(t, err)
	require.Equal(t, []string{"late"}, l.tail(1))

	files, err := filepath.Glob(path + "*")
	require.NoError(t, err)
	require.Len(t, files, 2)
	for _, f := range files {
		info, err := os.Stat(f)
		require.NoError(t, err)
		require.LessOrEqual(t, info.Size(), int64(maxLogFile))
	}

	again, err := openLog(path)
	require.NoError(t, err)
	_, _ = fmt.Fprint(again, "successor\n", strings.Repeat("x", launcher.MaxLine+1), "\nunfinished")
	require.NoError(t, again.end("replica exited with code 0"))
	require.Equal(t, []string{"successor", strings.Repeat("x", launcher.MaxLine), "x", "unfinished"}, logged(t, path, launcher.LogQuery{Tail: 10}))
	require.Len(t, logged(t, path, launcher.LogQuery{Tail: 1000, Previous: true}), 1000)
}

// await is what the keeper tells one who follows.
func (l *logFile) await() await {
	return func() (<-chan struct{}, bool) {
		_, more := l.written()
		return more, true
	}
}

func logged(t *testing.T, path string, q launcher.LogQuery) (lines []string) {
	t.Helper()
	files, err := openFiles(path)
	require.NoError(t, err)
	r := &logReader{path: path, files: files}
	defer r.close()
	require.NoError(t, r.read(t.Context(), q, nil, func(l launcher.Line) error {
		lines = append(lines, l.Text)
		return nil
	}))
	return lines
}

func TestLogOfAnotherFormatIsNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.log")
	require.NoError(t, os.WriteFile(path, []byte("plain text of an earlier version\nthat is longer than a time\n"), 0o600))
	l, err := openLog(path)
	require.NoError(t, err)
	_, _ = fmt.Fprintln(l, "new")
	require.NoError(t, l.end("replica exited with code 0"))
	require.Equal(t, []string{"new"}, logged(t, path, launcher.LogQuery{Tail: 10}))
}
