// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/selector/policy"
)

const (
	// maxContext is the longest name of a context, in bytes.
	maxContext = 256
	// exportPage is how many states an export has in memory; each may be large.
	exportPage = 16
	// forgetPage is how many contexts are forgotten in one step of the store.
	forgetPage = 1000
)

// ListContexts returns the contexts that have a state of their own, sorted by name.
func (a applicationService) ListContexts(ctx context.Context, r *clipperv1.ListContextsRequest) (*clipperv1.ListContextsResponse, error) {
	s := a.service
	size := int(r.GetPageSize())
	if size == 0 {
		size = defaultPage
	}
	if size > maxPage {
		return nil, invalid("page_size", "want 1 to %d, or 0 for %d, not %d", maxPage, defaultPage, size)
	}
	if len(r.GetPrefix()) > maxContext {
		return nil, invalid("prefix", "it has %d bytes, but the name of a context has at most %d", len(r.Prefix), maxContext)
	}
	after, err := base64.RawURLEncoding.DecodeString(r.GetPageToken())
	if err != nil || len(after) > maxContext || !strings.HasPrefix(string(after), r.GetPrefix()) && len(after) > 0 {
		return nil, invalid("page_token", "want the next_page_token of an earlier answer to the same question, or nothing")
	}
	app, err := s.fresh(ctx, r.GetApplication(), "application")
	if err != nil {
		return nil, err
	}
	// One more than is wanted tells whether there is another page.
	groups, err := s.deps.Sums.List(ctx, app.contextPrefix+r.GetPrefix(), app.contextPrefix+string(after), size+1, fieldObservations)
	if err != nil {
		return nil, s.storeError(ctx, "list contexts", err)
	}
	response := &clipperv1.ListContextsResponse{}
	if len(groups) > size {
		groups = groups[:size]
		last := strings.TrimPrefix(groups[size-1].Key, app.contextPrefix)
		response.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(last))
	}
	now := time.Now()
	for _, g := range groups {
		summary := &clipperv1.ContextSummary{
			Context:      strings.TrimPrefix(g.Key, app.contextPrefix),
			Observations: g.Sums[fieldObservations],
		}
		if g.TTL > 0 {
			summary.ExpireTime = timestamppb.New(now.Add(g.TTL))
		}
		response.Contexts = append(response.Contexts, summary)
	}
	return response, nil
}

// ExportSelectionState sends everything that an application has learned: the shared state first, then
// each context, sorted by name; or one context.
func (a applicationService) ExportSelectionState(r *clipperv1.ExportSelectionStateRequest, stream grpc.ServerStreamingServer[clipperv1.ExportSelectionStateResponse]) error {
	s, ctx := a.service, stream.Context()
	app, err := s.fresh(ctx, r.GetApplication(), "application")
	if err != nil {
		return err
	}
	sums, err := s.deps.Sums.Get(ctx, app.sharedKey)
	if err != nil {
		return s.storeError(ctx, "export selection state", err)
	}
	shared := app.learned(sums)
	send := func(userContext string, sums map[string]float64) error {
		err := stream.Send(&clipperv1.ExportSelectionStateResponse{Context: userContext, State: app.describe(userContext, sums, shared)})
		if err != nil {
			return fmt.Errorf("send selection state: %w", err)
		}
		return nil
	}
	if r.GetContext() != "" {
		if sums, err = s.ownState(ctx, app, r.Context); err != nil {
			return err
		}
		return send(r.Context, sums)
	}
	if err := send("", sums); err != nil {
		return err
	}
	for after := app.contextPrefix; ; {
		groups, err := s.deps.Sums.List(ctx, app.contextPrefix, after, exportPage)
		if err != nil {
			return s.storeError(ctx, "export selection state", err)
		}
		for _, g := range groups {
			if err := send(strings.TrimPrefix(g.Key, app.contextPrefix), g.Sums); err != nil {
				return err
			}
			after = g.Key
		}
		if len(groups) < exportPage {
			return nil
		}
	}
}

