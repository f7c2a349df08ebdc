// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/deadline"
	"github.com/clipper-serving/clipper/internal/priority"
)

// queryServer is clipper.v1.QueryService.
type queryServer struct {
	clipperv1.UnimplementedQueryServiceServer
	s *Service
}

func (q queryServer) Query(ctx context.Context, req *clipperv1.QueryRequest) (*clipperv1.QueryResponse, error) {
	return q.s.query(ctx, req)
}

func (q queryServer) QueryBatch(ctx context.Context, req *clipperv1.QueryBatchRequest) (*clipperv1.QueryBatchResponse, error) {
	app, err := q.s.application(req.GetApplication())
	if err != nil {
		return nil, err
	}
	queries := req.GetQueries()
	if err := checkBatch("queries", len(queries)); err != nil {
		return nil, err
	}
	arrival := time.Now()
	limit, err := q.s.limit(ctx, app, req.GetTimeout(), arrival)
	if err != nil {
		return nil, err
	}
	defer limit.Cancel()
	results := make([]*clipperv1.QueryResult, len(queries))
	each(len(queries), q.s.cfg.BatchConcurrency, func(i int) {
		response, err := q.s.answer(ctx, limit, app, queries[i], arrival)
		results[i] = q.s.queryResult(ctx, response, err)
	})
	return &clipperv1.QueryBatchResponse{Results: results}, nil
}

func (q queryServer) QueryStream(stream grpc.BidiStreamingServer[clipperv1.QueryStreamRequest, clipperv1.QueryStreamResponse]) error {
	return serve(q.s, stream, func(ctx context.Context, req *clipperv1.QueryStreamRequest) *clipperv1.QueryStreamResponse {
		if req.GetQuery() == nil {
			return &clipperv1.QueryStreamResponse{Sequence: req.GetSequence(), Result: q.s.queryResult(ctx, nil, missing("query", "query is missing"))}
		}
		response, err := q.s.query(ctx, req.GetQuery())
		return &clipperv1.QueryStreamResponse{Sequence: req.GetSequence(), Result: q.s.queryResult(ctx, response, err)}
	})
}

// query answers one query.
func (s *Service) query(ctx context.Context, req *clipperv1.QueryRequest) (*clipperv1.QueryResponse, error) {
	app, err := s.application(req.GetApplication())
	if err != nil {
		return nil, err
	}
	arrival := time.Now()
	limit, err := s.limit(ctx, app, req.GetTimeout(), arrival)
	if err != nil {
		app.metrics.observe(nil, err, 0)
		return nil, err
	}
	defer limit.Cancel()
	return s.answer(ctx, limit, app, req, arrival)
}

// grace is how much longer than the latency objective the frontend waits for a selector that it is
// linked to. The selector answers in time by itself, and what it says tells more than the
// frontend's default output.
func grace(objective time.Duration) time.Duration {
	return min(max(objective/20, time.Millisecond), 10*time.Millisecond)
}

// limit returns the context of a query, which ends when it is to be answered at the latest: when
// the caller's time is over or soon after the application's latency objective.
func (s *Service) limit(ctx context.Context, app *application, timeout *durationpb.Duration, arrival time.Time) (*deadline.Context, error) {
	at := arrival.Add(app.objective)
	if s.linked.Load() {
		at = at.Add(grace(app.objective))
	}
	if timeout != nil {
		d := timeout.AsDuration()
		if err := timeout.CheckValid(); err != nil || d <= 0 {
			return nil, invalid("timeout", "timeout is not a duration greater than 0")
		}
		if t := arrival.Add(d); t.Before(at) {
			at = t
		}
	}
	if before, ok := ctx.Deadline(); ctx.Err() != nil || ok && !arrival.Before(before) {
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, apierror.From(ctx.Err())
		}
		return nil, apierror.New(codes.DeadlineExceeded, clipperv1.ErrorReason_ERROR_REASON_DEADLINE, "", "the deadline had passed when the query arrived")
	}
	return deadline.With(ctx, at), nil
}

// question is what single queries and those of a batch have in common.
type question interface {
	GetInputs() []*clipperv1.Tensor
	GetInputJson() []byte
	GetContext() string
	GetId() string
	GetPriority() uint32
}

// answer answers a question of a caller, whose context is ctx, until limit is done.
func (s *Service) answer(ctx, limit context.Context, app *application, q question, arrival time.Time) (*clipperv1.QueryResponse, error) {
	response, err := s.ask(ctx, limit, app, q)
	app.metrics.observe(response, err, time.Since(arrival).Seconds())
	return response, err
}

