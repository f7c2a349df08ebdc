// SPDX-License-Identifier: Apache-2.0

package abstraction

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/clipper-serving/clipper/abstraction/prediction"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/deadline"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
)

// A query that reaches an instance where its model is not at home is passed on to one where it is,
// and from there never again: that one answers, or says that it does not serve the model (any more),
// and the first one looks again. So a query is in no loop, and is not lost while a version moves or
// its home has died: it waits here, until its deadline.

// The wait before looking again doubles from minSeek to maxSeek; a newer table ends it.
const (
	minSeek = 10 * time.Millisecond
	maxSeek = 250 * time.Millisecond
)

// pass asks about the models at the given positions of the call where they are at home, each until it
// is answered or the deadline has come. It does not wait for them. The time is what passes before
// looking again.
func (c *call) pass(positions []int, wait time.Duration) {
	groups := map[*peer][]int{}
	table := c.service.table.Load()
	for _, i := range positions {
		r, err := table.find(c.asked[i].ref)
		if err != nil {
			c.redirect(i, nil)
			c.Receive(i, prediction.Result{Err: err})
			continue
		}
		if !c.redirect(i, r) {
			return // Nobody waits any more.
		}
		switch there, ok := r.pick(c.input); {
		case !r.away, ok && there == nil:
			c.submit(i, r)
		case ok:
			groups[there] = append(groups[there], i)
		default:
			c.suspend(i, prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_UNAVAILABLE,
				"the instance that serves model %s:%s cannot be reached", r.name.model, r.name.version))
			groups[nil] = append(groups[nil], i)
		}
	}
	for there, positions := range groups {
		c.service.passing.Go(func() {
			ctx := deadline.With(c.ctx, c.at)
			defer ctx.Cancel()
			if there != nil {
				positions = c.askPeer(ctx, there, positions)
			}
			if len(positions) == 0 {
				return
			}
			select {
			case <-ctx.Done():
				c.giveUp(positions)
				return
			case <-table.replaced:
			case <-time.After(wait):
			}
			c.pass(positions, min(2*wait, maxSeek))
		})
	}
}

// askPeer asks an instance, and returns the positions of the models that it did not answer for.
func (c *call) askPeer(ctx context.Context, there *peer, positions []int) []int {
	m := &internalv1.PredictModels{Input: c.input.Encoded(), Priority: uint32(c.rank), Keep: c.keeps, Forwarded: true}
	for _, i := range positions {
		c.suspend(i, nil)
		n := c.asked[i].route.name
		m.Models = append(m.Models, &internalv1.ModelReference{Model: n.model, Version: n.version})
	}
	c.service.passed.Add(float64(len(positions)))
	reply, err := there.predict(ctx, m)
	if err != nil {
		if ctx.Err() != nil || status.Code(err) == codes.DeadlineExceeded {
			c.giveUp(positions)
			return nil
		}
		for _, i := range positions {
			c.suspend(i, prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_UNAVAILABLE, "%s", status.Convert(apierror.From(err)).Message()))
		}
		return positions
	}
	var left []int
	elsewhere := map[uint32]bool{}
	for _, i := range reply.Elsewhere {
		elsewhere[i] = true
	}
	for j, i := range positions {
		if elsewhere[uint32(j)] {
			c.suspend(i, prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_UNAVAILABLE, "the model moves to another instance"))
			left = append(left, i)
			continue
		}
		c.adopt(i, reply.Predictions[j])
	}
	return left
}

func (p *peer) predict(ctx context.Context, m *internalv1.PredictModels) (*internalv1.ModelPredictions, error) {
	payload, err := p.calls.Try(ctx, internalv1.Method_METHOD_PREDICT, m)
	if err != nil {
		return nil, err
	}
	reply := &internalv1.ModelPredictions{}
	if err := proto.Unmarshal(payload, reply); err != nil {
		return nil, fmt.Errorf("decode predictions: %w", err)
	}
	if len(reply.Predictions) != len(m.Models) {
		return nil, fmt.Errorf("asked %d models, got %d predictions", len(m.Models), len(reply.Predictions))
	}
	return reply, nil
}

// redirect notes which version is asked now. It reports whether anybody still waits.
func (c *call) redirect(i int, r *route) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left == 0 {
		return false
	}
	c.asked[i].route = r
	if r != nil {
		c.asked[i].prediction.Version = r.name.version
	}
	return true
}

// adopt takes the answer of another instance.
func (c *call) adopt(i int, answer *clipperv1.ModelPrediction) {
	r := prediction.Result{Outputs: answer.Outputs, Cached: answer.Cached}
	if answer.Status != clipperv1.PredictionStatus_PREDICTION_STATUS_OK {
		r = prediction.Result{Err: &prediction.Error{Status: answer.Status, Message: answer.Message, RetryAfter: answer.RetryAfter.AsDuration()}}
	}
	c.Receive(i, r)
}

// suspend notes why there is no answer yet; nil for no particular reason.
func (c *call) suspend(i int, why *prediction.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if why == nil {
		delete(c.waitsFor, i)
		return
	}
	if c.waitsFor == nil {
		c.waitsFor = map[int]*prediction.Error{}
	}
	c.waitsFor[i] = why
}

// giveUp answers for what nobody answered.
func (c *call) giveUp(positions []int) {
	for _, i := range positions {
		c.mu.Lock()
		why := c.waitsFor[i]
		c.mu.Unlock()
		if why == nil {
			why = tooLate
		}
		c.Receive(i, prediction.Result{Err: why})
	}
}
