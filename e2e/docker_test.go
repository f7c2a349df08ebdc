// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/rand"
	"syscall"
	"testing"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/abstraction/launcher/docker/dockertest"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// TestDocker runs models in containers of a real engine.
func TestDocker(t *testing.T) {
	engine := dockertest.Require(t)
	image := engine.Image(t, "clipper-e2e", "github.com/clipper-serving/clipper/e2e/container")
	installation := "e2e-" + rand.Text()[:12]
	s := install(t, three, embedded)
	s.settings[abstraction] = append(s.settings[abstraction], "--docker-installation="+installation)
	for _, name := range s.services {
		s.start(t, name)
	}
	for _, name := range s.services {
		s.awaitReady(t, name)
	}
	t.Cleanup(func() {
		if p := s.running[abstraction]; p != nil {
			p.signal(t, syscall.SIGTERM)
			require.Zero(t, p.wait(t))
			delete(s.running, abstraction)
		}
		require.Empty(t, containersOf(t, engine, installation, client.ContainerListOptions{All: true}), "a server that stops in good order stops them")
	})
	inImage := func(model string, env environment) *clipperv1.ModelVersion {
		v := version(model, "1", env)
		v.Container.Source = &clipperv1.Container_Image{Image: &clipperv1.Image{Reference: image}}
		return v
	}

	two := uint32(2)
	good := inImage("good", nil)
	good.Replicas = &two
	s.deployVersion(t, good)
	s.create(t, application("docker", "single", "good"))
	require.EqualValues(t, 7, predicted(t, s.ask(t, "docker", 7, 0)))

	t.Run("out of memory", func(t *testing.T) {
		hog := inImage("hog", environment{"HOG": "1"})
		hog.Container.Resources = &clipperv1.Resources{MemoryBytes: 64 << 20}
		hog.WarmUp = &clipperv1.WarmUp{Disabled: true}
		s.deployVersion(t, hog)
		s.create(t, application("hoggish", "single", "hog"))
		asked := make(chan struct{})
		go func() {
			defer close(asked)
			_, _ = s.queries.Query(t.Context(), &clipperv1.QueryRequest{Application: "hoggish", Inputs: input(1, 0)})
		}()
		require.EventuallyWithT(t, func(c *assertCollect) {
			response, err := s.models.GetModelVersion(t.Context(), &clipperv1.GetModelVersionRequest{Model: "hog", Version: "1"})
			require.NoError(c, err)
			require.Contains(c, response.Version.ReplicaStatus[0].Message, "killed by the kernel: out of memory, limit ")
		}, patience, poll)
		require.EqualValues(t, 8, predicted(t, s.ask(t, "docker", 8, 0)), "the other model is not disturbed")
		<-asked
		_, err := s.models.DeleteModel(t.Context(), &clipperv1.DeleteModelRequest{Model: "hog"})
		require.NoError(t, err)
	})

	t.Run("no such image", func(t *testing.T) {
		v := inImage("missing", nil)
		v.Container.GetImage().Reference = "clipper-no-such-image:1"
		_, err := s.models.DeployModel(t.Context(), &clipperv1.DeployModelRequest{Version: v})
		require.NoError(t, err)
		require.EventuallyWithT(t, func(c *assertCollect) {
			response, err := s.models.GetModelVersion(t.Context(), &clipperv1.GetModelVersionRequest{Model: "missing", Version: "1"})
			require.NoError(c, err)
			require.Contains(c, response.Version.ReplicaStatus[0].Message, "does not have the image clipper-no-such-image:1")
		}, patience, poll)
		_, err = s.models.DeleteModel(t.Context(), &clipperv1.DeleteModelRequest{Model: "missing"})
		require.NoError(t, err)
	})

	t.Run("the server is killed", func(t *testing.T) {
		before := containersOf(t, engine, installation, client.ContainerListOptions{})
		require.Len(t, before, 2)
		s.kill(t, abstraction)
		s.start(t, abstraction)
		s.awaitReady(t, abstraction)
		s.awaitState(t, "good", "1", clipperv1.ModelState_MODEL_STATE_READY)
		require.EventuallyWithT(t, func(c *assertCollect) {
			require.EqualValues(c, 9, predicted(c, s.ask(t, "docker", 9, 0)))
		}, patience, poll)
		require.ElementsMatch(t, before, containersOf(t, engine, installation, client.ContainerListOptions{}), "they are taken over")
	})
}

// containersOf returns the ids of an installation's containers.
func containersOf(t *testing.T, engine *dockertest.Engine, installation string, which client.ContainerListOptions) (ids []string) {
	which.Filters = client.Filters{}.Add("label", "clipper.installation="+installation)
	found, err := engine.ContainerList(context.WithoutCancel(t.Context()), which)
	require.NoError(t, err)
	for _, c := range found.Items {
		ids = append(ids, c.ID)
	}
	return ids
}
