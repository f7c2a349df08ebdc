// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/clipper-serving/clipper/abstraction/launcher"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	pythonAdapter     = "adapter.py"
	executableAdapter = "adapter"
	// adapterPython is the interpreter of an adapter that has an environment of its own: frameworks cannot all
	// share one.
	adapterPython = ".venv/bin/python"
)

// program is what to execute.
type program struct {
	path        string
	arguments   []string
	directory   string
	environment []string
}

// program returns what to execute for a container, or an error as Check does.
func (l *Launcher) program(c *clipperv1.Container) (program, error) {
	p, err := l.source(c)
	r := c.GetResources()
	switch {
	case err != nil:
		return program{}, err
	case r.GetGpus() > 0:
		return program{}, launcher.Fieldf("resources.gpus", "a process may use every GPU of its machine: leave them out, or run the model in Docker (an image, or a server with --launcher docker)")
	case limited(r) && l.groups == nil:
		return program{}, launcher.Fieldf("resources", "processes of this server cannot be held to limits, since %v; leave them out, run the server where it may make control groups (see docs/models.md), or run the model in Docker (an image, or a server with --launcher docker)", l.unlimited)
	}
	return p, nil
}

func limited(r *clipperv1.Resources) bool { return r.GetCpus() > 0 || r.GetMemoryBytes() > 0 }

func (l *Launcher) source(c *clipperv1.Container) (program, error) {
	switch source := c.GetSource().(type) {
	case *clipperv1.Container_Adapter:
		return l.adapter(source.Adapter)
	case *clipperv1.Container_Command:
		return command(source.Command)
	}
	return program{}, launcher.ErrUnsupported
}

func command(c *clipperv1.Command) (program, error) {
	const field = "command.arguments"
	if len(c.GetArguments()) == 0 {
		return program{}, launcher.Fieldf(field, "the program is missing")
	}
	path, err := exec.LookPath(c.Arguments[0])
	switch {
	case errors.Is(err, exec.ErrDot) || (err == nil && !filepath.IsAbs(path)):
		return program{}, launcher.Fieldf(field, "the program %q is in a relative directory: give its absolute path, or a name found in PATH", c.Arguments[0])
	case err != nil:
		return program{}, launcher.Fieldf(field, "the program %q cannot be executed on this machine: give the absolute path of an executable file, or a name found in PATH", c.Arguments[0])
	}
	if c.Directory != "" && !isDirectory(c.Directory) {
		return program{}, launcher.Fieldf("command.directory", "%q is not a directory on this machine", c.Directory)
	}
	return program{path: path, arguments: c.Arguments[1:], directory: c.Directory}, nil
}

func (l *Launcher) adapter(a *clipperv1.Adapter) (program, error) {
	installed := l.installed()
	if !slices.Contains(installed, a.GetFramework()) {
		have := "none is installed"
		if len(installed) > 0 {
			have = "installed are " + strings.Join(installed, ", ")
		}
		return program{}, launcher.Fieldf("adapter.framework", "there is no adapter for the framework %q in %s: %s", a.GetFramework(), l.cfg.AdapterDirectory, have)
	}
	if path := a.GetModelPath(); path != "" {
		if _, err := os.Stat(path); err != nil {
			return program{}, launcher.Fieldf("adapter.model_path", "the saved model %q cannot be read on the machine that runs the replica: %v", path, reason(err))
		}
	}
	folder := filepath.Join(l.cfg.AdapterDirectory, a.Framework)
	if path := filepath.Join(folder, executableAdapter); isExecutable(path) {
		return program{path: path}, nil
	}
	python := filepath.Join(folder, adapterPython)
	if !isExecutable(python) {
		var err error
		if python, err = exec.LookPath(l.cfg.Python); err != nil {
			return program{}, launcher.Fieldf("adapter.framework", "the adapter for %q needs Python, and the interpreter %q was not found: start the server with --python", a.Framework, l.cfg.Python)
		}
	}
	return program{
		path:      python,
		arguments: []string{filepath.Join(folder, pythonAdapter)},
		// Lines reach the log when they are written, not when a buffer is full.
		environment: []string{"PYTHONUNBUFFERED=1"},
	}, nil
}

// reason drops the path that the message has already.
func reason(err error) error {
	var pathErr *os.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

// installed returns the frameworks that have an adapter, sorted.
func (l *Launcher) installed() []string {
	entries, err := os.ReadDir(l.cfg.AdapterDirectory)
	if err != nil {
		return nil // no directory, no adapter; the message says where it was looked for
	}
	var names []string
	for _, e := range entries {
		folder := filepath.Join(l.cfg.AdapterDirectory, e.Name())
		if isFile(filepath.Join(folder, pythonAdapter)) || isExecutable(filepath.Join(folder, executableAdapter)) {
			names = append(names, e.Name())
		}
	}
	return names
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// defaultAdapters returns the first place that exists, or the one in the working
// directory.
func defaultAdapters() string {
	local := filepath.Join("containerrpc", "adapters")
	if isDirectory(local) {
		return local
	}
	if exe, err := os.Executable(); err == nil {
		if beside := filepath.Join(filepath.Dir(exe), local); isDirectory(beside) {
			return beside
		}
	}
	return local
}
