// SPDX-License-Identifier: Apache-2.0

package clipper

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// firstDelay is the mean wait before the first repetition; it doubles each time, up to maxDelay.
const firstDelay, maxDelay = 50 * time.Millisecond, time.Second

// unary bounds a call, repeats it while that is safe and may help, and gives its error a reason.
func (cfg *Config) unary(ctx context.Context, method string, req, resp any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if _, bounded := ctx.Deadline(); !bounded {
		limit := cfg.Timeout
		if own := timeoutOf(req); own > 0 {
			limit = own + answerGrace
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	for attempt := 1; ; attempt++ {
		err := invoke(ctx, method, req, resp, conn, opts...)
		if err == nil {
			return nil
		}
		e := errorOf(err)
		if e.Code != codes.Unavailable || attempt >= cfg.Attempts || !isSafe(method, req) || !wait(ctx, delay(attempt, e.RetryAfter)) {
			cfg.Logger.DebugContext(ctx, "clipper: call failed", "method", method, "attempt", attempt, "code", e.Code, "reason", e.Reason, "error", e.Message)
			return e
		}
		cfg.Logger.WarnContext(ctx, "clipper: call is repeated", "method", method, "attempt", attempt, "error", e.Message)
	}
}

// timeoutOf returns the time within which a query wants its answer; 0 when it does not say.
func timeoutOf(req any) time.Duration {
	switch q := req.(type) {
	case *clipperv1.QueryRequest:
		return q.GetTimeout().AsDuration()
	case *clipperv1.QueryBatchRequest:
		return q.GetTimeout().AsDuration()
	}
	return 0
}

// isSafe reports whether a call that may have been carried out can be made again.
func isSafe(method string, req any) bool {
	switch r := req.(type) {
	case *clipperv1.QueryRequest, *clipperv1.QueryBatchRequest:
		return true
	case *clipperv1.FeedbackRequest:
		return countsOnce(r)
	case *clipperv1.FeedbackBatchRequest:
		for _, item := range r.GetItems() {
			if !countsOnce(item) {
				return false
			}
		}
		return true
	}
	name := method[strings.LastIndexByte(method, '/')+1:]
	for _, read := range []string{"Get", "List", "Explain"} {
		if strings.HasPrefix(name, read) {
			return true
		}
	}
	return false
}

func countsOnce(r *clipperv1.FeedbackRequest) bool { return r.GetFeedbackId() != "" || r.GetId() != "" }

// delay is how long to wait after an attempt: between half and all of a time that doubles, so that
// clients do not come back together, and no less than the server asks for.
func delay(attempt int, least time.Duration) time.Duration {
	d := min(firstDelay<<min(attempt-1, 10), maxDelay)
	return max(d/2+rand.N(d/2), least) //nolint:gosec // It only spreads.
}

// wait reports whether the time passed before the context's end; it does not wait for what cannot.
func wait(ctx context.Context, d time.Duration) bool {
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// stream gives the errors of a stream their reasons.
func stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, conn, method, opts...)
	if err != nil {
		return nil, errorOf(err)
	}
	return reasonStream{s}, nil
}

type reasonStream struct{ grpc.ClientStream }

// RecvMsg implements grpc.ClientStream; the end of the stream stays io.EOF.
func (s reasonStream) RecvMsg(m any) error { return reasoned(s.ClientStream.RecvMsg(m)) }

// SendMsg implements grpc.ClientStream; io.EOF says that RecvMsg has the error.
func (s reasonStream) SendMsg(m any) error { return reasoned(s.ClientStream.SendMsg(m)) }

// CloseSend implements grpc.ClientStream.
func (s reasonStream) CloseSend() error { return reasoned(s.ClientStream.CloseSend()) }
