// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Client says how one who calls speaks TLS. The zero value speaks without. Any setting turns TLS on. A
// command line embeds it with envprefix.
type Client struct {
	TLS        bool   `name:"tls" env:"TLS" help:"Speak TLS, and trust the CAs of the system. The other TLS settings turn it on too."`
	CA         string `name:"tls-ca" env:"TLS_CA" placeholder:"FILE" help:"TLS: the CAs (PEM) to trust, instead of those of the system."`
	Cert       string `name:"tls-cert" env:"TLS_CERT" placeholder:"FILE" help:"Mutual TLS: the certificate to present (PEM)."`
	Key        string `name:"tls-key" env:"TLS_KEY" placeholder:"FILE" help:"Mutual TLS: the certificate's private key (PEM)."`
	ServerName string `name:"tls-server-name" env:"TLS_SERVER_NAME" placeholder:"NAME" help:"TLS: the name that the server's certificate must have. Default: the host of the address."`
}

// Enabled reports whether TLS is spoken.
func (c Client) Enabled() bool { return c != Client{} }

// Credentials returns how gRPC connects. The files are read now, and again when they change; the log
// hears of that.
func (c Client) Credentials(log *slog.Logger) (credentials.TransportCredentials, error) {
	if !c.Enabled() {
		return insecure.NewCredentials(), nil
	}
	f, err := c.open(log)
	if err != nil {
		return nil, err
	}
	return &dialer{files: f}, nil
}

// Config returns the configuration of one connection, from the files as they are now.
func (c Client) Config() (*tls.Config, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	return c.load()
}

func (c Client) open(log *slog.Logger) (*files, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	var paths []string
	for _, path := range []string{c.Cert, c.Key, c.CA} {
		if path != "" {
			paths = append(paths, path)
		}
	}
	return open(log, paths, c.load)
}

func (c Client) validate() error {
	if (c.Cert == "") != (c.Key == "") {
		return errors.New("TLS: a certificate and its key belong together: set both or none")
	}
	return nil
}

func (c Client) load() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: minVersion, CipherSuites: suites, ServerName: c.ServerName}
	var err error
	if c.CA != "" {
		if cfg.RootCAs, err = pool(c.CA); err != nil {
			return nil, err
		}
	}
	if c.Cert != "" {
		if cfg.Certificates, err = pair(c.Cert, c.Key); err != nil {
			return nil, err
		}
	}
	return cfg, nil
}

// dialer makes each handshake with the files as they are.
type dialer struct{ files *files }

var _ credentials.TransportCredentials = (*dialer)(nil)

func (d *dialer) now() credentials.TransportCredentials { return credentials.NewTLS(d.files.get()) }

// ClientHandshake implements credentials.TransportCredentials.
func (d *dialer) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return d.now().ClientHandshake(ctx, authority, conn)
}

// ServerHandshake implements credentials.TransportCredentials.
func (d *dialer) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("TLS: these credentials are a client's")
}

// Info implements credentials.TransportCredentials.
func (d *dialer) Info() credentials.ProtocolInfo { return d.now().Info() }

// Clone implements credentials.TransportCredentials.
func (d *dialer) Clone() credentials.TransportCredentials { return d }

// OverrideServerName implements credentials.TransportCredentials; the name is in the configuration.
func (d *dialer) OverrideServerName(string) error {
	return errors.New("TLS: the server's name is a setting of these credentials")
}
