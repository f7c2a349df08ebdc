// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"

	"github.com/clipper-serving/clipper/abstraction/launcher"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	// modelPath is where a replica has its saved model.
	modelPath = "/model"
	// nobody is the user of a replica whose template names none: the image's may be root, or a name, of which the
	// kubelet cannot know that it is not root.
	nobody = 65534
)

// templates are what pods are made from.
type templates struct{ usual, gpu corev1.PodTemplateSpec }

func readTemplates(cfg Config) (templates, error) {
	var t templates
	var err error
	if t.usual, err = readTemplate("kubernetes-pod-template", cfg.PodTemplate); err != nil {
		return t, err
	}
	t.gpu = t.usual
	if cfg.GPUPodTemplate != "" {
		t.gpu, err = readTemplate("kubernetes-gpu-pod-template", cfg.GPUPodTemplate)
	}
	return t, err
}

func readTemplate(setting, file string) (corev1.PodTemplateSpec, error) {
	var t corev1.PodTemplateSpec
	if file == "" {
		return t, nil
	}
	text, err := os.ReadFile(file)
	if err == nil {
		err = yaml.UnmarshalStrict(text, &t)
	}
	switch {
	case err != nil:
	case t.Spec.RestartPolicy != "" && t.Spec.RestartPolicy != corev1.RestartPolicyAlways:
		err = errors.New("spec.restartPolicy: Deployments know only Always: leave it out")
	case t.Spec.HostNetwork:
		err = errors.New("spec.hostNetwork: replicas of one node would have one port: leave it out")
	}
	if err != nil {
		return t, fmt.Errorf("%s: %s: %w", setting, file, err)
	}
	return t, nil
}

// template says what the pods of a version are to be like. Their labels are not in it yet.
func (l *Launcher) template(spec launcher.Spec) (corev1.PodTemplateSpec, error) {
	image, err := launcher.ImageName(spec.Container, l.cfg.AdapterImage)
	if err != nil {
		return corev1.PodTemplateSpec{}, err
	}
	saved, err := l.modelPath(spec.Container)
	if err != nil {
		return corev1.PodTemplateSpec{}, err
	}
	base := &l.templates.usual
	if spec.Container.GetResources().GetGpus() > 0 {
		base = &l.templates.gpu
	}
	t := base.DeepCopy()
	pod := &t.Spec
	c := servingContainer(pod)
	c.Image = image
	c.Ports = []corev1.ContainerPort{{Name: portName, ContainerPort: port, Protocol: corev1.ProtocolTCP}}
	setEnvironment(c, spec)
	l.setResources(c, spec.Container.GetResources())
	secure(pod, c)
	if c.ReadinessProbe == nil {
		c.ReadinessProbe = &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: port}},
			PeriodSeconds: 5, TimeoutSeconds: 2,
		}
	}
	addVolume(pod, c, corev1.Volume{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}, corev1.VolumeMount{MountPath: "/tmp"})
	if saved != "" {
		claim := &corev1.PersistentVolumeClaimVolumeSource{ClaimName: l.cfg.ModelsClaim, ReadOnly: true}
		mount := corev1.VolumeMount{MountPath: modelPath, ReadOnly: true}
		if saved != "." {
			mount.SubPath = saved
		}
		addVolume(pod, c, corev1.Volume{Name: "models", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: claim}}, mount)
		c.Env = append(c.Env, corev1.EnvVar{Name: launcher.EnvModelPath, Value: modelPath})
	}
	grace := int64((l.cfg.StopTimeout + time.Second - 1) / time.Second)
	pod.TerminationGracePeriodSeconds = &grace
	no := false
	if pod.AutomountServiceAccountToken == nil { // A model has nothing to ask of the API server.
		pod.AutomountServiceAccountToken = &no
	}
	pod.EnableServiceLinks = &no // Its environment would depend on what else is in the namespace.
	return *t, nil
}

// servingContainer returns the container of the template that serves, made if there is none.
func servingContainer(pod *corev1.PodSpec) *corev1.Container {
	i := slices.IndexFunc(pod.Containers, func(c corev1.Container) bool { return c.Name == containerName })
	if i < 0 {
		pod.Containers = slices.Insert(pod.Containers, 0, corev1.Container{Name: containerName})
		i = 0
	}
	return &pod.Containers[i]
}

