// SPDX-License-Identifier: Apache-2.0

// Package jwt verifies JSON Web Tokens (RFC 7519) of one issuer, such as an OpenID Connect provider: the
// signature by the issuer's published keys, the issuer, the audience and the time. It reads from the claims
// what the bearer may do.
//
// Signatures are asymmetric only: a secret that verifies could also sign.
package jwt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

var (
	// ErrInvalid says that a token is not one that is accepted.
	ErrInvalid = errors.New("the token is not accepted")
	// ErrExpired says that a token was accepted once.
	ErrExpired = errors.New("the token has expired")
	// ErrUnavailable says that the issuer's keys are not known yet.
	ErrUnavailable = errors.New("the keys of the tokens' issuer cannot be read now")
)

// Config says which tokens are accepted.
type Config struct {
	Issuer            string            `placeholder:"URL" help:"Accept tokens (JWT) of this issuer, as their claim iss names it. Its keys are found through OpenID Connect discovery, unless they are named."`
	Audience          []string          `placeholder:"NAME" help:"Accept tokens that are for one of these audiences, as their claim aud names them. Required with an issuer."`
	JWKS              string            `name:"jwks" placeholder:"URL|FILE" help:"Where the issuer's public keys are, as a JSON Web Key Set."`
	Algorithms        []string          `default:"RS256,RS384,RS512,PS256,PS384,PS512,ES256,ES384,ES512,EdDSA" help:"Accept signatures by these algorithms."`
	ClockSkew         time.Duration     `default:"30s" help:"How far the issuer's clock may be from this one."`
	Refresh           time.Duration     `default:"5m" help:"How often the issuer's keys are read again. A token with an unknown key makes them be read at once, but not more often than every 10s."`
	RolesClaim        string            `default:"roles" help:"Claim that has the roles, a list or a text with spaces; a dot leads into an object, as in realm_access.roles."`
	Roles             map[string]string `mapsep:"," placeholder:"VALUE=ROLE" help:"What a value of that claim means: query, feedback, deploy or admin. Default: the names of the roles mean themselves."`
	ApplicationsClaim string            `placeholder:"CLAIM" help:"Claim that has the applications, a list or a text with spaces; * is all. Default: tokens are for all applications."`
}

// Enabled reports whether tokens are accepted at all.
func (c Config) Enabled() bool { return c.Issuer != "" }

// roles are the roles by name.
var roles = map[string]clipperv1.Role{
	"query": clipperv1.Role_ROLE_QUERY, "feedback": clipperv1.Role_ROLE_FEEDBACK,
	"deploy": clipperv1.Role_ROLE_DEPLOY, "admin": clipperv1.Role_ROLE_ADMIN,
}

// asymmetric are the algorithms that may be allowed.
var asymmetric = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// Validate reports the first setting that cannot be used.
func (c Config) Validate() error {
	if !c.Enabled() {
		if c.JWKS != "" || len(c.Audience) > 0 {
			return errors.New("jwt-issuer is missing: jwt-jwks and jwt-audience have no meaning without it")
		}
		return nil
	}
	switch {
	case len(c.Audience) == 0:
		return errors.New("jwt-audience is missing: a token for another service would be accepted")
	case len(c.Algorithms) == 0:
		return errors.New("jwt-algorithms is empty: want at least one")
	case c.ClockSkew < 0 || c.ClockSkew > time.Hour:
		return fmt.Errorf("jwt-clock-skew is %s: want 0s to 1h", c.ClockSkew)
	case c.Refresh < time.Second:
		return fmt.Errorf("jwt-refresh is %s: want at least 1s", c.Refresh)
	case c.RolesClaim == "":
		return errors.New("jwt-roles-claim is empty: want the name of a claim")
	}
	for _, a := range c.Algorithms {
		if !slices.Contains(asymmetric, a) {
			return fmt.Errorf("jwt-algorithms has %q: want some of %s", a, strings.Join(asymmetric, ", "))
		}
	}
	for value, role := range c.Roles {
		if roles[role] == clipperv1.Role_ROLE_UNSPECIFIED {
			return fmt.Errorf("jwt-roles maps %q to %q: want query, feedback, deploy or admin", value, role)
		}
	}
	return nil
}

// Identity is whose a token is, and what it allows.
type Identity struct {
	Subject      string
	Roles        []clipperv1.Role
	Applications []string
	Expires      time.Time // The clock skew is in it.
}

