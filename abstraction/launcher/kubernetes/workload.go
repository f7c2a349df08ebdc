// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/clipper-serving/clipper/abstraction/launcher"
)

// workload is the objects of one version.
type workload struct {
	launcher *Launcher
	place    *place
	name     string // of the Deployment, the Service and the pod disruption budget

	// writing is held while the objects are changed. It is never taken with Launcher.mu held.
	writing sync.Mutex

	// The rest is guarded by Launcher.mu.
	template    corev1.PodTemplateSpec
	digest      string // of the template
	labels      map[string]string
	annotations map[string]string
	slots       map[string]*slot     // the replicas that are wanted, by their names
	floor       int                  // pods that were there already, and may still be asked for
	seen        map[types.UID]string // the last container of a pod that a replica was bound to
}

// slot is one replica that is wanted, over all times that it is started.
type slot struct {
	workload *workload
	spec     launcher.Spec
	replica  *replica  // nil while none is bound to a container that runs
	pod      types.UID // of the replica, or of the one before
	idle     time.Time // since when nobody has been starting it; zero while it starts or runs

	log, before []launcher.Line // of the last run that has ended, and of the one before
}

// enter returns the slot of a replica, which is being started from now on.
func (l *Launcher) enter(where *place, spec launcher.Spec, template corev1.PodTemplateSpec) (*workload, *slot, error) {
	name := objectName(l.cfg.Installation, spec.Model, spec.Version)
	labels := map[string]string{
		"app.kubernetes.io/name":       "clipper-model",
		"app.kubernetes.io/managed-by": "clipper",
		labelInstallation:              l.cfg.Installation,
		labelModel:                     labelValue(spec.Model),
		labelVersion:                   labelValue(spec.Version),
		labelName:                      name,
	}
	notes := map[string]string{labelModel: spec.Model, labelVersion: spec.Version}
	sum, err := label(&template, labels, notes)
	if err != nil {
		return nil, nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil, nil, errClosed
	}
	w := l.workloads[name]
	if w == nil {
		w = &workload{launcher: l, place: where, name: name, slots: map[string]*slot{}, seen: map[types.UID]string{}}
		w.floor = where.found[name]
		delete(where.found, name)
		l.workloads[name] = w
	}
	w.template, w.digest, w.labels, w.annotations = template, sum, labels, notes
	s := w.slots[spec.Replica]
	if s != nil && (s.replica != nil || s.idle.IsZero()) {
		return nil, nil, fmt.Errorf("the replica %s of %s, version %s, runs already", spec.Replica, spec.Model, spec.Version)
	}
	if s == nil {
		s = &slot{workload: w}
		w.slots[spec.Replica] = s
	}
	s.spec, s.idle = spec, time.Time{}
	return w, s, nil
}

// start waits until a container runs, or has run, that no replica was bound to.
func (w *workload) start(ctx context.Context, s *slot) (*replica, error) {
	l := w.launcher
	if err := w.apply(ctx); err != nil {
		return nil, err
	}
	limit := s.spec.Container.GetStartTimeout().AsDuration()
	if limit <= 0 {
		limit = defaultStartTimeout
	}
	late := time.NewTimer(limit)
	defer late.Stop()
	for {
		changed := w.place.change()
		r, state, err := w.bind(s)
		if err != nil {
			return nil, err
		}
		if r != nil {
			return r, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-l.closed.Done():
			return nil, errClosed
		case <-changed:
		case <-late.C:
			if state.backOff { // Its failure has been told, and so has when it is started again.
				late.Reset(limit)
				continue
			}
			return nil, fmt.Errorf("no pod of it has started for %v: %s", limit, state.text)
		}
	}
}

// bind binds a slot to a pod whose container runs, or has ended since the last time that it was looked at. Without one
// it returns what the version is waiting for, or why it waits in vain.
func (w *workload) bind(s *slot) (*replica, state, error) {
	l := w.launcher
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil, state{}, errClosed
	}
	pods, err := w.place.pods.List(labels.SelectorFromSet(labels.Set{labelName: w.name, labelSpec: w.digest}))
	if err != nil {
		return nil, state{}, err
	}
	maps.DeleteFunc(w.seen, func(uid types.UID, _ string) bool {
		return !slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return p.UID == uid })
	})
	taken := map[types.UID]bool{}
	for _, other := range w.slots {
		if other != s {
			taken[other.pod] = true
		}
	}
	pods = slices.DeleteFunc(pods, func(p *corev1.Pod) bool {
		// One that has failed as a whole is replaced by another, which is a pod of its own.
		return p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodFailed || taken[p.UID]
	})
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { // Its own pod first; after that, any order that stays.
		if (a.UID == s.pod) != (b.UID == s.pod) {
			if a.UID == s.pod {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	waiting := w.withoutPods()
	for i, pod := range pods {
		now := stateOf(pod)
		address := w.place.address(w.name, pod)
		if now.container != "" && now.container != w.seen[pod.UID] && (now.ended || address != "") {
			if address == "" { // It has ended already, which is for the one who waits for it.
				address = net.JoinHostPort(cmp.Or(pod.Status.PodIP, "127.0.0.1"), strconv.Itoa(port))
			}
			w.seen[pod.UID] = now.container
			s.pod = pod.UID
			s.replica = newReplica(s, pod, now.container, address)
			return s.replica, now, nil
		}
		if i == 0 || now.problem {
			waiting = now
		}
	}
	if waiting.problem {
		return nil, waiting, errors.New(waiting.text)
	}
	return nil, waiting, nil
}

// withoutPods says what a version waits for that has too few pods.
func (w *workload) withoutPods() state {
	d, err := w.place.deployments.Get(w.name)
	if err == nil {
		for _, c := range d.Status.Conditions {
			if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
				return state{problem: true, text: "Kubernetes does not make its pod: " + c.Message}
			}
		}
	}
	return state{text: "Kubernetes has not made its pod yet"}
}

// wanted returns how many pods the Deployment is to have. It holds Launcher.mu.
func (w *workload) wanted() int32 { return int32(max(len(w.slots), w.floor)) } //nolint:gosec // a few

// apply makes the objects as they are to be.
func (w *workload) apply(ctx context.Context) error {
	w.writing.Lock()
	defer w.writing.Unlock()
	l := w.launcher
	l.mu.Lock()
	replicas, digest := w.wanted(), w.digest
	want := w.deployment(replicas)
	l.mu.Unlock()

	have, err := w.get(ctx)
	switch {
	case apierrors.IsNotFound(err):
		have, err = l.api.deployments.Create(ctx, want, metav1.CreateOptions{})
	case err != nil:
	case have.Spec.Template.Labels[labelSpec] != digest:
		// It was made by a launcher with other settings. All pods are made anew.
		next := have.DeepCopy()
		next.Labels, next.Annotations, next.OwnerReferences = want.Labels, want.Annotations, want.OwnerReferences
		next.Spec, next.ResourceVersion = want.Spec, "" // whatever its controllers write meanwhile
		have, err = l.api.deployments.Update(ctx, next, metav1.UpdateOptions{})
	case have.Spec.Replicas == nil || *have.Spec.Replicas != replicas:
		have, err = w.scale(ctx, replicas)
	}
	if err != nil {
		return l.explain("make the Deployment "+w.name, err)
	}
	meta := want.ObjectMeta
	controller := true
	meta.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: have.Name, UID: have.UID, Controller: &controller}}
	selector := want.Spec.Selector
	_, err = l.api.services.Create(ctx, &corev1.Service{
		ObjectMeta: meta,
		Spec: corev1.ServiceSpec{
			ClusterIP: corev1.ClusterIPNone, Selector: selector.MatchLabels,
			// Whether a replica is ready is found out and warmed up by the one who uses it.
			PublishNotReadyAddresses: true,
			Ports:                    []corev1.ServicePort{{Name: portName, Port: port, TargetPort: intstr.FromString(portName), Protocol: corev1.ProtocolTCP}},
		},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return l.explain("make the Service "+w.name, err)
	}
	one, always := intstr.FromInt32(1), policyv1.AlwaysAllow
	_, err = l.api.budgets.Create(ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: meta,
		Spec:       policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &one, Selector: selector, UnhealthyPodEvictionPolicy: &always},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return l.explain("make the pod disruption budget "+w.name, err)
	}
	return nil
}

// get returns the Deployment, once one that is being deleted is gone.
func (w *workload) get(ctx context.Context) (*appsv1.Deployment, error) {
	for {
		changed := w.place.change()
		have, err := w.launcher.api.deployments.Get(ctx, w.name, metav1.GetOptions{})
		if err != nil || have.DeletionTimestamp == nil {
			return have, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-w.launcher.closed.Done():
			return nil, errClosed
		case <-changed:
		}
	}
}

// deployment holds Launcher.mu.
func (w *workload) deployment(replicas int32) *appsv1.Deployment {
	noHistory := int32(0)
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: w.name, Labels: w.labels, Annotations: w.annotations},
		Spec: appsv1.DeploymentSpec{
			Replicas:             &replicas,
			Selector:             &metav1.LabelSelector{MatchLabels: map[string]string{labelName: w.name}},
			Template:             w.template,
			Strategy:             appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType},
			RevisionHistoryLimit: &noHistory,
		},
	}
	if w.place.owner != nil {
		d.OwnerReferences = []metav1.OwnerReference{*w.place.owner}
	}
	return d
}

