// SPDX-License-Identifier: Apache-2.0

package rolling

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
	"time"

	"github.com/clipper-serving/clipper/abstraction/launcher/docker"
)

// engine is a Docker Engine that is there, with an image of the container.
type engine struct {
	launcher *docker.Launcher
	image    string
}

// startEngine makes the image of a static program, whose command is given, on the engine that Docker's own
// program finds.
func startEngine(ctx context.Context, command []string) (*engine, error) {
	program, err := os.ReadFile(command[0]) //nolint:gosec // It was built for this.
	if err != nil {
		return nil, err
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
			return nil, err
		}
		if _, err := w.Write(part.content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	entry, err := json.Marshal(append([]string{"/program"}, command[1:]...))
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("clipper-bench-%d", os.Getpid())
	load := exec.CommandContext(ctx, "docker", "import", "--change", "ENTRYPOINT "+string(entry), "-", name+":bench")
	load.Stdin = &archive
	if output, err := load.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("docker import: %w: %s", err, strings.TrimSpace(string(output)))
	}
	l, err := docker.New(docker.Config{Installation: name, StopTimeout: 5 * time.Second}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		return nil, err
	}
	return &engine{launcher: l, image: name + ":bench"}, nil
}

func (e *engine) stop() {
	_ = e.launcher.Close()
	_ = exec.Command("docker", "image", "rm", "--force", e.image).Run() //nolint:noctx // Nobody waits for it.
}
