// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	lockName  = "lock"
	groupName = "cgroup"
	keeperPID = "keeper.pid"
)

// prepare makes the directories, kills what dead servers and keepers have left, and takes a directory for the
// keeper that this launcher will have.
func (l *Launcher) prepare() error {
	if err := privateDirectory(l.cfg.RunDirectory); err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	if err := os.MkdirAll(l.cfg.LogDirectory, 0o700); err != nil {
		return fmt.Errorf("log directory: %w", err)
	}
	if err := l.eachFree(func(dir string, lock *os.File) (bool, error) {
		if answers(dir) {
			return false, nil // It has replicas that a server may still come for.
		}
		return false, l.sweep(dir)
	}); err != nil {
		return err
	}
	k, err := l.newKeeper()
	if err != nil {
		return err
	}
	l.own, l.keepers = k, []*keeper{k}
	return nil
}

// setUp locks the run directory. Without that, another launcher could take a directory that is about to be locked
// for one whose owner is dead.
func (l *Launcher) setUp() (*os.File, error) {
	return flock(filepath.Join(l.cfg.RunDirectory, lockName), syscall.LOCK_EX)
}

// eachFree visits the directories of keepers that no launcher has, each locked meanwhile, or, if visit says that it
// keeps the lock, from then on.
func (l *Launcher) eachFree(visit func(dir string, lock *os.File) (kept bool, err error)) error {
	setup, err := l.setUp()
	if err != nil {
		return err
	}
	defer func() { _ = setup.Close() }()
	entries, err := os.ReadDir(l.cfg.RunDirectory)
	if err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	for _, e := range entries {
		dir := filepath.Join(l.cfg.RunDirectory, e.Name())
		if !e.IsDir() || !isFile(filepath.Join(dir, lockName)) {
			continue // It is not a keeper's.
		}
		lock, err := flock(filepath.Join(dir, lockName), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist) {
			continue // A launcher has it, or it has just gone.
		}
		if err != nil {
			return err
		}
		kept, err := visit(dir, lock)
		if !kept {
			_ = lock.Close()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// newKeeper makes and locks a keeper's directory, and its control group if that may be.
func (l *Launcher) newKeeper() (*keeper, error) {
	setup, err := l.setUp()
	if err != nil {
		return nil, err
	}
	defer func() { _ = setup.Close() }()
	run := l.cfg.RunDirectory
	dir, err := os.MkdirTemp(run, "")
	if err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	if longest := filepath.Join(dir, "1000000.sock"); len(longest) > maxSocketPath {
		_ = os.Remove(dir)
		return nil, fmt.Errorf("run directory: the path %q is too long for a unix socket by %d bytes: choose a shorter one with --run-dir", run, len(longest)-maxSocketPath)
	}
	lock, err := flock(filepath.Join(dir, lockName), syscall.LOCK_EX)
	if err != nil {
		return nil, err
	}
	k := &keeper{dir: dir, lock: lock}
	if err := l.limit(k); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir), lock.Close())
	}
	return k, nil
}

// limit makes the keeper's control group, if it may. That it may not is an error if the group was named.
func (l *Launcher) limit(k *keeper) error {
	l.groups, l.unlimited = newGroups(l.cfg.Cgroup, filepath.Base(k.dir))
	if l.unlimited != nil {
		if l.cfg.Cgroup != "" {
			return fmt.Errorf("cgroup: replicas cannot have limits below it: %w", l.unlimited)
		}
		l.log.Info("replicas that are processes cannot be held to limits of memory and processors here", "cause", l.unlimited)
		return nil
	}
	k.group = l.groups.dir
	if err := os.WriteFile(filepath.Join(k.dir, groupName), []byte(k.group), 0o600); err != nil {
		l.log.Warn("the control group is not recorded; if the server is killed, it may stay", "error", err)
	}
	return nil
}

// sweepGroup ends what a keeper has left in its control group.
func (l *Launcher) sweepGroup(dir string) {
	text, err := os.ReadFile(filepath.Join(dir, groupName))
	if err != nil {
		return // It had none.
	}
	// Nothing else is to be removed, whatever the file says.
	if group := string(text); filepath.Base(group) == groupPrefix+filepath.Base(dir) {
		if err := removeGroup(group); err != nil {
			l.log.Warn("a control group of replicas stays", "error", err)
		}
	}
}

// privateDirectory makes the directory, or makes sure that it belongs to this user and
// that nobody else has access: sockets in it are served without authentication.
func privateDirectory(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory", dir)
	case ok && int(stat.Uid) != os.Getuid():
		return fmt.Errorf("%s belongs to another user", dir)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s is accessible to other users (mode %v): want 0700", dir, info.Mode().Perm())
	}
	return nil
}

// flock opens and locks a file. The lock is given up when the file is closed, also by
// the end of the process; children do not inherit it.
func flock(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	for {
		err = syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}

// sweep kills the replicas of a keeper that is dead and removes its directory.
func (l *Launcher) sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("find leftovers: %w", err)
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".pid" || e.Name() == keeperPID {
			continue
		}
		file := filepath.Join(dir, e.Name())
		pid, start, err := readPID(file)
		if err != nil {
			l.log.Warn("process id of a leftover replica cannot be read", "file", file, "error", err)
			continue
		}
		// The id may be another process's by now: the start time tells.
		if now, err := startTime(pid); err != nil || now != start {
			continue
		}
		l.log.Info("killing a replica that has outlived its keeper", "pid", pid)
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		awaitEnd(pid, start)
	}
	l.sweepGroup(dir)
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove leftovers: %w", err)
	}
	return nil
}

// awaitEnd waits until a killed process, which is not a child, is gone, so that what
// it held is free; but not for ever.
func awaitEnd(pid int, start string) {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if now, err := startTime(pid); err != nil || now != start {
			return
		}
	}
}

// writePID records a process together with its start time, since process ids are used
// again.
func writePID(file string, pid int, start string) error {
	return os.WriteFile(file, []byte(strconv.Itoa(pid)+" "+start+"\n"), 0o600)
}

func readPID(file string) (pid int, start string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, "", err
	}
	fields := strings.Fields(string(text))
	if len(fields) != 2 {
		return 0, "", fmt.Errorf("%q is not a process id and a start time", text)
	}
	pid, err = strconv.Atoi(fields[0])
	if err != nil || pid <= 1 {
		return 0, "", fmt.Errorf("%q is not the id of a replica", fields[0])
	}
	return pid, fields[1], nil
}

// startTime returns when a process was started, in ticks since the machine was, or
// an error when there is no such process. A zombie counts as gone.
func startTime(pid int) (string, error) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", err
	}
	// The second field is the program's name in parentheses, which may hold anything. See
	// proc(5): the state is field 3 and the start time field 22.
	_, rest, _ := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
	fields := bytes.Fields(rest)
	if len(fields) < 20 || fields[0][0] == 'Z' {
		return "", fs.ErrNotExist
	}
	return string(fields[19]), nil
}
