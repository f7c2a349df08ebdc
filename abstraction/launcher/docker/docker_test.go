// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"crypto/rand"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/clipper-serving/clipper/abstraction/launcher"
	"github.com/clipper-serving/clipper/abstraction/launcher/docker/dockertest"
	"github.com/clipper-serving/clipper/abstraction/launcher/launchertest"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

const program = "github.com/clipper-serving/clipper/abstraction/launcher/launchertest/program"

func newLauncher(t *testing.T, cfg Config) *Launcher {
	t.Helper()
	if cfg.Installation == "" {
		cfg.Installation = "test-" + rand.Text()[:12]
	}
	l, err := New(cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

func imageContainer(reference string) *clipperv1.Container {
	return &clipperv1.Container{Source: &clipperv1.Container_Image{Image: &clipperv1.Image{Reference: reference}}}
}

func TestConformance(t *testing.T) {
	image := dockertest.Require(t).Image(t, "launchertest", program)
	launchertest.Run(t, launchertest.Suite{
		New: func(t *testing.T, grace time.Duration) launcher.Launcher {
			return newLauncher(t, Config{StopTimeout: grace})
		},
		Container: func(*testing.T) *clipperv1.Container { return imageContainer(image) },
	})
}

func serving(image string) launcher.Spec {
	c := imageContainer(image)
	c.Environment = map[string]string{launchertest.EnvBehaviour: "serve"}
	return launcher.Spec{Model: "digits", Version: "v1", Replica: "0", Container: c}
}

// abandon is what a launcher that is killed leaves.
func (l *Launcher) abandon(t *testing.T) {
	l.mu.Lock()
	l.ended = true
	replicas := l.replicas
	l.replicas = map[string]*replica{}
	l.mu.Unlock()
	l.close()
	l.sweeps.Wait()
	for _, r := range replicas {
		r.giveUp()
		<-r.done
	}
	require.NoError(t, l.place.lock.Close())
	require.NoError(t, l.engine.Close())
}

func TestTakesOver(t *testing.T) {
	engine := dockertest.Require(t)
	image := engine.Image(t, "launchertest", program)
	spec := serving(image)
	first := newLauncher(t, Config{})
	before, err := first.Start(t.Context(), spec)
	require.NoError(t, err)
	launchertest.Greeting(t, before)
	other := spec
	other.Model = "letters"
	nobodys, err := first.Start(t.Context(), other)
	require.NoError(t, err)

	_, err = newLauncher(t, Config{Installation: first.cfg.Installation}).Start(t.Context(), spec)
	require.ErrorContains(t, err, "--docker-installation")

	first.abandon(t)
	second := newLauncher(t, Config{Installation: first.cfg.Installation})
	after, err := second.Start(t.Context(), spec)
	require.NoError(t, err)
	require.Equal(t, before.(*replica).id, after.(*replica).id, "it goes on")
	require.Equal(t, before.Address(), after.Address())
	launchertest.Greeting(t, after)

	// One that is to be otherwise is started anew.
	second.abandon(t)
	third := newLauncher(t, Config{Installation: first.cfg.Installation})
	spec.Container.Environment["GREETING"] = "changed"
	changed, err := third.Start(t.Context(), spec)
	require.NoError(t, err)
	require.NotEqual(t, after.(*replica).id, changed.(*replica).id)
	require.Contains(t, launchertest.Greeting(t, changed), "GREETING=changed")

	// Nobody has asked for the other: it goes, when it has had its time.
	require.NoError(t, third.removeUnclaimed(t.Context(), time.Now()))
	_, err = engine.ContainerInspect(t.Context(), nobodys.(*replica).id, client.ContainerInspectOptions{})
	require.NoError(t, err, "it is young")
	require.NoError(t, third.removeUnclaimed(t.Context(), time.Now().Add(claimTime)))
	_, err = engine.ContainerInspect(t.Context(), nobodys.(*replica).id, client.ContainerInspectOptions{})
	require.Error(t, err)
	launchertest.Greeting(t, changed)
}

func TestIsolation(t *testing.T) {
	engine := dockertest.Require(t)
	image := engine.Image(t, "launchertest", program)
	model := filepath.Join(t.TempDir(), "model")
	require.NoError(t, os.WriteFile(model, []byte("weights"), 0o600))
	l := newLauncher(t, Config{AdapterImage: "launcher{framework}:test"})
	i, err := l.Start(t.Context(), launcher.Spec{Model: "m", Version: "1", Replica: "0", Container: &clipperv1.Container{
		Source:      &clipperv1.Container_Adapter{Adapter: &clipperv1.Adapter{Framework: "Test", ModelPath: model}},
		Environment: map[string]string{launchertest.EnvBehaviour: "serve"},
	}})
	require.NoError(t, err)
	require.Contains(t, launchertest.Greeting(t, i), "CLIPPER_MODEL_PATH=/model")
	found, err := engine.ContainerInspect(t.Context(), i.(*replica).id, client.ContainerInspectOptions{})
	require.NoError(t, err)
	require.Equal(t, "launchertest:test", image)
	host := found.Container.HostConfig
	require.True(t, host.ReadonlyRootfs)
	require.Equal(t, []string{"no-new-privileges"}, host.SecurityOpt)
	require.EqualValues(t, defaultPIDs, *host.PidsLimit)
	require.Equal(t, "no", string(host.RestartPolicy.Name))
	require.False(t, found.Container.Mounts[0].RW)
	// What the kernel says of the process itself.
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(found.Container.State.Pid), "status"))
	require.NoError(t, err)
	require.Contains(t, string(status), "NoNewPrivs:\t1")
	require.Contains(t, string(status), "CapEff:\t0000000000000000")
	require.NotContains(t, string(status), "Uid:\t0")
	mounts, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(found.Container.State.Pid), "mountinfo"))
	require.NoError(t, err)
	require.Regexp(t, `(?m) /tmp rw,nosuid,nodev`, string(mounts))
	require.NotRegexp(t, `(?m) /tmp .*noexec`, string(mounts), "Java's libraries load code from there")
}

