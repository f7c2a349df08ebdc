// SPDX-License-Identifier: Apache-2.0

// Package certs is TLS with certificates that are files: for listeners and for those who call them. The
// files are read again when they change, so that a certificate is renewed without a restart: connections
// that exist go on, new ones use the new files. Files that cannot be used leave the ones before in use.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
)

// minVersion is the oldest version of TLS that is spoken. Both sides choose the newest that they have in common.
const minVersion = tls.VersionTLS12

// suites are those of TLS 1.2 that have forward secrecy and authenticate what they encrypt. Those of TLS 1.3 all do.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// Server names the files of a listener. The zero value is a listener without TLS.
type Server struct {
	Cert     string `placeholder:"FILE" help:"TLS: the certificate of this listener (PEM, followed by those that lead to its CA). Read again when it changes."`
	Key      string `placeholder:"FILE" help:"TLS: the certificate's private key (PEM)."`
	ClientCA string `placeholder:"FILE" help:"Mutual TLS: the CAs (PEM) one of which must have signed a client's certificate."`
}

// Enabled reports whether the listener speaks TLS.
func (s Server) Enabled() bool { return s != Server{} }

// String says how the listener is protected: "off", "on" or "mutual".
func (s Server) String() string {
	switch {
	case !s.Enabled():
		return "off"
	case s.ClientCA == "":
		return "on"
	default:
		return "mutual"
	}
}

// Listener is what a listener needs for its handshakes. Safe for concurrent use.
type Listener struct{ files *files }

// Listen reads the files. The log hears of files that are read again, and of those that cannot be.
func (s Server) Listen(log *slog.Logger) (*Listener, error) {
	switch {
	case s.Cert == "" && s.ClientCA != "" && s.Key == "":
		return nil, errors.New("TLS: a client CA needs a certificate and a key of the listener too")
	case s.Cert == "" || s.Key == "":
		return nil, errors.New("TLS: a certificate and its key belong together: set both or none")
	}
	paths := []string{s.Cert, s.Key}
	if s.ClientCA != "" {
		paths = append(paths, s.ClientCA)
	}
	f, err := open(log, paths, s.load)
	if err != nil {
		return nil, err
	}
	return &Listener{f}, nil
}

func (s Server) load() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: minVersion, CipherSuites: suites}
	var err error
	if cfg.Certificates, err = pair(s.Cert, s.Key); err != nil {
		return nil, err
	}
	if s.ClientCA != "" {
		if cfg.ClientCAs, err = pool(s.ClientCA); err != nil {
			return nil, err
		}
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
		// A session would outlive the CA that its certificate was checked with.
		cfg.SessionTicketsDisabled = true
	}
	return cfg, nil
}

// Config returns the configuration of a server that speaks the given protocols (ALPN).
func (l *Listener) Config(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: minVersion,
		NextProtos: protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			cfg := l.files.get().Clone()
			cfg.NextProtos = protocols
			return cfg, nil
		},
	}
}

// Credentials are the handshakes of a gRPC server. The log hears of those that fail, of one in a second.
func (l *Listener) Credentials() credentials.TransportCredentials {
	return &reported{TransportCredentials: credentials.NewTLS(l.Config("h2")), log: l.files.log}
}

// reported says what gRPC keeps to itself: that a client could not connect, and why.
type reported struct {
	credentials.TransportCredentials
	log  *slog.Logger
	last atomic.Int64
}

// ServerHandshake implements credentials.TransportCredentials.
func (r *reported) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secure, info, err := r.TransportCredentials.ServerHandshake(conn)
	now := time.Now().UnixNano()
	if last := r.last.Load(); err != nil && !errors.Is(err, io.EOF) && now-last > int64(time.Second) && r.last.CompareAndSwap(last, now) {
		r.log.Warn("TLS handshake failed", "client", conn.RemoteAddr(), "cause", err)
	}
	return secure, info, err
}

// Clone implements credentials.TransportCredentials.
func (r *reported) Clone() credentials.TransportCredentials { return r }

// Expires returns when the certificate ends that the listener presents now.
func (l *Listener) Expires() time.Time { return expires(l.files.get()) }

func expires(cfg *tls.Config) time.Time {
	if len(cfg.Certificates) == 0 {
		return time.Time{}
	}
	return cfg.Certificates[0].Leaf.NotAfter
}

// pair reads a certificate and its key.
func pair(cert, key string) ([]tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("TLS: certificate %s with key %s: %w", cert, key, err)
	}
	return []tls.Certificate{c}, nil
}

// pool reads certificates of CAs.
func pool(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("TLS: CA: %w", err)
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("TLS: CA: %s has no certificate in PEM", path)
	}
	return p, nil
}
