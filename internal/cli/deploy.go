// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/config"
)

type modelDeploy struct {
	Name       string `arg:"" help:"The model."`
	NewVersion string `name:"version" required:"" placeholder:"V" help:"The version, which must be new."`

	Framework  string   `placeholder:"NAME" help:"An installed adapter: of a saved model's framework (--path) such as sklearn, or of a server (--env)."`
	Path       string   `placeholder:"FILE" help:"The saved model, on the machine that runs it."`
	Container  string   `name:"address" placeholder:"HOST:PORT" help:"A container that runs already; also unix:/PATH."`
	Image      string   `placeholder:"REF" help:"A container image."`
	Registered bool     `help:"Containers that are started elsewhere and register themselves."`
	Command    []string `arg:"" optional:"" help:"After --: a program that serves the container RPC, and its arguments."`
	Directory  string   `placeholder:"DIR" help:"Working directory of COMMAND. Default: this one."`

	Replicas     *uint32           `placeholder:"N" help:"Number of replicas. Default: 1."`
	Homes        uint32            `placeholder:"N" help:"Number of abstraction instances that serve it. Default: 1."`
	Cache        bool              `default:"true" negatable:"" help:"Remember predictions."`
	WarmUp       bool              `default:"true" negatable:"" help:"Warm replicas up before they take queries."`
	KeepCurrent  bool              `help:"Leave the current version as it is."`
	KeepVersions *uint32           `placeholder:"N" help:"From now on, keep N versions that are older than the current one and delete the others. Default: keep all."`
	Env          map[string]string `mapsep:"none" placeholder:"KEY=VALUE" help:"Environment variable of the replicas; may be repeated."`
	StartTimeout time.Duration     `placeholder:"DURATION" help:"Time that a replica has to become ready. Default: 2m."`
	CPUs         float64           `name:"cpus" placeholder:"N" help:"Processors whose time a replica may use; 0.5 is half of one. Default: no limit."`
	Memory       config.Bytes      `placeholder:"SIZE" help:"Memory that a replica may use (B, KiB, MiB, GiB). Default: no limit."`
	GPUs         uint32            `name:"gpus" placeholder:"N" help:"GPUs that a replica gets, in Docker. Default: none."`
	batchingFlags
	Scaling scalingFlags `embed:""`
	waiting
}

func (modelDeploy) Help() string {
	return `A model comes from one of five places: an adapter, a command, an address, an image, or containers that register
themselves.

Examples:

    clipper model deploy digits --version 1 --framework sklearn --path model.joblib
    clipper model deploy digits --version 2 --replicas 2 -- python3 serve.py --depth 4
    clipper model deploy digits --version 3 --address 10.0.0.7:9000 --no-wait
    clipper model deploy digits --version 4 --image registry.example.com/digits:4
    clipper model deploy digits --version 5 --registered --replicas 2 --no-wait
    clipper model deploy digits --version 6 --keep-versions 1 --framework http --env HTTP_URL=http://10.0.0.8:8000/predict
    clipper model deploy digits --version 7 --framework sklearn --path model.joblib --min-replicas 1 --max-replicas 8`
}

// waiting is the flag of commands after which replicas start.
type waiting struct {
	Wait bool `default:"true" negatable:"" help:"Wait until the replicas are ready, at most --timeout."`
}

func (m *modelDeploy) Run(c *client) error {
	container, err := m.container()
	if err != nil {
		return err
	}
	service, err := c.models()
	if err != nil {
		return err
	}
	version := &clipperv1.ModelVersion{
		Model: m.Name, Version: m.NewVersion, Container: container, Replicas: m.Replicas, Homes: m.Homes,
		Cache: &clipperv1.Cache{Disabled: !m.Cache},
	}
	if !m.WarmUp {
		version.WarmUp = &clipperv1.WarmUp{Disabled: true}
	}
	if b := (&clipperv1.Batching{}); m.apply(b) {
		version.Batching = b
	}
	if a := (&clipperv1.Autoscaling{}); m.Scaling.apply(a) {
		version.Autoscaling = a
	}
	response, err := service.DeployModel(c.ctx, &clipperv1.DeployModelRequest{Version: version, KeepCurrent: m.KeepCurrent, KeepVersions: m.KeepVersions})
	if err != nil {
		return err
	}
	return m.finish(c, service, response.GetVersion(), "deployed")
}

