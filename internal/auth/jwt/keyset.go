// SPDX-License-Identifier: Apache-2.0

package jwt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

const (
	// maxDocument bounds what is read of an issuer, in bytes.
	maxDocument = 1 << 20
	// maxKeys bounds how many signatures a token without a key ID may cost.
	maxKeys = 64
	// fetchTimeout bounds how long an issuer may take to answer.
	fetchTimeout = 5 * time.Second
	// minRefresh is how often tokens with unknown keys can make the keys be read.
	minRefresh = 10 * time.Second
	// minRetry is the wait after a failure while no keys are known at all.
	minRetry = time.Second
)

// set is the keys of the issuer at one time. It is not modified.
type set struct {
	generation uint64
	keys       []jose.JSONWebKey
	text       []byte
}

// keySet is the keys of the issuer. They are read by one goroutine at a time.
type keySet struct {
	source    func(context.Context) ([]byte, error)
	refresh   time.Duration
	log       *slog.Logger
	current   atomic.Pointer[set] // Nil until they have been read.
	turn      chan struct{}       // Held by the one who reads.
	attempted time.Time           // When they were last read, or failed to be; guarded by turn.
	failing   bool                // Guarded by turn.
}

func newKeySet(cfg Config, log *slog.Logger) (*keySet, error) {
	k := &keySet{refresh: cfg.Refresh, log: log.With("issuer", cfg.Issuer), turn: make(chan struct{}, 1)}
	client := &http.Client{
		Timeout: fetchTimeout,
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) >= 3 {
				return errors.New("too many redirects")
			}
			return checkURL(r.URL)
		},
	}
	switch {
	case cfg.JWKS == "":
		issuer, err := parseURL("jwt-issuer", cfg.Issuer)
		if err != nil {
			return nil, fmt.Errorf("%w; or name the keys with jwt-jwks", err)
		}
		discovery := strings.TrimSuffix(issuer.String(), "/") + "/.well-known/openid-configuration"
		k.source = func(ctx context.Context) ([]byte, error) {
			text, err := fetch(ctx, client, discovery)
			if err != nil {
				return nil, err
			}
			var found struct {
				Issuer string `json:"issuer"`
				JWKS   string `json:"jwks_uri"`
			}
			if err := json.Unmarshal(text, &found); err != nil {
				return nil, fmt.Errorf("%s is not JSON", discovery)
			}
			if found.Issuer != cfg.Issuer {
				return nil, fmt.Errorf("%s is of another issuer, %q", discovery, found.Issuer)
			}
			address, err := parseURL("jwks_uri", found.JWKS)
			if err != nil {
				return nil, err
			}
			return fetch(ctx, client, address.String())
		}
	case strings.Contains(cfg.JWKS, "://"):
		address, err := parseURL("jwt-jwks", cfg.JWKS)
		if err != nil {
			return nil, err
		}
		k.source = func(ctx context.Context) ([]byte, error) { return fetch(ctx, client, address.String()) }
	default:
		if _, err := os.Stat(cfg.JWKS); err != nil {
			return nil, fmt.Errorf("jwt-jwks: %w", err)
		}
		k.source = func(context.Context) ([]byte, error) { return os.ReadFile(cfg.JWKS) }
	}
	return k, nil
}

func parseURL(name, text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("%s is %q: want a URL", name, text)
	}
	if err := checkURL(u); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return u, nil
}

// checkURL refuses addresses at which anyone on the way could give keys of their own.
func checkURL(u *url.URL) error {
	host := u.Hostname()
	if u.Scheme == "https" || u.Scheme == "http" && (host == "localhost" || net.ParseIP(host).IsLoopback()) {
		return nil
	}
	return fmt.Errorf("%s is not https", u.Redacted())
}

func fetch(ctx context.Context, client *http.Client, address string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", address, err)
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", address, err)
	}
	defer response.Body.Close() //nolint:errcheck // It is only read.
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("read %s: %s", address, response.Status)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxDocument+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", address, err)
	case len(text) > maxDocument:
		return nil, fmt.Errorf("read %s: it has more than %d bytes", address, maxDocument)
	}
	return text, nil
}

// run reads the keys now and then.
func (k *keySet) run(ctx context.Context) error {
	for {
		k.read(ctx, 0)
		wait := k.refresh
		if k.current.Load() == nil {
			wait = min(minRetry, wait)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// read reads the keys, unless that was tried less than age ago. After a failure, the keys that are known
// stay.
func (k *keySet) read(ctx context.Context, age time.Duration) {
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return
	}
	if !k.attempted.IsZero() && time.Since(k.attempted) < age {
		return
	}
	// A caller that gives up does not undo it for the others.
	reading, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	defer cancel()
	text, err := k.source(reading)
	k.attempted = time.Now()
	old := k.current.Load()
	var next *set
	if err == nil {
		next, err = parseSet(text, old)
	}
	if err != nil {
		if !k.failing {
			k.log.Warn("the keys of the tokens' issuer cannot be read; those that are known stay", "known", old != nil, "error", err)
		}
		k.failing = true
		return
	}
	if k.failing || next != old {
		k.log.Info("read the keys of the tokens' issuer", "keys", len(next.keys))
	}
	k.failing = false
	k.current.Store(next)
}

// parseSet returns the set that a text has, which is old if that has not changed.
func parseSet(text []byte, old *set) (*set, error) {
	if old != nil && bytes.Equal(old.text, text) {
		return old, nil
	}
	var raw struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &raw); err != nil {
		return nil, errors.New("it is not a JSON Web Key Set")
	}
	s := &set{generation: 1, text: text}
	if old != nil {
		s.generation = old.generation + 1
	}
	for _, text := range raw.Keys {
		var key jose.JSONWebKey
		// A set may have keys of kinds that are not known here.
		if json.Unmarshal(text, &key) == nil && key.Valid() && key.IsPublic() && key.Use != "enc" {
			s.keys = append(s.keys, key)
		}
	}
	if len(s.keys) == 0 || len(s.keys) > maxKeys {
		return nil, fmt.Errorf("it has %d public keys for signatures, want 1 to %d", len(s.keys), maxKeys)
	}
	return s, nil
}

// find returns the keys that may have signed a token.
func (k *keySet) find(ctx context.Context, header jose.Header) ([]jose.JSONWebKey, error) {
	found := k.current.Load().matching(header)
	if len(found) == 0 {
		k.read(ctx, minRefresh)
		found = k.current.Load().matching(header)
	}
	switch {
	case len(found) > 0:
		return found, nil
	case k.current.Load() == nil:
		return nil, ErrUnavailable
	}
	return nil, fmt.Errorf("%w: its key is none of the issuer's", ErrInvalid)
}

func (s *set) matching(header jose.Header) []jose.JSONWebKey {
	if s == nil {
		return nil
	}
	var found []jose.JSONWebKey
	for _, key := range s.keys {
		if (header.KeyID == "" || key.KeyID == header.KeyID) && (key.Algorithm == "" || key.Algorithm == header.Algorithm) {
			found = append(found, key)
		}
	}
	return found
}
