// SPDX-License-Identifier: Apache-2.0

package oip

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/gen/go/inference"
	"github.com/clipper-serving/clipper/gen/go/inference/modelrepository"
	"github.com/clipper-serving/clipper/internal/apierror"
)

// RepositoryIndex implements the protocol: applications, and the versions of models whose name no
// application has.
func (s *Server) RepositoryIndex(ctx context.Context, req *inference.RepositoryIndexRequest) (*inference.RepositoryIndexResponse, error) {
	entries, err := s.index(ctx)
	if err != nil {
		return nil, err
	}
	res := &inference.RepositoryIndexResponse{}
	for _, e := range entries {
		if !req.GetReady() || e.GetState() == stateReady {
			res.Models = append(res.Models, e)
		}
	}
	return res, nil
}

const stateReady = "READY"

// index lists what can be asked.
func (s *Server) index(ctx context.Context) ([]*inference.RepositoryIndexResponse_ModelIndex, error) {
	if err := s.deps.Applications.Ready(ctx); err != nil {
		return nil, apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "", "the applications are not known yet: the selector cannot be reached")
	}
	var entries []*inference.RepositoryIndexResponse_ModelIndex
	taken := map[string]bool{}
	for _, name := range s.deps.Applications.Applications() {
		taken[name] = true
		entries = append(entries, &inference.RepositoryIndexResponse_ModelIndex{Name: name, Version: applicationVersion, State: stateReady})
	}
	for token := ""; ; {
		page, err := s.deps.Models.ListModels(ctx, &clipperv1.ListModelsRequest{PageToken: token})
		if err != nil {
			return nil, err
		}
		for _, m := range page.GetModels() {
			if taken[m.GetName()] {
				continue
			}
			for _, v := range m.GetVersions() {
				entries = append(entries, &inference.RepositoryIndexResponse_ModelIndex{
					Name: m.GetName(), Version: v.GetVersion(), State: state(v), Reason: v.GetStateMessage(),
				})
			}
		}
		if token = page.GetNextPageToken(); token == "" {
			return entries, nil
		}
	}
}

// state is a version's state in the protocol's words.
func state(v *clipperv1.ModelVersion) string {
	switch v.GetState() {
	case clipperv1.ModelState_MODEL_STATE_READY, clipperv1.ModelState_MODEL_STATE_DEGRADED:
		return stateReady
	case clipperv1.ModelState_MODEL_STATE_STARTING:
		return "LOADING"
	case clipperv1.ModelState_MODEL_STATE_DELETING:
		return "UNLOADING"
	}
	return "UNAVAILABLE"
}

// RepositoryModelLoad refuses: changing what others use is administration.
func (s *Server) RepositoryModelLoad(context.Context, *inference.RepositoryModelLoadRequest) (*inference.RepositoryModelLoadResponse, error) {
	return nil, errAdministration()
}

// RepositoryModelUnload refuses likewise.
func (s *Server) RepositoryModelUnload(context.Context, *inference.RepositoryModelUnloadRequest) (*inference.RepositoryModelUnloadResponse, error) {
	return nil, errAdministration()
}

func errAdministration() error {
	return apierror.New(codes.Unimplemented, clipperv1.ErrorReason_ERROR_REASON_UNKNOWN_METHOD, "",
		"models are loaded and unloaded on the listener for administration, not on the one for queries")
}

// adminServer is the protocol for those who administer.
type adminServer struct{ *Server }

func (a adminServer) RepositoryModelLoad(ctx context.Context, req *inference.RepositoryModelLoadRequest) (*inference.RepositoryModelLoadResponse, error) {
	// KServe has the name in the field that is the repository elsewhere.
	name := req.GetModelName()
	if name == "" {
		name = req.GetRepositoryName()
	}
	for parameter := range req.GetParameters() {
		field := fmt.Sprintf("parameters[%.40q]", parameter)
		return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field,
			"%s: a model is loaded as it was deployed; deploy a new version to change it", field)
	}
	if err := a.load(ctx, name); err != nil {
		return nil, err
	}
	return &inference.RepositoryModelLoadResponse{ModelName: name, IsLoaded: true}, nil
}

func (a adminServer) RepositoryModelUnload(ctx context.Context, req *inference.RepositoryModelUnloadRequest) (*inference.RepositoryModelUnloadResponse, error) {
	name := req.GetModelName()
	if name == "" {
		name = req.GetRepositoryName()
	}
	if err := a.unload(ctx, name); err != nil {
		return nil, err
	}
	return &inference.RepositoryModelUnloadResponse{ModelName: name, IsUnloaded: true}, nil
}

