// SPDX-License-Identifier: Apache-2.0

package profile_test

import (
	"context"
	"encoding/xml"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"

	"github.com/clipper-serving/clipper/containerrpc/check"
	"github.com/clipper-serving/clipper/containerrpc/containertest"
	"github.com/clipper-serving/clipper/containerrpc/profile"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// options measure quickly.
func options() profile.Options {
	return profile.Options{Timeout: 10 * time.Second, MaxRows: 64, MaxLatency: 5 * time.Second, Time: time.Minute, Rounds: 3}
}

func quiet(string) {}

func rows(p *profile.Profile) (all []int) {
	for _, point := range p.Points {
		all = append(all, point.Rows)
	}
	return all
}

// synthetic runs the synthetic container as a process of its own.
func synthetic(t *testing.T, args ...string) (address string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "synthetic")
	out, err := exec.Command("go", "build", "-o", program, "../go/synthetic").CombinedOutput()
	require.NoError(t, err, string(out))
	address = "unix:" + filepath.Join(t.TempDir(), "s")
	c := exec.Command(program, args...)
	c.Env = append(os.Environ(), "CLIPPER_CONTAINER_ADDRESS="+address)
	require.NoError(t, c.Start())
	t.Cleanup(func() {
		require.NoError(t, c.Process.Signal(os.Interrupt))
		require.NoError(t, c.Wait())
	})
	return address
}

// TestRun finds a curve that is known. The container waits at least as long as it says. That medians are
// not twice as long allows for a machine that is busy otherwise.
func TestRun(t *testing.T) {
	address := synthetic(t, "--fixed", "20ms", "--per-row", "500us")
	o := options()
	o.MaxRows, o.Rounds, o.SLO = 256, 7, 250*time.Millisecond
	p, err := profile.Run(t.Context(), address, o, quiet)
	require.NoError(t, err)
	planned := p.Plan(o.SLO)
	require.Subset(t, rows(p), []int{1, 2, 4, 8, 16, 32, 64, 128, 256})
	for _, point := range p.Points {
		known := 20000 + 500*float64(point.Rows)
		require.Empty(t, point.Error)
		require.Equal(t, 7, point.Batches)
		require.InDelta(t, 1.5*known, point.MedianMicros, 0.5*known)
		require.InDelta(t, 1.5*known, point.ModelMicros, 0.5*known)
		require.LessOrEqual(t, point.ModelMicros, point.MedianMicros)
		require.LessOrEqual(t, point.MedianMicros, point.P95Micros)
		require.LessOrEqual(t, point.P95Micros, point.P99Micros)
		require.GreaterOrEqual(t, point.Tail, 1.0)
	}
	require.InDelta(t, 30000, p.Line.FixedMicros, 15000)
	require.InDelta(t, 750, p.Line.RowMicros, 375)
	require.Positive(t, planned.Rows)
	require.LessOrEqual(t, planned.Rows, 210, "2 · (20 ms + 210 · 0.5 ms) = 250 ms")
	require.LessOrEqual(t, 2*planned.P99Micros, 250_001.0)
	require.Equal(t, "256 rows are the most that were to be tried", p.Stopped)
	require.Equal(t, "clipper-go", p.Properties["runtime"])

	require.NotNil(t, p.Memory)
	require.Equal(t, 1, p.Memory.Processes)
	require.Greater(t, p.Memory.ResidentBytes, uint64(1<<20))
	require.GreaterOrEqual(t, p.Memory.PeakBytes, p.Memory.ResidentBytes)

	plot := strings.Split(p.Text(76, 18), "\n")
	require.Len(t, plot, 19)
	for _, line := range plot {
		require.LessOrEqual(t, len([]rune(line)), 76)
	}
	require.Contains(t, plot[16], "128")
	d := xml.NewDecoder(strings.NewReader(string(p.SVG("a <b> & c"))))
	for err = nil; err == nil; {
		_, err = d.Token()
	}
	require.ErrorIs(t, err, io.EOF)
}

