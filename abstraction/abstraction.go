// SPDX-License-Identifier: Apache-2.0

// Package abstraction is the model abstraction service: it makes models that live in
// containers, of any framework, look alike. It knows which models and versions there
// are, keeps their replicas running, and answers one input for several models at once.
//
// What is wanted is in documents ([catalog]). One loop compares them with what runs:
// a version that is wanted gets a cache, a queue and replicas ([serving]), and each
// replica a goroutine that starts it through a [launcher], connects it, and starts it
// again when it ends. Queries read an immutable table that the loop replaces.
//
// Several instances may share a store. Then each version has a home among them, or several, which all
// of them find alike from the leases of those that live; a query that reaches another instance is
// passed on, once.
package abstraction

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/clipper-serving/clipper/abstraction/cache"
	"github.com/clipper-serving/clipper/abstraction/catalog"
	"github.com/clipper-serving/clipper/abstraction/launcher"
	"github.com/clipper-serving/clipper/abstraction/metrics"
	"github.com/clipper-serving/clipper/abstraction/registry"
	"github.com/clipper-serving/clipper/abstraction/repository"
	"github.com/clipper-serving/clipper/abstraction/serving"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/config"
	"github.com/clipper-serving/clipper/internal/instances"
	"github.com/clipper-serving/clipper/internal/store"
)

// Config is how the service is set up.
type Config struct {
	// CacheSize bounds the predictions that are remembered, inputs included.
	CacheSize config.Bytes `name:"cache-size" default:"256MiB" help:"Memory for remembered predictions (B, KiB, MiB, GiB)."`
	// DrainTimeout is how long a version or replica that is removed may go on with what
	// it has.
	DrainTimeout time.Duration `name:"drain-timeout" default:"10s" help:"Time that a version or replica that is removed has to answer the queries it has."`
	// Registration is the token that replicas must present to register.
	Registration registry.TokenConfig `embed:""`
}

// Deps is what the service needs.
type Deps struct {
	// Store holds the models' documents. The caller closes it, after the service.
	Store store.Documents
	// Launchers start replicas; of several that can start one, the first does. The caller
	// closes them, after the service.
	Launchers []launcher.Launcher
	// Repository keeps models deployed that are in a model repository; nil when there is none.
	Repository *repository.Repository
	// Instance is this instance among several that share the store; nil when it is the only one.
	Instance *Instance
	// Containers is how containers are connected to whose address begins with "tls:"; nil means with
	// TLS that trusts the CAs of the system.
	Containers credentials.TransportCredentials
	// Logger gets what operators should know.
	Logger *slog.Logger
	// Registerer gets the measurements.
	Registerer prometheus.Registerer
}

// Instance is what the instances that share a store need to know of each other.
type Instance struct {
	// Address is where the others reach the exchange of this one.
	Address string
	// Lease is how long the others wait for a sign of life before they take over; at least a second.
	Lease time.Duration
	// TLS is how this one connects to the others; nil means without TLS.
	TLS credentials.TransportCredentials
}

// settleRetry is the time after which the loop tries again what the store refused.
const settleRetry = time.Second

// Service is the model abstraction service. Safe for concurrent use.
type Service struct {
	cfg      Config
	deps     Deps
	log      *slog.Logger
	catalog  *catalog.Catalog
	registry *registry.Registry
	group    *instances.Group // nil for the only instance
	serving  serving.Deps
	backoff  backoff
	restarts *prometheus.CounterVec
	passed   prometheus.Counter // predictions that were asked of another instance

	table   atomic.Pointer[table] // what queries read
	changed chan struct{}         // wakes the loop: a replica's state changed, or a version is gone
	// demanded wakes the autoscaling: a query waits for a version that has no replica.
	demanded chan struct{}

	patience context.Context // its end ends everything that is still in good order
	hurry    context.CancelFunc

	mu       sync.Mutex
	closed   bool
	running  map[name]*version
	closing  map[name]*version
	unusable map[name]error // versions that cannot be run here
	ending   sync.WaitGroup // those in closing
	peers    map[string]*peer
	passing  sync.WaitGroup // queries that other instances are asked

	followers atomic.Int64    // calls that follow logs
	draining  <-chan struct{} // closed when calls that take long are to end
}

// name names a version.
type name struct{ model, version string }

// table is what can be asked.
type table struct {
	synced   bool
	models   map[string]servedModel
	replaced chan struct{} // closed when there is a newer one
}

type servedModel struct {
	current  *route
	versions map[string]*route
}

