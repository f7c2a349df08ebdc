// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// place is what the replicas of an installation share: the lock, and what is known of the cluster.
type place struct {
	lock   *os.File
	owner  *metav1.OwnerReference // of Deployments; nil for none
	opened time.Time
	found  map[string]int // the pods of Deployments that were there already; guarded by Launcher.mu; nil until it is known

	deployments appslisters.DeploymentNamespaceLister
	pods        corelisters.PodNamespaceLister
	slices      discoverylisters.EndpointSliceNamespaceLister

	synced  []cache.InformerSynced
	stop    context.CancelFunc
	running sync.WaitGroup // the informers

	mu      sync.Mutex
	changed chan struct{} // closed when something has changed since it was taken
	trouble error         // why the cluster could not be watched, the last time
	gone    map[types.UID]departed
}

// departed is a pod that was deleted, as it was last seen: it may say how its container ended.
type departed struct {
	pod *corev1.Pod
	at  time.Time
}

// open takes the installation and begins to watch its objects, the first time. It returns when they are known.
func (l *Launcher) open(ctx context.Context) (*place, error) {
	l.opening.Lock()
	defer l.opening.Unlock()
	if l.isClosed() { // Nobody would leave it.
		return nil, errClosed
	}
	if l.place == nil {
		// Said here, what keeps the launcher from its objects is said once and well.
		if _, err := l.api.deployments.List(ctx, metav1.ListOptions{LabelSelector: l.own().String(), Limit: 1}); err != nil {
			return nil, l.explain("look for the models' Deployments", err)
		}
		owner, err := l.owner(ctx)
		if err != nil {
			return nil, err
		}
		lock, err := l.take()
		if err != nil {
			return nil, err
		}
		l.place = l.watch(lock, owner)
		l.sweeps.Go(l.sweepOften)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if !cache.WaitForCacheSync(ctx.Done(), l.place.synced...) {
		if err := l.place.lastTrouble(); err != nil {
			return nil, l.explain("watch the models' objects", err)
		}
		return nil, fmt.Errorf("the Kubernetes API server at %s does not say which objects there are: %w", l.server, ctx.Err())
	}
	return l.place, l.note(l.place)
}

// note notes what was there already, the first time.
func (l *Launcher) note(p *place) error {
	deployments, err := p.deployments.List(l.own())
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.found != nil {
		return nil
	}
	p.found = map[string]int{}
	for _, d := range deployments {
		if d.Spec.Replicas != nil && d.DeletionTimestamp == nil {
			p.found[d.Name] = int(*d.Spec.Replicas)
		}
	}
	return nil
}

// own selects the objects of the installation.
func (l *Launcher) own() labels.Selector {
	return labels.SelectorFromSet(labels.Set{labelInstallation: l.cfg.Installation})
}

// take locks the installation among the launchers of this user.
func (l *Launcher) take() (*os.File, error) {
	name := "clipper-kubernetes-" + strconv.Itoa(os.Getuid()) + "-" + digest(l.server, l.cfg.Namespace, l.cfg.Installation)[:16] + ".lock"
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), name), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("another server has the installation %q in the namespace %q: give this one a name of its own with --kubernetes-installation", l.cfg.Installation, l.cfg.Namespace)
	}
	return lock, nil
}

// owner returns who is to own the Deployments.
func (l *Launcher) owner(ctx context.Context) (*metav1.OwnerReference, error) {
	if l.cfg.OwnerPod == "" {
		return nil, nil
	}
	pod, err := l.api.pods.Get(ctx, l.cfg.OwnerPod, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("there is no pod %q in the namespace %q: --kubernetes-owner-pod wants the one that this runs in, and in the namespace of the models' pods", l.cfg.OwnerPod, l.cfg.Namespace)
	}
	if err != nil {
		return nil, l.explain("look for the server's own pod", err)
	}
	return &metav1.OwnerReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}, nil
}

// watch begins to follow the objects of the installation.
func (l *Launcher) watch(lock *os.File, owner *metav1.OwnerReference) *place {
	p := &place{lock: lock, owner: owner, opened: time.Now(), changed: make(chan struct{}), gone: map[types.UID]departed{}}
	deployments := informer(l.api, l.api.deployments, &appsv1.Deployment{}, l.own())
	pods := informer(l.api, l.api.pods, &corev1.Pod{}, l.own())
	slices := informer(l.api, l.api.slices, &discoveryv1.EndpointSlice{}, l.own())
	p.deployments = appslisters.NewDeploymentLister(deployments.GetIndexer()).Deployments(l.cfg.Namespace)
	p.pods = corelisters.NewPodLister(pods.GetIndexer()).Pods(l.cfg.Namespace)
	p.slices = discoverylisters.NewEndpointSliceLister(slices.GetIndexer()).EndpointSlices(l.cfg.Namespace)
	changed := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { p.notify() },
		UpdateFunc: func(any, any) { p.notify() },
		DeleteFunc: func(object any) {
			p.depart(object)
			p.notify()
		},
	}
	// It has to see the replicas end that Close stops, so it outlives l.closed.
	ctx, stop := context.WithCancel(klog.NewContext(context.Background(), logr.FromSlogHandler(l.log.Handler())))
	p.stop = stop
	for _, informer := range []cache.SharedIndexInformer{deployments, pods, slices} {
		// These fail only for an informer that runs, or has stopped.
		_, _ = informer.AddEventHandler(changed)
		_ = informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
			l.log.Debug("objects of the cluster are not followed for the moment", "error", err)
			p.mu.Lock()
			p.trouble = err
			p.mu.Unlock()
		})
		p.synced = append(p.synced, informer.HasSynced)
		p.running.Go(func() { informer.RunWithContext(ctx) })
	}
	return p
}

