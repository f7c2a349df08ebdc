// SPDX-License-Identifier: Apache-2.0

// Package folder is a model repository in a folder of this machine.
package folder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/clipper-serving/clipper/abstraction/repository"
)

// maxFiles bounds what is listed.
const maxFiles = 500_000

// Source is a folder. It follows no link that leads out of the folder.
type Source struct{ root string }

var _ repository.Source = (*Source)(nil)

// Open returns the folder at a path as a source. It need not exist yet.
func Open(path string) (*Source, error) {
	root, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open the model repository: %w", err)
	}
	return &Source{root: root}, nil
}

// Location returns the folder's absolute path.
func (s *Source) Location() string { return s.root }

// List returns the files in the folder.
func (s *Source) List(ctx context.Context) ([]repository.File, error) {
	root, err := os.OpenRoot(s.root)
	if err != nil {
		return nil, fmt.Errorf("the folder of the model repository cannot be read: %w", err)
	}
	defer root.Close() //nolint:errcheck // It is only read.
	var files []repository.File
	err = fs.WalkDir(root.FS(), ".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, fs.ErrNotExist) && path != ".": // It went meanwhile.
			return nil
		case err != nil && path == ".":
			return err
		case err != nil:
			files = append(files, repository.File{Path: path, Refused: "cannot be read: " + cause(err)})
			return nil
		case entry.IsDir():
			// Such folders are not looked at; within a version they may tell that it is being copied.
			if path != "." && strings.HasPrefix(entry.Name(), ".") && strings.Count(path, "/") < 2 {
				return fs.SkipDir
			}
			return nil
		case len(files) >= maxFiles:
			return fmt.Errorf("there are more than %d files", maxFiles)
		}
		file, err := look(root, path, entry)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		files = append(files, file)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("the folder of the model repository cannot be read: %w", err)
	}
	return files, nil
}

// look returns a file, or what a link within the folder leads to.
func look(root *os.Root, path string, entry fs.DirEntry) (repository.File, error) {
	link := entry.Type()&fs.ModeSymlink != 0
	info, err := root.Stat(path)
	switch {
	case err != nil && link:
		return repository.File{Path: path, Refused: "is a link that leads out of the repository or nowhere: put the file itself there"}, nil
	case errors.Is(err, fs.ErrNotExist):
		return repository.File{}, err
	case err != nil:
		return repository.File{Path: path, Refused: "cannot be read: " + cause(err)}, nil
	case info.IsDir():
		return repository.File{Path: path, Refused: "is a link to a folder: put the folder itself there"}, nil
	case !info.Mode().IsRegular():
		return repository.File{Path: path, Refused: "is no regular file"}, nil
	}
	return repository.File{Path: path, Size: info.Size(), Tag: strconv.FormatInt(info.ModTime().UnixNano(), 36)}, nil
}

// cause returns an error without the path, which is said already.
func cause(err error) string {
	var of *fs.PathError
	if errors.As(err, &of) {
		return of.Err.Error()
	}
	return err.Error()
}

// Read returns what is in a file.
func (s *Source) Read(_ context.Context, f repository.File) ([]byte, error) {
	root, err := os.OpenRoot(s.root)
	if err != nil {
		return nil, fmt.Errorf("the folder of the model repository cannot be read: %w", err)
	}
	defer root.Close() //nolint:errcheck // It is only read.
	file, err := root.Open(filepath.FromSlash(f.Path))
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read: %s", f.Path, cause(err))
	}
	defer file.Close() //nolint:errcheck // It is only read.
	text, err := io.ReadAll(io.LimitReader(file, repository.MaxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read: %s", f.Path, cause(err))
	}
	if len(text) > repository.MaxConfig {
		return nil, fmt.Errorf("%s has more than %d bytes", f.Path, repository.MaxConfig)
	}
	return text, nil
}

// Fetch returns the version's folder, which is here already.
func (s *Source) Fetch(_ context.Context, v repository.Version) (string, error) {
	return filepath.Join(s.root, v.Model, v.Version), nil
}

// Keep has nothing to let go of.
func (s *Source) Keep([]repository.Version) error { return nil }
