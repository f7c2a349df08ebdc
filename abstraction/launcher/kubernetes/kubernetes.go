// SPDX-License-Identifier: Apache-2.0

// Package kubernetes runs replicas as pods of a Kubernetes cluster: for each model version a Deployment, a headless
// Service and a pod disruption budget. The Deployment has as many pods as replicas are started; a replica is bound to
// one of them as soon as its container runs, and found through the Service's EndpointSlices.
//
// Kubernetes starts what ends again, in the same pod or in another one. A replica ends when its container does. When
// it is started again it is bound to the next container that runs, so of the two back-offs, Kubernetes' and that of
// the one who starts replicas, the longer one counts.
//
// Objects carry labels that say which installation they belong to. They outlive a launcher that is killed; the next
// one takes them over when the same version is started, and removes those that nobody asks for. A lock file keeps two
// launchers of one machine from having one installation.
//
// The API server is not needed before the first replica is started. While it does not answer, replicas run on; when it
// answers again, that is looked at.
package kubernetes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/clipper-serving/clipper/abstraction/launcher"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Config is how the launcher is set up.
type Config struct {
	// Kubeconfig, if it is empty, is looked for where kubectl looks; in a pod its service account serves.
	Kubeconfig string `name:"kubeconfig" type:"path" help:"File that says where the cluster is. Default: the service account of the pod that this runs in; elsewhere $$KUBECONFIG or ~/.kube/config."`
	// Context is one of the kubeconfig.
	Context string `name:"context" help:"Context of the kubeconfig. Default: its current one."`
	// Namespace exists already.
	Namespace string `name:"namespace" help:"Namespace of the models' pods. Default: that of the pod that this runs in, or of the kubeconfig's context."`
	// Installation sets the objects of one server apart from those of another that uses the same namespace.
	Installation string `name:"installation" help:"Name of this server among those that use the same namespace, in labels and names. Default: the host name, which in a pod is the pod's name."`
	// OwnerPod is a pod of the namespace.
	OwnerPod string `name:"owner-pod" help:"Pod that this runs in, if the models' pods are to go when it is deleted; of the same namespace as they are."`
	// AdapterImage is the image of an adapter; {framework} in it stands for the framework's name.
	AdapterImage string `name:"adapter-image" default:"clipper-{framework}" help:"Image that serves saved models; {framework} in it stands for the framework."`
	// PodTemplate and GPUPodTemplate are files with a PodTemplateSpec in YAML.
	PodTemplate    string `name:"pod-template" type:"path" help:"YAML file with the pod template that models' pods are made from: node selector, tolerations, affinity, priority class, service account, pull secrets, and more."`
	GPUPodTemplate string `name:"gpu-pod-template" type:"path" help:"The same for models with GPUs. Default: that of the other models."`
	// GPUResource is an extended resource.
	GPUResource string `name:"gpu-resource" default:"nvidia.com/gpu" help:"Name of the resource that a GPU is, in this cluster."`
	// ModelsClaim and ModelsDir say how pods get saved models.
	ModelsClaim string `name:"models-claim" help:"Persistent volume claim with the saved models, which pods mount read-only."`
	ModelsDir   string `name:"models-dir" default:"/models" help:"Directory at which this server sees the claim's volume; saved models are deployed by their paths below it."`
	// StopTimeout is how long a replica may take to finish what it has.
	StopTimeout time.Duration `kong:"-"`
}

const (
	// claimTime is how long the objects of a launcher that has died wait to be taken over.
	claimTime = time.Minute
	// keepEnded is how long the pod of a replica that failed waits for the replica to be started again. It is longer
	// than the longest pause before that.
	keepEnded = 6 * time.Minute
	// callTimeout bounds one call to the API server that nobody waits for.
	callTimeout = 10 * time.Second
	// defaultStartTimeout is for containers that do not say how long they take to start.
	defaultStartTimeout = 2 * time.Minute
)

// Launcher runs pods.
type Launcher struct {
	cfg       Config
	log       *slog.Logger
	api       *api
	server    string // the API server, for messages
	templates templates

	closed context.Context // for what the launcher does in the background
	close  context.CancelFunc
	sweeps sync.WaitGroup

	opening sync.Mutex // held by who opens
	place   *place     // nil until it is open

	mu        sync.Mutex
	ended     bool
	workloads map[string]*workload // by name
}

var _ launcher.Launcher = (*Launcher)(nil)

// An installation is part of a label and of names.
var installations = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)

// New returns a launcher. It does not ask the API server yet.
func New(cfg Config, log *slog.Logger) (*Launcher, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = cfg.Kubeconfig
	found := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: cfg.Context})
	settings, err := found.ClientConfig()
	if err != nil {
		if clientcmd.IsEmptyConfig(err) {
			err = errors.New("no cluster is known: run in a pod, or name the cluster's kubeconfig with --kubernetes-kubeconfig or KUBECONFIG")
		}
		return nil, fmt.Errorf("set up the Kubernetes launcher: %w", err)
	}
	if cfg.Namespace == "" {
		if cfg.Namespace, _, err = found.Namespace(); err != nil {
			return nil, fmt.Errorf("set up the Kubernetes launcher: %w", err)
		}
	}
	settings.UserAgent = "clipper"
	settings.QPS, settings.Burst = 50, 100 // many replicas are started and stopped at once
	settings.WarningHandler = rest.NoWarnings{}
	client, err := connect(settings, cfg.Namespace)
	if err != nil {
		return nil, fmt.Errorf("set up the Kubernetes launcher: %w", err)
	}
	return newLauncher(cfg, client, settings.Host, log)
}