func (s *Service) ask(ctx, limit context.Context, app *application, q question) (*clipperv1.QueryResponse, error) {
	if err := checkText("context", q.GetContext(), maxContext); err != nil {
		return nil, err
	}
	if err := checkText("id", q.GetId(), maxID); err != nil {
		return nil, err
	}
	if p := q.GetPriority(); p > priority.Max {
		return nil, invalid("priority", "priority: want 1, the highest, to %d, or 0 for the default, not %d", priority.Max, p)
	}
	in, err := s.input(app, q.GetInputs(), q.GetInputJson())
	if err != nil {
		return nil, err
	}
	var response *clipperv1.QueryResponse
	if err = limit.Err(); err == nil {
		response, err = s.deps.Selector.Query(priority.With(limit, q.GetPriority()), app.name, q.GetContext(), in)
	}
	if err != nil {
		reason, ok := defaultReason(ctx, err)
		if !ok || app.refuses && reason == clipperv1.DefaultReason_DEFAULT_REASON_OVERLOADED {
			return nil, err
		}
		return &clipperv1.QueryResponse{Outputs: app.defaults, IsDefault: true, DefaultReason: reason, Id: q.GetId()}, nil
	}
	if app.refuses && response.GetDefaultReason() == clipperv1.DefaultReason_DEFAULT_REASON_OVERLOADED {
		return nil, apierror.Overloaded(retryAfter(response.GetPredictions()),
			"the models of application %q cannot answer in time now, since more is asked than they can answer", app.name)
	}
	if q.GetId() == "" {
		return response, nil
	}
	return &clipperv1.QueryResponse{
		Outputs:       response.GetOutputs(),
		IsDefault:     response.GetIsDefault(),
		DefaultReason: response.GetDefaultReason(),
		Confidence:    response.GetConfidence(),
		Predictions:   response.GetPredictions(),
		FeedbackId:    response.GetFeedbackId(),
		Id:            q.GetId(),
	}, nil
}

// minRetryAfter is for models that do not say when to try again.
const minRetryAfter = 100 * time.Millisecond

// retryAfter is when the first of the models that refused may answer again.
func retryAfter(predictions []*clipperv1.ModelPrediction) time.Duration {
	least := time.Duration(0)
	for _, p := range predictions {
		if d := p.GetRetryAfter().AsDuration(); d > 0 && !p.GetShadow() && (least == 0 || d < least) {
			least = d
		}
	}
	return cmp.Or(least, minRetryAfter)
}

// defaultReason says why the default output answers for a selector that failed with err; ok is
// false when the caller is to get the error.
func defaultReason(ctx context.Context, err error) (reason clipperv1.DefaultReason, ok bool) {
	if errors.Is(ctx.Err(), context.Canceled) {
		return 0, false
	}
	code := status.Code(err)
	if code == codes.Unknown {
		code = status.FromContextError(err).Code()
	}
	switch code {
	case codes.DeadlineExceeded:
		return clipperv1.DefaultReason_DEFAULT_REASON_DEADLINE, true
	case codes.Unavailable, codes.Canceled: // Cancelled, but not by the caller: the link broke.
		return clipperv1.DefaultReason_DEFAULT_REASON_UNAVAILABLE, true
	case codes.ResourceExhausted:
		return clipperv1.DefaultReason_DEFAULT_REASON_OVERLOADED, true
	}
	return 0, false
}

// queryResult is an item of a batch or a stream.
func (s *Service) queryResult(ctx context.Context, response *clipperv1.QueryResponse, err error) *clipperv1.QueryResult {
	if err != nil {
		return &clipperv1.QueryResult{Result: &clipperv1.QueryResult_Error{Error: s.itemError(ctx, err)}}
	}
	return &clipperv1.QueryResult{Result: &clipperv1.QueryResult_Response{Response: response}}
}

// itemError is an error as an item carries it. An error without a status is logged, since the
// caller does not get its text and the call itself does not fail.
func (s *Service) itemError(ctx context.Context, err error) *clipperv1.Error {
	if _, ok := status.FromError(err); !ok && ctx.Err() == nil {
		s.log.ErrorContext(ctx, "internal error in a batch or stream", "error", err)
	}
	return apierror.ToProto(err)
}

func checkBatch(field string, n int) error {
	switch {
	case n == 0:
		return missing(field, "%s is empty: expected 1 to %d", field, maxBatch)
	case n > maxBatch:
		return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_TOO_LARGE, field, "%s has %d items, expected at most %d", field, n, maxBatch)
	}
	return nil
}

// each calls f for 0 to n-1, at most limit at once, and returns when all have returned.
func each(n, limit int, f func(int)) {
	var (
		next atomic.Int64
		wg   sync.WaitGroup
	)
	for range min(n, limit) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	wg.Wait()
}
