// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/auth"
)

// maxFollow is the longest that a change of an application waits for the frontend itself to know it.
const maxFollow = 2 * time.Second

// forward calls another service for the caller, with the caller's deadline and metadata but without its credentials.
func forward[Req, Res any](ctx context.Context, service string, call func(context.Context, *Req, ...grpc.CallOption) (*Res, error), req *Req) (*Res, error) {
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = metadata.NewOutgoingContext(ctx, auth.Strip(md))
	}
	res, err := call(ctx, req)
	return res, unreachable(service, err)
}

// unreachable makes an error that is from the connection, not from the service, one that callers
// understand.
func unreachable(service string, err error) error {
	if status.Code(err) == codes.Unavailable && apierror.Reason(err) == clipperv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		return apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "", "the %s cannot be reached now: try again", service)
	}
	return err
}

// What people call the services behind the frontend.
const (
	selectorName    = "selector"
	abstractionName = "abstraction"
)

// applicationServer is clipper.v1.ApplicationService. A change returns when this frontend answers
// queries by it.
type applicationServer struct {
	clipperv1.UnimplementedApplicationServiceServer
	s *Service
}

func (a applicationServer) CreateApplication(ctx context.Context, req *clipperv1.CreateApplicationRequest) (*clipperv1.CreateApplicationResponse, error) {
	res, err := forward(ctx, selectorName, a.s.deps.Applications.CreateApplication, req)
	if err == nil {
		a.s.follow(ctx, res.GetApplication())
	}
	return res, err
}

func (a applicationServer) GetApplication(ctx context.Context, req *clipperv1.GetApplicationRequest) (*clipperv1.GetApplicationResponse, error) {
	return forward(ctx, selectorName, a.s.deps.Applications.GetApplication, req)
}

func (a applicationServer) ListApplications(ctx context.Context, req *clipperv1.ListApplicationsRequest) (*clipperv1.ListApplicationsResponse, error) {
	return forward(ctx, selectorName, a.s.deps.Applications.ListApplications, req)
}

func (a applicationServer) UpdateApplication(ctx context.Context, req *clipperv1.UpdateApplicationRequest) (*clipperv1.UpdateApplicationResponse, error) {
	res, err := forward(ctx, selectorName, a.s.deps.Applications.UpdateApplication, req)
	if err == nil {
		a.s.follow(ctx, res.GetApplication())
	}
	return res, err
}

func (a applicationServer) DeleteApplication(ctx context.Context, req *clipperv1.DeleteApplicationRequest) (*clipperv1.DeleteApplicationResponse, error) {
	before := a.s.apps.Load()
	res, err := forward(ctx, selectorName, a.s.deps.Applications.DeleteApplication, req)
	if err == nil && before != nil {
		ctx, cancel := context.WithTimeout(ctx, maxFollow)
		defer cancel()
		gone := before.apps[req.GetApplication()]
		a.s.await(ctx, func(apps map[string]*application) bool {
			app := apps[req.GetApplication()]
			return app == nil || gone == nil || app.etag != gone.etag // Or it was created again.
		})
	}
	return res, err
}

func (a applicationServer) ExplainSelection(ctx context.Context, req *clipperv1.ExplainSelectionRequest) (*clipperv1.ExplainSelectionResponse, error) {
	return forward(ctx, selectorName, a.s.deps.Applications.ExplainSelection, req)
}

func (a applicationServer) GetModelCorrelations(ctx context.Context, req *clipperv1.GetModelCorrelationsRequest) (*clipperv1.GetModelCorrelationsResponse, error) {
	return forward(ctx, selectorName, a.s.deps.Applications.GetModelCorrelations, req)
}

func (a applicationServer) GetCanary(ctx context.Context, req *clipperv1.GetCanaryRequest) (*clipperv1.GetCanaryResponse, error) {
	return forward(ctx, selectorName, a.s.deps.Applications.GetCanary, req)
}

func (a applicationServer) GetSelectionState(ctx context.Context, req *clipperv1.GetSelectionStateRequest) (*clipperv1.GetSelectionStateResponse, error) {
	return forward(ctx, selectorName, a.s.deps.Applications.GetSelectionState, req)
}

