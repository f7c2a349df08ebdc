// SPDX-License-Identifier: Apache-2.0

// Package custom asks selection policies that are programs of their own, over
// clipper.v1.SelectionPolicyService.
//
// A program is not to be trusted to answer, to answer in time, or to answer what it may. So everything
// that comes back is checked here, and whatever goes wrong is an error of one call, never more: callers go
// on without the policy, by [Fallback]. Nothing is kept besides connections; the state travels with each
// call.
package custom

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Name is what applications call such a policy.
const Name = "custom"

const (
	// MaxStatistics is the most sums that are kept for a model.
	MaxStatistics = 64
	// maxName bounds the names of statistics and parameters, maxParameters how many there are.
	maxName       = 64
	maxParameters = 64
	maxAddress    = 256
	// maxText bounds what a policy says for people.
	maxText = 512

	// describeTimeout bounds a description when an application is created or changed.
	describeTimeout = 5 * time.Second
	// reconnect is the longest pause between two attempts to connect, lost the time after which a peer
	// that acknowledges nothing counts as gone. Servers refuse to be probed more often than every five
	// minutes unless they are told otherwise.
	reconnect = 2 * time.Second
	lost      = 10 * time.Second
	probe     = 5 * time.Minute
	// maxAnswer bounds a message of a policy.
	maxAnswer = 16 << 20
)

// Policies are the connections to policies. Safe for concurrent use.
type Policies struct {
	log     *slog.Logger
	metrics *metrics

	mu    sync.Mutex
	conns map[string]*conn // by address
}

// New returns no connections yet. The caller closes them.
func New(r prometheus.Registerer, log *slog.Logger) (*Policies, error) {
	m, err := newMetrics(r)
	return &Policies{log: log, metrics: m, conns: map[string]*conn{}}, err
}

// Close closes the connections. Calls that are under way fail.
func (p *Policies) Close() { p.Retain(nil) }

// Retain closes the connections to addresses and forgets the measurements of applications that are not
// in use, which maps applications to addresses.
func (p *Policies) Retain(use map[string]string) {
	used := make(map[string]bool, len(use))
	for _, address := range use {
		used[address] = true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for address, c := range p.conns {
		if !used[address] {
			_ = c.Close()
			delete(p.conns, address)
		}
	}
	p.metrics.retain(use)
}

// conn is a connection that makes itself anew.
type conn struct {
	*grpc.ClientConn
	// made is the number of the connection that was made last, 0 before the first. No two of a process
	// have the same. Each time somebody else may answer.
	made atomic.Uint64
}

// conn returns the connection to an address.
func (p *Policies) conn(address string) (*conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c, ok := p.conns[address]; ok {
		return c, nil
	}
	c, err := dial(address)
	if err == nil {
		p.conns[address] = c
	}
	return c, err
}

func dial(address string) (*conn, error) {
	c := &conn{}
	retry := backoff.DefaultConfig
	retry.BaseDelay, retry.MaxDelay = 50*time.Millisecond, reconnect
	target := address
	if !isUnix(address) {
		target = "dns:///" + address
	}
	var err error
	c.ClientConn, err = grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: reconnect}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: probe, Timeout: lost}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithStatsHandler(counter{&c.made}),
		grpc.WithDisableServiceConfig(),
	)
	return c, err
}

// connections counts the connections of this process.
var connections atomic.Uint64

// counter numbers the connections that are made.
type counter struct{ made *atomic.Uint64 }

// HandleConn implements stats.Handler.
func (c counter) HandleConn(_ context.Context, s stats.ConnStats) {
	if _, ok := s.(*stats.ConnBegin); ok {
		c.made.Store(connections.Add(1))
	}
}

