// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"sync"

	"github.com/clipper-serving/clipper/frontend/naturaljson"
	"github.com/clipper-serving/clipper/frontend/oip/oiptensor"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/gen/go/inference"
	"github.com/clipper-serving/clipper/internal/loadgen"
)

// newSpecs returns the specifications of the inputs of metadata, and whether a batch's dimension is in front of
// every shape, as it is where all of them begin with one of any length.
func newSpecs(inputs []*inference.ModelMetadataResponse_TensorMetadata) (specs []*clipperv1.TensorSpec, batched bool, err error) {
	batched = len(inputs) > 0
	for _, in := range inputs {
		batched = batched && len(in.GetShape()) > 0 && in.GetShape()[0] < 0
	}
	specs = []*clipperv1.TensorSpec{}
	for _, in := range inputs {
		spec, err := newSpec(in.GetName(), in.GetDatatype(), in.GetShape(), batched)
		if err != nil {
			return nil, false, err
		}
		specs = append(specs, spec)
	}
	return specs, batched, nil
}

// newSpec returns the specification of one of them. What is BYTES is text, until something else is said.
func newSpec(name, datatype string, shape []int64, batched bool) (*clipperv1.TensorSpec, error) {
	kind, ok := oiptensor.ParseType(datatype)
	if !ok {
		return nil, failed("METADATA", fmt.Sprintf("the server's metadata has an input %q of the unknown type %q", name, datatype))
	}
	if kind == clipperv1.DataType_DATA_TYPE_BYTES {
		kind = clipperv1.DataType_DATA_TYPE_STRING
	}
	if batched {
		shape = shape[1:]
	}
	return &clipperv1.TensorSpec{Name: name, DataType: kind, Shape: shape}, nil
}

// signature is a signature that is fetched once.
type signature struct {
	fetch func(context.Context) ([]*clipperv1.TensorSpec, bool, error)

	mu    sync.Mutex
	specs []*clipperv1.TensorSpec
	// batched is whether a batch's dimension goes in front of every shape.
	batched bool
}

func (s *signature) get(ctx context.Context) ([]*clipperv1.TensorSpec, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.specs != nil {
		return s.specs, s.batched, nil
	}
	specs, batched, err := s.fetch(ctx)
	if err == nil {
		s.specs, s.batched = specs, batched
	}
	return specs, batched, err
}

// tensors returns an input as tensors of the server's names, and their shapes with the batch's dimension.
func (s *signature) tensors(input Input) ([]*clipperv1.Tensor, [][]int64, error) {
	specs, batched, err := s.get(context.Background())
	if err != nil {
		return nil, nil, err
	}
	tensors := input.Tensors
	if tensors == nil {
		loose := make([]*clipperv1.TensorSpec, len(specs))
		for i, spec := range specs {
			loose[i] = &clipperv1.TensorSpec{Name: spec.Name, DataType: spec.DataType, Shape: spec.Shape}
			if spec.DataType == clipperv1.DataType_DATA_TYPE_STRING {
				loose[i].DataType = clipperv1.DataType_DATA_TYPE_UNSPECIFIED // Text, or {"b64": ...}.
			}
		}
		if tensors, err = naturaljson.Decode(input.JSON, loose, maxElements); err != nil {
			return nil, nil, err
		}
	}
	if len(tensors) != len(specs) {
		return nil, nil, fmt.Errorf("has %d tensors, expected %d", len(tensors), len(specs))
	}
	named := make([]*clipperv1.Tensor, len(tensors))
	shapes := make([][]int64, len(tensors))
	for i, t := range tensors {
		named[i] = &clipperv1.Tensor{Name: specs[i].Name, DataType: t.DataType, Shape: t.Shape, Data: t.Data, Strings: t.Strings, ByteStrings: t.ByteStrings}
		if shapes[i] = t.Shape; batched {
			shapes[i] = append([]int64{1}, t.Shape...)
		}
		if shapes[i] == nil {
			shapes[i] = []int64{}
		}
	}
	return named, shapes, nil
}

// values are the parameters of a query.
func (p Params) values() map[string]any {
	values := map[string]any{}
	if p.Context != "" {
		values["context"] = p.Context
	}
	if p.Priority != 0 {
		values["priority"] = int64(p.Priority)
	}
	if p.Timeout > 0 {
		values["timeout"] = p.Timeout.Microseconds()
	}
	return values
}

