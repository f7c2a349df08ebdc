// SPDX-License-Identifier: Apache-2.0

// Package serving puts together what serves one version of one model: cache, coalescing, queue and
// replicas.
package serving

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/clipper-serving/clipper/abstraction/cache"
	"github.com/clipper-serving/clipper/abstraction/metrics"
	"github.com/clipper-serving/clipper/abstraction/prediction"
	"github.com/clipper-serving/clipper/abstraction/replica"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Config says what a version is and how it runs.
type Config struct {
	// Model and Version are its name.
	Model, Version string
	// Signature is what the version takes and gives. When it has no inputs, what the first container
	// describes is used.
	Signature *clipperv1.Signature
	// Batching is how queries are batched; absent fields have the defaults of the API.
	Batching *clipperv1.Batching
	// Cache is whether predictions are remembered.
	Cache *clipperv1.Cache
	// StartTimeout is the time that a replica may take to become ready for the first time before it
	// counts as failed; it is tried on after that. Default 2 min.
	StartTimeout time.Duration
	// OnChange is called after a replica's state or the signature has changed, from any goroutine,
	// without a lock held. It must not block. May be nil.
	OnChange func()
}

// Deps is what the versions of a service share.
type Deps struct {
	// Cache remembers predictions.
	Cache *cache.Cache
	// Metrics are the measurements.
	Metrics *metrics.Metrics
	// Logger gets what operators should know.
	Logger *slog.Logger
}

// Version serves one version of a model. Safe for concurrent use.
type Version struct{}

var _ prediction.Predictor = (*Version)(nil)

// New returns a version without replicas.
func New(cfg Config, deps Deps) (*Version, error) { return nil, errors.New("not yet") }

// Submit asks for a prediction: from the cache, from an equal request in flight, or from a replica.
// The result is PREDICTION_STATUS_NO_REPLICA at once when no replica is ready or starting; while
// one is starting, requests are held until their deadline.
func (v *Version) Submit(r *prediction.Request) {}

// Update changes how the version runs, at once and without losing a request.
func (v *Version) Update(batching *clipperv1.Batching, cache *clipperv1.Cache) error { return nil }

// Connect adds a replica, a container that serves or will soon serve at the address ("host:port" or
// "unix:/path"), and keeps the connection to it until Disconnect or Close. The id is unique among
// the version's replicas; a replica that has it already is closed and replaced.
func (v *Version) Connect(id, address string) *replica.Replica { return nil }

// Disconnect removes a replica: it gets nothing new, finishes what it has until ctx ends, and what
// it has not finished then goes to other replicas. An id that is not known is ignored.
func (v *Version) Disconnect(ctx context.Context, id string) {}

// Replicas returns the replicas, sorted by id. Restarts is not set: it is the launcher's.
func (v *Version) Replicas() []*clipperv1.Replica { return nil }

// Signature returns the version's signature, or what the first container described when the
// version has none, or nil. It is shared and not to be modified.
func (v *Version) Signature() *clipperv1.Signature { return nil }

// Close refuses new requests, waits until what is queued and under way is answered or ctx ends,
// answers the rest, closes the connections and purges the cache.
func (v *Version) Close(ctx context.Context) {}
