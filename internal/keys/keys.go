// SPDX-License-Identifier: Apache-2.0

// Package keys keeps API keys in the store.
//
// A secret is "clp_", the key's id, "_" and 256 random bits. What is kept is its SHA-256 digest: nobody can
// try 2^256 secrets, so a slow hash, which passwords need because people choose them, would only make every
// query slow. The beginning says to people, and to scanners of source code, what it is and whose.
package keys

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/ratelimit"
	"github.com/clipper-serving/clipper/internal/store"
)

const (
	prefix          = "keys/" // Of the documents.
	maxName         = 63
	maxApplications = 1000
	defaultPage     = 100
	maxPage         = 1000
	maxOverlap      = 30 * 24 * time.Hour
)

// Service is clipper.v1.KeyService and what frontends follow. Safe for concurrent use.
type Service struct {
	clipperv1.UnimplementedKeyServiceServer
	internalv1.UnimplementedKeyDirectoryServiceServer
	docs store.Documents
	keys *store.Follower[*internalv1.StoredKey]
	log  *slog.Logger

	draining <-chan struct{}
}

// New returns a service, which the caller closes. Closing draining ends the streams; nil never does.
func New(docs store.Documents, draining <-chan struct{}, log *slog.Logger) *Service {
	return &Service{
		docs:     docs,
		log:      log,
		draining: draining,
		keys: store.Follow(docs, prefix, func(d store.Document) (*internalv1.StoredKey, error) {
			k := &internalv1.StoredKey{}
			if err := proto.Unmarshal(d.Value, k); err != nil {
				return nil, fmt.Errorf("decode key: %w", err)
			}
			return k, nil
		}, store.FollowConfig{Log: log}),
	}
}

// Close ends what follows the keys.
func (s *Service) Close() { s.keys.Close() }

// Register registers the services.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	clipperv1.RegisterKeyServiceServer(r, s)
	internalv1.RegisterKeyDirectoryServiceServer(r, s)
}

// WatchKeys sends all keys at once, and again whenever one changes.
func (s *Service) WatchKeys(_ *internalv1.WatchKeysRequest, stream grpc.ServerStreamingServer[internalv1.WatchKeysResponse]) error {
	for {
		snapshot := s.keys.Snapshot()
		if snapshot.Synced() {
			response := &internalv1.WatchKeysResponse{}
			for entry := range snapshot.All() {
				response.Keys = append(response.Keys, entry.Value)
			}
			if err := stream.Send(response); err != nil {
				return fmt.Errorf("send keys: %w", err)
			}
		}
		select {
		case <-snapshot.Replaced():
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-s.draining:
			return apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "", "the selector is shutting down")
		}
	}
}

// CreateKey makes a key.
func (s *Service) CreateKey(ctx context.Context, r *clipperv1.CreateKeyRequest) (*clipperv1.CreateKeyResponse, error) {
	if r.GetKey() == nil {
		return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, "key", "key is missing: want a key")
	}
	key := proto.CloneOf(r.GetKey())
	if err := check(key); err != nil {
		return nil, err
	}
	if key.ExpireTime != nil && !key.ExpireTime.AsTime().After(time.Now()) {
		return nil, invalid("expire_time", "it is in the past")
	}
	key.Id = newID()
	key.CreateTime = timestamppb.Now()
	key.RotateTime = key.CreateTime
	secret, digest := newSecret(key.Id)
	if err := s.put(ctx, &internalv1.StoredKey{Key: key, Digest: digest}, 0); err != nil {
		return nil, s.storeError("create key", err)
	}
	return &clipperv1.CreateKeyResponse{Key: key, Secret: secret}, nil
}

// GetKey returns one key.
func (s *Service) GetKey(ctx context.Context, r *clipperv1.GetKeyRequest) (*clipperv1.GetKeyResponse, error) {
	entry, err := s.find(ctx, r.GetKey())
	if err != nil {
		return nil, err
	}
	return &clipperv1.GetKeyResponse{Key: entry.Value.GetKey()}, nil
}

// ListKeys returns all keys, sorted by id.
func (s *Service) ListKeys(ctx context.Context, r *clipperv1.ListKeysRequest) (*clipperv1.ListKeysResponse, error) {
	size := int(r.GetPageSize())
	if size == 0 {
		size = defaultPage
	}
	if size > maxPage {
		return nil, invalid("page_size", "want 1 to %d, or 0 for %d, not %d", maxPage, defaultPage, size)
	}
	after, err := base64.RawURLEncoding.DecodeString(r.GetPageToken())
	if err != nil || len(after) > 0 && !isID(string(after)) {
		return nil, invalid("page_token", "want the next_page_token of an earlier answer, or nothing")
	}
	if err := s.keys.Refresh(ctx); err != nil {
		return nil, s.storeError("list keys", err)
	}
	response := &clipperv1.ListKeysResponse{}
	for entry := range s.keys.Snapshot().All() {
		key := entry.Value.GetKey()
		if key.GetId() <= string(after) {
			continue
		}
		if len(response.Keys) == size {
			response.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(response.Keys[size-1].GetId()))
			break
		}
		response.Keys = append(response.Keys, key)
	}
	return response, nil
}

