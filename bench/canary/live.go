// SPDX-License-Identifier: Apache-2.0

package canary

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

const (
	callers = 6 // of each kind
	// patience is how long a canary may take.
	patience = 3 * time.Minute
	poll     = 200 * time.Millisecond
)

// life is a canary in the running system.
type life struct {
	kind    kind
	canary  *clipperv1.GetCanaryResponse // as it ended
	asked   atomic.Int64
	decided bool
}

// live lets all kinds in at once, and returns what has become of them.
func live(ctx context.Context, b system.Binaries, log io.Writer) ([]*life, error) {
	c, err := system.StartClipper(b, false)
	if err != nil {
		return nil, err
	}
	defer c.Stop()
	conn, err := grpc.NewClient(c.QueryGRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()

	base := kind{name: "baseline", errors: baselineErrors, time: baselineTime}
	for i, k := range append([]kind{base}, kinds...) {
		if err := c.Deploy(ctx, k.name, container(b, k, i+1)); err != nil {
			return nil, err
		}
	}
	lives := make([]*life, len(kinds))
	for i, k := range kinds {
		lives[i] = &life{kind: k}
		if err := c.CreateApplication(ctx, application(k)); err != nil {
			return nil, err
		}
	}
	group, running := errgroup.WithContext(ctx)
	for _, l := range lives {
		group.Go(func() error { return l.run(running, c, conn, log) })
	}
	return lives, group.Wait()
}

func container(b system.Binaries, k kind, seed int) *clipperv1.ModelVersion {
	return &clipperv1.ModelVersion{
		Container: &clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: []string{
			b.Synthetic, "--fixed", k.time.String(), "--parallel", "8",
			"--errors", fmt.Sprint(k.errors), "--failures", fmt.Sprint(k.failures), "--seed", fmt.Sprint(seed),
		}}}},
		Cache: &clipperv1.Cache{Disabled: true},
	}
}

func application(k kind) *clipperv1.Application {
	return &clipperv1.Application{
		Name: k.name, Models: []*clipperv1.ApplicationModel{{Model: "baseline"}, {Model: k.name}},
		Policy:           &clipperv1.Policy{Name: "static"},
		DefaultOutput:    structpb.NewNumberValue(-1),
		LatencyObjective: durationpb.New(objective),
		Canary: &clipperv1.Canary{
			Model: k.name, InitialShare: initialShare, Step: step, MinFeedbacks: minFeedbacks,
			LossMargin: lossMargin, ErrorMargin: errorMargin, LatencyMargin: latencyMargin, Confidence: confidence,
		},
	}
}

// run asks and tells the truth until the canary is decided, or for as long as it may take.
func (l *life) run(ctx context.Context, c *system.Clipper, conn grpc.ClientConnInterface, log io.Writer) error {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	group, calling := errgroup.WithContext(ctx)
	for range callers {
		group.Go(func() error { return l.call(calling, conn) })
	}
	group.Go(func() error {
		defer stop()
		for {
			canary, err := c.Canary(calling, l.kind.name)
			if calling.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
			l.canary = canary
			if canary.State != clipperv1.CanaryState_CANARY_STATE_RUNNING {
				l.decided = true
				_, _ = fmt.Fprintf(log, "%s: %v after %d queries\n", l.kind.name, canary.State, l.asked.Load())
				return nil
			}
			select {
			case <-time.After(poll):
			case <-calling.Done():
				return nil
			}
		}
	})
	return group.Wait()
}

// call asks one query after the other.
func (l *life) call(ctx context.Context, conn grpc.ClientConnInterface) error {
	queries, feedback := clipperv1.NewQueryServiceClient(conn), clipperv1.NewFeedbackServiceClient(conn)
	for ctx.Err() == nil {
		i := l.asked.Add(1)
		answer, err := queries.Query(ctx, &clipperv1.QueryRequest{Application: l.kind.name, Inputs: row(i)})
		if err == nil {
			_, err = feedback.Feedback(ctx, &clipperv1.FeedbackRequest{
				Application: l.kind.name, FeedbackId: answer.FeedbackId,
				Observation: &clipperv1.FeedbackRequest_Truth{Truth: structpb.NewNumberValue(float64(truth(i)))},
			})
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("%s: %w", l.kind.name, err)
		}
	}
	return nil
}

// truth is the label of query i.
func truth(i int64) int64 { return i * 7 % 10 }

// row is the input of query i: the label, and the query's number in two parts that a float32 holds exactly, so
// that no two are the same.
func row(i int64) []*clipperv1.Tensor {
	var data []byte
	for _, x := range []int64{truth(i), i % 10_000, i / 10_000} {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(x)))
	}
	return []*clipperv1.Tensor{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: []int64{3}, Data: data}}
}

// end is the last step.
func (l *life) end() *clipperv1.CanaryStep { return l.canary.Steps[0] }

// feedbacks is how many of the canary's answers had been told the truth when it was decided.
func (l *life) feedbacks() float64 {
	tests := l.canary.Tests
	if l.decided {
		tests = l.end().Tests
	}
	return tests[0].CanaryCount
}

func (l *life) row() []any {
	count := map[clipperv1.CanaryState]int{l.canary.State: 1}
	reason, _, _ := strings.Cut(l.end().Reason, ",")
	return []any{
		"system", l.kind.name, l.kind.errors, l.kind.failures, l.kind.time.Seconds() * 1e3,
		count[clipperv1.CanaryState_CANARY_STATE_PROMOTED], count[clipperv1.CanaryState_CANARY_STATE_ROLLED_BACK], count[clipperv1.CanaryState_CANARY_STATE_RUNNING],
		l.feedbacks(), "-", "-", reason,
	}
}

// curve is the share over time, with two points for each step.
func (l *life) curve() experiment.Series {
	s := experiment.Series{Name: l.kind.name}
	first := l.canary.Steps[len(l.canary.Steps)-1].Time.AsTime()
	for i := len(l.canary.Steps) - 1; i >= 0; i-- {
		step := l.canary.Steps[i]
		at := step.Time.AsTime().Sub(first).Seconds()
		s.X, s.Y = append(s.X, at, at), append(s.Y, step.From, step.To)
	}
	return s
}

// bar holds what has become of it against what should have.
func (l *life) bar() experiment.Bar {
	right := 0.0
	if l.canary.State == l.kind.want() && strings.Contains(l.end().Reason, l.kind.bad) {
		right = 1
	}
	what := "promoted"
	if l.kind.bad != "" {
		what = "rolled back for " + l.kind.bad
	}
	return experiment.AtLeast(fmt.Sprintf("system: the %s canary is %s", l.kind.name, what), right, "", 1)
}
