// SPDX-License-Identifier: Apache-2.0

package abstraction

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/clipper-serving/clipper/abstraction/catalog"
	"github.com/clipper-serving/clipper/abstraction/launcher"
	"github.com/clipper-serving/clipper/abstraction/registry"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
)

const (
	defaultPage = 100
	maxPage     = 1000
)

// modelService is the administration of models. Its semantics are in
// model_service.proto.
type modelService struct {
	clipperv1.UnimplementedModelServiceServer
	service *Service
}

// DeployModel implements clipperv1.ModelServiceServer.
func (m modelService) DeployModel(ctx context.Context, req *clipperv1.DeployModelRequest) (*clipperv1.DeployModelResponse, error) {
	spec, err := catalog.Normalize(req.GetVersion())
	if err != nil {
		return nil, err
	}
	if err := m.service.checkContainer(spec.Container); err != nil {
		return nil, err
	}
	if err := catalog.CheckKeepVersions("keep_versions", req.KeepVersions); err != nil {
		return nil, err
	}
	if err := m.service.catalog.Deploy(ctx, spec, req.GetKeepCurrent(), req.KeepVersions); err != nil {
		return nil, err
	}
	m.service.log.Info("version deployed", "model", spec.Model, "version", spec.Version)
	if v := m.service.afterChange(ctx, spec.Model, spec.Version); v != nil {
		spec = v
	}
	return &clipperv1.DeployModelResponse{Version: spec}, nil
}

// GetModel implements clipperv1.ModelServiceServer.
func (m modelService) GetModel(ctx context.Context, req *clipperv1.GetModelRequest) (*clipperv1.GetModelResponse, error) {
	model, err := m.service.read(ctx, req.GetModel())
	if err != nil {
		return nil, err
	}
	return &clipperv1.GetModelResponse{Model: m.service.describeModel(ctx, model)}, nil
}

// ListModels implements clipperv1.ModelServiceServer.
func (m modelService) ListModels(ctx context.Context, req *clipperv1.ListModelsRequest) (*clipperv1.ListModelsResponse, error) {
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultPage
	}
	if size > maxPage {
		return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "page_size", "page_size: want 1 to %d, or 0 for %d, not %d", maxPage, defaultPage, size)
	}
	after, err := base64.RawURLEncoding.DecodeString(req.GetPageToken())
	if err != nil || (len(after) > 0 && catalog.CheckName("", string(after)) != nil) {
		return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "page_token", "page_token: want the next_page_token of an earlier answer, or nothing")
	}
	view, err := m.service.refresh(ctx)
	if err != nil {
		return nil, err
	}
	models := slices.DeleteFunc(slices.Clone(view.Models), func(model *catalog.Model) bool {
		return len(model.Versions) == 0 || !strings.HasPrefix(model.Name, req.GetPrefix()) || strings.Compare(model.Name, string(after)) <= 0
	})
	resp := &clipperv1.ListModelsResponse{}
	if len(models) > size {
		models = models[:size]
		resp.NextPageToken = base64.RawURLEncoding.EncodeToString([]byte(models[size-1].Name))
	}
	resp.Models = m.service.describeModels(ctx, models)
	return resp, nil
}

// GetModelVersion implements clipperv1.ModelServiceServer.
func (m modelService) GetModelVersion(ctx context.Context, req *clipperv1.GetModelVersionRequest) (*clipperv1.GetModelVersionResponse, error) {
	v, err := m.service.readVersion(ctx, req.GetModel(), req.GetVersion())
	if err != nil {
		return nil, err
	}
	return &clipperv1.GetModelVersionResponse{Version: v}, nil
}