// TestRun_limits: sizes end at what the container, the message, the caller and the time allow.
func TestRun_limits(t *testing.T) {
	floats := &clipperv1.Signature{Inputs: []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT64, Shape: []int64{64}}}}
	for name, tc := range map[string]struct {
		description *clipperv1.DescribeResponse
		change      func(*profile.Options)
		rows        []int
		stopped     string
	}{
		"one row":      {&clipperv1.DescribeResponse{MaxBatchRows: 1}, nil, []int{1}, "the container takes 1 rows at most"},
		"five rows":    {&clipperv1.DescribeResponse{MaxBatchRows: 5}, nil, []int{1, 2, 4, 5}, "the container takes 5 rows at most"},
		"small bytes":  {&clipperv1.DescribeResponse{Signature: floats, MaxMessageBytes: 4096 + 10*520}, nil, []int{1, 2, 4, 8, 10}, "more than 10 rows are too large a message"},
		"the caller":   {&clipperv1.DescribeResponse{}, func(o *profile.Options) { o.MaxRows = 2 }, []int{1, 2}, "2 rows are the most that were to be tried"},
		"the latency":  {&clipperv1.DescribeResponse{}, func(o *profile.Options) { o.MaxLatency = 1 }, []int{1}, "a batch took longer than 1ns"},
		"no time":      {&clipperv1.DescribeResponse{}, func(o *profile.Options) { o.Time = 1 }, []int{1}, "1ns are too short to measure larger ones"},
		"bytes for 0":  {&clipperv1.DescribeResponse{MaxMessageBytes: 10}, nil, []int{1}, "more than 1 rows are too large a message"},
		"an objective": {&clipperv1.DescribeResponse{MaxBatchRows: 2}, func(o *profile.Options) { o.SLO = time.Hour }, []int{1, 2}, "the container takes 2 rows at most"},
	} {
		t.Run(name, func(t *testing.T) {
			c := containertest.Start(t, containertest.Echo)
			c.SetDescription(tc.description)
			o := options()
			if tc.change != nil {
				tc.change(&o)
			}
			p, err := profile.Run(t.Context(), c.Address(), o, quiet)
			require.NoError(t, err)
			require.Equal(t, tc.rows, rows(p))
			require.Equal(t, tc.stopped, p.Stopped)
			require.Equal(t, tc.rows[len(tc.rows)-1], p.Plan(time.Hour).Rows)
			require.True(t, p.Plan(time.Hour).Largest)
			require.Equal(t, len(tc.rows) < 2, p.Text(76, 18) == "")
			require.Equal(t, len(tc.rows) < 2, p.SVG("") == nil)
			require.Positive(t, p.Need(time.Hour, 1, 1).Replicas)
		})
	}
}

// when behaves in one way for batches of some sizes and echoes the others.
func when(concerned func(rows int) bool, then containertest.Behavior) containertest.Behavior {
	return func(c *containertest.Call) {
		if concerned(int(c.Request.Rows)) {
			then(c)
			return
		}
		containertest.Echo(c)
	}
}

// TestRun_failingSizes: sizes that fail are told, the others are measured, and plans stay below.
func TestRun_failingSizes(t *testing.T) {
	const message = "no memory for that"
	for name, tc := range map[string]struct {
		fails func(rows int) bool
		then  containertest.Behavior
		says  string
		rows  []int
		plan  int
	}{
		"one size":       {func(n int) bool { return n == 8 }, containertest.FailBatch(codes.Internal, message), message, []int{1, 2, 4, 8, 16, 32, 64}, 4},
		"from a size on": {func(n int) bool { return n >= 16 }, containertest.FailBatch(codes.Internal, message), message, []int{1, 2, 4, 8, 16, 32}, 8},
		"a row of it":    {func(n int) bool { return n == 4 }, containertest.FailRows(message, 1), message, []int{1, 2, 4, 8, 16, 32, 64}, 2},
		"wrong answers":  {func(n int) bool { return n == 64 }, containertest.WrongRows, "cannot be used", []int{1, 2, 4, 8, 16, 32, 64}, 32},
		"broken streams": {func(n int) bool { return n == 32 }, func(c *containertest.Call) { c.Break(codes.Internal, message) }, message, []int{1, 2, 4, 8, 16, 32, 64}, 16},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := profile.Run(t.Context(), containertest.Start(t, when(tc.fails, tc.then)).Address(), options(), quiet)
			require.NoError(t, err)
			require.Equal(t, tc.rows, rows(p))
			for _, point := range p.Points {
				if tc.fails(point.Rows) {
					require.Contains(t, point.Error, tc.says)
				} else {
					require.Empty(t, point.Error)
				}
			}
			require.Equal(t, tc.plan, p.Plan(time.Hour).Rows)
		})
	}
}

