// SPDX-License-Identifier: Apache-2.0

package experiment

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
)

// SkipError is why an experiment cannot run here, which is no failure.
type SkipError struct{ Reason string }

// Error implements error.
func (e *SkipError) Error() string { return "skipped: " + e.Reason }

// Data returns the path of a file in the folder of data that is not part of the repository: the one that
// CLIPPER_DATA names, or ../shared/data from the root. Without the file the error is a [*SkipError].
func Data(root, file string) (string, error) {
	folder := cmp.Or(os.Getenv("CLIPPER_DATA"), filepath.Join(root, "..", "shared", "data"))
	path, err := filepath.Abs(filepath.Join(folder, file))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", &SkipError{Reason: fmt.Sprintf("there is no %s; set CLIPPER_DATA to the folder that has %s", path, file)}
	}
	return path, nil
}