// oipGRPC asks in the Open Inference Protocol over gRPC.
type oipGRPC struct {
	name, version string
	signature     *signature
	service       inference.GRPCInferenceServiceClient
	feedback      func(context.Context, string, json.RawMessage) error
}

// NewOIPGRPC returns a client of the Open Inference Protocol over gRPC, with raw contents.
func NewOIPGRPC(conns *Conns, name, version string) Client {
	c := newOIPGRPC(conns, name, version)
	c.feedback = newGRPC(conns, name).Feedback
	return c
}

func newOIPGRPC(conns *Conns, name, version string) *oipGRPC {
	c := &oipGRPC{name: name, version: version, service: inference.NewGRPCInferenceServiceClient(conns)}
	c.signature = &signature{fetch: c.metadata}
	return c
}

func (c *oipGRPC) Close() {}

func (c *oipGRPC) Signature(ctx context.Context) ([]*clipperv1.TensorSpec, error) {
	specs, _, err := c.signature.get(ctx)
	return specs, err
}

func (c *oipGRPC) metadata(ctx context.Context) ([]*clipperv1.TensorSpec, bool, error) {
	m, err := c.service.ModelMetadata(ctx, &inference.ModelMetadataRequest{Name: c.name, Version: c.version})
	if err != nil {
		return nil, false, failure(err)
	}
	return newSpecs(m.GetInputs())
}

func (c *oipGRPC) Prepare(input Input) (Call, error) {
	tensors, shapes, err := c.signature.tensors(input)
	if err != nil {
		return nil, err
	}
	var inputs []*inference.ModelInferRequest_InferInputTensor
	var contents [][]byte
	for i, t := range tensors {
		inputs = append(inputs, &inference.ModelInferRequest_InferInputTensor{Name: t.Name, Datatype: oiptensor.TypeName(t.DataType), Shape: shapes[i]})
		contents = append(contents, oiptensor.Raw(t))
	}
	return func(ctx context.Context, p Params) (loadgen.Answer, error) {
		request := &inference.ModelInferRequest{ModelName: c.name, ModelVersion: c.version, Inputs: inputs, RawInputContents: contents}
		for name, value := range p.values() {
			if request.Parameters == nil {
				request.Parameters = map[string]*inference.InferParameter{}
			}
			switch v := value.(type) {
			case int64:
				request.Parameters[name] = &inference.InferParameter{ParameterChoice: &inference.InferParameter_Int64Param{Int64Param: v}}
			case string:
				request.Parameters[name] = &inference.InferParameter{ParameterChoice: &inference.InferParameter_StringParam{StringParam: v}}
			}
		}
		response, err := c.service.ModelInfer(ctx, request)
		if err != nil {
			return loadgen.Answer{}, failure(err)
		}
		values := map[string]any{}
		for name, p := range response.GetParameters() {
			switch v := p.GetParameterChoice().(type) {
			case *inference.InferParameter_BoolParam:
				values[name] = v.BoolParam
			case *inference.InferParameter_StringParam:
				values[name] = v.StringParam
			}
		}
		return answerOfParameters(values), nil
	}, nil
}

// answerOfParameters reads what an application says beside its outputs; another server says nothing.
func answerOfParameters(values map[string]any) loadgen.Answer {
	var a loadgen.Answer
	a.FeedbackID, _ = values["feedback_id"].(string)
	if isDefault, _ := values["is_default"].(bool); isDefault {
		reason, _ := values["default_reason"].(string)
		a.Default = defaultReason(reason)
	}
	return a
}

func (c *oipGRPC) Feedback(ctx context.Context, id string, truth json.RawMessage) error {
	return c.feedback(ctx, id, truth)
}

// oipTensor is an input of the protocol in JSON.
type oipTensor struct {
	Name       string          `json:"name"`
	Datatype   string          `json:"datatype"`
	Shape      []int64         `json:"shape"`
	Parameters map[string]int  `json:"parameters,omitempty"`
	Data       json.RawMessage `json:"data,omitempty"`
}

// oipREST asks in the Open Inference Protocol over HTTP.
type oipREST struct {
	http      *httpClient
	path      string
	binary    bool
	signature *signature
	feedback  func(context.Context, string, json.RawMessage) error
}

