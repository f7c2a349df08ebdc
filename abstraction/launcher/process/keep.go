// SPDX-License-Identifier: Apache-2.0

package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/clipper-serving/clipper/abstraction/launcher"
)

// This file is the keeper: a process of its own that replicas are children of. See the package's comment.

// envKeeper makes a process a keeper. It holds a keeperConfig as JSON.
const envKeeper = "CLIPPER_PROCESS_KEEPER"

// socketName is where the keeper is asked, with net/rpc. One launcher at a time asks: the one that has the lock.
const socketName = "keeper.sock"

// Every program that has this package can be started again as a keeper, the tests of other packages included, so
// that is decided before its main function, which knows nothing of it.
func init() { //nolint:gochecknoinits // See above.
	text := os.Getenv(envKeeper)
	if text == "" {
		return
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := keep(text, log); err != nil {
		log.Error("the keeper ends", "error", err)
		os.Exit(1) //nolint:forbidigo // It is main here.
	}
	os.Exit(0) //nolint:forbidigo // It is main here.
}

// keeperConfig is what a keeper is told.
type keeperConfig struct {
	Directory string
	Group     string        // the control group; empty for none
	ClaimTime time.Duration // how long a replica runs that no launcher has claimed
}

// keep is the keeper's main function. It returns when there is nothing to keep and nobody who may ask for more.
func keep(text string, log *slog.Logger) error {
	// A terminal's signals are for the server, which stops the replicas as it should.
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP)
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)

	k := &keeping{log: log, children: map[string]*child{}, idle: make(chan struct{})}
	if err := json.Unmarshal([]byte(text), &k.cfg); err != nil {
		return err
	}
	listener, err := net.Listen("unix", filepath.Join(k.cfg.Directory, socketName)) //nolint:noctx // It lives as long as the process.
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(k.cfg.Directory, keeperPID), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		return err
	}
	k.leave(nil) // If nobody comes, it ends.
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go k.serve(conn)
		}
	}()
	select {
	case <-terminate:
		k.stopAll()
	case <-k.idle:
	}
	k.mu.Lock()
	quit := k.quit
	k.mu.Unlock()
	_ = listener.Close()
	if quit {
		return nil // The launcher cleans up.
	}
	return k.cleanUp()
}

// keeping is a keeper's state. Safe for concurrent use.
type keeping struct {
	cfg keeperConfig
	log *slog.Logger

	mu       sync.Mutex
	sessions int
	started  int
	children map[string]*child // by id
	idle     chan struct{}     // is closed when the keeper may end
	ending   bool              // nothing is started any more
	quit     bool              // since the launcher wants that
}

// session is what one launcher asks, until its connection ends. Its exported methods are the keeper's interface.
type session struct {
	*keeping
	gone chan struct{}
}

// watched tells when the other side has gone.
type watched struct {
	net.Conn
	gone func()
}

func (w watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		w.gone()
	}
	return n, err
}

func (k *keeping) serve(conn net.Conn) {
	k.mu.Lock()
	k.sessions++
	k.mu.Unlock()
	s := &session{keeping: k, gone: make(chan struct{})}
	server := rpc.NewServer()
	if err := server.RegisterName("Keeper", s); err != nil {
		k.log.Error("serve a launcher", "error", err)
	}
	// The server waits for calls that are under way, and they for the end of the connection.
	server.ServeConn(watched{conn, sync.OnceFunc(func() { close(s.gone) })})
	k.mu.Lock()
	k.sessions--
	k.mu.Unlock()
	k.leave(s)
}

// leave gives up the claims of a session, and sees that what it leaves does not run for ever.
func (k *keeping) leave(s *session) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, c := range k.children {
		if c.claimed != s {
			continue
		}
		c.claimed, c.unclaimedSince = nil, time.Now()
		if c.hasEnded() {
			delete(k.children, id)
		}
	}
	time.AfterFunc(k.cfg.ClaimTime, k.sweep)
	if s != nil {
		k.endIfIdle()
	}
}

// sweep stops what nobody has claimed in time.
func (k *keeping) sweep() {
	k.mu.Lock()
	var orphans []*child
	for _, c := range k.children {
		if c.claimed == nil && time.Since(c.unclaimedSince) >= k.cfg.ClaimTime {
			orphans = append(orphans, c)
		}
	}
	k.endIfIdle()
	k.mu.Unlock()
	for _, c := range orphans {
		k.log.Info("a replica that no server has come for is stopped", "replica", c.name, "pid", c.PID)
		go c.stop(c.grace)
	}
}

// endIfIdle lets the keeper end. The caller holds the lock.
func (k *keeping) endIfIdle() {
	if k.sessions > 0 || len(k.children) > 0 {
		return
	}
	k.ending = true
	select {
	case <-k.idle:
	default:
		close(k.idle)
	}
}

