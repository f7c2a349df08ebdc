// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/inprocess"
	"github.com/clipper-serving/clipper/internal/keys"
	"github.com/clipper-serving/clipper/internal/store/storeopen"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fixture struct {
	*keys.Service
	conn *inprocess.Conn
	path string
}

func start(t *testing.T) *fixture {
	f := &fixture{path: filepath.Join(t.TempDir(), "keys.db"), conn: inprocess.New(nil, nil)}
	state, err := storeopen.Open(t.Context(), "file:"+f.path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, state.Close()) })
	f.Service = keys.New(state.Documents(), nil, slog.New(slog.DiscardHandler))
	t.Cleanup(f.Close)
	f.Register(f.conn)
	return f
}

func web() *clipperv1.Key {
	return &clipperv1.Key{Name: "web", Roles: []clipperv1.Role{clipperv1.Role_ROLE_QUERY}, Applications: []string{"digits"}}
}

func (f *fixture) create(t *testing.T, k *clipperv1.Key) *clipperv1.CreateKeyResponse {
	t.Helper()
	r, err := f.CreateKey(t.Context(), &clipperv1.CreateKeyRequest{Key: k})
	require.NoError(t, err)
	return r
}

func TestCreateKey_refuses(t *testing.T) {
	f := start(t)
	for _, tt := range []struct {
		field  string
		change func(*clipperv1.Key)
	}{
		{"name", func(k *clipperv1.Key) { k.Name = "" }},
		{"name", func(k *clipperv1.Key) { k.Name = "a\nb" }},
		{"name", func(k *clipperv1.Key) { k.Name = string(make([]byte, 100)) }},
		{"roles", func(k *clipperv1.Key) { k.Roles = nil }},
		{"roles[1]", func(k *clipperv1.Key) { k.Roles = append(k.Roles, 0) }},
		{"roles[1]", func(k *clipperv1.Key) { k.Roles = append(k.Roles, 9) }},
		{"applications", func(k *clipperv1.Key) { k.Applications = nil }},
		{"applications", func(k *clipperv1.Key) { k.Applications = make([]string, 1001) }},
		{"applications[0]", func(k *clipperv1.Key) { k.Applications = []string{"a*"} }},
		{"expire_time", func(k *clipperv1.Key) { k.ExpireTime = timestamppb.New(time.Now()) }},
		{"expire_time", func(k *clipperv1.Key) { k.ExpireTime = &timestamppb.Timestamp{Nanos: -1} }},
		{"limits.queries_per_second", func(k *clipperv1.Key) { k.Limits = &clipperv1.Limits{QueriesPerSecond: -1} }},
	} {
		k := web()
		tt.change(k)
		_, err := f.CreateKey(t.Context(), &clipperv1.CreateKeyRequest{Key: k})
		require.Equal(t, codes.InvalidArgument, status.Code(err), "%v", k)
		require.Equal(t, tt.field, apierror.ToProto(err).GetField())
	}
	_, err := f.CreateKey(t.Context(), &clipperv1.CreateKeyRequest{})
	require.Equal(t, codes.InvalidArgument, status.Code(err))
}

func TestLife(t *testing.T) {
	f := start(t)
	created := f.create(t, web())
	require.Regexp(t, `^clp_`+created.Key.Id+`_[A-Za-z0-9_-]{43}$`, created.Secret)

	got, err := f.GetKey(t.Context(), &clipperv1.GetKeyRequest{Key: created.Key.Id})
	require.NoError(t, err)
	require.Equal(t, "web", got.Key.Name)

	rotated, err := f.RotateKey(t.Context(), &clipperv1.RotateKeyRequest{Key: created.Key.Id, Overlap: durationpb.New(time.Hour)})
	require.NoError(t, err)
	require.Equal(t, created.Key.Id, rotated.Key.Id)
	require.NotEqual(t, created.Secret, rotated.Secret)
	_, err = f.RotateKey(t.Context(), &clipperv1.RotateKeyRequest{Key: created.Key.Id, Overlap: durationpb.New(-1)})
	require.Equal(t, codes.InvalidArgument, status.Code(err))

	_, err = f.RevokeKey(t.Context(), &clipperv1.RevokeKeyRequest{Key: created.Key.Id})
	require.NoError(t, err)
	for _, id := range []string{created.Key.Id, "", "../x", created.Secret} {
		_, err = f.RevokeKey(t.Context(), &clipperv1.RevokeKeyRequest{Key: id})
		require.Equal(t, clipperv1.ErrorReason_ERROR_REASON_KEY_NOT_FOUND, apierror.Reason(err))
		require.NotContains(t, err.Error(), created.Secret)
		_, err = f.GetKey(t.Context(), &clipperv1.GetKeyRequest{Key: id})
		require.Equal(t, codes.NotFound, status.Code(err))
		_, err = f.RotateKey(t.Context(), &clipperv1.RotateKeyRequest{Key: id})
		require.Equal(t, codes.NotFound, status.Code(err))
	}
}

func TestListKeys_pages(t *testing.T) {
	f := start(t)
	want := map[string]bool{}
	for range 5 {
		want[f.create(t, web()).Key.Id] = true
	}
	token, pages := "", 0
	for {
		r, err := f.ListKeys(t.Context(), &clipperv1.ListKeysRequest{PageSize: 2, PageToken: token})
		require.NoError(t, err)
		for _, k := range r.Keys {
			require.True(t, want[k.Id])
			delete(want, k.Id)
		}
		pages++
		if token = r.NextPageToken; token == "" {
			break
		}
	}
	require.Empty(t, want)
	require.Equal(t, 3, pages)
	for _, r := range []*clipperv1.ListKeysRequest{{PageSize: 1001}, {PageToken: "?"}, {PageToken: "YQ"}} {
		_, err := f.ListKeys(t.Context(), r)
		require.Equal(t, codes.InvalidArgument, status.Code(err))
	}
}

func TestWatchKeys(t *testing.T) {
	f := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := internalv1.NewKeyDirectoryServiceClient(f.conn).WatchKeys(ctx, &internalv1.WatchKeysRequest{})
	require.NoError(t, err)
	until := func(met func([]*internalv1.StoredKey) bool) []*internalv1.StoredKey {
		for {
			r, err := stream.Recv()
			require.NoError(t, err)
			if met(r.Keys) {
				return r.Keys
			}
		}
	}
	created := f.create(t, web())
	stored := until(func(k []*internalv1.StoredKey) bool { return len(k) == 1 })[0]
	digest := sha256.Sum256([]byte(created.Secret))
	require.Equal(t, digest[:], stored.Digest)

	_, err = f.RotateKey(t.Context(), &clipperv1.RotateKeyRequest{Key: created.Key.Id, Overlap: durationpb.New(time.Hour)})
	require.NoError(t, err)
	stored = until(func(k []*internalv1.StoredKey) bool { return len(k[0].PreviousDigest) > 0 })[0]
	require.Equal(t, digest[:], stored.PreviousDigest)

	_, err = f.RevokeKey(t.Context(), &clipperv1.RevokeKeyRequest{Key: created.Key.Id})
	require.NoError(t, err)
	until(func(k []*internalv1.StoredKey) bool { return len(k) == 0 })
}
