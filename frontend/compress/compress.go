// SPDX-License-Identifier: Apache-2.0

// Package compress is the content coding of HTTP (RFC 9110, section 8.4), with gzip and Zstandard,
// in both directions. What a body expands to is for the reader to limit; what the coding itself may
// take is limited here: a window of 8 MiB, as RFC 8878 recommends.
//
// Everything here is safe for concurrent use, but for a single reader or writer.
package compress

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	gzipCoding = "gzip"
	zstdCoding = "zstd"
	// Accepted is the value of a header Accept-Encoding: the codings that bodies may have.
	Accepted = gzipCoding + ", " + zstdCoding

	// maxWindow is how far back a Zstandard frame may refer, in bytes.
	maxWindow = 8 << 20
	// minLength is the least length that is compressed, in bytes: less gains nothing.
	minLength = 1 << 10
)

var (
	// ErrUnsupported says that there is no such coding here.
	ErrUnsupported = errors.New("expected the coding gzip or zstd, once")
	// ErrCorrupt says that a body is not of its coding, or not whole.
	ErrCorrupt = errors.New("not as its coding says")
)

// NewReader returns what body holds, of which contentEncoding are the values of the header. An error
// of reading is body's own, or wraps ErrCorrupt. It is to be closed, which leaves body open.
func NewReader(contentEncoding []string, body io.Reader) (io.ReadCloser, error) {
	switch coding := strings.ToLower(strings.TrimSpace(strings.Join(contentEncoding, ","))); coding {
	case "", "identity":
		return io.NopCloser(body), nil
	case gzipCoding, "x-gzip":
		return &reader{source: source{Reader: body}, open: openGzip}, nil
	case zstdCoding:
		return &reader{source: source{Reader: body}, open: openZstd}, nil
	default:
		return nil, ErrUnsupported
	}
}

// source remembers why reading failed, so that a fault of the connection is told from one of the body.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// reader opens its decoder at the first read, since that reads.
type reader struct {
	source  source
	open    func(io.Reader) (decoder io.Reader, release func(), err error)
	decoder io.Reader
	release func()
}

func (r *reader) Read(p []byte) (n int, err error) {
	if r.decoder == nil {
		r.decoder, r.release, err = r.open(&r.source)
	}
	if err == nil {
		n, err = r.decoder.Read(p)
	}
	switch {
	case err == nil || err == io.EOF && r.decoder != nil: //nolint:errorlint // Readers return it bare.
		return n, err
	case r.source.err != nil:
		return n, r.source.err
	}
	return n, fmt.Errorf("%w: %w", ErrCorrupt, err)
}

func (r *reader) Close() error {
	if r.release != nil {
		r.release()
		r.release = nil
	}
	return nil
}

// Decoders and encoders are large, so they are used again.
var (
	gzipReaders, gzipWriters sync.Pool
	zstdReaders, zstdWriters sync.Pool
)

func openGzip(from io.Reader) (io.Reader, func(), error) {
	d, ok := gzipReaders.Get().(*gzip.Reader)
	if !ok {
		d = new(gzip.Reader)
	}
	release := func() {
		_ = d.Reset(strings.NewReader("")) // Lets go of the source.
		gzipReaders.Put(d)
	}
	if err := d.Reset(from); err != nil {
		release()
		return nil, nil, err
	}
	return d, release, nil
}

func openZstd(from io.Reader) (io.Reader, func(), error) {
	d, ok := zstdReaders.Get().(*zstd.Decoder)
	if !ok {
		var err error
		if d, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow)); err != nil {
			return nil, nil, err
		}
	}
	release := func() {
		_ = d.Reset(nil) // Lets go of the source.
		zstdReaders.Put(d)
	}
	if err := d.Reset(from); err != nil {
		release()
		return nil, nil, err
	}
	return d, release, nil
}

// encoder is a gzip.Writer or a zstd.Encoder.
type encoder interface {
	io.WriteCloser
	Flush() error
	Reset(io.Writer)
}

func newEncoder(coding string, to io.Writer) (e encoder, release func()) {
	pool, fresh := &gzipWriters, func() encoder {
		w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // Only a level that there is not fails.
		return w
	}
	if coding == zstdCoding {
		pool, fresh = &zstdWriters, func() encoder {
			// A small window: answers are small, and each open stream keeps one.
			w, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(128<<10)) // Only options fail.
			return w
		}
	}
	e, ok := pool.Get().(encoder)
	if !ok {
		e = fresh()
	}
	e.Reset(to)
	return e, func() {
		e.Reset(nil)
		pool.Put(e)
	}
}

