// SPDX-License-Identifier: Apache-2.0

package app_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/clipper-serving/clipper/internal/app"
	"github.com/clipper-serving/clipper/internal/certs"
	"github.com/clipper-serving/clipper/internal/certs/certstest"
)

const year = 365 * 24 * time.Hour

// secureFiles returns a CA, the settings of a server with a certificate of it, and those of a client.
func secureFiles(t *testing.T) (*certstest.CA, certs.Server, certs.Client) {
	t.Helper()
	ca, err := certstest.New(t.TempDir(), "ca")
	require.NoError(t, err)
	cert, key, err := ca.Issue("server", year)
	require.NoError(t, err)
	clientCert, clientKey, err := ca.Issue("client", year)
	require.NoError(t, err)
	return ca, certs.Server{Cert: cert, Key: key, ClientCA: ca.Path}, certs.Client{CA: ca.Path, Cert: clientCert, Key: clientKey}
}

func dialSecure(t *testing.T, address string, files certs.Client) *grpc.ClientConn {
	t.Helper()
	secure, err := files.Credentials(slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(secure))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

// safeBuffer is a buffer that several goroutines write.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// Certificates are replaced, while calls are under way on a connection that stays and on new ones, until
// both a server's and a client's new ones are in use. No call fails.
func TestTLS_rotationUnderLoad(t *testing.T) {
	ca, server, client := secureFiles(t)
	grpcCfg, httpCfg := grpcConfig(t), httpConfig(t)
	grpcCfg.TLS, httpCfg.TLS = server, server
	var grpcAt, httpAt string
	o := options()
	start(t, o, func(a *app.App) error {
		s, err := a.GRPC("queries", grpcCfg)
		require.NoError(t, err)
		testpb.RegisterTestServiceServer(s, &service{})
		h, err := a.HTTP("ops", httpCfg, a.Ops())
		require.NoError(t, err)
		grpcAt, httpAt = s.Address(), h.Address()
		return nil
	})
	kept := testpb.NewTestServiceClient(dialSecure(t, grpcAt, client))
	var done atomic.Bool
	var calls atomic.Int64
	var group errgroup.Group
	defer done.Store(true)
	group.Go(func() error {
		for !done.Load() {
			if _, err := kept.UnaryCall(t.Context(), &testpb.SimpleRequest{}); err != nil {
				return fmt.Errorf("kept connection: %w", err)
			}
			calls.Add(1)
		}
		return nil
	})
	secure, err := client.Credentials(slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	group.Go(func() error {
		for !done.Load() {
			conn, err := grpc.NewClient(grpcAt, grpc.WithTransportCredentials(secure))
			if err == nil {
				_, err = testpb.NewTestServiceClient(conn).UnaryCall(t.Context(), &testpb.SimpleRequest{})
				err = errors.Join(err, conn.Close())
			}
			if err != nil {
				return fmt.Errorf("new connection: %w", err)
			}
			calls.Add(1)
		}
		return nil
	})
	// What a new connection sees.
	presented := func() (serial int64) {
		cfg, err := client.Config()
		require.NoError(t, err)
		conn, err := tls.Dial("tcp", httpAt, cfg)
		require.NoError(t, err)
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	for range 2 {
		_, _, err := ca.Issue("server", year)
		require.NoError(t, err)
		want := ca.Serial()
		_, _, err = ca.Issue("client", year)
		require.NoError(t, err)
		require.Eventually(t, func() bool { return presented() == want }, 10*time.Second, 20*time.Millisecond)
	}
	done.Store(true)
	require.NoError(t, group.Wait())
	require.Positive(t, calls.Load())
}

func TestTLS_refuses(t *testing.T) {
	_, server, client := secureFiles(t)
	other, err := certstest.New(t.TempDir(), "other")
	require.NoError(t, err)
	expired, expiredKey, err := other.Issue("expired", -time.Minute)
	require.NoError(t, err)
	grpcCfg, httpCfg := grpcConfig(t), httpConfig(t)
	grpcCfg.TLS, httpCfg.TLS = server, server
	var grpcAt, httpAt string
	o := options()
	var log safeBuffer
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	start(t, o, func(a *app.App) error {
		s, err := a.GRPC("queries", grpcCfg)
		require.NoError(t, err)
		testpb.RegisterTestServiceServer(s, &service{})
		h, err := a.HTTP("ops", httpCfg, a.Ops())
		require.NoError(t, err)
		grpcAt, httpAt = s.Address(), h.Address()
		return nil
	})
	n, err := testutil.GatherAndCount(o.Registry, "clipper_tls_certificate_expiry_timestamp_seconds")
	require.NoError(t, err)
	require.Equal(t, 2, n)

	call := func(conn *grpc.ClientConn) error {
		_, err := testpb.NewTestServiceClient(conn).UnaryCall(t.Context(), &testpb.SimpleRequest{})
		return err
	}
	require.NoError(t, call(dialSecure(t, grpcAt, client)))
	for name, tc := range map[string]struct {
		files certs.Client
		want  string
	}{
		"no certificate":      {certs.Client{CA: client.CA}, ""},
		"expired certificate": {certs.Client{CA: client.CA, Cert: expired, Key: expiredKey}, ""},
		"CA of another":       {certs.Client{CA: other.Path, Cert: client.Cert, Key: client.Key}, "unknown authority"},
		"name of another":     {certs.Client{CA: client.CA, Cert: client.Cert, Key: client.Key, ServerName: "elsewhere"}, "not elsewhere"},
	} {
		err := call(dialSecure(t, grpcAt, tc.files))
		require.Equal(t, codes.Unavailable, status.Code(err), name)
		// A client whose own certificate is refused may see no more than a connection that broke.
		require.ErrorContains(t, err, tc.want, name)
	}
	require.Contains(t, log.String(), "TLS handshake failed")
	require.Error(t, call(dial(t, grpcAt)), "without TLS")

	cfg, err := client.Config()
	require.NoError(t, err)
	for _, two := range []bool{true, false} {
		web := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg.Clone(), ForceAttemptHTTP2: two, DisableKeepAlives: true}}
		res, err := web.Get("https://" + httpAt + "/healthz")
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusOK, res.StatusCode)
		require.Equal(t, two, res.ProtoMajor == 2)
	}
	res, err := get(t.Context(), "http://"+httpAt+"/healthz")
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusBadRequest, res.StatusCode, "without TLS")
}

