// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/deadline"
	"github.com/clipper-serving/clipper/internal/tensor"
	"github.com/clipper-serving/clipper/selector/custom"
	"github.com/clipper-serving/clipper/selector/policy"
	"github.com/clipper-serving/clipper/selector/policy/policies"
)

// A custom policy's share of a query's time is one part in so many: the first is the most that choosing takes,
// the second is kept for combining after the models' deadline.
const (
	selectShare  = 4
	combineShare = 8
)

// A feedback's policy has one part in so many of the time that is left, twice with a context, and at most so
// long.
const (
	observeShare   = 4
	observeTimeout = 2 * time.Second
)

// remotePolicy is a policy that takes time and may fail; see [custom.Policy]. The application's own policy
// stands in for it then.
type remotePolicy interface {
	Select(ctx context.Context, s *policy.State, in *tensor.Input, dst []policy.Choice) ([]policy.Choice, error)
	Combine(ctx context.Context, s *policy.State, choices []policy.Choice, predictions []policy.Value) (policy.Combined, error)
	Observe(ctx context.Context, s *policy.State, o policy.Observation, dst []float64) error
}

// newPolicy returns the policy that an application names; of a custom one what stands in for it.
func newPolicy(p *clipperv1.Policy) (policy.Policy, error) {
	if p.GetName() == custom.Name {
		return custom.NewFallback(p.GetStatistics()), nil
	}
	return policies.New(p.GetName(), p.GetParameters())
}

// remotePolicy returns an application's custom policy, or nil.
func (s *Service) remotePolicy(app *application) remotePolicy {
	p := app.proto.GetPolicy()
	if p.GetName() != custom.Name {
		return nil
	}
	return s.customs.Policy(custom.Config{
		Application: app.name, Address: p.Address, Parameters: p.Parameters, Statistics: p.Statistics,
		Models: app.keys, Priors: app.panel.Priors(), Output: app.proto.Output, Spec: app.spec,
	})
}

// checkCustom checks what belongs to a custom policy, without asking it.
func checkCustom(app *clipperv1.Application, hosts []string) error {
	p := app.Policy
	if p.Name != custom.Name {
		if p.Address != "" {
			return invalid("policy.address", "the policy %q has no address, only %q has one", shorten(p.Name), custom.Name)
		}
		return nil
	}
	if app.AnswerEarly {
		return invalid("answer_early", "want false: it is not known when nothing can change what a policy %q answers", custom.Name)
	}
	if err := custom.CheckAddress(p.Address, hosts); err != nil {
		return invalid("policy.address", "%v", err)
	}
	var parameter *custom.ParameterError
	if err := custom.CheckParameters(p.Parameters); errors.As(err, &parameter) {
		field := "policy.parameters." + parameter.Name
		return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_POLICY_INVALID, field, "%s: %s", field, err.Error())
	}
	return nil
}

// describePolicy sets what a custom policy keeps, as it says now.
func (s *Service) describePolicy(ctx context.Context, p *clipperv1.Policy) error {
	p.Statistics = nil
	if p.Name != custom.Name {
		return nil
	}
	statistics, err := s.customs.Describe(ctx, p.Address, p.Parameters)
	var refused *custom.RefusedError
	switch {
	case ctx.Err() != nil:
		return apierror.From(ctx.Err())
	case errors.As(err, &refused):
		return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_POLICY_INVALID, "policy.parameters", "policy.parameters: %s", refused.Message)
	case err != nil:
		return apierror.New(codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_POLICY_FAILED, "policy.address", "policy.address: %v", err)
	}
	p.Statistics = statistics
	return nil
}

// choose puts the models to ask into w.choices, and returns how many of them answer.
func (s *Service) choose(ctx context.Context, app *application, w *scratch, in *tensor.Input, limit time.Duration) (answering int) {
	if app.remote != nil {
		asking := deadline.With(ctx, time.Now().Add(limit/selectShare))
		chosen, err := app.remote.Select(asking, &w.state, in, w.choices[:0])
		asking.Cancel()
		if err == nil {
			w.choices, answering = app.panel.WithShadows(chosen)
			return answering
		}
	}
	w.choices, answering = app.panel.Select(&w.state, &policy.Query{Random: s.random, Features: w.features}, w.choices[:0])
	return answering
}

// combine makes one answer of the values of the first choices. failed is whether that was to be done by a
// policy which did not.
func (a *application) combine(ctx context.Context, w *scratch, answering int) (combined policy.Combined, failed bool) {
	if a.remote != nil {
		combined, err := a.remote.Combine(ctx, &w.state, w.choices[:answering], w.values[:answering])
		if err == nil {
			return combined, false
		}
		failed = true
	}
	return a.policy.Combine(&w.state, a.spec.Task, w.choices[:answering], w.values[:answering], w.scores), failed
}

// observe writes what an observation adds to a state to dst. Errors are for the one who gave the feedback.
func (a *application) observe(ctx context.Context, state *policy.State, o policy.Observation, dst []float64) error {
	if a.remote == nil {
		a.policy.Observe(state, o, dst)
		return nil
	}
	limit := observeTimeout
	if at, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(at)/observeShare)
	}
	asking, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := a.remote.Observe(asking, state, o, dst); err != nil {
		if ctx.Err() != nil {
			return apierror.From(ctx.Err())
		}
		return errPolicyFailed()
	}
	return nil
}

func errPolicyFailed() error {
	return apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_POLICY_FAILED, "",
		"the application's policy did not say what to learn, so nothing was learned; send the feedback again")
}
