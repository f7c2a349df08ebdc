// SPDX-License-Identifier: Apache-2.0

package compress_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/clipper-serving/clipper/frontend/compress"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// encode encodes with the library itself, in its default form.
func encode(t testing.TB, coding string, text []byte) []byte {
	var b bytes.Buffer
	var w io.WriteCloser
	if coding == "gzip" {
		w = gzip.NewWriter(&b)
	} else {
		z, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
		require.NoError(t, err)
		w = z
	}
	_, err := w.Write(text)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

func decode(coding string, from io.Reader) ([]byte, error) {
	r, err := compress.NewReader([]string{coding}, from)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	return io.ReadAll(r)
}

func TestReader(t *testing.T) {
	text := []byte(strings.Repeat("0.125, ", 1000))
	for _, coding := range []string{"gzip", "zstd"} {
		t.Run(coding, func(t *testing.T) {
			whole := encode(t, coding, text)
			for range 3 { // Decoders are used again.
				got, err := decode(coding, bytes.NewReader(whole))
				require.NoError(t, err)
				require.Equal(t, text, got)
			}
			got, err := decode(" "+strings.ToUpper(coding), iotest.OneByteReader(bytes.NewReader(append(bytes.Clone(whole), whole...))))
			require.NoError(t, err, "a body may have several members or frames")
			require.Len(t, got, 2*len(text))
			for n := range len(whole) {
				if n == 0 && coding == "zstd" {
					continue // Nothing is no frame, which holds nothing.
				}
				_, err := decode(coding, bytes.NewReader(whole[:n]))
				require.ErrorIs(t, err, compress.ErrCorrupt, "cut off at %d", n)
			}
			_, err = decode(coding, strings.NewReader("not compressed"))
			require.ErrorIs(t, err, compress.ErrCorrupt)
			fault := errors.New("the connection broke")
			_, err = decode(coding, io.MultiReader(bytes.NewReader(whole[:20]), iotest.ErrReader(fault)))
			require.Equal(t, fault, err)
			_, err = decode(coding, iotest.ErrReader(fault))
			require.Equal(t, fault, err)
		})
	}
	got, err := decode("identity", strings.NewReader("as it is"))
	require.NoError(t, err)
	require.Equal(t, "as it is", string(got))
	for _, coding := range []string{"br", "gzip, zstd", "deflate", "*"} {
		_, err := decode(coding, http.NoBody)
		require.ErrorIs(t, err, compress.ErrUnsupported, coding)
	}
}

// A frame may declare a window of any size; what it says is not believed.
func TestReader_window(t *testing.T) {
	// Magic number, a frame header without a length, a window of 2 GiB, and a last block of 0 bytes.
	_, err := decode("zstd", bytes.NewReader([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00}))
	require.ErrorIs(t, err, compress.ErrCorrupt)
}

func TestWriter(t *testing.T) {
	long := strings.Repeat(`{"result": 1}`, 500)
	for _, tt := range []struct {
		name, accept, want string
		handler            func(http.ResponseWriter)
	}{
		{"nothing is asked for", "", "", nil},
		{"gzip", "gzip", "gzip", nil},
		{"zstd", "zstd", "zstd", nil},
		{"both", "gzip, deflate, br, zstd", "zstd", nil},
		{"weights", "gzip;q=1.0, zstd;q=0.5", "gzip", nil},
		{"any", "*", "zstd", nil},
		{"any but one", "*, zstd;q=0", "gzip", nil},
		{"none", "gzip;q=0, zstd; q=0", "", nil},
		{"identity only", "identity, *;q=0", "", nil},
		{"a weight that is none", "gzip;q=x, zstd;q=7, gzip;q=NaN", "", nil},
		{"short", "gzip", "", func(w http.ResponseWriter) { _, _ = io.WriteString(w, "short") }},
		{"nothing", "gzip", "", func(http.ResponseWriter) {}},
		{"no content", "gzip", "", func(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) }},
		{"has a coding", "gzip", "br", func(w http.ResponseWriter) {
			w.Header().Set("Content-Encoding", "br")
			_, _ = io.WriteString(w, long)
		}},
		{"long by many writes", "gzip", "gzip", func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusTeapot)
			for i := range len(long) {
				_, _ = io.WriteString(w, long[i:i+1])
			}
		}},
		{"flushed", "zstd", "zstd", func(w http.ResponseWriter) {
			for range 3 {
				_, _ = io.WriteString(w, "line\n")
				w.(http.Flusher).Flush()
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			handler := tt.handler
			if handler == nil {
				handler = func(w http.ResponseWriter) {
					w.Header().Set("Content-Length", "6500")
					_, _ = io.WriteString(w, long)
				}
			}
			plain, w := httptest.NewRecorder(), httptest.NewRecorder()
			handler(plain)
			r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
			if tt.accept != "" {
				r.Header.Set("Accept-Encoding", tt.accept)
			}
			out := compress.NewWriter(w, r)
			handler(out)
			require.NoError(t, out.Close())
			require.Equal(t, tt.want, w.Header().Get("Content-Encoding"))
			require.Equal(t, "Accept-Encoding", w.Header().Get("Vary"))
			require.Equal(t, plain.Code, w.Code)
			body := w.Body.Bytes()
			if tt.want == "gzip" || tt.want == "zstd" {
				require.Empty(t, w.Header().Get("Content-Length"))
				var err error
				body, err = decode(tt.want, w.Body)
				require.NoError(t, err)
			}
			require.Equal(t, plain.Body.String(), string(body))
		})
	}
}

// What is flushed arrives at once, though it is compressed.
func TestWriter_flush(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := compress.NewWriter(w, r)
		defer func() { _ = out.Close() }()
		_, _ = io.WriteString(out, "first")
		out.Flush()
		<-r.Context().Done()
	}))
	defer server.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, http.NoBody)
	require.NoError(t, err)
	r.Header.Set("Accept-Encoding", "zstd")
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(r)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	body, err := compress.NewReader(res.Header["Content-Encoding"], res.Body)
	require.NoError(t, err)
	first := make([]byte, 5)
	_, err = io.ReadFull(body, first)
	require.NoError(t, err)
	require.Equal(t, "first", string(first))
}

// FuzzReader requires that any bytes are read within bounds or refused.
func FuzzReader(f *testing.F) {
	for _, coding := range []string{"gzip", "zstd"} {
		f.Add(coding == "gzip", encode(f, coding, []byte(strings.Repeat("text", 10))))
		f.Add(coding == "gzip", encode(f, coding, nil))
	}
	f.Fuzz(func(t *testing.T, gz bool, body []byte) {
		r, err := compress.NewReader([]string{map[bool]string{true: "gzip", false: "zstd"}[gz]}, bytes.NewReader(body))
		require.NoError(t, err)
		defer func() { _ = r.Close() }()
		if _, err := io.Copy(io.Discard, io.LimitReader(r, 1<<20)); err != nil {
			require.ErrorIs(t, err, compress.ErrCorrupt)
		}
	})
}
