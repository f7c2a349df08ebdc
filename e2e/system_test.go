// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/store/storetest"
)

const (
	// patience bounds every wait. Only a test that fails uses it up.
	patience = 30 * time.Second
	// poll is how often something is looked at that gives no signal.
	poll = 20 * time.Millisecond
)

// service is what a process runs.
type service string

const (
	all         service = "up"
	frontend    service = "frontend"
	selector    service = "selector"
	abstraction service = "abstraction"
)

// system is an installation of Clipper.
type system struct {
	services []service // In the order of starting.
	settings map[service][]string
	ops      map[service]string // Base URLs of what /readyz and the like are on.
	grpc     map[service]string // Addresses of gRPC listeners, for health.
	running  map[service]*process
	logs     []*process // All that ever ran.
	runDir   string     // Where the containers' sockets are.
	redis    *storetest.Redis

	queryURL, adminURL   string
	queryConn, adminConn *grpc.ClientConn

	queries      clipperv1.QueryServiceClient
	feedback     clipperv1.FeedbackServiceClient
	applications clipperv1.ApplicationServiceClient
	models       clipperv1.ModelServiceClient
}

// start runs an installation and waits until it is ready.
func start(t *testing.T, f form, b backend) *system {
	t.Helper()
	s := install(t, f, b)
	for _, name := range s.services {
		s.start(t, name)
	}
	for _, name := range s.services {
		s.awaitReady(t, name)
	}
	return s
}

// install prepares an installation of which nothing runs yet. It ends with the test.
func install(t *testing.T, f form, b backend) *system {
	t.Helper()
	// The folders of t.TempDir are too long for the paths of sockets.
	dir, err := os.MkdirTemp("", "clipper-e2e-") //nolint:usetesting // See above.
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })

	state := []string{"--data-dir=" + dir, "--log-level=info"}
	var server *storetest.Redis
	if b == redis {
		// Acknowledged is durable only if Redis is told so.
		server = storetest.StartRedis(t, storetest.WithAppendOnly())
		state = append(state, "--store="+server.URL())
	}
	s := &system{
		redis:    server,
		settings: map[service][]string{},
		ops:      map[service]string{},
		grpc:     map[service]string{},
		running:  map[service]*process{},
		runDir:   filepath.Join(dir, "run"),
	}
	queryHTTP, queryGRPC := freeAddress(t), freeAddress(t)
	adminHTTP, adminGRPC := freeAddress(t), freeAddress(t)
	edge := func(prefix string) []string {
		return []string{
			prefix + "http-listen=" + queryHTTP, prefix + "grpc-listen=" + queryGRPC,
			prefix + "admin-http-listen=" + adminHTTP, prefix + "admin-grpc-listen=" + adminGRPC,
		}
	}
	s.queryURL, s.adminURL = "http://"+queryHTTP, "http://"+adminHTTP
	switch f {
	case one:
		s.services = []service{all}
		s.settings[all] = slices.Concat(state, edge("--frontend-"), []string{"--abstraction-run-dir=" + s.runDir, "--abstraction-replica-claim-time=" + claimTime})
		s.ops[all], s.grpc[all] = s.adminURL, queryGRPC
	case three:
		s.services = []service{abstraction, selector, frontend}
		listen := func(name service) []string {
			s.grpc[name] = freeAddress(t)
			ops := freeAddress(t)
			s.ops[name] = "http://" + ops
			return []string{"--grpc-listen=" + s.grpc[name], "--ops-listen=" + ops}
		}
		s.settings[abstraction] = slices.Concat(state, listen(abstraction), []string{"--run-dir=" + s.runDir, "--replica-claim-time=" + claimTime})
		s.settings[selector] = slices.Concat(state, listen(selector), []string{"--abstraction=" + s.grpc[abstraction], "--decision-log-dir=" + filepath.Join(dir, "decisions")})
		s.settings[frontend] = append(edge("--"), "--selector="+s.grpc[selector], "--abstraction="+s.grpc[abstraction])
		s.ops[frontend], s.grpc[frontend] = s.adminURL, queryGRPC
	}
	s.connect(t, queryGRPC, adminGRPC)
	t.Cleanup(func() { s.end(t) })
	return s
}

