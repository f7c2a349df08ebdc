// SPDX-License-Identifier: Apache-2.0

//go:build unix

package journal

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// lockWait is enough for a predecessor that is about to end.
const lockWait = 3 * time.Second

// lockFile opens a file that no other process has locked. The lock ends with the file or the process.
func lockFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(lockWait); ; time.Sleep(20 * time.Millisecond) {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return file, nil
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return nil, errors.Join(err, file.Close())
		case time.Now().After(end):
			return nil, errors.Join(errors.New("another process has it open; every selector needs a folder of its own"), file.Close())
		}
	}
}
