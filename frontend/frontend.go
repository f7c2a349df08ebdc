// SPDX-License-Identifier: Apache-2.0

// Package frontend is the edge: it takes queries, feedback and administration from clients, over
// gRPC and over REST, checks them, and passes them to the services that do the work. It keeps
// nothing that must survive, so any number of instances can run side by side.
//
// It knows every application from a snapshot that follows the selector. With it, it checks what
// comes in against the application's signature before anything else sees it, and it answers with
// the application's default output when the selector does not answer.
package frontend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/clipper-serving/clipper/frontend/cors"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/config"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/ratelimit"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// Selector is what the frontend needs of model selection. Its errors are status errors. Safe for
// concurrent use.
type Selector interface {
	// Query answers a query whose input fits the application's signature, at the latest at ctx's
	// deadline or when the application's latency objective is over. The response has no id and is
	// not modified by either side. UNAVAILABLE: the selector cannot be reached.
	Query(ctx context.Context, application, userContext string, in *tensor.Input) (*clipperv1.QueryResponse, error)
	// Predict asks a model itself about one input. What goes wrong with the model is in the prediction.
	// UNAVAILABLE: the selector cannot be reached.
	Predict(ctx context.Context, model *internalv1.ModelReference, in *tensor.Input) (*clipperv1.ModelPrediction, error)
	// Feedback learns from feedback whose inputs have been moved to in, which is nil when there is a
	// feedback_id.
	Feedback(ctx context.Context, feedback *clipperv1.FeedbackRequest, in *tensor.Input) (*clipperv1.FeedbackResponse, error)
	// WatchApplications calls update with all applications at once and again after each change. It
	// returns when ctx is done or when the applications can no longer be followed.
	WatchApplications(ctx context.Context, update func([]*clipperv1.Application)) error
}

// Config is the configuration of a frontend.
type Config struct {
	MaxBody          config.Bytes  `default:"16MiB" help:"Largest body of a REST request (B, KiB, MiB, GiB)."`
	BodyTimeout      time.Duration `default:"30s" help:"Time that a REST client has to send a body."`
	QueryOrigins     []string      `help:"Origins of web pages that may call the REST API for queries, as https://app.example.com; * is any. By default, only its own page may."`
	AdminOrigins     []string      `help:"Origins of web pages that may call the REST API for administration, as https://app.example.com; * is any. By default, only its own page may."`
	WatchMetrics     []string      `help:"Addresses of the metrics of other processes, for live views, as http://10.0.0.5:1368/metrics; those of this process are read in any case."`
	MaxInput         config.Bytes  `default:"16MiB" help:"Largest input of one query, as sent (B, KiB, MiB, GiB)."`
	MaxElements      int64         `default:"4194304" help:"Most elements in the input of one query."`
	BatchConcurrency int           `default:"1024" help:"Most queries or feedbacks of one batch in flight at once."`
	StreamInFlight   int           `default:"1024" help:"Most queries or feedbacks of one stream in flight at once; more wait in the client."`
	FeedbackTimeout  time.Duration `default:"10s" help:"Longest time to wait for feedback to be stored."`
	OIPDialect       string        `name:"oip-dialect" enum:"triton,mlserver" default:"triton" help:"Dialect of the Open Inference Protocol for calls that choose none: triton or mlserver."`
}

// Validate reports the first setting that cannot be used.
func (c Config) Validate() error {
	switch {
	case c.MaxBody <= 0:
		return fmt.Errorf("max-body is %s: want more than nothing", c.MaxBody)
	case c.BodyTimeout <= 0:
		return fmt.Errorf("body-timeout is %s: want more than 0s", c.BodyTimeout)
	case c.MaxInput <= 0:
		return fmt.Errorf("max-input is %s: want more than nothing", c.MaxInput)
	case c.MaxElements <= 0:
		return fmt.Errorf("max-elements is %d: want at least 1", c.MaxElements)
	case c.BatchConcurrency <= 0:
		return fmt.Errorf("batch-concurrency is %d: want at least 1", c.BatchConcurrency)
	case c.StreamInFlight <= 0:
		return fmt.Errorf("stream-in-flight is %d: want at least 1", c.StreamInFlight)
	case c.FeedbackTimeout <= 0:
		return fmt.Errorf("feedback-timeout is %s: want more than 0s", c.FeedbackTimeout)
	}
	for _, origins := range [][]string{c.QueryOrigins, c.AdminOrigins} {
		if _, err := cors.New(origins); err != nil {
			return err
		}
	}
	return nil
}

