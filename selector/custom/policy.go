// SPDX-License-Identifier: Apache-2.0

package custom

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sync/atomic"
	"time"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
	"github.com/clipper-serving/clipper/selector/output"
	"github.com/clipper-serving/clipper/selector/policy"
)

// maxFeatures is the most numbers of an input that a policy sees.
const maxFeatures = 64

// Config is a policy as an application has it.
type Config struct {
	// Application is the application's name, Address where the policy is.
	Application, Address string
	// Parameters are the application's.
	Parameters map[string]float64
	// Statistics are what the policy keeps for each model, as it said when the application was created.
	Statistics []string
	// Models are the models as the application lists them, Priors their weights; those without a weight
	// take no part.
	Models []string
	Priors []float64
	// Output is the application's, Spec the same to read with.
	Output *clipperv1.OutputSpec
	Spec   output.Spec
}

// Policy asks one application's policy. Each method is one call, within ctx, whose failure is counted and
// logged here. State, choices and predictions are as in package policy. Safe for concurrent use.
type Policy struct {
	cfg      Config
	policies *Policies
	observer *observer
	rows     []int // of the models that take part: where they are in the application's state
	places   []int // the reverse; -1 for the others

	// checked is the last connection over which the policy has said that it keeps what was kept, refused
	// the last one over which it has said something else.
	checked, refused atomic.Uint64
}

// Policy returns an application's policy. It does not connect yet.
func (p *Policies) Policy(cfg Config) *Policy {
	c := &Policy{cfg: cfg, policies: p, places: make([]int, len(cfg.Models))}
	for i, prior := range cfg.Priors {
		c.places[i] = -1
		if prior > 0 {
			c.places[i] = len(c.rows)
			c.rows = append(c.rows, i)
		}
	}
	c.observer = p.metrics.observer(p.log, cfg.Application, cfg.Address)
	return c
}

// ask makes a call. After a new connection it asks first whether the policy still keeps the same.
func (c *Policy) ask(ctx context.Context, call func(clipperv1.SelectionPolicyServiceClient) error) error {
	conn, err := c.policies.conn(c.cfg.Address)
	if err != nil {
		return err
	}
	client := clipperv1.NewSelectionPolicyServiceClient(conn)
	for {
		made, err := c.check(ctx, conn)
		if err != nil {
			return err
		}
		if err := call(client); err != nil {
			return err
		}
		// When it was lost and made again meanwhile, it may be another one that has answered. Calls change
		// nothing, so that they can be repeated.
		if conn.made.Load() == made {
			return nil
		}
	}
}

// check finds out whether the policy at the other end keeps what was kept, and returns the number of the
// connection of which it knows.
func (c *Policy) check(ctx context.Context, conn *conn) (made uint64, err error) {
	made = conn.made.Load()
	switch {
	case made == 0:
	case c.checked.Load() == made:
		return made, nil
	case c.refused.Load() == made:
		return made, errOtherPolicy
	}
	begin := time.Now()
	statistics, err := describe(ctx, conn, c.cfg.Parameters)
	if err == nil && !slices.Equal(statistics, c.cfg.Statistics) {
		err = errOtherStatistics
	}
	c.observer.done(ctx, describeCall, begin, err)
	if made == 0 { // This has made the first one.
		made = conn.made.Load()
	}
	var refused *RefusedError
	switch {
	case err == nil:
		c.checked.Store(made)
	case errors.Is(err, errInvalid), errors.As(err, &refused):
		c.refused.Store(made)
	}
	return made, err
}

var (
	errOtherStatistics = invalid("it keeps other statistics than when the application was created or last changed; update the application to take them on")
	errOtherPolicy     = invalid("it has described itself as another policy than the application's, or not as it must")
)

// Select asks which models to ask, and appends them to dst in rising order.
func (c *Policy) Select(ctx context.Context, s *policy.State, in *tensor.Input, dst []policy.Choice) (_ []policy.Choice, err error) {
	defer func(begin time.Time) { c.observer.done(ctx, selectCall, begin, err) }(time.Now())
	request := &clipperv1.SelectModelsRequest{Parameters: c.cfg.Parameters, State: c.state(s), Features: features(in)}
	var r *clipperv1.SelectModelsResponse
	err = c.ask(ctx, func(client clipperv1.SelectionPolicyServiceClient) (err error) {
		r, err = client.SelectModels(ctx, request)
		return err
	})
	if err != nil {
		return dst, err
	}
	if len(r.Choices) == 0 {
		return dst, invalid("no model is chosen, want at least one")
	}
	from := len(dst)
	for i, choice := range r.Choices {
		switch p := choice.GetPropensity(); {
		case int64(choice.GetModel()) >= int64(len(c.rows)):
			return dst[:from], invalid("choice %d is the model %d, want 0 to %d", i, choice.GetModel(), len(c.rows)-1)
		case !(p > 0 && p <= 1):
			return dst[:from], invalid("choice %d has the propensity %v, want more than 0 and at most 1", i, p)
		}
		row := c.rows[choice.GetModel()]
		if slices.ContainsFunc(dst[from:], func(other policy.Choice) bool { return other.Model == row }) {
			return dst[:from], invalid("the model %d is chosen twice", choice.GetModel())
		}
		dst = append(dst, policy.Choice{Model: row, Propensity: choice.GetPropensity()})
	}
	slices.SortFunc(dst[from:], func(a, b policy.Choice) int { return cmp.Compare(a.Model, b.Model) })
	return dst, nil
}