// UpdateModelVersion implements clipperv1.ModelServiceServer.
func (m modelService) UpdateModelVersion(ctx context.Context, req *clipperv1.UpdateModelVersionRequest) (*clipperv1.UpdateModelVersionResponse, error) {
	if err := checkNames(req.GetModel(), req.GetVersion()); err != nil {
		return nil, err
	}
	if err := catalog.CheckReplicas("replicas", req.Replicas); err != nil {
		return nil, err
	}
	if err := catalog.CheckHomes("homes", req.GetHomes()); err != nil {
		return nil, err
	}
	batching, err := catalog.NormalizeBatching("batching", req.GetBatching())
	if err != nil {
		return nil, err
	}
	scaling, err := catalog.NormalizeAutoscaling("autoscaling", req.GetAutoscaling())
	if err != nil {
		return nil, err
	}
	if err := m.service.checkScaling(ctx, req); err != nil {
		return nil, err
	}
	var changed *clipperv1.ModelVersion
	err = m.service.catalog.Update(ctx, req.Model, req.Version, req.Etag, func(v *clipperv1.ModelVersion) {
		if req.Replicas != nil {
			v.Replicas = proto.Uint32(*req.Replicas)
		}
		if req.Batching != nil {
			v.Batching = batching
		}
		if req.Cache != nil {
			v.Cache = req.Cache
		}
		if req.Homes != nil {
			v.Homes = max(*req.Homes, 1)
		}
		if req.Autoscaling != nil {
			v.Autoscaling = scaling
			if scaling != nil {
				v.Replicas = proto.Uint32(min(max(v.GetReplicas(), scaling.MinReplicas), scaling.MaxReplicas))
			}
		}
		changed = v
	})
	if err != nil {
		return nil, err
	}
	if v := m.service.afterChange(ctx, req.Model, req.Version); v != nil {
		changed = v
	}
	return &clipperv1.UpdateModelVersionResponse{Version: changed}, nil
}

// SetCurrentVersion implements clipperv1.ModelServiceServer.
func (m modelService) SetCurrentVersion(ctx context.Context, req *clipperv1.SetCurrentVersionRequest) (*clipperv1.SetCurrentVersionResponse, error) {
	if err := checkNames(req.GetModel(), req.GetVersion()); err != nil {
		return nil, err
	}
	if err := m.service.catalog.SetCurrent(ctx, req.Model, req.Version); err != nil {
		return nil, err
	}
	m.service.log.Info("current version set", "model", req.Model, "version", req.Version)
	m.service.afterChange(ctx, req.Model, req.Version)
	model := m.service.catalog.View().Model(req.Model)
	if model == nil { // removed meanwhile
		return &clipperv1.SetCurrentVersionResponse{Model: &clipperv1.Model{Name: req.Model, CurrentVersion: req.Version}}, nil
	}
	return &clipperv1.SetCurrentVersionResponse{Model: m.service.describeModel(ctx, model)}, nil
}

// DeleteModelVersion implements clipperv1.ModelServiceServer.
func (m modelService) DeleteModelVersion(ctx context.Context, req *clipperv1.DeleteModelVersionRequest) (*clipperv1.DeleteModelVersionResponse, error) {
	if err := checkNames(req.GetModel(), req.GetVersion()); err != nil {
		return nil, err
	}
	uid, err := m.service.catalog.Delete(ctx, req.Model, req.Version)
	if err != nil {
		return nil, err
	}
	m.service.log.Info("version is being removed", "model", req.Model, "version", req.Version)
	if err := m.service.awaitRemoval(ctx, req.Model, map[string]string{req.Version: uid}); err != nil {
		return nil, err
	}
	return &clipperv1.DeleteModelVersionResponse{}, nil
}

// DeleteModel implements clipperv1.ModelServiceServer.
func (m modelService) DeleteModel(ctx context.Context, req *clipperv1.DeleteModelRequest) (*clipperv1.DeleteModelResponse, error) {
	if err := catalog.CheckName("model", req.GetModel()); err != nil {
		return nil, err
	}
	uids, err := m.service.catalog.DeleteModel(ctx, req.Model)
	if err != nil {
		return nil, err
	}
	m.service.log.Info("model is being removed", "model", req.Model)
	if err := m.service.awaitRemoval(ctx, req.Model, uids); err != nil {
		return nil, err
	}
	return &clipperv1.DeleteModelResponse{}, nil
}

