// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/certs"
	"github.com/clipper-serving/clipper/internal/certs/certstest"
)

const year = 365 * 24 * time.Hour

// TestSecurity runs the services in processes of their own with mutual TLS on every listener and link, two
// instances of the abstraction service among them, and a container that registers by token and is reached
// over TLS. All is asked by the command line. Then the certificates are replaced while queries are asked.
func TestSecurity(t *testing.T) {
	const token = "the-token-of-registration"
	dir := t.TempDir()
	ca, err := certstest.New(dir, "ca")
	require.NoError(t, err)
	cert, key, err := ca.Issue("clipper", year)
	require.NoError(t, err)
	tokens := filepath.Join(dir, "tokens")
	require.NoError(t, os.WriteFile(tokens, []byte("another-token\n"+token+"\n"), 0o600))

	s := install(t, three, redis)
	secure := func(service service, prefixes ...string) {
		for _, p := range prefixes {
			s.settings[service] = append(s.settings[service], "--"+p+"-tls-cert="+cert, "--"+p+"-tls-key="+key, "--"+p+"-tls-client-ca="+ca.Path)
		}
		s.settings[service] = append(s.settings[service], "--log-level=debug",
			"--services-tls-ca="+ca.Path, "--services-tls-cert="+cert, "--services-tls-key="+key)
	}
	const second service = "abstraction 2"
	s.grpc[second] = freeAddress(t)
	s.settings[abstraction] = append(s.settings[abstraction], "--register-token-file="+tokens,
		"--container-tls-ca="+ca.Path, "--container-tls-cert="+cert, "--container-tls-key="+key)
	s.settings[second] = append(append([]string{}, s.settings[abstraction]...), "--grpc-listen="+s.grpc[second], "--ops-listen="+freeAddress(t), "--run-dir="+s.runDir+"2")
	secure(abstraction, "grpc", "ops")
	secure(second, "grpc", "ops")
	secure(selector, "grpc", "ops")
	secure(frontend, "http", "grpc", "admin-http", "admin-grpc")
	for name, value := range map[string]string{"CLIPPER_TLS_CA": ca.Path, "CLIPPER_TLS_CERT": cert, "CLIPPER_TLS_KEY": key} {
		t.Setenv(name, value)
	}
	for _, name := range append([]service{second}, s.services...) {
		s.start(t, name)
	}
	ready := func(name service) {
		t.Helper()
		require.Eventually(t, func() bool {
			_, code := s.clipper(t, "", "health", "--ready", strings.TrimPrefix(s.ops[name], "http://"))
			return code == 0
		}, patience, 5*poll, name)
	}
	for _, name := range s.services {
		ready(name)
	}

	container := exec.Command(programs.container)
	container.Env = append(os.Environ(),
		"CLIPPER_CONTAINER_ADDRESS=127.0.0.1:0", "CLIPPER_MODEL_NAME=m0", "CLIPPER_MODEL_VERSION=1",
		"CLIPPER_CONTAINER_TLS_CERT="+cert, "CLIPPER_CONTAINER_TLS_KEY="+key, "CLIPPER_CONTAINER_TLS_CLIENT_CA="+ca.Path,
		"CLIPPER_REGISTER_ADDRESS="+s.grpc[abstraction], "CLIPPER_REGISTER_TOKEN="+token,
		"CLIPPER_REGISTER_TLS_CA="+ca.Path, "CLIPPER_REGISTER_TLS_CERT="+cert, "CLIPPER_REGISTER_TLS_KEY="+key)
	var said output
	container.Stdout, container.Stderr = &said, &said
	require.NoError(t, container.Start())
	t.Cleanup(func() {
		_ = container.Process.Kill()
		_ = container.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})

	// The services' own client, over TLS.
	client := certs.Client{CA: ca.Path, Cert: cert, Key: key}
	dial := func(address string) *grpc.ClientConn {
		credentials, err := client.Credentials(slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, conn.Close()) })
		return conn
	}
	admin := dial(s.adminConn.Target())
	s.models, s.applications = clipperv1.NewModelServiceClient(admin), clipperv1.NewApplicationServiceClient(admin)
	s.queries = clipperv1.NewQueryServiceClient(dial(s.queryConn.Target()))

	v := version("m0", "1", nil)
	v.Container = &clipperv1.Container{Source: &clipperv1.Container_Registered{Registered: &clipperv1.Registered{}}}
	s.deployVersion(t, v)
	s.deploy(t, "m1", nil) // Over a unix socket, beside it.
	s.create(t, application("m0", "single", "m0"))
	s.create(t, application("m1", "single", "m1"))
	for _, app := range []string{"m0", "m1"} {
		require.EventuallyWithT(t, func(c *assertCollect) {
			out, code := s.clipper(t, "", "query", app, "[3, 0]", "--json")
			require.Zero(c, code, out)
			require.Contains(c, out, `"is_default":false`)
		}, patience, 5*poll)
	}
	require.Contains(t, s.running[abstraction].output.String()+s.running[second].output.String(), `connected service="instance`, "the instances speak with each other")

	// Who has no certificate, or no token, is refused.
	_, err = s.models.RegisterReplica(t.Context(), &clipperv1.RegisterReplicaRequest{Model: "m0", Version: "1", Replica: "r", Address: "127.0.0.1:9"})
	require.Equal(t, codes.Unauthenticated, status.Code(err))
	require.ErrorContains(t, err, "must present a token")
	_, err = s.models.RegisterReplica(t.Context(), &clipperv1.RegisterReplicaRequest{Model: "m0", Version: "1", Replica: "r", Address: "127.0.0.1:9", Token: "guess-of-a-token"})
	require.Equal(t, codes.Unauthenticated, status.Code(err))
	require.NotContains(t, err.Error(), token)
	anonymous, err := certs.Client{CA: ca.Path}.Config()
	require.NoError(t, err)
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: anonymous}}
	for _, address := range []string{s.queryURL, s.adminURL, s.ops[selector], s.ops[abstraction]} {
		_, err := web.Get(strings.Replace(address, "http:", "https:", 1) + "/readyz") //nolint:bodyclose // There is none.
		require.ErrorContains(t, err, "certificate required")
	}
	_, code := s.clipper(t, "", "query", "m0", "[1, 0]", "--tls-server-name=elsewhere")
	require.Equal(t, 4, code)

	// A new certificate is used without a restart, and no query is lost.
	stop := make(chan struct{})
	var group errgroup.Group
	group.Go(func() error {
		for {
			select {
			case <-stop:
				return nil
			default:
			}
			if _, err := s.queries.Query(t.Context(), &clipperv1.QueryRequest{Application: "m0", Inputs: input(5, 0)}); err != nil {
				return err
			}
		}
	})
	_, _, err = ca.Issue("clipper", year)
	require.NoError(t, err)
	presented := func(address string) (serial int64) {
		cfg, err := client.Config()
		require.NoError(t, err)
		web := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}}
		response, err := web.Get(strings.Replace(address, "http:", "https:", 1) + "/readyz")
		require.NoError(t, err)
		defer response.Body.Close()
		return response.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	for _, name := range s.services {
		require.Eventually(t, func() bool { return presented(s.ops[name]) == ca.Serial() }, patience, 5*poll, name)
	}
	close(stop)
	require.NoError(t, group.Wait())

	// No secret is to be seen.
	private, err := os.ReadFile(key)
	require.NoError(t, err)
	cfg, err := client.Config()
	require.NoError(t, err)
	operator := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg}}
	seen := said.String()
	for _, name := range s.services {
		for _, path := range []string{"/metrics", "/readyz", "/debug/pprof/", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1", "/debug/pprof/cmdline"} {
			response, err := operator.Get(strings.Replace(s.ops[name], "http:", "https:", 1) + path)
			require.NoError(t, err)
			text, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			seen += string(text)
		}
	}
	for _, p := range s.logs {
		seen += p.output.String()
	}
	for _, secret := range []string{token, "guess-of-a-token", strings.Split(string(private), "\n")[1]} {
		require.NotContains(t, seen, secret)
	}
}

