// SPDX-License-Identifier: Apache-2.0

// Package replica is the client's side of one model container: it keeps a connection to it, takes
// batches from the version's queue when the container can work on them, and hands out what comes
// back.
//
// A container that breaks the protocol, hangs or dies costs the batches that it had, not the
// replica: what was lost goes back to the queue, for another replica or for this one when it has
// returned. How long a model takes says nothing about whether its container lives; that is asked
// by health checks of their own.
package replica

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/clipper-serving/clipper/abstraction/batching"
	"github.com/clipper-serving/clipper/abstraction/metrics"
	"github.com/clipper-serving/clipper/abstraction/queue"
	"github.com/clipper-serving/clipper/abstraction/warmup"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	// describeTimeout bounds the questions that are asked before batches are sent.
	describeTimeout = 5 * time.Second
	minRetryDelay   = 20 * time.Millisecond
	maxRetryDelay   = time.Second
	// steady is how long a session must have lasted for its end to count as the first failure.
	steady = 10 * time.Second
	// defaultStartTimeout is Config.StartTimeout when it is 0.
	defaultStartTimeout = 2 * time.Minute
	// returnTimeout is how long a replica that served before counts as starting again.
	returnTimeout = 10 * time.Second

	maxResponseBytes = 256 << 20
	// defaultMessageBytes is what implementations of gRPC receive at most when nobody tells them.
	defaultMessageBytes = 4 << 20
	windowBytes         = 16 << 20
)

// Config says which container this is and how to use it.
type Config struct {
	// ID is unique among the version's replicas.
	ID string
	// Address is "host:port", "tls://host:port" or "unix:/path".
	Address string
	// TLS is how a "tls:" address is connected to; nil means to trust the CAs of the system.
	TLS credentials.TransportCredentials
	// Batching is how batches are made.
	Batching *clipperv1.Batching
	// Prior is what was learned earlier about how long a replica of this version takes.
	Prior batching.Learned
	// StartTimeout is the time until a container that has not served yet counts as failed. Default
	// 2 min.
	StartTimeout time.Duration
	// Accept says whether the container is the right one, and returns the signature to which its
	// outputs are held. The error's text is shown to operators.
	Accept func(*clipperv1.DescribeResponse) (*clipperv1.Signature, error)
	// WarmUp gives the inputs with which the container is warmed up before it gets queries; nil means
	// that it is not.
	WarmUp *warmup.Source
	// OnChange is called after the state has changed, from any goroutine. It must not block.
	OnChange func()

	timing timing
}

// timing is how long is waited for a container that serves; zero values mean the defaults.
type timing struct {
	// health is the time between two health checks.
	health time.Duration
	// liveness is how long a container may give no sign of life. It is long because a busy runtime
	// may not get to answer a health check while a model computes.
	liveness time.Duration
	// stall is how long after the last deadline in a batch its answer is still awaited. It doubles each
	// time in a row, since a container may be slow rather than have lost the batch.
	stall time.Duration
}

var defaultTiming = timing{health: 5 * time.Second, liveness: 30 * time.Second, stall: 30 * time.Second}

// maxStallFactor bounds how often stall doubles.
const maxStallFactor = 16

// Replica is one container of a model version. Safe for concurrent use.
type Replica struct {
	cfg     Config
	queue   *queue.Queue
	metrics *metrics.Version
	logger  *slog.Logger
	conn    *grpc.ClientConn
	model   *batching.Model

	ctx    context.Context // ends when the replica is closed
	cancel context.CancelFunc
	pull   context.Context // ends when the replica takes nothing more
	drain  context.CancelFunc
	done   chan struct{} // closed when nothing runs any more

	// Used by one session at a time, and between them:
	warm         bool          // the container that is connected has been warmed up
	warmUpFailed bool          // it could not predict the inputs that were given with the version
	stall        time.Duration // how long an answer is awaited after its deadline, now
	learnedBytes int           // what a message may have at most, learned from refusals; 0 when it is not known

	mu         sync.Mutex
	state      clipperv1.ReplicaState
	message    string
	since      time.Time
	failsAt    time.Time // when not being ready counts as failed
	batching   *clipperv1.Batching
	controller batching.Controller
	limits     containerLimits // what the controller was made for
	session    *session        // the one that is ready, or nil
	warmingUp  bool
}

// containerLimits are a container's own, from its description.
type containerLimits struct{ rows, bytes, inFlight int }