func newLauncher(cfg Config, client *api, server string, log *slog.Logger) (*Launcher, error) {
	if cfg.Installation == "" {
		name, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("set up the Kubernetes launcher: %w", err)
		}
		cfg.Installation = name
	}
	if !installations.MatchString(cfg.Installation) {
		return nil, fmt.Errorf("kubernetes-installation: %q: want 1 to 63 letters, digits, '.', '_' or '-', starting and ending with a letter or digit", cfg.Installation)
	}
	for _, d := range []struct {
		value  *string
		preset string
	}{
		{&cfg.Namespace, metav1.NamespaceDefault},
		{&cfg.AdapterImage, "clipper-{framework}"},
		{&cfg.GPUResource, "nvidia.com/gpu"},
		{&cfg.ModelsDir, "/models"},
	} {
		if *d.value == "" {
			*d.value = d.preset
		}
	}
	if cfg.StopTimeout == 0 {
		cfg.StopTimeout = 10 * time.Second
	}
	templates, err := readTemplates(cfg)
	if err != nil {
		return nil, err
	}
	closed, closeNow := context.WithCancel(context.Background())
	return &Launcher{
		cfg: cfg, log: log, api: client, server: server, templates: templates,
		closed: closed, close: closeNow, workloads: map[string]*workload{},
	}, nil
}

// Check implements launcher.Launcher.
func (l *Launcher) Check(c *clipperv1.Container) error {
	if _, err := launcher.ImageName(c, l.cfg.AdapterImage); err != nil {
		return err
	}
	_, err := l.modelPath(c)
	return err
}

// modelPath returns where the saved model is in the claim's volume, or "" if the container has none.
func (l *Launcher) modelPath(c *clipperv1.Container) (string, error) {
	saved := c.GetAdapter().GetModelPath()
	if saved == "" {
		return "", nil
	}
	if l.cfg.ModelsClaim == "" {
		return "", launcher.Fieldf("adapter.model_path", "pods cannot see %s: put saved models on a volume and name its claim with --kubernetes-models-claim, or deploy an image that has the model in it", saved)
	}
	below, err := filepath.Rel(l.cfg.ModelsDir, path.Clean(saved))
	if err != nil || below == ".." || strings.HasPrefix(below, "../") {
		return "", launcher.Fieldf("adapter.model_path", "%s is not below %s, where the volume of the claim %s is: put the saved model there", saved, l.cfg.ModelsDir, l.cfg.ModelsClaim)
	}
	return below, nil
}

var errClosed = errors.New("the launcher is closed")

func (l *Launcher) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// Start implements launcher.Launcher. It returns once a container of the version runs that no other replica is bound
// to, or when Kubernetes says why none can.
func (l *Launcher) Start(ctx context.Context, spec launcher.Spec) (launcher.Instance, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	template, err := l.template(spec)
	if err != nil {
		return nil, err
	}
	if l.isClosed() {
		return nil, errClosed
	}
	where, err := l.open(ctx)
	if err != nil {
		return nil, cmp.Or(ctx.Err(), err)
	}
	w, s, err := l.enter(where, spec, template)
	if err != nil {
		return nil, err
	}
	r, err := w.start(ctx, s)
	if err != nil {
		if ctx.Err() != nil || l.isClosed() {
			w.release(s)
			return nil, cmp.Or(ctx.Err(), err)
		}
		w.failed(s, time.Now())
		return nil, err
	}
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
	var running []*replica
	var idle []*slot
	for _, w := range l.workloads {
		for _, s := range w.slots {
			if s.replica != nil {
				running = append(running, s.replica)
			} else if !s.idle.IsZero() {
				idle = append(idle, s)
			}
		}
	}
	l.mu.Unlock()

	l.close()
	l.sweeps.Wait()
	now, cancel := context.WithCancel(context.Background())
	cancel()
	var stops sync.WaitGroup
	for _, r := range running {
		stops.Go(func() { r.Stop(now) })
	}
	for _, s := range idle {
		stops.Go(func() { s.workload.release(s) })
	}
	stops.Wait()
	l.opening.Lock()
	defer l.opening.Unlock()
	return l.leave()
}

// Names of the labels of what belongs to an installation. Where a name is no label value, the label has one that is
// derived from it, and an annotation of the same key has the name.
const (
	labelInstallation = "clipper.installation"
	labelModel        = "clipper.model"
	labelVersion      = "clipper.version"
	labelName         = "clipper.name" // the Deployment's name: which pods are its own
	labelSpec         = "clipper.spec" // a digest of the pod template
)

// portName and port are where a replica serves.
const (
	portName = "grpc"
	port     = 7000
)

const listenAddress = "0.0.0.0:7000"

// containerName is the name of the container that serves, in every pod.
const containerName = "model"

func containerStatus(p *corev1.Pod) *corev1.ContainerStatus {
	for i := range p.Status.ContainerStatuses {
		if p.Status.ContainerStatuses[i].Name == containerName {
			return &p.Status.ContainerStatuses[i]
		}
	}
	return nil
}
