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
	"github.com/clipper-serving/clipper/internal/keep"
	"github.com/clipper-serving/clipper/internal/priority"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// defaultDeadline is for callers that have none, so that no request waits for ever.
const defaultDeadline = time.Minute

// tooLate is for models that have not answered in time.
var tooLate = prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_DEADLINE, "the model had not answered when the deadline came")

// Predict asks models about one input and returns one entry for each, in their order. It
// returns when all have answered or ctx ends, whichever is first; those that have not
// answered then have PREDICTION_STATUS_DEADLINE, and what they say later is still
// remembered. What goes wrong with one model is in its entry: the error is always nil.
func (s *Service) Predict(ctx context.Context, models []*internalv1.ModelReference, in *tensor.Input) ([]*clipperv1.ModelPrediction, error) {
	c, away := s.ask(ctx, models, in, false)
	if len(away) > 0 {
		c.pass(away, minSeek)
	}
	return c.wait(ctx), nil
}

// predictForwarded is Predict for another instance: it asks only what runs here.
func (s *Service) predictForwarded(ctx context.Context, models []*internalv1.ModelReference, in *tensor.Input) *internalv1.ModelPredictions {
	c, away := s.ask(ctx, models, in, true)
	answer := &internalv1.ModelPredictions{}
	for _, i := range away {
		c.Receive(i, prediction.Result{Err: prediction.Errorf(clipperv1.PredictionStatus_PREDICTION_STATUS_UNAVAILABLE, "the model is not served by this instance")})
		answer.Elsewhere = append(answer.Elsewhere, uint32(i))
	}
	answer.Predictions = c.wait(ctx)
	return answer
}

// ask asks what is to be asked here, and returns the positions of the models that are not: of a
// forwarded call, those that do not run here.
func (s *Service) ask(ctx context.Context, models []*internalv1.ModelReference, in *tensor.Input, forwarded bool) (c *call, away []int) {
	at, ok := ctx.Deadline()
	if !ok {
		at = time.Now().Add(defaultDeadline)
	}
	c = &call{service: s, ctx: ctx, at: at, rank: priority.From(ctx), keeps: keep.From(ctx), input: in, asked: make([]asked, len(models)), left: len(models)}
	table := s.table.Load()
	for i, ref := range models {
		a := &c.asked[i]
		a.ref = ref
		a.prediction.Model, a.prediction.Version = ref.GetModel(), ref.GetVersion()
		r, err := table.find(ref)
		switch {
		case forwarded && (err != nil || r.local == nil && r.refusal == nil):
			away = append(away, i)
			continue
		case err != nil:
			c.Receive(i, prediction.Result{Err: err})
			continue
		}
		a.route, a.prediction.Version = r, r.name.version
		if !forwarded && r.away {
			if there, ok := r.pick(in); !ok || there != nil {
				away = append(away, i)
				continue
			}
		}
		c.submit(i, r)
	}
	return c, away
}

// find returns the route to the version that a reference means.
func (t *table) find(ref *internalv1.ModelReference) (*route, *prediction.Error) {
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
	ctx     context.Context // of the caller
	at      time.Time       // its deadline, or one in its place
	rank    uint8           // of the query, as in prediction.Request
	keeps   bool            // as Keep in prediction.Request
	input   *tensor.Input
	asked   []asked

	mu       sync.Mutex
	left     int                       // how many have not answered; 0 when the call is over
	done     chan struct{}             // closed when left becomes 0; made only by one who has to wait
	waitsFor map[int]*prediction.Error // why another instance was not asked yet, or not with success
}

// asked is one model's part of a call.
type asked struct {
	ref        *internalv1.ModelReference
	route      *route // to the version that was asked last; nil when there is none
	request    prediction.Request
	prediction clipperv1.ModelPrediction
}

// submit asks what runs here.
func (c *call) submit(i int, r *route) {
	request := prediction.Request{Context: c.ctx, Input: c.input, Deadline: c.at, Priority: c.rank, Keep: c.keeps, Receiver: c, Tag: i}
	if r.local == nil {
		request.Reply(prediction.Result{Err: r.refusal})
		return
	}
	a := &c.asked[i]
	a.request = request
	r.local.serving.Submit(&a.request)
}

// Receive implements prediction.Receiver.
func (c *call) Receive(tag int, r prediction.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left == 0 {
		c.keep(tag, r)
		return
	}
	if c.again(tag, r) {
		// The lock is not held, since the answer may come at once.
		c.mu.Unlock()
		c.pass([]int{tag}, minSeek)
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

// keep lets a prediction that comes too late for this call be remembered. The lock is held.
func (c *call) keep(tag int, r prediction.Result) {
	if route := c.asked[tag].route; r.Err == nil && !r.Cached && route != nil && route.local != nil {
		route.local.serving.Keep(c.input, r.Outputs)
	}
}

// again reports whether the version that is current now is to be asked, since the one that was
// current has lost its replicas or was removed before it answered. The lock is held.
func (c *call) again(tag int, r prediction.Result) bool {
	a := &c.asked[tag]
	if a.route == nil || a.ref.GetVersion() != "" || r.Err == nil || r.Err.Status != clipperv1.PredictionStatus_PREDICTION_STATUS_NO_REPLICA {
		return false
	}
	now, err := c.service.table.Load().find(a.ref)
	return err == nil && (now.name != a.route.name || now.local != a.route.local)
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
			why := c.waitsFor[i]
			if why == nil {
				why = tooLate
			}
			p.Status, p.Message = why.Status, why.Message
		}
		predictions[i] = p
	}
	return predictions
}
