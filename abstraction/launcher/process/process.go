// SPDX-License-Identifier: Apache-2.0

// Package process runs replicas as child processes on this machine, each with a
// unix socket of its own.
//
// A child leads a process group, so that what it starts ends with it. It holds the
// read end of a pipe as standard input: when the launcher dies, however that
// happens, the pipe closes and the child exits. A child that does not is found by
// the next launcher that uses the same run directory, and killed.
//
// The run directory looks like this:
//
//	lock            held while a launcher cleans up and makes its own directory
//	1f3a9c/         one for each launcher
//	1f3a9c/lock     held as long as the launcher lives
//	1f3a9c/7.sock   the socket of a replica
//	1f3a9c/7.pid    its process id and start time
//	1f3a9c/cgroup   the path of the launcher's control group, where it has one
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/clipper-serving/clipper/abstraction/launcher"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Config is how the launcher is set up. Its zero value has the defaults.
type Config struct {
	// RunDirectory holds sockets and process ids. Only its owner may have access.
	RunDirectory string `name:"run-dir" type:"path" help:"Directory for the sockets of replicas; private to the user, of at most 80 bytes. Default: clipper in $$XDG_RUNTIME_DIR, or clipper-UID in the directory for temporary files."`
	// LogDirectory holds a log file for each replica.
	LogDirectory string `name:"log-dir" type:"path" help:"Directory for the logs of replicas. Default: clipper-UID/logs in the directory for temporary files."`
	// Cgroup is the control group below which replicas get groups of their own.
	Cgroup string `name:"cgroup" placeholder:"PATH" help:"Control group (cgroup v2) below which replicas have groups with their limits, such as /clipper.slice; it must be writable. Default: the server's own."`
	// AdapterDirectory holds the adapters, one folder for each framework.
	AdapterDirectory string `name:"adapter-dir" type:"path" help:"Directory with one folder for each framework's adapter. Default: containerrpc/adapters in the working directory or beside the executable."`
	// Python runs the adapters that are written in Python, unless there is .venv/bin/python in their folder.
	Python string `name:"python" default:"python3" help:"Python interpreter that runs adapters without a .venv in their folder: a path, or a name found in PATH."`
	// StopTimeout is how long a replica may take to finish what it has.
	StopTimeout time.Duration `name:"replica-stop-timeout" default:"10s" help:"Time that a replica has to finish its batches before it is killed."`
}

// maxSocketPath is what fits into the smallest sockaddr_un among the systems that
// Go runs on, with its closing zero.
const maxSocketPath = 103

// Launcher runs child processes.
type Launcher struct {
	cfg  Config
	log  *slog.Logger
	dir  string   // this launcher's own
	lock *os.File // held while the launcher lives

	groups    *groups // nil where replicas cannot be held to limits
	unlimited error   // why not

	writes writes // to log files

	mu       sync.Mutex
	closed   bool
	started  int
	children map[*child]struct{}
}

var _ launcher.Launcher = (*Launcher)(nil)

// New kills what launchers that are dead have left in the run directory and returns
// a launcher.
func New(cfg Config, log *slog.Logger) (*Launcher, error) {
	cfg, err := withDefaults(cfg)
	if err != nil {
		return nil, fmt.Errorf("set up the process launcher: %w", err)
	}
	l := &Launcher{cfg: cfg, log: log, children: map[*child]struct{}{}}
	if err := l.prepare(); err != nil {
		return nil, fmt.Errorf("set up the process launcher: %w", err)
	}
	return l, nil
}

func withDefaults(cfg Config) (Config, error) {
	user := filepath.Join(os.TempDir(), "clipper-"+strconv.Itoa(os.Getuid()))
	if cfg.RunDirectory == "" {
		cfg.RunDirectory = user
		if dir := os.Getenv("XDG_RUNTIME_DIR"); isDirectory(dir) {
			cfg.RunDirectory = filepath.Join(dir, "clipper")
		}
	}
	if cfg.LogDirectory == "" {
		// Anybody can make directories beside this one, and would get to see the logs.
		if err := privateDirectory(user); err != nil {
			return cfg, fmt.Errorf("log directory: %w", err)
		}
		cfg.LogDirectory = filepath.Join(user, "logs")
	}
	if cfg.AdapterDirectory == "" {
		cfg.AdapterDirectory = defaultAdapters()
	}
	if cfg.Python == "" {
		cfg.Python = "python3"
	}
	if cfg.StopTimeout == 0 {
		cfg.StopTimeout = 10 * time.Second
	}
	for _, dir := range []*string{&cfg.RunDirectory, &cfg.LogDirectory, &cfg.AdapterDirectory} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return cfg, err
		}
		*dir = abs
	}
	return cfg, nil
}

