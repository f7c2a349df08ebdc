// SPDX-License-Identifier: Apache-2.0

package exp

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/clipper-serving/clipper/bench/cifar"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// caller asks one application, one query after the other, and tells it the truth of each before the next.
type caller struct {
	system   *cifar.System
	app      string
	seed     uint64
	networks map[string]int

	asked    atomic.Int64
	answers  curve
	models   []curve // of those that were asked
	defaults int
}

// curve is a cumulative error.
type curve struct {
	sum   float64
	count int
	curve []float64 // after each so many queries
}

// add adds the loss of one query.
func (c *curve) add(loss float64) {
	c.sum += loss
	if c.count++; c.count%every == 0 {
		c.curve = append(c.curve, c.sum/float64(c.count))
	}
}

// at returns the error after so many queries, a multiple of every.
func (c *curve) at(count int) float64 { return c.curve[count/every-1] }

func newCaller(s *cifar.System, app string, models []*clipperv1.ApplicationModel, seed uint64) *caller {
	c := &caller{system: s, app: app, seed: seed, networks: map[string]int{}, models: make([]curve, len(models))}
	for i, m := range models {
		c.networks[m.Model] = i
	}
	return c
}

func (c *caller) run(ctx context.Context) error {
	if err := c.ask(ctx); err != nil {
		return fmt.Errorf("%s: %w", c.app, err)
	}
	return nil
}

func (c *caller) ask(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	asking, err := clipperv1.NewQueryServiceClient(c.system.Conn).QueryStream(ctx)
	if err != nil {
		return err
	}
	telling, err := clipperv1.NewFeedbackServiceClient(c.system.Conn).FeedbackStream(ctx)
	if err != nil {
		return err
	}
	// The same seed is the same order of images for every policy.
	order := rand.New(rand.NewPCG(c.seed, 8)).Perm(len(c.system.Truth)) //nolint:gosec // A simulation.
	for step := range queries {
		image, noise := order[step%len(order)], 0
		if step >= failFrom && step < failTo {
			noise = int(c.seed) + 1
		}
		query := &clipperv1.QueryRequest{Application: c.app, Inputs: cifar.Input(image, noise)}
		if err := asking.Send(&clipperv1.QueryStreamRequest{Sequence: uint64(step), Query: query}); err != nil {
			return err
		}
		answer, err := asking.Recv()
		if err != nil {
			return err
		}
		response := answer.Result.GetResponse()
		if response == nil {
			return fmt.Errorf("query %d: %v", step, answer.Result.GetError())
		}
		truth := c.system.Truth[image]
		c.learn(response, truth)
		c.asked.Add(1)

		feedback := &clipperv1.FeedbackRequest{
			Application: c.app, FeedbackId: response.FeedbackId,
			Observation: &clipperv1.FeedbackRequest_Truth{Truth: structpb.NewNumberValue(float64(truth))},
		}
		if err := telling.Send(&clipperv1.FeedbackStreamRequest{Sequence: uint64(step), Feedback: feedback}); err != nil {
			return err
		}
		acknowledged, err := telling.Recv()
		if err != nil {
			return err
		}
		if e := acknowledged.Result.GetError(); e != nil {
			return fmt.Errorf("feedback %d: %v", step, e)
		}
		for _, l := range acknowledged.Result.GetResponse().Losses {
			c.models[c.networks[l.Model]].add(l.Loss)
		}
	}
	return nil
}

// learn counts whether an answer is right. A default output is wrong.
func (c *caller) learn(r *clipperv1.QueryResponse, truth int64) {
	if r.IsDefault {
		c.defaults++
	}
	if int64(binary.LittleEndian.Uint64(r.Outputs[0].Data)) == truth {
		c.answers.add(0)
	} else {
		c.answers.add(1)
	}
}
