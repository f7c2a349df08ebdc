// SPDX-License-Identifier: Apache-2.0

// Package auth decides at the edge who may call what, and how much.
//
// A [Gate] has interceptors for gRPC servers and in-process connections. Each call's credentials, an API key
// or a token (JWT), are matched with what its method needs, which is in one table. A method that is not in it
// is refused. Limits, of keys and of applications, hold with and without authentication.
//
// An API key is looked up by its SHA-256 digest in an immutable map, so that a call costs no round trip and
// no lock, and the time that a look-up takes says nothing of the secrets. A token is verified once and then
// remembered by its digest until it expires.
package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unsafe"

	"github.com/maypok86/otter/v2"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/auth/audit"
	"github.com/clipper-serving/clipper/internal/auth/jwt"
	"github.com/clipper-serving/clipper/internal/ratelimit"
)

// maxTokens is how many verified tokens are remembered.
const maxTokens = 10_000

// Config says which credentials are accepted. None: there is no authentication.
type Config struct {
	AdminKeyFile string     `placeholder:"FILE" help:"Require credentials, and accept the secret in this file for everything: the key with which the others are made. At least 32 characters."`
	KeysFile     string     `placeholder:"FILE" help:"Require credentials, and accept the keys in this file (YAML) besides those in the store."`
	JWT          jwt.Config `embed:"" prefix:"jwt-"`
}

// Enabled reports whether there is authentication.
func (c Config) Enabled() bool { return c.AdminKeyFile != "" || c.KeysFile != "" || c.JWT.Enabled() }

// Deps is what a gate works with. All are required, but an audit log may be nil.
type Deps struct {
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Audit      *audit.Log
}

// Gate lets calls in or refuses them. Safe for concurrent use once it is set up.
type Gate struct {
	// Limiter returns the limiter of an application, or nil. It is set before the first call, if at all.
	Limiter func(application string) *ratelimit.Limiter

	log     *slog.Logger
	audit   *audit.Log
	metrics *metrics
	ring    *ring // Nil when there is no authentication.
	tokens  *jwt.Verifier
	seen    *otter.Cache[digest, *seenToken]
}

// seenToken is a token that was verified.
type seenToken struct {
	caller     *Caller
	generation uint64
}

// New returns a gate. It reads the files that the configuration names.
func New(cfg Config, deps Deps) (*Gate, error) {
	m, err := newMetrics(deps.Registerer)
	if err != nil {
		return nil, err
	}
	if err := cfg.JWT.Validate(); err != nil {
		return nil, fmt.Errorf("configure authentication: %w", err)
	}
	g := &Gate{log: deps.Logger.With("component", "auth"), audit: deps.Audit, metrics: m}
	if !cfg.Enabled() {
		return g, nil
	}
	if g.ring, err = newRing(cfg, g.log); err != nil {
		return nil, err
	}
	if cfg.JWT.Enabled() {
		if g.tokens, err = jwt.New(cfg.JWT, g.log); err != nil {
			return nil, fmt.Errorf("configure authentication: %w", err)
		}
		if g.seen, err = otter.New(&otter.Options[digest, *seenToken]{MaximumSize: maxTokens}); err != nil {
			return nil, fmt.Errorf("make the cache of tokens: %w", err)
		}
	}
	return g, nil
}

// Enabled reports whether there is authentication.
func (g *Gate) Enabled() bool { return g.ring != nil }

// Loop is something that runs until its context is done.
type Loop struct {
	Name string
	Run  func(context.Context) error
}

// Loops returns what must run beside the gate; conn leads to the service that keeps the keys.
func (g *Gate) Loops(conn grpc.ClientConnInterface) []Loop {
	if !g.Enabled() {
		return nil
	}
	loops := []Loop{
		{"keys", func(ctx context.Context) error { return g.ring.follow(ctx, conn) }},
		{"files of keys", g.ring.watchFiles},
	}
	if g.tokens != nil {
		loops = append(loops, Loop{"keys of the tokens' issuer", g.tokens.Run})
	}
	return loops
}

