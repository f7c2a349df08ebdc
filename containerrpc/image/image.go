// SPDX-License-Identifier: Apache-2.0

// Package image makes what a container image of a model is built from: a Dockerfile that people can read and
// keep, the framework's adapter, the Python packages that it imports, its pinned requirements, and the saved
// model. The same model gives the same bytes each time.
package image

import (
	"bytes"
	_ "embed" // the Dockerfile
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"text/template"

	sources "github.com/clipper-serving/clipper"
)

// DefaultBase is the image that others are built on, unless another one is named.
const DefaultBase = "python:3.13-slim"

// Spec is what an image is to be of.
type Spec struct {
	// Name is the model's, for people.
	Name string
	// Framework is one of Frameworks.
	Framework string
	// Path is the saved model, a file or a folder; "" for the adapters of servers, which need none.
	Path string
	// Requirements is a file for pip, in the place of the adapter's requirements; "": the adapter's.
	Requirements string
	// Base is an image with Python and pip; "": DefaultBase.
	Base string
	// Environment has the adapter's settings.
	Environment map[string]string
	// Version is that of Clipper, whose adapter it is.
	Version string
}

// trait is what sets the image of a framework apart.
type trait struct {
	packages string // Debian's, which Python's packages need
	server   bool   // the adapter of a server: there is no saved model
	library  string // a package of this repository that the adapter imports
}

var traits = map[string]trait{
	"spark":    {packages: "default-jre-headless"},
	"lightgbm": {packages: "libgomp1"},
	"http":     {server: true},
	"oip":      {server: true},
	"htk":      {library: "containerrpc/htk/src/clipper_htk"},
}

const adapters = "containerrpc/adapters"

// FrameworkError says that there can be no image of a framework.
type FrameworkError struct{ message string }

func (e *FrameworkError) Error() string { return e.message }

// Frameworks returns the frameworks that images are made of, sorted: those whose adapter is in Python.
func Frameworks() []string { return withFile("adapter.py") }

func withFile(name string) (found []string) {
	paths, _ := fs.Glob(sources.Adapters, adapters+"/*/"+name) // The only error is a bad pattern.
	for _, p := range paths {
		found = append(found, path.Base(path.Dir(p)))
	}
	slices.Sort(found)
	return found
}

func checkFramework(name string) error {
	switch in := Frameworks(); {
	case slices.Contains(in, name):
		return nil
	case slices.Contains(withFile("adapter.cc"), name):
		return &FrameworkError{fmt.Sprintf("the adapter of %s is compiled: build an image of it with its Dockerfile (%s/%s/README.md), or take %s, which serves the same models from Python",
			name, adapters, name, strings.TrimSuffix(name, "-cpp"))}
	default:
		return &FrameworkError{fmt.Sprintf("there is no adapter of the framework %q: there are %s", name, strings.Join(in, ", "))}
	}
}

//go:embed Dockerfile.tmpl
var dockerfileText string

var dockerfile = template.Must(template.New("Dockerfile").Funcs(template.FuncMap{"quote": quote}).Parse(dockerfileText))

// New makes the context of an image. The error is a *FrameworkError when there can be no image of the framework,
// or says which file cannot be used and why.
func New(s Spec) (*Context, error) {
	if err := checkFramework(s.Framework); err != nil {
		return nil, err
	}
	t := traits[s.Framework]
	if t.server && s.Path != "" {
		return nil, fmt.Errorf("the adapter of %s serves no saved model: leave %s out", s.Framework, s.Path)
	}
	if !t.server && s.Path == "" {
		return nil, fmt.Errorf("the adapter of %s serves a saved model: name its file or folder (--path)", s.Framework)
	}
	if s.Base == "" {
		s.Base = DefaultBase
	}
	for _, name := range []string{s.Name, s.Base} {
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' }) {
			return nil, fmt.Errorf("%q is no name of an image", name)
		}
	}
	env, err := environment(s.Environment)
	if err != nil {
		return nil, err
	}
	requirements, err := requirements(s)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	err = dockerfile.Execute(&text, map[string]any{"Spec": s, "Packages": t.packages, "Environment": env})
	if err != nil {
		return nil, err
	}
	c := &Context{}
	c.text("Dockerfile", text.Bytes())
	c.text("requirements.txt", requirements)
	err = errors.Join(
		c.source(sources.Adapters, path.Join(adapters, s.Framework, "adapter.py"), "adapter/adapter.py"),
		c.source(sources.Python, "containerrpc/python/src/clipper_container", "adapter/clipper_container"),
		c.source(sources.Python, "gen/python/src/clipper_proto", "adapter/clipper_proto"),
	)
	if t.library != "" {
		err = errors.Join(err, c.source(sources.Python, t.library, path.Join("adapter", path.Base(t.library))))
	}
	if s.Path != "" {
		err = errors.Join(err, c.saved(s.Path, "model"))
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(c.files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return c, nil
}

// variable is one of the environment, ready for a Dockerfile.
type variable struct{ Name, Value string }

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func environment(in map[string]string) (out []variable, err error) {
	for name, value := range in {
		if !variableName.MatchString(name) {
			return nil, fmt.Errorf("%q is no name of an environment variable", name)
		}
		if strings.ContainsAny(value, "\n\r\x00") {
			return nil, fmt.Errorf("the environment variable %s has more than one line, which a Dockerfile cannot say: set it when the model is deployed", name)
		}
		out = append(out, variable{name, value})
	}
	slices.SortFunc(out, func(a, b variable) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// quote returns a text as a Dockerfile takes it, with nothing in it replaced.
func quote(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(text) + `"`
}

// pinned is a line of a file for pip that names a package.
var pinned = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*`)

var separators = regexp.MustCompile(`[-_.]+`)

// packageOf returns the name of the package that a line asks for, in pip's normal form, or "".
func packageOf(line string) string {
	return strings.ToLower(separators.ReplaceAllString(pinned.FindString(line), "-"))
}

// requirements returns what pip installs: what the adapter or the user pins, and, of what the runtime needs, what
// is not among that.
func requirements(s Spec) ([]byte, error) {
	var own []byte
	var err error
	heading := "# What the adapter needs."
	if s.Requirements == "" {
		own, err = sources.Adapters.ReadFile(path.Join(adapters, s.Framework, "requirements.txt"))
	} else {
		heading = "# What the model needs."
		own, err = os.ReadFile(s.Requirements)
	}
	if err != nil {
		return nil, fmt.Errorf("read the requirements: %w", err)
	}
	runtime, err := sources.Python.ReadFile("containerrpc/python/requirements.txt")
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	text.WriteString(heading + "\n")
	var have []string
	for line := range strings.Lines(string(own)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		have = append(have, packageOf(line))
		text.WriteString(line + "\n")
	}
	text.WriteString("# What Clipper's runtime needs.\n")
	for line := range strings.Lines(string(runtime)) {
		if name := packageOf(line); name != "" && !slices.Contains(have, name) {
			text.WriteString(strings.TrimSpace(line) + "\n")
		}
	}
	return text.Bytes(), nil
}
