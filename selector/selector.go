// SPDX-License-Identifier: Apache-2.0

// Package selector is the model selection service: it decides which models to ask, makes one answer
// of what they say by the deadline, says how far the answer can be trusted, and learns from feedback.
//
// Applications are documents, of which every instance has a snapshot ([store.Follow]). What was
// learned is in sums, one key for an application's shared state and one for each context; queries
// read it through a bounded local copy, and feedback only ever adds to it. How policies choose and
// learn is in package policy and below. The service keeps nothing else, so there may be any number of
// instances on one store.
package selector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/config"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/internal/store/journal"
	"github.com/clipper-serving/clipper/internal/tensor"
	"github.com/clipper-serving/clipper/selector/custom"
	"github.com/clipper-serving/clipper/selector/decisionlog"
	"github.com/clipper-serving/clipper/selector/token"
)

// Models is the way to the models. Safe for concurrent use.
type Models interface {
	// Predict asks several models about one input and returns one entry for each, in their order,
	// when all have answered or at ctx's deadline at the latest. The entries may be shared: they are not
	// modified. What comes after the deadline, or is wanted by package keep, can be recalled.
	Predict(ctx context.Context, models []*internalv1.ModelReference, in *tensor.Input) ([]*clipperv1.ModelPrediction, error)

	// Recall returns what the models are remembered to have said about the input with a hash, big-endian
	// as tensor.Input has it: one entry for each, in their order, without a status when nothing is
	// remembered. It computes nothing, and returns at ctx's deadline at the latest.
	Recall(ctx context.Context, models []*internalv1.ModelReference, hash [16]byte) ([]*clipperv1.ModelPrediction, error)
}

// Config is how the service is set up. Zero values mean the defaults.
type Config struct {
	// CachedContexts bounds the contexts whose state is kept in memory.
	CachedContexts int `name:"cached-contexts" default:"100000" help:"Contexts (users, sessions, devices) whose selection state is kept in memory."`
	// StateRefresh is the age at which a state in memory is read again, in the background. It is how
	// late this instance sees what others learned.
	StateRefresh time.Duration `name:"state-refresh" default:"1s" help:"Age at which a selection state in memory is read again from the store."`
	// StateWait is how long the first query of a context may wait for its state; after that it is
	// answered from the shared state. It is never more than a quarter of the query's time.
	StateWait time.Duration `name:"state-wait" default:"5ms" help:"Longest time that the first query of a context waits for its selection state."`
	// AnswerMargin is how long before the deadline an answer is made, so that it leaves in time. It is
	// never more than a tenth of the query's time.
	AnswerMargin time.Duration `name:"answer-margin" default:"1ms" help:"Time before a query's deadline at which its answer is made of what has arrived."`
	// FeedbackWait is how long feedback waits for the store. It is never more than three quarters of the
	// caller's time.
	FeedbackWait time.Duration `name:"feedback-wait" default:"2s" help:"Longest time that feedback waits for the store; after that it is buffered, or refused."`
	// FeedbackBuffer is the folder of the feedback that the store has still to get; empty means that
	// feedback is refused while the store is away.
	FeedbackBuffer string `name:"feedback-buffer" placeholder:"DIR" help:"Directory where feedback is kept while the store cannot be reached, one for each selector. Default: such feedback is refused."`
	// FeedbackBufferSize bounds its files.
	FeedbackBufferSize config.Bytes `name:"feedback-buffer-size" default:"256MiB" help:"Largest size of the feedback buffer (B, KiB, MiB, GiB)."`
	// RecallWait is how long a feedback may wait for what models said that were late.
	RecallWait time.Duration `name:"recall-wait" default:"5ms" help:"Longest time that a feedback waits for the predictions of models that were late for the answer."`
	// RecentDecisions bounds the decisions of each application that are kept in memory to be explained.
	RecentDecisions int `name:"recent-decisions" default:"256" help:"Latest decisions of each application that are kept in memory to be explained."`
	// DecisionLog is the log of the applications that want one.
	DecisionLog decisionlog.Config `embed:"" prefix:"decision-log-"`
	// PolicyHosts are where custom policies may be besides this machine.
	PolicyHosts []string `name:"policy-hosts" placeholder:"HOST" help:"Hosts at which applications may have custom policies, besides this machine; * for any. What is sent there is not encrypted."`
}

