// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bufio"
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

// Limits are the kernel's, through control groups of version 2 (cgroups(7), and the kernel's
// Documentation/admin-guide/cgroup-v2.rst). Below the launcher's parent group, each keeper has a
// group, and each replica one in that:
//
//	PARENT/clipper-1f3a9c     the keeper with the directory 1f3a9c
//	PARENT/clipper-1f3a9c/7   the replica with the socket 7.sock
//
// A group holds everything that a replica starts, so the kernel can end all of it at once.

const (
	groupPrefix = "clipper-"
	// serverGroup is where the service goes when its own group is to have groups below it: a group has
	// processes or limits for groups below it, not both.
	serverGroup = groupPrefix + "server"
	// cpuPeriod is the time over which processor time is shared out, in microseconds: the kernel's default.
	cpuPeriod = 100_000
	// maxProcesses is the most processes and threads of a replica, as in Docker.
	maxProcesses = 4096
)

// groups is a keeper's control group.
type groups struct{ dir string }

// controllers are what limits need.
var controllers = []string{"cpu", "memory", "pids"}

// newGroups makes the group of the keeper whose directory is called name, in the given parent group:
// a path in the hierarchy such as "/clipper.slice", or "" for this process's own group. The error says why
// there are no limits here, in words for people.
func newGroups(parent, name string) (*groups, error) {
	root, own, err := hierarchy()
	if err != nil {
		return nil, err
	}
	if parent == "" {
		if parent = own; filepath.Base(own) == serverGroup {
			parent = filepath.Dir(own) // Another launcher of this process has moved it.
		}
	}
	dir := filepath.Join(root, filepath.Join("/", parent))
	if !isDirectory(dir) {
		return nil, fmt.Errorf("there is no control group %s", parent)
	}
	if err := delegate(dir); err != nil {
		return nil, fmt.Errorf("the control group %s: %w", parent, err)
	}
	g := &groups{dir: filepath.Join(dir, groupPrefix+name)}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return nil, fmt.Errorf("the control group %s: %w", parent, reason(err))
	}
	if err := enable(g.dir); err != nil {
		return nil, errors.Join(fmt.Errorf("the control group %s: %w", parent, err), os.Remove(g.dir))
	}
	return g, nil
}

// hierarchy returns where the hierarchy of version 2 is mounted and this process's group in it.
func hierarchy() (root, own string, err error) {
	const none = "this machine has no control groups of version 2 (cgroup v2)"
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", "", errors.New(none)
	}
	for line := range strings.Lines(string(mounts)) {
		// See proc(5): the mount point is field 5, and the file system's type follows " - ".
		fields, rest, _ := strings.Cut(line, " - ")
		if where := strings.Fields(fields); strings.HasPrefix(rest, "cgroup2 ") && len(where) > 4 {
			root = where[4]
			break
		}
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if root == "" || err != nil {
		return "", "", errors.New(none)
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return root, path, nil
		}
	}
	return "", "", errors.New(none)
}

// delegate makes the group one that has limits for groups below it.
func delegate(dir string) error {
	err := enable(dir)
	if !errors.Is(err, syscall.EBUSY) {
		return err
	}
	// It has processes. If this one is alone, it can go below; others are not moved behind somebody's back.
	pids, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return reason(err)
	}
	if string(bytes.TrimSpace(pids)) != strconv.Itoa(os.Getpid()) {
		return errors.New("has other processes than this server, so there can be no limits below it")
	}
	leaf := filepath.Join(dir, serverGroup)
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return reason(err)
	}
	if err := write(leaf, "cgroup.procs", strconv.Itoa(os.Getpid())); err != nil {
		return err
	}
	return enable(dir)
}

// enable lets the groups below have limits.
func enable(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return reason(err)
	}
	have := " " + strings.TrimSpace(string(text)) + " "
	for _, c := range controllers {
		if !strings.Contains(have, " "+c+" ") {
			return fmt.Errorf("does not have the controller %q, which is not delegated to it or belongs to control groups of version 1", c)
		}
	}
	// Those that are enabled already may be enabled again.
	return write(dir, "cgroup.subtree_control", "+"+strings.Join(controllers, " +"))
}

// write writes one of the kernel's files in a group.
func write(dir, name, value string) error {
	if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0); err != nil {
		return fmt.Errorf("%s cannot be written: %w", name, reason(err))
	}
	return nil
}

// add makes the group of a replica.
func (g *groups) add(name string, cpus float64, memory uint64) (*group, error) {
	one := &group{dir: filepath.Join(g.dir, name), memory: memory}
	if err := os.Mkdir(one.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make a control group: %w", err)
	}
	limits := [][2]string{
		{"pids.max", strconv.Itoa(maxProcesses)},
		{"memory.oom.group", "1"}, // What is left of a replica without one of its processes is no replica.
	}
	if cpus > 0 {
		limits = append(limits, [2]string{"cpu.max", fmt.Sprintf("%d %d", int64(cpus*cpuPeriod), cpuPeriod)})
	}
	if one.memory > 0 {
		limits = append(limits, [2]string{"memory.max", strconv.FormatUint(one.memory, 10)})
		// A kernel without swap has no such file.
		if _, err := os.Stat(filepath.Join(one.dir, "memory.swap.max")); err == nil {
			limits = append(limits, [2]string{"memory.swap.max", "0"})
		}
	}
	for _, l := range limits {
		if err := write(one.dir, l[0], l[1]); err != nil {
			return nil, errors.Join(fmt.Errorf("limit a replica: %w", err), os.Remove(one.dir))
		}
	}
	return one, nil
}

// group is a replica's.
type group struct {
	dir    string
	memory uint64 // the limit in bytes; 0 is none
}

// outOfMemory reports whether the kernel has ended processes of the group for want of memory.
func (g *group) outOfMemory() bool {
	f, err := os.Open(filepath.Join(g.dir, "memory.events"))
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if n, ok := strings.CutPrefix(lines.Text(), "oom_kill "); ok {
			return n != "0"
		}
	}
	return false
}

// removeGroup ends every process in a group and those below it, and removes them. A group that is not there
// is no error.
func removeGroup(dir string) error {
	if err := write(dir, "cgroup.kill", "1"); errors.Is(err, fs.ErrNotExist) && !isDirectory(dir) {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("remove a control group: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeGroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	// It is busy until the last process has ended, which was killed.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		err := syscall.Rmdir(dir)
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return fmt.Errorf("remove the control group %s: %w", dir, err)
		}
	}
}
