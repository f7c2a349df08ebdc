// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// api is what the launcher uses of the API server, in one namespace. client-go's own clientset has every kind that
// there is, and would make the program half as large again.
type api struct {
	deployments kind[*appsv1.Deployment, *appsv1.DeploymentList]
	pods        kind[*corev1.Pod, *corev1.PodList]
	services    kind[*corev1.Service, *corev1.ServiceList]
	budgets     kind[*policyv1.PodDisruptionBudget, *policyv1.PodDisruptionBudgetList]
	slices      kind[*discoveryv1.EndpointSlice, *discoveryv1.EndpointSliceList]
	logs        func(pod string, options *corev1.PodLogOptions) *rest.Request
	watchers    any // the clientset, if it says which watches it knows
}

// kind is the calls for one kind of object. client-go's clients, typed and generic, have them.
type kind[T, L runtime.Object] interface {
	Get(ctx context.Context, name string, options metav1.GetOptions) (T, error)
	List(ctx context.Context, options metav1.ListOptions) (L, error)
	Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error)
	Create(ctx context.Context, object T, options metav1.CreateOptions) (T, error)
	Update(ctx context.Context, object T, options metav1.UpdateOptions) (T, error)
	Patch(ctx context.Context, name string, kind types.PatchType, patch []byte, options metav1.PatchOptions, subresources ...string) (T, error)
	Delete(ctx context.Context, name string, options metav1.DeleteOptions) error
}

// connect returns a client for a cluster. It does not ask it yet.
func connect(settings *rest.Config, namespace string) (*api, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{appsv1.AddToScheme, corev1.AddToScheme, discoveryv1.AddToScheme, policyv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	codecs, parameters := serializer.NewCodecFactory(scheme), runtime.NewParameterCodec(scheme)
	client, err := rest.HTTPClientFor(settings)
	if err != nil {
		return nil, err
	}
	clients := map[string]rest.Interface{}
	for _, version := range []schema.GroupVersion{appsv1.SchemeGroupVersion, corev1.SchemeGroupVersion, discoveryv1.SchemeGroupVersion, policyv1.SchemeGroupVersion} {
		c := rest.CopyConfig(settings)
		c.GroupVersion, c.APIPath, c.NegotiatedSerializer = &version, "/apis", codecs.WithoutConversion()
		if version.Group == "" {
			c.APIPath = "/api"
		}
		if clients[version.Group], err = rest.RESTClientForConfigAndClient(c, client); err != nil {
			return nil, fmt.Errorf("client of %s: %w", version, err)
		}
	}
	core := clients[corev1.GroupName]
	return &api{
		deployments: gentype.NewClientWithList("deployments", clients[appsv1.GroupName], parameters, namespace,
			func() *appsv1.Deployment { return &appsv1.Deployment{} }, func() *appsv1.DeploymentList { return &appsv1.DeploymentList{} }),
		pods: gentype.NewClientWithList("pods", core, parameters, namespace,
			func() *corev1.Pod { return &corev1.Pod{} }, func() *corev1.PodList { return &corev1.PodList{} }),
		services: gentype.NewClientWithList("services", core, parameters, namespace,
			func() *corev1.Service { return &corev1.Service{} }, func() *corev1.ServiceList { return &corev1.ServiceList{} }),
		budgets: gentype.NewClientWithList("poddisruptionbudgets", clients[policyv1.GroupName], parameters, namespace,
			func() *policyv1.PodDisruptionBudget { return &policyv1.PodDisruptionBudget{} },
			func() *policyv1.PodDisruptionBudgetList { return &policyv1.PodDisruptionBudgetList{} }),
		slices: gentype.NewClientWithList("endpointslices", clients[discoveryv1.GroupName], parameters, namespace,
			func() *discoveryv1.EndpointSlice { return &discoveryv1.EndpointSlice{} },
			func() *discoveryv1.EndpointSliceList { return &discoveryv1.EndpointSliceList{} }),
		logs: func(pod string, options *corev1.PodLogOptions) *rest.Request {
			return core.Get().Namespace(namespace).Resource("pods").Name(pod).SubResource("log").VersionedParams(options, parameters)
		},
	}, nil
}

// informer follows the objects of a kind that a selector selects.
func informer[T, L runtime.Object](a *api, k kind[T, L], example T, which labels.Selector) cache.SharedIndexInformer {
	lists := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.LabelSelector = which.String()
			return k.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.LabelSelector = which.String()
			return k.Watch(ctx, o)
		},
	}
	return cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(lists, a.watchers), example, 0,
		cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
}
