// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The rules of what is for operators and no RPC.
var (
	metricsRule = &rule{need: anyone}
	debugRule   = &rule{need: admin}
)

// Operators guards the paths for operators: health and readiness are for everyone, metrics for who has any
// credentials, and everything else for admins.
func (g *Gate) Operators(next http.Handler) http.Handler {
	if !g.Enabled() {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rule := debugRule
		switch r.URL.Path {
		case "/healthz", "/readyz":
			next.ServeHTTP(w, r)
			return
		case "/metrics":
			rule = metricsRule
		}
		text, err := parse(r.Header["Authorization"], r.Header["X-Api-Key"])
		if err != nil {
			g.metrics.refuse(refusedMissing)
			err = unauthenticated("%v", err)
		} else {
			var c *Caller
			if c, err = g.authenticate(r.Context(), text); err == nil {
				err = g.check(c, rule, nil)
			}
		}
		if err == nil {
			next.ServeHTTP(w, r)
			return
		}
		code := http.StatusForbidden
		switch status.Code(err) {
		case codes.Unauthenticated:
			w.Header().Set("WWW-Authenticate", "Bearer")
			code = http.StatusUnauthorized
		case codes.Unavailable:
			code = http.StatusServiceUnavailable
		}
		http.Error(w, status.Convert(err).Message(), code)
	})
}
