// SPDX-License-Identifier: Apache-2.0

// Package serving puts together what serves one version of one model: cache, coalescing, queue and
// replicas.
package serving

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeebo/xxh3"
	"google.golang.org/grpc/credentials"

	"github.com/clipper-serving/clipper/abstraction/autoscale"
	"github.com/clipper-serving/clipper/abstraction/batching"
	"github.com/clipper-serving/clipper/abstraction/cache"
	"github.com/clipper-serving/clipper/abstraction/coalesce"
	"github.com/clipper-serving/clipper/abstraction/metrics"
	"github.com/clipper-serving/clipper/abstraction/prediction"
	"github.com/clipper-serving/clipper/abstraction/queue"
	"github.com/clipper-serving/clipper/abstraction/replica"
	"github.com/clipper-serving/clipper/abstraction/warmup"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// Config says what a version is and how it runs.
type Config struct {
	// Model and Version are its name.
	Model, Version string
	// Signature is what the version takes and gives. What it leaves open is taken from the first
	// container's description.
	Signature *clipperv1.Signature
	// Batching is how queries are batched; absent fields have the defaults of the API.
	Batching *clipperv1.Batching
	// Cache is whether predictions are remembered.
	Cache *clipperv1.Cache
	// WarmUp is how a replica is warmed up before it takes queries.
	WarmUp *clipperv1.WarmUp
	// Recent returns inputs of the recent past for warm-ups. When it is nil or returns none, those of
	// the version itself are taken.
	Recent func() [][]*clipperv1.Tensor
	// StartTimeout is the time that a replica may take to become ready for the first time before it
	// counts as failed; it is tried on after that. Default 2 min.
	StartTimeout time.Duration
	// OnChange is called after a replica's state or the signature has changed, from any goroutine,
	// without a lock held. It must not block. May be nil.
	OnChange func()
	// OnDemand is called when a request comes while the version is held (see Hold), as OnChange is. May be
	// nil.
	OnDemand func()
}

// Deps is what the versions of a service share.
type Deps struct {
	// Cache remembers predictions.
	Cache *cache.Cache
	// Metrics are the measurements.
	Metrics *metrics.Metrics
	// Logger gets what operators should know.
	Logger *slog.Logger
	// TLS is how replicas are connected to whose address begins with "tls:"; see replica.Config.
	TLS credentials.TransportCredentials
}

// Version serves one version of a model. Safe for concurrent use.
type Version struct {
	cfg     Config
	deps    Deps
	logger  *slog.Logger
	metrics *metrics.Version
	cache   *cache.Version
	queue   *queue.Queue
	warmUp  *warmup.Source
	recent  warmup.Recent

	signature atomic.Pointer[clipperv1.Signature]
	rows      atomic.Uint32 // the most that the last container takes in a batch; 0: no limit
	held      atomic.Bool

	mu       sync.Mutex
	batching *clipperv1.Batching
	prior    batching.Learned // of replicas that are gone
	replicas map[string]*replica.Replica
	retry    time.Duration // after which a replica that has failed is started again; 0: not known
	expected int           // replicas that are being started and have no address yet
	closed   bool

	// changing orders the looks at the replicas' states, so that an older one never has the last word.
	changing sync.Mutex
}

var _ prediction.Predictor = (*Version)(nil)

// New returns a version without replicas. It fails when the batching is not one that exists.
func New(cfg Config, deps Deps) (*Version, error) {
	if _, err := batching.New(cfg.Batching, 0, nil); err != nil {
		return nil, err
	}
	m := deps.Metrics.Version(cfg.Model, cfg.Version)
	v := &Version{
		cfg: cfg, deps: deps, metrics: m, batching: cfg.Batching,
		logger:   deps.Logger.With("model", cfg.Model, "version", cfg.Version),
		queue:    queue.New(queueRows(cfg.Batching), m),
		replicas: map[string]*replica.Replica{},
	}
	v.warmUp = warmup.NewSource(cfg.WarmUp, v.warmUpInputs)
	v.signature.Store(cfg.Signature)
	v.cache = deps.Cache.Open(cfg.Model, cfg.Version, coalesce.New(admission{v}, m.Coalesced),
		cache.Counters{Hits: m.CacheHits, Misses: m.CacheMisses, Stores: m.CacheStores, Late: m.Late})
	v.cache.SetDisabled(cfg.Cache.GetDisabled())
	v.follow()
	return v, nil
}

func queueRows(b *clipperv1.Batching) int {
	if n := int(b.GetMaxQueueRows()); n > 0 {
		return n
	}
	return batching.DefaultMaxQueueRows
}

// Submit asks for a prediction: from the cache, from an equal request in flight, or from a replica.
// The result is PREDICTION_STATUS_NO_REPLICA at once when no replica is ready or starting; while
// one is starting, requests are held until their deadline.
func (v *Version) Submit(r *prediction.Request) { v.cache.Submit(r) }

