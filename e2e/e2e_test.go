// SPDX-License-Identifier: Apache-2.0

// Package e2e tests Clipper as it is used: the binary, started as one process or as three, on the
// embedded store or on Redis, with models in containers of their own. The same bodies run on all
// four installations; the tests that kill and stop services are beside them.
//
// The binary is built with the race detector. A test fails when any process that it started has
// reported a race or has panicked. The tests need Linux and a redis-server.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// programs are the paths of what the tests run.
var programs struct{ clipper, container string }

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "clipper-e2e-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	const module = "github.com/clipper-serving/clipper"
	for program, build := range map[*string][]string{
		&programs.clipper:   {"-race", module + "/cmd/clipper"},
		&programs.container: {module + "/e2e/container"},
	} {
		*program = filepath.Join(dir, filepath.Base(build[len(build)-1]))
		out, err := exec.Command("go", append([]string{"build", "-o", *program}, build...)...).CombinedOutput()
		if err != nil {
			fmt.Fprintf(os.Stderr, "build %v: %v\n%s", build, err, out)
			return 1
		}
	}
	return m.Run()
}

// claimTime is how long containers wait for the successor of a service that was killed.
const claimTime = "10s"

// form is how many processes the services are in.
type form string

const (
	one   form = "one"
	three form = "three"
)

// backend is where the services keep their state.
type backend string

const (
	embedded backend = "embedded"
	redis    backend = "redis"
)

// everywhere are the installations that must behave alike.
func everywhere(t *testing.T, test func(*testing.T, form, backend)) {
	for _, f := range []form{one, three} {
		for _, b := range []backend{embedded, redis} {
			t.Run(string(f)+"/"+string(b), func(t *testing.T) { test(t, f, b) })
		}
	}
}

// TestSystem runs the same bodies on every installation. Each body has models and applications of
// its own, which is why they can share one.
func TestSystem(t *testing.T) {
	bodies := []struct {
		name string
		body func(*testing.T, *system)
	}{
		{"answers", testAnswers},
		{"feedback", testFeedback},
		{"contexts", testContexts},
		{"learned state", testLearnedState},
		{"policies", testPolicies},
		{"bandits", testBandits},
		{"policy change", testPolicyChange},
		{"decisions", testDecisions},
		{"canary", testCanary},
		{"custom policy", testCustomPolicy},
		{"defaults", testDefaults},
		{"stragglers", testStragglers},
		{"versions", testVersions},
		{"replicas", testReplicas},
		{"autoscaling", testAutoscaling},
		{"administration", testAdministration},
		{"concurrent administration", testConcurrentAdministration},
		{"bad queries", testBadQueries},
		{"bad feedback", testBadFeedback},
		{"bad administration", testBadAdministration},
		{"command line", testCommandLine},
		{"operations", testOperations},
		{"open inference", testOpenInference},
		{"logs", testLogs},
		{"top", testTop},
	}
	everywhere(t, func(t *testing.T, f form, b backend) {
		s := start(t, f, b)
		for _, c := range bodies {
			t.Run(c.name, func(t *testing.T) { c.body(t, s) })
		}
	})
}
