// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/clipper-serving/clipper/abstraction/launcher"
)

const (
	// keptLines is how many of the last lines of a replica that has ended are kept.
	keptLines = 200
	// logDelay is how long the log of a container that has ended may take to come to its end.
	logDelay = 2 * time.Second
)

// replica is one container of one pod, from its start to its end.
type replica struct {
	slot      *slot
	pod       string
	uid       types.UID
	container string // its id
	address   string
	log       *slog.Logger
	done      chan struct{}
	lost      context.Context // ended when the cluster is not waited for any more
	giveUp    context.CancelFunc
	tail      *tail // nil until the pod is being deleted, after which its log is gone

	mu sync.Mutex // guards tail

	// Written before done is closed.
	exit  launcher.Exit
	lines []launcher.Line
}

// newReplica binds a slot to a container.
func newReplica(s *slot, pod *corev1.Pod, container, address string) *replica {
	r := &replica{
		slot: s, pod: pod.Name, uid: pod.UID, container: container, address: address,
		log:  s.workload.launcher.log.With("model", s.spec.Model, "version", s.spec.Version, "replica", s.spec.Replica, "pod", pod.Name),
		done: make(chan struct{}),
	}
	r.lost, r.giveUp = context.WithCancel(context.Background())
	r.log.Info("replica started", "node", pod.Spec.NodeName, "address", address)
	go r.wait()
	return r
}

// wait waits for the end, and then makes it known.
func (r *replica) wait() {
	exit, previous := r.await()
	r.exit = exit
	r.lines = r.last(previous)
	r.giveUp()
	r.slot.workload.ended(r.slot, r.lines, time.Now())
	r.log.Info("replica ended", "exit", r.exit.String())
	close(r.done)
}

// await returns when the container has ended, over any time in which the API server does not answer, and whether
// another one of the pod has been started since.
func (r *replica) await() (exit launcher.Exit, previous bool) {
	where := r.slot.workload.place
	for {
		changed := where.change()
		pod, gone := where.look(r.pod, r.uid)
		if pod != nil {
			if exit, previous, ended := exitOf(pod, r.container); ended {
				return exit, previous
			}
		}
		switch {
		case gone:
			return launcher.Exit{Code: -1, Cause: "was removed from the cluster with its pod " + r.pod}, false
		case pod != nil && pod.DeletionTimestamp != nil:
			r.follow()
		}
		select {
		case <-r.lost.Done():
			return launcher.Exit{Code: -1, Cause: "is not known any more: Kubernetes does not say how it ended"}, false
		case <-changed:
		}
	}
}

// last returns the last lines of a container that has ended.
func (r *replica) last(previous bool) []launcher.Line {
	r.mu.Lock()
	t := r.tail
	r.mu.Unlock()
	if t == nil {
		return r.read(keptLines, previous)
	}
	select {
	case <-t.done:
	case <-time.After(logDelay):
	}
	return t.last(keptLines)
}

// Address implements launcher.Instance.
func (r *replica) Address() string { return r.address }

// Done implements launcher.Instance.
func (r *replica) Done() <-chan struct{} { return r.done }

// Exit implements launcher.Instance.
func (r *replica) Exit() launcher.Exit {
	select {
	case <-r.done:
		return r.exit
	default:
		return launcher.Exit{}
	}
}

// Logs implements launcher.Instance.
func (r *replica) Logs(n int) []string {
	select {
	case <-r.done:
		return texts(r.lines[max(len(r.lines)-n, 0):])
	default:
		return texts(r.read(n, false))
	}
}

func texts(lines []launcher.Line) []string {
	all := make([]string, len(lines))
	for i, line := range lines {
		all[i] = line.Text
	}
	return all
}

// read returns the last lines that the kubelet has.
func (r *replica) read(n int, previous bool) []launcher.Line {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	t, err := r.open(ctx, n, corev1.PodLogOptions{Previous: previous})
	if err != nil {
		r.log.Debug("the log of a replica cannot be read", "error", err)
		return nil
	}
	<-t.done
	return t.last(n)
}

// follow begins to keep the log, once, since it goes with the pod.
func (r *replica) follow() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tail != nil {
		return
	}
	t, err := r.open(r.lost, keptLines, corev1.PodLogOptions{Follow: true})
	if err != nil {
		r.log.Debug("the log of a replica cannot be followed", "error", err)
		return
	}
	r.tail = t
}

// open begins to keep the last lines of a log.
func (r *replica) open(ctx context.Context, n int, options corev1.PodLogOptions) (*tail, error) {
	stream, err := r.stream(ctx, n, options)
	if err != nil {
		return nil, err
	}
	t := &tail{kept: launcher.Tail{Max: n}, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		defer func() { _ = stream.Close() }()
		_ = scan(stream, time.Time{}, func(line launcher.Line) error {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.kept.Add(line)
			return nil
		})
	}()
	return t, nil
}

// stream returns the last lines of a log, each behind its time.
func (r *replica) stream(ctx context.Context, n int, options corev1.PodLogOptions) (io.ReadCloser, error) {
	lines := int64(n)
	options.Container, options.TailLines, options.Timestamps = containerName, &lines, true
	return r.slot.workload.launcher.api.logs(r.pod, &options).Stream(ctx)
}

// Stop implements launcher.Instance. The pod goes with the replica. That of a replica that ends by itself stays: it is
// where Kubernetes starts the container again.
func (r *replica) Stop(ctx context.Context) {
	w, grace := r.slot.workload, r.slot.workload.launcher.cfg.StopTimeout
	if r.current() && w.leave(r.slot) {
		defer w.tidy()
		r.end(ctx, grace)
	}
	<-r.done
}

// current reports whether the replica has not been started again.
func (r *replica) current() bool {
	l := r.slot.workload.launcher
	l.mu.Lock()
	defer l.mu.Unlock()
	return r.slot.pod == r.uid && (r.slot.replica == r || r.slot.replica == nil && !r.slot.idle.IsZero())
}

// end deletes the pod, and returns when the container has ended.
func (r *replica) end(ctx context.Context, grace time.Duration) {
	w := r.slot.workload
	select {
	case <-r.done:
	default:
		r.follow()
	}
	if err := w.shrink(r.pod, grace); err != nil {
		r.log.Warn("replica cannot be stopped", "error", w.launcher.explain("delete the pod", err))
		r.giveUp() // What is not asked for any more is removed by the launcher that comes next.
		return
	}
	timer := time.NewTimer(grace + time.Second)
	defer timer.Stop()
	select {
	case <-r.done:
		return
	case <-timer.C:
		r.log.Warn("replica has not ended in time and is killed", "grace", grace)
	case <-ctx.Done():
	}
	// Whatever has become of the caller.
	now, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if err := w.kill(now, r.pod, 0); err != nil {
		r.log.Warn("replica cannot be killed", "error", w.launcher.explain("delete the pod", err))
		r.giveUp()
		return
	}
	select {
	case <-r.done:
	case <-now.Done():
		r.log.Warn("the cluster does not say that the replica has ended; its node may be gone")
		r.giveUp()
	}
}

// tail keeps the last lines of a stream.
type tail struct {
	done chan struct{} // closed at the end of the stream

	mu   sync.Mutex
	kept launcher.Tail
}

// last returns the last lines that have come.
func (t *tail) last(n int) []launcher.Line {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := t.kept.Lines()
	return lines[max(len(lines)-n, 0):]
}
