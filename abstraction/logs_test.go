// SPDX-License-Identifier: Apache-2.0

package abstraction

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
)

// logReceiver is a stream whose lines go to a channel.
type logReceiver struct {
	grpc.ServerStream
	ctx   context.Context
	lines chan *clipperv1.ReadLogsResponse
}

func (r logReceiver) Context() context.Context { return r.ctx }

func (r logReceiver) Send(line *clipperv1.ReadLogsResponse) error {
	select {
	case r.lines <- line:
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

// readLogs starts a call; its lines are closed when it ends.
func (f *fixture) readLogs(ctx context.Context, req *clipperv1.ReadLogsRequest) (<-chan *clipperv1.ReadLogsResponse, <-chan error) {
	r, done := logReceiver{ctx: ctx, lines: make(chan *clipperv1.ReadLogsResponse, 100)}, make(chan error, 1)
	go func() {
		done <- f.ReadLogs(req, r)
		close(r.lines)
	}()
	return r.lines, done
}

func shell(script string) *clipperv1.Container {
	return &clipperv1.Container{Source: &clipperv1.Container_Command{Command: &clipperv1.Command{Arguments: []string{"sh", "-c", script}}}}
}

func restarted(v *clipperv1.ModelVersion) bool {
	return len(v.ReplicaStatus) > 0 && v.ReplicaStatus[0].Restarts > 1
}

func TestLogsOfAllReplicasAreInTheOrderOfTime(t *testing.T) {
	f := start(t, settings{})
	f.deploy(t, "m", "1", shell("echo a; echo b; exec sleep 1000"), func(r *clipperv1.DeployModelRequest) { r.Version.Replicas = proto.Uint32(2) })
	var got []*clipperv1.ReadLogsResponse
	for len(got) < 4 { // What a process writes is there a moment later.
		lines, done := f.readLogs(t.Context(), &clipperv1.ReadLogsRequest{Model: "m"})
		got = nil
		for l := range lines {
			got = append(got, l)
		}
		if err := <-done; status.Code(err) != codes.NotFound {
			require.NoError(t, err)
		}
	}
	texts := map[string]string{}
	for i, l := range got {
		texts[l.Replica] += l.Text
		require.True(t, i == 0 || !l.Time.AsTime().Before(got[i-1].Time.AsTime()))
	}
	require.Equal(t, map[string]string{"0": "ab", "1": "ab"}, texts)

	lines, done := f.readLogs(t.Context(), &clipperv1.ReadLogsRequest{Model: "m", Version: "1", Replica: "1", Tail: proto.Uint32(1)})
	require.NoError(t, <-done)
	require.Equal(t, "b", (<-lines).Text)
	require.Empty(t, lines)
	lines, done = f.readLogs(t.Context(), &clipperv1.ReadLogsRequest{Model: "m", Since: timestamppb.New(got[3].Time.AsTime())})
	require.NoError(t, <-done)
	require.Empty(t, lines)
}

func TestLogsAreFollowedOverRestarts(t *testing.T) {
	f := start(t, settings{})
	f.deploy(t, "m", "1", shell("echo again; exit 1"))
	ctx, cancel := context.WithCancel(t.Context())
	lines, done := f.readLogs(ctx, &clipperv1.ReadLogsRequest{Model: "m", Follow: true})
	var last *clipperv1.ReadLogsResponse
	for range 5 {
		line := <-lines
		require.Equal(t, "again", line.Text)
		require.True(t, last == nil || line.Time.AsTime().After(last.Time.AsTime()), "a line is sent once")
		last = line
	}
	cancel()
	require.Equal(t, codes.Canceled, status.Code(<-done))

	// The run before is there as well; and a deleted version ends those who follow it.
	f.await(t, "m", "1", restarted)
	before, done := f.readLogs(t.Context(), &clipperv1.ReadLogsRequest{Model: "m", Previous: true})
	require.NoError(t, <-done)
	require.Equal(t, "again", (<-before).Text)
	lines, done = f.readLogs(t.Context(), &clipperv1.ReadLogsRequest{Model: "m", Follow: true})
	<-lines
	go func() {
		for range lines {
		}
	}()
	_, err := f.DeleteModel(t.Context(), &clipperv1.DeleteModelRequest{Model: "m"})
	require.NoError(t, err)
	require.NoError(t, <-done)
}

func TestLogsEndWhenTheServerDrains(t *testing.T) {
	f := start(t, settings{})
	draining := make(chan struct{})
	f.service.draining = draining
	f.deploy(t, "m", "1", shell("echo up; exec sleep 1000"))
	lines, done := f.readLogs(t.Context(), &clipperv1.ReadLogsRequest{Model: "m", Follow: true})
	require.Equal(t, "up", (<-lines).Text)
	close(draining)
	require.Equal(t, codes.Unavailable, status.Code(<-done))
}

func TestLogsThatCannotBeRead(t *testing.T) {
	f := start(t, settings{})
	f.deploy(t, "m", "1", shell("exec sleep 1000"))
	f.deploy(t, "other", "1", &clipperv1.Container{Source: &clipperv1.Container_Registered{Registered: &clipperv1.Registered{}}})
	for name, tc := range map[string]struct {
		req  *clipperv1.ReadLogsRequest
		code codes.Code
		want string
	}{
		"no model":          {&clipperv1.ReadLogsRequest{Model: "x"}, codes.NotFound, `no model "x"`},
		"no version":        {&clipperv1.ReadLogsRequest{Model: "m", Version: "2"}, codes.NotFound, "version"},
		"no replica":        {&clipperv1.ReadLogsRequest{Model: "m", Replica: "7"}, codes.NotFound, `replica "7" of version "1" of model "m" has no log`},
		"no replica at all": {&clipperv1.ReadLogsRequest{Model: "m", Replica: "7", Follow: true}, codes.NotFound, `replica "7"`},
		"no run before":     {&clipperv1.ReadLogsRequest{Model: "m", Previous: true}, codes.NotFound, "was not started again"},
		"other instance":    {&clipperv1.ReadLogsRequest{Model: "m", Instance: "x:1"}, codes.NotFound, "no log"},
		"path":              {&clipperv1.ReadLogsRequest{Model: "m", Replica: "../../m"}, codes.InvalidArgument, "replica"},
		"tail":              {&clipperv1.ReadLogsRequest{Model: "m", Tail: proto.Uint32(10_001)}, codes.InvalidArgument, "at most 10000"},
		"since":             {&clipperv1.ReadLogsRequest{Model: "m", Since: &timestamppb.Timestamp{Nanos: -1}}, codes.InvalidArgument, "since"},
		"follow the past":   {&clipperv1.ReadLogsRequest{Model: "m", Previous: true, Follow: true}, codes.InvalidArgument, "previous"},
		"not ours":          {&clipperv1.ReadLogsRequest{Model: "other"}, codes.FailedPrecondition, "look where they run"},
	} {
		t.Run(name, func(t *testing.T) {
			_, done := f.readLogs(t.Context(), tc.req)
			err := <-done
			require.Equal(t, tc.code, status.Code(err), "%v", err)
			require.ErrorContains(t, err, tc.want)
		})
	}
	f.service.followers.Store(maxFollowers)
	_, done := f.readLogs(t.Context(), &clipperv1.ReadLogsRequest{Model: "m", Follow: true})
	require.Equal(t, codes.ResourceExhausted, status.Code(<-done))
	require.EqualValues(t, maxFollowers, f.service.followers.Load())
}

func TestLogsOfOtherInstancesAreReadToo(t *testing.T) {
	members := startMembers(t, 2)
	both := func(r *clipperv1.DeployModelRequest) { r.Version.Replicas, r.Version.Homes = proto.Uint32(2), 2 }
	members[0].deploy(t, "m", "1", command(), both)
	want := map[string]string{}
	for _, m := range members {
		m.awaitState(t, "m", "1", clipperv1.ModelState_MODEL_STATE_READY)
		want[m.address] = "lent at " + m.container.Address()
	}
	for _, follow := range []bool{false, true} {
		for _, m := range members {
			ctx, cancel := context.WithCancel(t.Context())
			lines, done := m.readLogs(ctx, &clipperv1.ReadLogsRequest{Model: "m", Follow: follow})
			got := map[string]string{}
			for range 2 {
				line := <-lines
				got[line.GetInstance()] = line.GetText()
			}
			require.Equal(t, want, got)
			if !follow {
				require.NoError(t, <-done)
			}
			cancel()
			if follow {
				require.Equal(t, codes.Canceled, status.Code(<-done))
			}
		}
	}
	lines, done := members[0].readLogs(t.Context(), &clipperv1.ReadLogsRequest{Model: "m", Instance: members[1].address})
	require.NoError(t, <-done)
	require.Equal(t, members[1].address, (<-lines).GetInstance())
	require.Empty(t, lines)
}