// Deps is what the service needs.
type Deps struct {
	// Documents holds the applications and the key of the feedback_ids. The caller closes its store
	// after the service.
	Documents store.Documents
	// Sums holds what is learned.
	Sums store.Sums
	// Models answers queries.
	Models Models
	// ModelService knows the models' signatures.
	ModelService clipperv1.ModelServiceClient
	// Logger gets what operators should know.
	Logger *slog.Logger
	// Registerer gets the measurements.
	Registerer prometheus.Registerer
}

const (
	// feedbackTimeout bounds a feedback whose caller gave no deadline.
	feedbackTimeout = 10 * time.Second
	// keyRetry is how long the service waits before it asks the store again for the feedback key.
	keyRetry = 250 * time.Millisecond
	// storeTimeout bounds a read of the store in the background.
	storeTimeout = 5 * time.Second
)

// feedbackKey is the document with the keys of the feedback_ids.
const feedbackKey = "secrets/feedback-key"

// Service is the model selection service. Safe for concurrent use.
type Service struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	metrics *metrics
	apps    *store.Follower[*application]
	states  *otter.Cache[stateID, *stateCopy]
	customs *custom.Policies
	random  *rand.Rand
	scratch sync.Pool
	recent  recents

	canaries    *canaries
	decisionLog *decisionlog.Log // nil without a directory
	together    together
	sealer      atomic.Pointer[token.Sealer]
	outage      *outage
	buffer      *buffer // nil when feedback is not buffered

	ctx        context.Context // ends with Close
	stop       context.CancelFunc
	background sync.WaitGroup
	loads      chan struct{} // bounds the reads in the background
}

// globalSource makes a rand.Rand that is safe for concurrent use: the source is, and it is all the
// state there is.
type globalSource struct{}

// Uint64 implements rand.Source.
func (globalSource) Uint64() uint64 { return rand.Uint64() }

// New returns a service, which reads the store from now on, and goes on trying when that is not
// there yet. The caller closes it.
func New(cfg Config, deps Deps) (*Service, error) {
	cfg = Config{
		CachedContexts: cmp.Or(cfg.CachedContexts, 100000),
		StateRefresh:   cmp.Or(cfg.StateRefresh, time.Second),
		StateWait:      cmp.Or(cfg.StateWait, 5*time.Millisecond),
		AnswerMargin:   cmp.Or(cfg.AnswerMargin, time.Millisecond),
		RecallWait:     cmp.Or(cfg.RecallWait, 5*time.Millisecond),

		FeedbackWait:       cmp.Or(cfg.FeedbackWait, 2*time.Second),
		FeedbackBuffer:     cfg.FeedbackBuffer,
		FeedbackBufferSize: cmp.Or(cfg.FeedbackBufferSize, 256*config.MiB),

		RecentDecisions: cmp.Or(cfg.RecentDecisions, 256),
		DecisionLog:     cfg.DecisionLog,
		PolicyHosts:     cfg.PolicyHosts,
	}
	if cfg.RecentDecisions < 0 {
		return nil, errors.New("set up the selector: recent-decisions must not be negative")
	}
	if min(cfg.StateRefresh, cfg.StateWait, cfg.AnswerMargin, cfg.RecallWait, cfg.FeedbackWait) < 0 || cfg.CachedContexts < 0 {
		return nil, errors.New("set up the selector: cached-contexts, state-refresh, state-wait, answer-margin, recall-wait and feedback-wait must not be negative")
	}
	states, err := otter.New(&otter.Options[stateID, *stateCopy]{MaximumSize: cfg.CachedContexts})
	if err != nil {
		return nil, fmt.Errorf("set up the selector: %w", err)
	}
	measurements, err := newMetrics(deps.Registerer, states)
	if err != nil {
		return nil, fmt.Errorf("set up the selector: %w", err)
	}
	customs, err := custom.New(deps.Registerer, deps.Logger)
	if err != nil {
		return nil, fmt.Errorf("set up the selector: %w", err)
	}
	s := &Service{
		cfg:     cfg,
		deps:    deps,
		log:     deps.Logger,
		metrics: measurements,
		states:  states,
		customs: customs,
		random:  rand.New(globalSource{}),
		scratch: sync.Pool{New: func() any { return new(scratch) }},
		recent:  recents{size: cfg.RecentDecisions, all: map[string]*recent{}},
		loads:   make(chan struct{}, 64),
		outage:  newOutage(),

		canaries: newCanaries(),
	}
	if err := s.openBuffer(); err != nil {
		return nil, fmt.Errorf("set up the selector: %w", err)
	}
	if cfg.DecisionLog.Dir != "" {
		if s.decisionLog, err = decisionlog.Open(cfg.DecisionLog, deps.Logger, deps.Registerer); err != nil {
			return nil, fmt.Errorf("set up the selector: %w", err)
		}
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.apps = store.Follow(deps.Documents, documents, s.decode, store.FollowConfig{Log: deps.Logger})
	s.background.Go(s.findKey)
	s.background.Go(s.forgetDeleted)
	s.background.Go(s.heal)
	s.background.Go(s.addTogether)
	s.background.Go(s.runCanaries)
	return s, nil
}

// Close stops what runs in the background. Calls that are under way go on, and later ones fail.
func (s *Service) Close() {
	s.stop()
	s.apps.Close()
	s.background.Wait()
	s.customs.Close()
	s.states.StopAllGoroutines()
	s.closeBuffer()
	if s.decisionLog != nil {
		s.decisionLog.Close()
	}
}

// Register adds the administration of applications, and what frontends need to know of them, to a
// server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	clipperv1.RegisterApplicationServiceServer(r, applicationService{service: s})
	internalv1.RegisterSelectorServiceServer(r, selectorService{service: s})
}