func (m *modelDeploy) container() (*clipperv1.Container, error) {
	container := &clipperv1.Container{Environment: m.Env}
	if m.StartTimeout != 0 {
		container.StartTimeout = durationpb.New(m.StartTimeout)
	}
	if m.CPUs != 0 || m.Memory != 0 || m.GPUs != 0 {
		container.Resources = &clipperv1.Resources{Cpus: m.CPUs, MemoryBytes: uint64(m.Memory), Gpus: m.GPUs} //nolint:gosec // Sizes are not negative.
	}
	var given []string
	if m.Framework != "" || m.Path != "" {
		given = append(given, "--framework")
		if m.Framework == "" {
			return nil, usagef("--path goes with --framework: --framework sklearn --path model.joblib")
		}
		adapter := &clipperv1.Adapter{Framework: m.Framework}
		if m.Path != "" {
			path, err := absolute(m.Path)
			if err != nil {
				return nil, err
			}
			adapter.ModelPath = path
		}
		container.Source = &clipperv1.Container_Adapter{Adapter: adapter}
	}
	if m.Container != "" {
		given = append(given, "--address")
		container.Source = &clipperv1.Container_Address{Address: &clipperv1.Address{Address: m.Container}}
	}
	if m.Image != "" {
		given = append(given, "--image")
		container.Source = &clipperv1.Container_Image{Image: &clipperv1.Image{Reference: m.Image}}
	}
	if m.Registered {
		given = append(given, "--registered")
		container.Source = &clipperv1.Container_Registered{Registered: &clipperv1.Registered{}}
	}
	if len(m.Command) > 0 {
		given = append(given, "-- COMMAND")
		command, err := m.command()
		if err != nil {
			return nil, err
		}
		container.Source = &clipperv1.Container_Command{Command: command}
	} else if m.Directory != "" {
		return nil, usagef("--directory is for -- COMMAND")
	}
	switch len(given) {
	case 1:
		return container, nil
	case 0:
		return nil, &failure{code: ExitUsage, message: "where does the model come from? One of: --framework, --address, --image, --registered, or -- COMMAND", details: m.Help()}
	}
	return nil, usagef("%s exclude each other: a model comes from one place", strings.Join(given, ", "))
}

// command returns the command with what is relative to this directory made absolute.
func (m *modelDeploy) command() (*clipperv1.Command, error) {
	directory, err := absolute(m.Directory)
	if err != nil {
		return nil, err
	}
	arguments := append([]string(nil), m.Command...)
	if strings.ContainsRune(arguments[0], os.PathSeparator) && !filepath.IsAbs(arguments[0]) {
		arguments[0] = filepath.Join(directory, arguments[0])
	}
	return &clipperv1.Command{Arguments: arguments, Directory: directory}, nil
}

type modelScale struct {
	Name       string  `arg:"" complete:"model" help:"The model."`
	Replicas   *uint32 `arg:"" optional:"" help:"The number of replicas; 0 stops the version."`
	OldVersion string  `name:"version" placeholder:"V" help:"The version. Default: the current one."`
	Homes      *uint32 `placeholder:"N" help:"Number of abstraction instances that serve it."`

	Scaling scalingFlags `embed:""`
	waiting
}

func (modelScale) Help() string {
	return "Examples:\n\n    clipper model scale digits 3\n    clipper model scale digits 8 --homes 2\n    clipper model scale digits --min-replicas 1 --max-replicas 8\n    clipper model scale digits 2 --max-replicas 0"
}

func (m modelScale) Run(c *client) error {
	service, err := c.models()
	if err != nil {
		return err
	}
	version, err := c.version(service, m.Name, m.OldVersion)
	if err != nil {
		return err
	}
	request := &clipperv1.UpdateModelVersionRequest{Model: m.Name, Version: version, Replicas: m.Replicas, Homes: m.Homes}
	if m.Scaling != (scalingFlags{}) {
		now, err := service.GetModelVersion(c.ctx, &clipperv1.GetModelVersionRequest{Model: m.Name, Version: version})
		if err != nil {
			return err
		}
		request.Autoscaling = &clipperv1.Autoscaling{}
		if a := now.GetVersion().GetAutoscaling(); a != nil {
			request.Autoscaling = proto.CloneOf(a)
		}
		m.Scaling.apply(request.Autoscaling)
	} else if m.Replicas == nil && m.Homes == nil {
		return usagef("how many replicas? Give a number, or --max-replicas to let it follow the load")
	}
	response, err := service.UpdateModelVersion(c.ctx, request)
	if err != nil {
		return err
	}
	return m.finish(c, service, response.GetVersion(), "scaled")
}

