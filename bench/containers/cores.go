// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// oneCore returns the beginning of the command of a program that is to find one processor.
func oneCore() []string { return []string{"taskset", "--cpu-list", "0"} }

// freeCores lets all threads of a process and of what it has started run on every processor.
func freeCores(pid int) error {
	all := fmt.Sprintf("0-%d", runtime.NumCPU()-1)
	if out, err := exec.Command("taskset", "--all-tasks", "--pid", "--cpu-list", all, strconv.Itoa(pid)).CombinedOutput(); err != nil { //nolint:noctx // It takes no time.
		return fmt.Errorf("taskset: %w: %s", err, out)
	}
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return err
	}
	for _, list := range lists {
		children, err := os.ReadFile(list)
		if err != nil { // The thread has ended.
			continue
		}
		for _, child := range strings.Fields(string(children)) {
			id, err := strconv.Atoi(child)
			if err != nil {
				return err
			}
			if err := freeCores(id); err != nil {
				return err
			}
		}
	}
	return nil
}
