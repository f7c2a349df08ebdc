// SPDX-License-Identifier: Apache-2.0

// Package build has a Docker Engine build images, by the builder that every engine has.
package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"
)

// keptLines is how many of the last lines of a step are told when it fails.
const keptLines = 20

// Options are how an image is built.
type Options struct {
	// Tag is the image's name, as Name returns it.
	Tag string
	// Arguments are values of the Dockerfile's ARG lines, and proxies.
	Arguments map[string]string
	// Network is the network of RUN steps; "": the engine's default.
	Network string
}

// Image is what was built.
type Image struct {
	ID    string `json:"id"`
	Bytes int64  `json:"size_bytes"` // all layers, those of the base too
}

// Progress is how far a build is. First the context is sent, then the steps are taken.
type Progress struct {
	Sent        int64 // bytes of the context
	Step, Steps int   // 0 before the first
	Text        string
}

// Error is a build that failed in a step.
type Error struct {
	Step  string   // as in the Dockerfile; "" before the first
	Lines []string // the last lines that the step wrote
	Cause string   // what the engine says
}

func (e *Error) Error() string {
	if e.Step == "" {
		return "the engine cannot build the image: " + e.Cause
	}
	return fmt.Sprintf("the step %q failed: %s", e.Step, e.Cause)
}

// Name returns the name of an image in its short form with a tag, or an error that says what was expected.
func Name(text string) (string, error) {
	parsed, err := reference.ParseNormalizedNamed(text)
	if err != nil {
		return "", fmt.Errorf("%q is no name of an image: want [REGISTRY/]NAME[:TAG], in lower case", text)
	}
	if _, digested := parsed.(reference.Digested); digested {
		return "", fmt.Errorf("%q is the name of an image that there is already: want [REGISTRY/]NAME[:TAG]", text)
	}
	return reference.FamiliarString(reference.TagNameOnly(parsed)), nil
}

// Build builds an image. The archive writes the context to the engine, as a tar archive; it is called once.
// Progress is called from one goroutine at a time, often, and not after Build has returned. A step that fails is
// an *Error.
func Build(ctx context.Context, archive func(io.Writer) error, o Options, progress func(Progress)) (Image, error) {
	engine, err := client.New(client.FromEnv, client.WithUserAgent("clipper"))
	if err != nil {
		return Image{}, fmt.Errorf("find the Docker Engine: %w", err)
	}
	defer func() { _ = engine.Close() }()
	// Before anything is sent, so that this is the error when there is no engine.
	if _, err := engine.Ping(ctx, client.PingOptions{}); err != nil {
		return Image{}, explain(engine, "ask the engine", err)
	}

	r, w := io.Pipe()
	writing := make(chan error, 1)
	go func() {
		err := archive(&counter{to: w, count: func(sent int64) { progress(Progress{Sent: sent}) }})
		writing <- err
		_ = w.CloseWithError(err) // nil is the end
	}()
	result, err := engine.ImageBuild(ctx, r, options(o))
	_ = r.Close() // An engine that refuses has not read it all.
	if wrote := <-writing; wrote != nil && !errors.Is(wrote, io.ErrClosedPipe) {
		err = wrote // It is the cause of what the engine says.
	}
	if err != nil {
		return Image{}, explain(engine, "build the image", err)
	}
	defer func() { _ = result.Body.Close() }()
	if err := follow(result.Body, progress); err != nil {
		return Image{}, explain(engine, "build the image", err)
	}
	found, err := engine.ImageInspect(ctx, o.Tag)
	if err != nil {
		return Image{}, explain(engine, "look for the image that was built", err)
	}
	return Image{ID: found.ID, Bytes: found.Size}, nil
}

func options(o Options) client.ImageBuildOptions {
	arguments := map[string]*string{}
	for name, value := range o.Arguments {
		arguments[name] = &value
	}
	return client.ImageBuildOptions{
		Tags: []string{o.Tag}, BuildArgs: arguments, NetworkMode: o.Network,
		// Nothing is left of a build that failed.
		Remove: true, ForceRemove: true,
		Version: build.BuilderV1,
	}
}

func explain(engine *client.Client, what string, err error) error {
	var failed *Error
	switch {
	case errors.As(err, &failed):
		return failed
	case client.IsErrConnectionFailed(err):
		return fmt.Errorf("the Docker Engine does not answer at %s: start it, or say with DOCKER_HOST where it is", engine.DaemonHost())
	}
	return fmt.Errorf("%s: %w", what, err)
}

// counter counts what is written.
type counter struct {
	to    io.Writer
	sent  int64
	count func(int64)
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.sent += int64(n)
	c.count(c.sent)
	return n, err
}

// stepLine is how the engine announces a step.
var stepLine = regexp.MustCompile(`^Step (\d+)/(\d+) : (.*)`)

// colors are in what the engine passes on from standard error.
var colors = regexp.MustCompile("\x1b\\[[0-9;]*m")

// follow reads what the engine says, until the image is built or is not.
func follow(body io.Reader, progress func(Progress)) error {
	var now Progress
	var lines []string
	messages := json.NewDecoder(body)
	for {
		var m jsonstream.Message
		if err := messages.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if m.Error != nil {
			failed := &Error{Lines: lines, Cause: m.Error.Message}
			if now.Step > 0 {
				failed.Step = now.Text
			}
			return failed
		}
		for line := range strings.Lines(m.Stream) {
			line = strings.TrimSpace(colors.ReplaceAllString(line, ""))
			if step := stepLine.FindStringSubmatch(line); step != nil {
				now.Step, _ = strconv.Atoi(step[1])
				now.Steps, _ = strconv.Atoi(step[2])
				now.Text, lines = step[3], nil
			} else if line != "" && !strings.HasPrefix(line, "---> ") && !strings.HasPrefix(line, "Removing intermediate container ") {
				lines = append(lines, line)
				lines = lines[max(0, len(lines)-keptLines):]
			}
			progress(now) // also while a long step goes on
		}
		if m.Status != "" {
			// The base is pulled, layer by layer.
			progress(Progress{Step: now.Step, Steps: now.Steps, Text: strings.TrimSpace(now.Text + ": " + strings.ToLower(m.Status))})
		}
	}
}
