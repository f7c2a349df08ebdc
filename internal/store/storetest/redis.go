// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startTimeout is how long a server may take to answer.
const startTimeout = 20 * time.Second

// Redis is a real redis-server that a test has for itself.
type Redis struct {
	tb   testing.TB
	args []string
	dir  string
	port int
	// sentinel is the configuration of a Sentinel; empty for a server.
	sentinel string

	process *exec.Cmd
	exited  chan struct{}
	log     *output
}

// RedisOption changes how a server is started.
type RedisOption func(*Redis)

// WithAppendOnly makes the server write every change to the disk before it
// answers, so that [Redis.Restart] finds it again.
func WithAppendOnly() RedisOption {
	return func(r *Redis) {
		r.args = append(r.args, "--appendonly", "yes", "--appendfsync", "always")
	}
}

// WithClusterNode makes the server a cluster of one node that holds all slots.
// It refuses commands whose keys are in different slots.
func WithClusterNode() RedisOption {
	return func(r *Redis) { r.args = append(r.args, "--cluster-enabled", "yes") }
}

// WithReplicaOf makes the server a copy of another one, which takes no writes until [Redis.Promote].
func WithReplicaOf(primary *Redis) RedisOption {
	return func(r *Redis) {
		r.args = append(r.args, "--replicaof", "127.0.0.1 "+strconv.Itoa(primary.port))
	}
}

// StartSentinel starts a Sentinel that watches a server and its replicas under the name "primary", and finds it
// gone after 300 ms.
func StartSentinel(tb testing.TB, primary *Redis) *Redis {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor primary 127.0.0.1 %d 1\nsentinel down-after-milliseconds primary 300\nsentinel failover-timeout primary 3000\n", primary.port)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return StartRedis(tb, func(r *Redis) { r.sentinel = file })
}

// StartRedis starts a redis-server on a free port of the loopback interface, and
// stops it when the test ends. It fails the test if the program is missing.
func StartRedis(tb testing.TB, options ...RedisOption) *Redis {
	tb.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		tb.Fatal("redis-server is needed for this test and was not found: install the package redis-server")
	}
	r := &Redis{tb: tb, dir: tb.TempDir(), args: []string{program}}
	for _, option := range options {
		option(r)
	}
	tb.Cleanup(func() {
		if r.process != nil {
			r.Kill()
		}
	})
	// Another process can take a port between our look and the server's.
	for range 10 {
		r.port = freePort(tb)
		if r.start() {
			return r
		}
	}
	tb.Fatalf("redis-server does not start:\n%s", r.log)
	return nil
}

// freePort picks a port below those that outgoing connections use, so that it is
// still free when the server is restarted.
func freePort(tb testing.TB) int {
	for range 100 {
		port := 10000 + rand.IntN(20000)
		listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		if err := listener.Close(); err == nil {
			return port
		}
	}
	tb.Fatal("no free port")
	return 0
}

// Address is the host and port of the server.
func (r *Redis) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port)) }

// URL is the address as a store is opened with it.
func (r *Redis) URL() string { return "redis://" + r.Address() + "/0" }