// GetBatching implements clipperv1.ModelServiceServer.
func (m modelService) GetBatching(ctx context.Context, req *clipperv1.GetBatchingRequest) (*clipperv1.GetBatchingResponse, error) {
	if err := checkNames(req.GetModel(), req.GetVersion()); err != nil {
		return nil, err
	}
	model, err := m.service.read(ctx, req.Model)
	if err != nil {
		return nil, err
	}
	doc := model.Version(req.Version)
	if doc == nil {
		return nil, catalog.VersionNotFound(req.Model, req.Version)
	}
	explained := m.service.explain(ctx, doc)
	if explained == nil {
		return nil, apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "",
			"version %q of model %q is not running: try again when it is, its state says why", req.Version, req.Model)
	}
	return explained, nil
}

// RegisterReplica implements clipperv1.ModelServiceServer.
func (m modelService) RegisterReplica(ctx context.Context, req *clipperv1.RegisterReplicaRequest) (*clipperv1.RegisterReplicaResponse, error) {
	if err := m.service.registry.Admit(m.service.cfg.Registration, req.Token); err != nil {
		return nil, err
	}
	lease, err := registry.Check(req)
	if err != nil {
		return nil, err
	}
	of := registry.Name{Model: req.Model, Version: req.Version}
	if lease == 0 {
		err = m.service.registry.Remove(ctx, of, req.Replica)
	} else {
		err = m.service.registry.Register(ctx, of, req.Replica, req.Address, lease)
	}
	if err != nil {
		return nil, err
	}
	resp := &clipperv1.RegisterReplicaResponse{Lease: durationpb.New(lease)}
	if model := m.service.catalog.View().Model(req.Model); model != nil {
		doc := model.Version(req.Version)
		resp.Deployed = doc != nil && !doc.Deleting
	}
	return resp, nil
}

// GetModelRepository implements clipperv1.ModelServiceServer.
func (m modelService) GetModelRepository(context.Context, *clipperv1.GetModelRepositoryRequest) (*clipperv1.GetModelRepositoryResponse, error) {
	if m.service.deps.Repository == nil {
		return &clipperv1.GetModelRepositoryResponse{}, nil
	}
	return m.service.deps.Repository.Status(), nil
}

func checkNames(model, version string) error {
	if err := catalog.CheckName("model", model); err != nil {
		return err
	}
	return catalog.CheckName("version", version)
}

// launcherFor returns the launcher that starts such containers, or why none does.
func (s *Service) launcherFor(c *clipperv1.Container) (launcher.Launcher, error) {
	for _, l := range s.deps.Launchers {
		if err := l.Check(c); !errors.Is(err, launcher.ErrUnsupported) {
			return l, nil
		}
	}
	return nil, launcher.ErrUnsupported
}

// checkContainer refuses a container that cannot be started here, as far as that is known
// without starting it.
func (s *Service) checkContainer(c *clipperv1.Container) error {
	if !isLaunched(c) {
		return nil
	}
	l, err := s.launcherFor(c)
	if err != nil {
		kind := "such containers"
		switch c.GetSource().(type) {
		case *clipperv1.Container_Image:
			kind = "images"
		case *clipperv1.Container_Adapter:
			kind = "adapters"
		case *clipperv1.Container_Command:
			kind = "commands"
		}
		return launchFailed("version.container", "this server has no launcher for %s", kind)
	}
	err = l.Check(c)
	var field *launcher.FieldError
	if errors.As(err, &field) {
		return launchFailed("version.container."+field.Field, "version.container.%s: %s", field.Field, field.Message)
	}
	return err
}

func launchFailed(field, format string, args ...any) error {
	return apierror.New(codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_LAUNCH_FAILED, field, format, args...)
}

