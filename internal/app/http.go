// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
)

// HTTPServer is an HTTP server that is part of an app.
type HTTPServer struct {
	name     string
	server   *http.Server
	listener net.Listener
	draining chan struct{}
}

var _ server = (*HTTPServer)(nil)

// HTTP adds an HTTP server, which listens at once. It limits the header of a
// request, in size and time; the handler limits the body, since it alone knows
// whether one may be long or slow.
func (a *App) HTTP(name string, cfg HTTPConfig, handler http.Handler) (*HTTPServer, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("HTTP server %s: %w", name, err)
	}
	listener, secure, err := a.listen(name, cfg.Listen, cfg.TLS)
	if err != nil {
		return nil, err
	}
	// HTTP/2 without TLS (RFC 9113, section 3.3) is for clients that know that it is spoken.
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	s := &HTTPServer{
		name:     name,
		listener: listener,
		draining: make(chan struct{}),
		server: &http.Server{
			Handler:           handler,
			Protocols:         protocols,
			ReadHeaderTimeout: cfg.HeaderTimeout,
			IdleTimeout:       cfg.IdleTimeout,
			MaxHeaderBytes:    int(cfg.MaxHeader),
			ErrorLog:          slog.NewLogLogger(a.Log.With("server", name).Handler(), slog.LevelWarn),
		},
	}
	if secure != nil {
		s.server.TLSConfig = secure.Config("h2", "http/1.1")
	}
	a.servers = append(a.servers, s)
	return s, nil
}

// Address is where the server listens: "127.0.0.1:1337" or "unix:/run/clipper.sock".
func (s *HTTPServer) Address() string { return addressOf(s.listener) }

// Draining is closed when the server begins to stop. It then waits for requests
// to end, so a response that would go on by itself must watch for it and end.
func (s *HTTPServer) Draining() <-chan struct{} { return s.draining }

func (s *HTTPServer) serve() error {
	serve := s.server.Serve
	if s.server.TLSConfig != nil {
		serve = func(l net.Listener) error { return s.server.ServeTLS(l, "", "") }
	}
	if err := serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.name, err)
	}
	return nil
}

func (s *HTTPServer) stop(ctx context.Context) error {
	close(s.draining)
	err := s.server.Shutdown(ctx)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		_ = s.server.Close() // Cuts the connections, which cancels the requests.
		return fmt.Errorf("stop %s: %w", s.name, ErrGraceExceeded)
	default:
		return fmt.Errorf("stop %s: %w", s.name, err)
	}
}

func (s *HTTPServer) abandon() { _ = s.listener.Close() }

// HTTP has no health protocol of its own: /readyz is for all servers.
func (s *HTTPServer) setReady(bool) {}
func (s *HTTPServer) drain()        {}
