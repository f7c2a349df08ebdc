// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/clipper-serving/clipper/abstraction"
	"github.com/clipper-serving/clipper/abstraction/launcher"
	"github.com/clipper-serving/clipper/abstraction/launcher/docker"
	"github.com/clipper-serving/clipper/abstraction/launcher/kubernetes"
	"github.com/clipper-serving/clipper/abstraction/launcher/process"
	"github.com/clipper-serving/clipper/frontend"
	"github.com/clipper-serving/clipper/frontend/oip"
	"github.com/clipper-serving/clipper/frontend/oip/rest"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/app"
	"github.com/clipper-serving/clipper/internal/auth"
	"github.com/clipper-serving/clipper/internal/auth/audit"
	"github.com/clipper-serving/clipper/internal/exchange"
	"github.com/clipper-serving/clipper/internal/inprocess"
	"github.com/clipper-serving/clipper/internal/keys"
	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/selector"
)

// inProcess returns a connection to services of this process, observed as those behind a socket.
func inProcess(a *app.App) *inprocess.Conn {
	return inprocess.New([]grpc.UnaryServerInterceptor{a.RPC.Unary}, []grpc.StreamServerInterceptor{a.RPC.Stream})
}

// guarded is inProcess for calls from outside.
func guarded(a *app.App, gate *auth.Gate) *inprocess.Conn {
	return inprocess.New(
		[]grpc.UnaryServerInterceptor{a.RPC.Unary, gate.Unary},
		[]grpc.StreamServerInterceptor{a.RPC.Stream, gate.Stream})
}

// service is what the internal listener of a selector or an abstraction service serves.
type service interface {
	Register(grpc.ServiceRegistrar)
	RegisterExchange(r grpc.ServiceRegistrar, draining <-chan struct{})
}

// listen opens the internal listener and the listener for operators.
func listen(a *app.App, name string, cfg app.GRPCConfig, ops app.HTTPConfig) (*app.GRPCServer, error) {
	if _, err := a.HTTP("operations", ops, a.Ops()); err != nil {
		return nil, err
	}
	return a.GRPC(name, cfg, grpc.MaxRecvMsgSize(exchange.MaxReceiveBytes), grpc.MaxSendMsgSize(exchange.MaxReceiveBytes))
}

// register serves a service on the internal listener.
func register(server *app.GRPCServer, s service) {
	s.Register(server)
	s.RegisterExchange(server, server.Draining())
}

// add adds the abstraction service to the app; instance is nil when it is the only one.
func (c *AbstractionConfig) add(ctx context.Context, a *app.App, where *StoreConfig, models *RepositoryConfig, grace time.Duration, instance *abstraction.Instance) (*abstraction.Service, error) {
	state, err := where.open(ctx, a, "abstraction")
	if err != nil {
		return nil, err
	}
	processes, err := process.New(c.Process, a.Log)
	if err != nil {
		return nil, err
	}
	a.Defer("process launcher", processes.Close)
	containers, err := c.containers(a)
	if err != nil {
		return nil, err
	}
	launchers := []launcher.Launcher{processes, containers}
	if c.Launcher != "process" {
		slices.Reverse(launchers)
	}
	repo, err := models.repository(where, a)
	if err != nil {
		return nil, err
	}
	var secure credentials.TransportCredentials
	if c.Container.Enabled() {
		if secure, err = c.Container.Credentials(a.Log.With("calls", "containers")); err != nil {
			return nil, fmt.Errorf("connections to containers: %w", err)
		}
	}
	s, err := abstraction.New(c.Service, abstraction.Deps{
		Store:      state.Documents(),
		Launchers:  launchers,
		Repository: repo,
		Instance:   instance,
		Containers: secure,
		Logger:     a.Log,
		Registerer: a.Registry,
	})
	if err != nil {
		return nil, err
	}
	a.Defer("abstraction", func() error {
		// A little less than the app grants, so that the service itself ends what is late.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace*9/10)
		defer cancel()
		return s.Close(ctx)
	})
	a.Go("abstraction", s.Run)
	a.Leave(s.Leave)
	a.Ready("models", s.Ready)
	return s, nil
}

// containers returns the launcher of images: Kubernetes where that is asked for, or else Docker.
func (c *AbstractionConfig) containers(a *app.App) (launcher.Launcher, error) {
	if c.Launcher == "kubernetes" {
		c.Kubernetes.StopTimeout = c.Process.StopTimeout
		l, err := kubernetes.New(c.Kubernetes, a.Log)
		if err != nil {
			return nil, err
		}
		a.Defer("Kubernetes launcher", l.Close)
		return l, nil
	}
	c.Docker.StopTimeout = c.Process.StopTimeout
	l, err := docker.New(c.Docker, a.Log)
	if err != nil {
		return nil, err
	}
	a.Defer("Docker launcher", l.Close)
	return l, nil
}

// add adds the selector to the app.
func (c *SelectorConfig) add(a *app.App, state store.Store, models selector.Models, modelService clipperv1.ModelServiceClient) (*selector.Service, error) {
	s, err := selector.New(c.Service, selector.Deps{
		Documents:    state.Documents(),
		Sums:         state.Sums(),
		Models:       models,
		ModelService: modelService,
		Logger:       a.Log,
		Registerer:   a.Registry,
	})
	if err != nil {
		return nil, err
	}
	a.Defer("selector", func() error { s.Close(); return nil })
	a.Ready("applications", s.Ready)
	return s, nil
}

