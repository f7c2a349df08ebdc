// SPDX-License-Identifier: Apache-2.0

package frontend

import (
	"context"
	"maps"
	"math"
	"slices"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/clipper-serving/clipper/frontend/naturaljson"
	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/ratelimit"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// snapshot is all applications at one time. It is not modified.
type snapshot struct {
	apps map[string]*application
	// changed is closed when there is a newer snapshot.
	changed chan struct{}
}

// application is what the edge needs to know of one application. It is not modified.
type application struct {
	proto     *clipperv1.Application
	name      string
	etag      string
	inputs    []*clipperv1.TensorSpec // In order; empty when any input is accepted.
	output    *clipperv1.OutputSpec
	objective time.Duration
	defaults  []*clipperv1.Tensor
	refuses   bool // under overload, instead of giving the default output
	metrics   applicationMetrics
	limiter   *ratelimit.Limiter // Nil when there are no limits.
}

// defaultObjective is the latency objective of an application that has none.
const defaultObjective = 100 * time.Millisecond

func newApplication(a *clipperv1.Application, m *metrics) *application {
	app := &application{
		proto:     a,
		name:      a.GetName(),
		etag:      a.GetEtag(),
		inputs:    a.GetInputs(),
		output:    a.GetOutput(),
		objective: a.GetLatencyObjective().AsDuration(),
		defaults:  defaultOutput(a),
		refuses:   a.GetRefuseOverload(),
		metrics:   m.of(a.GetName()),
	}
	if app.objective <= 0 {
		app.objective = defaultObjective
	}
	return app
}

// defaultOutput returns the application's default output as tensors, or nil when it does not fit.
func defaultOutput(a *clipperv1.Application) []*clipperv1.Tensor {
	text, err := protojson.Marshal(a.GetDefaultOutput())
	if err != nil {
		return nil
	}
	spec := &clipperv1.TensorSpec{DataType: a.GetOutput().GetDataType(), AnyShape: true}
	_, number := a.GetDefaultOutput().GetKind().(*structpb.Value_NumberValue)
	if spec.DataType == clipperv1.DataType_DATA_TYPE_UNSPECIFIED && number && a.GetOutput().GetKind() == clipperv1.OutputKind_OUTPUT_KIND_LABEL {
		spec.DataType = clipperv1.DataType_DATA_TYPE_INT64
	}
	tensors, err := naturaljson.Decode(text, []*clipperv1.TensorSpec{spec}, math.MaxInt32)
	if err != nil {
		return nil
	}
	return tensors
}

// Application returns an application as this frontend knows it; it is not modified. Its errors are those
// of queries: NOT_FOUND, and UNAVAILABLE while no applications are known.
func (s *Service) Application(name string) (*clipperv1.Application, error) {
	app, err := s.application(name)
	if err != nil {
		return nil, err
	}
	return app.proto, nil
}

// Applications returns the names of all applications as this frontend knows them, sorted.
func (s *Service) Applications() []string {
	apps := s.apps.Load()
	if apps == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(apps.apps))
}

// Limiter returns the limiter of an application, or nil when it has no limits or is not known.
func (s *Service) Limiter(application string) *ratelimit.Limiter {
	if apps := s.apps.Load(); apps != nil && apps.apps[application] != nil {
		return apps.apps[application].limiter
	}
	return nil
}

// application returns an application by name.
func (s *Service) application(name string) (*application, error) {
	apps := s.apps.Load()
	if apps == nil {
		return nil, apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "",
			"the applications are not known here yet: the selector cannot be reached")
	}
	app := apps.apps[name]
	switch {
	case app != nil:
		return app, nil
	case name == "":
		return nil, missing("application", "application is missing: expected the name of an application")
	}
	return nil, apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_APPLICATION_NOT_FOUND, "application",
		"there is no application %q", shorten(name))
}

// await waits until the snapshot meets a condition, or until ctx is done.
func (s *Service) await(ctx context.Context, met func(map[string]*application) bool) {
	for {
		apps := s.apps.Load()
		if apps == nil || met(apps.apps) {
			return
		}
		select {
		case <-apps.changed:
		case <-ctx.Done():
			return
		}
	}
}

