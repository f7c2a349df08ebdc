// SPDX-License-Identifier: Apache-2.0

// Package sourcetest is what every source of a model repository must do.
package sourcetest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clipper-serving/clipper/abstraction/repository"
)

// Place is where a source's files are.
type Place interface {
	// Source returns a new source of the place.
	Source(t *testing.T) repository.Source
	// Write makes or replaces a file.
	Write(t *testing.T, path, text string)
	// Remove removes a file.
	Remove(t *testing.T, path string)
}

// Run runs the suite; each test has an empty place.
func Run(t *testing.T, start func(t *testing.T) Place) {
	tests := map[string]func(*testing.T, Place){
		"an empty place has no files": func(t *testing.T, p Place) {
			require.Empty(t, list(t, p.Source(t)))
		},
		"files have paths, sizes and tags that change with them": func(t *testing.T, p Place) {
			p.Write(t, "m/1/weights", "abc")
			p.Write(t, "m/1/variables/.hidden", "")
			p.Write(t, "m/clipper.yaml", "framework: x")
			p.Write(t, "README.md", "hello")
			s := p.Source(t)
			before := list(t, s)
			require.Equal(t, []string{"README.md", "m/1/variables/.hidden", "m/1/weights", "m/clipper.yaml"}, paths(before))
			require.Equal(t, int64(3), before[2].Size)
			require.Equal(t, before, list(t, s), "nothing has changed")
			p.Write(t, "m/1/weights", "abd")
			after := list(t, s)
			require.NotEqual(t, before[2].Tag, after[2].Tag)
			require.Equal(t, before[3], after[3])
			p.Remove(t, "m/1/weights")
			require.Equal(t, []string{"README.md", "m/1/variables/.hidden", "m/clipper.yaml"}, paths(list(t, s)))
		},
		"a file is read": func(t *testing.T, p Place) {
			p.Write(t, "m/clipper.yaml", "framework: x")
			s := p.Source(t)
			text, err := s.Read(t.Context(), list(t, s)[0])
			require.NoError(t, err)
			require.Equal(t, "framework: x", string(text))
			_, err = s.Read(t.Context(), repository.File{Path: "m/none"})
			require.ErrorContains(t, err, "m/none")
		},
		"a version is fetched, and stays while it is kept": func(t *testing.T, p Place) {
			p.Write(t, "m/1/weights", "abc")
			p.Write(t, "m/1/variables/index", "i")
			p.Write(t, "m/2/weights", "other")
			s := p.Source(t)
			one := version(t, s, "m", "1")
			dir, err := s.Fetch(t.Context(), one)
			require.NoError(t, err)
			require.True(t, filepath.IsAbs(dir))
			content := func(name string) string {
				text, err := os.ReadFile(filepath.Join(dir, name))
				require.NoError(t, err)
				return string(text)
			}
			require.Equal(t, "abc", content("weights"))
			require.Equal(t, "i", content("variables/index"))
			again, err := s.Fetch(t.Context(), one)
			require.NoError(t, err)
			require.Equal(t, dir, again)
			require.NoError(t, s.Keep([]repository.Version{one}))
			require.NoError(t, s.Keep([]repository.Version{{Model: "m", Version: "1"}}), "whatever was fetched for it")
			require.Equal(t, "abc", content("weights"))
			// A source that is opened again knows what is here already.
			again, err = p.Source(t).Fetch(t.Context(), one)
			require.NoError(t, err)
			require.Equal(t, dir, again)
		},
		"what is kept of nothing is nothing": func(t *testing.T, p Place) {
			require.NoError(t, p.Source(t).Keep(nil))
		},
	}
	for name, test := range tests {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) { test(t, start(t)) })
	}
}

func list(t *testing.T, s repository.Source) []repository.File {
	t.Helper()
	files, err := s.List(t.Context())
	require.NoError(t, err)
	slices.SortFunc(files, func(a, b repository.File) int { return strings.Compare(a.Path, b.Path) })
	return files
}

func paths(files []repository.File) []string {
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f.Path
	}
	return names
}

func version(t *testing.T, s repository.Source, model, name string) repository.Version {
	t.Helper()
	v := repository.Version{Model: model, Version: name, Fingerprint: "f1"}
	for _, f := range list(t, s) {
		if strings.HasPrefix(f.Path, model+"/"+name+"/") {
			v.Files = append(v.Files, f)
		}
	}
	return v
}
