// SPDX-License-Identifier: Apache-2.0

// Command program is the suite's program, for launchers that cannot run a test binary.
package main

import (
	"fmt"
	"os"

	"github.com/clipper-serving/clipper/abstraction/launcher/launchertest"
)

func main() {
	code, ran := launchertest.Main()
	if !ran {
		fmt.Fprintln(os.Stderr, launchertest.EnvBehaviour+" is not set")
		code = 2
	}
	os.Exit(code)
}