// start returns whether the server runs and answers.
func (r *Redis) start() bool {
	r.tb.Helper()
	args := append([]string{
		"--port", strconv.Itoa(r.port), "--bind", "127.0.0.1", "--dir", r.dir, "--save", "",
		"--repl-diskless-sync-delay", "0",
		"--cluster-config-file", filepath.Join(r.dir, "nodes.conf"),
	}, r.args[1:]...)
	if r.sentinel != "" { // It has no data, so no settings of data either.
		args = []string{r.sentinel, "--sentinel", "--port", strconv.Itoa(r.port), "--bind", "127.0.0.1", "--dir", r.dir}
	}
	r.log = &output{}
	// Not the test's context: the server is stopped by Cleanup, after what uses it.
	r.process = exec.CommandContext(context.Background(), r.args[0], args...)
	r.process.Stdout, r.process.Stderr = r.log, r.log
	r.process.SysProcAttr = dieWithParent()
	if err := r.process.Start(); err != nil {
		r.tb.Fatalf("start redis-server: %v", err)
	}
	process, exited := r.process, make(chan struct{})
	r.exited = exited
	go func() {
		defer close(exited)
		_ = process.Wait() // a killed process always has an error
	}()

	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for !r.ready(ctx) {
		select {
		case <-exited:
			return false
		case <-ctx.Done():
			r.tb.Fatalf("redis-server does not answer:\n%s", r.log)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return true
}

// ready asks the server, in its inline protocol, whether it has loaded its data. A
// cluster node is given its slots on the way.
func (r *Redis) ready(ctx context.Context) bool {
	connection, err := new(net.Dialer).DialContext(ctx, "tcp", r.Address())
	if err != nil {
		return false
	}
	defer func() { _ = connection.Close() }() // it has served its purpose
	if err := connection.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return false
	}
	// On a server that is no cluster node, or has its slots, the first one fails, which
	// is fine. The probe has to run a command that needs the data and the slots.
	const questions = "CLUSTER ADDSLOTSRANGE 0 16383\r\nEXISTS probe\r\n"
	if _, err := connection.Write([]byte(questions)); err != nil {
		return false
	}
	var answers []byte
	buffer := make([]byte, 512)
	for bytes.Count(answers, []byte("\r\n")) < 2 {
		n, err := connection.Read(buffer)
		if err != nil {
			return false
		}
		answers = append(answers, buffer[:n]...)
	}
	// A Sentinel knows neither.
	return r.sentinel != "" || bytes.HasSuffix(answers, []byte(":0\r\n"))
}

// Kill ends the server with SIGKILL and waits until it is gone.
func (r *Redis) Kill() {
	r.tb.Helper()
	r.signal(os.Kill)
	<-r.exited
	r.process = nil
}

// Command sends a command, as words, and returns the first line of the answer.
func (r *Redis) Command(words string) string {
	r.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	connection, err := new(net.Dialer).DialContext(ctx, "tcp", r.Address())
	if err != nil {
		r.tb.Fatalf("command %q: %v", words, err)
	}
	defer func() { _ = connection.Close() }() // it has served its purpose
	if _, err := connection.Write([]byte(words + "\r\n")); err != nil {
		r.tb.Fatalf("command %q: %v", words, err)
	}
	line, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil {
		r.tb.Fatalf("command %q: %v", words, err)
	}
	return strings.TrimSpace(line)
}

// Promote makes a replica take writes, and the server that it was a copy of a replica of it, if that
// still runs.
func (r *Redis) Promote(old *Redis) {
	r.tb.Helper()
	if answer := r.Command("REPLICAOF NO ONE"); answer != "+OK" {
		r.tb.Fatalf("promote: %s", answer)
	}
	if old.process != nil {
		if answer := old.Command("REPLICAOF 127.0.0.1 " + strconv.Itoa(r.port)); answer != "+OK" {
			r.tb.Fatalf("demote: %s", answer)
		}
	}
}

// Restart starts the server again after [Redis.Kill], on the same port and with what
// is in its folder.
func (r *Redis) Restart() {
	r.tb.Helper()
	if !r.start() {
		r.tb.Fatalf("redis-server does not start again:\n%s", r.log)
	}
}

// Truncate cuts the append-only file of a server that was killed to the length that at returns for
// it.
func (r *Redis) Truncate(at func(file []byte) int) {
	r.tb.Helper()
	files, err := filepath.Glob(filepath.Join(r.dir, "appendonlydir", "*.incr.aof"))
	if err != nil || len(files) != 1 {
		r.tb.Fatalf("append-only files: %v, %v", files, err)
	}
	content, err := os.ReadFile(files[0])
	if err != nil {
		r.tb.Fatal(err)
	}
	if err := os.Truncate(files[0], int64(at(content))); err != nil {
		r.tb.Fatal(err)
	}
}

// Pause stops the server from doing anything, as a machine that hangs does:
// connections stay open and nothing is answered.
func (r *Redis) Pause() {
	r.tb.Helper()
	r.signal(syscall.SIGSTOP)
}

// Resume ends a pause.
func (r *Redis) Resume() {
	r.tb.Helper()
	r.signal(syscall.SIGCONT)
}

func (r *Redis) signal(signal os.Signal) {
	r.tb.Helper()
	if err := r.process.Process.Signal(signal); err != nil {
		r.tb.Fatalf("send %v to redis-server: %v", signal, err)
	}
}

// output keeps what a process says.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
