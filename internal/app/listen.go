// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/clipper-serving/clipper/internal/certs"
)

// listen opens a listener at an address as in the configuration, and warns when
// others than this machine can reach it and it has no TLS. What TLS needs is nil then.
func (a *App) listen(name, address string, files certs.Server) (net.Listener, *certs.Listener, error) {
	var secure *certs.Listener
	if files.Enabled() {
		var err error
		if secure, err = files.Listen(a.Log.With("server", name)); err != nil {
			return nil, nil, fmt.Errorf("listen for %s: %w", name, err)
		}
		if err := a.observeExpiry(name, secure); err != nil {
			return nil, nil, fmt.Errorf("listen for %s: %w", name, err)
		}
	}
	listener, err := openListener(address)
	if err != nil {
		return nil, nil, fmt.Errorf("listen for %s: %w", name, err)
	}
	a.Log.Info("listening", "server", name, "address", addressOf(listener), "tls", files.String())
	if tcp, ok := listener.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() && secure == nil {
		a.Log.Warn("anyone who can reach this address can connect, and nothing is encrypted: give it a certificate (docs/security.md)",
			"server", name, "address", addressOf(listener))
	}
	return listener, secure, nil
}

// observeExpiry shows in the metrics when the certificate of a server ends.
func (a *App) observeExpiry(name string, secure *certs.Listener) error {
	return a.Registry.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "clipper_tls_certificate_expiry_timestamp_seconds",
		Help:        "When the certificate ends that a server presents, in seconds since 1970.",
		ConstLabels: prometheus.Labels{"server": name},
	}, func() float64 { return float64(secure.Expires().Unix()) }))
}

func openListener(address string) (net.Listener, error) {
	path, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		if address == "" {
			return nil, errors.New("the address is empty: want HOST:PORT or unix:PATH")
		}
		return new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	}
	if rest, ok := strings.CutPrefix(path, "//"); ok { // As gRPC writes absolute paths.
		path = rest
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	// Whoever may write to a socket may connect to it.
	if err := os.Chmod(path, 0o660); err != nil { //nolint:gosec // The group is trusted by design.
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// removeStale removes a socket that a process left behind when it was killed. It
// leaves everything else alone: a socket that someone listens on, and other files.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	conn, err := new(net.Dialer).DialContext(context.Background(), "unix", path)
	if err == nil {
		return errors.Join(fmt.Errorf("%s is in use", path), conn.Close())
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return os.Remove(path)
	}
	return err
}

// addressOf is where clients reach a listener, as a gRPC target or as it would be
// written in the configuration.
func addressOf(listener net.Listener) string {
	if listener.Addr().Network() == "unix" {
		return "unix:" + listener.Addr().String()
	}
	return listener.Addr().String()
}
