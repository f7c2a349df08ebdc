// SPDX-License-Identifier: Apache-2.0

// Package explorer serves the description of the REST API and a page on which to try it. The page
// is part of the program and loads nothing from elsewhere.
package explorer

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/clipper-serving/clipper/gen/openapi"
)

//go:embed assets
var assets embed.FS

// policy lets the page load and call only what it came from.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Explorer serves /openapi.json and /docs. Safe for concurrent use.
type Explorer struct {
	files map[string][]byte // By path.
	// operations are the methods of each path, whose segments are names or, in braces, parameters.
	operations map[string][]string
}

var _ http.Handler = (*Explorer)(nil)

// New returns an explorer of the named services, those of one listener.
func New(services []string) (*Explorer, error) {
	spec, err := filter(openapi.Spec, services)
	if err != nil {
		return nil, err
	}
	var described struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(spec, &described); err != nil {
		return nil, fmt.Errorf("read OpenAPI: %w", err)
	}
	e := &Explorer{files: map[string][]byte{"/openapi.json": spec}, operations: make(map[string][]string)}
	for p, methods := range described.Paths {
		for method := range methods {
			e.operations[p] = append(e.operations[p], strings.ToUpper(method))
		}
	}
	entries, err := fs.ReadDir(assets, "assets")
	if err != nil {
		return nil, fmt.Errorf("read assets: %w", err)
	}
	for _, entry := range entries {
		content, err := assets.ReadFile("assets/" + entry.Name())
		if err != nil {
			return nil, fmt.Errorf("read assets: %w", err)
		}
		e.files["/docs/"+entry.Name()] = content
	}
	return e, nil
}

// tag is a group of operations.
type tag struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
}

// filter leaves the operations of the named services in a description.
func filter(spec []byte, services []string) ([]byte, error) {
	var all map[string]json.RawMessage
	var paths map[string]map[string]json.RawMessage
	var tags []tag
	for _, err := range []error{json.Unmarshal(spec, &all), json.Unmarshal(all["paths"], &paths), json.Unmarshal(all["tags"], &tags)} {
		if err != nil {
			return nil, fmt.Errorf("read OpenAPI: %w", err)
		}
	}
	for p, methods := range paths {
		for method, raw := range methods {
			var operation struct{ Tags []string }
			if err := json.Unmarshal(raw, &operation); err != nil {
				return nil, fmt.Errorf("read OpenAPI: %s %s: %w", method, p, err)
			}
			if !slices.ContainsFunc(operation.Tags, func(tag string) bool { return slices.Contains(services, tag) }) {
				delete(methods, method)
			}
		}
		if len(methods) == 0 {
			delete(paths, p)
		}
	}
	tags = slices.DeleteFunc(tags, func(t tag) bool { return !slices.Contains(services, t.Name) })
	var err error
	if all["paths"], err = json.Marshal(paths); err != nil {
		return nil, fmt.Errorf("write OpenAPI: %w", err)
	}
	if all["tags"], err = json.Marshal(tags); err != nil {
		return nil, fmt.Errorf("write OpenAPI: %w", err)
	}
	return json.Marshal(all)
}

// Serves reports whether a path is the explorer's.
func (e *Explorer) Serves(p string) bool {
	_, ok := e.files[p]
	return ok || p == "/docs" || p == "/docs/" || p == "/"
}

// Methods returns the methods that a path has, sorted; none when it is not described. The path is
// not escaped, since an escaped slash separates as well.
func (e *Explorer) Methods(of string) []string {
	var methods []string
	for template, operations := range e.operations {
		if fits(of, template) {
			methods = append(methods, operations...)
		}
	}
	slices.Sort(methods)
	return slices.Compact(methods)
}

// fits reports whether a path is one of a template.
func fits(of, template string) bool {
	segments, want := strings.Split(of, "/"), strings.Split(template, "/")
	return slices.EqualFunc(segments, want, func(segment, want string) bool {
		if strings.HasPrefix(want, "{") {
			return segment != ""
		}
		return segment == want
	})
}

// ServeHTTP serves one of the explorer's files.
func (e *Explorer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	name := r.URL.Path
	switch name {
	case "/", "/docs":
		http.Redirect(w, r, "/docs/", http.StatusFound)
		return
	case "/docs/":
		name = "/docs/index.html"
	}
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
	if path.Ext(name) == ".json" {
		h.Set("Content-Type", "application/json")
	}
	http.ServeContent(w, r, path.Base(name), time.Time{}, bytes.NewReader(e.files[name]))
}
