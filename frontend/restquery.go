// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/clipper-serving/clipper/frontend/compress"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// This is the short way of a query, which is what most requests are. It reads and writes the same
// bytes as the gateway, and calls the same service through the same connection with its interceptors;
// it only leaves out what a query by itself does not need: routes, annotated contexts, copies.

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

// invoke calls a method. The reply is to be read only.
type invoke func(ctx context.Context, method string, args any) (reply any, err error)

// invoker returns how to call through a connection: without copying the reply where that is possible.
func invoker(conn grpc.ClientConnInterface) invoke {
	if shared, ok := conn.(interface {
		InvokeShared(ctx context.Context, method string, args any) (any, error)
	}); ok {
		return shared.InvokeShared
	}
	return func(ctx context.Context, method string, args any) (any, error) {
		reply := &clipperv1.QueryResponse{}
		return reply, conn.Invoke(ctx, method, args, reply)
	}
}

// maxPooled is the largest buffer that is kept.
const maxPooled = 64 << 10

// queryCall is what a query needs for as long as it lasts.
type queryCall struct {
	request clipperv1.QueryRequest
	answer  []byte
}

var queryCalls = sync.Pool{New: func() any { return &queryCall{} }}

func (c *queryCall) release() {
	c.request.Reset()
	if cap(c.answer) <= maxPooled {
		queryCalls.Put(c)
	}
}

// query answers a query.
func (h *handler) query(w http.ResponseWriter, r *http.Request, application string, data []byte) {
	c, _ := queryCalls.Get().(*queryCall)
	defer c.release()
	if _, err := decodeBody(data, &c.request); err != nil {
		writeStatus(w, err)
		return
	}
	c.request.Application = application
	reply, err := h.queries(r.Context(), clipperv1.QueryService_Query_FullMethodName, &c.request)
	if err != nil {
		writeStatus(w, err)
		return
	}
	response, ok := reply.(*clipperv1.QueryResponse)
	if !ok {
		writeStatus(w, status.Errorf(codes.Internal, "a query was answered with a %T", reply))
		return
	}
	if c.answer, err = appendQueryResponse(c.answer[:0], response); err != nil {
		writeStatus(w, err)
		return
	}
	header := w.Header()
	header["Content-Type"] = jsonType
	if header["Vary"] == nil {
		header["Vary"] = varies
	} else {
		header.Add("Vary", varies[0])
	}
	if len(c.answer) > 1<<10 { // Shorter ones are not compressed, and net/http says how long they are.
		out := compress.NewWriter(w, r)
		defer func() { _ = out.Close() }() // The client may be gone.
		header["Content-Length"] = []string{strconv.Itoa(len(c.answer))}
		w = out
	}
	_, _ = w.Write(c.answer) // The client may be gone.
}

// Values of headers that are always the same.
var (
	jsonType = []string{"application/json"}
	nosniff  = []string{"nosniff"}
	varies   = []string{"Accept-Encoding"}
)