const (
	// waitTimeout is how long replicas may take to become ready when nothing else is said.
	waitTimeout = 5 * time.Minute
	// pollInterval is the time between two looks at a version.
	pollInterval = 100 * time.Millisecond
)

// finish waits for a version, unless that is not wanted, and writes what has become of it.
func (w waiting) finish(c *client, service clipperv1.ModelServiceClient, v *clipperv1.ModelVersion, done string) error {
	var failed error
	if w.Wait {
		last, err := c.await(service, v)
		if last == nil {
			return err
		}
		v, failed = last, err
	}
	if c.JSON {
		return errors.Join(failed, c.writeJSON(v))
	}
	if failed != nil {
		return failed
	}
	current := "the current version"
	if !v.GetCurrent() {
		current = "not the current version"
	}
	_, err := fmt.Fprintf(c.Stdout, "%s:%s is %s: %s, %s replicas ready, %s.\n", v.GetModel(), v.GetVersion(), done, stateOf(v), replicas(v), current)
	return err
}

// await looks at a version until it is as wanted, cannot become so, or time is up. It returns the
// version as last seen; it is nil when that is not known.
func (c *client) await(service clipperv1.ModelServiceClient, v *clipperv1.ModelVersion) (*clipperv1.ModelVersion, error) {
	timeout := c.Timeout
	if timeout == 0 {
		timeout = waitTimeout
	}
	ctx, cancel := context.WithTimeout(c.ctx, timeout)
	defer cancel()
	progress := c.progress()
	defer progress.end()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		progress.show(fmt.Sprintf("%s:%s %s, %s replicas ready%s", v.GetModel(), v.GetVersion(), stateOf(v), replicas(v), doing(v)))
		switch v.GetState() {
		case clipperv1.ModelState_MODEL_STATE_READY:
			if ready(v) >= v.GetReplicas() && v.GetReplicas() > 0 {
				return v, nil
			}
		case clipperv1.ModelState_MODEL_STATE_STOPPED:
			if v.GetReplicas() == 0 {
				return v, nil
			}
		case clipperv1.ModelState_MODEL_STATE_FAILED:
			return v, notReady(v, "no replica can serve")
		case clipperv1.ModelState_MODEL_STATE_DELETING:
			return v, notReady(v, "it is being deleted")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if c.ctx.Err() != nil {
				return nil, interrupted
			}
			return v, notReady(v, fmt.Sprintf("still %s after %s, with %s replicas ready", stateOf(v), duration(timeout), replicas(v)))
		}
		call, cancel := context.WithTimeout(c.ctx, callTimeout) // The last look may end after the time is up.
		response, err := service.GetModelVersion(call, &clipperv1.GetModelVersionRequest{Model: v.GetModel(), Version: v.GetVersion()})
		cancel()
		if err != nil {
			return nil, err
		}
		v = response.GetVersion()
	}
}

// doing returns what a replica that starts is doing, if it says so: that it warms up, or why it had to be
// started again.
func doing(v *clipperv1.ModelVersion) string {
	for _, r := range v.GetReplicaStatus() {
		what, _, _ := strings.Cut(r.GetMessage(), "\n")
		if what != "" && r.GetState() == clipperv1.ReplicaState_REPLICA_STATE_STARTING {
			what, _, _ = strings.Cut(what, ". ")
			return ": " + strings.TrimSuffix(what, ".")
		}
	}
	return ""
}

// notReady returns why a version is not ready, what its replicas say, and what to try.
func notReady(v *clipperv1.ModelVersion, why string) error {
	message := fmt.Sprintf("%s:%s is not ready: %s", v.GetModel(), v.GetVersion(), why)
	if v.GetStateMessage() != "" {
		message += ": " + v.GetStateMessage()
	}
	details := messages(v) + fmt.Sprintf(`
Clipper keeps trying. To look again: clipper model show %[1]s
To give up: clipper model delete %[1]s --version %[2]s (without --version when it is the only one)`, v.GetModel(), v.GetVersion())
	return &failure{code: ExitDeploy, message: message, details: strings.TrimLeft(details, "\n")}
}
