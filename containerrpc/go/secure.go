// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/clipper-serving/clipper/internal/certs"
)

// TLS names the files (PEM) with which a container speaks TLS; they are read again when they change.
// The zero value speaks without.
type TLS struct {
	// Cert and Key are the container's certificate and its key.
	Cert, Key string
	// ClientCA are the CAs one of which must have signed Clipper's certificate; "": it needs none.
	ClientCA string
}

// options returns what the server needs on a network: "tcp", or "unix", where there is nothing to encrypt.
func (c Config) options(network string) ([]grpc.ServerOption, error) {
	files := certs.Server(c.TLS)
	if !files.Enabled() || network == "unix" {
		return nil, nil
	}
	l, err := files.Listen(c.Logger)
	if err != nil {
		return nil, err
	}
	return []grpc.ServerOption{grpc.Creds(l.Credentials())}, nil
}

// registerCredentials returns how Clipper is called to register.
func (c Config) registerCredentials() (credentials.TransportCredentials, error) {
	return certs.Client{TLS: c.RegisterTLS, CA: c.RegisterCA, Cert: c.RegisterCert, Key: c.RegisterKey}.Credentials(c.Logger)
}

// registerToken returns the token to register with, as it is now.
func (c Config) registerToken() (string, error) {
	if c.RegisterTokenFile == "" {
		return c.RegisterToken, nil
	}
	text, err := os.ReadFile(c.RegisterTokenFile)
	if err != nil {
		return "", fmt.Errorf("token to register with: %w", err)
	}
	token, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	if token == "" {
		return "", errors.New("token to register with: " + c.RegisterTokenFile + " is empty")
	}
	return strings.TrimSpace(token), nil
}

// advertised returns where others reach a listener, in the form in which it is registered.
func (c Config) advertised(a net.Addr) (string, error) {
	address := c.AdvertiseAddress
	if address == "" {
		var err error
		if address, err = reachedAt(a); err != nil {
			return "", err
		}
	}
	if c.TLS != (TLS{}) && !strings.HasPrefix(address, "tls://") && !strings.HasPrefix(address, "unix:") {
		address = "tls://" + address
	}
	return address, nil
}
