// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// RPC observes the calls that a server handles. Its methods Unary and Stream are
// interceptors, to be the outermost ones of a server or of an in-process
// connection. They
//
//   - turn a panic into codes.Internal and log it with its stack;
//   - keep errors that carry no status from the caller, who gets
//     codes.Internal without a reason; the reason is logged;
//   - measure how long calls take and how many are in flight;
//   - log calls: failures at the level that their code deserves, but at most one
//     a second for each method and code, with the number left out; every call at
//     debug level.
//
// All of it is one interceptor, rather than one of a chain for each, because it
// is in the way of every query. An RPC is safe for concurrent use.
type RPC struct {
	log      *slog.Logger
	handling *prometheus.HistogramVec
	inFlight *prometheus.GaugeVec
	methods  sync.Map // From full method name to *rpcMethod.
}

// NewRPC returns an observer whose metrics are registered with metrics.
func NewRPC(log *slog.Logger, metrics prometheus.Registerer) (*RPC, error) {
	r := &RPC{
		log: log,
		handling: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "clipper_grpc_server_handling_seconds",
			Help: "How long handled calls took, from the decoded request to the handler's return. For streams: how long they were open.",
			Buckets: []float64{
				.00025, .0005, .001, .0025, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10,
			},
		}, []string{"service", "method", "code"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "clipper_grpc_server_in_flight_calls",
			Help: "Calls that are being handled; open streams among them.",
		}, []string{"service", "method"}),
	}
	for _, c := range []prometheus.Collector{r.handling, r.inFlight} {
		if err := metrics.Register(c); err != nil {
			return nil, fmt.Errorf("register RPC metrics: %w", err)
		}
	}
	return r, nil
}

// Unary is a grpc.UnaryServerInterceptor.
func (r *RPC) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (reply any, err error) {
	m := r.method(info.FullMethod)
	m.inFlight.Inc()
	start := time.Now()
	defer func() {
		if p := recover(); p != nil {
			reply, err = nil, newPanicError(p)
		}
		err = r.finish(ctx, m, start, err)
	}()
	return handler(ctx, req)
}

// Stream is a grpc.StreamServerInterceptor.
func (r *RPC) Stream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	m := r.method(info.FullMethod)
	m.inFlight.Inc()
	start := time.Now()
	defer func() {
		if p := recover(); p != nil {
			err = newPanicError(p)
		}
		err = r.finish(stream.Context(), m, start, err)
	}()
	return handler(service, stream)
}

// rpcMethod is what is known about one method.
type rpcMethod struct {
	service, name string
	inFlight      prometheus.Gauge
	ok            prometheus.Observer // Of the code OK, which is nearly all of them.
	failures      [codes.Unauthenticated + 1]sampler
}

func (r *RPC) method(full string) *rpcMethod {
	if m, ok := r.methods.Load(full); ok {
		return m.(*rpcMethod) //nolint:forcetypeassert // Nothing else is stored.
	}
	service, name, _ := strings.Cut(strings.TrimPrefix(full, "/"), "/")
	m, _ := r.methods.LoadOrStore(full, &rpcMethod{
		service:  service,
		name:     name,
		inFlight: r.inFlight.WithLabelValues(service, name),
		ok:       r.handling.WithLabelValues(service, name, codes.OK.String()),
	})
	return m.(*rpcMethod) //nolint:forcetypeassert // Nothing else is stored.
}

// finish accounts for a call and returns the error that its caller may see.
func (r *RPC) finish(ctx context.Context, m *rpcMethod, start time.Time, err error) error {
	m.inFlight.Dec()
	took := time.Since(start)
	if err == nil {
		m.ok.Observe(took.Seconds())
		if r.log.Enabled(ctx, slog.LevelDebug) {
			r.log.LogAttrs(ctx, slog.LevelDebug, "call", m.attrs(codes.OK, took)...)
		}
		return nil
	}
	public := publicError(err)
	code := status.Code(public)
	r.handling.WithLabelValues(m.service, m.name, code.String()).Observe(took.Seconds())
	if level := failureLevel(code); r.log.Enabled(ctx, level) {
		if omitted, ok := m.sample(code, start.Add(took)); ok || r.log.Enabled(ctx, slog.LevelDebug) {
			attrs := append(m.attrs(code, took), slog.Any("error", err))
			if omitted > 0 {
				attrs = append(attrs, slog.Int64("omitted", omitted))
			}
			if p := (*panicError)(nil); errors.As(err, &p) {
				attrs = append(attrs, slog.String("stack", p.stack))
			}
			r.log.LogAttrs(ctx, level, "call failed", attrs...)
		}
	}
	return public
}

func (m *rpcMethod) attrs(code codes.Code, took time.Duration) []slog.Attr {
	return []slog.Attr{
		slog.String("service", m.service),
		slog.String("method", m.name),
		slog.String("code", code.String()),
		slog.Duration("took", took),
	}
}

func (m *rpcMethod) sample(code codes.Code, now time.Time) (omitted int64, ok bool) {
	if int(code) >= len(m.failures) {
		return 0, true
	}
	return m.failures[code].take(now)
}

// failureLevel is how much an operator should care: errors are faults of the
// server, warnings are of its surroundings or load, the rest are the caller's.
func failureLevel(code codes.Code) slog.Level {
	switch code {
	case codes.Unknown, codes.Internal, codes.DataLoss:
		return slog.LevelError
	case codes.Unavailable, codes.ResourceExhausted, codes.DeadlineExceeded:
		return slog.LevelWarn
	default:
		return slog.LevelInfo
	}
}

// publicError is err as its caller may see it: an error that carries a status
// was meant for the caller, any other was not.
func publicError(err error) error {
	if s, ok := status.FromError(err); ok {
		return s.Err()
	}
	switch {
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, "call cancelled")
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "deadline exceeded")
	default:
		return status.Error(codes.Internal, "internal error")
	}
}

// panicError is a handler's panic.
type panicError struct {
	value any
	stack string
}

func newPanicError(value any) *panicError {
	return &panicError{value: value, stack: string(debug.Stack())}
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// sampler lets one event a second pass.
type sampler struct {
	next    atomic.Int64 // When one may pass again, in Unix nanoseconds.
	omitted atomic.Int64
}

// take reports whether an event at the given time may pass and, if so, how many
// were held back since the last.
func (s *sampler) take(now time.Time) (omitted int64, ok bool) {
	next := s.next.Load()
	if now.UnixNano() < next || !s.next.CompareAndSwap(next, now.Add(time.Second).UnixNano()) {
		s.omitted.Add(1)
		return 0, false
	}
	return s.omitted.Swap(0), true
}
