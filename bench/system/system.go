// SPDX-License-Identifier: Apache-2.0

// Package system builds and runs Clipper for experiments, as users run it: the binary, in one
// process or in three, with model containers as processes of their own.
package system

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const module = "github.com/clipper-serving/clipper"

// Binaries are the programs that experiments run.
type Binaries struct {
	// Clipper is the product, Noop the container that does nothing, Synthetic the one that only takes
	// time, Replay the one that answers what was recorded.
	Clipper, Noop, Synthetic, Replay string
}

// Build builds the programs from the workspace into a folder.
func Build(ctx context.Context, folder string, log io.Writer) (Binaries, error) {
	b := Binaries{Clipper: filepath.Join(folder, "clipper"), Noop: filepath.Join(folder, "noop"), Synthetic: filepath.Join(folder, "synthetic"), Replay: filepath.Join(folder, "replay")}
	for target, pkg := range map[string]string{
		b.Clipper: module + "/cmd/clipper", b.Noop: module + "/containerrpc/go/noop", b.Synthetic: module + "/containerrpc/go/synthetic",
		b.Replay: module + "/containerrpc/go/replay",
	} {
		_, _ = fmt.Fprintf(log, "building %s\n", pkg)
		build := exec.CommandContext(ctx, "go", "build", "-o", target, pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // As `make build`; such programs also run in an empty image.
		if out, err := build.CombinedOutput(); err != nil {
			return b, fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
	}
	return b, nil
}

// Root returns the folder of the workspace.
func Root(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("find the workspace: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Process is a program that runs.
type Process struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	output bytes.Buffer
	done   chan struct{}
}

// Start runs a program with these additional environment variables. Its standard input ends when
// this process does.
func Start(env []string, program string, args ...string) (*Process, error) {
	p := &Process{cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// ID returns the number by which the system knows the process.
func (p *Process) ID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Output returns what the process has written. It is to be called when the process has ended.
func (p *Process) Output() string { return p.output.String() }

// Kill ends the process at once, as kill -9 does, and waits.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Stop asks the process to end and waits; after a while it kills it.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// CPU returns the processor time that the process has used.
func (p *Process) CPU() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// The second field is the name in parentheses; utime and stime are fields 14 and 15, in ticks
	// of 10 ms on Linux.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+2:]))
	var ticks int
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// OwnCPU returns the processor time that this process has used.
func OwnCPU() time.Duration {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used) // Cannot fail.
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// Resident returns the memory of the process in bytes.
func (p *Process) Resident() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			var kib int64
			_, err := fmt.Sscan(v, &kib)
			return kib << 10, err
		}
	}
	return 0, errors.New("no VmRSS in /proc")
}

// Clipper is a running installation.
type Clipper struct {
	// QueryHTTP and QueryGRPC are the addresses of the query listeners.
	QueryHTTP, QueryGRPC string
	// AdminHTTP is the address of the listener for administration, which also has the metrics.
	AdminHTTP string
	// Processes are the processes that are Clipper, without containers.
	Processes []*Process
	binary    string
	commands  [][]string // of the processes
	admin     *grpc.ClientConn
	folder    string
}

// FreeAddress returns an address of the loopback interface that nobody listens on.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}

// StartClipper runs an installation: each service in a process of its own, or all in one. Further flags are
// those of the one process, "--name=value"; of three, each gets what it knows.
func StartClipper(b Binaries, three bool, flags ...string) (_ *Clipper, err error) {
	folder, err := os.MkdirTemp("", "clipper-bench-")
	if err != nil {
		return nil, err
	}
	c := &Clipper{folder: folder, binary: b.Clipper}
	defer func() {
		if err != nil {
			c.Stop()
		}
	}()
	var a [8]string
	for i := range a {
		if a[i], err = FreeAddress(); err != nil {
			return nil, err
		}
	}
	c.QueryHTTP, c.QueryGRPC, c.AdminHTTP = a[0], a[1], a[2]
	edge := func(prefix string) []string {
		return []string{
			"--" + prefix + "http-listen=" + a[0], "--" + prefix + "grpc-listen=" + a[1],
			"--" + prefix + "admin-http-listen=" + a[2], "--" + prefix + "admin-grpc-listen=" + a[3],
		}
	}
	data := "--data-dir=" + folder
	run := "run-dir=" + filepath.Join(folder, "run")
	c.commands = [][]string{append([]string{"up", data, "--abstraction-" + run}, edge("frontend-")...)}
	if three {
		c.commands = [][]string{
			{"abstraction", data, "--" + run, "--grpc-listen=" + a[4], "--ops-listen=" + a[5]},
			{"selector", data, "--grpc-listen=" + a[6], "--ops-listen=" + a[7], "--abstraction=" + a[4]},
			append([]string{"frontend", "--selector=" + a[6], "--abstraction=" + a[4]}, edge("")...),
		}
	}
	for i := range c.commands {
		c.commands[i] = append(c.commands[i], flagsOf(c.commands[i][0], flags)...)
		c.Processes = append(c.Processes, nil)
		if err := c.Restart(i); err != nil {
			return nil, err
		}
	}
	c.admin, err = grpc.NewClient(a[3], grpc.WithTransportCredentials(insecure.NewCredentials()))
	return c, err
}

// flagsOf returns those of the flags of `clipper up` that a command has, as it calls them. Those that are of no
// service are of the services that have a store.
func flagsOf(command string, flags []string) []string {
	if command == "up" {
		return flags
	}
	var own []string
	for _, flag := range flags {
		service, rest, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "-")
		switch service {
		case command:
			own = append(own, "--"+rest)
		case "services": // How each reaches the others.
			own = append(own, flag)
		case "frontend", "selector", "abstraction":
		default:
			if command != "frontend" {
				own = append(own, flag)
			}
		}
	}
	return own
}

// Restart starts a process again that has ended, by its place in Processes: in the form of three processes
// the abstraction is the first, the selector the second and the frontend the third.
func (c *Clipper) Restart(i int) error {
	p, err := Start(nil, c.binary, append(slices.Clone(c.commands[i]), "--log-level=warn")...)
	if err == nil {
		c.Processes[i] = p
	}
	return err
}

// ReplicaProcesses identifies the replicas that run as processes: each by its process and when that was started.
func (c *Clipper) ReplicaProcesses() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(c.folder, "run", "*", "*.pid"))
	if err != nil {
		return nil, err
	}
	var all []string
	for _, file := range files {
		text, err := os.ReadFile(file) //nolint:gosec // It is the installation's.
		if err != nil {
			return nil, err
		}
		all = append(all, string(text))
	}
	return all, nil
}