// NewOIPREST returns a client of the Open Inference Protocol over HTTP, with tensors as JSON, or as binary data.
func NewOIPREST(h HTTP, name, version string, binary bool) Client {
	return newOIPREST(h, name, version, binary)
}

func newOIPREST(h HTTP, name, version string, binary bool) *oipREST {
	c := &oipREST{http: newHTTP(h), path: "/v2/models/" + escape(name), binary: binary}
	if version != "" {
		c.path += "/versions/" + escape(version)
	}
	c.feedback = (&restClient{http: c.http, path: "/v1/applications/" + escape(name)}).Feedback
	c.signature = &signature{fetch: c.metadata}
	return c
}

func (c *oipREST) Close() { c.http.close() }

func (c *oipREST) Signature(ctx context.Context) ([]*clipperv1.TensorSpec, error) {
	specs, _, err := c.signature.get(ctx)
	return specs, err
}

func (c *oipREST) metadata(ctx context.Context) ([]*clipperv1.TensorSpec, bool, error) {
	answer, _, err := c.http.call(ctx, "GET", c.path, nil, nil)
	if err != nil {
		return nil, false, err
	}
	var m struct {
		Inputs []*inference.ModelMetadataResponse_TensorMetadata `json:"inputs"`
	}
	if err := json.Unmarshal(answer, &m); err != nil {
		return nil, false, failed("METADATA", "the server's metadata is not JSON: "+err.Error())
	}
	return newSpecs(m.Inputs)
}

// jsonLength is the header that says how much of a body is JSON, before the tensors.
const jsonLength = "Inference-Header-Content-Length"

func (c *oipREST) Prepare(input Input) (Call, error) {
	tensors, shapes, err := c.signature.tensors(input)
	if err != nil {
		return nil, err
	}
	var inputs []oipTensor
	var contents []byte
	for i, t := range tensors {
		in := oipTensor{Name: t.Name, Datatype: oiptensor.TypeName(t.DataType), Shape: shapes[i]}
		if c.binary {
			b := oiptensor.Raw(t)
			in.Parameters = map[string]int{"binary_data_size": len(b)}
			contents = append(contents, b...)
		} else if in.Data, err = flat(t); err != nil {
			return nil, err
		}
		inputs = append(inputs, in)
	}
	encoded, err := json.Marshal(inputs)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, p Params) (loadgen.Answer, error) {
		values := p.values()
		headers := map[string]string{"Content-Type": "application/json"}
		if c.binary {
			values["binary_data_output"] = true
			headers["Content-Type"] = "application/octet-stream"
		}
		body := append([]byte(`{"inputs":`), encoded...)
		if len(values) > 0 {
			parameters, err := json.Marshal(values)
			if err != nil {
				return loadgen.Answer{}, err
			}
			body = append(append(body, `,"parameters":`...), parameters...)
		}
		body = append(body, '}')
		if c.binary {
			headers[jsonLength] = strconv.Itoa(len(body))
			body = append(body, contents...)
		}
		answer, received, err := c.http.call(ctx, "POST", c.path+"/infer", maps.All(headers), body)
		if err != nil {
			return loadgen.Answer{}, err
		}
		if n, err := strconv.Atoi(received.Get(jsonLength)); err == nil && n >= 0 && n <= len(answer) {
			answer = answer[:n]
		}
		var said struct {
			Parameters map[string]any `json:"parameters"`
		}
		if err := json.Unmarshal(answer, &said); err != nil {
			return loadgen.Answer{}, failed("INVALID_ANSWER", "the answer is not JSON: "+err.Error())
		}
		return answerOfParameters(said.Parameters), nil
	}, nil
}

// flat returns the elements of a tensor as one list.
func flat(t *clipperv1.Tensor) ([]byte, error) {
	elements := int64(1)
	for _, n := range t.Shape {
		elements *= n
	}
	list := &clipperv1.Tensor{DataType: t.DataType, Shape: []int64{elements}, Data: t.Data, Strings: t.Strings}
	if len(t.ByteStrings) > 0 {
		list.DataType = clipperv1.DataType_DATA_TYPE_STRING
		for _, b := range t.ByteStrings {
			list.Strings = append(list.Strings, string(b))
		}
	}
	return naturaljson.AppendTensors(nil, []*clipperv1.Tensor{list})
}

func (c *oipREST) Feedback(ctx context.Context, id string, truth json.RawMessage) error {
	return c.feedback(ctx, id, truth)
}
