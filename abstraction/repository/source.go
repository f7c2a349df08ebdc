// SPDX-License-Identifier: Apache-2.0

package repository

import "context"

// Source is where a repository's files are. An implementation passes the suite in sourcetest. Safe for
// concurrent use.
type Source interface {
	// Location names the source, as users gave it.
	Location() string
	// List returns every file, also those whose names begin with a dot, in any order. A file that must not
	// be used comes with the reason; only what concerns the whole source is an error.
	List(ctx context.Context) ([]File, error)
	// Read returns what is in a file, which has at most [MaxConfig] bytes.
	Read(ctx context.Context, f File) ([]byte, error)
	// Fetch returns the folder with a version's files on this machine, after it has brought them there if
	// they were elsewhere. The folder stays as it is until Keep is called without the version.
	Fetch(ctx context.Context, v Version) (string, error)
	// Keep lets go of what was fetched for other versions than these; one without a fingerprint stands
	// for whatever was fetched for it. It must not run beside Fetch.
	Keep(versions []Version) error
}

// File is one file of a source.
type File struct {
	// Path is relative to the repository, with slashes.
	Path string
	// Size is in bytes.
	Size int64
	// Tag changes when what is in the file does.
	Tag string
	// Refused is why the file must not be used; empty when it may.
	Refused string
}

// Version is a version's files at one moment.
type Version struct {
	// Model and Version are the names of its folders.
	Model, Version string
	// Fingerprint changes when the files do. It is fit for the name of a folder.
	Fingerprint string
	// Files are all that are in its folder, none of them refused.
	Files []File
}

// MaxConfig is the largest size of a settings file in bytes; warm-up samples may take most of it.
const MaxConfig = 2 << 20
