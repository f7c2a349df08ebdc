// SPDX-License-Identifier: Apache-2.0

// Command server starts what the acceptance list of the SDKs runs against: a real Clipper with the
// list's models and applications, and two small servers beside it. It writes one line of JSON that says
// where they are, and ends when standard input does.
//
//	go run ./sdk/acceptance/server
//	go run ./sdk/acceptance/server --list
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/app"
	"github.com/clipper-serving/clipper/internal/cli"
	"github.com/clipper-serving/clipper/internal/services"
	"github.com/clipper-serving/clipper/internal/telemetry"
	"github.com/clipper-serving/clipper/sdk/acceptance"
)

const (
	// patience bounds the start. Only what fails uses it up.
	patience = time.Minute
	poll     = 20 * time.Millisecond
)

// addresses is the line that is written.
type addresses struct {
	QueryGRPC  string `json:"query_grpc"`
	AdminGRPC  string `json:"admin_grpc"`
	QueryHTTP  string `json:"query_http"`
	AdminHTTP  string `json:"admin_http"`
	CannedGRPC string `json:"canned_grpc"`
	CannedHTTP string `json:"canned_http"`
	SecureGRPC string `json:"secure_grpc"`
	CAFile     string `json:"ca_file"`
	CertFile   string `json:"cert_file"`
	KeyFile    string `json:"key_file"`
	APIKey     string `json:"api_key"`
	Container  string `json:"container"`
}

// main is also Clipper itself and the models' containers, so that there is one program to build.
func main() {
	switch args := os.Args[1:]; {
	case len(args) >= 2 && args[0] == "container":
		os.Exit(serveModel(args[1:]))
	case len(args) >= 1 && args[0] == "clipper":
		ctx, stop := app.SignalContext(context.Background())
		build := telemetry.ReadBuild("acceptance")
		code := cli.Run(ctx, cli.System(), build, args[1:], services.Options(ctx, build)...)
		stop()
		os.Exit(code)
	case len(args) == 1 && args[0] == "--list":
		text, err := acceptance.JSON()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Printf("%s\n", text)
	case len(args) > 0:
		fmt.Fprintln(os.Stderr, "usage: server [--list]")
		os.Exit(2)
	default:
		ctx, stop := app.SignalContext(context.Background())
		err := run(ctx, os.Stdin, os.Stdout)
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// run serves until ctx ends or stdin does.
func run(ctx context.Context, stdin io.Reader, stdout io.Writer) (err error) {
	l, err := acceptance.Load()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "clipper-acceptance-")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, stdin)
	}()
	var a addresses
	if a.Container, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if err := serveFakes(l, dir, &a); err != nil {
		return err
	}
	clipper, err := startClipper(ctx, dir, &a)
	if err != nil {
		return err
	}
	defer clipper.end()
	release, err := prepare(ctx, l, &a)
	defer release()
	if err != nil {
		return err
	}
	if err := json.NewEncoder(stdout).Encode(a); err != nil {
		return fmt.Errorf("write the addresses: %w", err)
	}
	select {
	case <-ctx.Done():
		return nil
	case <-clipper.done:
		return fmt.Errorf("clipper has ended: %v", clipper.cmd.ProcessState)
	}
}

// process is a Clipper that runs.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // Closed when it has ended.
}

func (p *process) end() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // It may have ended by itself.
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

var listening = regexp.MustCompile(`msg=listening server="?([^"]*?)"? address=(\S+)`)

// startClipper runs `clipper up` until it is ready, and learns from its log where it listens.
func startClipper(ctx context.Context, dir string, a *addresses) (*process, error) {
	args := []string{"clipper", "up", "--data-dir=" + filepath.Join(dir, "data"), "--abstraction-run-dir=" + filepath.Join(dir, "run"), "--abstraction-log-dir=" + filepath.Join(dir, "logs"), "--frontend-max-elements=32", "--shutdown-grace=2s"}
	for _, name := range []string{"http", "grpc", "admin-http", "admin-grpc"} {
		args = append(args, "--frontend-"+name+"-listen=127.0.0.1:0")
	}
	cmd := exec.Command(a.Container, args...) //nolint:noctx // It is ended in good order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	logs, err := cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("start clipper: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start clipper: %w", err)
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	ready := make(chan struct{})
	go func() {
		defer close(p.done)
		p.follow(logs, a, ready)
		_ = cmd.Wait() // What is to know is in ProcessState.
	}()
	select {
	case <-ready:
		return p, nil
	case <-p.done:
		return nil, fmt.Errorf("clipper does not start: %v", cmd.ProcessState)
	case <-ctx.Done():
	case <-time.After(patience):
	}
	p.end()
	return nil, fmt.Errorf("clipper is not ready after %v", patience)
}

