// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clipper-serving/clipper/abstraction/launcher"
	"github.com/clipper-serving/clipper/abstraction/launcher/kubernetes/kubernetestest"
	"github.com/clipper-serving/clipper/abstraction/launcher/launchertest"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

func TestMain(m *testing.M) {
	if code, ran := launchertest.Main(); ran {
		os.Exit(code)
	}
	if os.Getenv(envAnswer) != "" {
		os.Exit(modelMain())
	}
	goleak.VerifyTestMain(m)
}

const image = "registry.example.com/launchertest:1"

// newCluster returns a cluster whose image is this test binary.
func newCluster(t *testing.T) *kubernetestest.Cluster {
	t.Helper()
	own, err := os.Executable()
	require.NoError(t, err)
	c := kubernetestest.New(map[string][]string{image: {own}, "stuck:1": {}})
	t.Cleanup(c.Close)
	return c
}

func newTestLauncher(t *testing.T, c *kubernetestest.Cluster, cfg Config) *Launcher {
	t.Helper()
	if cfg.Installation == "" {
		cfg.Installation = "test-" + strings.ToLower(rand.Text()[:12])
	}
	client := c.Client()
	if cfg.Namespace == "" {
		cfg.Namespace = "default"
	}
	l, err := newLauncher(cfg, &api{
		deployments: client.AppsV1().Deployments(cfg.Namespace),
		pods:        client.CoreV1().Pods(cfg.Namespace),
		services:    client.CoreV1().Services(cfg.Namespace),
		budgets:     client.PolicyV1().PodDisruptionBudgets(cfg.Namespace),
		slices:      client.DiscoveryV1().EndpointSlices(cfg.Namespace),
		logs:        client.CoreV1().Pods(cfg.Namespace).GetLogs,
		watchers:    client,
	}, "https://cluster.example.com", slog.New(slog.DiscardHandler))
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
		Unlimited: "the stand-in for the kubelet holds nothing to limits",
	})
}

func serving(behaviour string) launcher.Spec {
	c := imageContainer(image)
	c.Environment = map[string]string{launchertest.EnvBehaviour: behaviour, "GORACE": "atexit_sleep_ms=0"}
	return launcher.Spec{Model: "digits", Version: "v1", Replica: "0", Container: c}
}

// abandon is what a launcher that is killed leaves.
func (l *Launcher) abandon(t *testing.T) {
	l.mu.Lock()
	l.ended = true
	var replicas []*replica
	for _, w := range l.workloads {
		for _, s := range w.slots {
			if s.replica != nil {
				replicas = append(replicas, s.replica)
			}
		}
	}
	l.mu.Unlock()
	l.close()
	l.sweeps.Wait()
	for _, r := range replicas {
		r.giveUp()
		<-r.done
	}
	l.place.stop()
	l.place.running.Wait()
	require.NoError(t, l.place.lock.Close())
}

func TestTakesOver(t *testing.T) {
	cluster := newCluster(t)
	deployments := cluster.Direct().AppsV1().Deployments("default")
	count := func() int {
		found, err := deployments.List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		return len(found.Items)
	}
	spec := serving("serve")
	first := newTestLauncher(t, cluster, Config{})
	before, err := first.Start(t.Context(), spec)
	require.NoError(t, err)
	launchertest.Greeting(t, before)
	other := spec
	other.Model = "letters"
	_, err = first.Start(t.Context(), other)
	require.NoError(t, err)
	second := spec
	second.Replica = "1"
	_, err = first.Start(t.Context(), second)
	require.NoError(t, err)

	same := Config{Installation: first.cfg.Installation}
	_, err = newTestLauncher(t, cluster, same).Start(t.Context(), spec)
	require.ErrorContains(t, err, "--kubernetes-installation")

	first.abandon(t)
	next := newTestLauncher(t, cluster, same)
	after, err := next.Start(t.Context(), spec)
	require.NoError(t, err)
	also, err := next.Start(t.Context(), second)
	require.NoError(t, err)
	require.Contains(t, []string{after.Address(), also.Address()}, before.Address(), "it goes on")
	launchertest.Greeting(t, after)
	launchertest.Greeting(t, also)
	require.Equal(t, 2, count())

	// One that is to be otherwise is started anew, and only as often as it is asked for.
	next.abandon(t)
	last := newTestLauncher(t, cluster, same)
	spec.Container.Environment["GREETING"] = "costs $(HOME) $5"
	changed, err := last.Start(t.Context(), spec)
	require.NoError(t, err)
	require.NotContains(t, []string{after.Address(), also.Address()}, changed.Address())
	require.Contains(t, launchertest.Greeting(t, changed), "GREETING=costs $(HOME) $5")
	require.NoError(t, last.sweep(t.Context(), time.Now()))
	require.Equal(t, 2, count(), "nobody has asked for the other, but it has its time")
	require.NoError(t, last.sweep(t.Context(), time.Now().Add(claimTime)))
	require.Eventually(t, func() bool { return count() == 1 }, patience, poll)
	require.Eventually(t, func() bool {
		pods, err := cluster.Direct().CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
		return err == nil && len(pods.Items) == 1
	}, patience, poll)
	launchertest.Greeting(t, changed)
	require.NoError(t, last.Close())
	require.Eventually(t, func() bool { return count() == 0 }, patience, poll, "a launcher that is closed leaves nothing")
	services, err := cluster.Direct().CoreV1().Services("default").List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	require.Empty(t, services.Items)
}

