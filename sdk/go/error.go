// SPDX-License-Identifier: Apache-2.0

package clipper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Reason is why a call failed, for programs to test:
//
//	if errors.Is(err, clipper.ReasonOverloaded) { ... }
//
// A newer server may give reasons that are not among the constants.
type Reason string

// The reasons. What to do about each is said in docs/errors.md.
const (
	ReasonMalformedJSON         Reason = "MALFORMED_JSON"          // The request body is not well-formed JSON, or has an unknown or repeated key.
	ReasonInvalidField          Reason = "INVALID_FIELD"           // A field has a value that is not allowed.
	ReasonMissingField          Reason = "MISSING_FIELD"           // A required field is missing.
	ReasonInputType             Reason = "INPUT_TYPE"              // An input's element type is not the signature's.
	ReasonInputShape            Reason = "INPUT_SHAPE"             // An input's shape or number of elements is not the signature's, or it is empty.
	ReasonInputValue            Reason = "INPUT_VALUE"             // An input holds a value that cannot be used: not a number, infinite, or out of its type's range.
	ReasonTooLarge              Reason = "TOO_LARGE"               // The request or its input is larger than the limit.
	ReasonApplicationNotFound   Reason = "APPLICATION_NOT_FOUND"   // No application has this name.
	ReasonApplicationExists     Reason = "APPLICATION_EXISTS"      // An application of this name exists.
	ReasonModelNotFound         Reason = "MODEL_NOT_FOUND"         // No model has this name.
	ReasonVersionNotFound       Reason = "VERSION_NOT_FOUND"       // The model has no such version.
	ReasonVersionExists         Reason = "VERSION_EXISTS"          // The model has this version already; versions are immutable.
	ReasonInUse                 Reason = "IN_USE"                  // The model version is the current one or is used by an application.
	ReasonSignatureMismatch     Reason = "SIGNATURE_MISMATCH"      // The model's signature does not fit the application.
	ReasonPolicyInvalid         Reason = "POLICY_INVALID"          // The selection policy is not known or a parameter of it is out of range.
	ReasonConflict              Reason = "CONFLICT"                // Someone else changed the resource since it was read.
	ReasonFeedbackIDInvalid     Reason = "FEEDBACK_ID_INVALID"     // The feedback_id is not one that this installation made.
	ReasonFeedbackIDExpired     Reason = "FEEDBACK_ID_EXPIRED"     // The feedback_id is older than the application's feedback lifetime.
	ReasonFeedbackIDApplication Reason = "FEEDBACK_ID_APPLICATION" // The feedback_id belongs to another application.
	ReasonTruthInvalid          Reason = "TRUTH_INVALID"           // The truth or reward is of the wrong kind or out of range.
	ReasonDeadline              Reason = "DEADLINE"                // The deadline had passed, or passed before the call was done.
	ReasonOverloaded            Reason = "OVERLOADED"              // More is asked than can be answered in time; RetryAfter says when to come back.
	ReasonUnavailable           Reason = "UNAVAILABLE"             // A service or replica that is needed cannot be reached now.
	ReasonStoreUnavailable      Reason = "STORE_UNAVAILABLE"       // The store cannot be reached now.
	ReasonModelFailed           Reason = "MODEL_FAILED"            // The model refused or failed the query; the message is the container's.
	ReasonModelProtocol         Reason = "MODEL_PROTOCOL"          // The model answered something that breaks the container protocol or its own signature.
	ReasonInternal              Reason = "INTERNAL"                // An error in Clipper itself; the log has the cause.
	ReasonUnknownMethod         Reason = "UNKNOWN_METHOD"          // The method or path does not exist.
	ReasonContextNotFound       Reason = "CONTEXT_NOT_FOUND"       // The context, a user or session, has no selection state of its own.
	ReasonLaunchFailed          Reason = "LAUNCH_FAILED"           // The replica cannot be started as described.
	ReasonPolicyFailed          Reason = "POLICY_FAILED"           // The application's custom policy cannot be reached or answers what it must not.
	ReasonNoCanary              Reason = "NO_CANARY"               // The application has no canary.
	ReasonUnauthenticated       Reason = "UNAUTHENTICATED"         // The call has no credentials that are valid.
	ReasonPermissionDenied      Reason = "PERMISSION_DENIED"       // The credentials do not allow the call.
	ReasonRateLimited           Reason = "RATE_LIMITED"            // The limit of calls is reached; RetryAfter says when to come back.
	ReasonKeyNotFound           Reason = "KEY_NOT_FOUND"           // No API key has this id.
)

// Error implements error, so that a reason can be the target of errors.Is.
func (r Reason) Error() string { return string(r) }

// Error is why a call, or one item of a batch or stream, failed.
type Error struct {
	// Code is the gRPC code, the class of the error.
	Code codes.Code
	// Reason is the cause; "" when the error does not come from Clipper and says none.
	Reason Reason
	// Message is for people: what is wrong, where, and what was expected.
	Message string
	// Field is the path of the request's field at fault; "" when there is none.
	Field string
	// RetryAfter is the time after which a repetition may succeed; 0 when that is not known.
	RetryAfter time.Duration

	status *status.Status
}

// Error implements error.
func (e *Error) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("clipper: %s: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("clipper: %s: %s", e.Reason, e.Message)
}

// Is reports whether target is the error's reason, or the error of a context that has the same meaning.
func (e *Error) Is(target error) bool {
	if r, ok := target.(Reason); ok {
		return e.Reason == r
	}
	return e.Code == codes.DeadlineExceeded && target == context.DeadlineExceeded ||
		e.Code == codes.Canceled && target == context.Canceled
}

// GRPCStatus is the status behind the error, for status.FromError and status.Code.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// ItemError returns the error of an item of a batch or a stream; nil for none.
func ItemError(e *clipperv1.Error) error {
	if e == nil {
		return nil
	}
	err := &Error{
		Code: codes.Code(e.GetCode()), Message: e.GetMessage(), Field: e.GetField(), RetryAfter: e.GetRetryAfter().AsDuration(),
		status: status.New(codes.Code(e.GetCode()), e.GetMessage()),
	}
	if e.GetReason() != clipperv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		err.Reason = Reason(e.GetReason().String()[len("ERROR_REASON_"):])
	}
	return err
}

// errorOf reads a status error. A call that was not answered has no details: then the code says the reason.
func errorOf(err error) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	st := status.Convert(err)
	e := &Error{Code: st.Code(), Message: st.Message(), status: st}
	switch e.Code {
	case codes.DeadlineExceeded:
		e.Reason = ReasonDeadline
	case codes.Unavailable:
		e.Reason = ReasonUnavailable
	}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == "clipper.dev" {
				e.Reason, e.Field = Reason(d.GetReason()), d.GetMetadata()["field"]
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	return e
}

// reasoned is errorOf for streams, whose end is not an error.
func reasoned(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return errorOf(err)
}