// TestSecurity_secrets gives secrets on the command line, where none should be, to services that cannot even
// reach their store: their logs and pages do not show them.
func TestSecurity_secrets(t *testing.T) {
	s := install(t, one, embedded)
	s.settings[all] = append(s.settings[all], "--log-level=debug", "--store=redis://someone:hunter2@"+freeAddress(t)+"/0", "--abstraction-register-token=correct-horse")
	s.start(t, all)
	require.Eventually(t, func() bool { return s.readiness(all) != 0 }, patience, poll)
	_, err := s.models.RegisterReplica(t.Context(), &clipperv1.RegisterReplicaRequest{Model: "m", Version: "1", Replica: "r", Address: "127.0.0.1:9", Token: "battery-staple"})
	require.Equal(t, codes.Unauthenticated, status.Code(err))
	seen := ""
	for _, path := range []string{"/metrics", "/readyz", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2"} {
		response, err := http.Get(s.adminURL + path)
		require.NoError(t, err)
		text, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		seen += string(text)
	}
	seen += s.running[all].output.String()
	require.Contains(t, seen, "method=RegisterReplica", "the log has the call with the token")
	for _, secret := range []string{"hunter2", "correct-horse", "battery-staple"} {
		require.NotContains(t, seen, secret)
	}
}
