// SPDX-License-Identifier: Apache-2.0

package frontend_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/frontend"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/config"
)

// compressed returns a text in a coding.
func compressed(t testing.TB, coding string, text io.Reader) string {
	var b bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&b)
	if coding == "zstd" {
		z, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
		require.NoError(t, err)
		w = z
	}
	_, err := io.Copy(w, text)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.String()
}

// expanded returns the text that is in a coding.
func expanded(t testing.TB, coding string, from io.Reader) string {
	var text []byte
	if coding == "zstd" {
		z, err := zstd.NewReader(from, zstd.WithDecoderConcurrency(1))
		require.NoError(t, err)
		defer z.Close()
		text, err = io.ReadAll(z)
		require.NoError(t, err)
		return string(text)
	}
	z, err := gzip.NewReader(from)
	require.NoError(t, err)
	text, err = io.ReadAll(z)
	require.NoError(t, err)
	return string(text)
}

func TestREST_compression(t *testing.T) {
	f := start(t, newSelector(application("any", clipperv1.OutputKind_OUTPUT_KIND_NUMBER, 0)), func(c *frontend.Config) { c.MaxElements = 2000 })
	query := `{"input":` + numbersJSON(600) + `}`
	for _, path := range []string{"/v1/applications/any/query", generalPath("any")} {
		plain := call(f.query, "POST", path, query)
		require.Equal(t, http.StatusOK, plain.Code, plain.Body)
		require.Empty(t, plain.Header().Get("Content-Encoding"))
		for _, coding := range []string{"gzip", "zstd"} {
			w := call(f.query, "POST", path, compressed(t, coding, strings.NewReader(query)), "Content-Encoding", coding, "Accept-Encoding", coding)
			require.Equal(t, http.StatusOK, w.Code, w.Body)
			require.Equal(t, coding, w.Header().Get("Content-Encoding"))
			require.Equal(t, []string{"Accept-Encoding"}, w.Header()["Vary"])
			require.Less(t, w.Body.Len(), plain.Body.Len()/2)
			require.Equal(t, plain.Body.String(), expanded(t, coding, w.Body))
		}
		for _, tt := range []struct {
			name, coding, body string
			status             int
			text               string
		}{
			{"unknown coding", "br", query, 415, `Content-Encoding is \"br\": expected the coding gzip or zstd`},
			{"two codings", "gzip, gzip", query, 415, `expected the coding gzip or zstd, once`},
			{"not compressed", "gzip", query, 400, "the request body is not gzip, as its Content-Encoding says"},
			{"cut off", "zstd", compressed(t, "zstd", strings.NewReader(query))[:50], 400, "is cut off"},
			{"nothing in it", "gzip", compressed(t, "gzip", strings.NewReader("")), 400, "the request body is empty"},
		} {
			w := call(f.query, "POST", path, tt.body, "Content-Encoding", tt.coding)
			require.Equal(t, tt.status, w.Code, "%s: %s", tt.name, w.Body)
			require.Contains(t, w.Body.String(), tt.text, tt.name)
			if tt.status == 415 {
				require.Equal(t, "gzip, zstd", w.Header().Get("Accept-Encoding"))
			}
		}
	}
	w := call(f.adminAPI, "GET", "/openapi.json", "", "Accept-Encoding", "gzip")
	require.Equal(t, "gzip", w.Header().Get("Content-Encoding"))
}

// A body that expands to far more than the limit is refused for its size, and costs no more than
// the limit lets it.
func TestREST_bombs(t *testing.T) {
	f := start(t, newSelector(digits()), func(c *frontend.Config) { c.MaxBody = 2 * config.MiB })
	server := httptest.NewServer(f.query)
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	for _, coding := range []string{"gzip", "zstd"} {
		bomb := compressed(t, coding, io.LimitReader(spaces{}, 64<<20))
		require.Less(t, len(bomb), 1<<20)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r, err := http.NewRequest(http.MethodPost, server.URL+"/v1/applications/digits/query", strings.NewReader(bomb))
		require.NoError(t, err)
		r.Header.Set("Content-Encoding", coding)
		res, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		text, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		runtime.ReadMemStats(&after)
		require.Equal(t, http.StatusRequestEntityTooLarge, res.StatusCode)
		require.Contains(t, string(text), "more than 2097152 bytes")
		allocated := after.TotalAlloc - before.TotalAlloc
		require.Less(t, allocated, uint64(40<<20), coding)
	}
}

// spaces is endless white space, as JSON allows before a value.
type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}
