// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// assertCollect is what the conditions of EventuallyWithT report to.
type assertCollect = assert.CollectT

// process is a program that runs or has run.
type process struct {
	name   string
	cmd    *exec.Cmd
	output output
	done   chan struct{} // Closed when it has ended.
}

func startProcess(t *testing.T, name, program string, args ...string) *process {
	t.Helper()
	p := &process{name: name, cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	// Keeps a service from outliving a test that panicked or timed out.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, p.cmd.Start())
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // What is to know is in ProcessState.
	}()
	return p
}

func (p *process) signal(t *testing.T, signal syscall.Signal) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(signal))
}

// kill ends the process and waits until it is gone.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if !p.exited() {
		_ = p.cmd.Process.Kill() // It may have ended this very moment.
	}
	p.wait(t)
}

// wait waits until the process has ended and returns its exit code, -1 if a signal ended it.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // The log then says what it was doing.
		<-p.done
		require.Fail(t, "the process does not end", "%s:\n%s", p.name, p.output.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// output keeps what a process says.
type output struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.String()
}
