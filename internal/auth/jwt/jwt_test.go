// SPDX-License-Identifier: Apache-2.0

package jwt

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// signer is a key of an issuer.
type signer struct {
	id        string
	algorithm jose.SignatureAlgorithm
	key       crypto.Signer
}

func newSigner(t testing.TB, id string) signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return signer{id, jose.ES256, key}
}

func (s signer) jwk() jose.JSONWebKey {
	return jose.JSONWebKey{Key: s.key.Public(), KeyID: s.id, Algorithm: string(s.algorithm), Use: "sig"}
}

func (s signer) sign(t testing.TB, claims map[string]any) string {
	t.Helper()
	options := (&jose.SignerOptions{}).WithHeader("kid", s.id)
	if s.id == "" {
		options = nil
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: s.algorithm, Key: s.key}, options)
	require.NoError(t, err)
	payload, err := json.Marshal(claims)
	require.NoError(t, err)
	signature, err := signer.Sign(payload)
	require.NoError(t, err)
	text, err := signature.CompactSerialize()
	require.NoError(t, err)
	return text
}

func jwks(t testing.TB, keys ...jose.JSONWebKey) []byte {
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	require.NoError(t, err)
	return text
}

func config(keys string) Config {
	return Config{
		Issuer: "https://issuer.example", Audience: []string{"clipper"}, JWKS: keys, Algorithms: asymmetric,
		ClockSkew: 30 * time.Second, Refresh: time.Minute, RolesClaim: "roles",
	}
}

// fromFile returns a verifier that has read its keys from a file.
func fromFile(t testing.TB, change func(*Config), keys ...jose.JSONWebKey) (*Verifier, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "jwks.json")
	require.NoError(t, os.WriteFile(path, jwks(t, keys...), 0o600))
	cfg := config(path)
	if change != nil {
		change(&cfg)
	}
	require.NoError(t, cfg.Validate())
	v, err := New(cfg, quiet)
	require.NoError(t, err)
	v.keys.read(t.Context(), 0)
	return v, path
}

func good() map[string]any {
	now := time.Now()
	return map[string]any{
		"iss": "https://issuer.example", "aud": "clipper", "sub": "alice",
		"exp": now.Add(time.Hour).Unix(), "iat": now.Unix(), "roles": []string{"query", "feedback", "other"},
	}
}

func TestVerify(t *testing.T) {
	s := newSigner(t, "1")
	v, _ := fromFile(t, nil, s.jwk())
	now := time.Now()
	for _, tt := range []struct {
		name   string
		change func(map[string]any)
		err    error
	}{
		{"good", func(map[string]any) {}, nil},
		{"one of several audiences", func(c map[string]any) { c["aud"] = []string{"other", "clipper"} }, nil},
		{"expired within the skew", func(c map[string]any) { c["exp"] = now.Add(-20 * time.Second).Unix() }, nil},
		{"expired", func(c map[string]any) { c["exp"] = now.Add(-40 * time.Second).Unix() }, ErrExpired},
		{"without expiry", func(c map[string]any) { delete(c, "exp") }, ErrInvalid},
		{"not yet, within the skew", func(c map[string]any) { c["nbf"] = now.Add(20 * time.Second).Unix() }, nil},
		{"not yet", func(c map[string]any) { c["nbf"] = now.Add(time.Minute).Unix() }, ErrInvalid},
		{"issued in the future", func(c map[string]any) { c["iat"] = now.Add(time.Minute).Unix() }, ErrInvalid},
		{"other issuer", func(c map[string]any) { c["iss"] = "https://issuer.example/" }, ErrInvalid},
		{"no issuer", func(c map[string]any) { delete(c, "iss") }, ErrInvalid},
		{"other audience", func(c map[string]any) { c["aud"] = "clipper2" }, ErrInvalid},
		{"no audience", func(c map[string]any) { delete(c, "aud") }, ErrInvalid},
		{"expiry is a text", func(c map[string]any) { c["exp"] = "never" }, ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			claims := good()
			tt.change(claims)
			text := s.sign(t, claims)
			id, err := v.Verify(t.Context(), text)
			if tt.err != nil {
				require.ErrorIs(t, err, tt.err)
				require.NotContains(t, err.Error(), text)
				return
			}
			require.NoError(t, err)
			require.Equal(t, "alice", id.Subject)
			require.Equal(t, []clipperv1.Role{clipperv1.Role_ROLE_QUERY, clipperv1.Role_ROLE_FEEDBACK}, id.Roles)
			require.Equal(t, []string{"*"}, id.Applications)
		})
	}
}

