// SPDX-License-Identifier: Apache-2.0

package abstraction

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/clipper-serving/clipper/abstraction/catalog"
	"github.com/clipper-serving/clipper/abstraction/launcher"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
)

const (
	defaultTail = 100
	maxTail     = 10_000
	// maxFollowers is how many calls may follow logs at the same time, of which each may read every replica's.
	maxFollowers = 100
)

// ReadLogs implements clipperv1.ModelServiceServer.
func (m modelService) ReadLogs(req *clipperv1.ReadLogsRequest, stream grpc.ServerStreamingServer[clipperv1.ReadLogsResponse]) error {
	if err := checkLogs(req); err != nil {
		return err
	}
	s, ctx := m.service, stream.Context()
	model, err := s.read(ctx, req.Model)
	if err != nil {
		return err
	}
	if req.Version == "" {
		req = proto.CloneOf(req)
		req.Version = model.Current()
	}
	doc := model.Version(req.Version)
	if doc == nil {
		return catalog.VersionNotFound(req.Model, req.Version)
	}
	if !isLaunched(doc.Spec.Container) {
		return apierror.New(codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_LAUNCH_FAILED, "version",
			"Clipper does not run the replicas of version %q of model %q, so it has no logs of them: look where they run", req.Version, req.Model)
	}
	if req.Follow {
		if s.followers.Add(1) > maxFollowers {
			s.followers.Add(-1)
			return apierror.New(codes.ResourceExhausted, clipperv1.ErrorReason_ERROR_REASON_OVERLOADED, "follow",
				"%d calls follow logs here, which is the most: end some, or read without following", maxFollowers)
		}
		defer s.followers.Add(-1)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-ctx.Done():
		case <-s.draining:
			cancel(apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "", "the server is shutting down: ask again"))
		}
	}()
	out := &logOutput{send: stream.Send, hold: !req.Follow}
	err = s.readLogs(ctx, doc, req, out)
	if cause := context.Cause(ctx); cause != nil {
		return apierror.From(cause)
	}
	if err != nil {
		return err
	}
	return out.flush()
}

func checkLogs(req *clipperv1.ReadLogsRequest) error {
	invalid := func(field, format string, args ...any) error {
		return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field, field+": "+format, args...)
	}
	for _, n := range []struct{ field, value string }{{"version", req.GetVersion()}, {"replica", req.GetReplica()}} {
		if n.value != "" {
			if err := catalog.CheckName(n.field, n.value); err != nil {
				return err
			}
		}
	}
	switch {
	case req.GetTail() > maxTail:
		return invalid("tail", "want at most %d lines, not %d", maxTail, req.GetTail())
	case req.Since != nil && req.Since.CheckValid() != nil:
		return invalid("since", "want a time from the year 1 to 9999")
	case req.GetPrevious() && req.GetFollow():
		return invalid("previous", "a run that is over cannot be followed: ask for one of the two")
	}
	return nil
}

// logOutput takes lines from several replicas at once. It holds them back to bring them in order, or does not.
type logOutput struct {
	send func(*clipperv1.ReadLogsResponse) error
	hold bool

	mu   sync.Mutex
	held []*clipperv1.ReadLogsResponse
}

func (o *logOutput) emit(line *clipperv1.ReadLogsResponse) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.hold {
		o.held = append(o.held, line)
		return nil
	}
	return o.send(line)
}

// flush sends what is held back, in the order of time.
func (o *logOutput) flush() error {
	slices.SortStableFunc(o.held, func(a, b *clipperv1.ReadLogsResponse) int {
		return a.Time.AsTime().Compare(b.Time.AsTime())
	})
	for _, line := range o.held {
		if err := o.send(line); err != nil {
			return err
		}
	}
	return nil
}

// logSource is a replica's log at this instance.
type logSource struct {
	launcher launcher.Launcher
	query    launcher.LogQuery
	instance string
	replica  *replica // nil when it does not run now
}

// line returns a line as it is sent.
func (l *logSource) line(line launcher.Line) *clipperv1.ReadLogsResponse {
	return &clipperv1.ReadLogsResponse{Replica: l.query.Replica, Instance: l.instance, Time: timestamppb.New(line.Time), Text: line.Text}
}

