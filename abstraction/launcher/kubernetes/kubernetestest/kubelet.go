// SPDX-License-Identifier: Apache-2.0

// Package kubernetestest stands in for the parts of a Kubernetes cluster that tests cannot have: a kubelet that runs
// the containers of pods as processes, and, for client-go's fake clientset, the controllers that turn Deployments into
// pods and Services into EndpointSlices. So the path from a Deployment to an answer is real.
package kubernetestest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

const (
	firstBackOff = 20 * time.Millisecond
	lastBackOff  = time.Second
	callTimeout  = 10 * time.Second
)

// Kubelet runs the first container of each pod as a process, with a loopback address of its own instead of a network
// of its own: where a variable says to listen at 0.0.0.0, the process is told to listen at the pod's address. It
// starts a container that has ended again, with growing pauses. It knows no volumes and no limits, and takes a
// container that runs for ready. Safe for concurrent use.
type Kubelet struct {
	// Client reaches the API server.
	Client kubernetes.Interface
	// Images are the commands of the images that there are. The container of one without a command is never made.
	Images map[string][]string
	// Network is the first two bytes of the pods' addresses. Default: any of the loopback network.
	Network []byte

	mu      sync.Mutex
	started int
	pods    map[types.UID]*pod
	running sync.WaitGroup
}

// Sync makes what runs like the pods that were bound to this node, which are all that there are.
func (k *Kubelet) Sync(bound []*corev1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pods == nil {
		k.pods = map[types.UID]*pod{}
	}
	seen := map[types.UID]bool{}
	for _, object := range bound {
		seen[object.UID] = true
		p := k.pods[object.UID]
		if p == nil {
			p = &pod{kubelet: k, object: object.DeepCopy(), ending: make(chan time.Duration, 1)}
			k.pods[object.UID] = p
			k.running.Go(p.run)
		}
		if object.DeletionTimestamp != nil {
			p.end(time.Duration(*object.DeletionGracePeriodSeconds) * time.Second)
		}
	}
	for uid, p := range k.pods {
		if !seen[uid] { // It was removed without a word.
			p.end(0)
			delete(k.pods, uid)
		}
	}
}

// Close ends every process.
func (k *Kubelet) Close() {
	k.Sync(nil)
	k.running.Wait()
}

// Kill ends the process of a pod with a signal, as the kernel would.
func (k *Kubelet) Kill(name string, s syscall.Signal) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.pods {
		if p.object.Name == name {
			return p.signal(s)
		}
	}
	return errors.New("no such pod")
}

// Log returns the log of a pod's container. It has times, as if options.Timestamps were set, and leaves nothing out for
// options.SinceTime.
func (k *Kubelet) Log(ctx context.Context, name string, options *corev1.PodLogOptions) (*Reader, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.pods {
		if p.object.Name != name {
			continue
		}
		p.mu.Lock()
		output := p.output
		if options.Previous {
			output = p.previous
		}
		p.mu.Unlock()
		if output == nil {
			return nil, fmt.Errorf("container of the pod %s has not started", name)
		}
		lines := -1
		if options.TailLines != nil {
			lines = int(*options.TailLines)
		}
		return output.reader(ctx, lines, options.Follow), nil
	}
	return nil, fmt.Errorf("the pod %s is not known", name)
}

// pod is one pod of the node.
type pod struct {
	kubelet  *Kubelet
	object   *corev1.Pod        // as it was when it came
	ending   chan time.Duration // the time that is left
	address  string
	restarts int32
	last     *corev1.ContainerStateTerminated

	mu               sync.Mutex
	process          *exec.Cmd // nil while none runs
	output, previous *Output
}

// end tells the pod how much time it has left. A later word replaces an earlier one.
func (p *pod) end(grace time.Duration) {
	select {
	case <-p.ending:
	default:
	}
	p.ending <- grace
}

func (p *pod) signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process == nil {
		return errors.New("no process runs")
	}
	return syscall.Kill(-p.process.Process.Pid, s)
}

// run lives as long as the pod.
func (p *pod) run() {
	defer p.remove()
	container := p.object.Spec.Containers[0]
	command := p.kubelet.Images[container.Image]
	if command == nil {
		message := "failed to resolve reference " + container.Image + ": not found"
		p.report(corev1.PodPending, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: message}}, "")
		<-p.ending
		return
	}
	if len(command) == 0 {
		p.report(corev1.PodPending, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}, "")
		<-p.ending
		return
	}
	if p.address = p.kubelet.freeAddress(container.Ports); p.address == "" {
		return
	}
	for backOff := firstBackOff; ; backOff = min(2*backOff, lastBackOff) {
		if p.once(container, command) {
			return
		}
		p.report(corev1.PodRunning, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
			Reason: "CrashLoopBackOff", Message: fmt.Sprintf("back-off %v restarting failed container=%s pod=%s", backOff, container.Name, p.object.Name),
		}}, p.last.ContainerID)
		select {
		case <-p.ending:
			return
		case <-time.After(backOff):
		}
		p.restarts++
	}
}

