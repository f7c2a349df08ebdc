// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package process

import (
	"errors"
	"syscall"
)

// enter is not called: other systems have no control groups.
func (*group) enter(*syscall.SysProcAttr) (func(), error) { return nil, errors.ErrUnsupported }