// Verifier verifies tokens. Safe for concurrent use.
type Verifier struct {
	cfg        Config
	algorithms []jose.SignatureAlgorithm
	keys       *keySet
}

// New returns a verifier of a valid configuration. It knows keys when Run runs.
func New(cfg Config, log *slog.Logger) (*Verifier, error) {
	keys, err := newKeySet(cfg, log)
	if err != nil {
		return nil, err
	}
	v := &Verifier{cfg: cfg, keys: keys}
	for _, a := range cfg.Algorithms {
		v.algorithms = append(v.algorithms, jose.SignatureAlgorithm(a))
	}
	return v, nil
}

// Run keeps the keys fresh until ctx is done.
func (v *Verifier) Run(ctx context.Context) error { return v.keys.run(ctx) }

// Ready returns nil when keys are known.
func (v *Verifier) Ready(context.Context) error {
	if v.keys.current.Load() == nil {
		return ErrUnavailable
	}
	return nil
}

// Generation changes with the keys: what was verified under another one is to be verified again.
func (v *Verifier) Generation() uint64 {
	if s := v.keys.current.Load(); s != nil {
		return s.generation
	}
	return 0
}

// Verify returns whose a token is. Its errors match one of this package, and never hold the token. It may
// wait for the keys to be read.
func (v *Verifier) Verify(ctx context.Context, text string) (Identity, error) {
	token, err := jwt.ParseSigned(text, v.algorithms)
	if err != nil || len(token.Headers) != 1 {
		return Identity{}, fmt.Errorf("%w: it is not a signed JWT of an allowed algorithm", ErrInvalid)
	}
	keys, err := v.keys.find(ctx, token.Headers[0])
	if err != nil {
		return Identity{}, err
	}
	var (
		claims jwt.Claims
		all    map[string]any
	)
	verified := false
	for _, key := range keys {
		if err := token.Claims(key.Key, &claims, &all); err == nil {
			verified = true
			break
		}
	}
	if !verified {
		return Identity{}, fmt.Errorf("%w: its signature is not by a key of the issuer", ErrInvalid)
	}
	switch err := claims.ValidateWithLeeway(jwt.Expected{Issuer: v.cfg.Issuer, AnyAudience: v.cfg.Audience, Time: time.Now()}, v.cfg.ClockSkew); {
	case errors.Is(err, jwt.ErrInvalidIssuer):
		return Identity{}, fmt.Errorf("%w: it is of another issuer", ErrInvalid)
	case errors.Is(err, jwt.ErrInvalidAudience):
		return Identity{}, fmt.Errorf("%w: it is for another audience", ErrInvalid)
	case errors.Is(err, jwt.ErrNotValidYet), errors.Is(err, jwt.ErrIssuedInTheFuture):
		return Identity{}, fmt.Errorf("%w: it is not valid yet", ErrInvalid)
	case errors.Is(err, jwt.ErrExpired):
		return Identity{}, ErrExpired
	case err != nil:
		return Identity{}, ErrInvalid
	case claims.Expiry == nil:
		return Identity{}, fmt.Errorf("%w: it has no time of expiry", ErrInvalid)
	}
	id := Identity{Subject: claims.Subject, Applications: []string{"*"}, Expires: claims.Expiry.Time().Add(v.cfg.ClockSkew)}
	if v.cfg.ApplicationsClaim != "" {
		id.Applications = words(all, v.cfg.ApplicationsClaim)
	}
	for _, word := range words(all, v.cfg.RolesClaim) {
		if len(v.cfg.Roles) > 0 {
			word = v.cfg.Roles[word]
		}
		if role := roles[word]; role != clipperv1.Role_ROLE_UNSPECIFIED && !slices.Contains(id.Roles, role) {
			id.Roles = append(id.Roles, role)
		}
	}
	return id, nil
}

// words returns the words of a claim: a list of texts, or a text with spaces. Any other has none.
func words(claims map[string]any, path string) []string {
	value, ok := claims[path] // Names with dots, such as URLs, are names first.
	if !ok {
		name, rest, nested := strings.Cut(path, ".")
		if inner, isObject := claims[name].(map[string]any); nested && isObject {
			return words(inner, rest)
		}
		return nil
	}
	switch value := value.(type) {
	case string:
		return strings.Fields(value)
	case []any:
		var list []string
		for _, v := range value {
			if s, ok := v.(string); ok {
				list = append(list, s)
			}
		}
		return list
	}
	return nil
}
