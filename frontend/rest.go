// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/clipper-serving/clipper/frontend/compress"
	"github.com/clipper-serving/clipper/frontend/cors"
	"github.com/clipper-serving/clipper/frontend/explorer"
	gatewayv1 "github.com/clipper-serving/clipper/frontend/gateway/clipper/v1"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/auth"
)

// NewQueryHandler returns the REST API for queries and feedback, which calls the services behind
// conn; /openapi.json, which describes it; and /docs, a page to try it.
func NewQueryHandler(cfg Config, conn grpc.ClientConnInterface) (http.Handler, error) {
	h, err := newHandler(cfg, conn, []string{"QueryService", "FeedbackService"},
		registrar(gatewayv1.RegisterQueryServiceHandlerClient, clipperv1.NewQueryServiceClient),
		registrar(gatewayv1.RegisterFeedbackServiceHandlerClient, clipperv1.NewFeedbackServiceClient))
	if err != nil {
		return nil, err
	}
	h.queries = invoker(conn)
	return Restrict(h, cfg.QueryOrigins)
}

// NewAdminHandler is as NewQueryHandler, for administration.
func NewAdminHandler(cfg Config, conn grpc.ClientConnInterface) (http.Handler, error) {
	h, err := newHandler(cfg, editConn{conn}, []string{"ApplicationService", "ModelService", "KeyService"},
		registrar(gatewayv1.RegisterApplicationServiceHandlerClient, clipperv1.NewApplicationServiceClient),
		registrar(gatewayv1.RegisterModelServiceHandlerClient, clipperv1.NewModelServiceClient),
		registrar(gatewayv1.RegisterKeyServiceHandlerClient, clipperv1.NewKeyServiceClient))
	if err != nil {
		return nil, err
	}
	return Restrict(h, cfg.AdminOrigins)
}

// Restrict lets only web pages of some origins call a handler.
func Restrict(h http.Handler, origins []string) (http.Handler, error) {
	policy, err := cors.New(origins)
	if err != nil {
		return nil, err
	}
	return policy.Handler(h, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writeStatus(w, apierror.New(codes.PermissionDenied, clipperv1.ErrorReason_ERROR_REASON_PERMISSION_DENIED, "Origin",
			"web pages of %s may not call this; the settings query-origins and admin-origins of the frontend name those that may", shorten(r.Header.Get("Origin"))))
	})), nil
}

// register registers the handlers of one service.
type register func(mux *runtime.ServeMux, conn grpc.ClientConnInterface) error

func registrar[Client any](handlers func(context.Context, *runtime.ServeMux, Client) error, client func(grpc.ClientConnInterface) Client) register {
	return func(mux *runtime.ServeMux, conn grpc.ClientConnInterface) error {
		return handlers(context.Background(), mux, client(conn))
	}
}

// newHandler returns a handler for some services.
func newHandler(cfg Config, conn grpc.ClientConnInterface, services []string, registers ...register) (*handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure REST: %w", err)
	}
	docs, err := explorer.New(services)
	if err != nil {
		return nil, err
	}
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, marshaler{}),
		runtime.WithErrorHandler(writeError),
		runtime.WithRoutingErrorHandler(writeRoutingError(docs)),
		runtime.WithForwardResponseOption(setETag),
		// The %2F of a name is part of the name, not of the path. Of one segment this unescapes all characters.
		runtime.WithUnescapingMode(runtime.UnescapingModeAllExceptSlash),
		// A form's content type, which curl gives to any body, has no meaning here.
		runtime.WithDisablePathLengthFallback(),
		// Headers are not metadata, nor the other way, but for the key that says who calls; the gateway
		// reads Authorization and Grpc-Timeout in any case.
		runtime.WithIncomingHeaderMatcher(func(key string) (string, bool) { return "x-api-key", key == "X-Api-Key" }),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingTrailerMatcher(func(string) (string, bool) { return "", false }),
	)
	for _, register := range registers {
		if err := register(mux, conn); err != nil {
			return nil, fmt.Errorf("register REST handlers: %w", err)
		}
	}
	return &handler{cfg: cfg, api: mux, docs: docs}, nil
}

// handler serves the REST API of one listener.
type handler struct {
	cfg     Config
	api     *runtime.ServeMux
	docs    *explorer.Explorer
	queries invoke // Nil where there are none.
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header()["X-Content-Type-Options"] = nosniff
	if h.docs.Serves(r.URL.Path) {
		out := compress.NewWriter(w, r)
		defer func() { _ = out.Close() }() // The client may be gone.
		h.docs.ServeHTTP(out, r)
		return
	}
	if len(r.TransferEncoding) > 0 {
		// It may have had a length too, which net/http leaves out. Whoever is between may have gone by
		// that, so nothing behind this request may be read as another one (RFC 9112, section 6.1).
		w.Header().Set("Connection", "close")
	}
	b := bodies.get()
	if r.Body != nil && r.Body != http.NoBody {
		if err := h.read(w, r, b); err != nil {
			w.Header().Set("Connection", "close")
			writeStatus(w, err)
			return
		}
	}
	// What calls the services with the request's context has its credentials; the gateway takes them itself.
	if ctx := auth.Outgoing(r.Context(), r.Header); ctx != r.Context() {
		r = r.WithContext(ctx)
	}
	if application, ok := h.plainQuery(r); ok {
		h.query(w, r, application, b.data)
		bodies.put(b) // The call is over and has copied what it keeps.
		return
	}
	var err error
	if b.ifMatch, err = ifMatch(r.Header); err != nil {
		writeStatus(w, err)
		return
	}
	r = r.WithContext(context.WithValue(auth.WithRemote(r.Context(), r.RemoteAddr), bodyKey{}, b))
	r.Body = b
	out := compress.NewWriter(w, r)
	defer func() { _ = out.Close() }() // The client may be gone.
	a := &answer{ResponseWriter: out}
	if r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/v1/applications/") {
		a.known = r.Header.Get("If-None-Match") // Models tell of their replicas, too, which no etag covers.
	}
	h.api.ServeHTTP(a, r)
	if !a.begun { // A stream that was over before it had a line.
		a.Header().Set("Content-Type", marshaler{}.StreamContentType(nil))
		a.WriteHeader(http.StatusOK)
	}
}

