// SPDX-License-Identifier: Apache-2.0

package kubernetestest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	fakerest "k8s.io/client-go/rest/fake"
	"k8s.io/client-go/testing"
)

// Node is the name of the only node of a [Cluster].
const Node = "node-1"

// hashLabel tells which template a pod was made from, as in a real cluster.
const hashLabel = "pod-template-hash"

// Cluster is client-go's fake clientset with stand-ins for the scheduler, the controllers of Deployments and
// EndpointSlices, the garbage collector, and the kubelet of one node.
type Cluster struct {
	// Kubelet runs the pods.
	Kubelet *Kubelet

	inner *fake.Clientset // what the stand-ins use
	down  atomic.Bool
	made  atomic.Int64
	wake  chan struct{}
	stop  context.CancelFunc
	done  sync.WaitGroup

	mu      sync.Mutex
	watches []watch.Interface
}

// New returns a cluster that knows these images. The caller closes it.
func New(images map[string][]string) *Cluster {
	c := &Cluster{inner: fake.NewClientset(), wake: make(chan struct{}, 1)}
	c.Kubelet = &Kubelet{Client: c.inner, Images: images}
	c.inner.PrependReactor("delete", "*", c.delete)
	c.inner.PrependReactor("create", "*", c.create)
	c.inner.PrependReactor("*", "*", func(a testing.Action) (bool, runtime.Object, error) {
		if a.GetVerb() != "get" && a.GetVerb() != "list" {
			// The reaction holds the clientset's lock, so what follows from it is looked at after it.
			select {
			case c.wake <- struct{}{}:
			default:
			}
		}
		return false, nil, nil
	})
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.done.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-c.wake:
				c.reconcile(ctx)
			}
		}
	})
	return c
}

// Close ends every process of the cluster.
func (c *Cluster) Close() {
	c.stop()
	c.done.Wait()
	c.Kubelet.Close()
}

// Direct returns a clientset that works while the API server is down for others.
func (c *Cluster) Direct() kubernetes.Interface { return c.inner }

// Client returns a clientset for the one who is tested.
func (c *Cluster) Client() kubernetes.Interface {
	outer := &fake.Clientset{}
	outer.AddReactor("*", "*", func(a testing.Action) (bool, runtime.Object, error) {
		if c.down.Load() {
			return true, nil, refused()
		}
		object, err := c.inner.Invokes(a, nil)
		return true, object, err
	})
	outer.AddWatchReactor("*", func(a testing.Action) (bool, watch.Interface, error) {
		if c.down.Load() {
			return true, nil, refused()
		}
		w, err := c.watch(a)
		return true, w, err
	})
	return client{Clientset: outer, cluster: c}
}

func refused() error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

// SetDown takes the API server away, or brings it back. What runs, runs on.
func (c *Cluster) SetDown(down bool) {
	c.down.Store(down)
	if !down {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.watches {
		w.Stop()
	}
	c.watches = nil
}

// watch begins with the objects that there are: the fake knows no resource versions, so that what happens between a
// list and a watch would be missed.
func (c *Cluster) watch(a testing.Action) (watch.Interface, error) {
	c.inner.Lock()
	defer c.inner.Unlock()
	gvr, namespace := a.GetResource(), a.GetNamespace()
	w, err := c.inner.Tracker().Watch(gvr, namespace)
	if err != nil {
		return nil, err
	}
	kind := map[string]string{"pods": "Pod", "deployments": "Deployment", "endpointslices": "EndpointSlice"}[gvr.Resource]
	list, err := c.inner.Tracker().List(gvr, gvr.GroupVersion().WithKind(kind), namespace)
	if err != nil {
		return nil, err
	}
	objects, err := meta.ExtractList(list)
	if err != nil {
		return nil, err
	}
	if adder, ok := w.(interface{ Add(runtime.Object) }); ok {
		for _, o := range objects {
			adder.Add(o)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watches = append(c.watches, w)
	return w, nil
}

// create gives objects what an API server gives them.
func (c *Cluster) create(a testing.Action) (bool, runtime.Object, error) {
	object, err := meta.Accessor(a.(testing.CreateAction).GetObject()) //nolint:forcetypeassert // it is one
	if err == nil && object.GetUID() == "" {
		object.SetUID(types.UID("uid-" + strconv.FormatInt(c.made.Add(1), 10)))
		object.SetCreationTimestamp(metav1.Now())
	}
	return false, nil, nil
}

// delete marks what does not go at once: pods that have time to end, and Deployments that go after their pods.
func (c *Cluster) delete(a testing.Action) (bool, runtime.Object, error) {
	d := a.(testing.DeleteActionImpl) //nolint:forcetypeassert // it is one
	gvr, tracker := a.GetResource(), c.inner.Tracker()
	options := d.GetDeleteOptions()
	var grace int64
	switch {
	case gvr.Resource == "pods" && (options.GracePeriodSeconds == nil || *options.GracePeriodSeconds > 0):
	case gvr.Resource == "deployments" && options.PropagationPolicy != nil && *options.PropagationPolicy == metav1.DeletePropagationForeground:
	default:
		return false, nil, nil
	}
	found, err := tracker.Get(gvr, a.GetNamespace(), d.GetName())
	if err != nil {
		return true, nil, err
	}
	found = found.DeepCopyObject()
	object, err := meta.Accessor(found)
	if err != nil {
		return true, nil, err
	}
	if p, ok := found.(*corev1.Pod); ok {
		grace = 30
		if p.Spec.TerminationGracePeriodSeconds != nil {
			grace = *p.Spec.TerminationGracePeriodSeconds
		}
		if options.GracePeriodSeconds != nil {
			grace = *options.GracePeriodSeconds
		}
		if before := p.DeletionGracePeriodSeconds; before != nil && *before < grace {
			return true, nil, nil
		}
	}
	at := metav1.NewTime(time.Now().Add(time.Duration(grace) * time.Second))
	object.SetDeletionTimestamp(&at)
	object.SetDeletionGracePeriodSeconds(&grace)
	return true, nil, tracker.Update(gvr, found, a.GetNamespace())
}

// reconcile does once what the controllers do.
func (c *Cluster) reconcile(ctx context.Context) {
	all := metav1.NamespaceAll
	// What is owned is listed before its owners, so that none that is new seems to have none.
	services, err := c.inner.CoreV1().Services(all).List(ctx, metav1.ListOptions{})
	if err != nil {
		return
	}
	deployments, err := c.inner.AppsV1().Deployments(all).List(ctx, metav1.ListOptions{})
	if err != nil {
		return
	}
	pods, err := c.inner.CoreV1().Pods(all).List(ctx, metav1.ListOptions{})
	if err != nil {
		return
	}
	owned, alive := map[types.UID][]*corev1.Pod{}, map[types.UID]bool{}
	var bound []*corev1.Pod
	for i := range pods.Items {
		p := &pods.Items[i]
		alive[p.UID] = true
		for _, o := range p.OwnerReferences {
			owned[o.UID] = append(owned[o.UID], p)
		}
		if p.Spec.NodeName == Node {
			bound = append(bound, p)
		}
	}
	for i := range deployments.Items {
		d := &deployments.Items[i]
		alive[d.UID] = true
		c.deployment(ctx, d, owned[d.UID], alive)
	}
	for i := range services.Items {
		s := &services.Items[i]
		if orphan(s.OwnerReferences, alive) {
			_ = c.inner.CoreV1().Services(s.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{})
			_ = c.inner.PolicyV1().PodDisruptionBudgets(s.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{})
			continue
		}
		c.slice(ctx, s, pods.Items)
	}
	c.Kubelet.Sync(bound)
}

func orphan(owners []metav1.OwnerReference, alive map[types.UID]bool) bool {
	return len(owners) > 0 && !slices.ContainsFunc(owners, func(o metav1.OwnerReference) bool { return alive[o.UID] })
}

// deployment makes and deletes the pods of a Deployment.
func (c *Cluster) deployment(ctx context.Context, d *appsv1.Deployment, pods []*corev1.Pod, alive map[types.UID]bool) {
	if d.DeletionTimestamp == nil && orphan(d.OwnerReferences, alive) {
		last := metav1.DeletePropagationForeground
		_ = c.inner.AppsV1().Deployments(d.Namespace).Delete(ctx, d.Name, metav1.DeleteOptions{PropagationPolicy: &last})
		return
	}
	want := int(*d.Spec.Replicas)
	if d.DeletionTimestamp != nil {
		want = 0
		if len(pods) == 0 {
			_ = c.inner.AppsV1().Deployments(d.Namespace).Delete(ctx, d.Name, metav1.DeleteOptions{})
			return
		}
	}
	hash := fmt.Sprintf("%x", d.Spec.Template.Labels)
	for _, e := range d.Spec.Template.Spec.Containers {
		hash += e.Image
	}
	active := slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool {
		return p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodFailed
	})
	old := slices.DeleteFunc(slices.Clone(active), func(p *corev1.Pod) bool { return p.Annotations[hashLabel] == hash })
	for _, p := range old {
		_ = c.inner.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{})
	}
	if len(old) > 0 || len(active) < want && slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return p.Annotations[hashLabel] != hash }) {
		return // All are made anew, when none is left.
	}
	slices.SortFunc(active, func(a, b *corev1.Pod) int { return cost(b) - cost(a) })
	for _, p := range active[min(want, len(active)):] {
		_ = c.inner.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{})
	}
	for range want - len(active) {
		c.pod(ctx, d, hash)
	}
}