// notify wakes everybody who waits for a change.
func (p *place) notify() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
}

// change returns a channel that is closed when something changes from now on.
func (p *place) change() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// depart keeps a pod that was deleted for the one who waits for it.
func (p *place) depart(object any) {
	if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = last.Obj
	}
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return
	}
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.gone, func(_ types.UID, d departed) bool { return now.Sub(d.at) > claimTime })
	p.gone[pod.UID] = departed{pod, now}
}

// look returns a pod as it was last seen, and whether it is gone. For a moment it may be neither there nor gone.
func (p *place) look(name string, uid types.UID) (pod *corev1.Pod, gone bool) {
	if pod, err := p.pods.Get(name); err == nil && pod.UID == uid {
		return pod, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	d, gone := p.gone[uid]
	return d.pod, gone
}

func (p *place) lastTrouble() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.trouble
}

// address returns where a pod serves, as the EndpointSlices of its Service say; IPv4 if there is a choice.
func (p *place) address(service string, pod *corev1.Pod) string {
	found, err := p.slices.List(labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: service}))
	if err != nil {
		return ""
	}
	address := ""
	for _, slice := range found {
		at := port
		for _, declared := range slice.Ports {
			if declared.Port != nil {
				at = int(*declared.Port)
			}
		}
		for _, e := range slice.Endpoints {
			if e.TargetRef == nil || e.TargetRef.UID != pod.UID || len(e.Addresses) == 0 {
				continue
			}
			if address == "" || slice.AddressType == discoveryv1.AddressTypeIPv4 {
				address = net.JoinHostPort(e.Addresses[0], strconv.Itoa(at))
			}
		}
	}
	return address
}

// leave gives the installation back, with nothing left of it.
func (l *Launcher) leave() error {
	p := l.place
	if p == nil {
		return nil
	}
	l.place = nil
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if err := l.removeUnclaimed(ctx, p, time.Now().Add(claimTime)); err != nil {
		l.log.Warn("pods of models may stay", "error", err)
	}
	p.stop()
	p.running.Wait()
	return p.lock.Close()
}

// sweepOften removes from time to time what nobody needs.
func (l *Launcher) sweepOften() {
	for {
		select {
		case <-l.closed.Done():
			return
		case <-time.After(claimTime / 4):
		}
		if err := l.sweep(l.closed, time.Now()); err != nil {
			l.log.Debug("what nobody owns is not removed yet", "error", err)
		}
	}
}

// sweep removes what nobody needs: Deployments and pods that a launcher that has died left and nobody has taken over,
// and the pods of replicas that failed long ago and were not started again.
func (l *Launcher) sweep(ctx context.Context, now time.Time) error {
	l.opening.Lock()
	p := l.place
	l.opening.Unlock()
	if p == nil {
		return nil
	}
	var stale []*slot
	var adopted []*workload
	l.mu.Lock()
	for _, w := range l.workloads {
		for _, s := range w.slots {
			if !s.idle.IsZero() && now.Sub(s.idle) >= keepEnded {
				stale = append(stale, s)
			}
		}
		if w.floor > len(w.slots) && now.Sub(p.opened) >= claimTime {
			adopted = append(adopted, w)
		}
	}
	l.mu.Unlock()
	var problems error
	for _, s := range stale {
		s.workload.release(s)
	}
	for _, w := range adopted {
		problems = errors.Join(problems, w.forget())
	}
	return errors.Join(problems, l.removeUnclaimed(ctx, p, now))
}

// removeUnclaimed removes the Deployments that no replica of this launcher needs.
func (l *Launcher) removeUnclaimed(ctx context.Context, p *place, now time.Time) error {
	if now.Sub(p.opened) < claimTime {
		return nil
	}
	found, err := p.deployments.List(l.own())
	if err != nil {
		return err
	}
	var problems error
	for _, d := range found {
		l.mu.Lock()
		_, claimed := l.workloads[d.Name]
		l.mu.Unlock()
		if claimed || d.DeletionTimestamp != nil {
			continue
		}
		l.log.Info("a Deployment that nobody needs is removed", "deployment", d.Name, "model", exact(d, labelModel), "version", exact(d, labelVersion))
		problems = errors.Join(problems, l.delete(ctx, d.Name))
	}
	return problems
}

// delete deletes the objects of that name. The Deployment goes last, so that none that is made later gets its pods.
func (l *Launcher) delete(ctx context.Context, name string) error {
	last := metav1.DeletePropagationForeground
	for _, err := range []error{
		l.api.services.Delete(ctx, name, metav1.DeleteOptions{}),
		l.api.budgets.Delete(ctx, name, metav1.DeleteOptions{}),
		l.api.deployments.Delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: &last}),
	} {
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// exact returns what a label was made from.
func exact(d *appsv1.Deployment, label string) string { return d.Annotations[label] }
