// SPDX-License-Identifier: Apache-2.0

// Package crash kills the selector and Redis under load, and compares what was acknowledged with what is
// counted in the end.
package crash

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/layer"
	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Experiment is the experiment.
var Experiment = experiment.Experiment{
	Name:    "crash",
	Summary: "kill -9 of the selector and of Redis under load: is acknowledged feedback counted exactly once?",
	Run:     layer.Run(run),
}

const (
	app = "crash"
	// longest is the most that passes, after feedback is acknowledged again, before the next kill.
	longest = 500 * time.Millisecond
	// between is the feedback that is acknowledged between two kills at least.
	between = 500
	// settle is how long the counts may take to become what they should be: what is buffered has to be handed
	// over.
	settle = 20 * time.Second
	// patience bounds the wait for feedback to be acknowledged again.
	patience = 30 * time.Second
)

// victims of a kill.
const (
	theSelector = "selector"
	theRedis    = "Redis"
)

// side is one installation and what is killed of it, in turn.
type side struct {
	name    string
	fsync   string // of Redis; empty for the embedded store
	buffer  bool
	victims []string
	kills   int
	// exact says that nothing may be lost.
	exact bool
}

var sides = []side{
	{name: "Redis, appendfsync always", fsync: "always", victims: []string{theSelector, theRedis}, kills: 50, exact: true},
	{name: "the same, with a feedback buffer", fsync: "always", buffer: true, victims: []string{theSelector, theRedis}, kills: 20, exact: true},
	{name: "embedded store", victims: []string{theSelector}, kills: 20, exact: true},
	{name: "Redis, appendfsync everysec", fsync: "everysec", victims: []string{theRedis}, kills: 10},
}

func run(ctx context.Context, b system.Binaries, log io.Writer) (*experiment.Result, error) {
	r := &experiment.Result{
		Load: fmt.Sprintf("three processes; %d callers who ask %d queries at a time and give feedback for each, repeating what is not acknowledged with the same feedback_id until it is; SIGKILL to one of the victims, in turn, at a random moment of the %v after at least %d acknowledgements, and a start at once; `at stake` is what was acknowledged in the second before a kill of Redis, which with everysec may not be on the disk when the machine dies, on average. The paper has no such experiment",
			callers, items, longest, between),
		Columns: []string{"store", "kills", "acknowledged", "counted", "lost", "twice", "repeated", "duplicates", "buffered", "at stake"},
	}
	for _, s := range sides {
		c, err := s.run(ctx, b, log)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		lost, twice := max(c.acknowledged-c.counted, 0), max(c.counted-c.acknowledged, 0)
		r.Rows = append(r.Rows, []any{s.name, s.kills, c.acknowledged, c.counted, lost, twice, c.repeated, c.duplicates, c.buffered, c.atStake})
		r.Bars = append(r.Bars, experiment.AtMost(s.name+": counted twice", float64(twice), "", 0))
		if s.exact {
			r.Bars = append(r.Bars,
				experiment.AtMost(s.name+": lost", float64(lost), "", 0),
				experiment.AtMost(s.name+": error of the summed losses", c.lossError, "", 0),
				experiment.AtLeast(s.name+": kills that met feedback under way", float64(c.hit), "", float64(s.kills)/2))
		}
		if s.buffer {
			r.Bars = append(r.Bars, experiment.AtLeast(s.name+": buffered while Redis was away", float64(c.buffered), "", 1))
		}
	}
	return r, nil
}

// counts is what a side came to.
type counts struct {
	acknowledged, counted          int64
	repeated, duplicates, buffered int64
	hit                            int     // kills after which feedback had to be repeated or was buffered
	lossError, atStake             float64 // atStake is the mean over the kills of Redis
}

func (s *side) run(ctx context.Context, b system.Binaries, log io.Writer) (*counts, error) {
	var flags []string
	var redis *system.Redis
	var err error
	if s.fsync != "" {
		if redis, err = system.StartRedis(s.fsync); err != nil {
			return nil, err
		}
		defer redis.Stop()
		flags = append(flags, redis.Store())
	}
	if s.buffer {
		folder, err := os.MkdirTemp("", "clipper-bench-buffer-")
		if err != nil {
			return nil, err
		}
		defer func() { _ = os.RemoveAll(folder) }()
		flags = append(flags, "--selector-feedback-buffer="+folder)
	}
	c, err := system.StartClipper(b, true, flags...)
	if err != nil {
		return nil, err
	}
	defer c.Stop()
	err = c.Serve(ctx, app, &clipperv1.ModelVersion{
		Container: &clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: []string{b.Noop}}}},
	}, &clipperv1.Application{
		Inputs:           []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{1}}},
		Output:           &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_LABEL, DataType: clipperv1.DataType_DATA_TYPE_INT64},
		DefaultOutput:    structpb.NewNumberValue(-1),
		LatencyObjective: durationpb.New(time.Second),
	})
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(c.QueryGRPC, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: time.Second}, MinConnectTimeout: time.Second}))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()

	t := startTraffic(ctx, conn)
	defer t.end()
	result := &counts{}
	stakes, redisKills := 0.0, 0
	for i := range s.kills {
		victim := s.victims[i%len(s.victims)]
		if err := t.await(ctx, between); err != nil {
			return nil, fmt.Errorf("before kill %d: %w", i+1, err)
		}
		if err := pause(ctx, rand.N(longest)); err != nil {
			return nil, err
		}
		if t.underWay.Load() > 0 {
			result.hit++
		}
		if victim == theRedis {
			stakes += t.lastSecond()
			redisKills++
			redis.Kill()
			err = redis.Restart()
		} else {
			c.Processes[1].Kill()
			err = c.Restart(1)
		}
		if err != nil {
			return nil, fmt.Errorf("start %s again: %w", victim, err)
		}
		if err := t.await(ctx, between); err != nil {
			return nil, fmt.Errorf("after kill %d, of %s: %w", i+1, victim, err)
		}
		_, _ = fmt.Fprintf(log, "%s: kill %d of %d, of %s: %d acknowledged\n", s.name, i+1, s.kills, victim, t.acknowledged.Load())
	}
	t.end()
	if t.failure != nil {
		return nil, t.failure
	}
	result.acknowledged, result.repeated = t.acknowledged.Load(), t.repeated.Load()
	result.duplicates, result.buffered = t.duplicates.Load(), t.buffered.Load()
	if redisKills > 0 {
		result.atStake = stakes / float64(redisKills)
	}
	return result, s.compare(ctx, c, t, result)
}

// compare reads what is counted, when it has become what was acknowledged or no longer changes.
func (s *side) compare(ctx context.Context, c *system.Clipper, t *traffic, result *counts) error {
	begin := time.Now()
	for end := begin.Add(settle); ; {
		state, err := c.State(ctx, app)
		if err != nil {
			return err
		}
		same := int64(state.Observations) == result.acknowledged
		result.counted = int64(state.Observations)
		result.lossError = max(state.Models[0].Statistics["loss"]-float64(t.wrong.Load()), float64(t.wrong.Load())-state.Models[0].Statistics["loss"])
		if same && time.Now().After(begin.Add(time.Second)) || time.Now().After(end) {
			return nil // One that is the same stays so for a second: nothing comes late.
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