// follow waits, for a while, until this frontend knows what the selector has done.
func (s *Service) follow(ctx context.Context, changed *clipperv1.Application) {
	ctx, cancel := context.WithTimeout(ctx, maxFollow)
	defer cancel()
	before := s.apps.Load()
	if before == nil || changed == nil {
		return
	}
	known := before.apps[changed.GetName()]
	s.await(ctx, func(apps map[string]*application) bool {
		app := apps[changed.GetName()]
		// A state that is neither the one from before nor the expected one is a later one.
		return app != nil && (app.etag == changed.GetEtag() || app != known)
	})
}

// modelServer is clipper.v1.ModelService.
type modelServer struct {
	clipperv1.UnimplementedModelServiceServer
	s *Service
}

func (m modelServer) DeployModel(ctx context.Context, req *clipperv1.DeployModelRequest) (*clipperv1.DeployModelResponse, error) {
	return forward(ctx, abstractionName, m.s.deps.Models.DeployModel, req)
}

func (m modelServer) GetModel(ctx context.Context, req *clipperv1.GetModelRequest) (*clipperv1.GetModelResponse, error) {
	return forward(ctx, abstractionName, m.s.deps.Models.GetModel, req)
}

func (m modelServer) ListModels(ctx context.Context, req *clipperv1.ListModelsRequest) (*clipperv1.ListModelsResponse, error) {
	return forward(ctx, abstractionName, m.s.deps.Models.ListModels, req)
}

func (m modelServer) GetModelVersion(ctx context.Context, req *clipperv1.GetModelVersionRequest) (*clipperv1.GetModelVersionResponse, error) {
	return forward(ctx, abstractionName, m.s.deps.Models.GetModelVersion, req)
}

func (m modelServer) UpdateModelVersion(ctx context.Context, req *clipperv1.UpdateModelVersionRequest) (*clipperv1.UpdateModelVersionResponse, error) {
	return forward(ctx, abstractionName, m.s.deps.Models.UpdateModelVersion, req)
}

func (m modelServer) SetCurrentVersion(ctx context.Context, req *clipperv1.SetCurrentVersionRequest) (*clipperv1.SetCurrentVersionResponse, error) {
	return forward(ctx, abstractionName, m.s.deps.Models.SetCurrentVersion, req)
}

func (m modelServer) DeleteModelVersion(ctx context.Context, req *clipperv1.DeleteModelVersionRequest) (*clipperv1.DeleteModelVersionResponse, error) {
	return forward(ctx, abstractionName, m.s.deps.Models.DeleteModelVersion, req)
}

func (m modelServer) DeleteModel(ctx context.Context, req *clipperv1.DeleteModelRequest) (*clipperv1.DeleteModelResponse, error) {
	return forward(ctx, abstractionName, m.s.deps.Models.DeleteModel, req)
}

func (m modelServer) GetBatching(ctx context.Context, req *clipperv1.GetBatchingRequest) (*clipperv1.GetBatchingResponse, error) {
	return forward(ctx, abstractionName, m.s.deps.Models.GetBatching, req)
}

func (m modelServer) RegisterReplica(ctx context.Context, req *clipperv1.RegisterReplicaRequest) (*clipperv1.RegisterReplicaResponse, error) {
	return forward(ctx, abstractionName, m.s.deps.Models.RegisterReplica, req)
}

func (m modelServer) GetModelRepository(ctx context.Context, req *clipperv1.GetModelRepositoryRequest) (*clipperv1.GetModelRepositoryResponse, error) {
	return forward(ctx, abstractionName, m.s.deps.Models.GetModelRepository, req)
}

// ReadLogs may go on for ever, so it ends when the server drains.
func (m modelServer) ReadLogs(req *clipperv1.ReadLogsRequest, stream grpc.ServerStreamingServer[clipperv1.ReadLogsResponse]) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	go func() {
		select {
		case <-ctx.Done():
		case <-m.s.deps.Draining:
			cancel(apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "", "the server is shutting down: ask again"))
		}
	}()
	err := forwardStream(abstractionName, m.s.deps.Models.ReadLogs, req, logStream{stream, ctx})
	if cause := context.Cause(ctx); cause != nil {
		return apierror.From(cause)
	}
	return err
}

// logStream is a stream with another context.
type logStream struct {
	grpc.ServerStreamingServer[clipperv1.ReadLogsResponse]
	ctx context.Context //nolint:containedctx // It is what a stream has.
}

// Context implements grpc.ServerStream.
func (s logStream) Context() context.Context { return s.ctx }