// Combine asks for the answer. A missing one is what the policy wants.
func (c *Policy) Combine(ctx context.Context, s *policy.State, choices []policy.Choice, predictions []policy.Value) (_ policy.Combined, err error) {
	defer func(begin time.Time) { c.observer.done(ctx, combineCall, begin, err) }(time.Now())
	request := &clipperv1.CombinePredictionsRequest{Parameters: c.cfg.Parameters, State: c.state(s), Output: c.cfg.Output}
	scores := -1
	for i, choice := range choices {
		request.Predictions = append(request.Predictions, &clipperv1.PolicyPrediction{Model: uint32(c.places[choice.Model]), Prediction: toProto(predictions[i])}) //nolint:gosec // It takes part.
		if xs, ok := predictions[i].Vector(); ok && scores < 0 {
			scores = len(xs)
		}
	}
	var r *clipperv1.CombinePredictionsResponse
	err = c.ask(ctx, func(client clipperv1.SelectionPolicyServiceClient) (err error) {
		r, err = client.CombinePredictions(ctx, request)
		return err
	})
	if err != nil {
		return policy.Combined{}, err
	}
	if !(r.Confidence >= 0 && r.Confidence <= 1) {
		return policy.Combined{}, invalid("the confidence is %v, want 0 to 1", r.Confidence)
	}
	if r.Answer == nil {
		return policy.Combined{Confidence: r.Confidence}, nil
	}
	answer, err := c.cfg.Spec.Output(r.Answer)
	if err != nil {
		return policy.Combined{}, invalid("answer: %v", err)
	}
	if xs, ok := answer.Vector(); ok && scores >= 0 && len(xs) != scores {
		return policy.Combined{}, invalid("the answer has %d scores, but the predictions have %d", len(xs), scores)
	}
	return policy.Combined{Value: answer, Confidence: r.Confidence}, nil
}

// Observe asks what to add to the state, and writes it to dst, which is as long as the state's statistics.
func (c *Policy) Observe(ctx context.Context, s *policy.State, o policy.Observation, dst []float64) (err error) {
	clear(dst)
	request := &clipperv1.ObserveFeedbackRequest{Parameters: c.cfg.Parameters}
	for i, choice := range o.Choices {
		place := c.places[choice.Model]
		if place < 0 || choice.Shadow {
			continue
		}
		loss := &clipperv1.PolicyLoss{Choice: &clipperv1.PolicyChoice{Model: uint32(place), Propensity: choice.Propensity}} //nolint:gosec // It takes part.
		if o.Losses[i] >= 0 {
			loss.Loss = &o.Losses[i]
		}
		request.Losses = append(request.Losses, loss)
	}
	if len(request.Losses) == 0 {
		return nil // Only models that take no part were asked.
	}
	defer func(begin time.Time) { c.observer.done(ctx, observeCall, begin, err) }(time.Now())
	request.State = c.state(s)
	var r *clipperv1.ObserveFeedbackResponse
	err = c.ask(ctx, func(client clipperv1.SelectionPolicyServiceClient) (err error) {
		r, err = client.ObserveFeedback(ctx, request)
		return err
	})
	if err != nil {
		return err
	}
	if len(r.Models) > len(c.rows) {
		return invalid("there are deltas for %d models, want at most %d", len(r.Models), len(c.rows))
	}
	n := len(c.cfg.Statistics)
	for i, m := range r.Models {
		deltas := m.GetDeltas()
		if len(deltas) != 0 && len(deltas) != n {
			clear(dst)
			return invalid("the model %d has %d deltas, want %d or none", i, len(deltas), n)
		}
		for k, d := range deltas {
			at := c.rows[i]*n + k
			// What is added up is to stay finite.
			if sum := s.Statistics[at] + d; math.IsNaN(sum) || math.IsInf(sum, 0) {
				clear(dst)
				return invalid("delta %q of the model %d is %v, which makes the sum %v", c.cfg.Statistics[k], i, d, sum)
			}
			dst[at] = d
		}
	}
	return nil
}

// state is a state as a policy gets it.
func (c *Policy) state(s *policy.State) *clipperv1.PolicyState {
	n := len(c.cfg.Statistics)
	models := make([]clipperv1.PolicyModel, len(c.rows))
	state := &clipperv1.PolicyState{Models: make([]*clipperv1.PolicyModel, len(c.rows))}
	for i, row := range c.rows {
		m := &models[i]
		// The scratch memory of the state is used again when a late call may still be sending.
		m.Model, m.Weight, m.Statistics = c.cfg.Models[row], s.Priors[row], slices.Clone(s.Statistics[row*n:(row+1)*n])
		state.Models[i] = m
	}
	return state
}

// features are the numbers of an input, or nothing when there are too many or other elements.
func features(in *tensor.Input) []float64 {
	if in == nil {
		return nil
	}
	tensors, err := in.Tensors()
	if err != nil {
		return nil
	}
	var numbers []float64
	for _, t := range tensors {
		n, ok := tensor.Elements(t.Shape)
		if !ok || n > int64(maxFeatures-len(numbers)) || !output.IsInteger(t.DataType) && !output.IsFloat(t.DataType) || tensor.Check(t) != nil {
			return nil
		}
		for i := range int(n) {
			x := tensor.Float(t, i)
			if math.IsNaN(x) || math.IsInf(x, 0) {
				return nil
			}
			numbers = append(numbers, x)
		}
	}
	return numbers
}
