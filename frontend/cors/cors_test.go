// SPDX-License-Identifier: Apache-2.0

package cors_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/frontend/cors"
)

func TestPolicy(t *testing.T) {
	status := func(code int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	}
	const page = "https://app.example.com"
	none, one, all := []string{}, []string{page, "http://localhost:3000"}, []string{"*"}
	for _, tt := range []struct {
		name    string
		origins []string
		method  string
		header  []string
		want    int
		allowed string // The origin that the browser hears of.
	}{
		{"no page", none, "POST", nil, 200, ""},
		{"own page", none, "POST", []string{"Origin", "http://example.com"}, 200, ""},
		{"own page, as browsers say", none, "POST", []string{"Origin", page, "Sec-Fetch-Site", "same-origin"}, 200, ""},
		{"other page", none, "POST", []string{"Origin", page}, 403, ""},
		{"other page, as browsers say", none, "POST", []string{"Origin", page, "Sec-Fetch-Site", "cross-site"}, 403, ""},
		{"page without a name", none, "DELETE", []string{"Origin", "null"}, 403, ""},
		{"other page only reads, and does not see it", none, "GET", []string{"Origin", page}, 200, ""},
		{"question of another page", none, "OPTIONS", []string{"Origin", page, "Access-Control-Request-Method", "POST"}, 200, ""},
		{"allowed page", one, "POST", []string{"Origin", page, "Sec-Fetch-Site", "cross-site"}, 200, page},
		{"allowed page reads", one, "GET", []string{"Origin", "http://localhost:3000"}, 200, "http://localhost:3000"},
		{"question of an allowed page", one, "OPTIONS", []string{"Origin", page, "Access-Control-Request-Method", "PATCH"}, 204, page},
		{"OPTIONS that is no question", one, "OPTIONS", []string{"Origin", page}, 200, page},
		{"a name that only begins like it", one, "POST", []string{"Origin", page + ".evil.example"}, 403, ""},
		{"other port", one, "POST", []string{"Origin", page + ":8443"}, 403, ""},
		{"other scheme", one, "POST", []string{"Origin", "http://app.example.com"}, 403, ""},
		{"no page where one is allowed", one, "POST", nil, 200, ""},
		{"any page", all, "POST", []string{"Origin", page, "Sec-Fetch-Site", "cross-site"}, 200, page},
		{"question of any page", all, "OPTIONS", []string{"Origin", "null", "Access-Control-Request-Method", "PUT"}, 204, "null"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := cors.New(tt.origins)
			require.NoError(t, err)
			r := httptest.NewRequest(tt.method, "http://example.com/v1", http.NoBody)
			for i := 0; i+1 < len(tt.header); i += 2 {
				r.Header.Set(tt.header[i], tt.header[i+1])
			}
			w := httptest.NewRecorder()
			p.Handler(status(200), status(403)).ServeHTTP(w, r)
			require.Equal(t, tt.want, w.Code)
			require.Equal(t, tt.allowed, w.Header().Get("Access-Control-Allow-Origin"))
			require.Equal(t, tt.want == 204, w.Header().Get("Access-Control-Allow-Methods") != "")
			require.Empty(t, w.Header().Get("Access-Control-Allow-Credentials"))
			if len(tt.origins) > 0 {
				require.Equal(t, "Origin", w.Header().Get("Vary"))
			}
		})
	}
}

func TestNew_refuses(t *testing.T) {
	for _, origin := range []string{"app.example.com", "https://app.example.com/", "https://App.example.com", "https://app.example.com?x", "", "null", "https://*.example.com/x"} {
		_, err := cors.New([]string{origin})
		require.ErrorContains(t, err, "want ", origin)
	}
}
