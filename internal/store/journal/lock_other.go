// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package journal

import "os"

// lockFile only opens the file: here nothing keeps two processes from sharing a folder.
func lockFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}