// RotateKey gives a key a new secret.
func (s *Service) RotateKey(ctx context.Context, r *clipperv1.RotateKeyRequest) (*clipperv1.RotateKeyResponse, error) {
	overlap := r.GetOverlap().AsDuration()
	if r.Overlap != nil && (!r.Overlap.IsValid() || overlap < 0 || overlap > maxOverlap) {
		return nil, invalid("overlap", "it is %v, want 0s to %v", overlap, maxOverlap)
	}
	entry, err := s.find(ctx, r.GetKey())
	if err != nil {
		return nil, err
	}
	next := proto.CloneOf(entry.Value)
	now := time.Now()
	next.PreviousDigest, next.PreviousExpireTime = nil, nil
	if overlap > 0 {
		next.PreviousDigest, next.PreviousExpireTime = next.Digest, timestamppb.New(now.Add(overlap))
	}
	next.Key.RotateTime = timestamppb.New(now)
	var secret string
	secret, next.Digest = newSecret(next.Key.GetId())
	err = s.put(ctx, next, entry.Revision)
	switch {
	case errors.Is(err, store.ErrConflict):
		return nil, apierror.New(codes.Aborted, clipperv1.ErrorReason_ERROR_REASON_CONFLICT, "key", "someone else changed the key at the same time: look and try again")
	case err != nil:
		return nil, s.storeError("rotate key", err)
	}
	return &clipperv1.RotateKeyResponse{Key: next.Key, Secret: secret}, nil
}

// RevokeKey removes a key.
func (s *Service) RevokeKey(ctx context.Context, r *clipperv1.RevokeKeyRequest) (*clipperv1.RevokeKeyResponse, error) {
	if !isID(r.GetKey()) {
		return nil, notFound(r.GetKey())
	}
	err := s.docs.Delete(ctx, prefix+r.GetKey(), 0)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, notFound(r.GetKey())
	case err != nil:
		return nil, s.storeError("revoke key", err)
	}
	s.catchUp(ctx)
	return &clipperv1.RevokeKeyResponse{}, nil
}

// find returns a key as it is now.
func (s *Service) find(ctx context.Context, id string) (store.Entry[*internalv1.StoredKey], error) {
	if err := s.keys.Refresh(ctx); err != nil {
		return store.Entry[*internalv1.StoredKey]{}, s.storeError("read keys", err)
	}
	entry, ok := s.keys.Snapshot().Get(prefix + id)
	if !ok {
		return entry, notFound(id)
	}
	return entry, nil
}

func (s *Service) put(ctx context.Context, k *internalv1.StoredKey, expect store.Revision) error {
	value, err := proto.Marshal(k)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	if _, err := s.docs.Put(ctx, prefix+k.Key.GetId(), value, expect); err != nil {
		return err
	}
	s.catchUp(ctx)
	return nil
}

// catchUp lets those who follow see a write that is done. Without it they see it by themselves.
func (s *Service) catchUp(ctx context.Context) {
	if err := s.keys.Refresh(ctx); err != nil {
		s.log.Warn("the keys were changed and could not be read again", "error", err)
	}
}

func (s *Service) storeError(doing string, err error) error {
	if errors.Is(err, store.ErrUnavailable) {
		s.log.Warn("store does not answer", "doing", doing, "error", err)
		return apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, "", "the store cannot be reached now: try again")
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// check checks a key and sorts its lists.
func check(key *clipperv1.Key) error {
	switch {
	case key.Name == "":
		return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, "name", "name is missing: want a name that says what uses the key")
	case !utf8.ValidString(key.Name) || utf8.RuneCountInString(key.Name) > maxName || strings.ContainsFunc(key.Name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return invalid("name", "want up to %d characters, no control characters", maxName)
	case len(key.Roles) == 0:
		return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, "roles", "roles is missing: want at least one of ROLE_QUERY, ROLE_FEEDBACK, ROLE_DEPLOY and ROLE_ADMIN")
	case len(key.Applications) == 0:
		return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, "applications", `applications is missing: want names of applications, or "*"`)
	case len(key.Applications) > maxApplications:
		return invalid("applications", "there are %d, want at most %d", len(key.Applications), maxApplications)
	case key.ExpireTime != nil && !key.ExpireTime.IsValid():
		return invalid("expire_time", "it is not a time")
	}
	for i, role := range key.Roles {
		if _, known := clipperv1.Role_name[int32(role)]; !known || role == clipperv1.Role_ROLE_UNSPECIFIED {
			return invalid(fmt.Sprintf("roles[%d]", i), "it is %d, want ROLE_QUERY (1), ROLE_FEEDBACK (2), ROLE_DEPLOY (3) or ROLE_ADMIN (4)", role)
		}
	}
	for i, app := range key.Applications {
		if app != "*" && !isName(app) {
			return invalid(fmt.Sprintf("applications[%d]", i), `want the name of an application, or "*"`)
		}
	}
	if field, err := ratelimit.Check(key.Limits); err != nil {
		return invalid("limits."+field, "%v", err)
	}
	slices.Sort(key.Roles)
	key.Roles = slices.Compact(key.Roles)
	slices.Sort(key.Applications)
	key.Applications = slices.Compact(key.Applications)
	return nil
}

// isName reports whether a text can be the name of an application.
func isName(s string) bool {
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= maxName
}

func invalid(field, format string, args ...any) error {
	return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field, "%s: %s", field, fmt.Sprintf(format, args...))
}

// notFound does not repeat what could be a secret given by mistake.
func notFound(id string) error {
	if !isID(id) {
		return apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_KEY_NOT_FOUND, "key", "there is no such key: want an id, %d characters", idLength)
	}
	return apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_KEY_NOT_FOUND, "key", "there is no key %q", id)
}

// idLength is the length of an id: 60 random bits.
const idLength = 12

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // Never fails.
	return idEncoding.EncodeToString(b[:])[:idLength]
}

func isID(s string) bool {
	return len(s) == idLength && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '2' || r > '7')
	})
}

func newSecret(id string) (secret string, digest []byte) {
	var b [32]byte
	_, _ = rand.Read(b[:]) // Never fails.
	secret = "clp_" + id + "_" + base64.RawURLEncoding.EncodeToString(b[:])
	sum := sha256.Sum256([]byte(secret))
	return secret, sum[:]
}
