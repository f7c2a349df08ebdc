// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// memory returns that of the process that listens on a unix socket, and of its descendants; nil when the
// address is no such socket, or the process is not to be seen from here.
func memory(address string) *Memory {
	path, isUnix := strings.CutPrefix(address, "unix:")
	if !isUnix {
		return nil
	}
	pid := listener(strings.TrimPrefix(path, "//"))
	if pid <= 0 { // It is in another namespace of processes.
		return nil
	}
	m := &Memory{}
	if !m.add(pid) {
		return nil
	}
	return m
}

// listener returns the process that listens on a socket, 0 when it cannot be told.
func listener(path string) int {
	conn, err := (&net.Dialer{}).Dial("unix", path)
	if err != nil {
		return 0
	}
	defer func() { _ = conn.Close() }()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	err = raw.Control(func(fd uintptr) {
		if peer, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			pid = int(peer.Pid)
		}
	})
	if err != nil {
		return 0
	}
	return pid
}

// add counts a process and its descendants: some frameworks compute in a process of their own.
func (m *Memory) add(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	resident, peak := kibibytes(status, "VmRSS:"), kibibytes(status, "VmHWM:")
	m.Processes++
	m.ResidentBytes += resident << 10
	m.PeakBytes += peak << 10
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, thread := range threads {
		children, _ := os.ReadFile(thread)
		for _, child := range strings.Fields(string(children)) {
			if pid, err := strconv.Atoi(child); err == nil {
				m.add(pid)
			}
		}
	}
	return true
}

// kibibytes reads a line of /proc/PID/status.
func kibibytes(status []byte, name string) uint64 {
	_, rest, _ := bytes.Cut(status, []byte("\n"+name))
	fields := bytes.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	n, _ := strconv.ParseUint(string(fields[0]), 10, 64)
	return n
}
