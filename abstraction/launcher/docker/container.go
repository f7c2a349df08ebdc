// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/clipper-serving/clipper/abstraction/launcher"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// port is where a replica serves inside its container.
var port = network.MustParsePort("7000/tcp")

const (
	// modelPath is where a replica has its saved model.
	modelPath = "/model"
	// nobody is the user of an image that has none but root, when Clipper runs as root.
	nobody = "65534:65534"
)

// description is a container to be.
type description struct {
	options client.ContainerCreateOptions
	image   string
}

// describe says what container a replica is to have.
func (l *Launcher) describe(ctx context.Context, where *place, spec launcher.Spec, image string) (description, error) {
	found, err := l.find(ctx, image)
	if err != nil {
		return description{}, err
	}
	env := make([]string, 0, len(spec.Container.GetEnvironment())+4)
	for name, value := range spec.Container.GetEnvironment() {
		env = append(env, name+"="+value)
	}
	slices.Sort(env)
	env = append(env,
		launcher.EnvAddress+"=0.0.0.0:"+port.Port(),
		launcher.EnvModelName+"="+spec.Model,
		launcher.EnvModelVersion+"="+spec.Version,
	)
	resources := resourcesOf(spec.Container.GetResources())
	host := &container.HostConfig{
		NetworkMode:    container.NetworkMode(where.network),
		ReadonlyRootfs: true,
		// Java's libraries unpack native code there, as do compilers at run time.
		Tmpfs:       map[string]string{"/tmp": "exec"},
		CapDrop:     []string{"ALL"},
		SecurityOpt: []string{"no-new-privileges"},
		// Clipper starts it again, with growing pauses and where that makes sense.
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
		LogConfig:     container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "10m", "max-file": "2"}},
		Resources:     resources,
	}
	if l.cfg.Publish.IsValid() {
		host.PortBindings = network.PortMap{port: {{HostIP: l.cfg.Publish}}}
	}
	if path := spec.Container.GetAdapter().GetModelPath(); path != "" {
		env = append(env, launcher.EnvModelPath+"="+modelPath)
		host.Mounts = []mount.Mount{{Type: mount.TypeBind, Source: path, Target: modelPath, ReadOnly: true}}
	}
	user := ""
	if declared := found.Config; declared == nil || isRoot(declared.User) {
		// It may have no home; many frameworks write there.
		user, env = unprivileged(), append(env, "HOME=/tmp")
	}
	options := client.ContainerCreateOptions{
		Name: containerName(l.cfg.Installation, spec),
		Config: &container.Config{
			Image: found.ID, User: user, Env: env,
			ExposedPorts: network.PortSet{port: {}},
			Labels: map[string]string{
				labelInstallation: l.cfg.Installation,
				labelModel:        spec.Model,
				labelVersion:      spec.Version,
				labelReplica:      spec.Replica,
			},
		},
		HostConfig: host,
	}
	text, err := json.Marshal(options)
	if err != nil {
		return description{}, err
	}
	digest := sha256.Sum256(text)
	options.Config.Labels[labelSpec] = hex.EncodeToString(digest[:])
	return description{options, image}, nil
}

func resourcesOf(r *clipperv1.Resources) container.Resources {
	pids := int64(defaultPIDs)
	limits := container.Resources{
		PidsLimit:  &pids,
		NanoCPUs:   int64(r.GetCpus() * 1e9),
		Memory:     int64(r.GetMemoryBytes()), //nolint:gosec // checked when the version was deployed
		MemorySwap: int64(r.GetMemoryBytes()), //nolint:gosec // memory and swap together: no swap
	}
	if n := r.GetGpus(); n > 0 {
		limits.DeviceRequests = []container.DeviceRequest{{Count: int(n), Capabilities: [][]string{{"gpu"}}}}
	}
	return limits
}

func isRoot(user string) bool {
	name, _, _ := strings.Cut(user, ":")
	return name == "" || name == "root" || name == "0"
}

// unprivileged is the user of Clipper, who can read the saved model; or nobody.
func unprivileged() string {
	if os.Getuid() <= 0 {
		return nobody
	}
	return strconv.Itoa(os.Getuid()) + ":" + strconv.Itoa(os.Getgid())
}

// containerName is for people; labels say what a container is. The digest tells apart what is the same when it is
// joined.
func containerName(installation string, spec launcher.Spec) string {
	parts := []string{installation, spec.Model, spec.Version, spec.Replica}
	digest := sha256.Sum256([]byte(strings.Join(parts, "/")))
	return strings.Join(parts, ".") + "." + hex.EncodeToString(digest[:4])
}

// find returns an image, pulled if need be.
func (l *Launcher) find(ctx context.Context, image string) (client.ImageInspectResult, error) {
	found, err := l.engine.ImageInspect(ctx, image)
	if err == nil || !errdefs.IsNotFound(err) {
		if err != nil {
			err = l.explain("look for the image "+image, err)
		}
		return found, err
	}
	if !l.cfg.Pull {
		return found, fmt.Errorf("the engine does not have the image %s, and is not to pull images: build it, or pull it there", image)
	}
	l.log.Info("pulling an image", "image", image)
	pull, err := l.engine.ImagePull(ctx, image, client.ImagePullOptions{})
	if err == nil {
		err = pull.Wait(ctx)
	}
	if err != nil {
		return found, l.explain(fmt.Sprintf("the engine does not have the image %s and cannot pull it: build it there (docker build -t %s ...), or check its name", image, image), err)
	}
	found, err = l.engine.ImageInspect(ctx, image)
	if err != nil {
		err = l.explain("look for the image "+image, err)
	}
	return found, err
}

// adopt returns the container of a replica that runs already as it is to be, or "". Any other of the same
// replica is removed.
func (l *Launcher) adopt(ctx context.Context, wanted description) (string, error) {
	labels := wanted.options.Config.Labels
	filters := client.Filters{}
	for _, label := range []string{labelInstallation, labelModel, labelVersion, labelReplica} {
		filters.Add("label", label+"="+labels[label])
	}
	found, err := l.engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	if err != nil {
		return "", l.explain("look for containers", err)
	}
	id := ""
	for _, c := range found.Items {
		if c.State == container.StateRunning && c.Labels[labelSpec] == labels[labelSpec] && id == "" && !l.owns(c.ID) {
			id = c.ID
			continue
		}
		if err := l.removeNow(ctx, c.ID); err != nil {
			return "", l.explain("remove the container before", err)
		}
	}
	return id, nil
}

func (l *Launcher) owns(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.replicas[id] != nil
}

// run starts a new container.
func (l *Launcher) run(ctx context.Context, wanted description) (string, error) {
	made, err := l.engine.ContainerCreate(ctx, wanted.options)
	if err != nil {
		return "", l.explain("make a container of the image "+wanted.image, err)
	}
	if _, err := l.engine.ContainerStart(ctx, made.ID, client.ContainerStartOptions{}); err != nil {
		l.remove(made.ID)
		return "", l.explain("start a container of the image "+wanted.image, err)
	}
	return made.ID, nil
}

// remove removes a container, whatever has become of the caller.
func (l *Launcher) remove(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if err := l.removeNow(ctx, id); err != nil {
		l.log.Warn("a container was not removed", "container", id[:12], "error", err)
	}
}

func (l *Launcher) removeNow(ctx context.Context, id string) error {
	_, err := l.engine.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.replicas[id]; r != nil {
		select {
		case <-r.done:
			l.before[r.name] = r.lines
		default:
		}
	}
	delete(l.replicas, id)
	return nil
}
