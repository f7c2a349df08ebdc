// SPDX-License-Identifier: Apache-2.0

package storetest

import "syscall"

// dieWithParent keeps a server from outliving a test that panicked or timed out.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
