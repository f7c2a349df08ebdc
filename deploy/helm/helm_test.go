// SPDX-License-Identifier: Apache-2.0

package helm

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/yaml"
)

const chart = "clipper"

// everything turns on all that is off.
const everything = `
redis: {passwordSecret: redis}
pullSecrets: [registry]
frontend:
  autoscaling: {enabled: true}
  service: {type: LoadBalancer, annotations: {a: b}}
  nodeSelector: {pool: edge}
  tolerations: [{key: edge, operator: Exists}]
  priorityClassName: serving
selector: {autoscaling: {enabled: true}, settings: {cached-contexts: 1000000, answer-margin: 2ms}}
abstraction: {autoscaling: {enabled: true}, settings: {cache-size: 512MiB, kubernetes-context: ""}}
models:
  existingClaim: models
  podTemplate: {spec: {nodeSelector: {pool: models}}}
  gpuPodTemplate: {spec: {tolerations: [{key: nvidia.com/gpu, operator: Exists}]}}
ingress: {enabled: true, className: nginx, host: clipper.example.com, tlsSecret: tls, annotations: {a: b}}
networkPolicy:
  queriesFrom: [{namespaceSelector: {}}]
  administrationFrom: [{podSelector: {matchLabels: {role: operator}}}]
  metricsFrom: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]
  modelEgress: []
tls: {secret: certificates, serverName: clipper.serving}
registerTokenSecret: registration
serviceMonitor: {enabled: true, labels: {release: prometheus}}
`

func render(values string) (map[string]string, error) {
	c, err := loader.LoadDir(chart)
	if err != nil {
		return nil, err
	}
	parsed, err := common.ReadValues([]byte(values))
	if err != nil {
		return nil, err
	}
	all, err := util.ToRenderValues(c, parsed, common.ReleaseOptions{Name: "clipper", Namespace: "serving", IsInstall: true}, common.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	return engine.Render(c, all)
}

// objects renders the chart and decodes what comes out, strictly: a field that the API does not know is an error. The
// monitors, whose types are the Prometheus operator's, are counted only.
func objects(t *testing.T, values string) (found []runtime.Object, monitors int) {
	t.Helper()
	files, err := render(values)
	require.NoError(t, err)
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		appsv1.AddToScheme, autoscalingv2.AddToScheme, corev1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme, rbacv1.AddToScheme,
	} {
		require.NoError(t, add(scheme))
	}
	strict := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	for name, text := range files {
		if path.Ext(name) != ".yaml" {
			continue
		}
		documents := yaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
		for {
			document, err := documents.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			if len(bytes.TrimSpace(regexp.MustCompile(`(?m)^#.*$`).ReplaceAll(document, nil))) == 0 {
				continue
			}
			if bytes.Contains(document, []byte("\nkind: ServiceMonitor\n")) {
				monitors++
				continue
			}
			object, _, err := strict.Decode(document, nil, nil)
			require.NoError(t, err, "%s:\n%s", name, document)
			found = append(found, object)
		}
	}
	return found, monitors
}

func TestLint(t *testing.T) {
	for _, values := range []string{"", everything} {
		parsed, err := common.ReadValues([]byte(values))
		require.NoError(t, err)
		for _, m := range lint.RunAll(chart, parsed, "serving").Messages {
			require.Less(t, m.Severity, support.WarningSev, m.Error())
		}
	}
}

