// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"net/http"
	"strconv"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
)

// writeStatus answers with an error.
func writeStatus(w http.ResponseWriter, err error) {
	e := apierror.ToProto(err)
	writeProblem(w, e, httpStatus(e))
}

func writeProblem(w http.ResponseWriter, e *clipperv1.Error, status int) {
	if after := e.GetRetryAfter(); after != nil {
		seconds := (after.AsDuration() + time.Second - 1) / time.Second
		w.Header().Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	}
	if codes.Code(e.GetCode()) == codes.Unauthenticated {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(status)
	_, _ = w.Write(append(appendProblem(nil, e, status), '\n')) // The client may be gone.
}

// httpStatus returns the HTTP status for an error.
func httpStatus(e *clipperv1.Error) int {
	switch reason(e) {
	case clipperv1.ErrorReason_ERROR_REASON_TOO_LARGE:
		return http.StatusRequestEntityTooLarge
	case clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD:
		if e.GetField() == contentEncoding {
			return http.StatusUnsupportedMediaType
		}
	case clipperv1.ErrorReason_ERROR_REASON_UNKNOWN_METHOD:
		if codes.Code(e.GetCode()) == codes.Unimplemented {
			return http.StatusMethodNotAllowed
		}
	}
	return runtime.HTTPStatusFromCode(codes.Code(e.GetCode()))
}

// reason returns an error's reason; for an error that was made outside Clipper's services, the one
// that its code suggests.
func reason(e *clipperv1.Error) clipperv1.ErrorReason {
	if e.GetReason() != clipperv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		return e.GetReason()
	}
	switch codes.Code(e.GetCode()) {
	case codes.InvalidArgument, codes.OutOfRange:
		return clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD
	case codes.DeadlineExceeded:
		return clipperv1.ErrorReason_ERROR_REASON_DEADLINE
	case codes.Unavailable:
		return clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE
	case codes.ResourceExhausted:
		return clipperv1.ErrorReason_ERROR_REASON_OVERLOADED
	case codes.Aborted:
		return clipperv1.ErrorReason_ERROR_REASON_CONFLICT
	case codes.Unimplemented:
		return clipperv1.ErrorReason_ERROR_REASON_UNKNOWN_METHOD
	case codes.Internal, codes.Unknown, codes.DataLoss:
		return clipperv1.ErrorReason_ERROR_REASON_INTERNAL
	}
	return clipperv1.ErrorReason_ERROR_REASON_UNSPECIFIED
}

// codeName returns a code as google.rpc.Code spells it.
func codeName(c codes.Code) string {
	names := [...]string{
		"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
		"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
	}
	if int(c) < len(names) {
		return names[c]
	}
	return "UNKNOWN"
}
