// SPDX-License-Identifier: Apache-2.0

// Package kubernetes runs the suite of the launchers on a real control plane: etcd, kube-apiserver and
// kube-controller-manager. Only the scheduler and the kubelet are stand-ins.
package kubernetes

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/clipper-serving/clipper/abstraction/launcher"
	kuberneteslauncher "github.com/clipper-serving/clipper/abstraction/launcher/kubernetes"
	"github.com/clipper-serving/clipper/abstraction/launcher/kubernetes/kubernetestest"
	"github.com/clipper-serving/clipper/abstraction/launcher/launchertest"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

func TestMain(m *testing.M) {
	if code, ran := launchertest.Main(); ran {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

const (
	image    = "registry.example.com/launchertest:1"
	patience = 3 * time.Minute
	poll     = 100 * time.Millisecond
	// The API refuses loopback addresses in EndpointSlices, so pods have others, which are made local to the
	// network namespace that the test runs in.
	podNetwork = "198.18.0.0/16"
)

func TestConformance(t *testing.T) {
	c := start(t)
	launchertest.Run(t, launchertest.Suite{
		New: func(t *testing.T, grace time.Duration) launcher.Launcher {
			l, err := kuberneteslauncher.New(kuberneteslauncher.Config{
				Kubeconfig: c.kubeconfig, Namespace: "default", Installation: "test-" + strings.ToLower(rand.Text()[:12]), StopTimeout: grace,
			}, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})))
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, l.Close()) })
			return l
		},
		Container: func(*testing.T) *clipperv1.Container {
			return &clipperv1.Container{Source: &clipperv1.Container_Image{Image: &clipperv1.Image{Reference: image}}}
		},
		Unlimited: "the stand-in for the kubelet holds nothing to limits",
	})
	require.Eventually(t, func() bool {
		left, err := c.admin.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
		return err == nil && len(left.Items) == 0
	}, patience, poll, "nothing is left")
}

// cluster is the control plane, with one node.
type cluster struct {
	directory  string
	kubeconfig string // of the user with the rights that the chart gives
	admin      kubernetes.Interface
}

func start(t *testing.T) *cluster {
	t.Helper()
	for _, command := range [][]string{{"ip", "link", "set", "lo", "up"}, {"ip", "route", "add", "local", podNetwork, "dev", "lo"}} {
		out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput()
		if err != nil && !strings.Contains(string(out), "File exists") {
			t.Skipf("%v: %s: run it as the README says, in a network namespace of its own", command, out)
		}
	}
	c := &cluster{directory: t.TempDir()}
	etcd, peer, secure := freePort(t), freePort(t), freePort(t)
	c.run(t, "etcd", "--data-dir="+filepath.Join(c.directory, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls=http://127.0.0.1:"+etcd, "--advertise-client-urls=http://127.0.0.1:"+etcd,
		"--listen-peer-urls=http://127.0.0.1:"+peer, "--initial-advertise-peer-urls=http://127.0.0.1:"+peer, "--initial-cluster=default=http://127.0.0.1:"+peer)
	key := c.write(t, "sa.key", signingKey(t))
	tokens := c.write(t, "tokens.csv", "admin-token,admin,1,system:masters\nclipper-token,clipper,2\n")
	c.run(t, "kube-apiserver", "--etcd-servers=http://127.0.0.1:"+etcd, "--bind-address=127.0.0.1", "--advertise-address=198.18.0.1", "--secure-port="+secure,
		"--cert-dir="+filepath.Join(c.directory, "certs"), "--token-auth-file="+tokens, "--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+key, "--service-account-signing-key-file="+key,
		"--service-cluster-ip-range=10.96.0.0/24", "--kubelet-preferred-address-types=InternalIP")
	server := "https://127.0.0.1:" + secure
	c.kubeconfig = c.write(t, "clipper.yaml", kubeconfig(server, "clipper-token"))
	settings := &rest.Config{Host: server, BearerToken: "admin-token", TLSClientConfig: rest.TLSClientConfig{Insecure: true}, QPS: -1}
	admin, err := kubernetes.NewForConfig(settings)
	require.NoError(t, err)
	c.admin = admin
	require.Eventually(t, func() bool {
		_, err := admin.CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{})
		return err == nil
	}, patience, poll, "the API server serves")
	c.run(t, "kube-controller-manager", "--kubeconfig="+c.write(t, "admin.yaml", kubeconfig(server, "admin-token")), "--leader-elect=false", "--secure-port=0",
		"--service-account-private-key-file="+key,
		"--controllers=deployment-controller,replicaset-controller,endpointslice-controller,garbage-collector-controller,disruption-controller,serviceaccount-controller")
	require.Eventually(t, func() bool {
		_, err := admin.CoreV1().ServiceAccounts("default").Get(t.Context(), "default", metav1.GetOptions{})
		return err == nil
	}, patience, poll, "the controllers run")
	c.grant(t)
	c.node(t)
	return c
}

