// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// host is a machine of a test: a network namespace with one address.
type host struct{ namespace, address string }

// hosts makes machines that reach each other, and that the test reaches, over a network of their own. It needs root.
func hosts(t *testing.T, n int) []host {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("network namespaces need root")
	}
	// Named after the process, so that two test runs on one machine keep apart; names of interfaces have at most 15 bytes.
	name := fmt.Sprintf("ce%d", os.Getpid())
	network := fmt.Sprintf("10.%d.%d.", 64+os.Getpid()/250%128, os.Getpid()%250)
	ip := func(args ...string) { command(t, "ip", args...) }
	namespace := func(name string) {
		ip("netns", "add", name)
		t.Cleanup(func() { ip("netns", "del", name) })
	}
	// In a namespace of its own, the switch is out of reach of the rules that the test's machine has for bridges.
	namespace(name)
	ip("-n", name, "link", "add", "switch", "type", "bridge")
	ip("-n", name, "link", "set", "switch", "up")
	connect := func(i int, of ...string) string {
		outside, inside := fmt.Sprintf("port%d", i), fmt.Sprintf("%s-%d", name, i)
		ip(append([]string{"link", "add", inside}, append(of, "type", "veth", "peer", "name", outside, "netns", name)...)...)
		ip("-n", name, "link", "set", outside, "master", "switch", "up")
		return inside
	}
	mine := connect(0)
	ip("addr", "add", network+"1/24", "dev", mine)
	ip("link", "set", mine, "up")
	var made []host
	for i := 1; i <= n; i++ {
		h := host{namespace: fmt.Sprintf("%s-%d", name, i), address: fmt.Sprintf("%s%d", network, i+1)}
		namespace(h.namespace)
		link := connect(i, "netns", h.namespace)
		ip("-n", h.namespace, "addr", "add", h.address+"/24", "dev", link)
		ip("-n", h.namespace, "link", "set", link, "up")
		ip("-n", h.namespace, "link", "set", "lo", "up")
		made = append(made, h)
	}
	return made
}

func command(t *testing.T, program string, args ...string) {
	t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	require.NoError(t, err, "%s %v: %s", program, args, out)
}

// start runs a program on the machine.
func (h host) start(t *testing.T, name, program string, args ...string) *process {
	t.Helper()
	p := startProcess(t, name, "ip", append([]string{"netns", "exec", h.namespace, program}, args...)...)
	t.Cleanup(func() { p.kill(t) })
	return p
}

// partition makes packets between two machines vanish until heal is called, as when a cable is pulled: neither is told.
func (h host) partition(t *testing.T, other host) (heal func()) {
	t.Helper()
	rules := [][]string{{"INPUT", "-s", other.address, "-j", "DROP"}, {"OUTPUT", "-d", other.address, "-j", "DROP"}}
	change := func(action string) {
		for _, rule := range rules {
			command(t, "ip", append([]string{"netns", "exec", h.namespace, "iptables", "-w", action}, rule...)...)
		}
	}
	change("-A")
	return func() { change("-D") }
}

