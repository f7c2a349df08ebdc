// SPDX-License-Identifier: Apache-2.0

// Package docker runs replicas as containers of a Docker Engine, each isolated from the others and from
// Clipper: a root file system that cannot be written to, no capabilities, no user root, limits of memory,
// processor time and processes, and a network that has only the replicas of this installation.
//
// Containers carry labels that say which replica of which installation they are. They outlive a launcher that
// is killed; the next one takes them over when the same replica is started, and removes those that nobody asks
// for. One launcher at a time has an installation on a machine, which a lock file sees to.
//
// The engine is not needed before the first replica is started. While it does not answer, replicas are taken to
// run on; when it answers again, that is looked at.
package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/client"

	"github.com/clipper-serving/clipper/abstraction/launcher"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Config is how the launcher is set up. Where the engine is, is said by the variables of Docker's own programs:
// DOCKER_HOST, DOCKER_CERT_PATH, DOCKER_TLS_VERIFY.
type Config struct {
	// Installation sets the containers of one server apart from those of another that uses the same engine.
	Installation string `name:"installation" default:"clipper" help:"Name of this server among those that use the same engine, in labels and names."`
	// Network is a network that exists.
	Network string `name:"network" help:"Docker network of the replicas. Default: one for the installation, made when it is needed."`
	// Publish is an address of the engine's machine.
	Publish netip.Addr `name:"publish" help:"IP address of the engine's machine at which the ports of replicas are published. Default: none, replicas are reached over their network; 127.0.0.1 where that cannot be."`
	// AdapterImage is the image of an adapter; {framework} in it stands for the framework's name.
	AdapterImage string `name:"adapter-image" default:"clipper-{framework}" help:"Image that serves saved models; {framework} in it stands for the framework."`
	// Pull says whether images that the engine lacks are pulled.
	Pull bool `name:"pull" default:"true" negatable:"" help:"Pull images that the engine does not have."`
	// StopTimeout is how long a replica may take to finish what it has.
	StopTimeout time.Duration `kong:"-"`
}

const (
	// claimTime is how long the containers of a launcher that has died wait to be taken over.
	claimTime = time.Minute
	// keepEnded is how long the container of a replica that ended by itself is kept for people to look at.
	keepEnded = time.Hour
	// defaultPIDs is the most processes and threads of a replica. Frameworks start many threads.
	defaultPIDs = 4096
)

// Launcher runs containers.
type Launcher struct {
	cfg    Config
	log    *slog.Logger
	engine *client.Client
	closed context.Context // for what the launcher does in the background
	close  context.CancelFunc
	sweeps sync.WaitGroup

	opening sync.Mutex // held by who opens
	place   *place     // nil until it is open

	mu       sync.Mutex
	ended    bool
	replicas map[string]*replica        // by the container's id, those that have ended too
	before   map[string][]launcher.Line // the last lines of containers that were removed, by the replica's
}

var _ launcher.Launcher = (*Launcher)(nil)

// New returns a launcher. It does not ask the engine yet.
func New(cfg Config, log *slog.Logger) (*Launcher, error) {
	if cfg.Installation == "" {
		cfg.Installation = "clipper"
	}
	if cfg.AdapterImage == "" {
		cfg.AdapterImage = "clipper-{framework}"
	}
	if cfg.StopTimeout == 0 {
		cfg.StopTimeout = 10 * time.Second
	}
	if !namePattern.MatchString(cfg.Installation) {
		return nil, fmt.Errorf("docker-installation: %q: want 1 to 30 letters, digits, '.', '_' or '-', starting with a letter or digit", cfg.Installation)
	}
	engine, err := client.New(client.FromEnv, client.WithUserAgent("clipper"))
	if err != nil {
		return nil, fmt.Errorf("set up the Docker launcher: %w", err)
	}
	if !cfg.Publish.IsValid() && runtime.GOOS != "linux" && !inContainer() {
		// There the engine is in a virtual machine, whose networks are not this machine's.
		cfg.Publish = netip.MustParseAddr("127.0.0.1")
	}
	closed, closeNow := context.WithCancel(context.Background())
	return &Launcher{cfg: cfg, log: log, engine: engine, closed: closed, close: closeNow, replicas: map[string]*replica{}, before: map[string][]launcher.Line{}}, nil
}

// Check implements launcher.Launcher.
func (l *Launcher) Check(c *clipperv1.Container) error {
	_, err := l.image(c)
	return err
}

// image returns which image is to be run, or an error as Check does.
func (l *Launcher) image(c *clipperv1.Container) (string, error) {
	name, err := launcher.ImageName(c, l.cfg.AdapterImage)
	if err != nil {
		return "", err
	}
	parsed, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", err
	}
	return reference.FamiliarString(reference.TagNameOnly(parsed)), nil
}

// Start implements launcher.Launcher. It takes over the container of the same replica that a launcher which has
// died left running.
func (l *Launcher) Start(ctx context.Context, spec launcher.Spec) (launcher.Instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	image, err := l.image(spec.Container)
	if err != nil {
		return nil, err
	}
	if l.isClosed() {
		return nil, errClosed
	}
	where, err := l.open(ctx)
	if err != nil {
		return nil, err
	}
	wanted, err := l.describe(ctx, where, spec, image)
	if err != nil {
		return nil, err
	}
	id, err := l.adopt(ctx, wanted)
	adopted := id != ""
	if err == nil && !adopted {
		id, err = l.run(ctx, wanted)
	}
	if err != nil {
		return nil, err
	}
	r, err := l.claim(ctx, where, spec, id)
	if err != nil {
		l.remove(id)
		return nil, err
	}
	r.log.Info("replica started", "container", id[:12], "image", image, "address", r.address, "taken_over", adopted)
	return r, nil
}

var errClosed = errors.New("the launcher is closed")

func (l *Launcher) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// claim makes a container that runs a replica of this launcher.
func (l *Launcher) claim(ctx context.Context, where *place, spec launcher.Spec, id string) (*replica, error) {
	r := &replica{
		launcher: l,
		id:       id,
		name:     containerName(l.cfg.Installation, spec),
		log:      l.log.With("model", spec.Model, "version", spec.Version, "replica", spec.Replica),
		done:     make(chan struct{}),
	}
	r.lost, r.giveUp = context.WithCancel(context.Background())
	var err error
	if r.address, err = l.address(ctx, where, id); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil, errClosed
	}
	l.replicas[id] = r
	go r.wait()
	return r, nil
}

// Close implements launcher.Launcher. It does not wait for the grace period.
func (l *Launcher) Close() error {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return nil
	}
	l.ended = true
	replicas := slices.Collect(maps.Values(l.replicas))
	l.mu.Unlock()

	l.close()
	l.sweeps.Wait()
	now, cancel := context.WithCancel(context.Background())
	cancel()
	var stops sync.WaitGroup
	for _, r := range replicas {
		stops.Go(func() { r.Stop(now) })
	}
	stops.Wait()
	l.opening.Lock()
	defer l.opening.Unlock()
	return errors.Join(l.leave(), l.engine.Close())
}

// inContainer reports whether this process runs in a container of an engine.
func inContainer() bool {
	_, err := os.Stat("/.dockerenv")
	return err == nil
}
