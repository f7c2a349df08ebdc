// SPDX-License-Identifier: Apache-2.0

package system

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"
)

// Redis is a redis-server with an append-only file.
type Redis struct {
	// Fsync is when the file is synced: "always" or "everysec".
	Fsync string

	process *Process
	address string
	folder  string
}

// StartRedis runs a redis-server.
func StartRedis(fsync string) (_ *Redis, err error) {
	r := &Redis{Fsync: fsync}
	if r.address, err = FreeAddress(); err != nil {
		return nil, err
	}
	if r.folder, err = os.MkdirTemp("", "clipper-bench-redis-"); err != nil {
		return nil, err
	}
	if err := r.Restart(); err != nil {
		r.Stop()
		return nil, err
	}
	return r, nil
}

// Store is the flag by which Clipper keeps its state here.
func (r *Redis) Store() string { return "--store=redis://" + r.address + "/0" }

// Restart starts the server, again if it was killed, and waits until it takes connections.
func (r *Redis) Restart() error {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return errors.New("this experiment needs redis-server: install the package redis-server")
	}
	_, port, err := net.SplitHostPort(r.address)
	if err != nil {
		return err
	}
	r.process, err = Start(nil, program, "--port", port, "--bind", "127.0.0.1", "--dir", r.folder, "--save", "",
		"--appendonly", "yes", "--appendfsync", r.Fsync)
	if err != nil {
		return fmt.Errorf("start redis-server: %w", err)
	}
	return AwaitListener(r.address)
}

// Kill ends the server at once, as kill -9 does, and waits.
func (r *Redis) Kill() { r.process.Kill() }

// CPU returns the processor time that the server has used.
func (r *Redis) CPU() (time.Duration, error) { return r.process.CPU() }

// Stop ends the server and removes what it stored.
func (r *Redis) Stop() {
	if r.process != nil {
		r.process.Stop()
	}
	_ = os.RemoveAll(r.folder)
}