// readLogs passes on what there is at all instances, and then, if wanted, what comes.
func (s *Service) readLogs(ctx context.Context, doc *catalog.Version, req *clipperv1.ReadLogsRequest, out *logOutput) error {
	var found atomic.Bool
	tasks, ctx := errgroup.WithContext(ctx)
	for address, at := range s.elsewhere([]*catalog.Version{doc}) {
		if req.Instance == "" || req.Instance == address {
			tasks.Go(func() error {
				err := at.peer.readLogs(ctx, req, out)
				if status.Code(err) == codes.NotFound {
					return nil
				}
				found.Store(true)
				return err
			})
		}
	}
	tasks.Go(func() error {
		known, err := s.readLogsHere(ctx, tasks, doc, req, out)
		if known {
			found.Store(true)
		}
		return err
	})
	if err := tasks.Wait(); err != nil {
		return err
	}
	if !found.Load() {
		return apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "replica", "%s", noLog(req))
	}
	return nil
}

func noLog(req *clipperv1.ReadLogsRequest) string {
	of := "version " + strconv.Quote(req.Version) + " of model " + strconv.Quote(req.Model)
	if req.Replica != "" {
		of = "replica " + strconv.Quote(req.Replica) + " of " + of
	}
	if req.Previous {
		return of + " has no log of the run before: it was not started again, or that log is not kept any more"
	}
	return of + " has no log: it has not been started, or its log is not kept any more"
}

// readLogsHere does so at this instance. What is followed goes on as tasks. It reports whether there was a log, or
// may be one.
func (s *Service) readLogsHere(ctx context.Context, tasks *errgroup.Group, doc *catalog.Version, req *clipperv1.ReadLogsRequest, out *logOutput) (known bool, err error) {
	backlog := &logOutput{send: out.emit, hold: true}
	sources, err := s.logSources(doc, req)
	if err != nil {
		return false, err
	}
	for _, l := range sources {
		err := l.launcher.Logs(ctx, l.query, func(line launcher.Line) error {
			l.query.Since = line.Time // Where following goes on.
			return backlog.emit(l.line(line))
		})
		if err != nil && !errors.Is(err, launcher.ErrNoLog) {
			return false, err
		}
		known = known || err == nil || req.Follow && l.replica != nil
	}
	if err := backlog.flush(); err != nil || !req.Follow {
		return known, err
	}
	for _, l := range sources {
		if l.replica != nil {
			tasks.Go(func() error { return l.follow(ctx, out) })
		}
	}
	return known, nil
}

// logSources returns the logs of a version's replicas here.
func (s *Service) logSources(doc *catalog.Version, req *clipperv1.ReadLogsRequest) ([]*logSource, error) {
	instance := ""
	if s.group != nil {
		instance = s.group.Address()
	}
	if req.Instance != "" && req.Instance != instance {
		return nil, nil
	}
	running := map[string]*replica{}
	if v := s.version(name{req.Model, req.Version}, doc.UID); v != nil {
		v.mu.Lock()
		for _, r := range v.replicas {
			running[r.id] = r
		}
		v.mu.Unlock()
	}
	ids := slices.Sorted(maps.Keys(running))
	if req.Replica != "" {
		ids = []string{req.Replica} // It may have a log though it does not run any more.
	}
	l, err := s.launcherFor(doc.Spec.Container)
	if err != nil {
		return nil, launchFailed("version", "this server has no launcher for such containers")
	}
	tail := defaultTail
	if req.Tail != nil {
		tail = int(*req.Tail)
	}
	sources := make([]*logSource, len(ids))
	for i, id := range ids {
		sources[i] = &logSource{launcher: l, instance: instance, replica: running[id], query: launcher.LogQuery{
			Model: req.Model, Version: req.Version, Replica: id, Previous: req.Previous, Tail: tail,
		}}
		if req.Since != nil {
			sources[i].query.Since = req.Since.AsTime()
		}
	}
	return sources, nil
}

// follow passes on what a replica writes, also when it is started again, until it is gone.
func (l *logSource) follow(ctx context.Context, out *logOutput) error {
	q := l.query
	q.Follow, q.Tail = true, maxTail
	for {
		again := l.replica.startsAgain() // Before reading, so that no start is missed.
		err := l.launcher.Logs(ctx, q, func(line launcher.Line) error {
			q.Since = line.Time
			return out.emit(l.line(line))
		})
		if err != nil && !errors.Is(err, launcher.ErrNoLog) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.replica.done:
			return nil
		case <-again:
		}
	}
}

// readLogs passes on what another instance has of its own replicas.
func (p *peer) readLogs(ctx context.Context, req *clipperv1.ReadLogsRequest, out *logOutput) error {
	req = proto.CloneOf(req)
	req.Instance = p.address
	stream, err := p.models.ReadLogs(ctx, req)
	for err == nil {
		var line *clipperv1.ReadLogsResponse
		if line, err = stream.Recv(); err == nil {
			err = out.emit(line)
		}
	}
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case status.Code(err) == codes.Unavailable && ctx.Err() == nil:
		return apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "", "no answer from the instance %s, which has replicas of the version", p.address)
	}
	return err
}