func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// Check implements launcher.Launcher.
func (l *Launcher) Check(c *clipperv1.Container) error {
	_, err := l.program(c)
	return err
}

// Start implements launcher.Launcher.
func (l *Launcher) Start(ctx context.Context, spec launcher.Spec) (launcher.Instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	program, err := l.program(spec.Container)
	if err != nil {
		return nil, err
	}
	path := l.logPath(spec.Model, spec.Version, spec.Replica)
	logs, err := openLog(path, func() { l.writes.done(path) })
	if err != nil {
		return nil, err
	}
	c, err := l.start(spec, program, logs)
	if err != nil {
		return nil, errors.Join(err, logs.end("replica was not started"))
	}
	return c, nil
}

func (l *Launcher) logPath(model, version, replica string) string {
	// No name has an @, so that no two logs are one.
	return filepath.Join(l.cfg.LogDirectory, model+"@"+version+"@"+replica+".log")
}

func (l *Launcher) start(spec launcher.Spec, program program, logs *logFile) (*child, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errors.New("the launcher is closed")
	}
	l.started++
	base := filepath.Join(l.dir, strconv.Itoa(l.started))
	c := &child{
		log:     l.log.With("model", spec.Model, "version", spec.Version, "replica", spec.Replica),
		socket:  base + ".sock",
		pidFile: base + ".pid",
		grace:   l.cfg.StopTimeout,
		logs:    logs,
		done:    make(chan struct{}),
	}
	if l.groups != nil {
		var err error
		if c.group, err = l.groups.add(strconv.Itoa(l.started), spec.Container.GetResources()); err != nil {
			return nil, err
		}
	}
	// The caller's context is for the start; the replica ends with Stop.
	cmd := exec.CommandContext(context.Background(), program.path, program.arguments...)
	cmd.Dir = program.directory
	cmd.Env = environment(os.Environ(), c.Address(), spec, program)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.run(cmd); err != nil {
		return nil, errors.Join(err, c.leaveGroup())
	}
	l.children[c] = struct{}{}
	go func() {
		<-c.done
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.children, c)
	}()
	return c, nil
}

// environment leaves out the settings of the service itself, which may hold secrets
// and would confuse the replica.
func environment(own []string, address string, spec launcher.Spec, p program) []string {
	var env []string
	for _, entry := range own {
		if !strings.HasPrefix(entry, "CLIPPER_") {
			env = append(env, entry)
		}
	}
	env = append(env, p.environment...)
	for name, value := range spec.Container.GetEnvironment() {
		env = append(env, name+"="+value)
	}
	env = append(env,
		launcher.EnvAddress+"="+address,
		launcher.EnvModelName+"="+spec.Model,
		launcher.EnvModelVersion+"="+spec.Version,
		launcher.EnvExitWithParent+"=1",
	)
	if path := spec.Container.GetAdapter().GetModelPath(); path != "" {
		env = append(env, launcher.EnvModelPath+"="+path)
	}
	return env
}

// Close implements launcher.Launcher. It does not wait for the grace period.
func (l *Launcher) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	running := slices.Collect(maps.Keys(l.children))
	l.mu.Unlock()

	now, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range running {
		c.Stop(now)
	}
	var err error
	if l.groups != nil {
		err = l.groups.close()
	}
	return errors.Join(err, os.RemoveAll(l.dir), l.lock.Close())
}

// child is one process and its group.
type child struct {
	log     *slog.Logger
	socket  string
	pidFile string
	grace   time.Duration
	logs    *logFile
	group   *group // nil where it cannot be held to limits
	pid     int
	stdin   *os.File // never written to; its end tells the child that the launcher is gone
	done    chan struct{}

	mu    sync.Mutex // guards ended
	ended bool       // the process id may be another's from now on

	exit launcher.Exit // written before done is closed
}

