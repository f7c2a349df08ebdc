// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package storetest

import "syscall"

// dieWithParent does nothing where the system has no such thing.
func dieWithParent() *syscall.SysProcAttr { return nil }
