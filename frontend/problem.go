// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/clipper-serving/clipper/frontend/naturaljson"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// problemType is the content type of errors: problem details of RFC 9457.
const problemType = "application/problem+json"

// titles say in general what each reason means: the member `title` of a problem, the same for all of a type.
var titles = map[clipperv1.ErrorReason]string{
	clipperv1.ErrorReason_ERROR_REASON_MALFORMED_JSON:          "The JSON is malformed",
	clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD:           "A field has a wrong value",
	clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD:           "A field is missing",
	clipperv1.ErrorReason_ERROR_REASON_INPUT_TYPE:              "The input has a wrong type",
	clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE:             "The input has a wrong shape",
	clipperv1.ErrorReason_ERROR_REASON_INPUT_VALUE:             "The input has a value that its type cannot hold",
	clipperv1.ErrorReason_ERROR_REASON_TOO_LARGE:               "The request is too large",
	clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND:   "There is no such application",
	clipperv1.ErrorReason_ERROR_REASON_APPLICATION_EXISTS:      "The application exists",
	clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND:         "There is no such model",
	clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND:       "There is no such version",
	clipperv1.ErrorReason_ERROR_REASON_VERSION_EXISTS:          "The version exists",
	clipperv1.ErrorReason_ERROR_REASON_IN_USE:                  "It is in use",
	clipperv1.ErrorReason_ERROR_REASON_SIGNATURE_MISMATCH:      "The signatures do not match",
	clipperv1.ErrorReason_ERROR_REASON_POLICY_INVALID:          "The policy is invalid",
	clipperv1.ErrorReason_ERROR_REASON_CONFLICT:                "Somebody else has changed it",
	clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_INVALID:     "The feedback_id is invalid",
	clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_EXPIRED:     "The feedback comes too late",
	clipperv1.ErrorReason_ERROR_REASON_FEEDBACK_ID_APPLICATION: "The feedback_id is of another application",
	clipperv1.ErrorReason_ERROR_REASON_TRUTH_INVALID:           "The truth is invalid",
	clipperv1.ErrorReason_ERROR_REASON_DEADLINE:                "The time was over",
	clipperv1.ErrorReason_ERROR_REASON_OVERLOADED:              "There is too much load",
	clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE:             "A service cannot be reached",
	clipperv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE:       "The store cannot be reached",
	clipperv1.ErrorReason_ERROR_REASON_MODEL_FAILED:            "The model has failed",
	clipperv1.ErrorReason_ERROR_REASON_MODEL_PROTOCOL:          "The model's container breaks the protocol",
	clipperv1.ErrorReason_ERROR_REASON_INTERNAL:                "Clipper has failed",
	clipperv1.ErrorReason_ERROR_REASON_UNKNOWN_METHOD:          "There is no such operation",
	clipperv1.ErrorReason_ERROR_REASON_CONTEXT_NOT_FOUND:       "The context has no state of its own",
	clipperv1.ErrorReason_ERROR_REASON_LAUNCH_FAILED:           "The replica cannot be started",
	clipperv1.ErrorReason_ERROR_REASON_POLICY_FAILED:           "The custom policy has failed",
	clipperv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED:         "It is not known who calls",
	clipperv1.ErrorReason_ERROR_REASON_PERMISSION_DENIED:       "The caller may not do this",
	clipperv1.ErrorReason_ERROR_REASON_RATE_LIMITED:            "The caller or the application has reached a limit",
	clipperv1.ErrorReason_ERROR_REASON_KEY_NOT_FOUND:           "There is no such key",
	clipperv1.ErrorReason_ERROR_REASON_NO_CANARY:               "The application has no canary",
}

// appendError appends an error as the REST API writes it, alone and in the results of a batch: problem details of
// RFC 9457, which mirror the google.rpc.Status of the error in gRPC.
func appendError(b []byte, e *clipperv1.Error) []byte { return appendProblem(b, e, httpStatus(e)) }

func appendProblem(b []byte, e *clipperv1.Error, status int) []byte {
	name, title := "", http.StatusText(status)
	if title == "" {
		title = "The caller has left" // 499 is nobody's.
	}
	b = append(b, `{"type":"`...)
	if r := reason(e); r == clipperv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		b = append(b, "about:blank"...)
	} else {
		name, title = strings.TrimPrefix(r.String(), "ERROR_REASON_"), titles[r]
		b = append(append(b, "urn:clipper:error:"...), name...)
	}
	b = append(b, `","title":`...)
	b = naturaljson.AppendText(b, title)
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, `,"detail":`...)
	b = naturaljson.AppendText(b, e.GetMessage())
	b = append(b, `,"code":"`...)
	b = append(b, codeName(codes.Code(e.GetCode()))...)
	b = append(b, '"')
	if name != "" {
		b = append(b, `,"reason":"`...)
		b = append(b, name...)
		b = append(b, '"')
	}
	if e.GetField() != "" {
		b = append(b, `,"field":`...)
		b = naturaljson.AppendText(b, e.GetField())
	}
	if after := e.GetRetryAfter(); after != nil {
		b = append(b, `,"retry_after_ms":`...)
		b = strconv.AppendInt(b, after.AsDuration().Milliseconds(), 10)
	}
	return append(b, '}')
}
