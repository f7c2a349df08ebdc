// SPDX-License-Identifier: Apache-2.0

package frontend_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/frontend"
)

// What no well-behaved client sends, over a real socket: each is answered with an error of HTTP or
// of the API, and none leaves the connection where the rest would be read as another request.
func TestREST_rawSockets(t *testing.T) {
	f := start(t, newSelector(digits()), func(c *frontend.Config) { c.BodyTimeout = 200 * time.Millisecond })
	server := httptest.NewUnstartedServer(f.query)
	server.Config.ReadHeaderTimeout, server.Config.IdleTimeout, server.Config.MaxHeaderBytes = 200*time.Millisecond, 200*time.Millisecond, 64<<10
	server.Start()
	t.Cleanup(server.Close) // After the tests that run side by side.
	const post = "POST /v1/applications/digits/query HTTP/1.1\r\nHost: x\r\n"
	const smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	chunked := func(chunks string) string { return post + "Transfer-Encoding: chunked\r\n\r\n" + chunks }
	get := func(path string) string {
		return "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\nConnection: close\r\n\r\n" + `{"input":[1,2]}`
	}
	for _, tt := range []struct {
		name, send string
		want       []int // The status of each answer, until the server closes.
	}{
		{"two in a row", post + "Content-Length: 15\r\n\r\n" + `{"input":[1,2]}` + post + "Content-Length: 15\r\n\r\n" + `{"input":[1,2]}`, []int{200, 200}},
		{"chunks", chunked("f\r\n{\"input\":[1,2]}\r\n0\r\n\r\n"), []int{200}},
		{"length and chunks", post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, []int{400}},
		{"two lengths", post + "Content-Length: 15\r\nContent-Length: 20\r\n\r\n" + `{"input":[1,2]}` + smuggled, []int{400}},
		{"length with a sign", post + "Content-Length: +15\r\n\r\n" + `{"input":[1,2]}`, []int{400}},
		{"negative length", post + "Content-Length: -1\r\n\r\n", []int{400}},
		{"length that no number holds", post + "Content-Length: 99999999999999999999\r\n\r\n", []int{400}},
		{"huge length", post + "Content-Length: 9223372036854775807\r\n\r\n" + smuggled, []int{413}},
		{"transfer coding twice", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, []int{501}},
		{"transfer coding that is not", post + "Transfer-Encoding: xchunked\r\n\r\n" + smuggled, []int{501}},
		{"space before the colon", post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + smuggled, []int{400}},
		{"folded header", post + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", []int{400}},
		{"chunk with a huge size", chunked("fffffffffffffffff\r\n"), []int{400}},
		{"chunk that is not a number", chunked("zz\r\n" + smuggled), []int{400}},
		{"no host", "POST /v1/applications/digits/query HTTP/1.1\r\n\r\n", []int{400}},
		{"two hosts", post + "Host: y\r\n\r\n", []int{400}},
		{"bad name of a header", post + "A\x00B: c\r\n\r\n", []int{400}},
		{"bad value of a header", post + "A: b\x00c\r\n\r\n", []int{400}},
		{"large header", post + "A: " + strings.Repeat("a", 128<<10), []int{431}},
		{"slow header", post, nil},
		{"slow body", post + "Content-Length: 15\r\n\r\n{", []int{400}},
		{"path with dots", get("/v1/models/../applications/digits/query"), []int{404}},
		{"path with escaped dots", get("/v1/x/%2e%2e/applications/digits/query"), []int{404}},
		{"path with an escaped slash", get("/v1/applications%2Fdigits/query"), []int{404}},
		{"path with two slashes", get("//v1/applications/digits/query"), []int{404}},
		{"path with a bad escape", get("/v1/applications/%zz/query"), []int{400}},
		{"path with a zero byte", get("/v1/applications/digits%00/query"), []int{404}},
		{"path of another host", get("http://evil.example/v1/applications/digits/query"), []int{200}},
		{"no path", "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\nConnection: close\r\n\r\n", []int{400}},
		{"not HTTP", "\x16\x03\x01\x02\x00\x01\x00", []int{400}},
		{"silence", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			require.NoError(t, err)
			defer func() { _ = conn.Close() }()
			require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second))) // So that a hung server fails the test.
			go func() { _, _ = io.WriteString(conn, tt.send) }()                 // It may not be read to its end.
			var got []int
			from := bufio.NewReader(conn)
			for {
				res, err := http.ReadResponse(from, nil)
				if err != nil {
					require.NotErrorIs(t, err, net.ErrClosed)
					break
				}
				text, _ := io.ReadAll(res.Body)
				_ = res.Body.Close()
				require.NotContains(t, string(text), "smuggled")
				got = append(got, res.StatusCode)
			}
			require.Equal(t, tt.want, got)
		})
	}
}
