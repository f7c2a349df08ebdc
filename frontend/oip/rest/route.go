// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
)

// place is what a path says beside the operation.
type place struct{ model, version string }

type operation func(*Handler, http.ResponseWriter, *http.Request, place) error

// route is an operation with its method and the parts of its path.
type route struct {
	method string
	parts  []string
	serve  operation
}

// routes are all of them. The first that fits counts.
var routes = func() (all []route) {
	add := func(method, path string, serve operation) {
		all = append(all, route{method: method, parts: strings.Split(path, "/"), serve: serve})
	}
	// These also with a version.
	model := func(method, path string, serve operation) {
		add(method, "v2/models/{model}"+path, serve)
		add(method, "v2/models/{model}/versions/{version}"+path, serve)
	}
	model(http.MethodPost, "/infer", (*Handler).infer)
	add(http.MethodGet, "v2", (*Handler).server)
	add(http.MethodGet, "v2/health/live", (*Handler).live)
	add(http.MethodGet, "v2/health/ready", (*Handler).ready)
	add(http.MethodGet, "v2/models", (*Handler).models)
	add(http.MethodGet, "v2/models/stats", (*Handler).statistics) // Of all, even where a model has that name.
	model(http.MethodGet, "", (*Handler).metadata)
	model(http.MethodGet, "/ready", (*Handler).modelReady)
	model(http.MethodGet, "/config", (*Handler).config)
	model(http.MethodGet, "/stats", (*Handler).statistics)
	add(http.MethodPost, "v2/repository/index", (*Handler).index)
	add(http.MethodPost, "v2/repository/models/{model}/load", (*Handler).load)
	add(http.MethodPost, "v2/repository/models/{model}/unload", (*Handler).unload)
	return all
}()

// maxParts is the number of parts of the longest path.
const maxParts = 6

// find finds the operation of a request. Each part of a path is decoded by itself, so that a name may
// hold any character, even a slash.
func find(r *http.Request) (operation, place, error) {
	var few [maxParts]string
	parts := few[:0]
	path := strings.TrimSuffix(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	for part := range strings.SplitSeq(path, "/") {
		name, err := decodePart(part)
		switch {
		case err != nil:
			return nil, place{}, err
		case len(parts) == maxParts:
			return nil, place{}, nothingAt(r)
		}
		parts = append(parts, name)
	}
	allow := ""
	for i := range routes {
		p, ok := routes[i].match(parts)
		switch {
		case !ok:
		case routes[i].method == r.Method || routes[i].method == http.MethodGet && r.Method == http.MethodHead:
			return routes[i].serve, p, nil
		case allow == "":
			allow = routes[i].method
		}
	}
	if allow == "" {
		return nil, place{}, nothingAt(r)
	}
	return nil, place{}, methodError{allow: allow, err: apierror.New(codes.Unimplemented, clipperv1.ErrorReason_ERROR_REASON_UNKNOWN_METHOD, "",
		"%s cannot be used with %s, only with %s", shorten(r.URL.Path), shorten(r.Method), allow)}
}

func (r *route) match(parts []string) (p place, ok bool) {
	if len(parts) != len(r.parts) {
		return p, false
	}
	for i, want := range r.parts {
		switch {
		case want == "{model}" && parts[i] != "":
			p.model = parts[i]
		case want == "{version}" && parts[i] != "":
			p.version = parts[i]
		case want != parts[i]:
			return p, false
		}
	}
	return p, true
}

// decodePart undoes percent-encoding. What is not UTF-8 cannot be a name.
func decodePart(part string) (string, error) {
	name, err := url.PathUnescape(part)
	if err != nil || !utf8.ValidString(name) {
		return "", invalid("", "the path cannot be read: %q is not UTF-8 in percent-encoding", shorten(part))
	}
	return name, nil
}

func nothingAt(r *http.Request) error {
	return apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_UNKNOWN_METHOD, "",
		"there is nothing at %s: expected a path of the Open Inference Protocol, such as /v2/models/NAME/infer", shorten(r.URL.Path))
}