// Ready returns nil when every key is known. That the issuer of tokens cannot be reached keeps nobody with a
// key out, so it does not count.
func (g *Gate) Ready(ctx context.Context) error {
	if !g.Enabled() {
		return nil
	}
	return g.ring.ready(ctx)
}

// reasons of refusals, as a label of the metric.
const (
	refusedMissing     = "no_credentials"
	refusedInvalid     = "invalid_credentials"
	refusedExpired     = "expired_credentials"
	refusedUnavailable = "keys_unavailable"
	refusedDenied      = "permission_denied"
)

func unauthenticated(format string, args ...any) error {
	return apierror.New(codes.Unauthenticated, clipperv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED, "", format, args...)
}

// caller returns who a call is from. Its errors are those that the caller sees.
func (g *Gate) caller(ctx context.Context, request any) (*Caller, string, error) {
	text, err := credential(ctx)
	if r, ok := request.(interface{ GetToken() string }); ok && errors.Is(err, errNone) && r.GetToken() != "" {
		text, err = parse(nil, []string{r.GetToken()}) // Containers that register have only this place for a key.
	}
	switch {
	case errors.Is(err, errNone):
		g.metrics.refuse(refusedMissing)
		return nil, "", unauthenticated("%v", err)
	case err != nil:
		g.metrics.refuse(refusedInvalid)
		return nil, "", unauthenticated("%v", err)
	}
	c, err := g.authenticate(ctx, text)
	return c, text, err
}

// authenticate returns whose a key or a token is. For one that is known it allocates nothing.
func (g *Gate) authenticate(ctx context.Context, text string) (*Caller, error) {
	// The text is only read, so it need not be copied.
	sum := sha256.Sum256(unsafe.Slice(unsafe.StringData(text), len(text)))
	c := g.ring.find(&sum)
	if c == nil && g.tokens != nil {
		if seen, ok := g.seen.GetIfPresent(sum); ok && seen.generation == g.tokens.Generation() {
			c = seen.caller
		} else if looksLikeToken(text) {
			return g.verify(ctx, text, sum)
		}
	}
	switch {
	case c == nil && g.ring.ready(ctx) != nil:
		g.metrics.refuse(refusedUnavailable)
		return nil, apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "", "the keys are not known here yet: the selector cannot be reached")
	case c == nil:
		g.metrics.refuse(refusedInvalid)
		return nil, unauthenticated("the key is not known: it is wrong, or was revoked")
	case !c.expires.IsZero() && !time.Now().Before(c.expires):
		g.metrics.refuse(refusedExpired)
		return nil, unauthenticated("the credentials have expired")
	}
	return c, nil
}

// looksLikeToken reports whether a credential has the three parts of a JWT.
func looksLikeToken(text string) bool {
	dots := 0
	for i := range len(text) {
		if text[i] == '.' {
			dots++
		}
	}
	return dots == 2
}

// verify verifies a token and remembers it.
func (g *Gate) verify(ctx context.Context, text string, sum digest) (*Caller, error) {
	generation := g.tokens.Generation()
	id, err := g.tokens.Verify(ctx, text)
	switch {
	case errors.Is(err, jwt.ErrUnavailable):
		g.metrics.refuse(refusedUnavailable)
		return nil, apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "", "%v: try again", err)
	case errors.Is(err, jwt.ErrExpired):
		g.metrics.refuse(refusedExpired)
		return nil, unauthenticated("%v", err)
	case err != nil:
		g.metrics.refuse(refusedInvalid)
		return nil, unauthenticated("%v", err)
	}
	c := newCaller("token:"+shorten(id.Subject), "", id.Roles, id.Applications, id.Expires)
	g.seen.Set(sum, &seenToken{caller: c, generation: generation})
	return c, nil
}

