// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/clipper-serving/clipper/abstraction/launcher/docker/build"
	"github.com/clipper-serving/clipper/containerrpc/image"
)

type imageCommands struct {
	Build imageBuild `cmd:"" help:"Make an image of a saved model: its framework's adapter, what that needs, and the model."`
}

type imageBuild struct {
	Name         string            `arg:"" help:"The image: [REGISTRY/]NAME[:TAG]."`
	Framework    string            `required:"" placeholder:"NAME" help:"The saved model's framework, such as sklearn; or http or oip, for a model of another server."`
	Path         string            `placeholder:"FILE" help:"The saved model, a file or a folder."`
	Requirements string            `placeholder:"FILE" help:"What pip installs, instead of what the adapter was tested with: for a model of another version of its framework."`
	Base         string            `default:"python:3.13-slim" placeholder:"IMAGE" help:"An image with Python and pip, to build on. Default: ${default}."`
	Env          map[string]string `mapsep:"none" placeholder:"KEY=VALUE" help:"A setting of the adapter; may be repeated."`
	BuildArg     map[string]string `mapsep:"none" placeholder:"KEY=VALUE" help:"PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, or a proxy for the steps of the build, such as HTTPS_PROXY; may be repeated."`
	Network      string            `placeholder:"NAME" help:"Network of the steps of the build: host, none, or a Docker network. Default: the engine's."`
	Output       string            `placeholder:"DIR" help:"Write what the image is built from into this folder, which is empty or not there, and do not build."`
	JSON         bool              `name:"json" help:"Write one JSON document."`
}

func (imageBuild) Help() string {
	return `A Docker Engine builds it; DOCKER_HOST says where that is. With --output there is a Dockerfile to read, to change and
to keep instead, and no engine is needed. docs/docker.md says more.

Examples:

    clipper image build digits:1 --framework sklearn --path model.joblib
    clipper image build digits:1 --framework sklearn --path model.joblib --output digits-image
    clipper image build moods --framework huggingface --path moods --env HUGGINGFACE_TOP_K=3`
}

// imageReport is the JSON document of a build. Without a build there is no image.
type imageReport struct {
	Name string `json:"image"`
	*build.Image
	Context string `json:"context_digest"`
	Folder  string `json:"folder,omitempty"`
}

func (k *imageBuild) apply(c *client) { c.JSON = k.JSON }

func (k *imageBuild) Run(c *client) error {
	name, err := build.Name(k.Name)
	if err != nil {
		return usagef("%v", err)
	}
	files, err := image.New(image.Spec{
		Name: name, Framework: k.Framework, Path: k.Path, Requirements: k.Requirements, Base: k.Base, Environment: k.Env,
		Version: c.build.Version,
	})
	if unknown := (*image.FrameworkError)(nil); errors.As(err, &unknown) {
		return usagef("--framework: %v", err)
	} else if err != nil {
		return err
	}
	report := imageReport{Name: name}
	if c.JSON { // Nobody else sees it, and a model may be large.
		if report.Context, err = files.Digest(); err != nil {
			return err
		}
	}
	if k.Output != "" {
		report.Folder = k.Output
		return k.write(c, files, report)
	}
	built, err := k.build(c, files, name)
	if err != nil {
		return err
	}
	if report.Image = &built; c.JSON {
		return c.writeJSON(report)
	}
	if _, err := fmt.Fprintf(c.Stdout, "%s is built: %s, %s\n", name, built.ID, mebibytes(uint64(built.Bytes))); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.Stderr, "To serve it: clipper model deploy MODEL --version V --image %s\n", name)
	return err
}

func (k *imageBuild) write(c *client, files *image.Context, report imageReport) error {
	if err := files.Write(k.Output); errors.Is(err, image.ErrExists) {
		return fmt.Errorf("%w: name another folder with --output", err)
	} else if err != nil {
		return err
	}
	if c.JSON {
		return c.writeJSON(report)
	}
	for _, name := range files.Names() {
		if _, err := fmt.Fprintln(c.Stdout, filepath.Join(k.Output, name)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(c.Stderr, "To build it: docker build -t %s %s\n", report.Name, k.Output)
	return err
}

func (k *imageBuild) build(c *client, files *image.Context, name string) (build.Image, error) {
	progress := c.progress()
	defer progress.end()
	size := max(files.Size(), 1)
	built, err := build.Build(c.ctx, files.Archive, build.Options{Tag: name, Arguments: k.BuildArg, Network: k.Network}, func(p build.Progress) {
		if p.Steps == 0 && p.Text == "" {
			line := "sending " + mebibytes(uint64(size)) + " to the engine"
			if c.Animated { // A log gets one line.
				line = bar(min(p.Sent*10/size, 10)) + " " + line
			}
			progress.show(line)
			return
		}
		progress.show(fmt.Sprintf("%s step %d of %d: %s", bar(int64(p.Step*10/max(p.Steps, 1))), p.Step, p.Steps, p.Text))
	})
	if c.ctx.Err() != nil {
		return built, interrupted
	}
	if failed := (*build.Error)(nil); errors.As(err, &failed) {
		return built, &failure{code: ExitFailed, message: failed.Error(), details: explainStep(k, failed)}
	}
	return built, err
}

// explainStep returns the last lines of a step that failed, and what to try.
func explainStep(k *imageBuild, e *build.Error) string {
	try := "Look at what is built: clipper image build ... --output DIR"
	switch {
	case strings.HasPrefix(e.Step, "FROM "):
		try = fmt.Sprintf("The engine needs the image %s: pull it there, or name another one with Python and pip by --base.", k.Base)
	case strings.HasPrefix(e.Step, "RUN pip install"):
		try = "--requirements FILE says what else pip shall install, --build-arg PIP_INDEX_URL=URL where from, --network host over which network."
	}
	return strings.Join(append(e.Lines, try), "\n")
}

// bar draws how much is done, in tenths.
func bar(tenths int64) string {
	return strings.Repeat("█", int(tenths)) + strings.Repeat("░", 10-int(tenths))
}
