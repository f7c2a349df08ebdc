// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/clipper-serving/clipper/abstraction"
	"github.com/clipper-serving/clipper/abstraction/launcher/docker"
	"github.com/clipper-serving/clipper/abstraction/launcher/kubernetes"
	"github.com/clipper-serving/clipper/abstraction/launcher/process"
	"github.com/clipper-serving/clipper/frontend"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/app"
	"github.com/clipper-serving/clipper/internal/auth"
	"github.com/clipper-serving/clipper/internal/certs"
	"github.com/clipper-serving/clipper/internal/instances"
	"github.com/clipper-serving/clipper/selector"
)

// FrontendConfig is what a frontend needs, wherever the other services are.
type FrontendConfig struct {
	HTTP      app.HTTPConfig  `embed:"" prefix:"http-" set:"listen=127.0.0.1:1337"`
	GRPC      app.GRPCConfig  `embed:"" prefix:"grpc-" set:"listen=127.0.0.1:1347"`
	AdminHTTP app.HTTPConfig  `embed:"" prefix:"admin-http-" set:"listen=127.0.0.1:1338"`
	AdminGRPC app.GRPCConfig  `embed:"" prefix:"admin-grpc-" set:"listen=127.0.0.1:1348"`
	Service   frontend.Config `embed:""`
	Auth      auth.Config     `embed:"" prefix:"auth-"`
	AuditLog  string          `placeholder:"FILE" help:"Write each call of administration that changes something to this file, or to stderr: who, what, when, with which outcome. The file is opened again at SIGHUP."`
}

// SelectorConfig is what a selector needs, wherever the other services are.
type SelectorConfig struct {
	Service selector.Config `embed:""`
}

// AbstractionConfig is what an abstraction service needs.
type AbstractionConfig struct {
	Service abstraction.Config `embed:""`
	// Launcher runs images and the saved models of frameworks. Commands are processes.
	Launcher   string            `enum:"process,docker,kubernetes" default:"process" help:"What runs models: process; docker, each replica in a container of its own; or kubernetes, each in a pod. Commands always run as processes; images run in Docker, with kubernetes in pods."`
	Container  certs.Client      `embed:"" prefix:"container-" envprefix:"CLIPPER_ABSTRACTION_CONTAINER_"`
	Process    process.Config    `embed:""`
	Docker     docker.Config     `embed:"" prefix:"docker-"`
	Kubernetes kubernetes.Config `embed:"" prefix:"kubernetes-"`
}

// Up runs all services in one process. They call each other directly.
type Up struct {
	Common
	StoreConfig
	Frontend    FrontendConfig    `embed:"" prefix:"frontend-"`
	Selector    SelectorConfig    `embed:"" prefix:"selector-"`
	Abstraction AbstractionConfig `embed:"" prefix:"abstraction-"`
	RepositoryConfig
}

// Run runs the command.
func (c *Up) Run(p *Process) error {
	return c.run(p, "clipper", func(a *app.App) error {
		models, err := c.Abstraction.add(p.ctx, a, &c.StoreConfig, &c.RepositoryConfig, c.Shutdown.Grace, nil)
		if err != nil {
			return err
		}
		modelAdmin := inProcess(a)
		models.Register(modelAdmin)

		state, err := c.open(p.ctx, a, "selector")
		if err != nil {
			return err
		}
		if log := &c.Selector.Service.DecisionLog; log.Dir == "" {
			log.Dir = filepath.Join(c.DataDir, "decisions")
		}
		applications, err := c.Selector.add(a, state, models, clipperv1.NewModelServiceClient(modelAdmin))
		if err != nil {
			return err
		}
		applicationAdmin := inProcess(a)
		applications.Register(applicationAdmin)
		addKeys(a, state, applicationAdmin, nil)
		return c.Frontend.add(a, p.build.Version, applications, applicationAdmin, modelAdmin)
	})
}

// Frontend runs a frontend.
type Frontend struct {
	Common
	FrontendConfig
	Services    certs.Client `embed:"" prefix:"services-" envprefix:"CLIPPER_SERVICES_"`
	Selector    []string     `default:"127.0.0.1:1357" help:"Address of the selector (gRPC); of several, those that are alive are used."`
	Abstraction []string     `default:"127.0.0.1:1367" help:"Address of the abstraction service (gRPC), for administration; of several instances, one that is alive is used."`
}