const (
	patience = 30 * time.Second
	poll     = 10 * time.Millisecond
)

// TestRestarts: Kubernetes starts a container again, and the replica that is started again is bound to it.
func TestRestarts(t *testing.T) {
	cluster := newCluster(t)
	l := newTestLauncher(t, cluster, Config{})
	spec := serving("serve")
	i, err := l.Start(t.Context(), spec)
	require.NoError(t, err)
	launchertest.Greeting(t, i)
	pod := i.(*replica).pod
	require.NoError(t, cluster.Kubelet.Kill(pod, syscall.SIGKILL))
	<-i.Done()
	require.Equal(t, "was ended by the signal killed", i.Exit().String())
	require.Equal(t, []string{"serving"}, i.Logs(5))
	again, err := l.Start(t.Context(), spec)
	require.NoError(t, err)
	require.Equal(t, pod, again.(*replica).pod)
	require.NotEqual(t, i.(*replica).container, again.(*replica).container)
	launchertest.Greeting(t, again)

	// One that nobody starts again goes after a while.
	require.NoError(t, cluster.Kubelet.Kill(pod, syscall.SIGKILL))
	<-again.Done()
	require.NoError(t, l.sweep(t.Context(), time.Now()))
	l.mu.Lock()
	require.Len(t, l.workloads, 1)
	l.mu.Unlock()
	require.NoError(t, l.sweep(t.Context(), time.Now().Add(keepEnded)))
	l.mu.Lock()
	require.Empty(t, l.workloads)
	l.mu.Unlock()
}

func TestRemovedByOthers(t *testing.T) {
	cluster := newCluster(t)
	l := newTestLauncher(t, cluster, Config{StopTimeout: time.Minute})
	i, err := l.Start(t.Context(), serving("serve"))
	require.NoError(t, err)
	launchertest.Greeting(t, i)
	require.NoError(t, cluster.Direct().CoreV1().Pods("default").Delete(t.Context(), i.(*replica).pod, metav1.DeleteOptions{}))
	<-i.Done()
	again, err := l.Start(t.Context(), serving("serve"))
	require.NoError(t, err)
	require.NotEqual(t, i.(*replica).pod, again.(*replica).pod, "Kubernetes makes another pod")
	launchertest.Greeting(t, again)
	// Without a word, as when its node is lost.
	now := int64(0)
	require.NoError(t, cluster.Direct().CoreV1().Pods("default").Delete(t.Context(), again.(*replica).pod, metav1.DeleteOptions{GracePeriodSeconds: &now}))
	<-again.Done()
	require.Contains(t, again.Exit().String(), "was removed from the cluster")
}

func TestAPIServerGoesAndComes(t *testing.T) {
	cluster := newCluster(t)
	l := newTestLauncher(t, cluster, Config{})
	i, err := l.Start(t.Context(), serving("serve"))
	require.NoError(t, err)
	launchertest.Greeting(t, i)
	cluster.SetDown(true)
	other := serving("serve")
	other.Model = "letters"
	_, err = l.Start(t.Context(), other)
	require.ErrorContains(t, err, "the Kubernetes API server does not answer at https://cluster.example.com")
	launchertest.Greeting(t, i)
	select {
	case <-i.Done():
		require.Fail(t, "the replica runs on")
	default:
	}
	require.NoError(t, cluster.Kubelet.Kill(i.(*replica).pod, syscall.SIGKILL))
	cluster.SetDown(false)
	<-i.Done()
	again, err := l.Start(t.Context(), serving("serve"))
	require.NoError(t, err)
	launchertest.Greeting(t, again)
	o, err := l.Start(t.Context(), other)
	require.NoError(t, err)
	launchertest.Greeting(t, o)

	never := newTestLauncher(t, cluster, Config{})
	cluster.SetDown(true)
	_, err = never.Start(t.Context(), serving("serve"))
	require.ErrorContains(t, err, "does not answer")
	cluster.SetDown(false)
}