// input returns the input of a query to app, which comes as tensors or as JSON.
func (s *Service) input(app *application, tensors []*clipperv1.Tensor, json []byte) (*tensor.Input, error) {
	switch {
	case len(tensors) > 0 && len(json) > 0:
		return nil, invalid("inputs", "inputs and input_json exclude each other: expected one of them")
	case len(json) > 0:
		if int64(len(json)) > int64(s.cfg.MaxInput) {
			return nil, tooLarge("input", "input has %d bytes, more than the limit of %d", len(json), s.cfg.MaxInput)
		}
		decoded, err := naturaljson.Decode(json, app.inputs, s.cfg.MaxElements)
		if err != nil {
			return nil, fromJSON(err)
		}
		return tensor.FromTensors(decoded), nil
	case len(tensors) == 0:
		return nil, missing("inputs", "the query has no input: expected inputs or input_json")
	}
	tensors, err := s.checkTensors(app, tensors)
	if err != nil {
		return nil, err
	}
	return tensor.FromTensors(tensors), nil
}

// checkTensors returns the tensors in the order of the application's signature.
func (s *Service) checkTensors(app *application, tensors []*clipperv1.Tensor) ([]*clipperv1.Tensor, error) {
	if len(app.inputs) > 0 && len(tensors) != len(app.inputs) {
		return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE, "inputs",
			"inputs has %d tensors, expected %d: %s", len(tensors), len(app.inputs), specNames(app.inputs))
	}
	var elements, bytes int64
	for i, t := range tensors {
		field := element(i)
		if !utf8.ValidString(t.GetName()) {
			return nil, invalid(field.String()+".name", "%s.name is not UTF-8", field)
		}
		if tensor.Size(t.GetDataType()) == 0 && t.GetDataType() != clipperv1.DataType_DATA_TYPE_STRING && t.GetDataType() != clipperv1.DataType_DATA_TYPE_BYTES {
			return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INPUT_TYPE, field.String()+".data_type", "%s.data_type is %d, which is not a type that a tensor can have", field, t.GetDataType())
		}
		n, ok := tensor.Elements(t.GetShape())
		if elements += n; ok && elements > s.cfg.MaxElements {
			return nil, tooLarge(field.String(), "%s: the input has more than %d elements, the most that is allowed", field, s.cfg.MaxElements)
		}
		if err := tensor.Check(t); err != nil {
			return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE, field.String(), "%s: %v", field, err)
		}
		if bytes += size(t); bytes > int64(s.cfg.MaxInput) {
			return nil, tooLarge(field.String(), "%s: the input has more than %d bytes, the most that is allowed", field, s.cfg.MaxInput)
		}
		if n == 0 {
			return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE, field.String(), "%s has no elements: shape %v", field, t.GetShape())
		}
		if i := tensor.Finite(t); i >= 0 {
			return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INPUT_VALUE, field.String(), "%s: element %d is not a finite number", field, i)
		}
		if t.GetDataType() == clipperv1.DataType_DATA_TYPE_BOOL {
			if i := slices.IndexFunc(t.Data, func(b byte) bool { return b > 1 }); i >= 0 {
				return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INPUT_VALUE, field.String(), "%s: element %d is %d, expected a bool, 0 or 1", field, i, t.Data[i])
			}
		}
		if i := slices.IndexFunc(t.Strings, func(text string) bool { return !utf8.ValidString(text) }); i >= 0 {
			return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INPUT_VALUE, field.String(), "%s: element %d is not UTF-8", field, i)
		}
	}
	if len(app.inputs) == 0 {
		return tensors, uniqueNames(tensors)
	}
	return match(app.inputs, tensors)
}