func (s *system) connect(t *testing.T, queryGRPC, adminGRPC string) {
	dial := func(address string) *grpc.ClientConn {
		conn, err := grpc.NewClient(address,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			// A service that was killed is back soon.
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: poll, Multiplier: 1.5, MaxDelay: 10 * poll},
				MinConnectTimeout: time.Second,
			}))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, conn.Close()) })
		return conn
	}
	s.queryConn, s.adminConn = dial(queryGRPC), dial(adminGRPC)
	s.queries = clipperv1.NewQueryServiceClient(s.queryConn)
	s.feedback = clipperv1.NewFeedbackServiceClient(s.queryConn)
	s.applications = clipperv1.NewApplicationServiceClient(s.adminConn)
	s.models = clipperv1.NewModelServiceClient(s.adminConn)
}

// end ends what still runs, containers that a service left when it was killed too, and looks at what all processes
// have said.
func (s *system) end(t *testing.T) {
	for _, p := range s.running {
		p.kill(t)
	}
	keepers, err := filepath.Glob(filepath.Join(s.runDir, "*", "keeper.pid"))
	require.NoError(t, err)
	for _, file := range keepers {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // It has just ended.
		}
		require.NoError(t, err)
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		require.NoError(t, err)
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	for _, p := range s.logs {
		text := p.output.String()
		if strings.Contains(text, "DATA RACE") || strings.Contains(text, "panic: ") {
			t.Errorf("%s: a race or a panic", p.name)
		}
	}
	if t.Failed() {
		for _, p := range s.logs {
			lines := strings.SplitAfter(p.output.String(), "\n")
			if n := len(lines) - 400; n > 0 {
				lines = append([]string{fmt.Sprintf("(%d lines left out)\n", n)}, lines[n:]...)
			}
			t.Logf("log of %s (process %d):\n%s", p.name, p.cmd.Process.Pid, strings.Join(lines, ""))
		}
	}
}

// start runs a service. It does not wait until it is ready.
func (s *system) start(t *testing.T, name service) {
	t.Helper()
	require.Nil(t, s.running[name], "%s runs already", name)
	command, _, _ := strings.Cut(string(name), " ")
	p := startProcess(t, string(name), programs.clipper, append([]string{command}, s.settings[name]...)...)
	s.running[name] = p
	s.logs = append(s.logs, p)
}

// kill ends a service at once, as a crash does.
func (s *system) kill(t *testing.T, name service) {
	t.Helper()
	s.running[name].kill(t)
	delete(s.running, name)
}

// awaitReady waits until a service says that it is ready.
func (s *system) awaitReady(t *testing.T, name service) {
	t.Helper()
	p, deadline := s.running[name], time.After(patience)
	for s.readiness(name) != http.StatusOK {
		select {
		case <-p.done:
			t.Fatalf("%s has ended with code %d", name, p.wait(t))
		case <-deadline:
			t.Fatalf("%s is not ready", name)
		case <-time.After(poll):
		}
	}
}

// readiness returns the HTTP status of /readyz, or 0 when nobody answers.
func (s *system) readiness(name service) int {
	response, err := http.Get(s.ops[name] + "/readyz")
	if err != nil {
		return 0
	}
	_ = response.Body.Close()
	return response.StatusCode
}

// sum adds up the measurements of a service whose series begin as the expression says.
func (s *system) sum(t *testing.T, name service, series string) float64 {
	t.Helper()
	response, err := http.Get(s.ops[s.home(name)] + "/metrics")
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	sum := 0.0
	for _, line := range regexp.MustCompile(`(?m)^`+series+`.* (\S+)$`).FindAllSubmatch(text, -1) {
		n, err := strconv.ParseFloat(string(line[1]), 64)
		require.NoError(t, err)
		sum += n
	}
	return sum
}

// home returns the process that a service is in.
func (s *system) home(name service) service {
	if s.services[0] == all {
		return all
	}
	return name
}

// containers returns the ids of the processes of the installation's containers.
func (s *system) containers(t require.TestingT) []int {
	entries, err := os.ReadDir("/proc")
	require.NoError(t, err, "the tests look for processes in /proc")
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join("/proc", e.Name())
		// A process that ends meanwhile, and one of somebody else, cannot be read.
		if program, _ := os.Readlink(filepath.Join(dir, "exe")); program != programs.container {
			continue
		}
		environment, _ := os.ReadFile(filepath.Join(dir, "environ"))
		if strings.Contains(string(environment), "CLIPPER_CONTAINER_ADDRESS=unix:"+s.runDir) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// freeAddress returns an address of the loopback interface that nobody listens on, with a port
// below those of outgoing connections, so that it is still free when a service starts again.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(10000+rand.IntN(20000)))
		if listener, err := net.Listen("tcp", address); err == nil {
			require.NoError(t, listener.Close())
			return address
		}
	}
	t.Fatal("there is no free port")
	return ""
}
