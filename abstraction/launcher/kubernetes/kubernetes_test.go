// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"crypto/rand"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/clipper-serving/clipper/abstraction/launcher"
	"github.com/clipper-serving/clipper/abstraction/launcher/kubernetes/kubernetestest"
	"github.com/clipper-serving/clipper/abstraction/launcher/launchertest"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

func TestMain(m *testing.M) {
	if code, ran := launchertest.Main(); ran {
		os.Exit(code)
	}
	goleak.VerifyTestMain(m)
}

const image = "registry.example.com/launchertest:1"

// newCluster returns a cluster whose image is this test binary.
func newCluster(t *testing.T) *kubernetestest.Cluster {
	t.Helper()
	own, err := os.Executable()
	require.NoError(t, err)
	c := kubernetestest.New(map[string][]string{image: {own}})
	t.Cleanup(c.Close)
	return c
}

func newTestLauncher(t *testing.T, c *kubernetestest.Cluster, cfg Config) *Launcher {
	t.Helper()
	if cfg.Installation == "" {
		cfg.Installation = "test-" + strings.ToLower(rand.Text()[:12])
	}
	l, err := newLauncher(cfg, c.Client(), "https://cluster.example.com", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

func imageContainer(reference string) *clipperv1.Container {
	return &clipperv1.Container{Source: &clipperv1.Container_Image{Image: &clipperv1.Image{Reference: reference}}}
}

func TestConformance(t *testing.T) {
	cluster := newCluster(t)
	launchertest.Run(t, launchertest.Suite{
		New: func(t *testing.T, grace time.Duration) launcher.Launcher {
			return newTestLauncher(t, cluster, Config{StopTimeout: grace})
		},
		Container: func(*testing.T) *clipperv1.Container { return imageContainer(image) },
	})
}