// contentEncoding is the field that names how a body is compressed.
const contentEncoding = "Content-Encoding"

// read reads a body within the limits of size and time. The limit of size is that of what is sent and
// of what it expands to.
func (h *handler) read(w http.ResponseWriter, r *http.Request, b *body) error {
	limit := int64(h.cfg.MaxBody)
	if r.ContentLength > limit {
		return tooLarge("", "the request body has %d bytes, more than the limit of %d", r.ContentLength, limit)
	}
	// A connection that has no deadlines is one of a test.
	_ = setReadDeadline(w, time.Now().Add(h.cfg.BodyTimeout))
	var err error
	if n := r.ContentLength; n >= 0 && n <= 1<<20 && r.Header[contentEncoding] == nil {
		b.data = slices.Grow(b.data, int(n))[:n]
		_, err = io.ReadFull(r.Body, b.data)
		if err == nil {
			_, err = r.Body.Read(nil) // Lets the server see that the body is at its end.
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
	} else {
		b.data, err = expand(w, r, limit)
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return tooLarge("", "the request body has more than %d bytes, the limit", limit)
	case errors.Is(err, compress.ErrUnsupported):
		w.Header().Set("Accept-Encoding", compress.Accepted)
		return invalid(contentEncoding, "%s is %q: %v", contentEncoding, shorten(strings.Join(r.Header[contentEncoding], ", ")), err)
	case errors.Is(err, compress.ErrCorrupt):
		return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_MALFORMED_JSON, "", "the request body is not %s, as its %s says, or is cut off", shorten(r.Header.Get(contentEncoding)), contentEncoding)
	case err != nil:
		return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_MALFORMED_JSON, "", "the request body did not arrive whole within %s", h.cfg.BodyTimeout)
	}
	_ = setReadDeadline(w, time.Time{})
	return nil
}

// expand reads a body of unknown length, which may be compressed.
func expand(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	from, err := compress.NewReader(r.Header[contentEncoding], http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return nil, err
	}
	defer func() { _ = from.Close() }() // Nothing is written.
	return io.ReadAll(http.MaxBytesReader(w, from, limit))
}

// setReadDeadline is what http.ResponseController does, without one for each request.
func setReadDeadline(w http.ResponseWriter, at time.Time) error {
	if direct, ok := w.(interface{ SetReadDeadline(time.Time) error }); ok {
		return direct.SetReadDeadline(at)
	}
	return http.NewResponseController(w).SetReadDeadline(at)
}

// body is a request's body that has been read. It keeps what its decoder finds, which
// the generated code between decoder and error handler has no place for.
type body struct {
	data []byte
	pos  int
	err  error    // Why it could not be decoded.
	mask []string // The top-level keys, when it is a resource that is to be changed.

	ifMatch string // The etag that what is changed must have; empty for any.
}

type bodyKey struct{}

// bodies keeps bodies for requests to come.
var bodies bodyPool

type bodyPool struct{ pool sync.Pool }

// get returns an empty body.
func (p *bodyPool) get() *body {
	if b, ok := p.pool.Get().(*body); ok {
		return b
	}
	return &body{}
}

// put keeps a body that nothing refers to any more, unless it is large.
func (p *bodyPool) put(b *body) {
	if cap(b.data) <= maxPooled {
		*b = body{data: b.data[:0]}
		p.pool.Put(b)
	}
}

func (b *body) Read(p []byte) (int, error) {
	if b.pos == len(b.data) {
		return 0, io.EOF
	}
	n := copy(p, b.data[b.pos:])
	b.pos += n
	return n, nil
}

func (b *body) Close() error { return nil }

// writeError answers a call that failed.
func writeError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	b, ok := r.Body.(*body)
	if ok && b.err != nil {
		err = b.err
	}
	e := apierror.ToProto(err)
	if ok && b.ifMatch != "" && e.GetReason() == clipperv1.ErrorReason_ERROR_REASON_CONFLICT {
		writeProblem(w, e, http.StatusPreconditionFailed)
		return
	}
	writeProblem(w, e, httpStatus(e))
}

// writeRoutingError returns a handler of requests that are for no call.
func writeRoutingError(docs *explorer.Explorer) runtime.RoutingErrorHandlerFunc {
	return func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, httpStatus int) {
		path := shorten(r.URL.Path)
		allowed := docs.Methods(r.URL.Path)
		if len(allowed) > 0 {
			w.Header().Set("Allow", strings.Join(append(allowed, http.MethodOptions), ", "))
		}
		switch {
		case r.Method == http.MethodOptions && len(allowed) > 0:
			w.WriteHeader(http.StatusNoContent)
		case httpStatus == http.StatusNotFound:
			writeStatus(w, apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_UNKNOWN_METHOD, "",
				"there is nothing at %s; /openapi.json lists what there is", path))
		case httpStatus == http.StatusMethodNotAllowed:
			writeStatus(w, apierror.New(codes.Unimplemented, clipperv1.ErrorReason_ERROR_REASON_UNKNOWN_METHOD, "",
				"%s cannot be used with %s; /openapi.json lists what can", path, shorten(r.Method)))
		default:
			writeStatus(w, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "", "the path %s cannot be read", path))
		}
	}
}
