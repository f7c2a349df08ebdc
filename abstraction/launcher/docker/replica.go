// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"log/slog"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/clipper-serving/clipper/abstraction/launcher"
)

const (
	// callTimeout bounds one call to the engine that nobody waits for.
	callTimeout = 10 * time.Second
	// lookAgain is the pause before an engine that does not answer is asked again.
	lookAgain = 200 * time.Millisecond
	// keptLines is how many of the last lines of a replica that has ended are kept.
	keptLines = 200
)

// replica is one container.
type replica struct {
	launcher *Launcher
	id       string
	name     string // of the container
	address  string
	log      *slog.Logger
	done     chan struct{}
	lost     context.Context // ended when the engine is not waited for any more
	giveUp   context.CancelFunc

	// Written before done is closed.
	exit  launcher.Exit
	lines []launcher.Line
	ended time.Time
}

// wait returns when the container has ended, over any time in which the engine does not answer.
func (r *replica) wait() {
	engine := r.launcher.engine
	r.exit = launcher.Exit{Code: -1, Signal: "unknown: the Docker Engine does not answer"}
	for r.lost.Err() == nil {
		waiting := engine.ContainerWait(r.lost, r.id, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
		select {
		case <-waiting.Result:
		case err := <-waiting.Error:
			r.log.Debug("the engine does not say when the replica ends", "error", err)
		}
		found, err := engine.ContainerInspect(r.lost, r.id, client.ContainerInspectOptions{})
		if errdefs.IsNotFound(err) {
			r.exit = launcher.Exit{Code: -1, Signal: "unknown: the container was removed"}
			break
		}
		if err == nil && found.Container.State != nil && !found.Container.State.Running {
			r.exit = exitOf(found.Container.State)
			if r.exit.OutOfMemory && found.Container.HostConfig != nil {
				r.exit.MemoryLimit = uint64(max(found.Container.HostConfig.Memory, 0))
			}
			break
		}
		select {
		case <-r.lost.Done():
		case <-time.After(lookAgain):
		}
	}
	r.lines = r.read(keptLines)
	r.ended = time.Now()
	r.giveUp()
	r.log.Info("replica ended", "container", r.id[:12], "exit", r.exit.String())
	close(r.done)
}

// over reports whether the replica ended so long ago that its container is not kept any more.
func (r *replica) over(now time.Time) bool {
	select {
	case <-r.done:
		return now.Sub(r.ended) >= keepEnded
	default:
		return false
	}
}

func exitOf(s *container.State) launcher.Exit {
	// By the shells' convention; a process that a signal ends has no code of its own.
	const signals = 128
	exit := launcher.Exit{Code: s.ExitCode}
	if s.ExitCode > signals && s.ExitCode < signals+32 {
		exit = launcher.Exit{Code: -1, Signal: syscall.Signal(s.ExitCode - signals).String()}
	}
	exit.OutOfMemory = s.OOMKilled
	return exit
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
		return texts(r.read(n))
	}
}

func texts(lines []launcher.Line) []string {
	all := make([]string, len(lines))
	for i, l := range lines {
		all[i] = l.Text
	}
	return all
}

// read returns the last lines that the engine has.
func (r *replica) read(n int) []launcher.Line {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	last := launcher.Tail{Max: n}
	err := r.launcher.readLog(ctx, r.id, launcher.LogQuery{Tail: n}, func(l launcher.Line) error {
		last.Add(l)
		return nil
	})
	if err != nil {
		r.log.Debug("the log of a replica cannot be read to its end", "error", err)
	}
	return last.Lines()
}

// Stop implements launcher.Instance. The container is removed; that of a replica that ends by itself stays until
// the replica is started again or [keepEnded] is over.
func (r *replica) Stop(ctx context.Context) {
	r.signal("SIGTERM")
	grace := time.NewTimer(r.launcher.cfg.StopTimeout)
	defer grace.Stop()
	select {
	case <-r.done:
	case <-grace.C:
		r.log.Warn("replica has not ended in time and is killed", "container", r.id[:12], "grace", r.launcher.cfg.StopTimeout)
		r.kill()
	case <-ctx.Done():
		r.kill()
	}
	r.launcher.remove(r.id)
	r.launcher.forgetLog(r.name) // It is not started again as one that has failed.
}

func (r *replica) kill() {
	r.signal("SIGKILL")
	select {
	case <-r.done:
	case <-time.After(callTimeout):
		r.giveUp() // The engine does not answer; who starts next finds the container and removes it.
		<-r.done
	}
}

// signal fails when the container has ended, or the engine does not answer, which is seen elsewhere.
func (r *replica) signal(name string) {
	select {
	case <-r.done:
		return
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if _, err := r.launcher.engine.ContainerKill(ctx, r.id, client.ContainerKillOptions{Signal: name}); err != nil {
		r.log.Debug("a signal was not sent", "signal", name, "error", err)
	}
}
