// SPDX-License-Identifier: Apache-2.0

// Package adopt kills the service that has started replicas, and measures how soon its successor has taken them
// over.
package adopt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/layer"
	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Experiment is the experiment.
var Experiment = experiment.Experiment{
	Name:    "adopt",
	Summary: "kill -9 of abstraction: how soon its successor serves with the replicas that run, and whether it starts any anew",
	Run:     layer.Run(run),
}

const (
	app      = "adopt"
	replicas = 3
	kills    = 10
	// limit is the most that may pass from the start of the successor until a prediction.
	limit = 2 * time.Second
	// patience bounds the wait for that.
	patience = time.Minute
	// installation keeps the containers apart from others'.
	installation = "clipper-bench-adopt"
)

func run(ctx context.Context, b system.Binaries, log io.Writer) (*experiment.Result, error) {
	r := &experiment.Result{
		Load:    fmt.Sprintf("three processes; one model with %d replicas; %d times SIGKILL to abstraction, which is started again at once, and queries one after the other until one has a prediction", replicas, kills),
		Columns: []string{"launcher", "kills", "started anew", "first prediction after ms: median", "longest"},
	}
	command := []string{b.Synthetic, "--fixed", "1ms"}
	process := &clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: command}}}
	if err := measure(ctx, b, log, r, "process", process, func(c *system.Clipper) ([]string, error) { return c.ReplicaProcesses() }); err != nil {
		return nil, err
	}
	engine, err := layer.FindEngine(ctx)
	if err != nil {
		_, _ = fmt.Fprintf(log, "docker is left out: %v\n", err)
		return r, nil
	}
	defer engine.Stop()
	image, err := engine.Image(ctx, command)
	if err != nil {
		return nil, err
	}
	docker := &clipperv1.Container{Source: &clipperv1.Container_Image{Image: &clipperv1.Image{Reference: image}}}
	return r, measure(ctx, b, log, r, "docker", docker, func(*system.Clipper) ([]string, error) {
		out, err := exec.CommandContext(ctx, "docker", "ps", "--quiet", "--no-trunc", "--filter", "label=clipper.installation="+installation).Output() //nolint:gosec // The name is ours.
		return strings.Fields(string(out)), err
	}, "--abstraction-docker-installation="+installation)
}

// measure adds what one launcher does. running returns what identifies the replicas that run.
func measure(ctx context.Context, b system.Binaries, log io.Writer, r *experiment.Result, launcher string, container *clipperv1.Container, running func(*system.Clipper) ([]string, error), flags ...string) error {
	c, err := system.StartClipper(b, true, flags...)
	if err != nil {
		return err
	}
	defer c.Stop()
	if err := c.Serve(ctx, app, &clipperv1.ModelVersion{Container: container, Replicas: proto.Uint32(replicas), Cache: &clipperv1.Cache{Disabled: true}}, &clipperv1.Application{
		Inputs:           []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{1}}},
		Output:           &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_LABEL, DataType: clipperv1.DataType_DATA_TYPE_INT64},
		DefaultOutput:    structpb.NewNumberValue(-1),
		LatencyObjective: durationpb.New(time.Second),
	}); err != nil {
		return err
	}
	conn, err := grpc.NewClient(c.QueryGRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	queries := clipperv1.NewQueryServiceClient(conn)
	if _, err := firstPrediction(ctx, queries); err != nil {
		return err
	}
	before, err := running(c)
	if err != nil {
		return err
	}
	if len(before) != replicas {
		return fmt.Errorf("%s: %d replicas run, not %d", launcher, len(before), replicas)
	}
	var took []time.Duration
	anew := 0
	for i := range kills {
		c.Processes[0].Kill()
		if err := c.Restart(0); err != nil {
			return err
		}
		d, err := firstPrediction(ctx, queries)
		if err != nil {
			return err
		}
		took = append(took, d)
		after, err := running(c)
		if err != nil {
			return err
		}
		for _, id := range after {
			if !slices.Contains(before, id) {
				anew++
			}
		}
		before = after
		_, _ = fmt.Fprintf(log, "%s: kill %d of %d: %v\n", launcher, i+1, kills, d.Round(time.Millisecond))
	}
	slices.Sort(took)
	longest := took[len(took)-1]
	r.Rows = append(r.Rows, []any{launcher, kills, anew, took[len(took)/2].Seconds() * 1e3, longest.Seconds() * 1e3})
	r.Bars = append(r.Bars,
		experiment.AtMost(launcher+": replicas started anew", float64(anew), "", 0),
		experiment.AtMost(launcher+": longest time from the start of the successor to a prediction", longest.Seconds(), "s", limit.Seconds()))
	return nil
}

// firstPrediction asks until the answer is a prediction, and says how long that took.
func firstPrediction(ctx context.Context, queries clipperv1.QueryServiceClient) (time.Duration, error) {
	begin := time.Now()
	for time.Since(begin) < patience {
		answer, err := queries.Query(ctx, &clipperv1.QueryRequest{Application: app, InputJson: []byte("[1]")}, grpc.WaitForReady(true))
		if err != nil {
			return 0, err
		}
		if !answer.IsDefault {
			return time.Since(begin), nil
		}
	}
	return 0, errors.New("no prediction came")
}
