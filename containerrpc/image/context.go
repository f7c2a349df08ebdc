// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"
)

// ErrExists says that a folder is not written since there is something in it.
var ErrExists = errors.New("exists already, and nothing is overwritten")

// made is when every file of a context is said to have been made: the earliest time that the archives of Python
// can hold.
var made = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

// Context is what an image is built from: files, sorted by name.
type Context struct {
	files []file
}

// file is one of a context.
type file struct {
	name string // with slashes
	size int64
	mode int64
	open func() (io.ReadCloser, error)
}

func (c *Context) text(name string, text []byte) {
	c.files = append(c.files, file{name, int64(len(text)), 0o644, func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(text)), nil
	}})
}

// source adds a file or a folder of the embedded sources.
func (c *Context) source(from fs.FS, root, name string) error {
	return fs.WalkDir(from, root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(from, p)
		c.text(path.Join(name, p[len(root):]), text)
		return err
	})
}

// saved adds a saved model. Of a link to a file the file is taken, since a link may lead out of the context.
func (c *Context) saved(root, name string) error {
	if info, err := os.Stat(root); err == nil && info.IsDir() {
		// A root that is a link is followed as well.
		if root, err = filepath.EvalSymlinks(root); err != nil {
			return err
		}
	}
	found := 0
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := os.Stat(p)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is neither a file nor a link to one: it cannot be in an image", p)
		}
		inside, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		// A container runs as another user than the one who saved the model.
		mode := int64(0o644)
		if info.Mode()&0o100 != 0 {
			mode = 0o755
		}
		c.files = append(c.files, file{path.Join(name, filepath.ToSlash(inside)), info.Size(), mode, func() (io.ReadCloser, error) { return os.Open(p) }}) //nolint:gosec // The user names it.
		found++
		return nil
	})
	if err == nil && found == 0 {
		err = fmt.Errorf("there is no file in %s", root)
	}
	if err != nil {
		return fmt.Errorf("read the saved model: %w", err)
	}
	return nil
}

// Names returns the files, sorted.
func (c *Context) Names() (names []string) {
	for _, f := range c.files {
		names = append(names, f.name)
	}
	return names
}

// Size returns the sum of the sizes of the files in bytes.
func (c *Context) Size() (sum int64) {
	for _, f := range c.files {
		sum += f.size
	}
	return sum
}

// Archive writes the context as a tar archive. Two archives of the same files are the same to the byte, whoever
// owns the files and whenever they were written.
func (c *Context) Archive(w io.Writer) error {
	archive := tar.NewWriter(w)
	for _, f := range c.files {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Size: f.size, Mode: f.mode, ModTime: made, Format: tar.FormatPAX}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if err := f.copy(archive); err != nil {
			return err
		}
	}
	return archive.Close()
}

// Digest returns the SHA-256 of the archive, as "sha256:...".
func (c *Context) Digest() (string, error) {
	digest := sha256.New()
	if err := c.Archive(digest); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(digest.Sum(nil)), nil
}

// Write writes the context into a folder, which must be empty or not be there. The error is ErrExists when there is
// something in it.
func (c *Context) Write(folder string) error {
	if there, err := os.ReadDir(folder); len(there) > 0 {
		return fmt.Errorf("%s %w", folder, ErrExists)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, f := range c.files {
		name := filepath.Join(folder, filepath.FromSlash(f.name))
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil { //nolint:gosec // as the user's umask says
			return err
		}
		if err := f.write(name); err != nil {
			return err
		}
	}
	return nil
}

func (f file) write(name string) error {
	out, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fs.FileMode(f.mode)) //nolint:gosec // The user names the folder.
	if err != nil {
		return err
	}
	return errors.Join(f.copy(out), out.Close(), os.Chtimes(name, made, made))
}

// copy copies a file. One that has changed its size since it was found is an error.
func (f file) copy(w io.Writer) error {
	in, err := f.open()
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	n, err := io.Copy(w, io.LimitReader(in, f.size))
	if err == nil && n < f.size {
		err = fmt.Errorf("%s became shorter while it was read", f.name)
	}
	return err
}
