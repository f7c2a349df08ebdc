// SPDX-License-Identifier: Apache-2.0

// Package scaffold writes new model containers: a program that works, with its image, its documentation
// and its test, in which the model is then replaced.
package scaffold

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"
)

// Languages are those that a container can be written in.
const (
	Python = "python"
	CPP    = "cpp"
	Go     = "go"
)

// ErrExists says that a folder is not written since there is something in it.
var ErrExists = errors.New("exists already, and nothing is overwritten")

// nameForm is what all of a Docker image, a CMake project and a Go module may be called.
var nameForm = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

const maxName = 63

//go:embed templates
var files embed.FS

// Container is what is to be written.
type Container struct {
	// Name is the container's: lower-case letters, digits and single dashes between them.
	Name string
	// Language is Python, CPP or Go.
	Language string
	// Source is the checkout of Clipper that the container is built with, an absolute path; "": not known.
	Source string
}

// CheckName returns what is wrong with a container's name, or nil.
func CheckName(name string) error {
	if len(name) > maxName || !nameForm.MatchString(name) {
		return fmt.Errorf("the name %.80q is not one that an image can have: expected at most %d lower-case letters, digits and single dashes, a letter first", name, maxName)
	}
	return nil
}

// IsSource reports whether a folder is a checkout of Clipper.
func IsSource(folder string) bool {
	text, err := os.ReadFile(filepath.Join(folder, "go.mod"))
	return err == nil && strings.HasPrefix(string(text), "module github.com/clipper-serving/clipper\n")
}

// Write writes a container into a folder, which must be empty or not be there, and returns the names of the
// files in it, in order. The error is ErrExists when there is something in the folder.
func Write(folder string, c Container) ([]string, error) {
	if err := CheckName(c.Name); err != nil {
		return nil, err
	}
	root := path.Join("templates", c.Language)
	t, err := template.ParseFS(files, root+"/*.tmpl")
	if err != nil {
		return nil, fmt.Errorf("containers in the language %q: %w", c.Language, err)
	}
	if there, err := os.ReadDir(folder); len(there) > 0 {
		return nil, fmt.Errorf("%s %w", folder, ErrExists)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return nil, err
	}
	templates := t.Templates() // In any order.
	slices.SortFunc(templates, func(a, b *template.Template) int { return strings.Compare(a.Name(), b.Name()) })
	var written []string
	for _, file := range templates {
		var text strings.Builder
		if err := file.Execute(&text, c); err != nil {
			return written, err
		}
		name := strings.TrimSuffix(file.Name(), ".tmpl")
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text.String()), 0o666); err != nil {
			return written, err
		}
		written = append(written, name)
	}
	return written, nil
}