// stopAll ends every replica at once, and waits for that.
func (k *keeping) stopAll() {
	k.mu.Lock()
	k.ending = true
	var all []*child
	for _, c := range k.children {
		all = append(all, c)
	}
	k.mu.Unlock()
	for _, c := range all {
		c.stop(0)
	}
}

// cleanUp removes the keeper's directory, unless a launcher has it and does that.
func (k *keeping) cleanUp() error {
	lock, err := flock(filepath.Join(k.cfg.Directory, lockName), syscall.LOCK_EX|syscall.LOCK_NB)
	if err != nil {
		return nil //nolint:nilerr // A launcher has it.
	}
	if k.cfg.Group != "" {
		err = removeGroup(k.cfg.Group)
	}
	return errors.Join(err, os.RemoveAll(k.cfg.Directory), lock.Close())
}

// StartRequest says what to run. It is the same whether the replica is started or taken over.
type StartRequest struct {
	Name   string // tells apart the replicas of a server
	Digest string // of what it is made from

	Path        string
	Arguments   []string
	Directory   string
	Environment []string // without the address
	Log         string
	Cpus        float64
	Memory      uint64
	Grace       time.Duration // if nobody comes for it
}

// Started is a replica that runs.
type Started struct {
	ID        string
	Socket    string
	PID       int
	StartTime string // tells it from a later process with the same id
}

// Claim takes over the replica that runs as it is asked for: the reply is empty when there is none. One of the
// same name that was made from something else is stopped.
func (s *session) Claim(r StartRequest, reply *Started) error {
	s.mu.Lock()
	var other *child
	for _, c := range s.children {
		// One launcher at a time has the lock: what another session has claimed, it has left.
		if c.name != r.Name || c.claimed == s || c.hasEnded() {
			continue
		}
		if c.digest == r.Digest {
			c.claimed = s
			*reply = c.Started
		} else {
			other = c
		}
	}
	s.mu.Unlock()
	if other != nil {
		other.stop(0)
	}
	return nil
}

// Start starts a replica.
func (s *session) Start(r StartRequest, reply *Started) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return errors.New("the keeper is ending")
	}
	s.started++
	id := strconv.Itoa(s.started)
	base := filepath.Join(s.cfg.Directory, id)
	c := &child{
		Started: Started{ID: id, Socket: base + ".sock"}, pidFile: base + ".pid",
		name: r.Name, digest: r.Digest, grace: r.Grace, log: s.log.With("replica", r.Name),
		claimed: s, done: make(chan struct{}),
	}
	var err error
	if c.logs, err = openLog(r.Log); err != nil {
		return err
	}
	if err := c.run(r, s.cfg.Group); err != nil {
		return errors.Join(err, c.logs.end("replica was not started"))
	}
	s.children[id] = c
	go func() {
		<-c.done
		s.ended(c)
	}()
	*reply = c.Started
	return nil
}

// ended forgets a child that nobody will ask for.
func (k *keeping) ended(c *child) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c.claimed == nil {
		delete(k.children, c.ID)
		k.endIfIdle()
	}
}

func (k *keeping) child(id string) (*child, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c := k.children[id]; c != nil {
		return c, nil
	}
	return nil, errors.New("there is no such replica")
}

// EndedReply is how a replica has ended, and its last lines.
type EndedReply struct {
	Exit launcher.Exit
	Tail []string
}