func TestVerify_forgeries(t *testing.T) {
	s, stranger := newSigner(t, "1"), newSigner(t, "1")
	v, _ := fromFile(t, nil, s.jwk())
	text := s.sign(t, good())
	parts := strings.Split(text, ".")
	encode := base64.RawURLEncoding.EncodeToString
	// The classic: the public key as the secret of an HMAC.
	public, err := s.jwk().MarshalJSON()
	require.NoError(t, err)
	hmac, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: public}, (&jose.SignerOptions{}).WithHeader("kid", "1"))
	require.NoError(t, err)
	payload, _ := json.Marshal(good())
	signed, err := hmac.Sign(payload)
	require.NoError(t, err)
	symmetric, err := signed.CompactSerialize()
	require.NoError(t, err)
	embedded, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: stranger.key}, &jose.SignerOptions{EmbedJWK: true})
	require.NoError(t, err)
	signed, err = embedded.Sign(payload)
	require.NoError(t, err)
	own, err := signed.CompactSerialize()
	require.NoError(t, err)
	for name, text := range map[string]string{
		"none":               encode([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".",
		"symmetric":          symmetric,
		"stranger":           stranger.sign(t, good()),
		"key in the token":   own,
		"other claims":       parts[0] + "." + encode([]byte(`{"iss":"https://issuer.example"}`)) + "." + parts[2],
		"cut":                text[:len(text)-2],
		"no signature":       parts[0] + "." + parts[1] + ".",
		"not base64":         "a.b.!",
		"not JSON":           encode([]byte("{")) + "." + parts[1] + "." + parts[2],
		"dots":               "..",
		"empty":              "",
		"unknown key":        newSigner(t, "2").sign(t, good()),
		"critical extension": encode([]byte(`{"alg":"ES256","kid":"1","crit":["x"],"x":1}`)) + "." + parts[1] + "." + parts[2],
	} {
		_, err := v.Verify(t.Context(), text)
		require.ErrorIs(t, err, ErrInvalid, name)
	}
}

func TestVerify_algorithms(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	all := []signer{newSigner(t, "es"), {"rs", jose.RS256, rsaKey}, {"ps", jose.PS512, rsaKey}, {"ed", jose.EdDSA, edKey}}
	var keys []jose.JSONWebKey
	for _, s := range all {
		keys = append(keys, s.jwk())
	}
	v, _ := fromFile(t, nil, keys...)
	only, _ := fromFile(t, func(c *Config) { c.Algorithms = []string{"RS256"} }, keys...)
	for _, s := range all {
		text := s.sign(t, good())
		_, err := v.Verify(t.Context(), text)
		require.NoError(t, err, s.algorithm)
		_, err = only.Verify(t.Context(), text)
		require.Equal(t, s.algorithm == jose.RS256, err == nil, s.algorithm)
		s.id = "" // Whichever key it is.
		_, err = v.Verify(t.Context(), s.sign(t, good()))
		require.NoError(t, err, s.algorithm)
	}
}

func TestVerify_claims(t *testing.T) {
	s := newSigner(t, "1")
	const q, d = clipperv1.Role_ROLE_QUERY, clipperv1.Role_ROLE_DEPLOY
	for _, tt := range []struct {
		name   string
		change func(*Config)
		claims map[string]any
		roles  []clipperv1.Role
		apps   []string
	}{
		{"text", nil, map[string]any{"roles": "query deploy"}, []clipperv1.Role{q, d}, []string{"*"}},
		{"nested", func(c *Config) { c.RolesClaim = "realm_access.roles" }, map[string]any{"realm_access": map[string]any{"roles": []any{"query", 7}}}, []clipperv1.Role{q}, []string{"*"}},
		{"URL", func(c *Config) { c.RolesClaim = "https://x.example/roles" }, map[string]any{"https://x.example/roles": "query"}, []clipperv1.Role{q}, []string{"*"}},
		{"mapped", func(c *Config) { c.Roles = map[string]string{"ml-team": "deploy"} }, map[string]any{"roles": "ml-team query"}, []clipperv1.Role{d}, []string{"*"}},
		{"wrong kind", nil, map[string]any{"roles": 7}, nil, []string{"*"}},
		{"applications", func(c *Config) { c.ApplicationsClaim = "apps" }, map[string]any{"roles": "query", "apps": []string{"a", "b"}}, []clipperv1.Role{q}, []string{"a", "b"}},
		{"no applications", func(c *Config) { c.ApplicationsClaim = "apps" }, map[string]any{"roles": "query"}, []clipperv1.Role{q}, nil},
	} {
		v, _ := fromFile(t, tt.change, s.jwk())
		claims := good()
		delete(claims, "roles")
		for name, value := range tt.claims {
			claims[name] = value
		}
		id, err := v.Verify(t.Context(), s.sign(t, claims))
		require.NoError(t, err, tt.name)
		require.Equal(t, tt.roles, id.Roles, tt.name)
		require.Equal(t, tt.apps, id.Applications, tt.name)
	}
}

// An issuer that is discovered, rotates its keys, and breaks.
func TestRotation(t *testing.T) {
	first, second := newSigner(t, "1"), newSigner(t, "2")
	var served atomic.Pointer[[]byte]
	var reads atomic.Int32
	serve := func(text []byte) { served.Store(&text) }
	serve(jwks(t, first.jwk()))
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"issuer": %q, "jwks_uri": %q}`, server.URL, server.URL+"/keys")
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		reads.Add(1)
		_, _ = w.Write(*served.Load())
	})
	cfg := config("")
	cfg.Issuer = server.URL
	v, err := New(cfg, quiet)
	require.NoError(t, err)
	require.Error(t, v.Ready(t.Context()))
	claims := good()
	claims["iss"] = server.URL
	_, err = v.Verify(t.Context(), first.sign(t, claims))
	require.NoError(t, err, "the first token has the keys read")
	require.NoError(t, v.Ready(t.Context()))
	generation := v.Generation()

	serve(jwks(t, second.jwk()))
	_, err = v.Verify(t.Context(), second.sign(t, claims))
	require.ErrorIs(t, err, ErrInvalid, "unknown keys do not have them read at every call")
	require.Equal(t, int32(1), reads.Load())
	v.keys.attempted = time.Now().Add(-minRefresh)
	_, err = v.Verify(t.Context(), second.sign(t, claims))
	require.NoError(t, err)
	require.NotEqual(t, generation, v.Generation())
	_, err = v.Verify(t.Context(), first.sign(t, claims))
	require.ErrorIs(t, err, ErrInvalid, "the old key is gone")

	for _, broken := range []string{"", "{}", `{"keys":[]}`, `{"keys":[{"kty":"oct","k":"AAAA"}]}`, strings.Repeat(" ", maxDocument+1)} {
		serve([]byte(broken))
		v.keys.read(t.Context(), 0)
		_, err = v.Verify(t.Context(), second.sign(t, claims))
		require.NoError(t, err, "what is known stays")
	}
}

func TestRun_readsAFileAgain(t *testing.T) {
	first, second := newSigner(t, "1"), newSigner(t, "2")
	v, path := fromFile(t, nil, first.jwk())
	require.NoError(t, os.WriteFile(path, jwks(t, second.jwk()), 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- v.Run(ctx) }()
	require.Eventually(t, func() bool { return v.Generation() == 2 }, 10*time.Second, time.Millisecond)
	cancel()
	require.NoError(t, <-done)
	_, err := v.Verify(t.Context(), second.sign(t, good()))
	require.NoError(t, err)
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Audience = nil }, "jwt-audience is missing"},
		{func(c *Config) { c.Issuer = "" }, "jwt-issuer is missing"},
		{func(c *Config) { c.Algorithms = []string{"HS256"} }, "HS256"},
		{func(c *Config) { c.Algorithms = []string{"none"} }, "none"},
		{func(c *Config) { c.Algorithms = nil }, "empty"},
		{func(c *Config) { c.ClockSkew = -1 }, "clock-skew"},
		{func(c *Config) { c.Refresh = 0 }, "refresh"},
		{func(c *Config) { c.RolesClaim = "" }, "roles-claim"},
		{func(c *Config) { c.Roles = map[string]string{"a": "b"} }, `"a"`},
	} {
		c := config("x")
		tt.change(&c)
		require.ErrorContains(t, c.Validate(), tt.want)
	}
	require.NoError(t, Config{}.Validate())
	for _, keys := range []string{"http://issuer.example/keys", "ftp://x/y", "/no/such/file"} {
		_, err := New(config(keys), quiet)
		require.Error(t, err, keys)
	}
	cfg := config("")
	cfg.Issuer = "alice"
	_, err := New(cfg, quiet)
	require.ErrorContains(t, err, "jwt-jwks")
}

func FuzzVerify(f *testing.F) {
	s := newSigner(f, "1")
	v, _ := fromFile(f, nil, s.jwk())
	text := s.sign(f, good())
	f.Add(text)
	f.Add("a.b.c")
	f.Add(strings.Repeat("e30.", 3))
	v.keys.attempted = time.Now().Add(time.Hour) // No reading in between.
	f.Fuzz(func(t *testing.T, fuzzed string) {
		if _, err := v.Verify(t.Context(), fuzzed); err == nil && fuzzed != text {
			// Only the signature's own encoding may vary.
			require.Equal(t, text[:strings.LastIndex(text, ".")], fuzzed[:strings.LastIndex(fuzzed, ".")])
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	s := newSigner(b, "1")
	v, _ := fromFile(b, nil, s.jwk())
	text := s.sign(b, good())
	for b.Loop() {
		if _, err := v.Verify(b.Context(), text); err != nil {
			b.Fatal(err)
		}
	}
}