// once runs the container to its end, and reports whether the pod is to end with it.
func (p *pod) once(container corev1.Container, command []string) bool {
	k := p.kubelet
	k.mu.Lock()
	k.started++
	id := "process://" + string(p.object.UID) + "/" + strconv.Itoa(k.started)
	k.mu.Unlock()

	output := newOutput()
	cmd := exec.CommandContext(context.Background(), command[0], command[1:]...)
	for _, e := range container.Env {
		// What a kubelet makes of $$; other references are for none of ours.
		text := strings.ReplaceAll(e.Value, "$$", "$")
		cmd.Env = append(cmd.Env, e.Name+"="+strings.Replace(text, "0.0.0.0:", p.address+":", 1))
	}
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	p.mu.Lock()
	p.previous, p.output = p.output, output
	err := cmd.Start()
	if err == nil {
		p.process = cmd
	}
	p.mu.Unlock()
	if err != nil {
		output.end()
		p.last = &corev1.ContainerStateTerminated{ExitCode: 128, Reason: "StartError", Message: err.Error(), ContainerID: id}
		p.report(corev1.PodRunning, corev1.ContainerState{Terminated: p.last}, id)
		return false
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	p.report(corev1.PodRunning, corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}, id)
	stopping := p.await(ended)
	p.mu.Lock()
	p.process = nil
	p.mu.Unlock()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it has started
	output.end()

	status := cmd.ProcessState.Sys().(syscall.WaitStatus) //nolint:forcetypeassert // on Unix
	code, reason := status.ExitStatus(), "Error"
	if status.Signaled() {
		code = 128 + int(status.Signal())
	}
	if code == 0 {
		reason = "Completed"
	}
	p.last = &corev1.ContainerStateTerminated{ExitCode: int32(code), Reason: reason, ContainerID: id, FinishedAt: metav1.Now()} //nolint:gosec // small
	p.report(corev1.PodRunning, corev1.ContainerState{Terminated: p.last}, id)
	return stopping
}

// await returns when the process has ended, and sees to that when the pod is to end.
func (p *pod) await(ended <-chan struct{}) (stopping bool) {
	var grace time.Duration
	select {
	case <-ended:
		return false
	case grace = <-p.ending:
	}
	_ = p.signal(syscall.SIGTERM)
	for {
		timer := time.NewTimer(grace)
		select {
		case <-ended:
			timer.Stop()
			return true
		case less := <-p.ending:
			timer.Stop()
			grace = min(grace, less)
		case <-timer.C:
			_ = p.signal(syscall.SIGKILL)
			<-ended
			return true
		}
	}
}

// report patches the pod's status. It may be too late for it.
func (p *pod) report(phase corev1.PodPhase, now corev1.ContainerState, id string) {
	container := p.object.Spec.Containers[0]
	status := corev1.ContainerStatus{
		Name: container.Name, Image: container.Image, State: now, ContainerID: id, RestartCount: p.restarts, Ready: now.Running != nil,
	}
	if now.Terminated == nil && p.last != nil {
		status.LastTerminationState.Terminated = p.last
	}
	ready := corev1.ConditionFalse
	if status.Ready {
		ready = corev1.ConditionTrue
	}
	change := map[string]any{
		"phase": phase, "podIP": p.address,
		"containerStatuses": []corev1.ContainerStatus{status},
		"conditions": []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
			{Type: corev1.PodReady, Status: ready},
		},
	}
	if p.address != "" {
		change["podIPs"] = []corev1.PodIP{{IP: p.address}}
	}
	text, err := json.Marshal(map[string]any{"status": change})
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	_, _ = p.kubelet.Client.CoreV1().Pods(p.object.Namespace).Patch(ctx, p.object.Name, types.MergePatchType, text, metav1.PatchOptions{}, "status")
}

// remove removes the pod for good.
func (p *pod) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	now := int64(0)
	_ = p.kubelet.Client.CoreV1().Pods(p.object.Namespace).Delete(ctx, p.object.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &p.object.UID},
	})
}

// freeAddress returns an address of the pods' network at which nobody listens on the pod's ports.
func (k *Kubelet) freeAddress(ports []corev1.ContainerPort) string {
	for range 100 {
		var b [3]byte
		_, _ = rand.Read(b[:])
		network := k.Network
		if network == nil {
			network = []byte{127, max(b[0], 1)}
		}
		address := net.IPv4(network[0], network[1], b[1], min(max(b[2], 1), 254)).String()
		if isFree(address, ports) {
			return address
		}
	}
	return ""
}

func isFree(address string, ports []corev1.ContainerPort) bool {
	for _, p := range ports {
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", net.JoinHostPort(address, strconv.Itoa(int(p.ContainerPort))))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}