func TestOwner(t *testing.T) {
	cluster := newCluster(t)
	pods := cluster.Direct().CoreV1().Pods("default")
	own, err := pods.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "clipper-abstraction-0", Namespace: "default"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	l := newTestLauncher(t, cluster, Config{OwnerPod: own.Name})
	i, err := l.Start(t.Context(), serving("serve"))
	require.NoError(t, err)
	now := int64(0)
	require.NoError(t, pods.Delete(t.Context(), own.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
	<-i.Done()
	_, err = newTestLauncher(t, cluster, Config{OwnerPod: "nobody"}).Start(t.Context(), serving("serve"))
	require.ErrorContains(t, err, "--kubernetes-owner-pod")
}

func TestStartExplains(t *testing.T) {
	cluster := newCluster(t)
	template := write(t, "spec: {nodeSelector: {disk: fast}}")
	for name, test := range map[string]struct {
		cfg   Config
		image string
		want  string
	}{
		"no such image": {Config{}, "registry.example.com/other:1", "the node cannot get the image registry.example.com/other:1 (ErrImagePull: failed to resolve reference registry.example.com/other:1: not found): check its name"},
		"no such node":  {Config{PodTemplate: template}, image, "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.): ask for less memory"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newTestLauncher(t, cluster, test.cfg)
			spec := serving("serve")
			spec.Container.GetImage().Reference = test.image
			_, err := l.Start(t.Context(), spec)
			require.ErrorContains(t, err, test.want)
			_, err = l.Start(t.Context(), spec)
			require.ErrorContains(t, err, test.want, "and again")
		})
	}
	t.Run("not in time", func(t *testing.T) {
		l := newTestLauncher(t, cluster, Config{})
		spec := stuck()
		spec.Container.StartTimeout = durationpb.New(time.Nanosecond)
		_, err := l.Start(t.Context(), spec)
		require.ErrorContains(t, err, "no pod of it has started for 1ns: ")
	})
	t.Run("the caller goes", func(t *testing.T) {
		l := newTestLauncher(t, cluster, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		started := make(chan error)
		go func() {
			_, err := l.Start(ctx, stuck())
			started <- err
		}()
		require.Eventually(t, func() bool { return l.deployments(t) == 1 }, patience, poll)
		cancel()
		require.ErrorIs(t, <-started, context.Canceled)
		require.Eventually(t, func() bool { return l.deployments(t) == 0 }, patience, poll)
	})
}

// stuck is a replica whose container is never made.
func stuck() launcher.Spec {
	spec := serving("serve")
	spec.Container.GetImage().Reference = "stuck:1"
	return spec
}

// deployments counts those of the installation.
func (l *Launcher) deployments(t *testing.T) int {
	found, err := l.api.deployments.List(t.Context(), metav1.ListOptions{LabelSelector: l.own().String()})
	require.NoError(t, err)
	return len(found.Items)
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "template.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestTemplate(t *testing.T) {
	usual := write(t, `
metadata: {labels: {team: vision}}
spec:
  nodeSelector: {pool: models}
  priorityClassName: serving
  serviceAccountName: models
  imagePullSecrets: [{name: registry}]
  containers:
  - name: proxy
    image: proxy:1
  - name: model
    env: [{name: OMP_NUM_THREADS, value: "1"}, {name: BIAS, value: "1"}]
    resources: {requests: {cpu: 100m}}
`)
	gpu := write(t, `
spec:
  tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]
  securityContext: {runAsUser: 1000}
`)
	l := newTestLauncher(t, newCluster(t), Config{PodTemplate: usual, GPUPodTemplate: gpu, ModelsClaim: "models", StopTimeout: 1500 * time.Millisecond})
	spec := launcher.Spec{Model: "m", Version: "1", Replica: "0", Container: &clipperv1.Container{
		Source:      &clipperv1.Container_Adapter{Adapter: &clipperv1.Adapter{Framework: "SKLearn", ModelPath: "/models/m/1/model.joblib"}},
		Environment: map[string]string{"BIAS": "2"},
		Resources:   &clipperv1.Resources{Cpus: 0.5, MemoryBytes: 1 << 30},
	}}
	got, err := l.template(spec)
	require.NoError(t, err)
	require.Equal(t, "vision", got.Labels["team"])
	require.Equal(t, map[string]string{"pool": "models"}, got.Spec.NodeSelector)
	require.Equal(t, "serving", got.Spec.PriorityClassName)
	require.EqualValues(t, 2, *got.Spec.TerminationGracePeriodSeconds)
	require.False(t, *got.Spec.AutomountServiceAccountToken)
	require.Len(t, got.Spec.Containers, 2)
	c := got.Spec.Containers[1]
	require.Equal(t, "clipper-sklearn", c.Image)
	require.Equal(t, []corev1.EnvVar{
		{Name: "OMP_NUM_THREADS", Value: "1"},
		{Name: "HOME", Value: "/tmp"},
		{Name: "BIAS", Value: "2"},
		{Name: "CLIPPER_CONTAINER_ADDRESS", Value: "0.0.0.0:7000"},
		{Name: "CLIPPER_MODEL_NAME", Value: "m"},
		{Name: "CLIPPER_MODEL_VERSION", Value: "1"},
		{Name: "CLIPPER_MODEL_PATH", Value: "/model"},
	}, c.Env)
	require.Equal(t, "500m", c.Resources.Limits.Cpu().String())
	require.Equal(t, "500m", c.Resources.Requests.Cpu().String())
	require.Equal(t, "1Gi", c.Resources.Limits.Memory().String())
	require.Equal(t, corev1.VolumeMount{Name: "models", MountPath: "/model", SubPath: "m/1/model.joblib", ReadOnly: true}, c.VolumeMounts[1])
	require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem)
	require.EqualValues(t, nobody, *got.Spec.SecurityContext.RunAsUser)
	require.EqualValues(t, 7000, c.ReadinessProbe.GRPC.Port)

	spec.Container.Resources.Gpus = 2
	got, err = l.template(spec)
	require.NoError(t, err)
	require.Empty(t, got.Spec.NodeSelector, "the other template")
	require.Len(t, got.Spec.Tolerations, 1)
	require.EqualValues(t, 1000, *got.Spec.SecurityContext.RunAsUser)
	require.True(t, resource.MustParse("2").Equal(got.Spec.Containers[0].Resources.Limits["nvidia.com/gpu"]))
}

func TestRefuses(t *testing.T) {
	cluster := newCluster(t)
	adapter := func(path string) *clipperv1.Container {
		return &clipperv1.Container{Source: &clipperv1.Container_Adapter{Adapter: &clipperv1.Adapter{Framework: "sklearn", ModelPath: path}}}
	}
	for name, test := range map[string]struct {
		claim     string
		container *clipperv1.Container
		field     string
		want      string
	}{
		"an image that is none":   {"", imageContainer("Not An Image"), "image.reference", "no name of an image"},
		"no volume":               {"", adapter("/models/m"), "adapter.model_path", "--kubernetes-models-claim"},
		"not on the volume":       {"models", adapter("/modelsX/m"), "adapter.model_path", "is not below /models"},
		"not any more":            {"models", adapter("/models/../etc/passwd"), "adapter.model_path", "is not below /models"},
		"on the volume":           {"models", adapter("/models/m"), "", ""},
		"an adapter with no file": {"", adapter(""), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := newTestLauncher(t, cluster, Config{ModelsClaim: test.claim}).Check(test.container)
			if test.field == "" {
				require.NoError(t, err)
				return
			}
			var field *launcher.FieldError
			require.ErrorAs(t, err, &field)
			require.Equal(t, test.field, field.Field)
			require.ErrorContains(t, err, test.want)
		})
	}
	l := newTestLauncher(t, cluster, Config{})
	require.ErrorIs(t, l.Check(&clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{}}}), launcher.ErrUnsupported)
	for name, test := range map[string]struct {
		cfg  Config
		want string
	}{
		"installation":   {Config{Installation: "a/b"}, "kubernetes-installation"},
		"no file":        {Config{PodTemplate: "/no/such/file"}, "kubernetes-pod-template"},
		"unknown field":  {Config{PodTemplate: write(t, "spec: {nodeSelectr: {}}")}, `unknown field "nodeSelectr"`},
		"restart policy": {Config{GPUPodTemplate: write(t, "spec: {restartPolicy: Never}")}, "know only Always"},
		"host network":   {Config{PodTemplate: write(t, "spec: {hostNetwork: true}")}, "hostNetwork"},
	} {
		_, err := newLauncher(test.cfg, nil, "", slog.New(slog.DiscardHandler))
		require.ErrorContains(t, err, test.want, name)
	}
	t.Setenv("KUBECONFIG", "/no/such/file")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	_, err := New(Config{}, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "no cluster is known: run in a pod, or name the cluster's kubeconfig")
}
