// SPDX-License-Identifier: Apache-2.0

// Command bench runs Clipper's experiments. Each measures Clipper and what it is compared with in
// one run, prints a table, and says which bars it meets.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/clipper-serving/clipper/bench/adopt"
	"github.com/clipper-serving/clipper/bench/autoscaling"
	"github.com/clipper-serving/clipper/bench/batching"
	"github.com/clipper-serving/clipper/bench/cache"
	"github.com/clipper-serving/clipper/bench/canary"
	"github.com/clipper-serving/clipper/bench/containers"
	"github.com/clipper-serving/clipper/bench/contextual"
	"github.com/clipper-serving/clipper/bench/cost"
	"github.com/clipper-serving/clipper/bench/crash"
	"github.com/clipper-serving/clipper/bench/delay"
	"github.com/clipper-serving/clipper/bench/edge"
	"github.com/clipper-serving/clipper/bench/ensemble"
	"github.com/clipper-serving/clipper/bench/exp"
	"github.com/clipper-serving/clipper/bench/experiment"
	"github.com/clipper-serving/clipper/bench/feedback"
	"github.com/clipper-serving/clipper/bench/isolation"
	"github.com/clipper-serving/clipper/bench/kill"
	"github.com/clipper-serving/clipper/bench/offpolicy"
	"github.com/clipper-serving/clipper/bench/oip"
	"github.com/clipper-serving/clipper/bench/overload"
	"github.com/clipper-serving/clipper/bench/policies"
	"github.com/clipper-serving/clipper/bench/reload"
	"github.com/clipper-serving/clipper/bench/replicas"
	"github.com/clipper-serving/clipper/bench/rest"
	"github.com/clipper-serving/clipper/bench/rolling"
	"github.com/clipper-serving/clipper/bench/saturation"
	"github.com/clipper-serving/clipper/bench/security"
	"github.com/clipper-serving/clipper/bench/stragglers"
)

func main() {
	if addresses := os.Getenv(edge.PeerVariable); addresses != "" {
		if err := edge.Peer(addresses); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if address := os.Getenv(rest.PeerVariable); address != "" {
		if err := rest.Peer(address); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if addresses := os.Getenv(oip.PeerVariable); addresses != "" {
		if err := oip.Peer(addresses); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := experiment.Main(ctx, os.Args[1:], os.Stdout, os.Stderr,
		edge.Experiment,
		rest.Experiment,
		oip.Experiment,
		security.Experiment,
		saturation.Experiment,
		batching.Experiment,
		batching.Real,
		overload.Experiment,
		delay.Experiment,
		replicas.Experiment,
		cache.Experiment,
		reload.Experiment,
		rolling.Experiment,
		isolation.Experiment,
		kill.Experiment,
		adopt.Experiment,
		cost.Experiment,
		contextual.Experiment,
		feedback.Experiment,
		crash.Experiment,
		policies.Experiment,
		stragglers.Experiment,
		offpolicy.Experiment,
		exp.Experiment,
		ensemble.Experiment,
		canary.Experiment,
		containers.Experiment,
		autoscaling.Experiment,
	)
	stop()
	os.Exit(code)
}
