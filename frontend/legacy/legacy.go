// SPDX-License-Identifier: Apache-2.0

// Package legacy serves the REST APIs of the original Clipper (release 0.4.1), so that programs written
// for it, its Python client among them, can be kept as they are: paths, bodies, texts, the order of keys
// and status codes are the original's. docs/legacy.md lists where they differ, which is where the
// original crashed or did not answer.
//
// It is a translation: what it is asked goes to the services of the frontend over a connection, with the
// caller's credentials, and is checked and limited there as any other call.
package legacy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/auth"
)

// Limits of a request's body.
type Limits struct {
	// MaxBody is the most bytes that it may have.
	MaxBody int64
	// BodyTimeout is how long it may take to arrive.
	BodyTimeout time.Duration
}

// unexpected is what the original said of an error that is its own.
const unexpected = "An unexpected error occurred!"

// reply is an answer: a status and a body, which is called JSON whether it is or not.
type reply struct {
	code int
	body []byte
	err  error // Why, when it is an error of our services.
}

func text(code int, format string, args ...any) reply {
	return reply{code: code, body: fmt.Appendf(nil, format, args...)}
}

// write answers a request. Every answer of the original had this content type.
func (r reply) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(r.body)))
	if r.code == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	if wait := apierror.ToProto(r.err).GetRetryAfter().AsDuration(); wait > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((wait+time.Second-1)/time.Second), 10))
	}
	w.WriteHeader(r.code)
	_, _ = w.Write(r.body) // The client may be gone.
}

// httpCode is the status of an error of our services. What the original knew is 400 or 500; the others
// are for what it had not.
func httpCode(err error) int {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.FailedPrecondition, codes.AlreadyExists, codes.NotFound, codes.Aborted, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Unavailable, codes.DeadlineExceeded:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// nowhere answers a request for which there is nothing. The original closed the connection.
func nowhere(w http.ResponseWriter, r *http.Request) {
	text(http.StatusNotFound, "There is nothing at %.200s", r.URL.EscapedPath()).write(w)
}

// only answers a request with a method that the path does not have. The original closed the connection.
func only(w http.ResponseWriter, r *http.Request, method string) {
	w.Header().Set("Allow", method)
	text(http.StatusMethodNotAllowed, "Use %s for %.200s", method, r.URL.EscapedPath()).write(w)
}

// read reads a body within its limits.
func (l Limits) read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	control := http.NewResponseController(w)
	// A connection that has no deadlines is one of a test.
	_ = control.SetReadDeadline(time.Now().Add(l.BodyTimeout))
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, l.MaxBody))
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return nil, fmt.Errorf("the request body has more than %d bytes, the limit", l.MaxBody)
		}
		return nil, fmt.Errorf("the request body did not arrive whole within %s", l.BodyTimeout)
	}
	_ = control.SetReadDeadline(time.Time{})
	return data, nil
}

// decode reads a body as JSON.
func (l Limits) decode(w http.ResponseWriter, r *http.Request) *body {
	b := &body{}
	data, err := l.read(w, r)
	if err == nil {
		b.root, err = parse(data)
	}
	b.err = err
	return b
}

// calling returns the context of calls for a request, with its credentials and where it came from.
func calling(r *http.Request) context.Context {
	return auth.Outgoing(auth.WithRemote(r.Context(), r.RemoteAddr), r.Header)
}

// unlinked is the model of applications that are linked to none: it has no replicas. Our applications
// have at least one model, the original's begin without.
const unlinked = "legacy.unlinked"

// links returns the names of the models that an application is linked to, each once.
func links(a *clipperv1.Application) []string {
	names := []string{}
	seen := map[string]bool{unlinked: true}
	for _, m := range a.GetModels() {
		if !seen[m.GetModel()] {
			seen[m.GetModel()] = true
			names = append(names, m.GetModel())
		}
	}
	return names
}