// follow passes the log on, and closes ready when it says so.
func (p *process) follow(logs io.Reader, a *addresses, ready chan<- struct{}) {
	lines := bufio.NewScanner(logs)
	for lines.Scan() {
		fmt.Fprintln(os.Stderr, lines.Text())
		if found := listening.FindStringSubmatch(lines.Text()); found != nil {
			switch found[1] {
			case "queries":
				a.QueryGRPC = found[2]
			case "administration":
				a.AdminGRPC = found[2]
			case "queries (REST)":
				a.QueryHTTP = "http://" + found[2]
			case "administration (REST)":
				a.AdminHTTP = "http://" + found[2]
			}
		}
		if ready != nil && regexp.MustCompile(`\bmsg=ready\b`).MatchString(lines.Text()) {
			close(ready)
			ready = nil
		}
	}
}

// prepare deploys the models, creates the applications and keeps "busy" busy until release is called.
func prepare(ctx context.Context, l *acceptance.List, a *addresses) (release func(), err error) {
	release = func() {}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	admin, err := grpc.NewClient(a.AdminGRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return release, fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = admin.Close() }() // Nothing is under way then.
	models := clipperv1.NewModelServiceClient(admin)
	for _, m := range l.Models {
		if _, err := models.DeployModel(ctx, &clipperv1.DeployModelRequest{Version: version(m, a.Container)}); err != nil {
			return release, fmt.Errorf("deploy %s: %w", m.Model, err)
		}
	}
	for _, m := range l.Models {
		if err := awaitReady(ctx, models, m); err != nil {
			return release, err
		}
	}
	applications := clipperv1.NewApplicationServiceClient(admin)
	for _, text := range l.Applications {
		request := &clipperv1.CreateApplicationRequest{Application: &clipperv1.Application{}}
		if err := protojson.Unmarshal(text, request.Application); err != nil {
			return release, fmt.Errorf("read an application: %w", err)
		}
		if _, err := applications.CreateApplication(ctx, request); err != nil {
			return release, fmt.Errorf("create %s: %w", request.Application.Name, err)
		}
	}
	return fill(ctx, a.QueryGRPC)
}

func version(m acceptance.Model, program string) *clipperv1.ModelVersion {
	v := &clipperv1.ModelVersion{
		Model: m.Model, Version: m.Version, Replicas: m.Replicas,
		Container: &clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{
			Arguments: []string{program, "container", m.Kind, strconv.Itoa(m.Bias)},
		}}},
	}
	if m.Queue > 0 {
		v.Batching = &clipperv1.Batching{Policy: "none", MaxBatchRows: 1, MaxInFlight: 1, MaxQueueRows: m.Queue}
	}
	if m.Kind == "hold" { // Warmed up, it would never be ready.
		v.WarmUp = &clipperv1.WarmUp{Disabled: true}
	}
	return v
}

func awaitReady(ctx context.Context, models clipperv1.ModelServiceClient, m acceptance.Model) error {
	for {
		r, err := models.GetModelVersion(ctx, &clipperv1.GetModelVersionRequest{Model: m.Model, Version: m.Version})
		if err != nil {
			return fmt.Errorf("look at %s: %w", m.Model, err)
		}
		switch r.Version.State {
		case clipperv1.ModelState_MODEL_STATE_READY, clipperv1.ModelState_MODEL_STATE_STOPPED:
			return nil
		case clipperv1.ModelState_MODEL_STATE_FAILED:
			return fmt.Errorf("%s cannot serve: %s", m.Model, r.Version.StateMessage)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %s", m.Model, r.Version.StateMessage)
		case <-time.After(poll):
		}
	}
}

// fill asks "busy", which never answers, until it refuses: its replica and its queue are full from then on.
func fill(ctx context.Context, address string) (release func(), err error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return func() {}, fmt.Errorf("connect: %w", err)
	}
	release = func() { _ = conn.Close() } // Ends the queries that wait.
	queries := clipperv1.NewQueryServiceClient(conn)
	refused := make(chan error, 1)
	for n := 0; ; n++ {
		// An input of its own: the same would wait for the same prediction.
		request := &clipperv1.QueryRequest{Application: "busy", InputJson: fmt.Appendf(nil, "[%d, 9]", n)}
		go func() {
			_, err := queries.Query(context.WithoutCancel(ctx), request)
			select {
			case refused <- err:
			default:
			}
		}()
		select {
		case err := <-refused:
			if status.Code(err) != codes.ResourceExhausted {
				return release, fmt.Errorf("busy answered: %w", err)
			}
			return release, nil
		case <-ctx.Done():
			return release, fmt.Errorf("busy is not full after %d queries", n+1)
		case <-time.After(poll):
		}
	}
}
