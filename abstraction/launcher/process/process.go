// SPDX-License-Identifier: Apache-2.0

// Package process runs replicas as processes on this machine, each with a unix socket of its own.
//
// The replicas are not children of the server but of a keeper: this program, started again as a process of its
// own. The keeper starts replicas, copies what they write to their logs, tells how they end, and stops them, all
// as the server asks. When the server dies, however that happens, the keeper stays, and with it the replicas; the
// next server that is to start the same takes them over. What nobody takes over in time (a minute) is stopped, and the
// keeper ends with the last of them. So a server can be killed and started again, and its models need not be
// loaded again.
//
// A replica leads a process group, so that what it starts ends with it. It holds the read end of a pipe as
// standard input: when the keeper dies, the pipe closes and the replica exits. One that does not is found by the
// next launcher that uses the same run directory, and killed.
//
// The run directory looks like this:
//
//	lock               held while a launcher cleans up, makes its own directory, or takes one over
//	1f3a9c/            one for each keeper
//	1f3a9c/lock        held as long as a launcher has the keeper
//	1f3a9c/keeper.sock where the keeper is asked
//	1f3a9c/keeper.log  what it had to say
//	1f3a9c/keeper.pid  its process id, for people
//	1f3a9c/7.sock      the socket of a replica
//	1f3a9c/7.pid       its process id and start time
//	1f3a9c/cgroup      the path of the keeper's control group, where it has one
package process

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

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
	// ClaimTime is how long replicas run whose server has died, for its successor to take them over.
	ClaimTime time.Duration `name:"replica-claim-time" default:"1m" help:"Time that a replica that is a process waits, when its server has died, to be taken over by the next one."`
}

// maxSocketPath is what fits into the smallest sockaddr_un among the systems that
// Go runs on, with its closing zero.
const maxSocketPath = 103

// Launcher runs processes.
type Launcher struct {
	cfg Config
	log *slog.Logger

	groups    *groups // nil where replicas cannot be held to limits
	unlimited error   // why not

	mu       sync.Mutex
	closed   bool
	own      *keeper             // starts new replicas; nil before the first, and when it has died
	keepers  []*keeper           // all that this launcher has
	replicas map[string]*replica // by key: those that run, and of each name the last that ended
}

var _ launcher.Launcher = (*Launcher)(nil)

// New kills what servers and keepers that are dead have left in the run directory and returns a launcher.
func New(cfg Config, log *slog.Logger) (*Launcher, error) {
	cfg, err := withDefaults(cfg)
	if err != nil {
		return nil, fmt.Errorf("set up the process launcher: %w", err)
	}
	l := &Launcher{cfg: cfg, log: log, replicas: map[string]*replica{}}
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
	if cfg.ClaimTime == 0 {
		cfg.ClaimTime = time.Minute
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

// Start implements launcher.Launcher. It takes over the same replica if a server that has died left it running.
func (l *Launcher) Start(ctx context.Context, spec launcher.Spec) (launcher.Instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	program, err := l.program(spec.Container)
	if err != nil {
		return nil, err
	}
	digest, err := digestOf(spec, program)
	if err != nil {
		return nil, err
	}
	request := StartRequest{
		Name: spec.Model + "@" + spec.Version + "@" + spec.Replica, Digest: digest,
		Path: program.path, Arguments: program.arguments, Directory: program.directory,
		Environment: environment(os.Environ(), spec, program),
		Log:         l.logPath(spec.Model, spec.Version, spec.Replica),
		Cpus:        spec.Container.GetResources().GetCpus(), Memory: spec.Container.GetResources().GetMemoryBytes(),
		Grace: l.cfg.StopTimeout,
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errors.New("the launcher is closed")
	}
	k, started, err := l.takeOver(request)
	takenOver := k != nil
	if err == nil && !takenOver {
		k, started, err = l.startNew(request)
	}
	if err != nil {
		return nil, err
	}
	r := &replica{
		log:    l.log.With("model", spec.Model, "version", spec.Version, "replica", spec.Replica),
		keeper: k, started: started, grace: l.cfg.StopTimeout, done: make(chan struct{}),
	}
	r.log.Info("replica started", "pid", r.started.PID, "address", r.Address(), "log", request.Log, "taken_over", takenOver)
	l.replicas[request.Name] = r
	go r.wait()
	return r, nil
}

// digestOf identifies what a replica is made from. A replica that was made from something else is not taken over.
func digestOf(spec launcher.Spec, p program) (string, error) {
	container, err := proto.MarshalOptions{Deterministic: true}.Marshal(spec.Container)
	if err != nil {
		return "", fmt.Errorf("start replica: %w", err)
	}
	sum := sha256.New()
	_, _ = fmt.Fprintf(sum, "%q", []string{spec.Model, spec.Version, spec.Replica, p.path, p.directory, string(container)})
	_, _ = fmt.Fprintf(sum, "%q%q", p.arguments, p.environment)
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func (l *Launcher) logPath(model, version, replica string) string {
	// No name has an @, so that no two logs are one.
	return filepath.Join(l.cfg.LogDirectory, model+"@"+version+"@"+replica+".log")
}

// environment leaves out the settings of the service itself, which may hold secrets
// and would confuse the replica. The keeper adds the address.
func environment(own []string, spec launcher.Spec, p program) []string {
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
	l.mu.Unlock()
	// Nothing is added any more. Where a keeper does not answer, the sweep ends what it kept.
	for _, k := range l.keepers {
		if k.asked != nil {
			_ = k.call("Quit", true, new(bool))
		}
	}
	for _, r := range l.replicas {
		<-r.done
	}
	var problems error
	for _, k := range l.keepers {
		if k.asked != nil {
			_ = k.asked.Close()
		}
		problems = errors.Join(problems, l.sweep(k.dir), k.lock.Close())
	}
	return problems
}
