// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/clipper-serving/clipper/abstraction/launcher"
)

// keeper is a launcher's hold of a keeper.
type keeper struct {
	dir   string
	lock  *os.File    // held while the launcher has it
	group string      // the control group; empty for none
	asked *rpc.Client // nil before it is started
	pid   int         // 0 when it was taken over
}

// keeperStart bounds the time until a keeper answers.
const keeperStart = 10 * time.Second

// dial connects to the keeper with that directory.
func dial(dir string) (*rpc.Client, error) {
	conn, err := net.Dial("unix", filepath.Join(dir, socketName)) //nolint:noctx // A unix socket answers or does not.
	if err != nil {
		return nil, err
	}
	return rpc.NewClient(conn), nil
}

// answers reports whether there is a keeper with that directory.
func answers(dir string) bool {
	client, err := dial(dir)
	if err != nil {
		return false
	}
	// One that has just been killed may still seem to listen.
	err = client.Call("Keeper.Ping", true, new(bool))
	return errors.Join(err, client.Close()) == nil
}

// call asks the keeper and waits for its reply.
func (k *keeper) call(method string, request, reply any) error {
	return k.asked.Call("Keeper."+method, request, reply)
}

// spawn starts the keeper's process and waits until it answers.
func (k *keeper) spawn(claimTime time.Duration) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start the keeper of replicas: %w", err)
	}
	config, err := json.Marshal(keeperConfig{Directory: k.dir, Group: k.group, ClaimTime: claimTime})
	if err != nil {
		return fmt.Errorf("start the keeper of replicas: %w", err)
	}
	path := filepath.Join(k.dir, "keeper.log")
	output, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("start the keeper of replicas: %w", err)
	}
	defer func() { _ = output.Close() }()
	cmd := exec.Command(program) //nolint:noctx // It outlives this process.
	cmd.Dir = "/"
	cmd.Env = []string{envKeeper + "=" + string(config), "GORACE=atexit_sleep_ms=0"}
	cmd.Stdout, cmd.Stderr = output, output
	// In a session of its own it is out of reach of the server's terminal.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the keeper of replicas: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	late := time.NewTimer(keeperStart)
	defer late.Stop()
	retry := time.NewTicker(time.Millisecond)
	defer retry.Stop()
	for {
		if client, err := dial(k.dir); err == nil {
			k.asked, k.pid = client, cmd.Process.Pid
			return nil
		}
		select {
		case <-retry.C:
			continue
		case <-ended:
		case <-late.C:
			_ = cmd.Process.Kill()
		}
		said, _ := os.ReadFile(path)
		return fmt.Errorf("the keeper of replicas did not start: %s", strings.TrimSpace(string(said)))
	}
}

// takeOver looks for the replica among those that a server which died has left. It returns nil when there is none.
func (l *Launcher) takeOver(r StartRequest) (*keeper, Started, error) {
	for _, k := range l.keepers {
		var found Started
		if k.asked != nil && k.call("Claim", r, &found) == nil && found.ID != "" {
			return k, found, nil
		}
	}
	var (
		taken *keeper
		found Started
	)
	err := l.eachFree(func(dir string, lock *os.File) (bool, error) {
		if taken != nil {
			return false, nil
		}
		client, err := dial(dir)
		if err != nil {
			return false, nil //nolint:nilerr // It is ending.
		}
		k := &keeper{dir: dir, lock: lock, asked: client}
		if k.call("Claim", r, &found) != nil || found.ID == "" {
			_ = client.Close()
			return false, nil //nolint:nilerr // Neither: it has no such replica.
		}
		taken = k
		l.keepers = append(l.keepers, k)
		return true, nil
	})
	return taken, found, err
}

// startNew starts a replica. A keeper that does not answer any more is replaced.
func (l *Launcher) startNew(r StartRequest) (*keeper, Started, error) {
	var begun Started
	for {
		k := l.own
		if k.asked == nil {
			if err := k.spawn(l.cfg.ClaimTime); err != nil {
				return nil, begun, err
			}
		}
		err := k.call("Start", r, &begun)
		var refused rpc.ServerError
		if err == nil || errors.As(err, &refused) {
			return k, begun, err
		}
		l.log.Error("the keeper of replicas has ended, and they with it", "error", err)
		next, err := l.newKeeper()
		if err != nil {
			return nil, begun, err
		}
		l.own, l.keepers = next, append(l.keepers, next)
	}
}

// replica is a process that a keeper keeps.
type replica struct {
	log     *slog.Logger
	keeper  *keeper
	started Started
	grace   time.Duration
	done    chan struct{}

	last EndedReply // written before done is closed
}

// wait waits until it has ended.
func (r *replica) wait() {
	var last EndedReply
	if err := r.keeper.call("Wait", r.started.ID, &last); err != nil {
		// A replica ends with its keeper; if it does not by itself, then so.
		if now, err := startTime(r.started.PID); err == nil && now == r.started.StartTime {
			_ = syscall.Kill(-r.started.PID, syscall.SIGKILL)
			awaitEnd(r.started.PID, r.started.StartTime)
		}
		last.Exit = launcher.Exit{Code: -1, Cause: "ended with the process that kept it (" + filepath.Join(r.keeper.dir, "keeper.log") + ")"}
	}
	r.log.Info("replica ended", "pid", r.started.PID, "exit", last.Exit.String())
	r.last = last
	close(r.done)
}

// Address implements launcher.Instance.
func (r *replica) Address() string { return "unix:" + r.started.Socket }

// Done implements launcher.Instance.
func (r *replica) Done() <-chan struct{} { return r.done }

func (r *replica) hasEnded() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// Exit implements launcher.Instance.
func (r *replica) Exit() launcher.Exit {
	if !r.hasEnded() {
		return launcher.Exit{}
	}
	return r.last.Exit
}

// Logs implements launcher.Instance.
func (r *replica) Logs(n int) []string {
	if !r.hasEnded() {
		var lines []string
		if r.keeper.call("Tail", TailRequest{r.started.ID, n}, &lines) == nil {
			return lines
		}
		<-r.done // It has ended in between.
	}
	return r.last.Tail[max(0, len(r.last.Tail)-n):]
}

// Stop implements launcher.Instance.
func (r *replica) Stop(ctx context.Context) {
	r.signal(syscall.SIGTERM)
	grace := time.NewTimer(r.grace)
	defer grace.Stop()
	select {
	case <-r.done:
		return
	case <-grace.C:
		r.log.Warn("replica has not ended in time and is killed", "pid", r.started.PID, "grace", r.grace)
	case <-ctx.Done():
	}
	r.signal(syscall.SIGKILL)
	<-r.done
}

func (r *replica) signal(s syscall.Signal) {
	// If it fails, the keeper has ended, and the replica with it.
	_ = r.keeper.call("Signal", SignalRequest{r.started.ID, s}, new(bool))
}

// follow returns how one who reads the replica's log learns that there is more; r is nil when nothing writes it.
func (r *replica) follow() await {
	var (
		seen    uint64
		pending chan struct{}
	)
	return func() (<-chan struct{}, bool) {
		if r == nil || r.hasEnded() {
			return nil, false
		}
		if pending != nil {
			select {
			case <-pending:
			default:
				return pending, true
			}
		}
		more := make(chan struct{})
		pending = more
		go func() {
			// What fails has ended, which the next call tells.
			if r.keeper.call("Written", WrittenRequest{r.started.ID, seen}, &seen) != nil {
				<-r.done
			}
			close(more)
		}()
		return more, true
	}
}