// Deps is what a frontend works with. All but Draining are required.
type Deps struct {
	Selector     Selector
	Applications clipperv1.ApplicationServiceClient
	Models       clipperv1.ModelServiceClient
	// Draining is closed when open streams are to end.
	Draining   <-chan struct{}
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Service is a frontend. Safe for concurrent use.
type Service struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	metrics *metrics
	apps    atomic.Pointer[snapshot] // Nil until the selector has sent one.
	linked  atomic.Bool              // Whether the snapshot follows the selector now.
}

// New returns a frontend, which knows applications once Run runs.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure frontend: %w", err)
	}
	m, err := newMetrics(deps.Registerer)
	if err != nil {
		return nil, err
	}
	return &Service{cfg: cfg, deps: deps, log: deps.Logger.With("component", "frontend"), metrics: m}, nil
}

// RegisterQuery registers the services for queries and feedback.
func (s *Service) RegisterQuery(r grpc.ServiceRegistrar) {
	clipperv1.RegisterQueryServiceServer(r, queryServer{s: s})
	clipperv1.RegisterFeedbackServiceServer(r, feedbackServer{s: s})
}

// RegisterAdmin registers the services for administration.
func (s *Service) RegisterAdmin(r grpc.ServiceRegistrar) {
	clipperv1.RegisterApplicationServiceServer(r, applicationServer{s: s})
	clipperv1.RegisterModelServiceServer(r, modelServer{s: s})
}

// Ready returns nil when the frontend knows the applications.
func (s *Service) Ready(context.Context) error {
	if s.apps.Load() == nil {
		return errors.New("the selector has not sent its applications yet")
	}
	return nil
}

// The wait before the applications are watched again doubles from minBackoff to maxBackoff.
const (
	minBackoff = 20 * time.Millisecond
	maxBackoff = 2 * time.Second
)

// Run follows the applications until ctx is done. It is to be called once.
func (s *Service) Run(ctx context.Context) error {
	backoff := minBackoff
	for {
		err := s.deps.Selector.WatchApplications(ctx, func(list []*clipperv1.Application) {
			backoff = minBackoff
			if !s.linked.Swap(true) {
				s.log.Info("following the selector", "applications", len(list))
			}
			s.update(list)
		})
		if s.linked.Swap(false) && ctx.Err() == nil {
			s.log.Warn("lost the selector; applications stay as they are", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(backoff/2 + rand.N(backoff)):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// update replaces the snapshot.
func (s *Service) update(list []*clipperv1.Application) {
	previous := s.apps.Load()
	next := &snapshot{apps: make(map[string]*application, len(list)), changed: make(chan struct{})}
	for _, a := range list {
		var limiter *ratelimit.Limiter
		if previous != nil && previous.apps[a.GetName()] != nil {
			known := previous.apps[a.GetName()]
			if a.GetEtag() != "" && known.etag == a.GetEtag() {
				next.apps[known.name] = known
				continue
			}
			limiter = known.limiter
		}
		app := newApplication(a, s.metrics)
		app.limiter = ratelimit.New(a.GetLimits(), limiter)
		if app.defaults == nil {
			s.log.Error("the application's default output does not fit its output; it is left empty", "application", a.GetName())
		}
		next.apps[a.GetName()] = app
	}
	s.apps.Store(next)
	if previous != nil {
		for name := range previous.apps {
			if next.apps[name] == nil {
				s.metrics.forget(name)
			}
		}
		close(previous.changed)
	}
}
