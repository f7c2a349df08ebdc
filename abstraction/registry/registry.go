// SPDX-License-Identifier: Apache-2.0

// Package registry keeps the replicas that nobody here has launched: they register, each with a
// lease of its own, replicas/<model>/<version>/<replica>, and are gone when they do not renew it.
//
// A version need not exist for replicas of it to register.
package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/clipper-serving/clipper/abstraction/catalog"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/store"
)

// The limits of the API; see model_service.proto. Registrations that come at the same time may
// exceed the numbers by as many as there are of them.
const (
	MinLease     = time.Second
	MaxLease     = time.Hour
	DefaultLease = 15 * time.Second

	maxPerVersion = 256
	maxReplicas   = 4096
)

const prefix = "replicas/"

// Name names a version.
type Name struct{ Model, Version string }

func (n Name) key(replica string) string {
	return prefix + n.Model + "/" + n.Version + "/" + replica
}

// Replica is a replica that is registered.
type Replica struct {
	// ID is unique among the registered replicas of the version.
	ID string `json:"-"`
	// Address is "host:port", "tls://host:port" or "unix:/path".
	Address string `json:"address"`

	of Name
}

func decode(d store.Document) (Replica, error) {
	r := Replica{}
	if err := json.Unmarshal(d.Value, &r); err != nil {
		return r, fmt.Errorf("decode registered replica: %w", err)
	}
	parts := strings.Split(strings.TrimPrefix(d.Key, prefix), "/")
	if len(parts) != 3 {
		return r, fmt.Errorf("decode registered replica: the key %q is not of the form model/version/replica", d.Key)
	}
	r.of, r.ID = Name{parts[0], parts[1]}, parts[2]
	return r, nil
}

// Registry reads and changes the registrations. Its methods return errors that are fit to be shown to
// callers. Safe for concurrent use.
type Registry struct {
	docs     store.Documents
	log      *slog.Logger
	follower *store.Follower[Replica]
}

// Open follows the registrations. The caller closes the registry.
func Open(docs store.Documents, log *slog.Logger) *Registry {
	return &Registry{docs: docs, log: log, follower: store.Follow(docs, prefix, decode, store.FollowConfig{Log: log})}
}

// Close stops following.
func (r *Registry) Close() { r.follower.Close() }

// View is the registrations at one moment. It never changes.
type View struct {
	// Replicas are those of each version, sorted by id.
	Replicas map[Name][]Replica

	snapshot *store.Snapshot[Replica]
}

// Replaced returns a channel that is closed when there is a newer view.
func (v *View) Replaced() <-chan struct{} { return v.snapshot.Replaced() }

// View returns the registrations as they were last read.
func (r *Registry) View() *View {
	s := r.follower.Snapshot()
	v := &View{snapshot: s, Replicas: map[Name][]Replica{}}
	for e := range s.All() {
		v.Replicas[e.Value.of] = append(v.Replicas[e.Value.of], e.Value)
	}
	return v
}

// Refresh reads the store, so that the next View has every change that was made before.
func (r *Registry) Refresh(ctx context.Context) error { return r.failed(r.follower.Refresh(ctx)) }

// Check refuses what cannot be registered, and returns the lease that is asked for: zero to remove
// the replica.
func Check(req *clipperv1.RegisterReplicaRequest) (time.Duration, error) {
	for _, f := range []struct{ field, name string }{{"model", req.GetModel()}, {"version", req.GetVersion()}, {"replica", req.GetReplica()}} {
		if err := catalog.CheckName(f.field, f.name); err != nil {
			return 0, err
		}
	}
	if _, err := strconv.ParseUint(req.Replica, 10, 64); err == nil {
		return 0, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "replica",
			"replica: %q is a number, as replicas have that Clipper starts: want a name", req.Replica)
	}
	lease := DefaultLease
	if d := req.GetLease(); d != nil {
		lease = d.AsDuration()
		if d.CheckValid() != nil || lease != 0 && (lease < MinLease || lease > MaxLease) {
			return 0, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "lease",
				"lease: want %v to %v, or 0 to remove the replica", MinLease, MaxLease)
		}
	}
	if lease == 0 {
		return 0, nil
	}
	return lease, catalog.CheckAddress("address", req.GetAddress())
}

// Register adds or renews a replica that has been checked.
func (r *Registry) Register(ctx context.Context, of Name, id, address string, lease time.Duration) error {
	if _, known := r.follower.Snapshot().Get(of.key(id)); !known {
		if err := r.admit(ctx, of, id); err != nil {
			return err
		}
	}
	value, err := json.Marshal(Replica{Address: address})
	if err != nil {
		return r.failed(err)
	}
	_, err = r.docs.PutLease(ctx, of.key(id), value, lease)
	return r.failed(err)
}

// admit refuses a new replica when there are too many already.
func (r *Registry) admit(ctx context.Context, of Name, id string) error {
	if err := r.Refresh(ctx); err != nil {
		return err
	}
	v := r.View()
	all := v.snapshot.Len()
	if _, known := v.snapshot.Get(of.key(id)); known {
		return nil
	}
	if n := len(v.Replicas[of]); n >= maxPerVersion {
		return apierror.Overloaded(DefaultLease, "version %q of model %q has %d registered replicas, the most that it may have: remove some, or let their leases end", of.Version, of.Model, n)
	}
	if all >= maxReplicas {
		return apierror.Overloaded(DefaultLease, "%d replicas are registered, the most that may be: remove some, or let their leases end", all)
	}
	return nil
}

// Remove removes a replica. If it is gone, that is no error.
func (r *Registry) Remove(ctx context.Context, of Name, id string) error {
	err := r.docs.Delete(ctx, of.key(id), 0)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return r.failed(err)
}

// failed turns an error of the store into one for callers. It returns nil for nil.
func (r *Registry) failed(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return apierror.From(err)
	case errors.Is(err, store.ErrUnavailable):
		return apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, "", "the store cannot be reached now: try again")
	}
	r.log.Error("registered replicas", "error", err)
	return apierror.From(err)
}
