// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"bytes"
	"context"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
)

// This file is about requests with conditions (RFC 9110, section 13): what can be edited has an etag, which comes
// in the header ETag. If-Match lets a change happen only to what the client has seen, and If-None-Match spares
// reading an application that is as before.

// setETag is given every answer of the gateway.
func setETag(_ context.Context, w http.ResponseWriter, m proto.Message) error {
	var etag string
	switch m := m.(type) {
	case interface{ GetApplication() *clipperv1.Application }:
		etag = m.GetApplication().GetEtag()
	case interface {
		GetVersion() *clipperv1.ModelVersion
	}:
		etag = m.GetVersion().GetEtag()
	}
	if etag != "" {
		w.Header().Set("ETag", `"`+etag+`"`)
	}
	return nil
}

// ifMatch reads the header If-Match: "" when it demands nothing but that the resource exists.
func ifMatch(h http.Header) (string, error) {
	value := strings.TrimSpace(strings.Join(h.Values("If-Match"), ","))
	if value == "" || value == "*" {
		return "", nil
	}
	etag, ok := strings.CutPrefix(value, `"`)
	if etag, ok2 := strings.CutSuffix(etag, `"`); ok && ok2 && etag != "" && !strings.Contains(etag, `"`) {
		return etag, nil
	}
	return "", apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "If-Match",
		"the header If-Match: expected one etag in quotes, as the header ETag of an answer has it, or *")
}

// editConn gives a change what is not in its body: the mask of the fields that are, and the etag of If-Match.
type editConn struct{ grpc.ClientConnInterface }

func (c editConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	b, _ := ctx.Value(bodyKey{}).(*body)
	if b == nil {
		b = &body{}
	}
	etag := &b.ifMatch
	switch r := args.(type) {
	case *clipperv1.UpdateApplicationRequest:
		if len(b.mask) == 0 {
			return missing("application", "there is nothing to change: expected at least one field of the application")
		}
		r.UpdateMask = &fieldmaskpb.FieldMask{Paths: b.mask}
		if *etag != "" {
			r.Application.Etag = *etag
		}
	case *clipperv1.DeleteApplicationRequest:
		if *etag != "" {
			r.Etag = *etag
		}
	case *clipperv1.UpdateModelVersionRequest:
		if *etag != "" {
			r.Etag = *etag
		}
	default:
		if *etag != "" {
			return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "If-Match",
				"the header If-Match: what this changes has no etag; only applications and versions of models have")
		}
	}
	return c.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
}

// answer takes what the gateway writes, and writes it otherwise where that is too simple: an application that is as
// the client knows it is not sent again, and the error of a stream that has not begun is a problem like any other, not
// a message of the stream.
type answer struct {
	http.ResponseWriter
	known   string // The header If-None-Match.
	begun   bool
	problem bool
	nothing bool // Nothing of the body is sent.
}

// WriteHeader implements http.ResponseWriter.
func (w *answer) WriteHeader(code int) {
	w.begun = true
	w.problem = w.Header().Get("Content-Type") == problemType
	if code == http.StatusOK && w.known != "" && matches(w.known, w.Header().Get("ETag")) {
		w.nothing = true
		w.Header().Del("Content-Type")
		w.Header().Del("Content-Length")
		code = http.StatusNotModified
	}
	w.ResponseWriter.WriteHeader(code)
}

// matches compares weakly, as is right for If-None-Match.
func matches(known, etag string) bool {
	if etag == "" {
		return false
	}
	for one := range strings.SplitSeq(known, ",") {
		if one = strings.TrimPrefix(strings.TrimSpace(one), "W/"); one == etag || one == "*" {
			return true
		}
	}
	return false
}

// Write implements http.ResponseWriter.
func (w *answer) Write(b []byte) (int, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	if w.nothing {
		return len(b), nil
	}
	if inner, ok := bytes.CutPrefix(b, []byte(`{"error":`)); w.problem && ok {
		_, err := w.ResponseWriter.Write(inner[:len(inner)-1])
		return len(b), err
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *answer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush implements http.Flusher, which the gateway asks for.
func (w *answer) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }
