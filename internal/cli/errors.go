// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
)

// failure is an error with an exit code of its own.
type failure struct {
	code int
	// message is one line; details, if any, follow it for people.
	message, details string
}

func (f *failure) Error() string { return f.message }

func (f *failure) description() description {
	return description{ExitCode: f.code, Message: f.message, Details: f.details}
}

// interrupted is the error of a command that the user ends.
var interrupted = &failure{code: ExitInterrupted, message: "interrupted"}

func usagef(format string, args ...any) error {
	return &failure{code: ExitUsage, message: fmt.Sprintf(format, args...)}
}

// asUsage returns an error of the parser with the way to do it right.
func asUsage(err error) error {
	var node *kong.Node
	if parse := (*kong.ParseError)(nil); errors.As(err, &parse) {
		node = parse.Context.Selected()
	}
	return &failure{code: ExitUsage, message: err.Error(), details: usageOf(node)}
}

func usageOf(node *kong.Node) string {
	if node == nil {
		return "See `clipper --help`."
	}
	see := fmt.Sprintf("See `%s --help`.", node.FullPath())
	if example := example(node); example != "" {
		return fmt.Sprintf("For example: %s\n%s", example, see)
	}
	return see
}

// callError is an error of a call to a server.
type callError struct {
	flag, address string
	waited        time.Duration
	err           error
}

func (e *callError) Error() string { return e.err.Error() }
func (e *callError) Unwrap() error { return e.err }

// hints say what to do about an error.
var hints = map[clipperv1.ErrorReason]string{
	clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND: "`clipper app list` shows those that exist",
	clipperv1.ErrorReason_ERROR_REASON_APPLICATION_EXISTS:    "`clipper app update` changes it",
	clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND:       "`clipper model list` shows those that exist",
	clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND:     "`clipper model list` shows those that exist",
	clipperv1.ErrorReason_ERROR_REASON_VERSION_EXISTS:        "versions are immutable: choose another --version",
	clipperv1.ErrorReason_ERROR_REASON_CONTEXT_NOT_FOUND:     "`clipper app contexts` shows those that exist",
	clipperv1.ErrorReason_ERROR_REASON_KEY_NOT_FOUND:         "`clipper key list` shows those that exist",
	clipperv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED:       "--api-key-file or CLIPPER_API_KEY names the key to call with",
	clipperv1.ErrorReason_ERROR_REASON_CONFLICT:              "someone else changed it: look and try again",
}

// report writes an error, if there is one, and returns its exit code.
func report(t Terminal, asJSON bool, err error) int {
	if err == nil {
		return ExitOK
	}
	d := describe(err)
	if asJSON {
		_ = json.NewEncoder(t.Stderr).Encode(map[string]any{"error": d})
		return d.ExitCode
	}
	_, _ = fmt.Fprintf(t.Stderr, "clipper: %s\n", strings.ReplaceAll(strings.TrimSpace(d.Message), "\n", " "))
	if d.Details != "" {
		_, _ = fmt.Fprintln(t.Stderr, strings.TrimRight(d.Details, "\n"))
	}
	return d.ExitCode
}

// description is an error as it is shown.
type description struct {
	ExitCode int    `json:"exit_code"`
	Code     string `json:"code,omitempty"`   // The gRPC code, "NOT_FOUND".
	Reason   string `json:"reason,omitempty"` // The ErrorReason without its prefix.
	Field    string `json:"field,omitempty"`  // The request field at fault.
	Message  string `json:"message"`
	Details  string `json:"details,omitempty"`
}

func describe(err error) description {
	if f := (*failure)(nil); errors.As(err, &f) {
		return f.description()
	}
	call := (*callError)(nil)
	if !errors.As(err, &call) {
		return description{ExitCode: ExitFailed, Message: err.Error()}
	}
	st := status.Convert(call.err)
	e := apierror.ToProto(call.err)
	d := description{ExitCode: ExitFailed, Code: codeName(st.Code()), Field: e.GetField(), Message: st.Message()}
	known := e.GetReason() != clipperv1.ErrorReason_ERROR_REASON_UNSPECIFIED
	if known {
		d.Reason = strings.TrimPrefix(e.GetReason().String(), "ERROR_REASON_")
	}
	switch st.Code() {
	case codes.Canceled:
		return interrupted.description()
	case codes.NotFound:
		d.ExitCode = ExitNotFound
	case codes.Unavailable:
		d.ExitCode = ExitUnreachable
		switch {
		case !known && aboutTLS(st.Message()):
			d.Message = fmt.Sprintf("cannot speak with %s (%s): see --tls, --tls-ca and --tls-cert, and whether --%s speaks TLS", call.address, cause(st.Message()), call.flag)
		case !known:
			d.Message = fmt.Sprintf("cannot reach %s (%s): start it with `clipper up`, or name another address with --%s", call.address, cause(st.Message()), call.flag)
		}
	case codes.DeadlineExceeded:
		if !known {
			d.ExitCode = ExitUnreachable
			d.Message = fmt.Sprintf("no answer from %s within %s: is it the right address (--%s)? --timeout waits longer", call.address, duration(call.waited), call.flag)
		}
	case codes.Unimplemented:
		d.ExitCode = ExitUnreachable
		d.Message = fmt.Sprintf("%s does not serve this: --%s must name another listener", call.address, call.flag)
	}
	if hint := hints[e.GetReason()]; hint != "" {
		d.Message += " (" + hint + ")"
	}
	if e.GetRetryAfter() != nil {
		d.Message += fmt.Sprintf(" (try again in %s)", duration(e.GetRetryAfter().AsDuration()))
	}
	return d
}

// codeName returns a code as the API documents it.
func codeName(code codes.Code) string {
	name := []byte(nil)
	for i, c := range code.String() {
		if i > 0 && c >= 'A' && c <= 'Z' {
			name = append(name, '_')
		}
		name = append(name, byte(c))
	}
	return strings.ToUpper(string(name))
}

// aboutTLS reports whether a connection failed by what one side expects of the other, which a plain client
// sees as a server that hangs up.
func aboutTLS(message string) bool {
	for _, sign := range []string{"tls: ", "x509: ", "handshake", "server preface", "broken pipe"} {
		if strings.Contains(message, sign) {
			return true
		}
	}
	return false
}

// cause returns the last part of gRPC's account of a connection that failed.
func cause(message string) string {
	message = strings.TrimRight(message, `"`)
	if i := strings.LastIndex(message, ": "); i >= 0 {
		message = message[i+2:]
	}
	return message
}

// newResultError returns the error of one item of a batch.
func newResultError(e *clipperv1.Error) *resultError {
	return &resultError{
		Code:    codeName(codes.Code(e.GetCode())),
		Reason:  strings.TrimPrefix(e.GetReason().String(), "ERROR_REASON_"),
		Message: e.GetMessage(),
		Field:   e.GetField(),
	}
}
