// SPDX-License-Identifier: Apache-2.0

// Command clipper is the product: the three services, together or apart, and their client.
package main

import (
	"context"
	"os"

	"github.com/clipper-serving/clipper/internal/app"
	"github.com/clipper-serving/clipper/internal/cli"
	"github.com/clipper-serving/clipper/internal/services"
	"github.com/clipper-serving/clipper/internal/telemetry"
)

// version is the release; the linker sets it.
var version string

func main() {
	ctx, stop := app.SignalContext(context.Background())
	build := telemetry.ReadBuild(version)
	code := cli.Run(ctx, cli.System(), build, os.Args[1:], services.Options(ctx, build)...)
	stop()
	os.Exit(code)
}
