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
	"google.golang.org/protobuf/types/known/fieldmaskpb"

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
	h.queries = clipperv1.NewQueryServiceClient(conn)
	return h, nil
}

// NewAdminHandler is as NewQueryHandler, for administration.
func NewAdminHandler(cfg Config, conn grpc.ClientConnInterface) (http.Handler, error) {
	h, err := newHandler(cfg, maskConn{conn}, []string{"ApplicationService", "ModelService", "KeyService"},
		registrar(gatewayv1.RegisterApplicationServiceHandlerClient, clipperv1.NewApplicationServiceClient),
		registrar(gatewayv1.RegisterModelServiceHandlerClient, clipperv1.NewModelServiceClient),
		registrar(gatewayv1.RegisterKeyServiceHandlerClient, clipperv1.NewKeyServiceClient))
	if err != nil {
		return nil, err
	}
	return h, nil
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
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, marshaler{}),
		runtime.WithErrorHandler(writeError),
		runtime.WithRoutingErrorHandler(writeRoutingError),
		// A form's content type, which curl gives to any body, has no meaning here.
		runtime.WithDisablePathLengthFallback(),
		// Headers are not metadata, nor the other way. Authorization and Grpc-Timeout are read in any case.
		runtime.WithIncomingHeaderMatcher(func(name string) (string, bool) { return "x-api-key", name == "X-Api-Key" }),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingTrailerMatcher(func(string) (string, bool) { return "", false }),
	)
	for _, register := range registers {
		if err := register(mux, conn); err != nil {
			return nil, fmt.Errorf("register REST handlers: %w", err)
		}
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
	// What calls the services with the request's context has its credentials; the gateway takes them itself.
	if ctx := auth.Outgoing(r.Context(), r.Header); ctx != r.Context() {
		r = r.WithContext(ctx)
	}
	if application, ok := h.plainQuery(r); ok {
		h.query(w, r, application, b)
		return
	}
	r = r.WithContext(context.WithValue(auth.WithRemote(r.Context(), r.RemoteAddr), bodyKey{}, b))
	r.Body = b
	h.api.ServeHTTP(w, r)
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

// maskConn gives an update the mask of the fields that are in its body.
type maskConn struct{ grpc.ClientConnInterface }

func (c maskConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if update, ok := args.(*clipperv1.UpdateApplicationRequest); ok {
		b, _ := ctx.Value(bodyKey{}).(*body)
		if b == nil || len(b.mask) == 0 {
			return missing("application", "there is nothing to change: expected at least one field of the application")
		}
		update.UpdateMask = &fieldmaskpb.FieldMask{Paths: b.mask}
	}
	return c.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
}

// writeError answers a call that failed.
func writeError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	if b, ok := r.Body.(*body); ok && b.err != nil {
		err = b.err
	}
	writeStatus(w, err)
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
