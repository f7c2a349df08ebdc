// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/clipper-serving/clipper/frontend/naturaljson"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
)

const (
	malformed    = clipperv1.ErrorReason_ERROR_REASON_MALFORMED_JSON
	invalidField = clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD
	missingField = clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD
	inputShape   = clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE
	tooLarge     = clipperv1.ErrorReason_ERROR_REASON_TOO_LARGE
)

func invalid(field, format string, args ...any) error {
	return apierror.Invalid(invalidField, field, format, args...)
}

func missing(field, format string, args ...any) error {
	return apierror.Invalid(missingField, field, format, args...)
}

func unavailable(message string) error {
	return apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "", "%s", message)
}

// methodError is a method that a path does not have.
type methodError struct {
	allow string
	err   error
}

func (e methodError) Error() string { return e.err.Error() }

// encodingError is a content encoding that is not known.
type encodingError struct{ err error }

func (e encodingError) Error() string { return e.err.Error() }

// writeError answers with an error, in the form that the protocol's clients read: one member, a text.
func writeError(w http.ResponseWriter, err error) {
	var (
		method   methodError
		encoding encodingError
		status   int
	)
	switch {
	case errors.As(err, &method):
		err, status = method.err, http.StatusMethodNotAllowed
		w.Header().Set("Allow", method.allow)
	case errors.As(err, &encoding):
		err, status = encoding.err, http.StatusUnsupportedMediaType
		w.Header().Set("Accept-Encoding", "gzip, deflate")
	}
	e := apierror.ToProto(err)
	if status == 0 {
		status = httpStatus(e)
	}
	if after := e.GetRetryAfter(); after != nil {
		seconds := (after.AsDuration() + time.Second - 1) / time.Second
		w.Header().Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	}
	b := append([]byte(`{"error":`), naturaljson.AppendText(nil, e.GetMessage())...)
	b = append(b, '}')
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b) // The client may be gone.
}

// httpStatus returns the HTTP status for an error. Where Triton has one of its own for a code, and it
// is not wrong, that is it.
func httpStatus(e *clipperv1.Error) int {
	switch codes.Code(e.GetCode()) {
	case codes.InvalidArgument, codes.OutOfRange, codes.FailedPrecondition, codes.AlreadyExists:
		if e.GetReason() == tooLarge {
			return http.StatusRequestEntityTooLarge
		}
		return http.StatusBadRequest
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.NotFound:
		return http.StatusNotFound
	case codes.Aborted:
		return http.StatusConflict
	case codes.ResourceExhausted:
		if e.GetReason() == tooLarge {
			return http.StatusRequestEntityTooLarge
		}
		return http.StatusTooManyRequests
	case codes.Canceled:
		return 499 // As nginx has it: the client has gone.
	case codes.Unimplemented:
		return http.StatusNotImplemented
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}
