// SPDX-License-Identifier: Apache-2.0

package oip

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
)

// applicationVersion is the version that an application is listed with; it has no other.
const applicationVersion = "1"

// What is remembered of models, so that a request need not ask for their signatures.
const (
	modelAge  = time.Second
	maxModels = 1024
)

// target is what a name and a version mean: an application, or a version of a model.
type target struct {
	app     *clipperv1.Application
	model   *clipperv1.Model
	version *clipperv1.ModelVersion
}

// resolve returns what a name and a version mean. fresh is false when a model may be one second old.
func (s *Server) resolve(ctx context.Context, name, version string, fresh bool) (target, error) {
	if name == "" {
		return target{}, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, "model_name", "the name of the model is missing")
	}
	app, err := s.deps.Applications.Application(name)
	switch {
	case err == nil && version != "" && version != applicationVersion:
		return target{}, apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND, "model_version",
			"%q is an application, which has no version %.40q: name none", name, version)
	case err == nil:
		return target{app: app}, nil
	case status.Code(err) != codes.NotFound:
		return target{}, err
	}
	model, err := s.model(ctx, name, fresh)
	if err != nil {
		if status.Code(err) == codes.InvalidArgument || status.Code(err) == codes.NotFound {
			// A name that no model can have is the name of none.
			err = apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND, "model_name", "there is no application and no model %.80q", name)
		}
		return target{}, err
	}
	wanted := version
	if wanted == "" {
		wanted = model.GetCurrentVersion()
	}
	for _, v := range model.GetVersions() {
		if v.GetVersion() == wanted {
			return target{model: model, version: v}, nil
		}
	}
	if version == "" {
		return target{}, apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND, "model_version", "model %q has no current version", name)
	}
	return target{}, apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND, "model_version", "model %q has no version %.40q", name, version)
}

func (s *Server) model(ctx context.Context, name string, fresh bool) (*clipperv1.Model, error) {
	s.mu.Lock()
	known, ok := s.models[name]
	s.mu.Unlock()
	if ok && !fresh && time.Since(known.at) < modelAge {
		return known.model, nil
	}
	answer, err := s.deps.Models.GetModel(ctx, &clipperv1.GetModelRequest{Model: name})
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		delete(s.models, name)
		return nil, err
	}
	if len(s.models) >= maxModels {
		clear(s.models)
	}
	s.models[name] = knownModel{model: answer.GetModel(), at: time.Now()}
	return answer.GetModel(), nil
}

// ready reports whether a version of a model can answer.
func ready(v *clipperv1.ModelVersion) bool {
	return v.GetState() == clipperv1.ModelState_MODEL_STATE_READY || v.GetState() == clipperv1.ModelState_MODEL_STATE_DEGRADED
}

// unnamed are what tensors without a name are called: the protocol wants one.
const (
	unnamedInput  = "input"
	unnamedOutput = "output"
)

func (t target) name() string {
	if t.app != nil {
		return t.app.GetName()
	}
	return t.model.GetName()
}

func (t target) inputs() []*clipperv1.TensorSpec {
	if t.app != nil {
		return t.app.GetInputs()
	}
	return t.version.GetSignature().GetInputs()
}

// outputs returns what one row gives, as far as that is known.
func (t target) outputs() []*clipperv1.TensorSpec {
	if t.app == nil {
		return t.version.GetSignature().GetOutputs()
	}
	out := t.app.GetOutput()
	spec := &clipperv1.TensorSpec{DataType: out.GetDataType()}
	if out.GetKind() == clipperv1.OutputKind_OUTPUT_KIND_SCORES {
		spec.Shape = []int64{-1}
		if n := len(out.GetClasses()); n > 0 {
			spec.Shape[0] = int64(n)
		}
	}
	return []*clipperv1.TensorSpec{spec}
}