// match pairs tensors with the specifications by name, and checks types and shapes.
func match(specs []*clipperv1.TensorSpec, tensors []*clipperv1.Tensor) ([]*clipperv1.Tensor, error) {
	ordered := make([]*clipperv1.Tensor, len(specs))
	for i, t := range tensors {
		field := element(i)
		at := slices.IndexFunc(specs, func(s *clipperv1.TensorSpec) bool { return s.GetName() == t.GetName() })
		if len(specs) == 1 && t.GetName() == "" {
			at = 0
		}
		switch {
		case at < 0:
			return nil, invalid(field.String()+".name", "%s.name is %q: expected one of %s", field, shorten(t.GetName()), specNames(specs))
		case ordered[at] != nil:
			return nil, invalid(field.String()+".name", "%s.name %q is repeated: expected each of %s once", field, shorten(t.GetName()), specNames(specs))
		}
		spec := specs[at]
		if spec.GetDataType() != clipperv1.DataType_DATA_TYPE_UNSPECIFIED && t.GetDataType() != spec.GetDataType() {
			return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INPUT_TYPE, field.String()+".data_type", "%s.data_type is %s, expected %s",
				field, tensor.TypeName(t.GetDataType()), tensor.TypeName(spec.GetDataType()))
		}
		if !tensor.FitsShape(t.GetShape(), spec) {
			return nil, apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INPUT_SHAPE, field.String()+".shape", "%s.shape is %v, expected %v (-1 is any length)",
				field, t.GetShape(), spec.GetShape())
		}
		if t.GetName() != spec.GetName() {
			// Equal inputs have equal names, so that the cache knows them as equal.
			t = &clipperv1.Tensor{Name: spec.GetName(), DataType: t.GetDataType(), Shape: t.GetShape(), Data: t.GetData(), Strings: t.GetStrings(), ByteStrings: t.GetByteStrings()}
		}
		ordered[at] = t
	}
	return ordered, nil
}

func uniqueNames(tensors []*clipperv1.Tensor) error {
	if len(tensors) == 1 {
		return nil
	}
	seen := make(map[string]bool, len(tensors))
	for i, t := range tensors {
		if field := element(i).String() + ".name"; seen[t.GetName()] || t.GetName() == "" {
			return invalid(field, "%s is %q: expected every tensor to have a name of its own", field, shorten(t.GetName()))
		}
		seen[t.GetName()] = true
	}
	return nil
}

// size returns the bytes that a tensor's elements take.
func size(t *clipperv1.Tensor) int64 {
	n := int64(len(t.GetData()))
	for _, s := range t.GetStrings() {
		n += int64(len(s))
	}
	for _, b := range t.GetByteStrings() {
		n += int64(len(b))
	}
	return n
}

// checkTruth reports whether a truth is of the application's kind of output.
func checkTruth(app *application, truth *structpb.Value) error {
	wrong := func(expected string) error {
		return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_TRUTH_INVALID, "truth", "truth is %s, expected %s", kindOf(truth), expected)
	}
	n, isNumber := truth.GetKind().(*structpb.Value_NumberValue)
	_, isText := truth.GetKind().(*structpb.Value_StringValue)
	list, isList := truth.GetKind().(*structpb.Value_ListValue)
	if isNumber && (math.IsNaN(n.NumberValue) || math.IsInf(n.NumberValue, 0)) {
		return wrong("a finite number")
	}
	switch dt := app.output.GetDataType(); app.output.GetKind() {
	case clipperv1.OutputKind_OUTPUT_KIND_LABEL:
		if dt == clipperv1.DataType_DATA_TYPE_STRING && !isText {
			return wrong("a label, a string")
		}
		if dt != clipperv1.DataType_DATA_TYPE_STRING && dt != clipperv1.DataType_DATA_TYPE_UNSPECIFIED && !isNumber {
			return wrong("a label, a number")
		}
		if !isText && !isNumber {
			return wrong("a label, a number or a string")
		}
	case clipperv1.OutputKind_OUTPUT_KIND_NUMBER:
		if !isNumber {
			return wrong("a number")
		}
	case clipperv1.OutputKind_OUTPUT_KIND_SCORES:
		if isList {
			for _, v := range list.ListValue.GetValues() {
				if x, ok := v.GetKind().(*structpb.Value_NumberValue); !ok || math.IsNaN(x.NumberValue) || math.IsInf(x.NumberValue, 0) {
					return wrong("a list of finite numbers only")
				}
			}
			if len(list.ListValue.GetValues()) > 0 {
				return nil
			}
		}
		if !isNumber && !isText {
			return wrong("the true class (its index or name) or a list of true scores")
		}
	}
	return nil
}

func kindOf(v *structpb.Value) string {
	switch k := v.GetKind().(type) {
	case *structpb.Value_NumberValue:
		if math.IsNaN(k.NumberValue) || math.IsInf(k.NumberValue, 0) {
			return "not finite"
		}
		return "a number"
	case *structpb.Value_StringValue:
		return "a string"
	case *structpb.Value_BoolValue:
		return "a boolean"
	case *structpb.Value_ListValue:
		return "a list"
	case *structpb.Value_StructValue:
		return "an object"
	}
	return "null"
}
