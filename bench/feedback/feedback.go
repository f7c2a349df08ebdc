// SPDX-License-Identifier: Apache-2.0

// Package feedback measures how much feedback Clipper learns from in a second, through the public API and
// durable when it is acknowledged.
package feedback

import (
	"context"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
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
	Name:    "feedback",
	Summary: "feedback per second through the public API, durable in Redis and in the embedded store",
	Run:     layer.Run(run),
}

const (
	app    = "ensemble"
	models = 5
	// rounds are how often each side is measured, in turn.
	rounds = 3
	// perRound is the feedback of one measurement.
	perRound = 60_000
	// users is the number of contexts of the sides that have some.
	users = 10_000

	redisBar    = 20_000
	embeddedBar = 10_000
)

// side is one way of sending feedback to one store.
type side struct {
	store, call string
	contexts    bool
	bar         float64
	send        func(context.Context, grpc.ClientConnInterface, []*clipperv1.FeedbackRequest) error

	rates              []float64
	clipper, redis, us []float64 // µs of processor time of a feedback
}

func run(ctx context.Context, binaries system.Binaries, log io.Writer) (*experiment.Result, error) {
	var sides []*side
	for _, store := range []string{"redis always", "redis everysec", "embedded"} {
		bar := float64(redisBar)
		if store == "embedded" {
			bar = embeddedBar
		}
		group := []*side{
			{store: store, call: "FeedbackStream", send: stream, bar: bar},
			{store: store, call: "FeedbackBatch", send: batches, bar: bar},
			{store: store, call: "FeedbackBatch", send: batches, contexts: true, bar: bar},
		}
		if err := measureStore(ctx, binaries, store, group, log); err != nil {
			return nil, fmt.Errorf("%s: %w", store, err)
		}
		sides = append(sides, group...)
	}
	r := &experiment.Result{
		Load: fmt.Sprintf("one process, exp4 over %d models that answer 0, every feedback with a feedback_id of its own and the truth; FeedbackStream: %d streams with %d in flight each; FeedbackBatch: %d calls of %d items under way; with contexts: %d users, two sums to add to instead of one; %d rounds of %d in turn, medians; load generator, Clipper, containers and redis-server (append-only file) share the machine. The paper has no such experiment",
			models, streams, inFlight, callers, batchItems, users, rounds, perRound),
		Columns: []string{"store", "call", "contexts", "feedback/s", "us of CPU: Clipper", "Redis", "load generator"},
		Plot:    &experiment.Plot{Title: "Feedback per second, acknowledged", Y: "feedback/s"},
	}
	for _, s := range sides {
		rate := experiment.Median(s.rates)
		contexts, name := "shared state only", s.store+", "+s.call
		if s.contexts {
			contexts, name = fmt.Sprint(users), name+", contexts"
		}
		r.Rows = append(r.Rows, []any{s.store, s.call, contexts, rate, experiment.Median(s.clipper), experiment.Median(s.redis), experiment.Median(s.us)})
		r.Plot.Names, r.Plot.Values = append(r.Plot.Names, name), append(r.Plot.Values, rate)
		if s.bar > 0 {
			r.Bars = append(r.Bars, experiment.AtLeast(name, rate, "/s", s.bar))
		}
	}
	return r, nil
}

// measureStore measures the sides of one store in turn.
func measureStore(ctx context.Context, b system.Binaries, store string, sides []*side, log io.Writer) error {
	var flags []string
	redisCPU := func() (time.Duration, error) { return 0, nil }
	if fsync, ok := fsyncs[store]; ok {
		redis, err := system.StartRedis(fsync)
		if err != nil {
			return err
		}
		defer redis.Stop()
		flags, redisCPU = append(flags, redis.Store()), redis.CPU
	}
	c, err := system.StartClipper(b, false, flags...)
	if err != nil {
		return err
	}
	defer c.Stop()
	if err := serve(ctx, c, b); err != nil {
		return err
	}
	conn, err := grpc.NewClient(c.QueryGRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	sent := 0.0
	for round := range rounds {
		for _, s := range sides {
			n := 1
			if s.contexts {
				n = users
			}
			feedback, err := ask(ctx, conn, n)
			if err != nil {
				return fmt.Errorf("ask: %w", err)
			}
			var before, after [3]time.Duration
			if before, err = processorTimes(c, redisCPU); err != nil {
				return err
			}
			begin := time.Now()
			if err := s.send(ctx, conn, feedback); err != nil {
				return fmt.Errorf("%s: %w", s.call, err)
			}
			rate := perRound / time.Since(begin).Seconds()
			if after, err = processorTimes(c, redisCPU); err != nil {
				return err
			}
			_, _ = fmt.Fprintf(log, "%s, round %d of %d: %s, contexts %t: %.0f/s\n", store, round+1, rounds, s.call, s.contexts, rate)
			s.rates = append(s.rates, rate)
			for i, figures := range []*[]float64{&s.clipper, &s.redis, &s.us} {
				*figures = append(*figures, (after[i]-before[i]).Seconds()*1e6/perRound)
			}
			// What was acknowledged is counted.
			sent += perRound
			state, err := c.State(ctx, app)
			if err != nil {
				return err
			}
			if state.Observations != sent {
				return fmt.Errorf("%.0f feedbacks were acknowledged and %.0f are counted", sent, state.Observations)
			}
		}
	}
	return nil
}

var fsyncs = map[string]string{"redis always": "always", "redis everysec": "everysec"}

// processorTimes are those of Clipper, of Redis and of the load generator.
func processorTimes(c *system.Clipper, redis func() (time.Duration, error)) (times [3]time.Duration, err error) {
	if times[0], err = c.Processes[0].CPU(); err != nil {
		return times, err
	}
	times[1], err = redis()
	times[2] = system.OwnCPU()
	return times, err
}

// serve deploys the models and creates the application.
func serve(ctx context.Context, c *system.Clipper, b system.Binaries) error {
	a := &clipperv1.Application{
		Name:             app,
		Inputs:           []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{1}}},
		Output:           &clipperv1.OutputSpec{Kind: clipperv1.OutputKind_OUTPUT_KIND_LABEL, DataType: clipperv1.DataType_DATA_TYPE_INT64},
		DefaultOutput:    structpb.NewNumberValue(-1),
		LatencyObjective: durationpb.New(5 * time.Second),
		Policy:           &clipperv1.Policy{Name: "exp4"},
	}
	for i := range models {
		name := fmt.Sprintf("model%d", i)
		a.Models = append(a.Models, &clipperv1.ApplicationModel{Model: name})
		err := c.Deploy(ctx, name, &clipperv1.ModelVersion{
			Container: &clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: []string{b.Noop}}}},
		})
		if err != nil {
			return err
		}
	}
	return c.CreateApplication(ctx, a)
}