// Run runs the command.
func (c *Frontend) Run(p *Process) error {
	return c.run(p, "frontend", func(a *app.App) error {
		applicationAdmin, _, err := dial(a, "selector", c.Selector, c.Services)
		if err != nil {
			return err
		}
		modelAdmin, _, err := dial(a, "abstraction service", c.Abstraction, c.Services)
		if err != nil {
			return err
		}
		remote := frontend.NewRemoteSelector(applicationAdmin, a.Log)
		a.Go("link to the selector", remote.Run)
		a.Ready("selector", remote.Reachable)
		return c.add(a, p.build.Version, remote, applicationAdmin, modelAdmin)
	})
}

// Selector runs a selector.
type Selector struct {
	Common
	StoreConfig
	SelectorConfig
	GRPC        app.GRPCConfig `embed:"" prefix:"grpc-" set:"listen=127.0.0.1:1357"`
	Ops         app.HTTPConfig `embed:"" prefix:"ops-" set:"listen=127.0.0.1:1358"`
	Services    certs.Client   `embed:"" prefix:"services-" envprefix:"CLIPPER_SERVICES_"`
	Abstraction []string       `default:"127.0.0.1:1367" help:"Address of the abstraction service (gRPC). With a store that instances share, those that it names are used as well."`
}

// Run runs the command.
func (c *Selector) Run(p *Process) error {
	return c.run(p, "selector", func(a *app.App) error {
		state, err := c.open(p.ctx, a, "selector")
		if err != nil {
			return err
		}
		conn, also, err := dial(a, "abstraction service", c.Abstraction, c.Services)
		if err != nil {
			return err
		}
		if c.shared() {
			a.Go("discovery", func(ctx context.Context) error {
				return instances.Watch(ctx, state.Documents(), a.Log, also)
			})
		}
		remote := selector.NewRemoteModels(conn, a.Log)
		a.Go("link to the abstraction service", remote.Run)
		a.Ready("abstraction", remote.Reachable)
		s, err := c.add(a, state, remote, clipperv1.NewModelServiceClient(conn))
		if err != nil {
			return err
		}
		server, err := listen(a, "selector", c.GRPC, c.Ops)
		if err != nil {
			return err
		}
		register(server, s)
		addKeys(a, state, server, server.Draining())
		return nil
	})
}

// Abstraction runs an abstraction service.
type Abstraction struct {
	Common
	StoreConfig
	AbstractionConfig
	RepositoryConfig
	GRPC app.GRPCConfig `embed:"" prefix:"grpc-" set:"listen=127.0.0.1:1367"`
	Ops  app.HTTPConfig `embed:"" prefix:"ops-" set:"listen=127.0.0.1:1368"`

	Services      certs.Client  `embed:"" prefix:"services-" envprefix:"CLIPPER_SERVICES_"`
	Advertise     string        `placeholder:"ADDRESS" help:"Address at which the other instances and the selectors reach this one (gRPC), for a store that instances share. Default: where it listens; if that is every address, the machine's host name."`
	InstanceLease time.Duration `default:"3s" help:"Time without a sign of life after which the other instances take over the models of this one, for a store that instances share."`
}

// Run runs the command.
func (c *Abstraction) Run(p *Process) error {
	return c.run(p, "abstraction", func(a *app.App) error {
		server, err := listen(a, "abstraction", c.GRPC, c.Ops)
		if err != nil {
			return err
		}
		instance, err := c.instance(server.Address())
		if err != nil {
			return err
		}
		if instance != nil {
			if instance.TLS, err = c.Services.Credentials(a.Log.With("calls", "instances of the abstraction service")); err != nil {
				return fmt.Errorf("connections to other instances: %w", err)
			}
		}
		s, err := c.add(p.ctx, a, &c.StoreConfig, &c.RepositoryConfig, c.Shutdown.Grace, instance)
		if err != nil {
			return err
		}
		register(server, s)
		return nil
	})
}