// New returns a service. It reads the documents from now on, and starts replicas when it
// runs. The caller closes it.
func New(cfg Config, deps Deps) (*Service, error) {
	if i := deps.Instance; i != nil && i.Lease < instances.MinLease {
		return nil, fmt.Errorf("set up the abstraction service: instance-lease is %v: want at least %v", i.Lease, instances.MinLease)
	}
	if err := cfg.Registration.Validate(); err != nil {
		return nil, fmt.Errorf("set up the abstraction service: %w", err)
	}
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
	passed := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "clipper_model_forwarded_predictions_total",
		Help: "Predictions that were asked of another instance, the home of the model version.",
	})
	if err := errors.Join(err, deps.Registerer.Register(restarts), deps.Registerer.Register(remembered), deps.Registerer.Register(passed)); err != nil {
		predictions.Close()
		return nil, fmt.Errorf("set up the abstraction service: %w", err)
	}
	patience, hurry := context.WithCancel(context.Background())
	s := &Service{
		cfg:      cfg,
		deps:     deps,
		log:      deps.Logger,
		catalog:  catalog.Open(deps.Store, deps.Logger),
		registry: registry.Open(deps.Store, deps.Logger),
		serving:  serving.Deps{Cache: predictions, Metrics: measurements, Logger: deps.Logger, TLS: deps.Containers},
		backoff:  defaultBackoff,
		restarts: restarts,
		passed:   passed,
		changed:  make(chan struct{}, 1),
		demanded: make(chan struct{}, 1),
		patience: patience,
		hurry:    hurry,
		running:  map[name]*version{},
		closing:  map[name]*version{},
		unusable: map[name]error{},
		peers:    map[string]*peer{},
	}
	s.table.Store(&table{replaced: make(chan struct{})})
	if i := deps.Instance; i != nil {
		s.group = instances.Join(deps.Store, i.Address, i.Lease, deps.Logger)
		live := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "clipper_abstraction_instances",
			Help: "Instances of the abstraction service that are alive, as this one sees it.",
		}, func() float64 { return float64(len(s.group.Members().Instances)) })
		if err := deps.Registerer.Register(live); err != nil {
			return nil, errors.Join(fmt.Errorf("set up the abstraction service: %w", err), s.Close(context.Background()))
		}
	}
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
	tasks, ctx := errgroup.WithContext(ctx)
	if s.group != nil {
		tasks.Go(func() error { return s.group.Run(ctx) })
	}
	tasks.Go(func() error {
		s.saveLearned(ctx)
		return nil
	})
	tasks.Go(func() error {
		s.autoscale(ctx)
		return nil
	})
	tasks.Go(func() error { return s.run(ctx) })
	if s.deps.Repository != nil {
		tasks.Go(func() error { return s.deps.Repository.Run(ctx, modelService{service: s}) })
	}
	return tasks.Wait()
}

// run is the loop.
func (s *Service) run(ctx context.Context) error {
	failing := false
	for {
		// Taken before they are looked at, so that no change is missed.
		registered, members := s.registry.View().Replaced(), s.membersReplaced()
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
		case <-registered:
		case <-members:
		case <-s.changed:
		case <-retry:
		}
	}
}

func (s *Service) membersReplaced() <-chan struct{} {
	if s.group == nil {
		return nil
	}
	return s.group.Members().Replaced()
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
	o := s.look()
	if s.closed || !view.Synced() || o == nil {
		return view
	}
	s.meet(o)
	wanted := map[name]bool{}
	next := &table{synced: true, models: make(map[string]servedModel, len(view.Models)), replaced: make(chan struct{})}
	for _, m := range view.Models {
		served := servedModel{versions: make(map[string]*route, len(m.Versions))}
		for _, doc := range m.Versions {
			if doc.Deleting {
				continue
			}
			n := name{m.Name, doc.Spec.Version}
			wanted[n] = true
			p := o.place(doc, s.level(n, doc.UID))
			if r := s.route(n, s.keep(n, doc, p), o, p); r != nil {
				served.versions[n.version] = r
			}
		}
		served.current = served.versions[m.Current()]
		next.models[m.Name] = served
	}
	close(s.table.Swap(next).replaced)
	for n, v := range s.running {
		if !wanted[n] {
			s.retire(v)
		}
	}
	maps.DeleteFunc(s.unusable, func(n name, _ error) bool { return !wanted[n] })
	s.part(o)
	s.announce()
	return view
}

