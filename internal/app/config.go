// SPDX-License-Identifier: Apache-2.0

package app

import (
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/clipper-serving/clipper/internal/certs"
	"github.com/clipper-serving/clipper/internal/config"
	"github.com/clipper-serving/clipper/internal/telemetry"
)

// LogConfig says how to log. Its settings have the same key in every command.
type LogConfig struct {
	Level  slog.Level `config:"global" default:"info" help:"Least level to log: debug, info, warn or error. At debug, every call is logged."`
	Format string     `config:"global" default:"text" enum:"text,json" help:"Form of log lines: text or json."`
}

// New returns a logger that writes to w.
func (c LogConfig) New(w io.Writer) (*slog.Logger, error) {
	return telemetry.NewLogger(c.Format, c.Level, w)
}

// GRPCConfig is the configuration of a gRPC server. Whoever embeds it gives the
// default address, with the tag set:"listen=127.0.0.1:1337".
type GRPCConfig struct {
	Listen               string        `default:"${listen}" help:"Address to listen on: HOST:PORT or unix:PATH. Port 0 takes a free one."`
	TLS                  certs.Server  `embed:"" prefix:"tls-"`
	MaxMessage           config.Bytes  `default:"16MiB" help:"Largest message accepted or sent (B, KiB, MiB, GiB)."`
	MaxConcurrentStreams uint32        `default:"1024" help:"Most calls in flight on one connection; more wait in the client."`
	ConnectionTimeout    time.Duration `default:"10s" help:"Time that a new connection has to complete its handshake."`
	Keepalive            time.Duration `default:"30s" help:"Silence on a connection after which the server asks whether the client is still there."`
	MaxConnectionAge     time.Duration `default:"0s" help:"Time after which a client is asked to connect anew, which checks its certificate again and spreads clients over instances. Calls in flight end in their time. 0s: never."`
}

// HTTPConfig is the configuration of an HTTP server. Whoever embeds it gives the
// default address, with the tag set:"listen=127.0.0.1:1337".
type HTTPConfig struct {
	Listen        string        `default:"${listen}" help:"Address to listen on: HOST:PORT or unix:PATH. Port 0 takes a free one."`
	TLS           certs.Server  `embed:"" prefix:"tls-"`
	HeaderTimeout time.Duration `default:"5s" help:"Time that a client has to send the header of a request."`
	IdleTimeout   time.Duration `default:"2m" help:"Time that a connection may stay open between requests."`
	MaxHeader     config.Bytes  `default:"64KiB" help:"Largest header of a request (B, KiB, MiB, GiB)."`
}

// ShutdownConfig says how long stopping may take.
type ShutdownConfig struct {
	Delay time.Duration `default:"0s" help:"Time between saying that the process is not ready and refusing calls, for load balancers to notice."`
	Grace time.Duration `default:"10s" help:"Time that calls in flight have to finish; then again for background work to stop, and again for what is open to close. An instance that hands over to others has it once more, before."`
}

func (c GRPCConfig) validate() error {
	switch {
	case c.MaxMessage <= 0:
		return fmt.Errorf("max-message is %s: want more than nothing", c.MaxMessage)
	case c.MaxConcurrentStreams == 0:
		return fmt.Errorf("max-concurrent-streams is 0: want at least 1")
	case c.ConnectionTimeout <= 0:
		return fmt.Errorf("connection-timeout is %s: want more than 0s", c.ConnectionTimeout)
	case c.Keepalive < time.Second:
		return fmt.Errorf("keepalive is %s: want at least 1s", c.Keepalive)
	case c.MaxConnectionAge < 0:
		return fmt.Errorf("max-connection-age is %s: want 0s or more", c.MaxConnectionAge)
	}
	return nil
}

func (c HTTPConfig) validate() error {
	switch {
	case c.HeaderTimeout <= 0:
		return fmt.Errorf("header-timeout is %s: want more than 0s", c.HeaderTimeout)
	case c.IdleTimeout <= 0:
		return fmt.Errorf("idle-timeout is %s: want more than 0s", c.IdleTimeout)
	case c.MaxHeader <= 0:
		return fmt.Errorf("max-header is %s: want more than nothing", c.MaxHeader)
	}
	return nil
}