// run starts the process and the goroutine that waits for it.
func (c *child) run(cmd *exec.Cmd) error {
	stdin, hold, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start replica: %w", err)
	}
	defer func() { _ = stdin.Close() }()
	output, write, err := os.Pipe()
	if err != nil {
		return errors.Join(fmt.Errorf("start replica: %w", err), hold.Close())
	}
	defer func() { _ = write.Close() }()

	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, write, write
	if c.group != nil {
		entered, err := c.group.enter(cmd.SysProcAttr)
		if err != nil {
			return errors.Join(fmt.Errorf("start replica: %w", err), hold.Close(), output.Close())
		}
		defer entered()
	}
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start replica: %w", err), hold.Close(), output.Close())
	}
	c.pid, c.stdin = cmd.Process.Pid, hold
	if err := writePID(c.pidFile, c.pid); err != nil {
		c.log.Warn("process id of a replica is not recorded; if the server is killed, the replica may stay", "error", err)
	}
	c.log.Info("replica started", "pid", c.pid, "address", c.Address(), "log", c.logs.path)
	go c.wait(cmd, output)
	return nil
}

// wait copies the output and reaps the process.
func (c *child) wait(cmd *exec.Cmd, output *os.File) {
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(c.logs, output) // the log keeps its own errors from stopping this
	}()

	err := cmd.Wait()
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	// What the child has started must not outlive it. The group keeps its id as
	// long as it has members; with none, this finds no process.
	_ = syscall.Kill(-c.pid, syscall.SIGKILL)

	// A process that has left the group may hold the pipe open: it is not waited for.
	_ = output.SetReadDeadline(time.Now().Add(time.Second))
	<-copied
	c.exit = exitOf(cmd, err)
	if c.group != nil && c.group.outOfMemory() {
		c.exit.OutOfMemory, c.exit.MemoryLimit = true, c.group.memory
	}
	for _, err := range []error{c.leaveGroup(), output.Close(), c.stdin.Close(), c.logs.end("replica " + c.exit.String()), remove(c.socket), remove(c.pidFile)} {
		if err != nil {
			c.log.Warn("clean up after a replica", "error", err)
		}
	}
	c.log.Info("replica ended", "pid", c.pid, "exit", c.exit.String())
	close(c.done)
}

// leaveGroup removes the replica's group, and all that is left in it.
func (c *child) leaveGroup() error {
	if c.group == nil {
		return nil
	}
	return removeGroup(c.group.dir)
}

func exitOf(cmd *exec.Cmd, err error) launcher.Exit {
	if cmd.ProcessState == nil {
		return launcher.Exit{Code: -1, Signal: "unknown: " + err.Error()}
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return launcher.Exit{Code: -1, Signal: status.Signal().String()}
	}
	return launcher.Exit{Code: cmd.ProcessState.ExitCode()}
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Address implements launcher.Instance.
func (c *child) Address() string { return "unix:" + c.socket }

// Done implements launcher.Instance.
func (c *child) Done() <-chan struct{} { return c.done }

// Exit implements launcher.Instance.
func (c *child) Exit() launcher.Exit {
	select {
	case <-c.done:
		return c.exit
	default:
		return launcher.Exit{}
	}
}

// Logs implements launcher.Instance.
func (c *child) Logs(n int) []string { return c.logs.tail(n) }

// Stop implements launcher.Instance.
func (c *child) Stop(ctx context.Context) {
	c.signal(syscall.SIGTERM)
	grace := time.NewTimer(c.grace)
	defer grace.Stop()
	select {
	case <-c.done:
		return
	case <-grace.C:
		c.log.Warn("replica has not ended in time and is killed", "pid", c.pid, "grace", c.grace)
	case <-ctx.Done():
	}
	c.signal(syscall.SIGKILL)
	<-c.done
}

// signal reaches the whole group, while the process is known to be the child.
func (c *child) signal(s syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		_ = syscall.Kill(-c.pid, s) // only fails when all have ended
	}
}
