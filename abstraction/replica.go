// SPDX-License-Identifier: Apache-2.0

package abstraction

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/clipper-serving/clipper/abstraction/launcher"
	connection "github.com/clipper-serving/clipper/abstraction/replica"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	// stableAfter is how long a replica has to serve for its earlier failures to be forgotten.
	stableAfter = 10 * time.Second
	// messageLines and messageBytes bound the part of a log that is shown in a message.
	messageLines = 15
	messageBytes = 2 << 10
)

// backoff says how long to wait before a replica is started again: the time doubles with
// each failure, from first to last; and from never to neverLast when the replica says that
// it will never work, since somebody may still repair what it needs.
type backoff struct{ first, last, never, neverLast time.Duration }

var defaultBackoff = backoff{
	first: 500 * time.Millisecond, last: 30 * time.Second,
	never: 30 * time.Second, neverLast: 5 * time.Minute,
}

func (b backoff) delay(failures int, never bool) time.Duration {
	d, last := b.first, b.last
	if never {
		d, last = b.never, b.neverLast
	}
	for range failures - 1 {
		if d *= 2; d >= last {
			return last
		}
	}
	return d
}

// replica keeps one replica of a version running: a goroutine starts it, connects it, and
// starts it again when it has ended.
type replica struct {
	version *version
	number  int
	id      string
	changed chan struct{}      // wakes the goroutine: the connection's state may have changed
	quit    context.CancelFunc // ends the goroutine
	done    chan struct{}      // closed when it has ended
	met     func()             // ends the expectation of the first connection

	mu         sync.Mutex
	leaving    bool
	drain      context.Context        // set by stop: how long good order lasts
	connection *connection.Replica    // nil when there is none
	state      clipperv1.ReplicaState // while there is no connection
	since      time.Time              // of state
	message    string                 // about the last failure; empty once it serves again
	failures   int                    // in a row
	restarts   uint32
	started    chan struct{} // closed, and replaced, when the launcher has started it
}

// replicaStatus is a replica's status with what only the service needs.
type replicaStatus struct {
	*clipperv1.Replica
	// leaving is true when the replica is not wanted any more.
	leaving bool
	// failing is true when it has failed and not been ready since.
	failing bool
}

// startReplica starts the goroutine.
func (v *version) startReplica(number int) *replica {
	ctx, quit := context.WithCancel(context.Background())
	r := &replica{
		version: v,
		number:  number,
		id:      strconv.Itoa(number),
		changed: make(chan struct{}, 1),
		quit:    quit,
		done:    make(chan struct{}),
		state:   clipperv1.ReplicaState_REPLICA_STATE_STARTING,
		since:   time.Now(),
		started: make(chan struct{}),
	}
	v.serving.SetFirst(v.scaling.earliest())
	v.serving.Expect(1)
	r.met = sync.OnceFunc(func() { v.serving.Expect(-1) })
	go r.run(ctx, v.spec.Container)
	return r
}

func (r *replica) wake() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// leave marks the replica as not wanted.
func (r *replica) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leaving = true
}

func (r *replica) isLeaving() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.leaving
}

// stop ends the replica: in good order until ctx ends, and at once from then on.
func (r *replica) stop(ctx context.Context) {
	r.mu.Lock()
	if r.drain == nil {
		r.drain = ctx
	}
	r.mu.Unlock()
	r.quit()
	<-r.done
}

// run is the goroutine.
func (r *replica) run(ctx context.Context, c *clipperv1.Container) {
	defer close(r.done)
	defer r.met()
	if r.version.launcher == nil {
		r.connect(c.GetAddress().GetAddress())
		<-ctx.Done()
		r.disconnect(r.drain)
		return
	}
	for {
		f := r.once(ctx, c)
		r.met()
		if ctx.Err() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(r.retryAfter(f)):
		}
		r.restart()
	}
}

// failure is why a replica has to be started again.
type failure struct {
	what   string        // what happened
	advice string        // what to do about it
	log    []string      // the last lines of the replica's log
	never  bool          // it said that it will never work
	served time.Duration // how long it had served without a break
}

// once starts the replica and returns when it has ended or ctx has.
func (r *replica) once(ctx context.Context, c *clipperv1.Container) failure {
	v, begun := r.version, time.Now()
	instance, err := v.launcher.Start(ctx, launcher.Spec{Model: v.name.model, Version: v.name.version, Replica: r.id, Container: c})
	if err != nil {
		return failure{what: fmt.Sprintf("the replica cannot be started: %v.", err)}
	}
	r.mu.Lock()
	close(r.started)
	r.started = make(chan struct{})
	r.mu.Unlock()
	r.connect(instance.Address())

	var readySince time.Time
	started := sync.OnceFunc(func() { v.scaling.started(time.Since(begun)) })
	limit := c.GetStartTimeout().AsDuration()
	unready := time.NewTimer(limit)
	defer unready.Stop()
	for {
		select {
		case <-ctx.Done():
			r.disconnect(r.drain)
			instance.Stop(r.drain)
			return failure{}

		case <-instance.Done():
			r.disconnect(over)
			f := exitFailure(instance)
			if !readySince.IsZero() {
				f.served = time.Since(readySince)
			}
			return f

		case <-unready.C:
			if r.connection.WarmingUp() { // It has started; the warm-up has a limit of its own.
				unready.Reset(limit)
				continue
			}
			connection := r.disconnect(over)
			instance.Stop(ctx)
			return unreadyFailure(limit, connection, instance.Logs(messageLines))

		case <-r.changed:
			switch ready := r.isReady(); {
			case ready && readySince.IsZero():
				readySince = time.Now()
				started()
				unready.Stop()
			case !ready && !readySince.IsZero():
				// It runs but has stopped serving: it has as long to come back as to start.
				readySince = time.Time{}
				unready.Reset(limit)
			}
		}
	}
}