// TestPartition has the services on one machine, Redis on another and the models on a third, and cuts each off from each
// for a while. Every query is answered, at worst with the default output, and everything comes back by itself.
func TestPartition(t *testing.T) {
	machines := hosts(t, 3)
	services, store, models := machines[0], machines[1], machines[2]
	s := &system{
		services: []service{abstraction, selector, frontend},
		settings: map[service][]string{},
		ops:      map[service]string{},
		grpc:     map[service]string{},
		running:  map[service]*process{},
	}
	dir := t.TempDir()
	t.Cleanup(func() { s.end(t) })
	redis := store.start(t, "redis", "redis-server", "--bind", store.address, "--protected-mode", "no", "--save", "", "--appendonly", "yes", "--appendfsync", "always", "--dir", dir)
	s.logs = append(s.logs, redis)
	at := func(h host, port string) string { return net.JoinHostPort(h.address, port) }
	state := []string{"--data-dir=" + dir, "--store=redis://" + at(store, "6379")}
	queryGRPC, adminGRPC, adminHTTP := at(services, "1337"), at(services, "1339"), at(services, "1338")
	listen := func(name service, port, ops string) []string {
		s.grpc[name], s.ops[name] = at(services, port), "http://"+at(services, ops)
		return []string{"--grpc-listen=" + at(services, port), "--ops-listen=" + at(services, ops)}
	}
	s.settings[abstraction] = append(append(state, listen(abstraction, "2001", "2002")...), "--run-dir="+filepath.Join(dir, "run"))
	s.settings[selector] = append(append(state, listen(selector, "2003", "2004")...), "--abstraction="+s.grpc[abstraction], "--decision-log-dir="+dir)
	s.settings[frontend] = []string{
		"--http-listen=" + at(services, "1336"), "--grpc-listen=" + queryGRPC, "--admin-http-listen=" + adminHTTP, "--admin-grpc-listen=" + adminGRPC,
		"--selector=" + s.grpc[selector], "--abstraction=" + s.grpc[abstraction],
	}
	s.ops[frontend], s.adminURL, s.queryURL = "http://"+adminHTTP, "http://"+adminHTTP, "http://"+at(services, "1336")
	s.connect(t, queryGRPC, adminGRPC)
	for _, name := range s.services {
		p := services.start(t, string(name), programs.clipper, append([]string{string(name)}, s.settings[name]...)...)
		s.running[name], s.logs = p, append(s.logs, p)
	}
	for _, name := range s.services {
		s.awaitReady(t, name)
	}
	for i, bias := range []string{"0", "1"} {
		model := fmt.Sprintf("m%d", i)
		p := models.start(t, model, "env", "CLIPPER_CONTAINER_ADDRESS="+at(models, fmt.Sprint(7000+i)), "CLIPPER_REGISTER_ADDRESS="+adminGRPC,
			"CLIPPER_MODEL_NAME="+model, "CLIPPER_MODEL_VERSION=1", "BIAS="+bias, programs.container)
		s.logs = append(s.logs, p)
		v := version(model, "1", nil)
		v.Container = &clipperv1.Container{Source: &clipperv1.Container_Registered{Registered: &clipperv1.Registered{}}}
		s.deployVersion(t, v)
	}
	app := application("a", "exp4", "m0", "m1")
	app.LatencyObjective = durationpb.New(300 * time.Millisecond)
	s.create(t, app)

	var predictions, defaults atomic.Int64
	queried := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		var err error
		for i := 0; ctx.Err() == nil && err == nil; i++ {
			var answer *clipperv1.QueryResponse
			if answer, err = s.queries.Query(ctx, &clipperv1.QueryRequest{Application: "a", Inputs: input(1+float64(i)*1e-9, 0)}); err != nil { // None is in the cache.
				continue
			}
			if answer.IsDefault {
				defaults.Add(1)
			} else {
				predictions.Add(1)
			}
		}
		if ctx.Err() != nil {
			err = nil
		}
		queried <- err
	}()
	await := func(count *atomic.Int64, n int64) {
		t.Helper()
		goal := count.Load() + n
		require.Eventually(t, func() bool {
			select {
			case err := <-queried:
				require.NoError(t, err, "a query failed")
			default:
			}
			return count.Load() >= goal
		}, 2*patience, poll)
	}
	// learns waits until feedback is taken again, which needs models, services and store.
	learns := func() {
		t.Helper()
		require.EventuallyWithT(t, func(c *assertCollect) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			answer, err := s.queries.Query(ctx, &clipperv1.QueryRequest{Application: "a", Inputs: input(1, 0)})
			require.NoError(c, err)
			require.False(c, answer.IsDefault)
			_, err = s.feedback.Feedback(ctx, &clipperv1.FeedbackRequest{Application: "a", FeedbackId: answer.FeedbackId, Observation: truth(1)})
			require.NoError(c, err)
		}, 2*patience, poll)
	}
	replicas := func(n int) {
		t.Helper()
		for _, model := range []string{"m0", "m1"} {
			require.EventuallyWithT(t, func(c *assertCollect) {
				response, err := s.models.GetModelVersion(t.Context(), &clipperv1.GetModelVersionRequest{Model: model, Version: "1"})
				require.NoError(c, err)
				require.Len(c, response.Version.ReplicaStatus, n)
			}, 2*patience, poll)
		}
	}
	await(&predictions, 50)
	learns()

	t.Run("services and models", func(t *testing.T) {
		heal := services.partition(t, models)
		await(&defaults, 10)
		replicas(0) // Their leases have expired.
		heal()
		replicas(1)
		await(&predictions, 50)
		learns()
	})
	t.Run("services and store", func(t *testing.T) {
		heal := services.partition(t, store)
		await(&predictions, 50) // What is known of models and weights is at hand.
		_, err := s.feedback.Feedback(t.Context(), &clipperv1.FeedbackRequest{Application: "a", FeedbackId: s.askSelector(t, "a", 1, 0).FeedbackId, Observation: truth(1)})
		require.Error(t, err, "nothing acknowledges what is not stored")
		await(&predictions, 50)
		heal()
		await(&predictions, 50)
		learns()
	})
	t.Run("models and store", func(t *testing.T) {
		heal := models.partition(t, store) // They have nothing to say to each other.
		await(&predictions, 50)
		learns()
		heal()
	})
	stop()
	require.NoError(t, <-queried, "a query failed")
	t.Logf("%d predictions, %d defaults", predictions.Load(), defaults.Load())
}
