// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/clipper-serving/clipper/containerrpc/containertest"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/cli"
)

// quickly measures few batches.
func quickly(words ...string) []string { return append([]string{"profile", "--rounds", "2"}, words...) }

func TestProfile(t *testing.T) {
	c := containertest.Start(t, containertest.Echo)
	image := filepath.Join(t.TempDir(), "curve.svg")
	code, stdout, stderr := run(t, "", "", quickly("--address", c.Address(), "--max-batch", "8", "--slo", "10s", "--rate", "1000", "--svg", image)...)
	require.Zero(t, code, stderr)
	require.Contains(t, stderr, "trying 8 rows")
	for _, part := range []string{
		"container " + c.Address() + "\n", "\n8     2 ", "rows of a batch", "a batch takes ", "no larger ones: 8 rows are the most",
		"batches of at most 8 rows for 10s", "larger batches may do too", "1000 queries a second, 99% of them within 10s",
		"evenly: no headroom", "at random (Poisson)", "in bursts, variance 4 times the mean", " MiB",
	} {
		require.Contains(t, stdout, part)
	}
	drawn, err := os.ReadFile(image)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(drawn), "<svg "))

	code, stdout, stderr = run(t, "", "", quickly("--address", c.Address(), "--max-batch", "8", "--slo", "1us", "--rate", "1000", "--burstiness", "1")...)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "one replica  cannot keep 1µs")
	require.Equal(t, 2, strings.Count(stdout, "none up to 10000"))
	require.NotContains(t, stdout, "bursts")
}

// TestProfile_json: the document has all that the text has, for one row too.
func TestProfile_json(t *testing.T) {
	c := containertest.Start(t, containertest.Echo)
	c.SetDescription(&clipperv1.DescribeResponse{MaxBatchRows: 1})
	code, stdout, stderr := run(t, "", "", quickly("--address", c.Address(), "--slo", "10s", "--rate", "10", "--json")...)
	require.Zero(t, code, stderr)
	require.Empty(t, stderr)
	var document map[string]any
	require.NoError(t, json.Unmarshal([]byte(stdout), &document))
	require.Equal(t, c.Address(), document["address"])
	require.Len(t, document["points"], 1)
	require.Contains(t, document, "line")
	require.Contains(t, document, "memory")
	objective := document["objective"].(map[string]any)
	require.Equal(t, 1e7, objective["slo_micros"])
	require.Equal(t, 1.0, objective["batch"].(map[string]any)["rows"])
	require.Len(t, objective["needs"], 3)

	code, _, stderr = run(t, "", "", quickly("--address", c.Address(), "--svg", filepath.Join(t.TempDir(), "x.svg"))...)
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, stderr, "only one size")
}

// TestProfile_deployed: a replica is measured where the server says that it is, up to the version's batches.
func TestProfile_deployed(t *testing.T) {
	c := containertest.Start(t, containertest.Echo)
	s := start(t)
	s.polls = 2
	s.models["m"] = &clipperv1.Model{Name: "m", CurrentVersion: "1", Versions: []*clipperv1.ModelVersion{
		{
			Model: "m", Version: "1", Replicas: proto.Uint32(1), Batching: &clipperv1.Batching{MaxBatchRows: 4},
			ReplicaStatus: []*clipperv1.Replica{
				{Id: "sick", State: clipperv1.ReplicaState_REPLICA_STATE_FAILED, Address: "unix:/nowhere"},
				{Id: "well", State: clipperv1.ReplicaState_REPLICA_STATE_READY, Address: c.Address()},
			},
		},
		{Model: "m", Version: "2", Replicas: proto.Uint32(0)},
	}}
	for _, words := range [][]string{{"m"}, {"m:1", "--replica", "well"}} {
		code, stdout, stderr := run(t, s.address, "", quickly(words...)...)
		require.Zero(t, code, stderr)
		require.Contains(t, stdout, "m:1, replica well at "+c.Address())
		require.Contains(t, stdout, "4 rows are the most")
	}
	for _, tc := range []struct {
		words []string
		code  int
		says  string
	}{
		{[]string{"m:2"}, cli.ExitFailed, "m:2 cannot be measured: no replica is ready"},
		{[]string{"m", "--replica", "sick"}, cli.ExitFailed, "replica sick is not ready, or does not exist"},
		{[]string{"m", "--replica", "0", "--timeout", "200ms"}, cli.ExitUnreachable, "nothing answers at unix:/run/0"},
		{[]string{"nope"}, cli.ExitNotFound, "nope"},
	} {
		code, stdout, stderr := run(t, s.address, "", quickly(tc.words...)...)
		require.Equal(t, tc.code, code, stderr)
		require.Contains(t, stderr, tc.says)
		require.Empty(t, stdout)
	}
}

// TestProfile_failing: what could be measured is shown, and the exit code says that it is not all.
func TestProfile_failing(t *testing.T) {
	c := containertest.Start(t, func(c *containertest.Call) {
		if c.Request.Rows >= 4 {
			containertest.FailBatch(codes.Internal, "no memory")(c)
			return
		}
		containertest.Echo(c)
	})
	code, stdout, stderr := run(t, "", "", quickly("--address", c.Address(), "--slo", "10s")...)
	require.Equal(t, cli.ExitFailed, code)
	require.Contains(t, stdout, "\n4     failed")
	require.Contains(t, stdout, "2 sizes in a row failed")
	require.Contains(t, stdout, "batches of at most 2 rows")
	require.Contains(t, stderr, "batches of 4 rows fail")
	require.Contains(t, stderr, "no memory")
}