// Keep remembers a prediction that came too late for the query it was for.
func (v *Version) Keep(in *tensor.Input, outputs []*clipperv1.Tensor) { v.cache.Keep(in, outputs) }

// Recall returns what is remembered for the input with this hash.
func (v *Version) Recall(hash xxh3.Uint128) ([]*clipperv1.Tensor, bool) { return v.cache.Recall(hash) }

// admission is what a request passes that must be predicted: an input that does not fit is answered
// here, so that it cannot spoil the batch of others.
type admission struct{ *Version }

// Submit implements prediction.Predictor.
func (a admission) Submit(r *prediction.Request) {
	tensors, err := r.Input.Tensors()
	if err == nil {
		err = tensor.CheckInput(tensors, a.signature.Load())
	}
	if err != nil {
		r.Reply(prediction.Result{Err: prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_FAILED, "%v", err)})
		return
	}
	a.recent.Offer(tensors)
	a.queue.Submit(r)
	if a.held.Load() && a.cfg.OnDemand != nil {
		a.cfg.OnDemand()
	}
}

// Hold says whether requests are held while there is no replica, since one is started when a request comes.
func (v *Version) Hold(held bool) {
	if v.held.Swap(held) != held {
		v.follow()
	}
}

// SetFirst says that the first replica cannot serve before a time: while there is none, requests that
// cannot wait so long are refused at once.
func (v *Version) SetFirst(at time.Time) { v.queue.SetFirst(at) }

// SetRetry says after how long a replica that has failed is started again. Requests that are refused
// since there is no other are told so.
func (v *Version) SetRetry(after time.Duration) {
	v.mu.Lock()
	v.retry = after
	v.mu.Unlock()
	v.follow()
}

// Demand returns what comes to the version here, after the cache.
func (v *Version) Demand() autoscale.Demand { return v.queue.Demand() }

// Plan returns what replicas can do, by all that was learned here, for queries that have so much time.
func (v *Version) Plan(budget time.Duration) autoscale.Plan {
	v.mu.Lock()
	model, settings := batching.NewModel(v.learned()), v.batching
	v.mu.Unlock()
	return func(replicas int) autoscale.Batch {
		rows, mean := batching.Plan(settings, int(v.rows.Load()), model, budget, replicas)
		return autoscale.Batch{Rows: rows, Time: mean}
	}
}

// Recent returns a sample of the inputs that the version was asked about lately.
func (v *Version) Recent() [][]*clipperv1.Tensor { return v.recent.Inputs() }

// warmUpInputs returns inputs of the recent past.
func (v *Version) warmUpInputs() [][]*clipperv1.Tensor {
	if v.cfg.Recent != nil {
		if inputs := v.cfg.Recent(); len(inputs) > 0 {
			return inputs
		}
	}
	return v.Recent()
}

// Update changes how the version runs, at once and without losing a request.
func (v *Version) Update(b *clipperv1.Batching, c *clipperv1.Cache) error {
	if _, err := batching.New(b, 0, nil); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.batching = b
	v.queue.SetMaxRows(queueRows(b))
	v.cache.SetDisabled(c.GetDisabled() || v.closed)
	for _, r := range v.replicas {
		if err := r.SetBatching(b); err != nil {
			return err
		}
	}
	return nil
}

// Connect adds a replica, a container that serves or will soon serve at the address ("host:port",
// "tls://host:port" or "unix:/path"), and keeps the connection to it until Disconnect or Close. The id is unique among
// the version's replicas; a replica that has it already is closed and replaced. After Close the
// replica is closed too.
func (v *Version) Connect(id, address string) *replica.Replica {
	v.mu.Lock()
	old := v.replicas[id]
	r := replica.Start(replica.Config{
		ID: id, Address: address, TLS: v.deps.TLS, Batching: v.batching, Prior: v.learned(), StartTimeout: v.cfg.StartTimeout,
		WarmUp: v.warmUp, Accept: v.accept, OnChange: v.changed,
	}, v.queue, v.metrics, v.logger)
	closed := v.closed
	if !closed {
		v.replicas[id] = r
	}
	v.mu.Unlock()
	if closed {
		r.Close()
	}
	if old != nil {
		old.Close()
	}
	v.changed()
	return r
}

// Expect adds to the number of replicas that are being started and cannot be connected yet. They
// count as starting, so that requests are held for them.
func (v *Version) Expect(delta int) {
	v.mu.Lock()
	v.expected += delta
	v.mu.Unlock()
	v.follow()
}

// Disconnect removes a replica: it gets nothing new, finishes what it has until ctx ends, and what
// it has not finished then goes to other replicas. An id that is not known is ignored.
func (v *Version) Disconnect(ctx context.Context, id string) {
	v.mu.Lock()
	r := v.replicas[id]
	v.mu.Unlock()
	if r == nil {
		return
	}
	r.Drain(ctx)
	v.mu.Lock()
	if v.replicas[id] == r {
		v.prior = v.learned()
		delete(v.replicas, id)
	}
	v.mu.Unlock()
	v.changed()
}

