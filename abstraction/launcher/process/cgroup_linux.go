// SPDX-License-Identifier: Apache-2.0

package process

import (
	"os"
	"syscall"
)

// enter makes a process that is to be started start in the group, so that nothing that it does is outside.
// The function that it returns is to be called once it has started.
func (g *group) enter(a *syscall.SysProcAttr) (started func(), err error) {
	dir, err := os.Open(g.dir)
	if err != nil {
		return nil, err
	}
	a.UseCgroupFD, a.CgroupFD = true, int(dir.Fd())
	return func() { _ = dir.Close() }, nil
}
