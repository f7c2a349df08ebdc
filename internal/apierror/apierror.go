// SPDX-License-Identifier: Apache-2.0

// Package apierror makes and reads the errors that callers see: a gRPC status with a message for
// people, a google.rpc.ErrorInfo for programs and, when it helps, the time to come back.
//
// Services return these errors from the place that knows the cause; nothing maps them later. Any
// other error that reaches the edge is an internal one and its text is not shown.
package apierror

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Domain is the domain of every ErrorInfo.
const Domain = "clipper.dev"

// fieldKey is the ErrorInfo metadata key that holds the path of the field at fault.
const fieldKey = "field"

const reasonPrefix = "ERROR_REASON_"

// New returns a status error. The message says what is wrong, where, and what was expected; field
// is the path of the request field at fault, or empty.
func New(code codes.Code, reason clipperv1.ErrorReason, field, format string, args ...any) error {
	return build(code, reason, field, fmt.Sprintf(format, args...))
}

// Invalid is New with codes.InvalidArgument.
func Invalid(reason clipperv1.ErrorReason, field, format string, args ...any) error {
	return build(codes.InvalidArgument, reason, field, fmt.Sprintf(format, args...))
}

// Overloaded returns a RESOURCE_EXHAUSTED error that tells when to come back.
func Overloaded(retryAfter time.Duration, format string, args ...any) error {
	return build(codes.ResourceExhausted, clipperv1.ErrorReason_ERROR_REASON_OVERLOADED, "", fmt.Sprintf(format, args...),
		&errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)})
}

// RateLimited returns a RESOURCE_EXHAUSTED error for a caller who asks too much, that tells when to come back.
func RateLimited(retryAfter time.Duration, format string, args ...any) error {
	return build(codes.ResourceExhausted, clipperv1.ErrorReason_ERROR_REASON_RATE_LIMITED, "", fmt.Sprintf(format, args...),
		&errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)})
}

func build(code codes.Code, reason clipperv1.ErrorReason, field, message string, more ...protoadapt.MessageV1) error {
	info := &errdetails.ErrorInfo{Reason: strings.TrimPrefix(reason.String(), reasonPrefix), Domain: Domain}
	if field != "" {
		info.Metadata = map[string]string{fieldKey: field}
	}
	st, err := status.New(code, message).WithDetails(append([]protoadapt.MessageV1{info}, more...)...)
	if err != nil {
		return status.Error(code, message)
	}
	return st.Err()
}

// From returns err as a status error that may be shown: a status stays as it is, the errors of
// contexts become DEADLINE_EXCEEDED and CANCELLED, and anything else becomes an INTERNAL error
// without err's text. It returns nil for nil.
func From(err error) error {
	if err == nil {
		return nil
	}
	if st, ok := status.FromError(err); ok {
		return st.Err()
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return New(codes.DeadlineExceeded, clipperv1.ErrorReason_ERROR_REASON_DEADLINE, "", "the deadline passed before the call was done")
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, "the caller cancelled the call")
	}
	return New(codes.Internal, clipperv1.ErrorReason_ERROR_REASON_INTERNAL, "", "an internal error occurred; the server's log has the cause")
}

// Reason returns the reason that err carries, or ERROR_REASON_UNSPECIFIED.
func Reason(err error) clipperv1.ErrorReason {
	return ToProto(err).GetReason()
}

// ToProto returns err as the message that batches and streams carry, or nil for nil.
func ToProto(err error) *clipperv1.Error {
	if err == nil {
		return nil
	}
	st := status.Convert(From(err))
	e := &clipperv1.Error{Code: uint32(st.Code()), Message: st.Message()}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.Domain == Domain {
				e.Reason = clipperv1.ErrorReason(clipperv1.ErrorReason_value[reasonPrefix+d.Reason])
				e.Field = d.Metadata[fieldKey]
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = d.RetryDelay
		}
	}
	return e
}
