// SPDX-License-Identifier: Apache-2.0

// Clipper is the services and the command line in one program.
package main

import (
	"context"
	"os"

	"github.com/clipper-serving/clipper/internal/cli"
	"github.com/clipper-serving/clipper/internal/services"
	"github.com/clipper-serving/clipper/internal/telemetry"
)

var version string // Set by the linker.

func main() {
	ctx, build := context.Background(), telemetry.ReadBuild(version)
	os.Exit(cli.Run(ctx, cli.System(), build, os.Args[1:], services.Options(ctx, build)...))
}
