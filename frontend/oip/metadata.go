// SPDX-License-Identifier: Apache-2.0

package oip

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/clipper-serving/clipper/frontend/oip/oiptensor"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/gen/go/inference"
)

// platform is what runs applications, and models whose framework is not known.
const platform = "clipper"

// ModelReady implements the protocol. An application is ready as long as it is there: it answers always.
// What does not exist is not ready.
func (s *Server) ModelReady(ctx context.Context, req *inference.ModelReadyRequest) (*inference.ModelReadyResponse, error) {
	to, err := s.resolve(ctx, req.GetName(), req.GetVersion(), true)
	if status.Code(err) == codes.NotFound {
		return &inference.ModelReadyResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	return &inference.ModelReadyResponse{Ready: to.app != nil || ready(to.version)}, nil
}

// ModelMetadata implements the protocol. Every shape begins with the batch dimension.
func (s *Server) ModelMetadata(ctx context.Context, req *inference.ModelMetadataRequest) (*inference.ModelMetadataResponse, error) {
	to, err := s.resolve(ctx, req.GetName(), req.GetVersion(), true)
	if err != nil {
		return nil, err
	}
	return &inference.ModelMetadataResponse{
		Name:     to.name(),
		Versions: to.versions(),
		Platform: to.platform(),
		Inputs:   describe(to.advertised(), unnamedInput),
		Outputs:  describe(to.outputs(), unnamedOutput),
	}, nil
}

func (t target) versions() []string {
	if t.app != nil {
		return []string{applicationVersion}
	}
	var versions []string
	for _, v := range t.model.GetVersions() {
		versions = append(versions, v.GetVersion())
	}
	return versions
}

// advertised returns inputs that are accepted. Where any input is, one is named that clients which build
// requests by the metadata can use.
func (t target) advertised() []*clipperv1.TensorSpec {
	specs := slices.Clone(t.inputs())
	if len(specs) == 0 {
		specs = append(specs, &clipperv1.TensorSpec{AnyShape: true})
	}
	for i, spec := range specs {
		if spec.GetDataType() == clipperv1.DataType_DATA_TYPE_UNSPECIFIED {
			specs[i] = &clipperv1.TensorSpec{Name: spec.GetName(), DataType: clipperv1.DataType_DATA_TYPE_FLOAT32, Shape: spec.GetShape(), AnyShape: spec.GetAnyShape()}
		}
	}
	return specs
}

func (t target) platform() string {
	if framework := t.version.GetContainer().GetAdapter().GetFramework(); framework != "" {
		return framework
	}
	return platform
}

func describe(specs []*clipperv1.TensorSpec, unnamed string) []*inference.ModelMetadataResponse_TensorMetadata {
	var all []*inference.ModelMetadataResponse_TensorMetadata
	for _, spec := range specs {
		all = append(all, &inference.ModelMetadataResponse_TensorMetadata{
			Name: nameOf(spec, unnamed), Datatype: oiptensor.TypeName(spec.GetDataType()), Shape: batchShape(spec),
		})
	}
	return all
}

func nameOf(spec *clipperv1.TensorSpec, unnamed string) string {
	if spec.GetName() == "" {
		return unnamed
	}
	return spec.GetName()
}

// Priorities, as the native API has them.
const (
	priorities      = 8
	defaultPriority = 4
)

// ModelConfig implements the protocol's extension: what Triton's perf_analyzer reads.
func (s *Server) ModelConfig(ctx context.Context, req *inference.ModelConfigRequest) (*inference.ModelConfigResponse, error) {
	to, err := s.resolve(ctx, req.GetName(), req.GetVersion(), true)
	if err != nil {
		return nil, err
	}
	config := &inference.ModelConfig{
		Name:                   to.name(),
		Platform:               to.platform(),
		Backend:                platform,
		MaxBatchSize:           maxRows,
		ModelTransactionPolicy: &inference.ModelTransactionPolicy{},
		// Of an application, its models have one, or not.
		ResponseCache: &inference.ModelResponseCache{Enable: to.version != nil && !to.version.GetCache().GetDisabled()},
		SchedulingChoice: &inference.ModelConfig_DynamicBatching{
			DynamicBatching: &inference.ModelDynamicBatching{PriorityLevels: priorities, DefaultPriorityLevel: defaultPriority},
		},
	}
	for _, spec := range to.advertised() {
		config.Input = append(config.Input, &inference.ModelInput{Name: nameOf(spec, unnamedInput), DataType: oiptensor.ConfigType(spec.GetDataType()), Dims: batchShape(spec)[1:]})
	}
	for _, spec := range to.outputs() {
		config.Output = append(config.Output, &inference.ModelOutput{Name: nameOf(spec, unnamedOutput), DataType: oiptensor.ConfigType(spec.GetDataType()), Dims: batchShape(spec)[1:]})
	}
	return &inference.ModelConfigResponse{Config: config}, nil
}
