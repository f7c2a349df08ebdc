// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/clipper-serving/clipper/internal/apierror"
)

// atOnce is the most that is allocated for a body because its header declares so much. A longer body
// gets memory as it comes.
const atOnce = 1 << 20

// maxPooled is the largest buffer that is kept.
const maxPooled = 256 << 10

// buffers holds *[]byte for bodies and answers.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

func buffer() *[]byte {
	b, _ := buffers.Get().(*[]byte)
	return b
}

// release keeps a buffer that has become b for the next.
func release(kept *[]byte, b []byte) {
	if cap(b) <= maxPooled {
		*kept = b[:0]
		buffers.Put(kept)
	}
}

// read reads a body within the limits of size and time, expanded, into b.
func (h *Handler) read(w http.ResponseWriter, r *http.Request, b []byte) ([]byte, error) {
	if r.ContentLength > h.cfg.MaxBody {
		w.Header().Set("Connection", "close")
		return b, h.tooLarge()
	}
	control := http.NewResponseController(w)
	// A connection that has no deadlines is one of a test.
	_ = control.SetReadDeadline(time.Now().Add(h.cfg.BodyTimeout))
	expanded, err := expand(r)
	if err == nil {
		b, err = readAll(b, expanded, r.ContentLength, h.cfg.MaxBody)
	}
	var encoding encodingError
	switch {
	case err == nil:
		_ = control.SetReadDeadline(time.Time{})
		return b, nil
	case errors.As(err, &encoding):
		return b, err
	case errors.Is(err, errTooLarge):
		err = h.tooLarge()
	case corrupt(err), errors.Is(err, io.ErrUnexpectedEOF) && expanded != io.Reader(r.Body):
		err = apierror.Invalid(malformed, "", "the request body cannot be expanded: it is not whole or not %s", shorten(r.Header.Get("Content-Encoding")))
	default:
		err = apierror.Invalid(malformed, "", "the request body did not arrive whole within %s", h.cfg.BodyTimeout)
	}
	w.Header().Set("Connection", "close")
	return b, err
}

func (h *Handler) tooLarge() error {
	return apierror.New(codes.ResourceExhausted, tooLarge, "", "the request body has more than %d bytes, the limit, which holds for the expanded body as well", h.cfg.MaxBody)
}

var errTooLarge = errors.New("too large")

// readAll appends all of r to b, but fails where that is more than limit bytes.
func readAll(b []byte, r io.Reader, declared, limit int64) ([]byte, error) {
	if want := int(min(declared, limit, atOnce)) + 1; cap(b) < want {
		b = make([]byte, 0, want) // One more than there is, which lets the reader say that it is at its end.
	}
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case int64(len(b)) > limit:
			return b, errTooLarge
		case err == io.EOF: // As io.ReadAll: only the end itself.
			return b, nil
		case err != nil:
			return b, err
		}
	}
}

// corrupt reports whether compressed data is at fault, and not the connection.
func corrupt(err error) bool {
	var data flate.CorruptInputError
	if errors.As(err, &data) {
		return true
	}
	return slices.ContainsFunc([]error{gzip.ErrHeader, gzip.ErrChecksum, zlib.ErrHeader, zlib.ErrChecksum, zlib.ErrDictionary},
		func(known error) bool { return errors.Is(err, known) })
}

// expand returns the reader of a body without its compression.
func expand(r *http.Request) (io.Reader, error) {
	switch encoding := strings.ToLower(strings.TrimSpace(strings.Join(r.Header["Content-Encoding"], ","))); encoding {
	case "", "identity":
		return r.Body, nil
	case "gzip", "x-gzip":
		return gzip.NewReader(r.Body)
	case "deflate":
		return zlib.NewReader(r.Body) // By RFC 9110 the zlib format, not bare deflate.
	default:
		return nil, encodingError{invalid("", "the content encoding %q is not known, expected gzip or deflate", shorten(encoding))}
	}
}