// setEnvironment adds the variables of a version to those of the template, which it may replace.
func setEnvironment(c *corev1.Container, spec launcher.Spec) {
	set := func(name, text string) {
		c.Env = slices.DeleteFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == name })
		c.Env = append(c.Env, corev1.EnvVar{Name: name, Value: literal(text)})
	}
	if !slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == "HOME" }) {
		set("HOME", "/tmp") // The user may have none; many frameworks write there.
	}
	variables := spec.Container.GetEnvironment()
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		set(name, variables[name])
	}
	set(launcher.EnvAddress, listenAddress)
	set(launcher.EnvModelName, spec.Model)
	set(launcher.EnvModelVersion, spec.Version)
}

// literal keeps Kubernetes from taking $(NAME) in a value for a reference; $$ is how it spells $.
func literal(text string) string { return strings.ReplaceAll(text, "$", "$$") }

// setResources asks for as much as may be used, so that a node has it.
func (l *Launcher) setResources(c *corev1.Container, r *clipperv1.Resources) {
	limits := corev1.ResourceList{}
	if n := r.GetCpus(); n > 0 {
		limits[corev1.ResourceCPU] = *resource.NewMilliQuantity(max(int64(n*1000), 1), resource.DecimalSI)
	}
	if n := r.GetMemoryBytes(); n > 0 {
		limits[corev1.ResourceMemory] = *resource.NewQuantity(int64(n), resource.BinarySI) //nolint:gosec // checked when the version was deployed
	}
	if n := r.GetGpus(); n > 0 {
		limits[corev1.ResourceName(l.cfg.GPUResource)] = *resource.NewQuantity(int64(n), resource.DecimalSI)
	}
	for name, quantity := range limits {
		for _, list := range []*corev1.ResourceList{&c.Resources.Limits, &c.Resources.Requests} {
			if *list == nil {
				*list = corev1.ResourceList{}
			}
			(*list)[name] = quantity
		}
	}
}

// secure gives a replica no right that the template does not give it.
func secure(pod *corev1.PodSpec, c *corev1.Container) {
	yes, no, user := true, false, int64(nobody)
	if pod.SecurityContext == nil {
		pod.SecurityContext = &corev1.PodSecurityContext{}
	}
	p := pod.SecurityContext
	p.RunAsNonRoot = preset(p.RunAsNonRoot, &yes)
	p.RunAsUser = preset(p.RunAsUser, &user)
	p.RunAsGroup = preset(p.RunAsGroup, &user)
	p.SeccompProfile = preset(p.SeccompProfile, &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault})
	if c.SecurityContext == nil {
		c.SecurityContext = &corev1.SecurityContext{}
	}
	s := c.SecurityContext
	s.AllowPrivilegeEscalation = preset(s.AllowPrivilegeEscalation, &no)
	s.ReadOnlyRootFilesystem = preset(s.ReadOnlyRootFilesystem, &yes)
	s.Capabilities = preset(s.Capabilities, &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}})
}

func preset[T any](given, otherwise *T) *T {
	if given != nil {
		return given
	}
	return otherwise
}

// addVolume adds a volume, unless the template mounts one at the same place.
func addVolume(pod *corev1.PodSpec, c *corev1.Container, v corev1.Volume, m corev1.VolumeMount) {
	if slices.ContainsFunc(c.VolumeMounts, func(other corev1.VolumeMount) bool { return other.MountPath == m.MountPath }) {
		return
	}
	for i := 0; slices.ContainsFunc(pod.Volumes, func(other corev1.Volume) bool { return other.Name == v.Name }); i++ {
		v.Name = "clipper-" + strconv.Itoa(i)
	}
	m.Name = v.Name
	pod.Volumes = append(pod.Volumes, v)
	c.VolumeMounts = append(c.VolumeMounts, m)
}

// label completes a template with the labels of a version and returns the digest of all of it.
func label(t *corev1.PodTemplateSpec, labels, annotations map[string]string) (string, error) {
	if t.Labels == nil {
		t.Labels = map[string]string{}
	}
	if t.Annotations == nil {
		t.Annotations = map[string]string{}
	}
	maps.Copy(t.Labels, labels)
	maps.Copy(t.Annotations, annotations)
	text, err := json.Marshal(t)
	if err != nil {
		return "", err
	}
	sum := digest(string(text))[:40]
	t.Labels[labelSpec] = sum
	return sum, nil
}
