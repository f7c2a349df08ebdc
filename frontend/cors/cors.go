// SPDX-License-Identifier: Apache-2.0

// Package cors says which web pages may call an HTTP API (the Fetch standard, section 3.3). A browser
// sends some requests of any page, even to a server on its own machine, and only keeps the answer from
// it; so requests of other pages that could change something are refused here, not only left
// unanswered for the page.
package cors

import (
	"fmt"
	"net/http"
	"strings"
)

// Headers that requests of pages may have, and that pages may read in answers, beside those that are
// always allowed.
const (
	requestHeaders = "Authorization, Content-Encoding, Content-Type, Grpc-Timeout, If-Match, If-None-Match, Last-Event-ID, X-Api-Key"
	answerHeaders  = "Allow, Content-Encoding, ETag, Retry-After"
	methods        = "DELETE, GET, HEAD, PATCH, POST, PUT"
	// remember is how long a browser may remember what is allowed, in seconds.
	remember = "3600"
)

// Policy says which origins may call. It is not modified, and safe for concurrent use.
type Policy struct {
	any        bool
	origins    map[string]bool
	protection *http.CrossOriginProtection
}

// New returns a policy of origins, as in "https://app.example.com:8443"; "*" is any. Without origins,
// only pages of the server itself may call.
func New(origins []string) (*Policy, error) {
	p := &Policy{origins: make(map[string]bool), protection: http.NewCrossOriginProtection()}
	for _, origin := range origins {
		if origin == "*" {
			p.any = true
			continue
		}
		if origin != strings.ToLower(origin) {
			return nil, fmt.Errorf("origin %q: want small letters, as browsers send it", origin)
		}
		if err := p.protection.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("origin %q: want a scheme, a host and a port if it is unusual, as in https://app.example.com: %w", origin, err)
		}
		p.origins[origin] = true
	}
	return p, nil
}

// Handler returns a handler that answers the questions of browsers, lets next answer what is allowed,
// and refuse what is not.
func (p *Policy) Handler(next, refuse http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header["Origin"]
		header := w.Header()
		if p.any || len(p.origins) > 0 {
			header.Add("Vary", "Origin")
		}
		allowed := len(origin) == 1 && (p.any || p.origins[origin[0]])
		switch {
		case allowed:
			header.Set("Access-Control-Allow-Origin", origin[0])
			header.Set("Access-Control-Expose-Headers", answerHeaders)
			if r.Method == http.MethodOptions && r.Header["Access-Control-Request-Method"] != nil {
				header.Set("Access-Control-Allow-Methods", methods)
				header.Set("Access-Control-Allow-Headers", requestHeaders)
				header.Set("Access-Control-Max-Age", remember)
				w.WriteHeader(http.StatusNoContent)
				return
			}
		case p.protection.Check(r) != nil:
			refuse.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}