// TestPods: every pod is as restricted as can be, selected by what selects it, and found by who looks for it.
func TestPods(t *testing.T) {
	for name, test := range map[string]struct {
		values    string
		monitors  int
		scalers   int
		ingresses int
	}{
		"defaults":        {"", 0, 0, 0},
		"everything":      {everything, 3, 3, 1},
		"a Redis outside": {"{redis: {enabled: false}, store: {secret: redis}, networkPolicy: {enabled: false}, podDisruptionBudget: {enabled: false}}", 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			found, monitors := objects(t, test.values)
			require.Equal(t, test.monitors, monitors)
			var scalers, ingresses int
			pods := map[string]corev1.PodTemplateSpec{}
			for _, o := range found {
				switch o := o.(type) {
				case *appsv1.Deployment:
					require.Subset(t, o.Spec.Template.Labels, o.Spec.Selector.MatchLabels)
					require.Equal(t, o.Name == "clipper-frontend" && test.scalers > 0, o.Spec.Replicas == nil && o.Name == "clipper-frontend", "an autoscaler's number is left alone")
					pods[o.Name] = o.Spec.Template
				case *appsv1.StatefulSet:
					require.Subset(t, o.Spec.Template.Labels, o.Spec.Selector.MatchLabels)
					pods[o.Name] = o.Spec.Template
				case *autoscalingv2.HorizontalPodAutoscaler:
					scalers++
				case *networkingv1.Ingress:
					ingresses++
				}
			}
			require.Equal(t, test.scalers, scalers)
			require.Equal(t, test.ingresses, ingresses)
			redis := !strings.Contains(test.values, "enabled: false}, store")
			require.Len(t, pods, map[bool]int{true: 4, false: 3}[redis])
			for name, pod := range pods {
				restricted(t, name, pod)
				for _, c := range pod.Spec.Containers {
					for _, e := range c.Env {
						require.Empty(t, validation.IsEnvVarName(e.Name))
					}
				}
			}
			for _, o := range found {
				s, ok := o.(*corev1.Service)
				if !ok {
					continue
				}
				require.Equal(t, 1, selected(pods, s.Spec.Selector), "the Service %s", s.Name)
				for _, p := range s.Spec.Ports {
					require.True(t, has(pods, s.Spec.Selector, p.TargetPort.String()), "the Service %s has a port %s that no pod has", s.Name, p.TargetPort.String())
				}
			}
			for _, o := range found {
				if p, ok := o.(*networkingv1.NetworkPolicy); ok && p.Name != "clipper-models" {
					require.Equal(t, 1, selected(pods, p.Spec.PodSelector.MatchLabels), "the policy %s", p.Name)
				}
			}
		})
	}
}

func selected(pods map[string]corev1.PodTemplateSpec, labels map[string]string) (n int) {
	for _, p := range pods {
		if matches(p, labels) {
			n++
		}
	}
	return n
}

func matches(p corev1.PodTemplateSpec, labels map[string]string) bool {
	for k, v := range labels {
		if p.Labels[k] != v {
			return false
		}
	}
	return true
}

func has(pods map[string]corev1.PodTemplateSpec, labels map[string]string, port string) bool {
	for _, p := range pods {
		if !matches(p, labels) {
			continue
		}
		for _, declared := range p.Spec.Containers[0].Ports {
			if declared.Name == port {
				return true
			}
		}
	}
	return false
}

// restricted holds a pod against the profile "restricted" of the Pod Security Standards, and a little more.
func restricted(t *testing.T, name string, pod corev1.PodTemplateSpec) {
	t.Helper()
	require.True(t, *pod.Spec.SecurityContext.RunAsNonRoot, name)
	require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, pod.Spec.SecurityContext.SeccompProfile.Type, name)
	if name != "clipper-abstraction" {
		require.False(t, *pod.Spec.AutomountServiceAccountToken, name)
	}
	for _, c := range pod.Spec.Containers {
		require.False(t, *c.SecurityContext.AllowPrivilegeEscalation, name)
		require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem, name)
		require.Equal(t, []corev1.Capability{"ALL"}, c.SecurityContext.Capabilities.Drop, name)
		require.NotEmpty(t, c.Resources.Limits, name)
		require.NotNil(t, c.LivenessProbe, name)
		require.NotNil(t, c.ReadinessProbe, name)
	}
}

// TestNobodyAdministratesUnasked: by default only the release's own pods reach the administration.
func TestNobodyAdministratesUnasked(t *testing.T) {
	found, _ := objects(t, "")
	for _, o := range found {
		p, ok := o.(*networkingv1.NetworkPolicy)
		if !ok || p.Name != "clipper-frontend" {
			continue
		}
		require.Len(t, p.Spec.Ingress, 2)
		require.Empty(t, p.Spec.Ingress[0].From, "everybody may ask")
		require.Len(t, p.Spec.Ingress[1].From, 1)
		require.NotNil(t, p.Spec.Ingress[1].From[0].PodSelector)
		return
	}
	require.Fail(t, "there is no policy of the frontend")
}

