// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/clipper-serving/clipper/frontend/explorer"
	gatewayv1 "github.com/clipper-serving/clipper/frontend/gateway/clipper/v1"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
)

// NewQueryHandler returns the REST API for queries and feedback, which calls the services behind
// conn; /openapi.json, which describes it; and /docs, a page to try it.
func NewQueryHandler(cfg Config, conn grpc.ClientConnInterface) (http.Handler, error) {
	h, err := newHandler(cfg, conn, []string{"QueryService", "FeedbackService"},
		gatewayv1.RegisterQueryServiceHandlerClient, clipperv1.NewQueryServiceClient,
		gatewayv1.RegisterFeedbackServiceHandlerClient, clipperv1.NewFeedbackServiceClient)
	if err != nil {
		return nil, err
	}
	h.queries = clipperv1.NewQueryServiceClient(conn)
	return h, nil
}

// NewAdminHandler is as NewQueryHandler, for administration.
func NewAdminHandler(cfg Config, conn grpc.ClientConnInterface) (http.Handler, error) {
	h, err := newHandler(cfg, editConn{conn}, []string{"ApplicationService", "ModelService"},
		gatewayv1.RegisterApplicationServiceHandlerClient, clipperv1.NewApplicationServiceClient,
		gatewayv1.RegisterModelServiceHandlerClient, clipperv1.NewModelServiceClient)
	if err != nil {
		return nil, err
	}
	return h, nil
}

// newHandler returns a handler for two services.
func newHandler[A, B any](
	cfg Config, conn grpc.ClientConnInterface, services []string,
	registerA func(context.Context, *runtime.ServeMux, A) error, clientA func(grpc.ClientConnInterface) A,
	registerB func(context.Context, *runtime.ServeMux, B) error, clientB func(grpc.ClientConnInterface) B,
) (*handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure REST: %w", err)
	}
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, marshaler{}),
		runtime.WithErrorHandler(writeError),
		runtime.WithRoutingErrorHandler(writeRoutingError),
		runtime.WithForwardResponseOption(setETag),
		// A form's content type, which curl gives to any body, has no meaning here.
		runtime.WithDisablePathLengthFallback(),
		// Headers are not metadata, nor the other way; Grpc-Timeout is read in any case.
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingTrailerMatcher(func(string) (string, bool) { return "", false }),
	)
	if err := errors.Join(registerA(context.Background(), mux, clientA(conn)), registerB(context.Background(), mux, clientB(conn))); err != nil {
		return nil, fmt.Errorf("register REST handlers: %w", err)
	}
	docs, err := explorer.New(services)
	if err != nil {
		return nil, err
	}
	return &handler{cfg: cfg, api: mux, docs: docs}, nil
}

// handler serves the REST API of one listener.
type handler struct {
	cfg     Config
	api     *runtime.ServeMux
	docs    *explorer.Explorer
	queries clipperv1.QueryServiceClient // Nil where there are none.
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if h.docs.Serves(r.URL.Path) {
		h.docs.ServeHTTP(w, r)
		return
	}
	b := &body{}
	if r.Body != nil && r.Body != http.NoBody {
		var err error
		if b, err = h.read(w, r); err != nil {
			w.Header().Set("Connection", "close")
			writeStatus(w, err)
			return
		}
	}
	if application, ok := h.plainQuery(r); ok {
		h.query(w, r, application, b)
		return
	}
	var err error
	if b.ifMatch, err = ifMatch(r.Header); err != nil {
		writeStatus(w, err)
		return
	}
	r = r.WithContext(context.WithValue(r.Context(), bodyKey{}, b))
	r.Body = b
	a := &answer{ResponseWriter: w}
	if r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/v1/applications/") {
		a.known = r.Header.Get("If-None-Match") // Models tell of their replicas, too, which no etag covers.
	}
	h.api.ServeHTTP(a, r)
}

// plainQuery reports whether a request is a query that needs nothing of the gateway, and to which
// application.
func (h *handler) plainQuery(r *http.Request) (application string, ok bool) {
	if h.queries == nil || r.Method != http.MethodPost || r.URL.RawPath != "" || r.URL.RawQuery != "" || r.Header["Grpc-Timeout"] != nil {
		return "", false
	}
	application, ok = strings.CutPrefix(r.URL.Path, "/v1/applications/")
	if !ok {
		return "", false
	}
	application, ok = strings.CutSuffix(application, "/query")
	return application, ok && application != "" && !strings.Contains(application, "/")
}

// buffers holds *[]byte for answers.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled is the largest buffer that is kept.
const maxPooled = 64 << 10

// query answers a query as the gateway would, at half the cost: it is what most requests are.
func (h *handler) query(w http.ResponseWriter, r *http.Request, application string, b *body) {
	req := &clipperv1.QueryRequest{}
	if _, err := decodeBody(b.data, req); err != nil {
		writeStatus(w, err)
		return
	}
	req.Application = application
	res, err := h.queries.Query(r.Context(), req)
	if err != nil {
		writeStatus(w, err)
		return
	}
	buffer, _ := buffers.Get().(*[]byte)
	answer, err := appendQueryResponse((*buffer)[:0], res)
	if err != nil {
		writeStatus(w, err)
		return
	}
	header := w.Header()
	header["Content-Type"] = jsonType
	header["Content-Length"] = []string{strconv.Itoa(len(answer))}
	_, _ = w.Write(answer) // The client may be gone.
	if cap(answer) <= maxPooled {
		*buffer = answer
		buffers.Put(buffer)
	}
}

var jsonType = []string{"application/json"}

// read reads a body within the limits of size and time.
func (h *handler) read(w http.ResponseWriter, r *http.Request) (*body, error) {
	limit := int64(h.cfg.MaxBody)
	if r.ContentLength > limit {
		return nil, tooLarge("", "the request body has %d bytes, more than the limit of %d", r.ContentLength, limit)
	}
	control := http.NewResponseController(w)
	// A connection that has no deadlines is one of a test.
	_ = control.SetReadDeadline(time.Now().Add(h.cfg.BodyTimeout))
	b := &body{}
	var err error
	if r.ContentLength >= 0 && r.ContentLength <= 1<<20 {
		b.data = make([]byte, r.ContentLength)
		_, err = io.ReadFull(r.Body, b.data)
		if err == nil {
			_, err = r.Body.Read(nil) // Lets the server see that the body is at its end.
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
	} else {
		b.data, err = io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, tooLarge("", "the request body has more than %d bytes, the limit", limit)
	case err != nil:
		return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_MALFORMED_JSON, "", "the request body did not arrive whole within %s", h.cfg.BodyTimeout)
	}
	_ = control.SetReadDeadline(time.Time{})
	return b, nil
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

// writeRoutingError answers a request that is for no call.
func writeRoutingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, httpStatus int) {
	path := shorten(r.URL.Path)
	switch httpStatus {
	case http.StatusNotFound:
		writeStatus(w, apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_UNKNOWN_METHOD, "",
			"there is nothing at %s; /openapi.json lists what there is", path))
	case http.StatusMethodNotAllowed:
		writeStatus(w, apierror.New(codes.Unimplemented, clipperv1.ErrorReason_ERROR_REASON_UNKNOWN_METHOD, "",
			"%s cannot be used with %s; /openapi.json lists what can", path, shorten(r.Method)))
	default:
		writeStatus(w, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "", "the path %s cannot be read", path))
	}
}
