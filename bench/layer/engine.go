// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"

	"github.com/clipper-serving/clipper/abstraction/launcher/docker"
)

// Engine is a Docker Engine that is there, and a launcher that uses it.
type Engine struct {
	// Launcher runs images.
	Launcher *docker.Launcher

	name   string
	images []string
}

// FindEngine returns the engine that Docker's own program finds. Without one the error says so.
func FindEngine(ctx context.Context) (*Engine, error) {
	if output, err := exec.CommandContext(ctx, "docker", "version", "--format", "{{.Server.Version}}").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("no Docker Engine: %w: %s", err, strings.TrimSpace(string(output)))
	}
	name := fmt.Sprintf("clipper-bench-%d", os.Getpid())
	l, err := docker.New(docker.Config{Installation: name, StopTimeout: stopTimeout}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		return nil, err
	}
	return &Engine{Launcher: l, name: name}, nil
}

// Image makes an image of a static program, whose command is given.
func (e *Engine) Image(ctx context.Context, command []string) (string, error) {
	program, err := os.ReadFile(command[0]) //nolint:gosec // It was built for this.
	if err != nil {
		return "", err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, part := range []struct {
		header  tar.Header
		content []byte
	}{
		{tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil},
		{tar.Header{Name: "program", Mode: 0o755, Size: int64(len(program))}, program},
	} {
		if err := w.WriteHeader(&part.header); err != nil {
			return "", err
		}
		if _, err := w.Write(part.content); err != nil {
			return "", err
		}
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	entry, err := json.Marshal(append([]string{"/program"}, command[1:]...))
	if err != nil {
		return "", err
	}
	name := fmt.Sprintf("%s:%d", e.name, len(e.images))
	load := exec.CommandContext(ctx, "docker", "import", "--change", "ENTRYPOINT "+string(entry), "-", name)
	load.Stdin = &archive
	if output, err := load.CombinedOutput(); err != nil {
		return "", fmt.Errorf("docker import: %w: %s", err, strings.TrimSpace(string(output)))
	}
	e.images = append(e.images, name)
	return name, nil
}

// Stop ends what the launcher runs and removes the images.
func (e *Engine) Stop() {
	_ = e.Launcher.Close()
	for _, name := range e.images {
		_ = exec.Command("docker", "image", "rm", "--force", name).Run() //nolint:noctx // Nobody waits for it.
	}
}