// keep returns the version, running as its document and its placement say; or nil when it
// does not run here: it is at home elsewhere, one of the same name is still ending, or it cannot be
// run.
func (s *Service) keep(n name, doc *catalog.Version, p placement) *version {
	v := s.running[n]
	switch {
	case v != nil && v.uid != doc.UID:
		s.retire(v)
		return nil
	case v != nil && p.here != nil:
		v.leavesAt = time.Time{}
		v.update(doc.Spec, *p.here)
		return v
	case v != nil:
		return s.handOver(v, doc, p)
	case p.here == nil:
		delete(s.unusable, n)
		return nil
	case s.closing[n] != nil:
		return nil
	}
	v, err := s.newVersion(n, doc, *p.here)
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

// recentInputs returns inputs that the current version of a model was asked about lately, here.
func (s *Service) recentInputs(model string) [][]*clipperv1.Tensor {
	if current := s.table.Load().models[model].current; current != nil && current.local != nil {
		return current.local.serving.Recent()
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
		s.announce()
		s.mu.Unlock()
		s.wake()
	})
}

// settle writes what follows from what runs: versions that have ended are removed, and
// those that were to become current and are ready do.
func (s *Service) settle(ctx context.Context, view *catalog.View) error {
	o := s.look()
	if o == nil {
		return nil
	}
	var errs []error
	for _, m := range view.Models {
		for _, doc := range m.Versions {
			if !doc.Deleting {
				continue
			}
			v := s.version(name{m.Name, doc.Spec.Version}, doc.UID)
			if v == nil && !o.elsewhere(doc.UID) && o.first(o.place(doc, instances.Absent)) {
				errs = append(errs, s.catalog.Remove(ctx, doc))
			}
		}
		errs = append(errs, s.prune(ctx, m))
		pending := m.Pending()
		if pending == "" {
			continue
		}
		if v := s.version(name{m.Name, pending}, m.Version(pending).UID); v != nil && v.ready() {
			s.log.Info("version becomes current", "model", m.Name, "version", pending)
			errs = append(errs, s.catalog.Promote(ctx, m.Name, pending))
		}
	}
	return errors.Join(append(errs, s.catalog.Settle(ctx, view))...)
}

// prune removes the versions that a model does not keep. Only the home of the current version does so, and
// only when that one can take every query.
func (s *Service) prune(ctx context.Context, m *catalog.Model) error {
	if !m.Surplus() {
		return nil
	}
	current := m.Version(m.Current())
	if v := s.version(name{m.Name, m.Current()}, current.UID); v == nil || !v.ready() {
		return nil
	}
	pruned, err := s.catalog.Prune(ctx, m.Name)
	if err == nil && len(pruned) > 0 {
		s.log.Info("old versions are removed", "model", m.Name, "versions", pruned, "kept", *m.Keep())
	}
	return err
}

// version returns a version that runs or ends here, or nil.
func (s *Service) version(n name, uid string) *version {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range []*version{s.running[n], s.closing[n]} {
		if v != nil && v.uid == uid {
			return v
		}
	}
	return nil
}

// Leave hands over to the other instances what is served here, and returns when they serve it, when
// there is no other, or when ctx ends. Queries are answered meanwhile, and after it. Run must run.
func (s *Service) Leave(ctx context.Context) {
	if s.group == nil {
		return
	}
	s.group.Leave()
	for {
		table, members := s.table.Load(), s.group.Members()
		s.mu.Lock()
		left := len(s.running)
		s.mu.Unlock()
		others := slices.ContainsFunc(members.Instances, func(i instances.Instance) bool {
			return i.Address != s.group.Address() && !i.Leaving
		})
		if left == 0 || !others {
			return
		}
		select {
		case <-table.replaced:
		case <-members.Replaced():
		case <-ctx.Done():
			s.log.Warn("versions are not handed over in time", "versions", left)
			return
		}
	}
}

// Close answers what is under way and stops every replica: in good order until ctx ends,
// and at once from then on. The documents stay, so that the next service goes on where
// this one ended.
func (s *Service) Close(ctx context.Context) error {
	s.catalog.Close()
	s.registry.Close()
	if s.group != nil {
		s.group.Close()
	}
	s.mu.Lock()
	s.closed = true
	var all []*version
	for _, v := range s.running {
		all = append(all, v)
	}
	clear(s.running)
	close(s.table.Swap(&table{replaced: make(chan struct{})}).replaced)
	s.part(&outlook{})
	s.mu.Unlock()

	defer s.hurry()
	defer context.AfterFunc(ctx, s.hurry)()
	var closing sync.WaitGroup
	for _, v := range all {
		closing.Go(func() { v.close(s.patience) })
	}
	closing.Wait()
	s.ending.Wait()
	s.passing.Wait()
	s.serving.Cache.Close()
	return nil
}
