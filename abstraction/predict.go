// SPDX-License-Identifier: Apache-2.0

package abstraction

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/clipper-serving/clipper/abstraction/prediction"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/deadline"
	"github.com/clipper-serving/clipper/internal/gen/internalv1"
	"github.com/clipper-serving/clipper/internal/priority"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// defaultDeadline is for callers that have none, so that no request waits for ever.
const defaultDeadline = time.Minute

// Predict asks models about one input and returns one entry for each, in their order. It
// returns when all have answered or ctx ends, whichever is first; those that have not
// answered then have PREDICTION_STATUS_DEADLINE, and what they say later is still
// remembered. What goes wrong with one model is in its entry: the error is always nil.
func (s *Service) Predict(ctx context.Context, models []*internalv1.ModelReference, in *tensor.Input) ([]*clipperv1.ModelPrediction, error) {
	at, ok := ctx.Deadline()
	if !ok {
		at = time.Now().Add(defaultDeadline)
	}
	c := &call{service: s, asked: make([]asked, len(models)), left: len(models)}
	rank := priority.From(ctx)
	table := s.table.Load()
	for i, ref := range models {
		a := &c.asked[i]
		a.ref = ref
		a.prediction.Model, a.prediction.Version = ref.GetModel(), ref.GetVersion()
		v, err := table.find(ref)
		if err != nil {
			c.Receive(i, prediction.Result{Err: err})
			continue
		}
		a.version, a.prediction.Version = v, v.name.version
		a.request = prediction.Request{Context: ctx, Input: in, Deadline: at, Priority: rank, Receiver: c, Tag: i}
		v.serving.Submit(&a.request)
	}
	return c.wait(ctx), nil
}

// find returns the version that a reference means.
func (t *table) find(ref *internalv1.ModelReference) (*version, *prediction.Error) {
	if !t.synced {
		return nil, prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_UNAVAILABLE, "the models are not known yet: the store has not been read")
	}
	m, ok := t.models[ref.GetModel()]
	if !ok {
		return nil, prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_NOT_FOUND, "there is no model %q", ref.GetModel())
	}
	if ref.GetVersion() == "" {
		if m.current == nil {
			return nil, prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_NOT_FOUND, "model %q has no current version", ref.GetModel())
		}
		return m.current, nil
	}
	v := m.versions[ref.GetVersion()]
	if v == nil {
		return nil, prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_NOT_FOUND, "model %q has no version %q", ref.GetModel(), ref.GetVersion())
	}
	return v, nil
}

// call is one Predict under way. Results that come when it is over find it closed and
// touch nothing that the caller has.
type call struct {
	service *Service
	asked   []asked

	mu   sync.Mutex
	left int           // how many have not answered; 0 when the call is over
	done chan struct{} // closed when left becomes 0; made only by one who has to wait
}

// asked is one model's part of a call.
type asked struct {
	ref        *internalv1.ModelReference
	version    *version // nil when there is none
	request    prediction.Request
	prediction clipperv1.ModelPrediction
}

// Receive implements prediction.Receiver.
func (c *call) Receive(tag int, r prediction.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left == 0 {
		return
	}
	if request := c.again(tag, r); request != nil {
		// The lock is not held, since the answer may come at once.
		version := c.asked[tag].version
		c.mu.Unlock()
		version.serving.Submit(request)
		c.mu.Lock()
		return
	}
	p := &c.asked[tag].prediction
	if r.Err != nil {
		p.Status, p.Message = r.Err.Status, r.Err.Message
		if r.Err.RetryAfter > 0 {
			p.RetryAfter = durationpb.New(r.Err.RetryAfter)
		}
	} else {
		p.Status, p.Outputs, p.Cached = clipperv1.PredictionStatus_PREDICTION_STATUS_OK, r.Outputs, r.Cached
	}
	c.left--
	if c.left == 0 && c.done != nil {
		close(c.done)
	}
}

// again returns the request for the version that is current now, when the one that was current has
// lost its replicas or was removed before it answered. The lock is held.
func (c *call) again(tag int, r prediction.Result) *prediction.Request {
	a := &c.asked[tag]
	if a.version == nil || a.ref.GetVersion() != "" || r.Err == nil || r.Err.Status != clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA {
		return nil
	}
	v, err := c.service.table.Load().find(a.ref)
	if err != nil || v == a.version {
		return nil
	}
	a.version, a.prediction.Version = v, v.name.version
	request := a.request
	return &request
}

// wait returns the predictions when all are there or ctx has ended.
func (c *call) wait(ctx context.Context) []*clipperv1.ModelPrediction {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left > 0 {
		c.done = make(chan struct{})
		c.mu.Unlock()
		deadline.Wait(ctx, c.done)
		c.mu.Lock()
	}
	c.left = 0
	predictions := make([]*clipperv1.ModelPrediction, len(c.asked))
	for i := range c.asked {
		p := &c.asked[i].prediction
		if p.Status == clipperv1.PredictionStatus_PREDICTION_STATUS_UNSPECIFIED {
			p.Status = clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE
			p.Message = "the model had not answered when the deadline came"
		}
		predictions[i] = p
	}
	return predictions
}