// A client that never completes its handshake is cut off.
func TestTLS_slowHandshake(t *testing.T) {
	_, server, _ := secureFiles(t)
	grpcCfg, httpCfg := grpcConfig(t), httpConfig(t)
	grpcCfg.TLS, httpCfg.TLS = server, server
	grpcCfg.ConnectionTimeout, httpCfg.HeaderTimeout = 50*time.Millisecond, 50*time.Millisecond
	var addresses []string
	start(t, options(), func(a *app.App) error {
		s, err := a.GRPC("queries", grpcCfg)
		require.NoError(t, err)
		h, err := a.HTTP("ops", httpCfg, a.Ops())
		require.NoError(t, err)
		addresses = []string{s.Address(), h.Address()}
		return nil
	})
	for _, address := range addresses {
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		_, err = conn.Write([]byte{22, 3, 1}) // The beginning of a hello.
		require.NoError(t, err)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(30*time.Second)))
		_, err = conn.Read(make([]byte, 1))
		require.Error(t, err)
		timeout, isTimeout := err.(net.Error) //nolint:errorlint // Only its own type says it.
		require.False(t, isTimeout && timeout.Timeout(), "it was not cut off")
		require.NoError(t, conn.Close())
	}
}

func TestGRPC_connectionAge(t *testing.T) {
	cfg := grpcConfig(t)
	cfg.MaxConnectionAge = time.Second
	conn, _ := serve(t, options(), cfg, func(_ *app.App, server *app.GRPCServer) {
		testpb.RegisterTestServiceServer(server, &service{})
	})
	client := testpb.NewTestServiceClient(conn)
	_, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{})
	require.NoError(t, err)
	state := conn.GetState()
	require.True(t, conn.WaitForStateChange(t.Context(), state), "the server asks the client to connect anew")
	_, err = client.UnaryCall(t.Context(), &testpb.SimpleRequest{})
	require.NoError(t, err)
}

func TestTLS_badSettings(t *testing.T) {
	_, server, _ := secureFiles(t)
	server.Key = filepath.Join(t.TempDir(), "none.key")
	var log bytes.Buffer
	o := options()
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	err := app.Run(t.Context(), o, func(a *app.App) error {
		cfg := grpcConfig(t)
		cfg.TLS = server
		_, err := a.GRPC("queries", cfg)
		return err
	})
	require.ErrorContains(t, err, "listen for queries: TLS: certificate")
	require.ErrorContains(t, err, "none.key")
}
