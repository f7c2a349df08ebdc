// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/ratelimit"
)

const (
	// filePoll is how often the files of keys are looked at.
	filePoll = time.Second
	// maxFile is the largest file of keys, in bytes.
	maxFile = 4 << 20
	// minSecret is the shortest secret in a file. Below it, somebody has thought one up.
	minSecret = 32
)

// digest identifies a key or a token.
type digest = [sha256.Size]byte

// Caller is who makes a call. It is not modified.
type Caller struct {
	// ID says which key or token: "key:ID", "token:SUBJECT", "admin" or "anonymous".
	ID string
	// Name is what people call it; may be empty.
	Name    string
	needs   uint16 // Bits of need.
	all     bool
	apps    []string // Sorted; only when not all.
	expires time.Time
	limiter *ratelimit.Limiter
}

// anonymous is every caller where there is no authentication.
var anonymous = &Caller{ID: "anonymous"}

// String describes the caller in messages.
func (c *Caller) String() string {
	if c.Name == "" {
		return c.ID
	}
	return c.ID + " (" + c.Name + ")"
}

func newCaller(id, name string, roles []clipperv1.Role, applications []string, expires time.Time) *Caller {
	c := &Caller{ID: id, Name: name, expires: expires, all: slices.Contains(applications, "*")}
	for _, role := range roles {
		c.needs |= 1 << roleNeeds[role]
	}
	if !c.all {
		c.apps = slices.Sorted(slices.Values(applications))
	}
	return c
}

// may reports whether the caller may make a call of a rule about an application.
func (c *Caller) may(r *rule, application string) bool {
	switch r.need {
	case nobody:
		return false
	case everyone, anyone:
		return true
	}
	if c.needs&(1<<r.need|1<<admin) == 0 {
		return false
	}
	if c.all {
		return true
	}
	if r.application == nil {
		return false
	}
	_, found := slices.BinarySearch(c.apps, application)
	return found
}

// ring is all keys that are accepted. Reading it takes no lock.
type ring struct {
	log     *slog.Logger
	files   []*keyFile
	current atomic.Pointer[map[digest]*Caller]

	mu      sync.Mutex
	stored  []*internalv1.StoredKey
	known   bool // The stored keys have been read.
	changed chan struct{}
}

// keyFile is a file with keys.
type keyFile struct {
	path  string
	parse func([]byte) (map[digest]*Caller, error)
	text  []byte
	keys  map[digest]*Caller
	bad   bool // It could not be read the last time.
}

func (f *keyFile) read() (changed bool, err error) {
	info, err := os.Stat(f.path)
	if err != nil {
		return false, err
	}
	if info.Size() > maxFile {
		return false, fmt.Errorf("%s has more than %d bytes", f.path, maxFile)
	}
	text, err := os.ReadFile(f.path)
	if err != nil {
		return false, err
	}
	if f.keys != nil && bytes.Equal(text, f.text) {
		return false, nil
	}
	keys, err := f.parse(text)
	if err != nil {
		return false, fmt.Errorf("%s: %w", f.path, err)
	}
	f.text, f.keys = text, keys
	return true, nil
}

func newRing(cfg Config, log *slog.Logger) (*ring, error) {
	r := &ring{log: log, changed: make(chan struct{})}
	if cfg.AdminKeyFile != "" {
		r.files = append(r.files, &keyFile{path: cfg.AdminKeyFile, parse: parseAdminKey})
	}
	if cfg.KeysFile != "" {
		r.files = append(r.files, &keyFile{path: cfg.KeysFile, parse: parseKeys})
	}
	for _, f := range r.files {
		if _, err := f.read(); err != nil {
			return nil, fmt.Errorf("read keys: %w", err)
		}
	}
	r.rebuild()
	return r, nil
}