// Wait returns when the replica has ended, which is forgotten then.
func (s *session) Wait(id string, reply *EndedReply) error {
	c, err := s.child(id)
	if err != nil {
		return err
	}
	select {
	case <-s.gone:
		return errors.New("the launcher has gone")
	case <-c.done:
	}
	*reply = EndedReply{c.exit, c.logs.tail(tailLines)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.claimed == s {
		delete(s.children, id)
	}
	return nil
}

// Ping answers.
func (s *session) Ping(_ bool, _ *bool) error { return nil }

// SignalRequest sends a signal to a replica and all that it has started.
type SignalRequest struct {
	ID     string
	Signal syscall.Signal
}

// Signal sends a signal. That the replica has ended is no error.
func (s *session) Signal(r SignalRequest, _ *bool) error {
	if c, err := s.child(r.ID); err == nil {
		c.signal(r.Signal)
	}
	return nil
}

// TailRequest asks for lines.
type TailRequest struct {
	ID    string
	Lines int
}

// Tail returns the last lines that the replica wrote.
func (s *session) Tail(r TailRequest, reply *[]string) error {
	c, err := s.child(r.ID)
	if err != nil {
		return err
	}
	*reply = c.logs.tail(r.Lines)
	return nil
}

// WrittenRequest asks for more in a log than has been seen.
type WrittenRequest struct {
	ID   string
	Seen uint64
}

// Written returns how often the replica's log was written to, once that is more often than was seen.
func (s *session) Written(r WrittenRequest, reply *uint64) error {
	c, err := s.child(r.ID)
	if err != nil {
		return err
	}
	for {
		writes, more := c.logs.written()
		if writes > r.Seen {
			*reply = writes
			return nil
		}
		select {
		case <-s.gone:
			return errors.New("the launcher has gone")
		case <-more:
		}
	}
}

// Quit ends all replicas at once. The keeper ends when the connection does.
func (s *session) Quit(_ bool, _ *bool) error {
	s.stopAll()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quit = true
	return nil
}

// child is one process and its group.
type child struct {
	Started
	pidFile string
	name    string
	digest  string
	log     *slog.Logger
	grace   time.Duration
	logs    *logFile
	group   *group   // nil where it cannot be held to limits
	stdin   *os.File // never written to; its end tells the child that the keeper is gone
	done    chan struct{}

	claimed        *session // guarded by the keeper's lock, as the next
	unclaimedSince time.Time

	mu   sync.Mutex    // guards over
	over bool          // the process id may be another's from now on
	exit launcher.Exit // written before done is closed
}

// run starts the process and the goroutine that waits for it. Its control group is one below the given one.
func (c *child) run(r StartRequest, below string) error {
	cmd := exec.Command(r.Path, r.Arguments...) //nolint:noctx // It ends with Stop.
	cmd.Dir = r.Directory
	cmd.Env = append(r.Environment, launcher.EnvAddress+"=unix:"+c.Socket)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}

	stdin, hold, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start replica: %w", err)
	}
	defer func() { _ = stdin.Close() }()
	output, write, err := os.Pipe()
	if err != nil {
		return errors.Join(fmt.Errorf("start replica: %w", err), hold.Close())
	}
	defer func() { _ = write.Close() }()

	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, write, write
	if err := c.begin(cmd, r, below); err != nil {
		return errors.Join(fmt.Errorf("start replica: %w", err), hold.Close(), output.Close(), c.leaveGroup())
	}
	c.PID, c.stdin = cmd.Process.Pid, hold
	if c.StartTime, err = startTime(c.PID); err == nil {
		err = writePID(c.pidFile, c.PID, c.StartTime)
	}
	if err != nil {
		c.log.Warn("process id of a replica is not recorded; if the keeper is killed, the replica may stay", "error", err)
	}
	go c.wait(cmd, output)
	return nil
}

// begin starts the process in its group.
func (c *child) begin(cmd *exec.Cmd, r StartRequest, below string) (err error) {
	if below != "" {
		if c.group, err = (&groups{below}).add(c.ID, r.Cpus, r.Memory); err != nil {
			return err
		}
		entered, err := c.group.enter(cmd.SysProcAttr)
		if err != nil {
			return err
		}
		defer entered()
	}
	return cmd.Start()
}

// wait copies the output and reaps the process.
func (c *child) wait(cmd *exec.Cmd, output *os.File) {
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(c.logs, output) // the log keeps its own errors from stopping this
	}()

	err := cmd.Wait()
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	// What the child has started must not outlive it. The group keeps its id as
	// long as it has members; with none, this finds no process.
	_ = syscall.Kill(-c.PID, syscall.SIGKILL)

	// A process that has left the group may hold the pipe open: it is not waited for.
	_ = output.SetReadDeadline(time.Now().Add(time.Second))
	<-copied
	c.exit = exitOf(cmd, err)
	if c.group != nil && c.group.outOfMemory() {
		c.exit.OutOfMemory, c.exit.MemoryLimit = true, c.group.memory
	}
	for _, err := range []error{c.leaveGroup(), output.Close(), c.stdin.Close(), c.logs.end("replica " + c.exit.String()), remove(c.Socket), remove(c.pidFile)} {
		if err != nil {
			c.log.Warn("clean up after a replica", "error", err)
		}
	}
	close(c.done)
}

// leaveGroup removes the replica's group, and all that is left in it.
func (c *child) leaveGroup() error {
	if c.group == nil {
		return nil
	}
	return removeGroup(c.group.dir)
}

func exitOf(cmd *exec.Cmd, err error) launcher.Exit {
	if cmd.ProcessState == nil {
		return launcher.Exit{Code: -1, Signal: "unknown: " + err.Error()}
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return launcher.Exit{Code: -1, Signal: status.Signal().String()}
	}
	return launcher.Exit{Code: cmd.ProcessState.ExitCode()}
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (c *child) hasEnded() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// stop ends the replica: when it will, or after the grace period, if there is one.
func (c *child) stop(grace time.Duration) {
	if grace > 0 {
		c.signal(syscall.SIGTERM)
		over := time.NewTimer(grace)
		defer over.Stop()
		select {
		case <-c.done:
			return
		case <-over.C:
		}
	}
	c.signal(syscall.SIGKILL)
	<-c.done
}

// signal reaches the whole group, while the process is known to be the child.
func (c *child) signal(s syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		_ = syscall.Kill(-c.PID, s) // only fails when all have ended
	}
}