// cost is the least for the pod that goes first.
func cost(p *corev1.Pod) int {
	n, _ := strconv.Atoi(p.Annotations["controller.kubernetes.io/pod-deletion-cost"])
	if slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	}) {
		n += 1 << 20
	}
	return n
}

// pod makes a pod of a Deployment, on the node unless it asks for another one.
func (c *Cluster) pod(ctx context.Context, d *appsv1.Deployment, hash string) {
	controller := true
	p := &corev1.Pod{ObjectMeta: *d.Spec.Template.ObjectMeta.DeepCopy(), Spec: *d.Spec.Template.Spec.DeepCopy()}
	p.Name, p.Namespace = d.Name+"-"+strconv.FormatInt(c.made.Add(1), 10), d.Namespace
	p.Annotations = maps.Clone(p.Annotations)
	if p.Annotations == nil {
		p.Annotations = map[string]string{}
	}
	p.Annotations[hashLabel] = hash
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: d.Name, UID: d.UID, Controller: &controller}}
	p.Status.Phase = corev1.PodPending
	if len(p.Spec.NodeSelector) == 0 {
		p.Spec.NodeName = Node
	} else {
		p.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable,
			Message: "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
		}}
	}
	_, _ = c.inner.CoreV1().Pods(p.Namespace).Create(ctx, p, metav1.CreateOptions{})
}

// slice keeps the EndpointSlice of a Service.
func (c *Cluster) slice(ctx context.Context, s *corev1.Service, pods []corev1.Pod) {
	portName, portNumber := s.Spec.Ports[0].Name, s.Spec.Ports[0].Port
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name: s.Name + "-1", Namespace: s.Namespace, Labels: maps.Clone(s.Labels),
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: s.Name, UID: s.UID}},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &portName, Port: &portNumber}},
	}
	slice.Labels[discoveryv1.LabelServiceName] = s.Name
	for i := range pods {
		p := &pods[i]
		if p.Status.PodIP == "" || p.Namespace != s.Namespace || !labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(p.Labels)) {
			continue
		}
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{p.Status.PodIP}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: p.Name, Namespace: p.Namespace, UID: p.UID},
		})
	}
	slices := c.inner.DiscoveryV1().EndpointSlices(s.Namespace)
	have, err := slices.Get(ctx, slice.Name, metav1.GetOptions{})
	switch {
	case err != nil:
		_, _ = slices.Create(ctx, slice, metav1.CreateOptions{})
	case !sameEndpoints(have.Endpoints, slice.Endpoints):
		_, _ = slices.Update(ctx, slice, metav1.UpdateOptions{})
	}
}

func sameEndpoints(a, b []discoveryv1.Endpoint) bool {
	return slices.EqualFunc(a, b, func(x, y discoveryv1.Endpoint) bool {
		return x.TargetRef.UID == y.TargetRef.UID && slices.Equal(x.Addresses, y.Addresses)
	})
}

// client is the fake clientset with the kubelet's logs, which the fake has no place for.
type client struct {
	*fake.Clientset
	cluster *Cluster
}

// CoreV1 implements kubernetes.Interface.
func (c client) CoreV1() typedcorev1.CoreV1Interface { return core{c.Clientset.CoreV1(), c.cluster} }

type core struct {
	typedcorev1.CoreV1Interface
	cluster *Cluster
}

// Pods implements typedcorev1.CoreV1Interface.
func (c core) Pods(namespace string) typedcorev1.PodInterface {
	return pods{c.CoreV1Interface.Pods(namespace), c.cluster}
}

type pods struct {
	typedcorev1.PodInterface
	cluster *Cluster
}

// GetLogs implements typedcorev1.PodInterface.
func (p pods) GetLogs(name string, options *corev1.PodLogOptions) *rest.Request {
	answer := func(r *http.Request) (*http.Response, error) {
		if p.cluster.down.Load() {
			return nil, refused()
		}
		log, err := p.cluster.Kubelet.Log(r.Context(), name, options)
		if err != nil {
			return &http.Response{StatusCode: http.StatusBadRequest, Body: io.NopCloser(bytes.NewBufferString(err.Error()))}, nil
		}
		return &http.Response{StatusCode: http.StatusOK, Body: log}, nil
	}
	c := &fakerest.RESTClient{
		Client:               fakerest.CreateHTTPClient(answer),
		NegotiatedSerializer: scheme.Codecs.WithoutConversion(),
		GroupVersion:         corev1.SchemeGroupVersion,
	}
	return c.Request()
}