// grant gives the user the rights of the chart, and no others.
func (c *cluster) grant(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/helm/clipper/templates/rbac.yaml")
	require.NoError(t, err)
	var rules []rbacv1.PolicyRule
	for _, line := range regexp.MustCompile(`(?m)^  - \{apiGroups.*$`).FindAllString(string(text), -1) {
		var rule []rbacv1.PolicyRule
		require.NoError(t, yaml.UnmarshalStrict([]byte(line), &rule))
		rules = append(rules, rule...)
	}
	require.NotEmpty(t, rules)
	_, err = c.admin.RbacV1().Roles("default").Create(t.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "clipper"}, Rules: rules}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = c.admin.RbacV1().RoleBindings("default").Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "clipper"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "clipper"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "clipper"}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
}

// node adds a node with the stand-in for its kubelet, which also binds the pods, as the scheduler would.
func (c *cluster) node(t *testing.T) {
	t.Helper()
	own, err := os.Executable()
	require.NoError(t, err)
	kubelet := &kubernetestest.Kubelet{Client: c.admin, Images: map[string][]string{image: {own}}, Network: []byte{198, 18}}
	logs := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serveLog(kubelet, w, r) }))
	_, text, err := net.SplitHostPort(logs.Listener.Addr().String())
	require.NoError(t, err)
	number, err := strconv.Atoi(text)
	require.NoError(t, err)
	node, err := c.admin.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: kubernetestest.Node}}, metav1.CreateOptions{})
	require.NoError(t, err)
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(number) //nolint:gosec // a port
	_, err = c.admin.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{})
	require.NoError(t, err)

	ctx, stop := context.WithCancel(context.Background())
	var loop sync.WaitGroup
	loop.Go(func() { c.sync(ctx, kubelet) })
	t.Cleanup(func() {
		stop()
		loop.Wait()
		kubelet.Close()
		logs.Close()
	})
}

// sync looks at the pods whenever one has changed.
func (c *cluster) sync(ctx context.Context, kubelet *kubernetestest.Kubelet) {
	pods := c.admin.CoreV1().Pods(metav1.NamespaceAll)
	for ctx.Err() == nil {
		list, err := pods.List(ctx, metav1.ListOptions{})
		if err != nil {
			continue
		}
		var bound []*corev1.Pod
		for i := range list.Items {
			p := &list.Items[i]
			if p.Spec.NodeName == "" {
				_ = c.admin.CoreV1().Pods(p.Namespace).Bind(ctx, &corev1.Binding{
					ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace, UID: p.UID},
					Target:     corev1.ObjectReference{Kind: "Node", Name: kubernetestest.Node},
				}, metav1.CreateOptions{})
				continue
			}
			bound = append(bound, p)
		}
		kubelet.Sync(bound)
		second := int64(1)
		changes, err := pods.Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion, TimeoutSeconds: &second})
		if err != nil {
			continue
		}
		<-changes.ResultChan()
		changes.Stop()
	}
}

// serveLog serves what the API server asks a kubelet for: /containerLogs/NAMESPACE/POD/CONTAINER.
func serveLog(kubelet *kubernetestest.Kubelet, w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/containerLogs/"), "/")
	if len(parts) != 3 {
		http.NotFound(w, r)
		return
	}
	query := r.URL.Query()
	options := &corev1.PodLogOptions{Follow: query.Get("follow") == "true", Previous: query.Get("previous") == "true"}
	if n, err := strconv.ParseInt(query.Get("tailLines"), 10, 64); err == nil {
		options.TailLines = &n
	}
	log, err := kubelet.Log(r.Context(), parts[1], options)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	defer func() { _ = log.Close() }()
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	_ = flush.Flush()
	buffer := make([]byte, 4096)
	for {
		n, err := log.Read(buffer)
		_, _ = w.Write(buffer[:n])
		_ = flush.Flush()
		if err != nil {
			return
		}
	}
}

// run starts one of the programs. Its output is shown when the test fails.
func (c *cluster) run(t *testing.T, program string, arguments ...string) {
	t.Helper()
	binary := os.Getenv("CLIPPER_CONTROL_PLANE")
	if binary == "" {
		binary = "../../.cache/kubernetes/controlplane"
	}
	if _, err := os.Stat(binary); errors.Is(err, os.ErrNotExist) {
		t.Skip("there is no control plane: build it as the README says")
	}
	log, err := os.Create(filepath.Join(c.directory, program+".log"))
	require.NoError(t, err)
	cmd := exec.CommandContext(context.Background(), binary, append([]string{program}, arguments...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			_, _ = log.Seek(-min(8<<10, size(log)), io.SeekEnd)
			text, _ := io.ReadAll(log)
			t.Logf("%s:\n%s", program, text)
		}
		_ = log.Close()
	})
}

func size(f *os.File) int64 {
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

func (c *cluster) write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(c.directory, name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func kubeconfig(server, token string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q, insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: %q}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, server, token)
}

func signingKey(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	return port
}
