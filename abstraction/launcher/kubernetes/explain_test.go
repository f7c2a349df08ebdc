// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"errors"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"pgregory.net/rapid"

	"github.com/clipper-serving/clipper/abstraction/launcher"
)

func podWith(status corev1.PodStatus) *corev1.Pod {
	p := &corev1.Pod{Status: status}
	p.Name, p.Spec.NodeName = "digits-1", "node-7"
	p.Spec.Containers = []corev1.Container{{Name: containerName, Image: "digits:1", Resources: corev1.ResourceRequirements{
		Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("512Mi")},
	}}}
	return p
}

func containerWith(now, last corev1.ContainerState) corev1.PodStatus {
	return corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{
		{Name: "proxy", ContainerID: "p"},
		{Name: containerName, ContainerID: "a", State: now, LastTerminationState: last},
	}}
}

func ended(code int32, reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: "a", ExitCode: code, Reason: reason, Message: message}}
}

func waiting(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

func TestExitOf(t *testing.T) {
	disrupted := containerWith(ended(143, "Error", ""), corev1.ContainerState{})
	disrupted.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting"}}
	evicted := containerWith(corev1.ContainerState{}, corev1.ContainerState{})
	evicted.Phase, evicted.Reason, evicted.Message = corev1.PodFailed, "Evicted", "The node was low on resource: memory."
	other := containerWith(corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, corev1.ContainerState{})
	other.ContainerStatuses[1].ContainerID = "b"
	for name, test := range map[string]struct {
		status   corev1.PodStatus
		want     string // "" is that it runs
		previous bool
		check    func(launcher.Exit) bool
	}{
		"runs":                   {containerWith(corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, corev1.ContainerState{}), "", false, nil},
		"ended":                  {containerWith(ended(1, "Error", ""), corev1.ContainerState{}), "exited with code 1", false, nil},
		"will never work":        {containerWith(ended(78, "Error", ""), corev1.ContainerState{}), "exited with code 78", false, launcher.Exit.Never},
		"killed":                 {containerWith(ended(137, "Error", ""), corev1.ContainerState{}), "was ended by the signal killed", false, nil},
		"too much memory":        {containerWith(ended(137, "OOMKilled", ""), corev1.ContainerState{}), "was killed by the kernel: out of memory, limit 512 MiB", false, nil},
		"cannot be run":          {containerWith(ended(128, "StartError", "exec: serve: not found"), corev1.ContainerState{}), "could not be run: exec: serve: not found", false, nil},
		"Kubernetes waits":       {containerWith(waiting("CrashLoopBackOff", "back-off 10s"), ended(2, "Error", "")), "exited with code 2", false, nil},
		"the next one runs":      {containerWith(corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, ended(2, "Error", "")), "exited with code 2", true, nil},
		"the one after the next": {other, "ended, and so has at least one that Kubernetes started after it", false, nil},
		"drained":                {disrupted, "was evicted from the node node-7, as when a node is drained: Eviction API: evicting", false, nil},
		"evicted":                {evicted, "was evicted from the node node-7: The node was low on resource: memory.", false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			exit, previous, over := exitOf(podWith(test.status), "a")
			require.Equal(t, test.want != "", over)
			if over {
				require.Equal(t, test.want, exit.String())
			}
			require.Equal(t, test.previous, previous)
			require.True(t, test.check == nil || test.check(exit))
		})
	}
}

func TestStateOf(t *testing.T) {
	pending := corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
	}}}
	none := corev1.ContainerState{}
	for name, test := range map[string]struct {
		status  corev1.PodStatus
		problem bool
		want    string
	}{
		"no node":       {pending, true, "no node takes the pod digits-1 (0/3 nodes are available: 3 Insufficient nvidia.com/gpu.): ask for less"},
		"kubelet":       {corev1.PodStatus{}, false, "waits for the kubelet of the node node-7"},
		"no image":      {containerWith(waiting("ImagePullBackOff", `Back-off pulling image "digits:1"`), none), true, `cannot get the image digits:1 (ImagePullBackOff: Back-off pulling image "digits:1")`},
		"not made":      {containerWith(waiting("CreateContainerConfigError", "secret x not found"), none), true, "cannot make the container (CreateContainerConfigError: secret x not found)"},
		"being made":    {containerWith(waiting("ContainerCreating", ""), none), false, "on the node node-7 waits: ContainerCreating; `kubectl describe pod digits-1`"},
		"crashes":       {containerWith(waiting("CrashLoopBackOff", "back-off 10s"), ended(1, "", "")), false, "waits before it starts the container again: back-off 10s"},
		"no endpoint":   {containerWith(corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, none), false, "no EndpointSlice"},
		"has ended":     {containerWith(ended(1, "", ""), none), false, "has ended"},
		"nothing known": {containerWith(none, none), false, "has not started its container yet"},
	} {
		t.Run(name, func(t *testing.T) {
			s := stateOf(podWith(test.status))
			require.Equal(t, test.problem, s.problem)
			require.Contains(t, s.text, test.want)
		})
	}
}

func TestNames(t *testing.T) {
	word := rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._-]{0,62}`)
	rapid.Check(t, func(t *rapid.T) {
		model, version := word.Draw(t, "model"), word.Draw(t, "version")
		name := objectName("host.example.com", model, version)
		require.Empty(t, validation.IsDNS1035Label(name))
		require.Empty(t, validation.IsDNS1123Label(name+"-0123456789-abcde"), "the pod's")
		require.Empty(t, validation.IsValidLabelValue(labelValue(model)))
	})
	seen := map[string]bool{}
	long := strings.Repeat("m", 63)
	for _, pair := range [][2]string{{"a", "b"}, {"A", "b"}, {"a.b", "c"}, {"a", "b.c"}, {"a-b", "c"}, {"a_b", "c"}, {long, "1"}, {long, "2"}, {long[1:] + "x", "1"}, {"7", "7"}} {
		name := objectName("i", pair[0], pair[1])
		require.False(t, seen[name], name)
		seen[name] = true
	}
	require.Equal(t, "digits", labelValue("digits"))
	require.NotEqual(t, labelValue("a_"), labelValue("a-"))
}

func TestExplain(t *testing.T) {
	l := newTestLauncher(t, newCluster(t), Config{})
	pods := schema.GroupResource{Resource: "pods"}
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"no answer":       {&url.Error{Op: "Get", Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}, "does not answer at https://cluster.example.com"},
		"no such host":    {&url.Error{Op: "Get", Err: &net.DNSError{Err: "no such host", Name: "x", IsNotFound: true}}, "cannot be asked: lookup x: no such host"},
		"who are you":     {apierrors.NewUnauthorized("no"), "does not accept the credentials"},
		"you may not":     {apierrors.NewForbidden(pods, "p", errors.New("no")), "look: the service account may not: give it the Role of docs/kubernetes.md in the namespace default"},
		"no quota":        {apierrors.NewForbidden(pods, "p", errors.New("exceeded quota: pods")), "exceeded quota"},
		"no namespace":    {apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "default"), "the namespace default does not exist"},
		"something other": {apierrors.NewBadRequest("spec is wrong"), "look: spec is wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorContains(t, l.explain("look", test.err), test.want)
		})
	}
}
