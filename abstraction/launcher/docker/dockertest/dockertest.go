// SPDX-License-Identifier: Apache-2.0

// Package dockertest gives tests a real Docker Engine: the one that DOCKER_HOST names or that listens at the
// usual place, or else one of their own, for which the tests must run as root with dockerd installed.
package dockertest

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"
)

// Engine is a Docker Engine.
type Engine struct {
	*client.Client
	// Host is the value of DOCKER_HOST with which it is reached.
	Host string

	dir    string
	daemon *exec.Cmd
}

// patience bounds what normally takes a few seconds.
const patience = 2 * time.Minute

// Require returns an engine, which DOCKER_HOST names for the rest of the test. It skips the test where none can be
// had, except in CI.
func Require(t testing.TB) *Engine {
	t.Helper()
	for _, host := range []string{os.Getenv("DOCKER_HOST"), client.DefaultDockerHost} {
		if e := connect(t, host); e != nil {
			t.Setenv("DOCKER_HOST", host)
			return e
		}
	}
	return Start(t)
}

// connect returns the engine at a host, or nil.
func connect(t testing.TB, host string) *Engine {
	if host == "" {
		return nil
	}
	c, err := client.New(client.WithHost(host))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := c.Ping(ctx, client.PingOptions{}); err != nil {
		require.NoError(t, c.Close())
		return nil
	}
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return &Engine{Client: c, Host: host}
}

// Start returns an engine of the test's own, which can be killed, and to which DOCKER_HOST points for the rest of
// the test.
func Start(t testing.TB) *Engine {
	t.Helper()
	dockerd, err := exec.LookPath("dockerd")
	if err != nil || os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			require.Fail(t, "no Docker Engine", "there is none at DOCKER_HOST, and to start one needs root and dockerd (Debian package docker.io)")
		}
		t.Skip("no Docker Engine at DOCKER_HOST, and to start one needs root and dockerd (Debian package docker.io)")
	}
	// Sockets have short paths, and TempDir's are long.
	dir, err := os.MkdirTemp("", "dkr") //nolint:usetesting // see above
	require.NoError(t, err)
	e := &Engine{Host: "unix://" + filepath.Join(dir, "sock"), dir: dir}
	t.Cleanup(func() {
		e.Kill()
		_ = exec.Command("sh", "-c", "umount "+dir+"/data/*/*/merged "+dir+"/data/containers/*/mounts/shm "+dir+"/exec/netns/* "+dir+"/data 2>/dev/null").Run() //nolint:noctx,gosec // clean up
		_ = os.RemoveAll(dir)
	})
	t.Setenv("DOCKER_HOST", e.Host)
	c, err := client.New(client.WithHost(e.Host))
	require.NoError(t, err)
	e.Client = c
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	e.daemon = e.command(dockerd)
	e.Restart(t)
	return e
}

func (e *Engine) command(dockerd string) *exec.Cmd {
	cmd := exec.Command(dockerd, //nolint:noctx // It ends with Kill.
		"--host", e.Host, "--data-root", filepath.Join(e.dir, "data"), "--exec-root", filepath.Join(e.dir, "exec"),
		"--pidfile", filepath.Join(e.dir, "pid"), "--bridge", "none")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Restart starts the engine again after Kill.
func (e *Engine) Restart(t testing.TB) {
	t.Helper()
	// The processes may be there as zombies, and would be taken to run.
	_ = os.Remove(filepath.Join(e.dir, "pid"))
	_ = os.Remove(filepath.Join(e.dir, "exec", "containerd", "containerd.pid"))
	e.daemon = e.command(e.daemon.Path)
	log, err := os.OpenFile(filepath.Join(e.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	defer func() { _ = log.Close() }()
	e.daemon.Stdout, e.daemon.Stderr = log, log
	require.NoError(t, e.daemon.Start())
	require.Eventually(t, func() bool {
		_, err := e.Ping(t.Context(), client.PingOptions{})
		return err == nil
	}, patience, 20*time.Millisecond)
}

// Kill ends the engine as a crash would, its containers with it.
func (e *Engine) Kill() {
	if e.daemon == nil || e.daemon.Process == nil {
		return
	}
	_ = syscall.Kill(-e.daemon.Process.Pid, syscall.SIGKILL)
	_, _ = e.daemon.Process.Wait()
}

var building sync.Mutex

// Image makes an image of a Go program of this module, with nothing else in it but /tmp, and returns its
// reference.
func (e *Engine) Image(t testing.TB, name, pkg string) string {
	t.Helper()
	return e.ImageOf(t, name, map[string]string{"program": pkg}, `ENTRYPOINT ["/program"]`)
}

// ImageOf makes an image of Go programs of this module, packages by their place in it, and /tmp, and returns its
// reference. The changes are lines of a Dockerfile.
func (e *Engine) ImageOf(t testing.TB, name string, programs map[string]string, changes ...string) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}))
	for place, pkg := range programs {
		path := filepath.Join(t.TempDir(), "program")
		build := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-s -w", "-o", path, pkg) //nolint:gosec // The test names it.
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		output, err := build.CombinedOutput()
		require.NoError(t, err, "%s", output)
		program, err := os.ReadFile(path) //nolint:gosec // made above
		require.NoError(t, err)
		require.NoError(t, w.WriteHeader(&tar.Header{Name: place, Mode: 0o755, Size: int64(len(program))}))
		_, err = w.Write(program)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	reference := strings.ToLower(name) + ":test"
	done, err := e.ImageImport(t.Context(), client.ImageImportSource{Source: &archive, SourceName: "-"}, reference,
		client.ImageImportOptions{Changes: changes})
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, done)
	require.NoError(t, err)
	require.NoError(t, done.Close())
	return reference
}

const module = "github.com/clipper-serving/clipper/abstraction/launcher/"

// Base makes an image that others can be built on as on one with Python, without a network: pip takes every
// requirement for installed except no-such-package, and python is the program of launchertest.
func (e *Engine) Base(t testing.TB) string {
	t.Helper()
	return e.ImageOf(t, "clipper-test-base", map[string]string{
		"bin/sh": module + "docker/dockertest/sh", "usr/bin/python": module + "launchertest/program",
	}, "ENV PATH=/usr/bin:/bin")
}