// Ready returns nil when the store has been read, so that queries can be answered.
func (s *Service) Ready(context.Context) error {
	if !s.apps.Snapshot().Synced() || s.sealer.Load() == nil {
		return errors.New("the store has not been read yet")
	}
	return nil
}

// findKey reads the key of the feedback_ids, or makes it: whoever is first.
func (s *Service) findKey() {
	failing := false
	for {
		sealer, err := s.readKey()
		if err == nil {
			s.sealer.Store(sealer)
			return
		}
		if !failing && s.ctx.Err() == nil {
			s.log.Warn("the feedback key cannot be read, still trying", "error", err)
			failing = true
		}
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(keyRetry):
		}
	}
}

func (s *Service) readKey() (*token.Sealer, error) {
	ctx, cancel := context.WithTimeout(s.ctx, storeTimeout)
	defer cancel()
	for {
		document, err := s.deps.Documents.Get(ctx, feedbackKey)
		if err == nil {
			return token.NewSealer(document.Value)
		}
		if !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
		if _, err := s.deps.Documents.Put(ctx, feedbackKey, token.NewKeyring(), 0); err != nil && !errors.Is(err, store.ErrConflict) {
			return nil, err
		}
	}
}

// forgetDeleted removes the measurements of applications that are gone, and the connections to their policies.
func (s *Service) forgetDeleted() {
	known := map[string]bool{}
	for {
		snapshot := s.apps.Snapshot()
		now := make(map[string]bool, snapshot.Len())
		customs := map[string]string{}
		for entry := range snapshot.All() {
			now[entry.Value.name] = true
			if entry.Value.remote != nil {
				customs[entry.Value.name] = entry.Value.proto.Policy.Address
			}
		}
		s.customs.Retain(customs)
		for name := range known {
			if !now[name] {
				s.metrics.forget(name)
				s.recent.forget(name)
			}
		}
		known = now
		select {
		case <-s.ctx.Done():
			return
		case <-snapshot.Replaced():
		}
	}
}

// application returns an application of the snapshot.
func (s *Service) application(name string) (*application, error) {
	snapshot := s.apps.Snapshot()
	if entry, ok := snapshot.Get(documents + name); ok {
		return entry.Value, nil
	}
	if !snapshot.Synced() {
		return nil, errStoreUnread()
	}
	return nil, errNotFound(name)
}

func errNotFound(name string) error {
	return apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, "application", "application: there is no application %q", name)
}

func errStoreUnread() error {
	return apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, "", "the selector has not read its store yet; try again")
}

func errStopped() error {
	return apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "", "the selector is stopping")
}

// storeError says to a caller what an error of the store means.
func (s *Service) storeError(ctx context.Context, doing string, err error) error {
	switch {
	case ctx.Err() != nil:
		return apierror.From(ctx.Err())
	case errors.Is(err, journal.ErrFull):
		return apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, "", "the store cannot be reached now and the feedback buffer is full; try again later")
	case errors.Is(err, store.ErrUnavailable):
		return apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, "", "the store cannot be reached now; try again")
	}
	if _, ok := status.FromError(err); ok {
		return err // It was not the store's.
	}
	s.log.Error("store refused", "doing", doing, "error", err)
	return apierror.From(err)
}