// check returns nil when a caller may send a message.
func (g *Gate) check(c *Caller, r *rule, message any) error {
	if !g.Enabled() {
		return nil
	}
	var application string
	if r.application != nil {
		application = r.application(message)
	}
	if c.may(r, application) {
		return nil
	}
	g.metrics.refuse(refusedDenied)
	return denied(c, r, application)
}

// pass is queries that were let in by the limits.
type pass struct {
	key, application *ratelimit.Limiter
	queries          int
}

func (p pass) end() {
	p.key.Release(p.queries)
	p.application.Release(p.queries)
}

// enter lets the queries of a message in by the limits of the caller and the application.
func (g *Gate) enter(c *Caller, r *rule, message any) (pass, error) {
	if r.queries == nil {
		return pass{}, nil
	}
	p := pass{key: c.limiter}
	name := ""
	if r.application != nil { // A model that is asked directly has the key's limits alone.
		name = r.application(message)
	}
	if g.Limiter != nil {
		p.application = g.Limiter(name)
	}
	if p.key == nil && p.application == nil {
		return pass{}, nil
	}
	p.queries = r.queries(message)
	if refusal := p.key.Acquire(p.queries); refusal != nil {
		return pass{}, g.limited(refusal, "key", c.String(), p.queries)
	}
	if refusal := p.application.Acquire(p.queries); refusal != nil {
		p.key.Release(p.queries)
		return pass{}, g.limited(refusal, "application", `the application "`+shorten(name)+`"`, p.queries)
	}
	return p, nil
}

// limited returns the error for what a limit refuses.
func (g *Gate) limited(r *ratelimit.Refusal, scope, whose string, queries int) error {
	g.metrics.limit(scope, r.Limit, queries)
	if r.RetryAfter == 0 {
		return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_TOO_LARGE, "queries",
			"the call has %d queries, and the limit of %s lets in at most %d at once: send smaller batches", queries, whose, r.Most)
	}
	what := "too many queries a second"
	if r.Limit == ratelimit.Concurrency {
		what = "too many queries in flight"
	}
	return apierror.RateLimited(r.RetryAfter, "%s for the limit of %s", what, whose)
}

// Unary is a grpc.UnaryServerInterceptor.
func (g *Gate) Unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (answer any, err error) {
	r := ruleOf(info.FullMethod)
	c := anonymous
	if r.audited && g.audit != nil {
		began := time.Now()
		defer func() { g.record(ctx, c, info.FullMethod, request, answer, err, time.Since(began)) }()
	}
	if g.Enabled() && r.need != everyone {
		known, _, err := g.caller(ctx, request)
		if err != nil {
			return nil, err
		}
		c = known
		if err := g.check(c, r, request); err != nil {
			return nil, err
		}
	}
	p, err := g.enter(c, r, request)
	if err != nil {
		return nil, err
	}
	defer p.end()
	return handler(ctx, request)
}

// record writes a call into the audit log.
func (g *Gate) record(ctx context.Context, c *Caller, method string, request, answer any, err error, took time.Duration) {
	e := &audit.Entry{Caller: c.ID, Name: c.Name, Peer: remote(ctx), Method: method, Resource: resource(request), Outcome: status.Code(err).String(), Took: took}
	if _, created := answer.(*clipperv1.CreateKeyResponse); created && err == nil {
		e.Resource = resource(answer)
	}
	if err != nil {
		e.Reason = strings.TrimPrefix(apierror.Reason(err).String(), "ERROR_REASON_")
	}
	g.audit.Write(ctx, e)
}

type remoteKey struct{}

// WithRemote returns a context for calls to services of this process, for a client at an address.
func WithRemote(ctx context.Context, address string) context.Context {
	return context.WithValue(ctx, remoteKey{}, address)
}

// remote returns where a call came from.
func remote(ctx context.Context) string {
	if address, ok := ctx.Value(remoteKey{}).(string); ok {
		return address
	}
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		return p.Addr.String()
	}
	return ""
}
