// SPDX-License-Identifier: Apache-2.0

// Package abstraction is the model abstraction service: it makes models that live in
// containers, of any framework, look alike. It knows which models and versions there
// are, keeps their replicas running, and answers one input for several models at once.
//
// What is wanted is in documents ([catalog]). One loop compares them with what runs:
// a version that is wanted gets a cache, a queue and replicas ([serving]), and each
// replica a goroutine that starts it through a [launcher], connects it, and starts it
// again when it ends. Queries read an immutable table that the loop replaces.
package abstraction

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/clipper-serving/clipper/abstraction/cache"
	"github.com/clipper-serving/clipper/abstraction/catalog"
	"github.com/clipper-serving/clipper/abstraction/launcher"
	"github.com/clipper-serving/clipper/abstraction/metrics"
	"github.com/clipper-serving/clipper/abstraction/serving"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/config"
	"github.com/clipper-serving/clipper/internal/store"
)

// Config is how the service is set up.
type Config struct {
	// CacheSize bounds the predictions that are remembered, inputs included.
	CacheSize config.Bytes `name:"cache-size" default:"256MiB" help:"Memory for remembered predictions (B, KiB, MiB, GiB)."`
	// DrainTimeout is how long a version or replica that is removed may go on with what
	// it has.
	DrainTimeout time.Duration `name:"drain-timeout" default:"10s" help:"Time that a version or replica that is removed has to answer the queries it has."`
}

// Deps is what the service needs.
type Deps struct {
	// Store holds the models' documents. The caller closes it, after the service.
	Store store.Documents
	// Launchers start replicas; of several that can start one, the first does. The caller
	// closes them, after the service.
	Launchers []launcher.Launcher
	// Logger gets what operators should know.
	Logger *slog.Logger
	// Registerer gets the measurements.
	Registerer prometheus.Registerer
}

// settleRetry is the time after which the loop tries again what the store refused.
const settleRetry = time.Second

// Service is the model abstraction service. Safe for concurrent use.
type Service struct {
	cfg      Config
	deps     Deps
	log      *slog.Logger
	catalog  *catalog.Catalog
	serving  serving.Deps
	backoff  backoff
	restarts *prometheus.CounterVec

	table   atomic.Pointer[table] // what queries read
	changed chan struct{}         // wakes the loop: a replica's state changed, or a version is gone

	patience context.Context // its end ends everything that is still in good order
	hurry    context.CancelFunc

	mu       sync.Mutex
	closed   bool
	running  map[name]*version
	closing  map[name]*version
	unusable map[name]error // versions that cannot be run here
	ending   sync.WaitGroup // those in closing
}

// name names a version.
type name struct{ model, version string }

// table is what can be asked.
type table struct {
	synced bool
	models map[string]servedModel
}

type servedModel struct {
	current  *version
	versions map[string]*version
}

// New returns a service. It reads the documents from now on, and starts replicas when it
// runs. The caller closes it.
func New(cfg Config, deps Deps) (*Service, error) {
	predictions, err := cache.New(int64(cfg.CacheSize))
	if err != nil {
		return nil, fmt.Errorf("set up the abstraction service: %w", err)
	}
	measurements, err := metrics.New(deps.Registerer)
	restarts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "clipper_model_replica_restarts_total",
		Help: "Replicas that were started again.",
	}, []string{"model", "version"})
	remembered := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "clipper_cache_bytes",
		Help: "Memory of the predictions that are remembered.",
	}, func() float64 { return float64(predictions.Bytes()) })
	if err := errors.Join(err, deps.Registerer.Register(restarts), deps.Registerer.Register(remembered)); err != nil {
		predictions.Close()
		return nil, fmt.Errorf("set up the abstraction service: %w", err)
	}
	patience, hurry := context.WithCancel(context.Background())
	s := &Service{
		cfg:      cfg,
		deps:     deps,
		log:      deps.Logger,
		catalog:  catalog.Open(deps.Store, deps.Logger),
		serving:  serving.Deps{Cache: predictions, Metrics: measurements, Logger: deps.Logger},
		backoff:  defaultBackoff,
		restarts: restarts,
		changed:  make(chan struct{}, 1),
		patience: patience,
		hurry:    hurry,
		running:  map[name]*version{},
		closing:  map[name]*version{},
		unusable: map[name]error{},
	}
	s.table.Store(&table{})
	return s, nil
}

// Register adds the model administration to a server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	clipperv1.RegisterModelServiceServer(r, modelService{service: s})
}

// Ready returns nil when the documents have been read, so that models are known.
func (s *Service) Ready(context.Context) error {
	if !s.table.Load().synced {
		return errors.New("the models are not known yet: the store has not been read")
	}
	return nil
}

