// SPDX-License-Identifier: Apache-2.0

// Package customtest is a selection policy for tests: a service that does what it is told, faults included, and
// that can die and come back.
package customtest

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Statistics are what the policy keeps when it is not told otherwise: how often a model was asked, and the sum of
// its losses.
var Statistics = []string{"tries", "regret"}

// Policy is the service. Each function takes the place of one call; nil is a plain policy: every model is
// asked, the first prediction that is there is the answer, with the confidence 0.75, and losses are added up.
type Policy struct {
	// Address is where it serves.
	Address string

	mu      sync.Mutex
	script  Script
	calls   map[string]int
	latest  Latest
	server  *grpc.Server
	serving sync.WaitGroup
}

// Script is what the service does.
type Script struct {
	Describe func(context.Context, *clipperv1.DescribePolicyRequest) (*clipperv1.DescribePolicyResponse, error)
	Select   func(context.Context, *clipperv1.SelectModelsRequest) (*clipperv1.SelectModelsResponse, error)
	Combine  func(context.Context, *clipperv1.CombinePredictionsRequest) (*clipperv1.CombinePredictionsResponse, error)
	Observe  func(context.Context, *clipperv1.ObserveFeedbackRequest) (*clipperv1.ObserveFeedbackResponse, error)
}

// Latest are the last requests.
type Latest struct {
	Select  *clipperv1.SelectModelsRequest
	Combine *clipperv1.CombinePredictionsRequest
	Observe *clipperv1.ObserveFeedbackRequest
}

// Start serves a plain policy on the loopback interface until the test ends.
func Start(t testing.TB) *Policy {
	p := &Policy{calls: map[string]int{}}
	p.serve(t, "127.0.0.1:0")
	t.Cleanup(p.Kill)
	return p
}

func (p *Policy) serve(t testing.TB, address string) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	require.NoError(t, err)
	server := grpc.NewServer()
	clipperv1.RegisterSelectionPolicyServiceServer(server, service{policy: p})
	p.mu.Lock()
	p.Address, p.server = listener.Addr().String(), server
	p.mu.Unlock()
	p.serving.Go(func() { _ = server.Serve(listener) })
}

// Kill ends the service at once; calls that are under way break off.
func (p *Policy) Kill() {
	p.mu.Lock()
	server := p.server
	p.mu.Unlock()
	server.Stop()
	p.serving.Wait()
}

// Revive starts the service again where it was.
func (p *Policy) Revive(t testing.TB) { p.serve(t, p.Address) }

// Play changes what the service does.
func (p *Policy) Play(s Script) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.script = s
}

// Calls returns how often a call came: "describe", "select", "combine" or "observe".
func (p *Policy) Calls(name string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[name]
}

// Latest returns the last requests.
func (p *Policy) Latest() Latest {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.latest
}

// Hang is a call that is never answered in time.
func Hang[Request, Response any](ctx context.Context, _ Request) (response Response, err error) {
	<-ctx.Done()
	return response, ctx.Err()
}

// called counts a call, and remembers its request.
func (p *Policy) called(name string, remember func(*Latest)) Script {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls[name]++
	remember(&p.latest)
	return p.script
}

// service is the Policy without the methods that tests call.
type service struct {
	clipperv1.UnimplementedSelectionPolicyServiceServer
	policy *Policy
}

// DescribePolicy implements the service.
func (s service) DescribePolicy(ctx context.Context, r *clipperv1.DescribePolicyRequest) (*clipperv1.DescribePolicyResponse, error) {
	if script := s.policy.called("describe", func(*Latest) {}); script.Describe != nil {
		return script.Describe(ctx, r)
	}
	return &clipperv1.DescribePolicyResponse{Statistics: Statistics}, nil
}

// SelectModels implements the service.
func (s service) SelectModels(ctx context.Context, r *clipperv1.SelectModelsRequest) (*clipperv1.SelectModelsResponse, error) {
	if script := s.policy.called("select", func(l *Latest) { l.Select = r }); script.Select != nil {
		return script.Select(ctx, r)
	}
	response := &clipperv1.SelectModelsResponse{}
	for i := range r.State.Models {
		response.Choices = append(response.Choices, &clipperv1.PolicyChoice{Model: uint32(i), Propensity: 1}) //nolint:gosec // At most 64.
	}
	return response, nil
}

// CombinePredictions implements the service.
func (s service) CombinePredictions(ctx context.Context, r *clipperv1.CombinePredictionsRequest) (*clipperv1.CombinePredictionsResponse, error) {
	if script := s.policy.called("combine", func(l *Latest) { l.Combine = r }); script.Combine != nil {
		return script.Combine(ctx, r)
	}
	for _, p := range r.Predictions {
		if p.Prediction != nil {
			return &clipperv1.CombinePredictionsResponse{Answer: p.Prediction, Confidence: 0.75}, nil
		}
	}
	return &clipperv1.CombinePredictionsResponse{}, nil
}

// ObserveFeedback implements the service.
func (s service) ObserveFeedback(ctx context.Context, r *clipperv1.ObserveFeedbackRequest) (*clipperv1.ObserveFeedbackResponse, error) {
	if script := s.policy.called("observe", func(l *Latest) { l.Observe = r }); script.Observe != nil {
		return script.Observe(ctx, r)
	}
	response := &clipperv1.ObserveFeedbackResponse{Models: make([]*clipperv1.PolicyDeltas, len(r.State.Models))}
	for i := range response.Models {
		response.Models[i] = &clipperv1.PolicyDeltas{}
	}
	for _, l := range r.Losses {
		if l.Loss != nil {
			response.Models[l.Choice.Model].Deltas = []float64{1, l.GetLoss()}
		}
	}
	return response, nil
}

// Answer is an answer of CombinePredictions.
func Answer(value any, confidence float64) *clipperv1.CombinePredictionsResponse {
	v, err := structpb.NewValue(value)
	if err != nil {
		panic(err) // The test is wrong.
	}
	return &clipperv1.CombinePredictionsResponse{Answer: v, Confidence: confidence}
}
