// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/clipper-serving/clipper/abstraction/catalog"
)

// ConfigFile is the name of the files with settings: one for a model, and one for a version.
const ConfigFile = "clipper.yaml"

// tree is what a source holds, by the names of models.
type tree map[string]*folder

// folder is a model's folder.
type folder struct {
	config   *File
	versions map[string]*content
	problem  string // why none of it can be used
}

// content is a version's folder.
type content struct {
	files   []File
	config  *File
	size    int64
	problem string // why it cannot be used
}

// grow sorts files into folders. Files beside the models' folders, other files than the settings beside
// the versions', and folders whose names begin with a dot are not looked at.
func grow(files []File) tree {
	t := tree{}
	for _, file := range files {
		model, rest, deeper := strings.Cut(file.Path, "/")
		if hidden(model) && model != ".." || !deeper && file.Refused == "" {
			continue
		}
		if t[model] == nil {
			t[model] = &folder{versions: map[string]*content{}}
			if err := catalog.CheckName("model", model); err != nil {
				t[model].problem = fmt.Sprintf("the folder's name is not a name of a model: %s", message(err))
			}
		}
		f := t[model]
		if !deeper {
			f.problem = cmp.Or(f.problem, file.Refused)
			continue
		}
		version, name, deeper := strings.Cut(rest, "/")
		switch {
		case version == ConfigFile && !deeper:
			f.config = &file
			if file.Refused != "" {
				f.problem = cmp.Or(f.problem, ConfigFile+" "+file.Refused)
			}
			continue
		case hidden(version) && version != ".." || !deeper && file.Refused == "":
			continue
		}
		if f.versions[version] == nil {
			f.versions[version] = &content{}
			if err := catalog.CheckName("version", version); err != nil {
				f.versions[version].problem = fmt.Sprintf("the folder's name is not a name of a version: %s", message(err))
			}
		}
		c := f.versions[version]
		switch {
		case !deeper:
			c.problem = cmp.Or(c.problem, file.Refused)
			continue
		case file.Refused != "":
			c.problem = cmp.Or(c.problem, fmt.Sprintf("%q %s", name, file.Refused))
		case name == ConfigFile:
			c.config = &file
		}
		c.files, c.size = append(c.files, file), c.size+file.Size
	}
	return t
}

func hidden(name string) bool { return strings.HasPrefix(name, ".") }

// newest returns the names of the versions, the newest first.
func (f *folder) newest() []string {
	names := make([]string, 0, len(f.versions))
	for name := range f.versions {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return compareVersions(b, a) })
	return names
}

// fingerprint changes when a file of the version or its settings do.
func (c *content) fingerprint(model *File) string {
	slices.SortFunc(c.files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	h := sha256.New()
	files := c.files
	if model != nil {
		files = append(slices.Clip(files), *model)
	}
	for _, f := range files {
		_, _ = fmt.Fprintf(h, "%q %d %q\n", f.Path, f.Size, f.Tag) // A hash takes everything.
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// entries returns what is in the version's folder at its top, but for settings and what is hidden.
func (c *content) entries(prefix string) []string {
	var names []string
	for _, f := range c.files {
		name, _, _ := strings.Cut(strings.TrimPrefix(f.Path, prefix+"/"), "/")
		if name != ConfigFile && !hidden(name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// has reports whether there is such a file or folder.
func (c *content) has(name string) bool {
	return slices.ContainsFunc(c.files, func(f File) bool { return f.Path == name || strings.HasPrefix(f.Path, name+"/") })
}

// compareVersions orders versions by age as people do who number them: numbers in names are compared as
// numbers, so that 10 is newer than 9, and 1.10 than 1.9.
func compareVersions(a, b string) int {
	x, y := a, b
	for x != "" && y != "" {
		var p, q string
		p, x = chunk(x)
		q, y = chunk(y)
		if c := compareChunks(p, q); c != 0 {
			return c
		}
	}
	return cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(a, b))
}

func compareChunks(p, q string) int {
	if !digit(p[0]) || !digit(q[0]) {
		return strings.Compare(p, q)
	}
	p, q = strings.TrimLeft(p, "0"), strings.TrimLeft(q, "0")
	return cmp.Or(cmp.Compare(len(p), len(q)), strings.Compare(p, q))
}

// chunk cuts the digits, or what are none, off the front.
func chunk(s string) (first, rest string) {
	i := 1
	for i < len(s) && digit(s[i]) == digit(s[0]) {
		i++
	}
	return s[:i], s[i:]
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// CheckPath returns why a path must not be used for a file in a version's folder; empty when it may. It
// is for sources whose names are not those of a file system.
func CheckPath(name string) string {
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == "." || part == "..":
			return "has a name that leads elsewhere: want no empty part, '.' or '..' between slashes"
		case len(part) > 255:
			return "has a name that is too long: want at most 255 bytes between slashes"
		case strings.ContainsFunc(part, func(r rune) bool { return r < ' ' || r == '\\' || r == 0x7f }):
			return `has a name with a backslash or a control character: want none`
		}
	}
	if path.Clean(name) != name {
		return "has a name that leads elsewhere"
	}
	return ""
}
