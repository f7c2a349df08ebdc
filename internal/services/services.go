// SPDX-License-Identifier: Apache-2.0

// Package services runs the three services, each in a process of its own or all in one. The
// commands are kong commands: a setting is spelled once, as a field.
package services

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/clipper-serving/clipper/internal/app"
	"github.com/clipper-serving/clipper/internal/config"
	"github.com/clipper-serving/clipper/internal/store"
	"github.com/clipper-serving/clipper/internal/store/storeopen"
	"github.com/clipper-serving/clipper/internal/telemetry"
)

// Commands are the commands that run services.
type Commands struct {
	Up          Up          `cmd:"" config:"global" group:"services" help:"Run all services in this process."`
	Frontend    Frontend    `cmd:"" group:"services" help:"Run the frontend: REST, gRPC, limits."`
	Selector    Selector    `cmd:"" group:"services" help:"Run the selector: applications, policies, feedback."`
	Abstraction Abstraction `cmd:"" group:"services" help:"Run the abstraction: models, batching, replicas."`
}

// Options adds the commands to a command line. The services run until ctx ends.
func Options(ctx context.Context, build telemetry.Build) []kong.Option {
	return []kong.Option{
		kong.Embed(&Commands{}),
		kong.Vars{"data_dir": dataDir()},
		kong.Bind(&Process{ctx: ctx, build: build}),
	}
}

// Process is what the commands know of the process that they run in.
type Process struct {
	ctx   context.Context
	build telemetry.Build
}

// Common are the settings of every process.
type Common struct {
	Config   config.File        `placeholder:"FILE" help:"Configuration file (YAML)."`
	Log      app.LogConfig      `embed:"" prefix:"log-"`
	Shutdown app.ShutdownConfig `embed:"" prefix:"shutdown-"`
}

// run runs an app of the given parts until the process is asked to stop.
func (c *Common) run(p *Process, name string, build func(*app.App) error) error {
	log, err := c.Log.New(os.Stderr)
	if err != nil {
		return err
	}
	return app.Run(p.ctx, app.Options{
		Name:     name,
		Log:      log,
		Registry: telemetry.NewRegistry(p.build),
		Shutdown: c.Shutdown,
	}, build)
}

// StoreConfig says where a service keeps its state.
type StoreConfig struct {
	Store   string `config:"global" placeholder:"ADDRESS" help:"Store: redis://HOST:PORT/DB shared by all instances, or file:PATH. Default: a file in the data directory."`
	DataDir string `config:"global" default:"${data_dir}" help:"Directory of the embedded stores."`
}

// shared reports whether instances on several machines can have this store in common.
func (c *StoreConfig) shared() bool { return c.Store != "" && !strings.HasPrefix(c.Store, "file:") }

// open opens the store of the service called name and closes it with the app.
func (c *StoreConfig) open(ctx context.Context, a *app.App, name string) (store.Store, error) {
	address := c.Store
	if address == "" {
		if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
			return nil, fmt.Errorf("make the data directory: %w", err)
		}
		address = "file:" + filepath.Join(c.DataDir, name+".db")
	}
	s, err := storeopen.Open(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("open the store of the %s: %w", name, err)
	}
	a.Defer(name+" store", s.Close)
	return s, nil
}

// dataDir returns the default of the data directory: where the user's programs keep their data.
func dataDir() string {
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "clipper")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "share", "clipper")
	}
	return filepath.Join(os.TempDir(), "clipper")
}