// over is for ends that are not in good order.
var over = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

func (r *replica) connect(address string) {
	r.version.recall()
	c := r.version.serving.Connect(r.id, address)
	r.mu.Lock()
	r.connection = c
	r.mu.Unlock()
	r.met()
	r.wake()
}

// disconnect returns what was wrong with the connection, if anything was.
func (r *replica) disconnect(ctx context.Context) string {
	message := r.connection.Status().GetMessage()
	r.version.serving.Disconnect(ctx, r.id)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.connection = nil
	return message
}

// isReady reports whether the replica serves. If so, what went wrong before does not matter
// to people any more.
func (r *replica) isReady() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.connection == nil || r.connection.Status().GetState() != clipperv1.ReplicaState_REPLICA_STATE_READY {
		return false
	}
	r.message = ""
	return true
}

// retryAfter is failed, and tells those whose queries are refused meanwhile.
func (r *replica) retryAfter(f failure) time.Duration {
	delay := r.failed(f)
	r.version.serving.SetRetry(delay)
	return delay
}

// failed records a failure and returns how long to wait.
func (r *replica) failed(f failure) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.served >= stableAfter {
		r.failures = 0
	}
	r.failures++
	delay := r.version.backoff.delay(r.failures, f.never)
	r.state, r.since = clipperv1.ReplicaState_REPLICA_STATE_FAILED, time.Now()
	r.message = f.message(delay)
	r.version.log.Warn("replica failed", "replica", r.id, "cause", f.what, "again_in", delay, "last_lines", strings.Join(f.log, "\n"))
	r.version.service.wake()
	return delay
}

// startsAgain returns a channel that is closed when the launcher has started it the next time.
func (r *replica) startsAgain() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.started
}

// restart records that the replica is started again.
func (r *replica) restart() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.restarts++
	r.state, r.since = clipperv1.ReplicaState_REPLICA_STATE_STARTING, time.Now()
	r.version.service.restarts.WithLabelValues(r.version.name.model, r.version.name.version).Inc()
}

func (r *replica) status() replicaStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := replicaStatus{
		Replica: &clipperv1.Replica{Id: r.id, State: r.state, Message: r.message, Restarts: r.restarts, StateTime: timestamppb.New(r.since)},
		leaving: r.leaving,
	}
	if r.connection != nil {
		now := r.connection.Status()
		s.State, s.Address, s.StateTime = now.GetState(), now.GetAddress(), now.GetStateTime()
		// Why it failed before says more than why it cannot be connected now.
		if s.Message == "" {
			s.Message = now.GetMessage()
		}
	}
	if s.State == clipperv1.ReplicaState_REPLICA_STATE_READY {
		s.Message = ""
	} else {
		s.failing = r.failures > 0
	}
	if s.leaving {
		s.State = clipperv1.ReplicaState_REPLICA_STATE_DRAINING
	}
	return s
}

// message says it to people. The log comes last, since it is long.
func (f failure) message(again time.Duration) string {
	text := strings.Join(f.log, "\n")
	if over := len(text) - messageBytes; over > 0 {
		text = "..." + strings.ToValidUTF8(text[over:], "")
	}
	if text != "" {
		text = "The last lines of its log:\n" + text
	}
	retry := fmt.Sprintf("It is started again after %v.", again)
	return strings.Join(slices.DeleteFunc([]string{f.what, f.advice, retry, text}, func(s string) bool { return s == "" }), " ")
}

// exitFailure is that of a replica that has ended by itself.
func exitFailure(i launcher.Instance) failure {
	exit := i.Exit()
	f := failure{
		what:   "the replica " + exit.String() + ".",
		advice: "Look for the cause in its log.",
		log:    i.Logs(messageLines),
		never:  exit.Never(),
	}
	switch {
	case f.never:
		f.advice = "That means that it will not work as it was deployed: correct the model or the command, and deploy it as a new version."
	case exit.OutOfMemory && exit.MemoryLimit > 0:
		f.advice = "If it needs that much, deploy it as a new version with more memory (container.resources.memory_bytes); if only large batches do, limit these (max_batch_rows)."
	case exit.Signal == "killed":
		f.advice = "Perhaps the machine has too little memory for it."
	case slices.ContainsFunc(f.log, func(line string) bool { return strings.HasPrefix(line, "ModuleNotFoundError:") }):
		f.advice = "Its Python lacks a package. The README of an adapter says what to install, into a .venv in the adapter's folder or for the interpreter of --python."
	case exit.Code == 0:
		f.advice = "A replica must serve until it gets SIGTERM."
	}
	return f
}

// unreadyFailure is that of a replica that runs but does not serve.
func unreadyFailure(limit time.Duration, connection string, log []string) failure {
	what := fmt.Sprintf("the replica was not ready to serve for %v", limit)
	if connection != "" {
		what += ": " + connection
	}
	return failure{
		what:   what + ".",
		advice: "If it needs longer, deploy it with a longer container.start_timeout; if not, see that it serves at CLIPPER_CONTAINER_ADDRESS and reports SERVING to health checks.",
		log:    log,
	}
}