// Replicas returns the replicas, sorted by id. Restarts is not set: it is the launcher's.
func (v *Version) Replicas() []*clipperv1.Replica {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := make([]*clipperv1.Replica, 0, len(v.replicas))
	for _, r := range v.replicas {
		out = append(out, r.Status())
	}
	slices.SortFunc(out, func(a, b *clipperv1.Replica) int { return cmp.Compare(a.Id, b.Id) })
	return out
}

// SetPrior says what was learned earlier about how long a replica takes. It is for the replicas that
// are connected from now on.
func (v *Version) SetPrior(l batching.Learned) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.prior = l
}

// Learned returns what is known about how long a replica of this version takes: the sum of what the
// replicas have learned or, while there is nothing, of what was learned earlier.
func (v *Version) Learned() batching.Learned {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.learned()
}

// learned is Learned; the lock is held.
func (v *Version) learned() batching.Learned {
	var sum batching.Learned
	for _, r := range v.replicas {
		sum.Merge(r.Learned())
	}
	if sum.Observations == 0 {
		return v.prior
	}
	return sum
}

// Batching returns how queries are batched now and why.
func (v *Version) Batching() *clipperv1.GetBatchingResponse {
	v.mu.Lock()
	settings := v.batching
	v.mu.Unlock()
	return &clipperv1.GetBatchingResponse{
		Model: v.cfg.Model, Version: v.cfg.Version, Batching: settings, Counters: v.metrics.Counters(),
		Queue: v.queue.Status(), Replicas: v.queue.Replicas(),
	}
}

// Signature returns the version's signature, with what it left open filled in from the first
// container's description; nil when nothing is known. It is shared and not to be modified.
func (v *Version) Signature() *clipperv1.Signature { return v.signature.Load() }

// Close refuses new requests, waits until what is queued and under way is answered or ctx ends,
// answers the rest, closes the connections and purges the cache.
func (v *Version) Close(ctx context.Context) {
	v.mu.Lock()
	v.closed = true
	v.mu.Unlock()
	v.queue.Close(ctx, v.noReplica("is being removed"))
	v.mu.Lock()
	v.prior = v.learned()
	replicas := v.replicas
	v.replicas = map[string]*replica.Replica{}
	v.mu.Unlock()
	for _, r := range replicas {
		r.Close()
	}
	v.cache.Purge()
	v.deps.Metrics.Delete(v.cfg.Model, v.cfg.Version)
}

func (v *Version) noReplica(why string) *prediction.Error {
	return prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA, "model %s:%s %s", v.cfg.Model, v.cfg.Version, why)
}

// accept decides whether a container is one of this version.
func (v *Version) accept(d *clipperv1.DescribeResponse) (*clipperv1.Signature, error) {
	if d.Model != "" && d.Model != v.cfg.Model || d.Version != "" && d.Version != v.cfg.Version {
		return nil, fmt.Errorf("the container serves %s:%s, not %s:%s", d.Model, d.Version, v.cfg.Model, v.cfg.Version)
	}
	v.mu.Lock()
	known := v.signature.Load()
	merged, err := mergeSignature(known, d.Signature)
	if err == nil && merged != known {
		v.signature.Store(merged)
	}
	if err == nil {
		v.rows.Store(d.MaxBatchRows)
	}
	v.mu.Unlock()
	return merged, err
}

// changed is called after a replica has changed.
func (v *Version) changed() {
	v.follow()
	if v.cfg.OnChange != nil {
		v.cfg.OnChange()
	}
}

// follow follows the replicas' states: the queue takes requests while one is ready or starting.
func (v *Version) follow() {
	v.changing.Lock()
	defer v.changing.Unlock()
	v.mu.Lock()
	counts := map[clipperv1.ReplicaState]int{clipperv1.ReplicaState_REPLICA_STATE_STARTING: v.expected}
	for _, r := range v.replicas {
		counts[r.State()]++
	}
	closed, retry := v.closed, v.retry
	v.mu.Unlock()
	for state, name := range stateNames {
		if !closed {
			v.metrics.Replicas.WithLabelValues(name).Set(float64(counts[state]))
		}
	}
	var refusal *prediction.Error
	if counts[clipperv1.ReplicaState_REPLICA_STATE_READY]+counts[clipperv1.ReplicaState_REPLICA_STATE_STARTING] == 0 && !v.held.Load() {
		refusal = v.noReplica("has no replica that can serve")
		refusal.RetryAfter = retry
	}
	v.queue.Refuse(refusal)
}

var stateNames = map[clipperv1.ReplicaState]string{
	clipperv1.ReplicaState_REPLICA_STATE_STARTING: "starting",
	clipperv1.ReplicaState_REPLICA_STATE_READY:    "ready",
	clipperv1.ReplicaState_REPLICA_STATE_DRAINING: "draining",
	clipperv1.ReplicaState_REPLICA_STATE_FAILED:   "failed",
}