// loadCheck is how often a model that is loaded is looked at.
const loadCheck = 100 * time.Millisecond

// load starts a replica of a model's current version, if none is wanted, and waits until it is ready.
func (s *Server) load(ctx context.Context, name string) error {
	ctx = onBehalf(ctx)
	v, err := s.current(ctx, name)
	if err != nil {
		return err
	}
	if v.GetReplicas() == 0 {
		answer, err := s.deps.Admin.UpdateModelVersion(ctx, &clipperv1.UpdateModelVersionRequest{Model: name, Version: v.GetVersion(), Replicas: proto.Uint32(1)})
		if err != nil {
			return err
		}
		v = answer.GetVersion()
	}
	tick := time.NewTicker(loadCheck)
	defer tick.Stop()
	for !ready(v) {
		if v.GetState() == clipperv1.ModelState_MODEL_STATE_FAILED {
			return apierror.New(codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_LAUNCH_FAILED, "model_name", "model %q cannot be loaded: %s", name, v.GetStateMessage())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return apierror.From(ctx.Err())
		case <-s.deps.Draining:
			return apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "", "the server is shutting down: model %q goes on loading", name)
		}
		answer, err := s.deps.Admin.GetModelVersion(ctx, &clipperv1.GetModelVersionRequest{Model: name, Version: v.GetVersion()})
		if err != nil {
			return err
		}
		v = answer.GetVersion()
	}
	return nil
}

// unload stops the replicas of every version of a model.
func (s *Server) unload(ctx context.Context, name string) error {
	ctx = onBehalf(ctx)
	if name == "" {
		return errNoName()
	}
	answer, err := s.deps.Admin.GetModel(ctx, &clipperv1.GetModelRequest{Model: name})
	if err != nil {
		return err
	}
	for _, v := range answer.GetModel().GetVersions() {
		if v.GetReplicas() == 0 {
			continue
		}
		_, err := s.deps.Admin.UpdateModelVersion(ctx, &clipperv1.UpdateModelVersionRequest{Model: name, Version: v.GetVersion(), Replicas: proto.Uint32(0)})
		if err != nil {
			return err
		}
	}
	return nil
}

// current returns the version of a model that is loaded.
func (s *Server) current(ctx context.Context, name string) (*clipperv1.ModelVersion, error) {
	if name == "" {
		return nil, errNoName()
	}
	answer, err := s.deps.Admin.GetModel(ctx, &clipperv1.GetModelRequest{Model: name})
	if err != nil {
		return nil, err
	}
	for _, v := range answer.GetModel().GetVersions() {
		if v.GetCurrent() || v.GetVersion() == answer.GetModel().GetCurrentVersion() {
			return v, nil
		}
	}
	return nil, apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND, "model_name", "model %q has no current version", name)
}

func errNoName() error {
	return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, "model_name", "the name of the model is missing")
}

// repositoryServer is the repository where MLServer has it.
type repositoryServer struct {
	modelrepository.UnimplementedModelRepositoryServiceServer
	s     *Server
	admin bool
}

func (r repositoryServer) RepositoryIndex(ctx context.Context, req *modelrepository.RepositoryIndexRequest) (*modelrepository.RepositoryIndexResponse, error) {
	index, err := r.s.RepositoryIndex(ctx, &inference.RepositoryIndexRequest{RepositoryName: req.GetRepositoryName(), Ready: req.GetReady()})
	if err != nil {
		return nil, err
	}
	res := &modelrepository.RepositoryIndexResponse{}
	for _, m := range index.GetModels() {
		res.Models = append(res.Models, &modelrepository.RepositoryIndexResponse_ModelIndex{
			Name: m.GetName(), Version: m.GetVersion(), State: m.GetState(), Reason: m.GetReason(),
		})
	}
	return res, nil
}

func (r repositoryServer) RepositoryModelLoad(ctx context.Context, req *modelrepository.RepositoryModelLoadRequest) (*modelrepository.RepositoryModelLoadResponse, error) {
	if !r.admin {
		return nil, errAdministration()
	}
	return &modelrepository.RepositoryModelLoadResponse{}, r.s.load(ctx, req.GetModelName())
}

func (r repositoryServer) RepositoryModelUnload(ctx context.Context, req *modelrepository.RepositoryModelUnloadRequest) (*modelrepository.RepositoryModelUnloadResponse, error) {
	if !r.admin {
		return nil, errAdministration()
	}
	return &modelrepository.RepositoryModelUnloadResponse{}, r.s.unload(ctx, req.GetModelName())
}
