// SPDX-License-Identifier: Apache-2.0

package layer

import (
	"context"
	"io"
	"os"

	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/system"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// Run returns the Run of an experiment that needs the programs: it builds them, gives them to run,
// and removes them.
func Run(run func(context.Context, system.Binaries, io.Writer) (*experiment.Result, error)) func(context.Context, io.Writer) (*experiment.Result, error) {
	return func(ctx context.Context, log io.Writer) (*experiment.Result, error) {
		folder, err := os.MkdirTemp("", "clipper-bench-")
		if err != nil {
			return nil, err
		}
		defer func() { _ = os.RemoveAll(folder) }()
		b, err := system.Build(ctx, folder, log)
		if err != nil {
			return nil, err
		}
		return run(ctx, b, log)
	}
}

// Policy is the batching with a policy and the defaults in everything else.
func Policy(name string) *clipperv1.Batching { return &clipperv1.Batching{Policy: name} }