// addKeys adds the service that keeps API keys, beside the selector, to the app.
func addKeys(a *app.App, state store.Store, r grpc.ServiceRegistrar, draining <-chan struct{}) {
	s := keys.New(state.Documents(), draining, a.Log)
	a.Defer("keys", func() error { s.Close(); return nil })
	s.Register(r)
}

// add adds a frontend to the app: queries and administration, each over gRPC and REST.
func (c *FrontendConfig) add(a *app.App, version string, applications frontend.Selector, applicationAdmin, modelAdmin grpc.ClientConnInterface) error {
	gate, err := c.gate(a, applicationAdmin)
	if err != nil {
		return err
	}
	guards := []grpc.ServerOption{grpc.ChainUnaryInterceptor(gate.Unary), grpc.ChainStreamInterceptor(gate.Stream)}
	// The connections behind REST; the services are registered on them below.
	query, admin := guarded(a, gate), guarded(a, gate)
	queryREST, err := frontend.NewQueryHandler(c.Service, query)
	if err != nil {
		return err
	}
	adminREST, err := frontend.NewAdminHandler(c.Service, admin)
	if err != nil {
		return err
	}
	if queryREST, err = c.withOIP(queryREST, query, c.Service.QueryOrigins, a.Log); err != nil {
		return err
	}
	if adminREST, err = c.withOIP(adminREST, admin, c.Service.AdminOrigins, a.Log); err != nil {
		return err
	}
	// Added first, it stops last: it tells that the process is stopping.
	paths := withOps(adminREST, gate.Operators(a.Ops()))
	server, err := a.HTTP("administration (REST)", c.AdminHTTP, paths)
	if err != nil {
		return err
	}
	watch, err := frontend.NewWatchHandler(c.Service, admin, a.Registry, server.Draining())
	if err != nil {
		return err
	}
	paths.Handle(frontend.WatchPath, watch)
	adminGRPC, err := a.GRPC("administration", c.AdminGRPC, guards...)
	if err != nil {
		return err
	}
	if _, err := a.HTTP("queries (REST)", c.HTTP, queryREST); err != nil {
		return err
	}
	queryGRPC, err := a.GRPC("queries", c.GRPC, guards...)
	if err != nil {
		return err
	}
	s, err := frontend.New(c.Service, frontend.Deps{
		Selector:     applications,
		Applications: clipperv1.NewApplicationServiceClient(applicationAdmin),
		Models:       clipperv1.NewModelServiceClient(modelAdmin),
		Draining:     queryGRPC.Draining(),
		Logger:       a.Log,
		Registerer:   a.Registry,
	})
	if err != nil {
		return err
	}
	gate.Limiter = s.Limiter
	inference := oip.New(oip.Deps{
		Applications:   s,
		Query:          clipperv1.NewQueryServiceClient(query),
		Admin:          clipperv1.NewModelServiceClient(admin),
		Models:         clipperv1.NewModelServiceClient(modelAdmin),
		Draining:       queryGRPC.Draining(),
		Dialect:        c.Service.OIPDialect,
		StreamInFlight: c.Service.StreamInFlight,
		Version:        version,
	})
	for _, r := range []grpc.ServiceRegistrar{query, queryGRPC} {
		s.RegisterQuery(r)
		inference.RegisterQuery(r)
	}
	for _, r := range []grpc.ServiceRegistrar{admin, adminGRPC} {
		s.RegisterAdmin(r)
		inference.RegisterAdmin(r)
		gate.RegisterKeys(r, applicationAdmin)
	}
	a.Go("frontend", s.Run)
	a.Ready("frontend", s.Ready)
	return nil
}

// withOIP serves the Open Inference Protocol beside an API of ours, by the service on the same connection.
func (c *FrontendConfig) withOIP(api http.Handler, conn grpc.ClientConnInterface, origins []string, log *slog.Logger) (http.Handler, error) {
	handler, err := rest.New(rest.Config{MaxBody: int64(c.Service.MaxBody), BodyTimeout: c.Service.BodyTimeout}, conn, log)
	if err != nil {
		return nil, err
	}
	protocol, err := frontend.Restrict(handler, origins)
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest.Serves(r.URL.Path) {
			protocol.ServeHTTP(w, r)
			return
		}
		api.ServeHTTP(w, r)
	}), nil
}

// gate adds what decides who may call the frontend; keys leads to the service that keeps the keys.
func (c *FrontendConfig) gate(a *app.App, keys grpc.ClientConnInterface) (*auth.Gate, error) {
	audited, err := audit.Open(c.AuditLog, os.Stderr, a.Log)
	if err != nil {
		return nil, err
	}
	a.Defer("audit log", audited.Close)
	a.Go("audit log", audited.Run)
	gate, err := auth.New(c.Auth, auth.Deps{Logger: a.Log, Registerer: a.Registry, Audit: audited})
	if err != nil {
		return nil, err
	}
	for _, loop := range gate.Loops(keys) {
		a.Go(loop.Name, loop.Run)
	}
	a.Ready("keys", gate.Ready)
	return gate, nil
}

// withOps serves the paths for operators beside those of the administration.
func withOps(admin, ops http.Handler) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("/", admin)
	for _, path := range []string{"/metrics", "/healthz", "/readyz", "/debug/pprof/"} {
		mux.Handle(path, ops)
	}
	return mux
}