// TestRun_failsLater: what fails after a while is not measured any more.
func TestRun_failsLater(t *testing.T) {
	var seen atomic.Int32
	c := containertest.Start(t, when(func(n int) bool { return n == 4 && seen.Add(1) > 3 }, containertest.FailBatch(codes.Internal, "worn out")))
	p, err := profile.Run(t.Context(), c.Address(), options(), quiet)
	require.NoError(t, err)
	require.Contains(t, p.Points[2].Error, "worn out")
	require.Equal(t, 2, p.Plan(time.Hour).Rows)
}

// TestRun_dies: what was measured until then is told.
func TestRun_dies(t *testing.T) {
	t.Run("of a size", func(t *testing.T) {
		var c *containertest.Container
		c = containertest.New(t, when(func(n int) bool { return n == 8 }, func(*containertest.Call) { c.Kill() }))
		c.Start()
		p, err := profile.Run(t.Context(), c.Address(), options(), quiet)
		require.ErrorContains(t, err, "a batch of 8 rows")
		require.Equal(t, []int{1, 2, 4, 8}, rows(p))
		require.NotEmpty(t, p.Points[3].Error)
		require.Equal(t, 4, p.Plan(time.Hour).Rows)
	})
	t.Run("while measured", func(t *testing.T) {
		var c *containertest.Container
		var seen atomic.Int32
		c = containertest.New(t, when(func(n int) bool { return n == 1 && seen.Add(1) > 2 }, func(*containertest.Call) { c.Kill() }))
		c.Start()
		p, err := profile.Run(t.Context(), c.Address(), options(), quiet)
		require.ErrorContains(t, err, "a batch of 1 rows")
		require.Equal(t, []int{1, 2, 4, 8, 16, 32, 64}, rows(p))
		require.Equal(t, 64, p.Plan(time.Hour).Rows)
	})
}

func TestRun_useless(t *testing.T) {
	o := options()
	o.Timeout = 200 * time.Millisecond
	_, err := profile.Run(t.Context(), containertest.New(t, containertest.Echo).Address(), o, quiet)
	require.ErrorIs(t, err, check.ErrUnreachable)
	require.ErrorContains(t, err, "is it running")

	c := containertest.Start(t, containertest.Echo)
	c.SetServing(false)
	_, err = profile.Run(t.Context(), c.Address(), o, quiet)
	require.NotErrorIs(t, err, check.ErrUnreachable)
	require.ErrorContains(t, err, "SERVING")

	_, err = profile.Run(t.Context(), containertest.Start(t, containertest.FailBatch(codes.InvalidArgument, "not such rows")).Address(), options(), quiet)
	require.ErrorContains(t, err, "not such rows")
	require.ErrorContains(t, err, "--sample")

	_, err = profile.Run(t.Context(), containertest.Start(t, containertest.Die).Address(), options(), quiet)
	require.Error(t, err)

	o = options()
	o.Samples = [][]byte{[]byte(`"text"`)}
	c = containertest.Start(t, containertest.Echo)
	c.SetDescription(&clipperv1.DescribeResponse{Signature: &clipperv1.Signature{Inputs: []*clipperv1.TensorSpec{{DataType: clipperv1.DataType_DATA_TYPE_FLOAT64}}}})
	_, err = profile.Run(t.Context(), c.Address(), o, quiet)
	require.ErrorContains(t, err, "does not fit the signature")
}

func TestRun_cancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := containertest.Start(t, when(func(n int) bool { return n == 4 }, func(*containertest.Call) { cancel() }))
	_, err := profile.Run(ctx, c.Address(), options(), quiet)
	require.ErrorIs(t, err, context.Canceled)
}