// refresh reads the store and makes what runs here like it, so that nobody is told what
// queries do not see yet.
func (s *Service) refresh(ctx context.Context) (*catalog.View, error) {
	if err := s.catalog.Refresh(ctx); err != nil {
		return nil, err
	}
	return s.apply(), nil
}

// afterChange lets what was just changed take effect here and returns the version, or nil
// when it cannot be read. The change is made, so that is no error; the loop will follow.
func (s *Service) afterChange(ctx context.Context, model, version string) *clipperv1.ModelVersion {
	view, err := s.refresh(ctx)
	if err != nil {
		s.log.Warn("change of a model is not seen yet", "model", model, "version", version, "error", err)
		view = s.catalog.View()
	}
	if m := view.Model(model); m != nil {
		if v := m.Version(version); v != nil {
			return s.describe(m, v, s.report(ctx, []*catalog.Version{v}))
		}
	}
	return nil
}

// awaitRemoval returns when the versions with these UIDs are gone.
func (s *Service) awaitRemoval(ctx context.Context, model string, uids map[string]string) error {
	s.afterChange(ctx, model, "")
	for {
		view := s.catalog.View()
		left := false
		if m := view.Model(model); m != nil {
			left = slices.ContainsFunc(m.Versions, func(v *catalog.Version) bool { return uids[v.Spec.Version] == v.UID })
		}
		if !left {
			return nil
		}
		select {
		case <-ctx.Done():
			return apierror.From(ctx.Err())
		case <-view.Replaced():
		}
	}
}

// read returns a model that has versions.
func (s *Service) read(ctx context.Context, model string) (*catalog.Model, error) {
	if err := catalog.CheckName("model", model); err != nil {
		return nil, err
	}
	view, err := s.refresh(ctx)
	if err != nil {
		return nil, err
	}
	m := view.Model(model)
	if m == nil || len(m.Versions) == 0 {
		return nil, catalog.ModelNotFound(model)
	}
	return m, nil
}

func (s *Service) readVersion(ctx context.Context, model, version string) (*clipperv1.ModelVersion, error) {
	if err := checkNames(model, version); err != nil {
		return nil, err
	}
	m, err := s.read(ctx, model)
	if err != nil {
		return nil, err
	}
	v := m.Version(version)
	if v == nil {
		return nil, catalog.VersionNotFound(model, version)
	}
	return s.describe(m, v, s.report(ctx, []*catalog.Version{v})), nil
}

func (s *Service) describeModel(ctx context.Context, m *catalog.Model) *clipperv1.Model {
	return s.describeModels(ctx, []*catalog.Model{m})[0]
}

func (s *Service) describeModels(ctx context.Context, models []*catalog.Model) []*clipperv1.Model {
	var versions []*catalog.Version
	for _, m := range models {
		versions = append(versions, m.Versions...)
	}
	known := s.report(ctx, versions)
	described := make([]*clipperv1.Model, len(models))
	for i, m := range models {
		described[i] = &clipperv1.Model{Name: m.Name, CurrentVersion: m.Current(), KeepVersions: m.Keep()}
		for _, v := range m.Versions {
			spec := s.describe(m, v, known)
			if spec.WarmUp != nil {
				spec.WarmUp.Samples = nil // They are large, and many versions make one message.
			}
			described[i].Versions = append(described[i].Versions, spec)
		}
	}
	return described
}

// describe returns a version with what is known about it.
func (s *Service) describe(m *catalog.Model, doc *catalog.Version, known reports) *clipperv1.ModelVersion {
	spec := proto.CloneOf(doc.Spec)
	spec.Current, spec.Etag = m.Current() == spec.Version, doc.Etag()
	spec.Homes = max(spec.Homes, 1) // A document from before there were several is without.
	known.of(doc.UID).describe(spec)
	if doc.Deleting {
		spec.State, spec.StateMessage = clipperv1.ModelState_MODEL_STATE_DELETING, "the version answers what it has and is being removed"
	}
	return spec
}