// Start returns a replica that connects by itself, and again whenever the connection is lost. The
// replica has failed for good when the address is no address.
func Start(cfg Config, q *queue.Queue, m *metrics.Version, logger *slog.Logger) *Replica {
	target, secure := cfg.target()
	conn, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(secure),
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(), // A lost batch is retried by the queue, perhaps elsewhere.
		grpc.WithDisableServiceConfig(),
		grpc.WithInitialWindowSize(windowBytes),
		grpc.WithInitialConnWindowSize(windowBytes),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponseBytes)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: minRetryDelay, Multiplier: 2, Jitter: 0.2, MaxDelay: maxRetryDelay}, MinConnectTimeout: describeTimeout}),
	)
	if cfg.StartTimeout <= 0 {
		cfg.StartTimeout = defaultStartTimeout
	}
	if cfg.timing == (timing{}) {
		cfg.timing = defaultTiming
	}
	now := time.Now()
	r := &Replica{
		cfg: cfg, queue: q, metrics: m, conn: conn, model: batching.NewModel(cfg.Prior), done: make(chan struct{}),
		logger: logger.With("replica", cfg.ID, "address", cfg.Address),
		state:  clipperv1.ReplicaState_REPLICA_STATE_STARTING, since: now, failsAt: now.Add(cfg.StartTimeout),
		batching: cfg.Batching, stall: cfg.timing.stall,
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.pull, r.drain = context.WithCancel(r.ctx)
	if err != nil {
		r.state, r.message = clipperv1.ReplicaState_REPLICA_STATE_FAILED, err.Error()
		close(r.done)
		return r
	}
	go r.run()
	return r
}

// target returns what gRPC dials, and how.
func (c Config) target() (string, credentials.TransportCredentials) {
	target, encrypted := strings.CutPrefix(c.Address, "tls://")
	switch {
	case !encrypted:
		return target, insecure.NewCredentials()
	case c.TLS == nil:
		return target, credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	default:
		return target, c.TLS
	}
}

// ID returns the replica's id.
func (r *Replica) ID() string { return r.cfg.ID }

// Status returns what the replica is doing. Restarts is not set.
func (r *Replica) Status() *clipperv1.Replica {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &clipperv1.Replica{
		Id: r.cfg.ID, Address: r.cfg.Address, State: r.state, Message: r.message, StateTime: timestamppb.New(r.since),
	}
}

// State returns what the replica is doing.
func (r *Replica) State() clipperv1.ReplicaState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

// WarmingUp reports whether the container serves and is being warmed up.
func (r *Replica) WarmingUp() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.warmingUp
}

func (r *Replica) setWarmingUp(is bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.warmingUp = is
}

// Learned returns what is known about how long the container takes.
func (r *Replica) Learned() batching.Learned { return r.model.Learned() }

// SetBatching changes how batches are made, from the next one on. What is known about how long the
// container takes is kept; a size that the controller has found by trying is not.
func (r *Replica) SetBatching(b *clipperv1.Batching) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := batching.New(b, r.limits.rows, r.model)
	if err != nil {
		return err
	}
	r.batching, r.controller = b, c
	if r.session != nil {
		r.session.puller.SetLimits(r.pullLimits())
	}
	return nil
}

// Drain takes nothing new and waits until what the container has is answered, or ctx ends; then it
// closes the replica.
func (r *Replica) Drain(ctx context.Context) {
	r.setState(clipperv1.ReplicaState_REPLICA_STATE_DRAINING, "")
	r.drain()
	select {
	case <-r.done:
	case <-ctx.Done():
	}
	r.Close()
}

// Close ends the connection at once. What the container had goes back to the queue.
func (r *Replica) Close() {
	r.cancel()
	<-r.done
}

func (r *Replica) run() {
	defer close(r.done)
	defer func() { _ = r.conn.Close() }()
	delay := minRetryDelay
	for r.pull.Err() == nil {
		lasted, err := r.serve()
		if r.pull.Err() != nil {
			return
		}
		if lasted > steady {
			delay = minRetryDelay
		}
		r.lost(lasted > 0, err)
		select {
		case <-time.After(delay/2 + rand.N(delay)): //nolint:gosec // Only spreads the attempts.
		case <-r.pull.Done():
		}
		delay = min(2*delay, maxRetryDelay)
		r.conn.ResetConnectBackoff()
	}
}