func (w *workload) scale(ctx context.Context, replicas int32) (*appsv1.Deployment, error) {
	patch := `{"spec":{"replicas":` + strconv.Itoa(int(replicas)) + `}}`
	return w.launcher.api.deployments.Patch(ctx, w.name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
}

// failed notes that a replica is not being started any more, for now.
func (w *workload) failed(s *slot, now time.Time) {
	w.launcher.mu.Lock()
	defer w.launcher.mu.Unlock()
	s.replica, s.idle = nil, now
}

// ended says that the replica of a slot has ended, and what its log was.
func (w *workload) ended(s *slot, log []launcher.Line, now time.Time) {
	w.launcher.mu.Lock()
	s.log, s.before = log, s.log
	w.launcher.mu.Unlock()
	w.failed(s, now)
}

// leave takes a slot out. It reports whether it was still there.
func (w *workload) leave(s *slot) bool {
	l := w.launcher
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.slots[s.spec.Replica] != s {
		return false
	}
	delete(w.slots, s.spec.Replica)
	// Its pod may have been there before.
	w.floor = max(w.floor-1, 0)
	return true
}

// shrink makes the Deployment as small as it may be, whatever has become of the caller. The pods that are too many go,
// the given one, if it is not "", before others; each gets that much time.
func (w *workload) shrink(pod string, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	w.writing.Lock()
	defer w.writing.Unlock()
	l := w.launcher
	l.mu.Lock()
	replicas := w.wanted()
	pods := w.spare(pod)
	l.mu.Unlock()
	for _, name := range pods {
		// Of pods that are alike otherwise, the Deployment takes the cheapest.
		cheap := `{"metadata":{"annotations":{"controller.kubernetes.io/pod-deletion-cost":"-1000"}}}`
		if _, err := l.api.pods.Patch(ctx, name, types.MergePatchType, []byte(cheap), metav1.PatchOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	if _, err := w.scale(ctx, replicas); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	// The Deployment may take another one for it all the same, if that is not ready, and then makes that anew.
	for _, name := range pods {
		if err := w.kill(ctx, name, grace); err != nil {
			return err
		}
	}
	return nil
}

// spare returns the pods that are too many, none of which has a replica: the given one and perhaps others. It holds
// Launcher.mu.
func (w *workload) spare(first string) []string {
	var names []string
	if first != "" {
		names = append(names, first)
	}
	found, err := w.place.pods.List(labels.SelectorFromSet(labels.Set{labelName: w.name, labelSpec: w.digest}))
	if err != nil {
		return names
	}
	found = slices.DeleteFunc(found, func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodFailed })
	excess := len(found) - int(w.wanted())
	for _, p := range found {
		bound := slices.ContainsFunc(slices.Collect(maps.Values(w.slots)), func(s *slot) bool { return s.pod == p.UID })
		if len(names) < excess && !bound && p.Name != first {
			names = append(names, p.Name)
		}
	}
	return names
}

// kill deletes a pod. A second call shortens the time that it has; 0 would be to forget it while it runs.
func (w *workload) kill(ctx context.Context, pod string, grace time.Duration) error {
	seconds := max(int64((grace+time.Second-1)/time.Second), 1)
	err := w.launcher.api.pods.Delete(ctx, pod, metav1.DeleteOptions{GracePeriodSeconds: &seconds})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// tidy deletes the objects of a version that has no replica left.
func (w *workload) tidy() {
	l := w.launcher
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	w.writing.Lock()
	defer w.writing.Unlock()
	l.mu.Lock()
	needed := w.wanted() > 0
	l.mu.Unlock()
	if needed {
		return
	}
	if err := l.delete(ctx, w.name); err != nil {
		l.log.Warn("a Deployment that nobody needs stays for now", "deployment", w.name, "error", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.wanted() == 0 && l.workloads[w.name] == w {
		delete(l.workloads, w.name)
	}
}

// release gives up a replica that does not run.
func (w *workload) release(s *slot) {
	if !w.leave(s) {
		return
	}
	if err := w.shrink("", w.launcher.cfg.StopTimeout); err != nil {
		w.launcher.log.Warn("a pod that nobody needs stays for now", "deployment", w.name, "error", err)
	}
	w.tidy()
}

// forget gives up the pods that nobody has asked for.
func (w *workload) forget() error {
	w.launcher.mu.Lock()
	w.floor = 0
	w.launcher.mu.Unlock()
	if err := w.shrink("", w.launcher.cfg.StopTimeout); err != nil {
		return err
	}
	w.tidy()
	return nil
}