// State returns what an application has learned.
func (c *Clipper) State(ctx context.Context, application string) (*clipperv1.GetSelectionStateResponse, error) {
	state, err := clipperv1.NewApplicationServiceClient(c.admin).GetSelectionState(ctx, &clipperv1.GetSelectionStateRequest{Application: application})
	if err != nil {
		return nil, fmt.Errorf("read selection state: %w", err)
	}
	return state, nil
}

// Canary returns how far an application's canary has come.
func (c *Clipper) Canary(ctx context.Context, application string) (*clipperv1.GetCanaryResponse, error) {
	canary, err := clipperv1.NewApplicationServiceClient(c.admin).GetCanary(ctx, &clipperv1.GetCanaryRequest{Application: application})
	if err != nil {
		return nil, fmt.Errorf("read canary: %w", err)
	}
	return canary, nil
}

// Serve deploys a container that is started by a command, waits until it is ready, and creates an
// application of the same name that asks it.
func (c *Clipper) Serve(ctx context.Context, name string, version *clipperv1.ModelVersion, app *clipperv1.Application) error {
	if err := c.Deploy(ctx, name, version); err != nil {
		return err
	}
	app.Name = name
	app.Models = []*clipperv1.ApplicationModel{{Model: name}}
	return c.CreateApplication(ctx, app)
}

// Deploy deploys version "1" of a model and waits until it is ready.
func (c *Clipper) Deploy(ctx context.Context, model string, version *clipperv1.ModelVersion) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	models := clipperv1.NewModelServiceClient(c.admin)
	version.Model, version.Version = model, "1"
	if _, err := models.DeployModel(ctx, &clipperv1.DeployModelRequest{Version: version}, grpc.WaitForReady(true)); err != nil {
		return fmt.Errorf("deploy: %w\n%s", err, c.logs())
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := models.GetModelVersion(ctx, &clipperv1.GetModelVersionRequest{Model: model, Version: "1"})
		if err != nil {
			return fmt.Errorf("wait for the model: %w\n%s", err, c.logs())
		}
		if got.Version.State == clipperv1.ModelState_MODEL_STATE_READY {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the model is not ready: %s\n%s", got.Version.StateMessage, c.logs())
		}
	}
}

// SetCache turns the cache of a model's version 1 on or off.
func (c *Clipper) SetCache(ctx context.Context, model string, on bool) error {
	_, err := clipperv1.NewModelServiceClient(c.admin).UpdateModelVersion(ctx, &clipperv1.UpdateModelVersionRequest{
		Model: model, Version: "1", Cache: &clipperv1.Cache{Disabled: !on},
	})
	return err
}

// CreateApplication creates an application.
func (c *Clipper) CreateApplication(ctx context.Context, app *clipperv1.Application) error {
	if _, err := clipperv1.NewApplicationServiceClient(c.admin).CreateApplication(ctx, &clipperv1.CreateApplicationRequest{Application: app}); err != nil {
		return fmt.Errorf("create application: %w\n%s", err, c.logs())
	}
	return nil
}

// UpdateApplication changes the fields of an application that are set, or those of the mask.
func (c *Clipper) UpdateApplication(ctx context.Context, app *clipperv1.Application, fields ...string) error {
	request := &clipperv1.UpdateApplicationRequest{Application: app, UpdateMask: &fieldmaskpb.FieldMask{Paths: fields}}
	if _, err := clipperv1.NewApplicationServiceClient(c.admin).UpdateApplication(ctx, request); err != nil {
		return fmt.Errorf("update application: %w\n%s", err, c.logs())
	}
	return nil
}

func (c *Clipper) logs() string {
	var all strings.Builder
	for _, p := range c.Processes {
		all.WriteString(p.output.String())
	}
	return all.String()
}

// Stop ends the installation and removes what it stored.
func (c *Clipper) Stop() {
	if c.admin != nil {
		_ = c.admin.Close()
	}
	for _, p := range slices.Backward(c.Processes) {
		if p != nil {
			p.Stop()
		}
	}
	_ = os.RemoveAll(c.folder)
}

// AwaitListener waits until somebody listens at an address, for ten seconds at most.
func AwaitListener(address string) error {
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", address, time.Second); err == nil {
			return c.Close()
		}
	}
	return fmt.Errorf("nobody listens at %s: %w", address, err)
}