// Run keeps what runs like the documents until ctx ends. What runs then goes on until
// Close.
func (s *Service) Run(ctx context.Context) error {
	var saving sync.WaitGroup
	saving.Go(func() { s.saveLearned(ctx) })
	defer saving.Wait()
	failing := false
	for {
		view := s.apply()
		err := s.settle(ctx, view)
		if err != nil && !failing && ctx.Err() == nil {
			s.log.Warn("documents of models cannot be changed, still trying", "error", err)
		}
		failing = err != nil
		var retry <-chan time.Time
		if failing {
			retry = time.After(settleRetry)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-view.Replaced():
		case <-s.changed:
		case <-retry:
		}
	}
}

// wake makes the loop look again.
func (s *Service) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// apply makes what runs like the documents, as they were last read, and returns them. It
// does not wait for anything.
func (s *Service) apply() *catalog.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	view := s.catalog.View()
	if s.closed || !view.Synced() {
		return view
	}
	wanted := map[name]bool{}
	next := &table{synced: true, models: make(map[string]servedModel, len(view.Models))}
	for _, m := range view.Models {
		served := servedModel{versions: make(map[string]*version, len(m.Versions))}
		for _, doc := range m.Versions {
			if doc.Deleting {
				continue
			}
			n := name{m.Name, doc.Spec.Version}
			wanted[n] = true
			if v := s.run(n, doc); v != nil {
				served.versions[n.version] = v
			}
		}
		served.current = served.versions[m.Current()]
		next.models[m.Name] = served
	}
	s.table.Store(next)
	for n, v := range s.running {
		if !wanted[n] {
			s.retire(v)
		}
	}
	maps.DeleteFunc(s.unusable, func(n name, _ error) bool { return !wanted[n] })
	return view
}

// run returns the version, running as its document says; or nil while one of the same
// name is still ending, and when it cannot be run.
func (s *Service) run(n name, doc *catalog.Version) *version {
	v := s.running[n]
	switch {
	case v != nil && v.uid == doc.UID:
		v.update(doc.Spec)
		return v
	case v != nil:
		s.retire(v)
		return nil
	case s.closing[n] != nil:
		return nil
	}
	v, err := s.newVersion(n, doc)
	if err != nil {
		if s.unusable[n] == nil {
			s.log.Error("version cannot be run", "model", n.model, "version", n.version, "error", err)
		}
		s.unusable[n] = err
		return nil
	}
	delete(s.unusable, n)
	s.running[n] = v
	return v
}

// recentInputs returns inputs that the current version of a model was asked about lately.
func (s *Service) recentInputs(model string) [][]*clipperv1.Tensor {
	if current := s.table.Load().models[model].current; current != nil {
		return current.serving.Recent()
	}
	return nil
}

// retire ends a version in the background.
func (s *Service) retire(v *version) {
	delete(s.running, v.name)
	s.closing[v.name] = v
	s.ending.Go(func() {
		ctx, cancel := context.WithTimeout(s.patience, s.cfg.DrainTimeout)
		defer cancel()
		v.close(ctx)
		s.restarts.DeleteLabelValues(v.name.model, v.name.version)
		s.mu.Lock()
		delete(s.closing, v.name)
		s.mu.Unlock()
		s.wake()
	})
}

// settle writes what follows from what runs: versions that have ended are removed, and
// those that were to become current and are ready do.
func (s *Service) settle(ctx context.Context, view *catalog.View) error {
	var errs []error
	for _, m := range view.Models {
		for _, doc := range m.Versions {
			if !doc.Deleting {
				continue
			}
			if v, _ := s.version(name{m.Name, doc.Spec.Version}, doc.UID); v == nil {
				errs = append(errs, s.catalog.Remove(ctx, doc))
			}
		}
		pending := m.Pending()
		if pending == "" {
			continue
		}
		if v, _ := s.version(name{m.Name, pending}, m.Version(pending).UID); v != nil && v.ready() {
			s.log.Info("version becomes current", "model", m.Name, "version", pending)
			errs = append(errs, s.catalog.Promote(ctx, m.Name, pending))
		}
	}
	return errors.Join(append(errs, s.catalog.Settle(ctx, view))...)
}

// version returns a version that runs or ends, or nil and perhaps why it cannot be run.
func (s *Service) version(n name, uid string) (*version, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range []*version{s.running[n], s.closing[n]} {
		if v != nil && v.uid == uid {
			return v, nil
		}
	}
	return nil, s.unusable[n]
}

// Close answers what is under way and stops every replica: in good order until ctx ends,
// and at once from then on. The documents stay, so that the next service goes on where
// this one ended.
func (s *Service) Close(ctx context.Context) error {
	s.catalog.Close()
	s.mu.Lock()
	s.closed = true
	var all []*version
	for _, v := range s.running {
		all = append(all, v)
	}
	clear(s.running)
	s.table.Store(&table{})
	s.mu.Unlock()

	defer s.hurry()
	defer context.AfterFunc(ctx, s.hurry)()
	var closing sync.WaitGroup
	for _, v := range all {
		closing.Go(func() { v.close(s.patience) })
	}
	closing.Wait()
	s.ending.Wait()
	s.serving.Cache.Close()
	return nil
}
