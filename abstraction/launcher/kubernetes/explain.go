// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/clipper-serving/clipper/abstraction/launcher"
)

// state is what a pod does, as far as binding a replica to it is concerned.
type state struct {
	container string // the id of the container that runs, or that ended last
	ended     bool   // it has ended
	backOff   bool   // Kubernetes waits before it starts the container again
	problem   bool   // it does not start by itself, as far as one knows
	text      string // what the pod waits for, for people
}

// stateOf looks at a pod.
func stateOf(pod *corev1.Pod) state {
	c := containerStatus(pod)
	if c == nil {
		return unstarted(pod)
	}
	s := state{}
	switch {
	case c.State.Running != nil:
		return state{container: c.ContainerID, text: "it runs, but no EndpointSlice of its Service has its address yet"}
	case c.State.Terminated != nil:
		return state{container: c.State.Terminated.ContainerID, ended: true, text: "its container has ended"}
	case c.LastTerminationState.Terminated != nil:
		s.container, s.ended = c.LastTerminationState.Terminated.ContainerID, true
	}
	waiting := c.State.Waiting
	if waiting == nil {
		s.text = "the pod " + pod.Name + " has not started its container yet"
		return s
	}
	detail := waiting.Reason
	if waiting.Message != "" {
		detail += ": " + waiting.Message
	}
	switch waiting.Reason {
	case "CrashLoopBackOff":
		s.backOff, s.text = true, "Kubernetes waits before it starts the container again: "+waiting.Message
	case "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable", "ImageInspectError":
		s.problem = true
		s.text = fmt.Sprintf("the node cannot get the image %s (%s): check its name, that the registry has it, and that the pod template has the pull secret for it", imageOf(pod), detail)
	case "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError", "PostStartHookError":
		s.problem = true
		s.text = fmt.Sprintf("the node cannot make the container (%s): check the pod template, and the image", detail)
	default: // ContainerCreating, PodInitializing
		s.text = fmt.Sprintf("the pod %s on the node %s waits: %s; `kubectl describe pod %s` shows the events", pod.Name, pod.Spec.NodeName, detail, pod.Name)
	}
	return s
}

// unstarted looks at a pod of whose container nothing is known yet.
func unstarted(pod *corev1.Pod) state {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
			return state{problem: true, text: fmt.Sprintf("no node takes the pod %s (%s): ask for less memory, processors or GPUs, add a node, or correct the node selector and tolerations of the pod template", pod.Name, c.Message)}
		}
	}
	if pod.Spec.NodeName == "" {
		return state{text: "the pod " + pod.Name + " waits for a node"}
	}
	return state{text: fmt.Sprintf("the pod %s waits for the kubelet of the node %s", pod.Name, pod.Spec.NodeName)}
}

func imageOf(pod *corev1.Pod) string {
	for _, c := range pod.Spec.Containers {
		if c.Name == containerName {
			return c.Image
		}
	}
	return ""
}

// exitOf says how the container of that id ended, whether another one of the pod has been started since, and whether
// it has ended at all.
func exitOf(pod *corev1.Pod, id string) (exit launcher.Exit, previous, ended bool) {
	c := containerStatus(pod)
	switch {
	case c == nil:
	case c.State.Terminated != nil && c.State.Terminated.ContainerID == id:
		return explained(pod, c.State.Terminated), false, true
	case c.LastTerminationState.Terminated != nil && c.LastTerminationState.Terminated.ContainerID == id:
		return explained(pod, c.LastTerminationState.Terminated), c.State.Running != nil, true
	case c.State.Running != nil && c.ContainerID != id:
		return launcher.Exit{Code: -1, Cause: "ended, and so has at least one that Kubernetes started after it"}, false, true
	}
	if pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
		return explained(pod, &corev1.ContainerStateTerminated{ExitCode: -1}), false, true
	}
	return launcher.Exit{}, false, false
}

func explained(pod *corev1.Pod, t *corev1.ContainerStateTerminated) launcher.Exit {
	// By the shells' convention; a process that a signal ends has no code of its own.
	const signals = 128
	exit := launcher.Exit{Code: int(t.ExitCode), OutOfMemory: t.Reason == "OOMKilled"}
	for _, c := range pod.Spec.Containers {
		if exit.OutOfMemory && c.Name == containerName {
			exit.MemoryLimit = uint64(c.Resources.Limits.Memory().Value()) //nolint:gosec // The API takes none below 0.
		}
	}
	switch {
	case t.Reason == "StartError" || t.Reason == "ContainerCannotRun":
		exit.Code, exit.Cause = -1, "could not be run: "+t.Message
	case t.ExitCode > signals && t.ExitCode < signals+32:
		exit.Code, exit.Signal = -1, syscall.Signal(t.ExitCode-signals).String()
	}
	if cause := disruption(pod); cause != "" && t.ExitCode != 0 && !exit.OutOfMemory {
		exit = launcher.Exit{Code: -1, Cause: cause}
	} else if t.ExitCode == -1 {
		exit.Cause = "ended with its pod, of which Kubernetes does not say more"
	}
	return exit
}

// disruption says why Kubernetes ended a pod, in words that follow "the replica", or "".
func disruption(pod *corev1.Pod) string {
	if pod.Status.Reason == "Evicted" {
		return fmt.Sprintf("was evicted from the node %s: %s", pod.Spec.NodeName, pod.Status.Message)
	}
	for _, c := range pod.Status.Conditions {
		if c.Type != corev1.DisruptionTarget || c.Status != corev1.ConditionTrue {
			continue
		}
		what := map[string]string{
			corev1.PodReasonPreemptionByScheduler: "had to make room for a pod of higher priority",
			"DeletionByTaintManager":              "was removed from the node " + pod.Spec.NodeName + ", whose taints it does not tolerate",
			"EvictionByEvictionAPI":               "was evicted from the node " + pod.Spec.NodeName + ", as when a node is drained",
			"DeletionByPodGC":                     "was lost with the node " + pod.Spec.NodeName,
			corev1.PodReasonTerminationByKubelet:  "was ended by the kubelet of the node " + pod.Spec.NodeName,
		}[c.Reason]
		if what == "" {
			what = "was ended by Kubernetes (" + c.Reason + ")"
		}
		return strings.TrimSuffix(what+": "+c.Message, ": ")
	}
	return ""
}

// explain says what the API server refused in words for people.
func (l *Launcher) explain(what string, err error) error {
	var asked *url.Error
	switch {
	case utilnet.IsConnectionRefused(err), utilnet.IsConnectionReset(err), utilnet.IsTimeout(err):
		return fmt.Errorf("the Kubernetes API server does not answer at %s: it may be down for the moment; if not, check the kubeconfig", l.server)
	case errors.As(err, &asked): // no such host, a certificate that nobody vouches for
		return fmt.Errorf("the Kubernetes API server at %s cannot be asked: %w", l.server, asked.Err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s: the Kubernetes API server does not accept the credentials: check the kubeconfig or the service account", what)
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota"):
		return fmt.Errorf("%s: %w", what, err)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%s: the service account may not: give it the Role of docs/kubernetes.md in the namespace %s (%w)", what, l.cfg.Namespace, err)
	case apierrors.IsNotFound(err) && strings.Contains(err.Error(), "namespaces"):
		return fmt.Errorf("%s: the namespace %s does not exist: make it, or name another one with --kubernetes-namespace", what, l.cfg.Namespace)
	}
	return fmt.Errorf("%s: %w", what, err)
}