// errNotServing ends a session with a container that takes no more batches.
var errNotServing = errors.New("the container says that it is not serving")

// unacceptableError is a container that will not become right by waiting.
type unacceptableError struct{ error }

// lost notes why the container cannot be used now.
func (r *Replica) lost(served bool, err error) {
	message := causeText(err)
	switch {
	case status.Code(err) == codes.Unavailable: // The connection was lost.
		r.warm, r.stall = false, r.cfg.timing.stall
	case errors.As(err, new(stalledError)):
		r.stall = min(2*r.stall, maxStallFactor*r.cfg.timing.stall)
	}
	state := clipperv1.ReplicaState_REPLICA_STATE_STARTING
	r.mu.Lock()
	if served {
		r.failsAt = time.Now().Add(returnTimeout)
	}
	if time.Now().After(r.failsAt) || errors.As(err, new(unacceptableError)) {
		state = clipperv1.ReplicaState_REPLICA_STATE_FAILED
	}
	r.mu.Unlock()
	if served {
		r.logger.Warn("lost the container, connecting again", "cause", message)
	}
	r.setState(state, message)
}

// setState notes a change. A replica that drains stays so.
func (r *Replica) setState(s clipperv1.ReplicaState, message string) {
	r.mu.Lock()
	if r.state == clipperv1.ReplicaState_REPLICA_STATE_DRAINING || (r.state == s && r.message == message) {
		r.mu.Unlock()
		return
	}
	if r.state != s {
		r.since = time.Now()
	}
	r.state, r.message = s, message
	r.mu.Unlock()
	r.cfg.OnChange()
}

// met notes which limits the container of a session has, and that its batches are observed from now
// on.
func (r *Replica) met(s *session, l containerLimits) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.controller == nil || r.limits.rows != l.rows {
		c, err := batching.New(r.batching, l.rows, r.model)
		if err != nil {
			return err
		}
		r.controller = c
	}
	r.limits = l
	s.maxRows = batching.MaxRows(r.batching, l.rows)
	return nil
}

// ready gives a session its place at the queue, and notes that it takes batches.
func (r *Replica) ready(s *session) {
	r.mu.Lock()
	r.session = s
	s.puller = r.queue.NewPuller(r.cfg.ID, r.pullLimits(), s.begin)
	r.mu.Unlock()
	r.setState(clipperv1.ReplicaState_REPLICA_STATE_READY, "")
}

// learnLimit notes that a container, which has not said so, takes smaller messages than it got: the
// stream ends with that. A batch of several rows is tried again in halves, beginning with the limit
// that gRPC has by itself; a row that is too large alone is refused from then on.
func (r *Replica) learnLimit(cause error, lost []*batch) {
	if status.Code(cause) != codes.ResourceExhausted || !messageTooLarge.MatchString(causeText(cause)) {
		return
	}
	for _, b := range lost {
		largest, sum := 0, 0
		for i := range b.items {
			n := queue.InputBytes(b.items[i].Request.Input)
			largest, sum = max(largest, n), sum+n
		}
		limit := largest - 1
		if len(b.items) > 1 {
			limit = max(largest, min(sum/2, defaultMessageBytes-messageOverhead))
		}
		if r.learnedBytes == 0 || limit < r.learnedBytes {
			r.learnedBytes = limit
			r.logger.Warn("the container takes smaller messages than it got; set max_message_bytes in its description", "bytes_from_now_on", limit)
		}
	}
}

// messageTooLarge matches what the implementations of gRPC say.
var messageTooLarge = regexp.MustCompile(`(?i)larger than max|exceeds (the )?max`)

// pullLimits is what the configuration and the container allow. The lock is held.
func (r *Replica) pullLimits() queue.Limits {
	inFlight := int(r.batching.GetMaxInFlight())
	if inFlight == 0 {
		inFlight = batching.DefaultMaxInFlight
	}
	return queue.Limits{
		Controller: r.controller, Model: r.model,
		Bytes: r.limits.bytes, InFlight: min(inFlight, r.limits.inFlight, batching.MaxInFlight),
		MaxDelay: r.batching.GetMaxDelay().AsDuration(), AutoDelay: r.batching.GetAutoDelay(),
	}
}

// observe learns from a batch that was answered.
func (r *Replica) observe(o batching.Observation) {
	r.mu.Lock()
	c := r.controller
	r.mu.Unlock()
	r.model.Observe(o)
	c.Observe(o)
}