// ownState returns the sums of a context, which are not empty.
func (s *Service) ownState(ctx context.Context, app *application, userContext string) (map[string]float64, error) {
	var sums map[string]float64
	if len(userContext) <= maxContext {
		var err error
		if sums, err = s.deps.Sums.Get(ctx, app.stateKey(userContext)); err != nil {
			return nil, s.storeError(ctx, "read selection state", err)
		}
	}
	if len(sums) == 0 {
		return nil, apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_CONTEXT_NOT_FOUND, "context",
			"context: %q has no state of its own in the application %q", shorten(userContext), app.name)
	}
	return sums, nil
}

// ResetSelectionState forgets what a context, or the whole application, has learned. This instance
// answers by it at once, others when they next read the state. It goes on when the caller no
// longer waits, and may be repeated.
func (a applicationService) ResetSelectionState(ctx context.Context, r *clipperv1.ResetSelectionStateRequest) (*clipperv1.ResetSelectionStateResponse, error) {
	s := a.service
	app, err := s.fresh(ctx, r.GetApplication(), "application")
	if err != nil {
		return nil, err
	}
	if r.GetContext() != "" {
		if _, err := s.ownState(ctx, app, r.Context); err != nil {
			return nil, err
		}
		if err := s.deps.Sums.Delete(ctx, app.stateKey(r.Context)); err != nil {
			return nil, s.storeError(ctx, "reset selection state", err)
		}
		s.states.Invalidate(stateID{app, r.Context})
		return &clipperv1.ResetSelectionStateResponse{}, nil
	}
	background, cancel := context.WithTimeout(context.WithoutCancel(ctx), forgetTimeout)
	defer cancel()
	if err := s.forget(background, app); err != nil {
		return nil, s.storeError(background, "reset selection state", err)
	}
	app.shared.forget()
	for id := range s.states.Keys() {
		if id.app == app {
			s.states.Invalidate(id)
		}
	}
	s.log.Info("selection state was reset", "application", app.name)
	return &clipperv1.ResetSelectionStateResponse{}, nil
}

// forget removes everything that an incarnation of an application has learned.
func (s *Service) forget(ctx context.Context, app *application) error {
	if err := s.deps.Sums.Delete(ctx, app.sharedKey, app.togetherKey); err != nil {
		return err
	}
	if err := s.forgetCanaries(ctx, app, ""); err != nil {
		return err
	}
	for {
		// From the beginning each time, so that those are found which feedback makes meanwhile.
		keys, err := s.deps.Sums.Keys(ctx, app.contextPrefix, "", forgetPage)
		if err != nil {
			return err
		}
		if len(keys) > 0 {
			if err := s.deps.Sums.Delete(ctx, keys...); err != nil {
				return err
			}
		}
		if len(keys) < forgetPage {
			return nil
		}
	}
}

// describe says what the sums of a context, or the shared ones, mean to the policy.
func (a *application) describe(userContext string, sums map[string]float64, shared *learned) *clipperv1.GetSelectionStateResponse {
	own := a.learned(sums)
	var state policy.State
	a.derive(userContext, own, shared, &state)
	weights, probabilities := make([]float64, len(a.keys)), make([]float64, len(a.keys))
	a.policy.Shares(&state, weights)
	a.policy.Probabilities(&state, probabilities)
	response := &clipperv1.GetSelectionStateResponse{Policy: a.proto.Policy.Name, Observations: own.Observations}
	for i, key := range a.keys {
		if a.proto.Models[i].Shadow {
			probabilities[i] = 1 // Shadow models are always asked.
		}
		response.Models = append(response.Models, &clipperv1.ModelSelectionState{
			Model: key, Weight: weights[i], Probability: min(probabilities[i], 1), Statistics: a.modelStatistics(i, &state, sums),
		})
	}
	return response
}