// choose returns the coding that a client likes best of those that there are: "" is none.
func choose(acceptEncoding []string) string {
	best, weight := "", 0.0
	others, named := 0.0, map[string]bool{}
	better := func(coding string, q float64) {
		if q > weight || q == weight && q > 0 && coding == zstdCoding {
			best, weight = coding, q
		}
	}
	for _, line := range acceptEncoding {
		for item := range strings.SplitSeq(line, ",") {
			coding, parameter, _ := strings.Cut(item, ";")
			coding, parameter = strings.ToLower(strings.TrimSpace(coding)), strings.ToLower(strings.TrimSpace(parameter))
			q := 1.0
			if value, ok := strings.CutPrefix(parameter, "q="); ok {
				var err error
				if q, err = strconv.ParseFloat(value, 64); err != nil || !(q >= 0 && q <= 1) {
					continue
				}
			}
			switch coding {
			case gzipCoding, zstdCoding:
				named[coding] = true
				better(coding, q)
			case "*":
				others = q
			}
		}
	}
	for _, coding := range []string{gzipCoding, zstdCoding} {
		if !named[coding] {
			better(coding, others)
		}
	}
	return best
}

// NewWriter returns a writer of the answer to r, which compresses it if r's client likes that, if it
// is long enough or flushed on the way, and if it has no coding yet. It is to be closed when the
// answer is written. Errors of Close are those of a client that is gone.
func NewWriter(w http.ResponseWriter, r *http.Request) *Writer {
	out := &Writer{ResponseWriter: w, status: http.StatusOK}
	if !slices.Contains(w.Header()["Vary"], "Accept-Encoding") {
		w.Header().Add("Vary", "Accept-Encoding")
	}
	if r.Method != http.MethodHead {
		out.coding = choose(r.Header["Accept-Encoding"])
	}
	out.decided = out.coding == ""
	return out
}

// Writer is an http.ResponseWriter and an http.Flusher.
type Writer struct {
	http.ResponseWriter
	coding  string
	status  int
	held    []byte // What has been written while it is not decided.
	decided bool
	encoder encoder // Nil when it does not compress.
	release func()
}

var _ http.Flusher = (*Writer)(nil)

// WriteHeader implements http.ResponseWriter.
func (w *Writer) WriteHeader(status int) {
	switch {
	case w.decided || status < http.StatusOK:
		w.ResponseWriter.WriteHeader(status)
	case status == http.StatusNoContent || status == http.StatusNotModified || status == http.StatusPartialContent:
		w.coding = ""
		w.status = status
		_ = w.decide(false) // There is nothing to write yet.
	default:
		w.status = status
	}
}

// Write implements http.ResponseWriter.
func (w *Writer) Write(p []byte) (int, error) {
	if !w.decided {
		if len(w.held)+len(p) < minLength {
			w.held = append(w.held, p...)
			return len(p), nil
		}
		if err := w.decide(true); err != nil {
			return 0, err
		}
	}
	if w.encoder != nil {
		return w.encoder.Write(p)
	}
	return w.ResponseWriter.Write(p)
}

// decide begins the answer, compressed or not, with what has been held.
func (w *Writer) decide(compress bool) error {
	w.decided = true
	header := w.Header()
	if compress && header.Get("Content-Encoding") == "" {
		header.Set("Content-Encoding", w.coding)
		header.Del("Content-Length")
		header.Del("Accept-Ranges")
		w.encoder, w.release = newEncoder(w.coding, w.ResponseWriter)
	}
	held := w.held
	w.held = nil
	w.ResponseWriter.WriteHeader(w.status)
	if len(held) == 0 {
		return nil
	}
	_, err := w.Write(held)
	return err
}

// Flush implements http.Flusher.
func (w *Writer) Flush() { _ = w.FlushError() }

// FlushError is Flush for an http.ResponseController.
func (w *Writer) FlushError() error {
	if !w.decided {
		if err := w.decide(true); err != nil {
			return err
		}
	}
	if w.encoder != nil {
		if err := w.encoder.Flush(); err != nil {
			return err
		}
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap is for an http.ResponseController.
func (w *Writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Close writes what is left.
func (w *Writer) Close() error {
	if !w.decided {
		return w.decide(false)
	}
	if w.encoder == nil {
		return nil
	}
	err := w.encoder.Close()
	w.release()
	w.encoder = nil
	return err
}