func TestEnds(t *testing.T) {
	engine := dockertest.Require(t)
	image := engine.Image(t, "launchertest", program)
	l := newLauncher(t, Config{})
	start := func() *replica {
		i, err := l.Start(t.Context(), serving(image))
		require.NoError(t, err)
		launchertest.Greeting(t, i)
		return i.(*replica)
	}
	t.Run("killed", func(t *testing.T) {
		r := start()
		found, err := engine.ContainerInspect(t.Context(), r.id, client.ContainerInspectOptions{})
		require.NoError(t, err)
		require.NoError(t, syscall.Kill(found.Container.State.Pid, syscall.SIGKILL))
		<-r.Done()
		require.Contains(t, r.Exit().String(), "signal killed")
		require.Equal(t, []string{"serving"}, r.Logs(5))
		for i, kept := range []bool{true, false} {
			require.NoError(t, l.removeUnclaimed(t.Context(), r.ended.Add(time.Duration(i+1)*keepEnded/2)))
			_, err = engine.ContainerInspect(t.Context(), r.id, client.ContainerInspectOptions{})
			require.Equal(t, kept, err == nil)
		}
	})
	t.Run("removed", func(t *testing.T) {
		r := start()
		_, err := engine.ContainerRemove(t.Context(), r.id, client.ContainerRemoveOptions{Force: true})
		require.NoError(t, err)
		<-r.Done()
		require.NotZero(t, r.Exit().Code)
	})
}

func TestRefuses(t *testing.T) {
	engine := dockertest.Require(t)
	image := engine.Image(t, "launchertest", program)
	for name, test := range map[string]struct {
		cfg  Config
		spec launcher.Spec
		want string
	}{
		"no such image": {Config{}, launcher.Spec{Model: "m", Version: "1", Replica: "0", Container: imageContainer("no-such-image:1")}, "does not have the image no-such-image:1 and cannot pull it: build it there"},
		"not to pull":   {Config{Installation: "refuses1"}, launcher.Spec{Model: "m", Version: "1", Replica: "0", Container: imageContainer("no-such-image:1")}, "does not have the image no-such-image:1"},
		"no network":    {Config{Network: "no-such-network"}, serving(image), `network "no-such-network" does not exist`},
	} {
		t.Run(name, func(t *testing.T) {
			test.cfg.Pull = name == "no such image"
			l := newLauncher(t, test.cfg)
			_, err := l.Start(t.Context(), test.spec)
			require.ErrorContains(t, err, test.want)
		})
	}
	l := newLauncher(t, Config{})
	var field *launcher.FieldError
	require.ErrorAs(t, l.Check(imageContainer("Not An Image")), &field)
	require.Equal(t, "image.reference", field.Field)
	require.ErrorIs(t, l.Check(&clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{}}}), launcher.ErrUnsupported)
	_, err := New(Config{Installation: "a/b"}, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "docker-installation")
}

func TestNoEngine(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix:///no/such/socket")
	l := newLauncher(t, Config{})
	_, err := l.Start(t.Context(), serving("image"))
	require.ErrorContains(t, err, "the Docker Engine does not answer at unix:///no/such/socket: start it")
}

// TestEngineRestarts: an engine that comes back has stopped its containers, and the launcher sees that.
func TestEngineRestarts(t *testing.T) {
	engine := dockertest.Start(t)
	image := engine.Image(t, "launchertest", program)
	l := newLauncher(t, Config{})
	i, err := l.Start(t.Context(), serving(image))
	require.NoError(t, err)
	launchertest.Greeting(t, i)
	engine.Kill()
	_, err = l.Start(t.Context(), serving(image))
	require.ErrorContains(t, err, "does not answer")
	engine.Restart(t)
	<-i.Done()
	again, err := l.Start(t.Context(), serving(image))
	require.NoError(t, err)
	launchertest.Greeting(t, again)
}
