// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
)

// Labels of what belongs to an installation.
const (
	labelInstallation = "clipper.installation"
	labelModel        = "clipper.model"
	labelVersion      = "clipper.version"
	labelReplica      = "clipper.replica"
	labelSpec         = "clipper.spec" // a digest of all that the container was made from
)

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,29}$`)

// place is what the replicas of an installation share.
type place struct {
	lock    *os.File
	network string
	made    bool // the network is the installation's own
}

// open takes the installation and sees to its network, the first time. Later calls look whether the network is
// still there.
func (l *Launcher) open(ctx context.Context) (*place, error) {
	l.opening.Lock()
	defer l.opening.Unlock()
	if l.isClosed() { // Nobody would leave it.
		return nil, errClosed
	}
	p := l.place
	if p == nil {
		lock, err := l.take()
		if err != nil {
			return nil, err
		}
		p = &place{lock: lock, network: l.cfg.Network}
	}
	if err := l.enterNetwork(ctx, p); err != nil {
		if l.place == nil {
			err = errors.Join(err, p.lock.Close())
		}
		return nil, err
	}
	if l.place == nil {
		l.place = p
		l.sweeps.Go(l.sweep)
	}
	return p, nil
}

// take locks the installation among the launchers of this user.
func (l *Launcher) take() (*os.File, error) {
	path := filepath.Join(os.TempDir(), "clipper-docker-"+strconv.Itoa(os.Getuid())+"-"+l.cfg.Installation+".lock")
	for {
		lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			_ = lock.Close()
			return nil, fmt.Errorf("another server has the installation %q of Docker containers: give this one a name of its own with --docker-installation", l.cfg.Installation)
		}
		// Its last owner may have removed it in between, and a lock on a file without a name is none.
		held, err := lock.Stat()
		if err != nil {
			return nil, errors.Join(err, lock.Close())
		}
		if named, err := os.Stat(path); err == nil && os.SameFile(held, named) {
			return lock, nil
		}
		_ = lock.Close()
	}
}

// enterNetwork sees to the network. If this process is itself a container of the engine, it joins.
func (l *Launcher) enterNetwork(ctx context.Context, p *place) error {
	if p.network == "" {
		p.network, p.made = "clipper-"+l.cfg.Installation, true
	}
	_, err := l.engine.NetworkInspect(ctx, p.network, client.NetworkInspectOptions{})
	switch {
	case errdefs.IsNotFound(err) && p.made:
		_, err = l.engine.NetworkCreate(ctx, p.network, client.NetworkCreateOptions{
			Driver: "bridge", Labels: map[string]string{labelInstallation: l.cfg.Installation},
		})
	case errdefs.IsNotFound(err):
		return fmt.Errorf("the Docker network %q does not exist: make it with `docker network create`, or leave --docker-network out", p.network)
	}
	if err != nil {
		return l.explain("see to the network "+p.network, err)
	}
	if !inContainer() {
		return nil
	}
	own, err := os.Hostname() // by default the beginning of a container's id
	if err != nil {
		return err
	}
	self, err := l.engine.ContainerInspect(ctx, own, client.ContainerInspectOptions{})
	switch {
	case errdefs.IsNotFound(err): // a container of another engine
		return nil
	case err != nil:
		return l.explain("look for the server's own container", err)
	}
	if self.Container.NetworkSettings != nil && self.Container.NetworkSettings.Networks[p.network] != nil {
		return nil
	}
	if _, err := l.engine.NetworkConnect(ctx, p.network, client.NetworkConnectOptions{Container: self.Container.ID}); err != nil {
		return l.explain("join the network "+p.network, err)
	}
	return nil
}

// leave gives the installation back, with nothing left of it. Its network is removed if nothing else uses it.
func (l *Launcher) leave() error {
	p := l.place
	if p == nil {
		return nil
	}
	l.place = nil
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if err := l.removeUnclaimed(ctx, time.Now().Add(keepEnded)); err != nil {
		l.log.Warn("containers stay", "error", err)
	}
	if p.made {
		if _, err := l.engine.NetworkRemove(ctx, p.network, client.NetworkRemoveOptions{}); err != nil && !errdefs.IsNotFound(err) {
			l.log.Debug("the network of the replicas stays", "network", p.network, "error", err)
		}
	}
	return errors.Join(os.Remove(p.lock.Name()), p.lock.Close())
}

// sweep removes from time to time what nobody needs.
func (l *Launcher) sweep() {
	for {
		select {
		case <-l.closed.Done():
			return
		case <-time.After(claimTime):
		}
		if err := l.removeUnclaimed(l.closed, time.Now()); err != nil {
			l.log.Debug("containers that nobody owns are not removed yet", "error", err)
		}
	}
}

// removeUnclaimed removes what a launcher that has died left and nobody has taken over, and replicas that ended by
// themselves long ago and were not started again.
func (l *Launcher) removeUnclaimed(ctx context.Context, now time.Time) error {
	found, err := l.engine.ContainerList(ctx, client.ContainerListOptions{
		All: true, Filters: client.Filters{}.Add("label", labelInstallation+"="+l.cfg.Installation),
	})
	if err != nil {
		return err
	}
	var problems error
	for _, c := range found.Items {
		l.mu.Lock()
		r := l.replicas[c.ID]
		l.mu.Unlock()
		// One that is being started now is younger.
		if r == nil && now.Sub(time.Unix(c.Created, 0)) < claimTime || r != nil && !r.over(now) {
			continue
		}
		l.log.Info("a container that nobody needs is removed", "container", c.ID[:12], "model", c.Labels[labelModel], "version", c.Labels[labelVersion])
		problems = errors.Join(problems, l.removeNow(ctx, c.ID))
	}
	return problems
}

// explain says what the engine refused in words for people.
func (l *Launcher) explain(what string, err error) error {
	if client.IsErrConnectionFailed(err) {
		return fmt.Errorf("the Docker Engine does not answer at %s: start it, or say with DOCKER_HOST where it is", l.engine.DaemonHost())
	}
	return fmt.Errorf("%s: %w", what, err)
}

// address returns where a container that runs serves.
func (l *Launcher) address(ctx context.Context, where *place, id string) (string, error) {
	found, err := l.engine.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return "", l.explain("look at the container", err)
	}
	settings := found.Container.NetworkSettings
	if settings == nil {
		return "", errors.New("the engine does not say where the container is")
	}
	if !l.cfg.Publish.IsValid() {
		endpoint := settings.Networks[where.network]
		if endpoint == nil || !endpoint.IPAddress.IsValid() {
			// It has ended already, which is for the one who waits for it.
			return net.JoinHostPort("127.0.0.1", port.Port()), nil
		}
		return net.JoinHostPort(endpoint.IPAddress.String(), port.Port()), nil
	}
	host := l.cfg.Publish.String()
	if l.cfg.Publish.IsUnspecified() {
		host = "127.0.0.1"
		if u, err := url.Parse(l.engine.DaemonHost()); err == nil && u.Hostname() != "" {
			host = u.Hostname()
		}
	}
	for _, binding := range settings.Ports[port] {
		return net.JoinHostPort(host, binding.HostPort), nil
	}
	return net.JoinHostPort(host, port.Port()), nil
}
