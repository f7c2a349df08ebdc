// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"fmt"
	"net/http"
	"strconv"

	"google.golang.org/grpc/status"

	"github.com/clipper-serving/clipper/gen/go/inference"
	"github.com/clipper-serving/clipper/internal/apierror"
)

// lengthHeader says how many bytes of a body are JSON when binary tensors follow.
const lengthHeader = "Inference-Header-Content-Length"

func (h *Handler) infer(w http.ResponseWriter, r *http.Request, p place) error {
	kept := buffer()
	body, err := h.read(w, r, (*kept)[:0])
	// The service has a copy of what it needs once it has answered.
	defer func() { release(kept, body) }()
	if err != nil {
		return err
	}
	q, err := h.request(r, p, body)
	if err != nil {
		return err
	}
	q.ModelName, q.ModelVersion = p.model, p.version
	answer, err := h.client.ModelInfer(r.Context(), &q.ModelInferRequest)
	if err != nil {
		return err
	}
	text := buffer()
	encoded, parts, err := encode((*text)[:0], answer, q)
	defer func() { release(text, encoded) }()
	if err != nil {
		if _, shown := status.FromError(err); !shown {
			h.log.ErrorContext(r.Context(), "an answer cannot be written", "model", p.model, "error", err)
		}
		return apierror.From(err)
	}
	return write(w, r, encoded, parts, len(parts) > 0)
}

// request decodes a body.
func (h *Handler) request(r *http.Request, p place, body []byte) (*request, error) {
	values := r.Header[lengthHeader]
	if len(values) == 0 {
		return decode(body, -1)
	}
	length, err := strconv.ParseUint(values[0], 10, 63)
	switch {
	case err != nil || len(values) > 1:
		return nil, invalid("", "the header %s is %q, expected the number of bytes of JSON that the body begins with", lengthHeader, shorten(fmt.Sprint(values)))
	case length > uint64(len(body)):
		return nil, invalid("", "the header %s is %d, but the body has only %d bytes", lengthHeader, length, len(body))
	case length > 0:
		return decode(body, int(length))
	}
	model, err := h.client.ModelMetadata(r.Context(), &inference.ModelMetadataRequest{Name: p.model, Version: p.version})
	if err != nil {
		return nil, err
	}
	return whole(body, model)
}
