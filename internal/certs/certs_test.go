// SPDX-License-Identifier: Apache-2.0

package certs_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/clipper-serving/clipper/internal/certs"
	"github.com/clipper-serving/clipper/internal/certs/certstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

const year = 365 * 24 * time.Hour

func newCA(t *testing.T, name string) *certstest.CA {
	t.Helper()
	ca, err := certstest.New(t.TempDir(), name)
	require.NoError(t, err)
	return ca
}

func issue(t *testing.T, ca *certstest.CA, name string, valid time.Duration) (cert, key string) {
	t.Helper()
	cert, key, err := ca.Issue(name, valid)
	require.NoError(t, err)
	return cert, key
}

// handshake connects a client to a listener over a pipe and returns what the client saw of the server,
// and what went wrong on either side.
func handshake(t *testing.T, l *certs.Listener, c certs.Client) (tls.ConnectionState, error) {
	t.Helper()
	cfg, err := c.Config()
	require.NoError(t, err)
	if cfg.ServerName == "" {
		cfg.ServerName = "127.0.0.1"
	}
	return handshakeWith(t, l, cfg)
}

func handshakeWith(t *testing.T, l *certs.Listener, cfg *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	here, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	defer here.Close()
	there, err := listener.Accept()
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() {
		defer there.Close()
		server := tls.Server(there, l.Config("h2"))
		if err := server.Handshake(); err != nil {
			served <- err
			return
		}
		_, err := io.WriteString(server, "k")
		served <- err
	}()
	client := tls.Client(here, cfg)
	_, err = io.ReadFull(client, make([]byte, 1)) // In TLS 1.3, a refusal comes after the client's handshake.
	state := client.ConnectionState()
	_ = here.Close()
	if failed := <-served; failed != nil && err == nil {
		err = failed
	}
	return state, err
}

func TestHandshake(t *testing.T) {
	ours, theirs := newCA(t, "ours"), newCA(t, "theirs")
	cert, key := issue(t, ours, "server", year)
	oldCert, oldKey := issue(t, ours, "old", -time.Minute)
	clientCert, clientKey := issue(t, ours, "client", year)
	otherCert, otherKey := issue(t, theirs, "other", year)
	expiredCert, expiredKey := issue(t, ours, "expired", -time.Minute)

	plain := certs.Server{Cert: cert, Key: key}
	mutual := certs.Server{Cert: cert, Key: key, ClientCA: ours.Path}
	for name, tc := range map[string]struct {
		server certs.Server
		client certs.Client
		want   string
	}{
		"known CA":               {plain, certs.Client{CA: ours.Path}, ""},
		"name of the server":     {plain, certs.Client{CA: ours.Path, ServerName: "server"}, ""},
		"wrong name":             {plain, certs.Client{CA: ours.Path, ServerName: "elsewhere"}, "not elsewhere"},
		"wrong CA":               {plain, certs.Client{CA: theirs.Path}, "unknown authority"},
		"CAs of the system":      {plain, certs.Client{TLS: true}, "unknown authority"},
		"expired server":         {certs.Server{Cert: oldCert, Key: oldKey}, certs.Client{CA: ours.Path}, "expired"},
		"mutual":                 {mutual, certs.Client{CA: ours.Path, Cert: clientCert, Key: clientKey}, ""},
		"no client certificate":  {mutual, certs.Client{CA: ours.Path}, "certificate required"},
		"client of another CA":   {mutual, certs.Client{CA: ours.Path, Cert: otherCert, Key: otherKey}, "tls: "},
		"expired client":         {mutual, certs.Client{CA: ours.Path, Cert: expiredCert, Key: expiredKey}, "expired"},
		"more than is asked for": {plain, certs.Client{CA: ours.Path, Cert: clientCert, Key: clientKey}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := tc.server.Listen(quiet())
			require.NoError(t, err)
			state, err := handshake(t, l, tc.client)
			if tc.want != "" {
				require.ErrorContains(t, err, tc.want)
				return
			}
			require.NoError(t, err)
			require.Equal(t, uint16(tls.VersionTLS13), state.Version)
		})
	}
}

func TestHandshake_versions(t *testing.T) {
	ca := newCA(t, "ca")
	cert, key := issue(t, ca, "server", year)
	l, err := certs.Server{Cert: cert, Key: key}.Listen(quiet())
	require.NoError(t, err)
	for version, want := range map[uint16]string{
		tls.VersionTLS10: "protocol version", tls.VersionTLS11: "protocol version",
		tls.VersionTLS12: "", tls.VersionTLS13: "",
	} {
		cfg, err := certs.Client{CA: ca.Path, ServerName: "server"}.Config()
		require.NoError(t, err)
		cfg.MinVersion, cfg.MaxVersion = version, version
		cfg.CipherSuites = nil
		state, err := handshakeWith(t, l, cfg)
		if want != "" {
			require.ErrorContains(t, err, want, tls.VersionName(version))
			continue
		}
		require.NoError(t, err, tls.VersionName(version))
		require.Equal(t, version, state.Version)
	}
	// A suite without authenticated encryption.
	cfg, err := certs.Client{CA: ca.Path, ServerName: "server"}.Config()
	require.NoError(t, err)
	cfg.MaxVersion = tls.VersionTLS12
	cfg.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
	_, err = handshakeWith(t, l, cfg)
	require.ErrorContains(t, err, "handshake failure")
}