// rebuild makes the keys anew. Limiters of keys whose limits stay go on.
func (r *ring) rebuild() {
	old := map[string]*Caller{}
	if before := r.current.Load(); before != nil {
		for _, c := range *before {
			old[c.ID] = c
		}
	}
	next := map[digest]*Caller{}
	add := func(sum []byte, k *clipperv1.Key, expires time.Time) {
		c := newCaller("key:"+k.GetId(), k.GetName(), k.GetRoles(), k.GetApplications(), expires)
		if len(sum) != len(digest{}) {
			return
		}
		if limits := k.GetLimits(); limits != nil {
			var before *ratelimit.Limiter
			if o := old[c.ID]; o != nil {
				before = o.limiter
			}
			c.limiter = ratelimit.New(limits, before)
			old[c.ID] = c // The secret before the rotation has the same limits.
		}
		next[digest(sum)] = c
	}
	for _, k := range r.stored {
		var expires time.Time
		if t := k.GetKey().GetExpireTime(); t != nil {
			expires = t.AsTime()
		}
		add(k.GetDigest(), k.GetKey(), expires)
		if len(k.GetPreviousDigest()) > 0 {
			previous := k.GetPreviousExpireTime().AsTime()
			if !expires.IsZero() && expires.Before(previous) {
				previous = expires
			}
			add(k.GetPreviousDigest(), k.GetKey(), previous)
		}
	}
	for _, f := range r.files {
		maps.Copy(next, f.keys)
	}
	r.current.Store(&next)
}

// find returns the caller with a key, or nil.
func (r *ring) find(d *digest) *Caller { return (*r.current.Load())[*d] }

// ready returns nil when the stored keys are known.
func (r *ring) ready(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.known {
		return errors.New("the keys have not come from the selector yet")
	}
	return nil
}

// update replaces the stored keys.
func (r *ring) update(keys []*internalv1.StoredKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stored, r.known = keys, true
	r.rebuild()
	close(r.changed)
	r.changed = make(chan struct{})
}

