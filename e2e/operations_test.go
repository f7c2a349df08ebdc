// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// testOperations looks at what operators look at.
func testOperations(t *testing.T, s *system) {
	s.deploy(t, "operations", nil)
	s.create(t, application("operations", "single", "operations"))
	require.EqualValues(t, 5, predicted(t, s.ask(t, "operations", 5, 0)))

	names := map[service]string{
		frontend:    "clipper_frontend_",
		selector:    "clipper_selector_",
		abstraction: "clipper_model_",
	}
	for name, prefix := range names {
		home := s.home(name)
		t.Run(string(name), func(t *testing.T) {
			for path, want := range map[string]string{"/healthz": "", "/readyz": "", "/metrics": prefix} {
				response, err := http.Get(s.ops[home] + path)
				require.NoError(t, err)
				text, err := io.ReadAll(response.Body)
				require.NoError(t, response.Body.Close())
				require.NoError(t, err)
				require.Equal(t, http.StatusOK, response.StatusCode, "%s: %s", path, text)
				require.Contains(t, string(text), want)
			}
			conn, err := grpc.NewClient(s.grpc[home], grpc.WithTransportCredentials(insecure.NewCredentials()))
			require.NoError(t, err)
			defer conn.Close()
			health, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
			require.NoError(t, err)
			require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, health.Status)
			reflection, err := grpc_reflection_v1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
			require.NoError(t, err)
			require.NoError(t, reflection.Send(&grpc_reflection_v1.ServerReflectionRequest{
				MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{},
			}))
			listed, err := reflection.Recv()
			require.NoError(t, err)
			require.NotEmpty(t, listed.GetListServicesResponse().GetService())
			require.NoError(t, reflection.CloseSend())
		})
	}
}

// clipper runs the command line against the system and returns its output and exit code.
func (s *system) clipper(t *testing.T, stdin string, args ...string) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), programs.clipper, args...)
	cmd.Env = append(cmd.Environ(), "CLIPPER_ADDRESS="+s.queryConn.Target(), "CLIPPER_ADMIN_ADDRESS="+s.adminConn.Target())
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run() // The exit code says it.
	t.Logf("clipper %s: exit code %d\n%s%s", strings.Join(args, " "), cmd.ProcessState.ExitCode(), &stdout, &stderr)
	return stdout.String(), cmd.ProcessState.ExitCode()
}

// testCommandLine does the main job from the command line.
func testCommandLine(t *testing.T, s *system) {
	run := func(args ...string) string {
		t.Helper()
		out, code := s.clipper(t, "", args...)
		require.Zero(t, code)
		return out
	}
	document := func(args ...string) map[string]any {
		t.Helper()
		var object map[string]any
		require.NoError(t, json.Unmarshal([]byte(run(append(args, "--json")...)), &object))
		return object
	}
	run("model", "deploy", "cli", "--version", "1", "--", programs.container)
	run("model", "deploy", "cli", "--version", "2", "--keep-current", "--env", "BIAS=1", "--", programs.container)
	run("app", "create", "cli", "--models", "cli", "--default=-1", "--slo", "20s")
	require.Contains(t, run("model", "list"), "cli")
	require.Contains(t, run("app", "list"), "cli")
	require.Contains(t, run("status"), "ready")

	answer := document("query", "cli", "[3, 0]")
	require.EqualValues(t, 3, answer["output"])
	require.Equal(t, false, answer["is_default"])
	feedback := document("feedback", "cli", "--id", answer["feedback_id"].(string), "--truth", "3")
	require.NotContains(t, feedback, "error")
	require.EqualValues(t, 1, document("app", "state", "cli")["observations"])

	run("model", "set-version", "cli", "2")
	require.EqualValues(t, 4, document("query", "cli", "[3, 0]")["output"])
	run("model", "scale", "cli", "2", "--version", "2")
	require.Contains(t, run("model", "show", "cli"), "2/2")
	run("app", "update", "cli", "--slo", "10s")
	require.Contains(t, run("app", "show", "cli"), "10s")
	run("app", "delete", "cli")
	run("model", "delete", "cli")

	_, code := s.clipper(t, "", "app", "show", "cli")
	require.Equal(t, 3, code, "what is not found")
	_, code = s.clipper(t, "", "app", "create")
	require.Equal(t, 2, code, "wrong usage")
	_, code = s.clipper(t, "", "model", "list", "--admin-address", freeAddress(t), "--timeout", "1s")
	require.Equal(t, 4, code, "nobody there")
}

// TestStop_inGoodOrder: what is admitted is answered, containers end with their service, and the
// exit code is 0.
func TestStop_inGoodOrder(t *testing.T) {
	s := start(t, one, embedded)
	s.deploy(t, "m", nil)
	s.create(t, application("a", "single", "m"))
	type result struct {
		answer *clipperv1.QueryResponse
		err    error
	}
	results := make(chan result, 1)
	go func() {
		answer, err := s.queries.Query(t.Context(), &clipperv1.QueryRequest{Application: "a", Inputs: input(7, 1500)})
		results <- result{answer, err}
	}()
	s.awaitInFlight(t)
	p := s.running[all]
	p.signal(t, syscall.SIGTERM)
	r := <-results
	require.NoError(t, r.err)
	require.EqualValues(t, 7, predicted(t, r.answer))
	require.Zero(t, p.wait(t))
	require.Empty(t, s.containers(t))
	delete(s.running, all)
}

// awaitInFlight waits until the metrics say that a query is under way.
func (s *system) awaitInFlight(t *testing.T) {
	t.Helper()
	under := regexp.MustCompile(`(?m)^clipper_grpc_server_in_flight_calls\{.*Query.*\} 1$`)
	require.Eventually(t, func() bool {
		response, err := http.Get(s.adminURL + "/metrics")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		return err == nil && under.Match(text)
	}, patience, poll)
}