func TestArguments(t *testing.T) {
	found, _ := objects(t, everything)
	for _, o := range found {
		switch o := o.(type) {
		case *appsv1.Deployment:
			if o.Name == "clipper-selector" {
				require.Contains(t, o.Spec.Template.Spec.Containers[0].Args, "--cached-contexts=1000000")
			}
		case *appsv1.StatefulSet:
			if o.Name == "clipper-abstraction" {
				args := o.Spec.Template.Spec.Containers[0].Args
				require.Contains(t, args, "--advertise=$(POD_NAME).clipper-instances:1367")
				require.Contains(t, args, "--kubernetes-gpu-pod-template=/etc/clipper/gpu-pod-template.yaml")
				require.Contains(t, args, "--kubernetes-models-claim=models")
				require.Equal(t, "clipper-instances", o.Spec.ServiceName)
			}
		case *corev1.ConfigMap:
			require.Equal(t, "spec:\n  nodeSelector:\n    pool: models", o.Data["pod-template.yaml"])
		}
	}
}

// TestTLS looks for the files of the Secret behind every flag, and for the probes to follow.
func TestTLS(t *testing.T) {
	found, _ := objects(t, "tls: {secret: certificates}\nregisterTokenSecret: registration")
	want := map[string][]string{
		"frontend":    {"--http-tls-cert=", "--grpc-tls-cert=", "--admin-http-tls-cert=", "--admin-grpc-tls-client-ca=", "--services-tls-server-name=clipper"},
		"selector":    {"--grpc-tls-client-ca=", "--ops-tls-cert=", "--services-tls-ca="},
		"abstraction": {"--grpc-tls-client-ca=", "--ops-tls-cert=", "--services-tls-ca="},
	}
	for _, object := range found {
		var pod corev1.PodSpec
		switch o := object.(type) {
		case *appsv1.Deployment:
			pod = o.Spec.Template.Spec
		case *appsv1.StatefulSet:
			pod = o.Spec.Template.Spec
		default:
			continue
		}
		container := pod.Containers[0]
		args := strings.Join(container.Args, "\n")
		for _, flag := range want[container.Name] {
			require.Contains(t, args, flag, container.Name)
		}
		if want[container.Name] == nil {
			continue
		}
		delete(want, container.Name)
		require.Equal(t, corev1.URISchemeHTTPS, container.ReadinessProbe.HTTPGet.Scheme)
		require.Equal(t, corev1.URISchemeHTTPS, container.LivenessProbe.HTTPGet.Scheme)
		mounted := false
		for _, m := range container.VolumeMounts {
			mounted = mounted || m.Name == "tls" && m.MountPath == "/etc/clipper-tls"
		}
		require.True(t, mounted, container.Name)
		token := false
		for _, e := range container.Env {
			token = token || e.Name == "CLIPPER_ABSTRACTION_REGISTER_TOKEN" && e.ValueFrom.SecretKeyRef.Name == "registration"
		}
		require.Equal(t, container.Name == "abstraction", token, container.Name)
	}
	require.Empty(t, want)

	files, err := render("")
	require.NoError(t, err)
	for name, text := range files {
		require.NotContains(t, text, "-tls-", name)
	}
}

func TestRefuses(t *testing.T) {
	for values, want := range map[string]string{
		"{redis: {enabled: false}}":                  "set redis.enabled, or store.secret",
		"{store: {secret: mine}}":                    "set one of the two",
		"{fronted: {replicas: 1}}":                   "fronted",
		"{frontend: {replicas: many}}":               "replicas",
		"{selector: {settings: {Cached: 1}}}":        "Cached",
		"{models: {podTemplate: {nodeSelector: 1}}}": "nodeSelector",
		"{serviceMonitor: {interval: often}}":        "interval",
	} {
		_, err := render(values)
		require.ErrorContains(t, err, want, values)
	}
}

func TestNotes(t *testing.T) {
	files, err := render("")
	require.NoError(t, err)
	notes := files["clipper/templates/NOTES.txt"]
	require.Contains(t, notes, "http://clipper.serving:1337 (REST)")
	require.Contains(t, notes, "Redis has no password")
}

// TestRightsAreDocumented: whoever installs without the chart finds the same Role in the documentation.
func TestRightsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/kubernetes.md")
	require.NoError(t, err)
	found, _ := objects(t, "")
	for _, o := range found {
		role, ok := o.(*rbacv1.Role)
		if !ok {
			continue
		}
		for _, rule := range role.Rules {
			row := "| `" + strings.Join(rule.Resources, "`, `") + "` | " + strings.Join(rule.Verbs, ", ") + " |"
			require.Contains(t, string(text), row)
		}
	}
}
