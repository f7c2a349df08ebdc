// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// minCompressed is the least body that is compressed: below, headers and time cost more than is won.
const minCompressed = 1 << 10

var (
	jsonType   = []string{"application/json"}
	binaryType = []string{"application/octet-stream"}
)

func writeJSON(w http.ResponseWriter, r *http.Request, text []byte) error {
	return write(w, r, text, nil, false)
}

// write answers with JSON, and the binary tensors that follow it.
func write(w http.ResponseWriter, r *http.Request, text []byte, parts [][]byte, binary bool) error {
	size := len(text)
	for _, part := range parts {
		size += len(part)
	}
	header := w.Header()
	header["Content-Type"] = jsonType
	if binary {
		header["Content-Type"] = binaryType
		header[lengthHeader] = []string{strconv.Itoa(len(text))}
	}
	if values := r.Header["Accept-Encoding"]; len(values) > 0 {
		header["Vary"] = []string{"Accept-Encoding"}
		if size >= minCompressed {
			if encoding := accepted(values); encoding != "" {
				return writeCompressed(w, encoding, text, parts)
			}
		}
	}
	header["Content-Length"] = []string{strconv.Itoa(size)}
	writeAll(w, text, parts)
	return nil
}

func writeAll(w io.Writer, text []byte, parts [][]byte) {
	_, err := w.Write(text)
	for _, part := range parts {
		if err != nil {
			return // The client is gone.
		}
		_, err = w.Write(part)
	}
}

// compressor is what gzip and zlib have in common.
type compressor interface {
	io.WriteCloser
	Reset(w io.Writer)
}

// compressors holds compressors by the encoding.
var compressors = map[string]*sync.Pool{
	"gzip":    {New: func() any { w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed); return w }},
	"deflate": {New: func() any { w, _ := zlib.NewWriterLevel(nil, zlib.BestSpeed); return w }},
}

func writeCompressed(w http.ResponseWriter, encoding string, text []byte, parts [][]byte) error {
	pool := compressors[encoding]
	c, _ := pool.Get().(compressor)
	defer pool.Put(c)
	var b bytes.Buffer
	c.Reset(&b)
	writeAll(c, text, parts)
	if err := c.Close(); err != nil {
		return err
	}
	w.Header()["Content-Encoding"] = []string{encoding}
	w.Header()["Content-Length"] = []string{strconv.Itoa(b.Len())}
	_, _ = w.Write(b.Bytes()) // The client may be gone.
	return nil
}

// accepted returns the encoding that a client likes best of those that there are, or "".
func accepted(values []string) string {
	best, most := "", 0.0
	for item := range strings.SplitSeq(strings.Join(values, ","), ",") {
		name, parameters, _ := strings.Cut(item, ";")
		name = strings.ToLower(strings.TrimSpace(name))
		if compressors[name] == nil {
			continue
		}
		quality := 1.0
		if q, ok := strings.CutPrefix(strings.TrimSpace(parameters), "q="); ok {
			var err error
			if quality, err = strconv.ParseFloat(q, 64); err != nil {
				continue
			}
		}
		if quality > most || quality == most && name == "gzip" {
			best, most = name, quality
		}
	}
	if most <= 0 {
		return ""
	}
	return best
}