// TagConn implements stats.Handler.
func (counter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleRPC implements stats.Handler.
func (counter) HandleRPC(context.Context, stats.RPCStats) {}

// TagRPC implements stats.Handler.
func (counter) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func isUnix(address string) bool { return strings.HasPrefix(address, "unix:") }

// CheckAddress says what is wrong with an address, in words for the application's author, or returns nil.
// What is sent is not encrypted, and an address makes the selector connect to it: so it is on this
// machine, or its host is among those that the operator allows; "*" allows all.
func CheckAddress(address string, hosts []string) error {
	switch {
	case address == "":
		return errors.New(`want where the policy's service is, such as "localhost:7100" or "unix:///run/policy.sock"`)
	case len(address) > maxAddress:
		return fmt.Errorf("it has %d bytes, want at most %d", len(address), maxAddress)
	case isUnix(address):
		if path := strings.TrimPrefix(strings.TrimPrefix(address, "unix:"), "//"); !strings.HasPrefix(path, "/") {
			return errors.New("want the absolute path of a socket after unix://")
		}
		return nil
	}
	host, port, err := net.SplitHostPort(address)
	if number, notNumber := strconv.ParseUint(port, 10, 16); err != nil || host == "" || notNumber != nil || number == 0 || strings.ContainsAny(host, "/%") {
		return fmt.Errorf("%q is neither host:port nor unix:///path", address)
	}
	ip := net.ParseIP(host)
	if host == "localhost" || ip != nil && ip.IsLoopback() || slices.Contains(hosts, "*") || slices.Contains(hosts, host) {
		return nil
	}
	return fmt.Errorf("%q is not this machine, and not among the hosts that the selector's setting policy-hosts allows", host)
}

// ParameterError says what is wrong with a parameter.
type ParameterError struct{ Name, Problem string }

// Error implements error.
func (e *ParameterError) Error() string { return fmt.Sprintf("parameter %q %s", e.Name, e.Problem) }

// CheckParameters checks what can be checked without the policy. Errors are [*ParameterError].
func CheckParameters(parameters map[string]float64) error {
	for name, x := range parameters {
		switch {
		case name == "" || len(name) > maxName:
			return &ParameterError{shorten(name), fmt.Sprintf("has a name of %d bytes, want 1 to %d", len(name), maxName)}
		case math.IsNaN(x) || math.IsInf(x, 0):
			return &ParameterError{name, fmt.Sprintf("is %v, want a finite number", x)}
		case len(parameters) > maxParameters:
			return &ParameterError{name, fmt.Sprintf("is one of %d, want at most %d", len(parameters), maxParameters)}
		}
	}
	return nil
}

// RefusedError is a policy's refusal of its parameters, in its own words.
type RefusedError struct{ Message string }

// Error implements error.
func (e *RefusedError) Error() string { return e.Message }

// Describe asks the policy at an address what it keeps. A [*RefusedError] is about the parameters; any other
// error says in words for the application's author what to do.
func (p *Policies) Describe(ctx context.Context, address string, parameters map[string]float64) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	// A connection of its own does not wait because an earlier attempt has failed.
	c, err := dial(address)
	if err != nil {
		return nil, fmt.Errorf("%q cannot be used as an address", address)
	}
	defer func() { _ = c.Close() }()
	statistics, err := describe(ctx, c, parameters)
	var refused *RefusedError
	switch code := status.Code(err); {
	case err == nil, errors.As(err, &refused):
		return statistics, err
	case errors.Is(err, errInvalid):
		return nil, fmt.Errorf("the policy at %q answers what it must not: %w", address, err)
	case code == codes.Unavailable:
		return nil, fmt.Errorf("nobody answers at %q; start the policy's service there, and try again", address)
	case code == codes.DeadlineExceeded, code == codes.Canceled:
		return nil, fmt.Errorf("the policy at %q did not describe itself within %v; see whether its service works, and try again", address, describeTimeout)
	case code == codes.Unimplemented:
		return nil, fmt.Errorf("what answers at %q is not a clipper.v1.SelectionPolicyService", address)
	default:
		return nil, fmt.Errorf("the policy at %q failed: %s: %s", address, code, shorten(status.Convert(err).Message()))
	}
}

// describe asks a policy what it keeps, and checks it.
func describe(ctx context.Context, c *conn, parameters map[string]float64) ([]string, error) {
	r, err := clipperv1.NewSelectionPolicyServiceClient(c).DescribePolicy(ctx, &clipperv1.DescribePolicyRequest{Parameters: parameters})
	if status.Code(err) == codes.InvalidArgument {
		return nil, &RefusedError{Message: shorten(status.Convert(err).Message())}
	}
	if err != nil {
		return nil, err
	}
	if n := len(r.Statistics); n > MaxStatistics {
		return nil, invalid("there are %d statistics, want at most %d", n, MaxStatistics)
	}
	for i, name := range r.Statistics {
		switch {
		case !isName(name):
			return nil, invalid("statistic %d is %q, want 1 to %d letters, digits, '.', '_' or '-'", i, shorten(name), maxName)
		case name == "count" || name == "loss":
			return nil, invalid("statistic %d is %q, which is kept for every policy", i, name)
		case slices.Contains(r.Statistics[:i], name):
			return nil, invalid("the statistic %q is there twice", name)
		}
	}
	return r.Statistics, nil
}

func isName(s string) bool {
	for _, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= maxName
}

// errInvalid is the cause of what a policy must not answer.
var errInvalid = errors.New("invalid answer")

// invalidError says what is wrong with an answer.
type invalidError string

// Error implements error.
func (e invalidError) Error() string { return string(e) }

// Is makes it an errInvalid.
func (invalidError) Is(target error) bool { return target == errInvalid }

func invalid(format string, args ...any) error { return invalidError(fmt.Sprintf(format, args...)) }

// shorten keeps what a policy sends from filling a message.
func shorten(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > maxText {
		return strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}
