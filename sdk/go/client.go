// SPDX-License-Identifier: Apache-2.0

// Package clipper is the client of Clipper, the prediction server.
//
//	client, err := clipper.New(clipper.Config{})
//	...
//	answer, err := client.Query(ctx, &clipper.QueryRequest{
//		Application: "digits", Inputs: clipper.Input(clipper.NewTensor([]float64{0.1, 0.2})),
//	})
//	label, err := clipper.Value[int64](answer.Outputs[0])
//
// A [Client] has every call of Clipper's API; the messages are those of package clipperv1, and the
// usual ones have their names here too. What this package adds is the connection (TLS, key, deadline,
// retries, keep-alive), errors with a reason ([Error]), and tensors from and to slices.
package clipper

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Version is the version of this package, as the user agent has it.
const Version = "0.1.0"

const (
	// maxMessage is the most bytes of one message that are read.
	maxMessage = 64 << 20
	// answerGrace is how much longer a query may take than its timeout, so that the default output, which
	// the server gives at that time, arrives.
	answerGrace = time.Second
	// keepAlive is the silence after which a connection with calls in flight is probed, and
	// keepAliveTimeout the one after which it is given up.
	keepAlive, keepAliveTimeout = 30 * time.Second, 10 * time.Second
)

// Config says how a client reaches Clipper. The zero value is a Clipper on this machine.
type Config struct {
	// Address is where queries and feedback go: "host:port" or "unix:/path". Default "127.0.0.1:1347".
	Address string
	// AdminAddress is where administration goes. Default "127.0.0.1:1348".
	AdminAddress string
	// TLS turns TLS on, with these settings; the files below are added to them.
	TLS *tls.Config
	// CAFile has the certificates (PEM) of the authorities that may have signed the server's; it turns
	// TLS on. Default: those of the system.
	CAFile string
	// CertFile and KeyFile are the certificate and the key (PEM) of the client, for mutual TLS.
	CertFile, KeyFile string
	// APIKey is an API key or a JWT, sent with every call. Without TLS it is sent on this machine only.
	APIKey string
	// Timeout bounds a call whose context has no deadline; a query with a timeout of its own is given
	// one second more than that instead. Default 30 s. Streams are not bounded.
	Timeout time.Duration
	// Attempts is how often a call that is safe to repeat is made at most, when Clipper cannot be
	// reached (UNAVAILABLE): queries, reads, and feedback with a feedback_id or an id. Default 4; 1
	// repeats nothing.
	Attempts int
	// Logger gets a line for each repetition (warn) and for each call that failed (debug). Default: none.
	Logger *slog.Logger
	// DialOptions are added to both connections: interceptors, which see each attempt, or a stats handler
	// such as that of otelgrpc, for traces and metrics.
	DialOptions []grpc.DialOption
}

// Client is a connection to Clipper. All calls of the API are its methods. They return errors of the type
// [*Error]. Safe for concurrent use; make one and keep it.
type Client struct {
	clipperv1.QueryServiceClient
	clipperv1.FeedbackServiceClient
	clipperv1.ApplicationServiceClient
	clipperv1.ModelServiceClient

	query, admin *grpc.ClientConn
}

// New returns a client. It connects at the first call; an error means that the configuration cannot be used.
func New(cfg Config) (*Client, error) {
	if cfg.Address == "" {
		cfg.Address = "127.0.0.1:1347"
	}
	if cfg.AdminAddress == "" {
		cfg.AdminAddress = "127.0.0.1:1348"
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.Attempts == 0 {
		cfg.Attempts = 4
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Timeout < 0 || cfg.Attempts < 0 {
		return nil, fmt.Errorf("clipper: Timeout %v and Attempts %d must not be negative", cfg.Timeout, cfg.Attempts)
	}
	secure, err := cfg.tls()
	if err != nil {
		return nil, err
	}
	query, err := cfg.connect(cfg.Address, secure)
	if err != nil {
		return nil, err
	}
	admin, err := cfg.connect(cfg.AdminAddress, secure)
	if err != nil {
		return nil, errors.Join(err, query.Close())
	}
	return &Client{
		QueryServiceClient:       clipperv1.NewQueryServiceClient(query),
		FeedbackServiceClient:    clipperv1.NewFeedbackServiceClient(query),
		ApplicationServiceClient: clipperv1.NewApplicationServiceClient(admin),
		ModelServiceClient:       clipperv1.NewModelServiceClient(admin),
		query:                    query, admin: admin,
	}, nil
}

// Close ends the connections; calls in flight fail.
func (c *Client) Close() error { return errors.Join(c.query.Close(), c.admin.Close()) }

// tls returns the settings of TLS, or nil when it is off.
func (cfg *Config) tls() (*tls.Config, error) {
	if cfg.TLS == nil && cfg.CAFile == "" && cfg.CertFile == "" && cfg.KeyFile == "" {
		return nil, nil
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.TLS != nil {
		settings = cfg.TLS.Clone()
	}
	if cfg.CAFile != "" {
		text, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("clipper: read CAFile: %w", err)
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("clipper: CAFile %s has no certificate in the form PEM", cfg.CAFile)
		}
	}
	if cfg.CertFile != "" || cfg.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("clipper: read CertFile and KeyFile: %w", err)
		}
		settings.Certificates = append(settings.Certificates, pair)
	}
	return settings, nil
}

func (cfg *Config) connect(address string, secure *tls.Config) (*grpc.ClientConn, error) {
	transport := insecure.NewCredentials()
	if secure != nil {
		transport = credentials.NewTLS(secure)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithUserAgent("clipper-go/" + Version),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepAlive, Timeout: keepAliveTimeout}),
		// A server that was restarted is found again within a second.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstDelay, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxDelay},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithChainUnaryInterceptor(cfg.unary),
		grpc.WithChainStreamInterceptor(stream),
	}
	if cfg.APIKey != "" {
		if secure == nil && !isLocal(address) {
			return nil, fmt.Errorf("clipper: the API key would be sent to %s without TLS, for all to read: set CAFile or TLS", address)
		}
		options = append(options, grpc.WithPerRPCCredentials(bearer{key: cfg.APIKey, secure: secure != nil}))
	}
	conn, err := grpc.NewClient(address, append(options, cfg.DialOptions...)...)
	if err != nil {
		return nil, fmt.Errorf("clipper: connect to %s: %w", address, err)
	}
	return conn, nil
}

// isLocal reports whether an address is of this machine, so that nothing leaves it.
func isLocal(address string) bool {
	if strings.HasPrefix(address, "unix:") {
		return true
	}
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// bearer sends a key with each call.
type bearer struct {
	key    string
	secure bool
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.key}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (b bearer) RequireTransportSecurity() bool { return b.secure }