func TestSettings_refused(t *testing.T) {
	ca, other := newCA(t, "ca"), newCA(t, "other")
	cert, key := issue(t, ca, "a", year)
	_, wrong := issue(t, other, "b", year)
	empty := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	for name, tc := range map[string]struct {
		server certs.Server
		want   string
	}{
		"no key":        {certs.Server{Cert: cert}, "belong together"},
		"no cert":       {certs.Server{Key: key}, "belong together"},
		"only a CA":     {certs.Server{ClientCA: ca.Path}, "needs a certificate"},
		"missing file":  {certs.Server{Cert: cert + "x", Key: key}, "no such file"},
		"key of other":  {certs.Server{Cert: cert, Key: wrong}, "does not match"},
		"no CA in file": {certs.Server{Cert: cert, Key: key, ClientCA: empty}, "has no certificate"},
		"missing CA":    {certs.Server{Cert: cert, Key: key, ClientCA: empty + "x"}, "no such file"},
	} {
		_, err := tc.server.Listen(quiet())
		require.ErrorContains(t, err, tc.want, name)
	}
	for name, tc := range map[string]struct {
		client certs.Client
		want   string
	}{
		"no key":       {certs.Client{Cert: cert}, "belong together"},
		"missing CA":   {certs.Client{CA: empty + "x"}, "no such file"},
		"key of other": {certs.Client{Cert: cert, Key: wrong}, "does not match"},
	} {
		_, err := tc.client.Credentials(quiet())
		require.ErrorContains(t, err, tc.want, name)
		_, err = tc.client.Config()
		require.ErrorContains(t, err, tc.want, name)
	}
}

func TestListener_reads_again(t *testing.T) {
	ca := newCA(t, "ca")
	cert, key := issue(t, ca, "server", year)
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		l, err := certs.Server{Cert: cert, Key: key}.Listen(slog.New(slog.NewTextHandler(&log, nil)))
		require.NoError(t, err)
		// The clock of the bubble is not that of the certificates.
		get := func() *tls.Config {
			time.Sleep(time.Second)
			cfg, err := l.Config().GetConfigForClient(nil)
			require.NoError(t, err)
			return cfg
		}
		number := func() int64 { return get().Certificates[0].Leaf.SerialNumber.Int64() }
		require.Equal(t, ca.Serial(), number())

		issue(t, ca, "server", year)
		require.Equal(t, ca.Serial(), number())
		require.Contains(t, log.String(), "read again")

		// Only one of the two has been written yet; it is said once.
		before := number()
		_, otherKey := issue(t, ca, "other", year)
		good, err := os.ReadFile(key)
		require.NoError(t, err)
		bad, err := os.ReadFile(otherKey)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(key, bad, 0o600))
		require.Equal(t, before, number())
		require.Equal(t, before, number())
		require.Equal(t, 1, bytes.Count(log.Bytes(), []byte("not read again")))
		require.NoError(t, os.Remove(key))
		require.Equal(t, before, number())

		// As Kubernetes does it: the path is a symbolic link, and leads elsewhere.
		require.NoError(t, os.WriteFile(key+".target", good, 0o600))
		require.NoError(t, os.Symlink(key+".target", key))
		require.Equal(t, before, number())
		require.NotContains(t, log.String(), "PRIVATE")
	})
}

func TestListener_says_that_it_ends(t *testing.T) {
	ca := newCA(t, "ca")
	for valid, warns := range map[time.Duration]bool{year: false, time.Hour: true, -time.Hour: true} {
		cert, key := issue(t, ca, "server", valid)
		var log bytes.Buffer
		l, err := certs.Server{Cert: cert, Key: key}.Listen(slog.New(slog.NewTextHandler(&log, nil)))
		require.NoError(t, err)
		require.WithinDuration(t, time.Now().Add(valid), l.Expires(), time.Minute)
		require.Equal(t, warns, bytes.Contains(log.Bytes(), []byte("renew it")), valid)
	}
}

// A session of a client whose CA is trusted no more is not resumed.
func TestListener_forgets_a_CA(t *testing.T) {
	ours, theirs := newCA(t, "ours"), newCA(t, "theirs")
	cert, key := issue(t, ours, "server", year)
	clientCert, clientKey := issue(t, theirs, "client", year)
	trusted := filepath.Join(t.TempDir(), "trusted.pem")
	copyFile(t, theirs.Path, trusted)
	l, err := certs.Server{Cert: cert, Key: key, ClientCA: trusted}.Listen(quiet())
	require.NoError(t, err)
	cfg, err := certs.Client{CA: ours.Path, Cert: clientCert, Key: clientKey, ServerName: "server"}.Config()
	require.NoError(t, err)
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for range 2 {
		state, err := handshakeWith(t, l, cfg)
		require.NoError(t, err)
		require.False(t, state.DidResume)
	}
	copyFile(t, ours.Path, trusted)
	require.Eventually(t, func() bool {
		_, err := handshakeWith(t, l, cfg)
		return err != nil
	}, 10*time.Second, 10*time.Millisecond)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(to, text, 0o600))
}
