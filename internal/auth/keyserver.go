// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
)

// maxFollow is the longest that a change of a key waits for this gate itself to know it.
const maxFollow = 2 * time.Second

// RegisterKeys registers clipper.v1.KeyService, which passes calls on to the service that keeps the keys. A
// change returns when this gate goes by it.
func (g *Gate) RegisterKeys(r grpc.ServiceRegistrar, conn grpc.ClientConnInterface) {
	clipperv1.RegisterKeyServiceServer(r, &keyServer{gate: g, keys: clipperv1.NewKeyServiceClient(conn)})
}

type keyServer struct {
	clipperv1.UnimplementedKeyServiceServer
	gate *Gate
	keys clipperv1.KeyServiceClient
}

func forward[Req, Res any](ctx context.Context, call func(context.Context, *Req, ...grpc.CallOption) (*Res, error), r *Req) (*Res, error) {
	res, err := call(ctx, r)
	if status.Code(err) == codes.Unavailable && apierror.Reason(err) == clipperv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		return nil, apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "", "the selector, which keeps the keys, cannot be reached now: try again")
	}
	return res, err
}

func (k *keyServer) CreateKey(ctx context.Context, r *clipperv1.CreateKeyRequest) (*clipperv1.CreateKeyResponse, error) {
	res, err := forward(ctx, k.keys.CreateKey, r)
	if err == nil {
		k.follow(ctx, res.GetKey().GetId(), func(stored *internalv1.StoredKey) bool { return stored != nil })
	}
	return res, err
}

func (k *keyServer) GetKey(ctx context.Context, r *clipperv1.GetKeyRequest) (*clipperv1.GetKeyResponse, error) {
	return forward(ctx, k.keys.GetKey, r)
}

func (k *keyServer) ListKeys(ctx context.Context, r *clipperv1.ListKeysRequest) (*clipperv1.ListKeysResponse, error) {
	return forward(ctx, k.keys.ListKeys, r)
}

func (k *keyServer) RotateKey(ctx context.Context, r *clipperv1.RotateKeyRequest) (*clipperv1.RotateKeyResponse, error) {
	res, err := forward(ctx, k.keys.RotateKey, r)
	if err == nil {
		k.follow(ctx, res.GetKey().GetId(), func(stored *internalv1.StoredKey) bool {
			return !stored.GetKey().GetRotateTime().AsTime().Before(res.GetKey().GetRotateTime().AsTime())
		})
	}
	return res, err
}

func (k *keyServer) RevokeKey(ctx context.Context, r *clipperv1.RevokeKeyRequest) (*clipperv1.RevokeKeyResponse, error) {
	res, err := forward(ctx, k.keys.RevokeKey, r)
	if err == nil {
		k.follow(ctx, r.GetKey(), func(stored *internalv1.StoredKey) bool { return stored == nil })
	}
	return res, err
}

// follow waits, for a while, until the gate knows what was done to a key.
func (k *keyServer) follow(ctx context.Context, id string, met func(*internalv1.StoredKey) bool) {
	if !k.gate.Enabled() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, maxFollow)
	defer cancel()
	k.gate.ring.await(ctx, func(keys []*internalv1.StoredKey) bool {
		i := slices.IndexFunc(keys, func(s *internalv1.StoredKey) bool { return s.GetKey().GetId() == id })
		if i < 0 {
			return met(nil)
		}
		return met(keys[i])
	})
}