// await waits until the stored keys meet a condition, or until ctx is done.
func (r *ring) await(ctx context.Context, met func([]*internalv1.StoredKey) bool) {
	for {
		r.mu.Lock()
		done, changed := met(r.stored), r.changed
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// The wait before the keys are watched again doubles from minBackoff to maxBackoff.
const (
	minBackoff = 20 * time.Millisecond
	maxBackoff = 2 * time.Second
)

// follow follows the stored keys until ctx is done. While the selector cannot be reached, they stay as they
// are.
func (r *ring) follow(ctx context.Context, conn grpc.ClientConnInterface) error {
	client := internalv1.NewKeyDirectoryServiceClient(conn)
	backoff, linked := minBackoff, false
	for {
		watch, cancel := context.WithCancel(ctx)
		stream, err := client.WatchKeys(watch, &internalv1.WatchKeysRequest{})
		for err == nil {
			var keys *internalv1.WatchKeysResponse
			if keys, err = stream.Recv(); err == nil {
				backoff, linked = minBackoff, true
				r.update(keys.GetKeys())
			}
		}
		cancel()
		if linked && ctx.Err() == nil {
			r.log.Warn("lost the selector; keys stay as they are", "error", err)
		}
		linked = false
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(backoff/2 + rand.N(backoff)):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// watchFiles reads the files again when they change, until ctx is done. What is in a file that cannot be
// read stays.
func (r *ring) watchFiles(ctx context.Context) error {
	if len(r.files) == 0 {
		return nil
	}
	tick := time.NewTicker(filePoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			r.readFiles()
		}
	}
}

func (r *ring) readFiles() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.files {
		changed, err := f.read()
		switch {
		case err != nil && !f.bad:
			r.log.Error("a file of keys cannot be read; its keys stay as they were", "error", err)
		case changed:
			r.rebuild()
			r.log.Info("read a file of keys again", "path", f.path, "keys", len(f.keys))
		}
		f.bad = err != nil
	}
}

// parseAdminKey reads a file that holds one secret.
func parseAdminKey(text []byte) (map[digest]*Caller, error) {
	secret := strings.TrimSpace(string(text))
	if err := checkSecret(secret); err != nil {
		return nil, err
	}
	admin := newCaller("admin", "", []clipperv1.Role{clipperv1.Role_ROLE_ADMIN}, []string{"*"}, time.Time{})
	return map[digest]*Caller{sha256.Sum256([]byte(secret)): admin}, nil
}

// checkSecret does not repeat the secret in its error.
func checkSecret(secret string) error {
	if len(secret) < minSecret {
		return fmt.Errorf("the secret has %d characters: want at least %d, as from `openssl rand -hex 32`", len(secret), minSecret)
	}
	if _, err := parse(nil, []string{secret}); err != nil {
		return errors.New("the secret cannot be sent in a header: want one line of printable ASCII without spaces")
	}
	return nil
}

// fileKeys is a file of keys.
type fileKeys struct {
	Keys []struct {
		Name         string    `yaml:"name"`
		Secret       string    `yaml:"secret"`
		SHA256       string    `yaml:"sha256"`
		Roles        []string  `yaml:"roles"`
		Applications []string  `yaml:"applications"`
		Expires      time.Time `yaml:"expires"`
		Limits       struct {
			QueriesPerSecond float64 `yaml:"queries_per_second"`
			Burst            uint32  `yaml:"burst"`
			Concurrency      uint32  `yaml:"concurrency"`
		} `yaml:"limits"`
	} `yaml:"keys"`
}

// parseKeys reads a file of keys in YAML.
func parseKeys(text []byte) (map[digest]*Caller, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	var file fileKeys
	if err := decoder.Decode(&file); err != nil {
		// The library repeats the text, in which secrets may be.
		return nil, errors.New("it is not YAML of the form {keys: [{name, secret or sha256, roles, applications, expires, limits}]}")
	}
	found, names := map[digest]*Caller{}, map[string]bool{}
	for i, k := range file.Keys {
		wrong := func(format string, args ...any) error {
			return fmt.Errorf("keys[%d]: %s", i, fmt.Sprintf(format, args...))
		}
		var sum digest
		switch {
		case k.Name == "" || names[k.Name]:
			return nil, wrong("want a name that no other has")
		case (k.Secret == "") == (k.SHA256 == ""):
			return nil, wrong("want either secret or sha256")
		case k.Secret != "":
			if err := checkSecret(k.Secret); err != nil {
				return nil, wrong("%v", err)
			}
			sum = sha256.Sum256([]byte(k.Secret))
		default:
			raw, err := hex.DecodeString(k.SHA256)
			if err != nil || len(raw) != len(sum) {
				return nil, wrong("sha256: want 64 hexadecimal digits")
			}
			sum = digest(raw)
		}
		names[k.Name] = true
		var roles []clipperv1.Role
		for _, name := range k.Roles {
			role := clipperv1.Role(clipperv1.Role_value["ROLE_"+strings.ToUpper(name)])
			if role == clipperv1.Role_ROLE_UNSPECIFIED {
				return nil, wrong("roles: want query, feedback, deploy or admin")
			}
			roles = append(roles, role)
		}
		if len(roles) == 0 || len(k.Applications) == 0 {
			return nil, wrong("want at least one role and one application (\"*\" is all)")
		}
		limits := &clipperv1.Limits{QueriesPerSecond: k.Limits.QueriesPerSecond, Burst: k.Limits.Burst, Concurrency: k.Limits.Concurrency}
		if field, err := ratelimit.Check(limits); err != nil {
			return nil, wrong("limits.%s: %v", field, err)
		}
		if found[sum] != nil {
			return nil, wrong("the secret is that of another key")
		}
		c := newCaller("key:"+k.Name, "", roles, k.Applications, k.Expires)
		c.limiter = ratelimit.New(limits, nil)
		found[sum] = c
	}
	return found, nil
}
