// SPDX-License-Identifier: Apache-2.0

package build_test

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/clipper-serving/clipper/abstraction/launcher"
	"github.com/clipper-serving/clipper/abstraction/launcher/docker"
	"github.com/clipper-serving/clipper/abstraction/launcher/docker/build"
	"github.com/clipper-serving/clipper/abstraction/launcher/docker/dockertest"
	"github.com/clipper-serving/clipper/abstraction/launcher/launchertest"
	"github.com/clipper-serving/clipper/containerrpc/image"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func ignore(build.Progress) {}

// model returns the context of an image of a model on a base.
func model(t *testing.T, base string) *image.Context {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.joblib")
	require.NoError(t, os.WriteFile(path, []byte("weights"), 0o600))
	c, err := image.New(image.Spec{Name: "digits:1", Framework: "sklearn", Path: path, Base: base, Version: "test", Environment: map[string]string{"SKLEARN_METHOD": `a "b" $HOME \`}})
	require.NoError(t, err)
	return c
}

// TestServes builds an image, whose replica the launcher then runs.
func TestServes(t *testing.T) {
	engine := dockertest.Require(t)
	base := engine.Base(t)
	c := model(t, base)
	var seen []build.Progress
	built, err := build.Build(t.Context(), c.Archive, build.Options{Tag: "clipper-test-digits:1", Network: "none"}, func(p build.Progress) { seen = append(seen, p) })
	require.NoError(t, err)
	require.NotZero(t, built.Bytes)
	last := seen[len(seen)-1]
	require.Positive(t, last.Steps)
	require.Equal(t, last.Steps, last.Step)
	require.Equal(t, `CMD ["python", "/adapter/adapter.py"]`, last.Text)
	require.Greater(t, sent(seen), c.Size())

	found, err := engine.ImageInspect(t.Context(), "clipper-test-digits:1")
	require.NoError(t, err)
	require.Equal(t, built.ID, found.ID)
	require.Equal(t, "65532:65532", found.Config.User)
	require.Equal(t, "digits:1", found.Config.Labels["org.opencontainers.image.title"])
	require.Contains(t, found.Config.Env, `SKLEARN_METHOD=a "b" $HOME \`)
	require.Contains(t, found.Config.Env, "CLIPPER_MODEL_PATH=/model")

	l, err := docker.New(docker.Config{Installation: "test-build"}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	replica, err := l.Start(t.Context(), launcher.Spec{Model: "digits", Version: "1", Replica: "0", Container: &clipperv1.Container{
		Source:      &clipperv1.Container_Image{Image: &clipperv1.Image{Reference: "clipper-test-digits:1"}},
		Environment: map[string]string{launchertest.EnvBehaviour: "serve"},
	}})
	require.NoError(t, err)
	require.Contains(t, launchertest.Greeting(t, replica), "CLIPPER_MODEL_PATH=/model")

	// What an engine has built it does not build again: the context is the same.
	again, err := build.Build(t.Context(), model(t, base).Archive, build.Options{Tag: "clipper-test-digits:2", Network: "none"}, ignore)
	require.NoError(t, err)
	require.Equal(t, built.ID, again.ID)
}

func sent(seen []build.Progress) (most int64) {
	for _, p := range seen {
		most = max(most, p.Sent)
	}
	return most
}

func TestFails(t *testing.T) {
	engine := dockertest.Require(t)
	base := engine.Base(t)
	options := build.Options{Tag: "clipper-test-fails:1", Network: "none"}

	t.Run("a step", func(t *testing.T) {
		requirements := filepath.Join(t.TempDir(), "requirements.txt")
		require.NoError(t, os.WriteFile(requirements, []byte("numpy==2.0\nno-such-package\n"), 0o600))
		c, err := image.New(image.Spec{Name: "bad", Framework: "http", Base: base, Requirements: requirements})
		require.NoError(t, err)
		_, err = build.Build(t.Context(), c.Archive, options, ignore)
		var failed *build.Error
		require.ErrorAs(t, err, &failed)
		require.Equal(t, "RUN pip install --no-cache-dir -r /adapter/requirements.txt", failed.Step)
		require.Subset(t, failed.Lines, []string{"Collecting numpy==2.0", "ERROR: No matching distribution found for no-such-package"})
		require.Contains(t, failed.Error(), "code: 1")
	})
	t.Run("the base", func(t *testing.T) {
		_, err := build.Build(t.Context(), model(t, "clipper-no-such-base:1").Archive, options, ignore)
		var failed *build.Error
		require.ErrorAs(t, err, &failed)
		require.Equal(t, "FROM ${BASE}", failed.Step)
		require.Empty(t, failed.Lines)
	})
	t.Run("the context", func(t *testing.T) {
		broken := errors.New("the disk is gone")
		_, err := build.Build(t.Context(), func(w io.Writer) error {
			return errors.Join(tar.NewWriter(w).WriteHeader(&tar.Header{Name: "Dockerfile", Size: 10}), broken)
		}, options, ignore)
		require.ErrorIs(t, err, broken)
	})
	t.Run("the Dockerfile", func(t *testing.T) {
		_, err := build.Build(t.Context(), func(w io.Writer) error { return tar.NewWriter(w).Close() }, options, ignore)
		require.Error(t, err)
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := build.Build(ctx, model(t, base).Archive, options, func(build.Progress) { cancel() })
		require.ErrorIs(t, err, context.Canceled)
	})
	_, err := engine.ImageInspect(t.Context(), options.Tag)
	require.Error(t, err, "nothing is left of a build that failed")
}

func TestNoEngine(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix:///no/such/socket")
	_, err := build.Build(t.Context(), nil, build.Options{}, ignore)
	require.EqualError(t, err, "the Docker Engine does not answer at unix:///no/such/socket: start it, or say with DOCKER_HOST where it is")
}

func TestName(t *testing.T) {
	for text, want := range map[string]string{
		"digits": "digits:latest", "digits:1": "digits:1", "registry.example.com:5000/team/digits:v1": "registry.example.com:5000/team/digits:v1",
	} {
		got, err := build.Name(text)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, text := range []string{"", "Digits", "a b", "a:b:c", "-", "digits@sha256:" + string(make([]byte, 64)), "digits@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"} {
		_, err := build.Name(text)
		require.ErrorContains(t, err, "want [REGISTRY/]NAME[:TAG]", text)
	}
}
