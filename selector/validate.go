// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/apierror"
	"github.com/clipper-serving/clipper/internal/ratelimit"
	"github.com/clipper-serving/clipper/internal/tensor"
	"github.com/clipper-serving/clipper/selector/features"
	"github.com/clipper-serving/clipper/selector/output"
	"github.com/clipper-serving/clipper/selector/policy"
)

// Limits and defaults of an application.
const (
	maxName        = 63
	maxDescription = 4096
	maxInputs      = 64
	maxDimensions  = 16
	maxClasses     = 100_000
	maxSums        = 8192 // of one state

	minObjective     = time.Millisecond
	maxObjective     = time.Hour
	defaultObjective = 100 * time.Millisecond
	minLifetime      = time.Second
	maxLifetime      = 30 * 24 * time.Hour
	defaultLifetime  = time.Hour
	defaultPrior     = 10

	minContextLifetime = time.Minute
	maxContextLifetime = 10 * 365 * 24 * time.Hour
)

func invalid(field, format string, args ...any) error {
	return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, field, "%s: %s", field, fmt.Sprintf(format, args...))
}

func missing(field, format string, args ...any) error {
	return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_MISSING_FIELD, field, "%s: %s", field, fmt.Sprintf(format, args...))
}

// isName reports whether a name is 1 to 63 letters, digits, '.', '_' or '-' and starts with a letter or
// digit.
func isName(s string) bool {
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= maxName
}

const nameWanted = "want 1 to 63 letters, digits, '.', '_' or '-', starting with a letter or digit, not %q"

// complete checks an application and fills in the defaults, those of its models included.
func (s *Service) complete(ctx context.Context, app *clipperv1.Application) error {
	if err := completePlain(app); err != nil {
		return err
	}
	if err := s.completeDecisionLog(app); err != nil {
		return err
	}
	if err := completeModels(app, s.cfg.PolicyHosts); err != nil {
		return err
	}
	if err := s.describePolicy(ctx, app.Policy); err != nil {
		return err
	}
	signatures, err := s.signatures(ctx, app)
	if err != nil {
		return err
	}
	if err := completeInputs(app, signatures); err != nil {
		return err
	}
	if err := checkFeatures(app); err != nil {
		return err
	}
	if err := completeOutput(app, signatures[0]); err != nil {
		return err
	}
	for i, m := range app.Models {
		if err := fits(app, signatures[i]); err != nil {
			field := fmt.Sprintf("models[%d]", i)
			return apierror.New(codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_SIGNATURE_MISMATCH, field, "%s: model %q %v", field, modelKey(m), err)
		}
	}
	// What remains is what building it finds.
	if _, err := newApplication(app, 0); err != nil {
		return invalid("models", "%v", err)
	}
	return nil
}

// completePlain does so for the fields that stand alone.
func completePlain(app *clipperv1.Application) error {
	if app.Name == "" {
		return missing("name", "want a name")
	}
	if !isName(app.Name) {
		return invalid("name", nameWanted, shorten(app.Name))
	}
	if len(app.Description) > maxDescription {
		return invalid("description", "it has %d bytes, want at most %d", len(app.Description), maxDescription)
	}
	if t := app.ConfidenceThreshold; !(t >= 0 && t <= 1) {
		return invalid("confidence_threshold", "it is %v, want 0 to 1", t)
	}
	if app.PriorWeight == 0 {
		app.PriorWeight = defaultPrior
	}
	if math.IsNaN(app.PriorWeight) || math.IsInf(app.PriorWeight, 0) {
		return invalid("prior_weight", "it is %v, want a finite number", app.PriorWeight)
	}
	if field, err := ratelimit.Check(app.Limits); err != nil {
		return invalid("limits."+field, "%v", err)
	}
	if err := checkContextLifetime(app.ContextLifetime); err != nil {
		return err
	}
	if err := completeDuration("latency_objective", &app.LatencyObjective, minObjective, maxObjective, defaultObjective); err != nil {
		return err
	}
	return completeDuration("feedback_lifetime", &app.FeedbackLifetime, minLifetime, maxLifetime, defaultLifetime)
}

// completeDecisionLog does so for the decision log.
func (s *Service) completeDecisionLog(app *clipperv1.Application) error {
	log := app.DecisionLog
	if log == nil {
		return nil
	}
	if !(log.SampleRate >= 0 && log.SampleRate <= 1) {
		return invalid("decision_log.sample_rate", "it is %v, want 0 to 1", log.SampleRate)
	}
	if _, known := clipperv1.DecisionLogFormat_name[int32(log.Format)]; !known {
		return invalid("decision_log.format", "there is no format %d, want JSON lines (1) or Parquet (2)", log.Format)
	}
	if log.Format == clipperv1.DecisionLogFormat_DECISION_LOG_FORMAT_UNSPECIFIED {
		log.Format = clipperv1.DecisionLogFormat_DECISION_LOG_FORMAT_JSON_LINES
	}
	if s.decisionLog == nil && log.SampleRate > 0 {
		return apierror.New(codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_INVALID_FIELD, "decision_log",
			"decision_log: the selector has no directory for it; start it with --decision-log-dir")
	}
	return nil
}

func completeDuration(field string, d **durationpb.Duration, least, most, otherwise time.Duration) error {
	if *d == nil {
		*d = durationpb.New(otherwise)
	}
	if v := (*d).AsDuration(); !(*d).IsValid() || v < least || v > most {
		return invalid(field, "it is %v, want %v to %v", v, least, most)
	}
	return nil
}

func checkContextLifetime(d *durationpb.Duration) error {
	v := d.AsDuration()
	if d != nil && (!d.IsValid() || v != 0 && (v < minContextLifetime || v > maxContextLifetime)) {
		return invalid("context_lifetime", "it is %v, want %v to %v, or 0 for ever", v, minContextLifetime, maxContextLifetime)
	}
	return nil
}

// completeModels does so for the models and the policy.
func completeModels(app *clipperv1.Application, hosts []string) error {
	n := len(app.Models)
	if n == 0 {
		return missing("models", "want 1 to %d models", policy.MaxModels)
	}
	if n > policy.MaxModels {
		return invalid("models", "there are %d, want at most %d", n, policy.MaxModels)
	}
	seen := map[string]bool{}
	weighted, answering := false, false
	for i, m := range app.Models {
		field := fmt.Sprintf("models[%d]", i)
		if m == nil || m.Model == "" {
			return missing(field+".model", "want the name of a model")
		}
		if !isName(m.Model) {
			return invalid(field+".model", nameWanted, shorten(m.Model))
		}
		if m.Version != "" && !isName(m.Version) {
			return invalid(field+".version", nameWanted, shorten(m.Version))
		}
		if m.Group != "" && !isName(m.Group) {
			return invalid(field+".group", nameWanted, shorten(m.Group))
		}
		if !(m.Weight >= 0) || math.IsInf(m.Weight, 0) {
			return invalid(field+".weight", "it is %v, want a finite number of at least 0", m.Weight)
		}
		if seen[modelKey(m)] {
			return invalid(field, "the model %q is there twice", modelKey(m))
		}
		seen[modelKey(m)] = true
		weighted = weighted || m.Weight > 0
		answering = answering || !m.Shadow
	}
	if !answering {
		return invalid("models", "all are shadow models, want at least one that answers")
	}
	if !weighted {
		for _, m := range app.Models {
			m.Weight = 1
		}
	}
	if !slices.ContainsFunc(app.Models, func(m *clipperv1.ApplicationModel) bool { return !m.Shadow && m.Weight > 0 }) {
		return invalid("models", "the weights of the models that answer are all 0, want at least one above 0")
	}

	if app.Policy == nil {
		app.Policy = &clipperv1.Policy{}
	}
	if app.Policy.Name == "" {
		app.Policy.Name = "exp4"
		if n == 1 {
			app.Policy.Name = "single"
		}
	}
	if err := checkCustom(app, hosts); err != nil {
		return err
	}
	chosen, err := newPolicy(app.Policy)
	if err != nil {
		field := "policy.name"
		var parameter *policy.ParameterError
		if errors.As(err, &parameter) {
			field = "policy.parameters." + shorten(parameter.Name)
		}
		return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_POLICY_INVALID, field, "%s: %s", field, err.Error())
	}
	if sums := n * len(chosen.Statistics()); sums > maxSums {
		return apierror.Invalid(clipperv1.ErrorReason_ERROR_REASON_POLICY_INVALID, "policy",
			"policy: with these parameters %q keeps %d sums for %d models, want at most %d; take a smaller dimension or fewer models", app.Policy.Name, sums, n, maxSums)
	}
	return completeCanary(app)
}

// signatures returns the signature of each model, or nil while it is not known.
func (s *Service) signatures(ctx context.Context, app *clipperv1.Application) ([]*clipperv1.Signature, error) {
	signatures := make([]*clipperv1.Signature, len(app.Models))
	for i, m := range app.Models {
		field := fmt.Sprintf("models[%d]", i)
		response, err := s.deps.ModelService.GetModel(ctx, &clipperv1.GetModelRequest{Model: m.Model})
		switch status.Code(err) {
		case codes.OK:
		case codes.NotFound:
			return nil, apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_MODEL_NOT_FOUND, field+".model", "%s.model: there is no model %q", field, m.Model)
		case codes.Unavailable:
			return nil, apierror.New(codes.Unavailable, clipperv1.ErrorReason_ERROR_REASON_UNAVAILABLE, "", "the service that knows the models cannot be reached now; try again")
		default:
			return nil, apierror.From(err)
		}
		wanted := m.Version
		if wanted == "" {
			wanted = response.GetModel().GetCurrentVersion()
		}
		versions := response.GetModel().GetVersions()
		at := slices.IndexFunc(versions, func(v *clipperv1.ModelVersion) bool { return v.GetVersion() == wanted })
		if at < 0 {
			return nil, apierror.New(codes.NotFound, clipperv1.ErrorReason_ERROR_REASON_VERSION_NOT_FOUND, field+".version", "%s.version: the model %q has no version %q", field, m.Model, wanted)
		}
		signature := versions[at].GetSignature()
		switch versions[at].GetState() {
		case clipperv1.ModelState_MODEL_STATE_READY, clipperv1.ModelState_MODEL_STATE_DEGRADED:
			// It has said all that it says, which may be that it takes anything.
			if signature == nil {
				signature = &clipperv1.Signature{}
			}
		default:
			if len(signature.GetInputs())+len(signature.GetOutputs()) == 0 {
				signature = nil
			}
		}
		signatures[i] = signature
	}
	return signatures, nil
}

// errUnknownSignature says that the application's field is needed since its first model, whose signature is nil
// while it is not known, does not say it.
func errUnknownSignature(app *clipperv1.Application, first *clipperv1.Signature, field string) error {
	says := "has not told it yet; wait until the model is ready, or give " + field
	if first != nil {
		says = "does not declare it: give " + field
	}
	return apierror.New(codes.FailedPrecondition, clipperv1.ErrorReason_ERROR_REASON_SIGNATURE_MISMATCH, field,
		"%s: the model %q %s", field, modelKey(app.Models[0]), says)
}

// completeInputs does so for the inputs.
func completeInputs(app *clipperv1.Application, signatures []*clipperv1.Signature) error {
	if len(app.Inputs) == 0 {
		if signatures[0] == nil {
			return errUnknownSignature(app, nil, "inputs")
		}
		app.Inputs = signatures[0].Inputs
		return nil
	}
	if n := len(app.Inputs); n > maxInputs {
		return invalid("inputs", "there are %d, want at most %d", n, maxInputs)
	}
	seen := map[string]bool{}
	for i, spec := range app.Inputs {
		field := fmt.Sprintf("inputs[%d]", i)
		if len(spec.GetName()) > maxDescription || seen[spec.GetName()] {
			return invalid(field+".name", "want a name of its own, of at most %d bytes", maxDescription)
		}
		seen[spec.GetName()] = true
		if spec.GetName() == "" && len(app.Inputs) > 1 {
			return missing(field+".name", "want a name, since there are several inputs")
		}
		if _, ok := clipperv1.DataType_name[int32(spec.GetDataType())]; !ok {
			return invalid(field+".data_type", "%d is not a known type", spec.GetDataType())
		}
		if len(spec.GetShape()) > maxDimensions || spec.GetAnyShape() && len(spec.GetShape()) > 0 {
			return invalid(field+".shape", "want at most %d dimensions, and none with any_shape", maxDimensions)
		}
		bounded := slices.Clone(spec.GetShape())
		for k, d := range bounded {
			if d < -1 || d == 0 {
				return invalid(field+".shape", "dimension %d is %d, want at least 1, or -1 for any length", k, d)
			}
			bounded[k] = max(d, 1)
		}
		if _, ok := tensor.Elements(bounded); !ok {
			return invalid(field+".shape", "%v has too many elements", spec.GetShape())
		}
	}
	return nil
}

// checkFeatures says why a policy that chooses by the input cannot see it. The policy has been checked.
func checkFeatures(app *clipperv1.Application) error {
	chosen, err := newPolicy(app.Policy)
	if err != nil {
		return invalid("policy", "%v", err)
	}
	if _, contextual := chosen.(policy.Contextual); !contextual {
		return nil
	}
	if err := features.Check(app.Inputs); err != nil {
		return invalid("inputs", "the policy %q chooses by the input, but %v", app.Policy.Name, err)
	}
	return nil
}

// completeOutput does so for the output and the default output.
func completeOutput(app *clipperv1.Application, first *clipperv1.Signature) error {
	if app.Output == nil {
		app.Output = &clipperv1.OutputSpec{}
	}
	o := app.Output
	if _, ok := clipperv1.OutputKind_name[int32(o.Kind)]; !ok {
		return invalid("output.kind", "%d is not a known kind", o.Kind)
	}
	if _, ok := clipperv1.DataType_name[int32(o.DataType)]; !ok {
		return invalid("output.data_type", "%d is not a known type", o.DataType)
	}
	var says *clipperv1.TensorSpec
	if len(first.GetOutputs()) > 0 {
		says = first.Outputs[0]
	}
	if o.Kind == clipperv1.OutputKind_OUTPUT_KIND_UNSPECIFIED {
		if o.Kind = kindOf(says); o.Kind == clipperv1.OutputKind_OUTPUT_KIND_UNSPECIFIED {
			return errUnknownSignature(app, first, "output.kind")
		}
	}
	if app.DefaultOutput == nil {
		return missing("default_output", "want the answer that is given when there is no better one")
	}
	if err := completeDataType(app, says.GetDataType()); err != nil {
		return err
	}
	if err := checkRange(o); err != nil {
		return err
	}
	if len(o.Classes) > 0 && o.Kind != clipperv1.OutputKind_OUTPUT_KIND_SCORES {
		return invalid("output.classes", "only scores have classes")
	}
	if len(o.Classes) > maxClasses {
		return invalid("output.classes", "there are %d, want at most %d", len(o.Classes), maxClasses)
	}
	seen := make(map[string]bool, len(o.Classes))
	for i, class := range o.Classes {
		if class == "" || len(class) > maxDescription || seen[class] {
			return invalid(fmt.Sprintf("output.classes[%d]", i), "want a name of its own, of at most %d bytes", maxDescription)
		}
		seen[class] = true
	}
	spec := output.New(o)
	if _, ok := clipperv1.Loss_name[int32(o.Loss)]; !ok {
		return invalid("output.loss", "%d is not a known loss", o.Loss)
	}
	if !spec.Task.Measure.Allows(spec.Task.Kind) {
		return invalid("output.loss", "%s does not compare %s, want %s", enumText(o.Loss.String(), "LOSS_"), enumText(o.Kind.String(), "OUTPUT_KIND_"), lossesOf(o.Kind))
	}
	if _, err := spec.Output(app.DefaultOutput); err != nil {
		return invalid("default_output", "%v", err)
	}
	return nil
}

// lossesOf names the losses for a kind of output.
func lossesOf(kind clipperv1.OutputKind) string {
	switch kind {
	case clipperv1.OutputKind_OUTPUT_KIND_NUMBER:
		return "absolute"
	case clipperv1.OutputKind_OUTPUT_KIND_SCORES:
		return "zero-one, absolute or log"
	}
	return "zero-one"
}

// enumText is an enum's name as people and the command line write it.
func enumText(name, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, prefix)), "_", "-")
}

// kindOf guesses the kind of output from what a model gives.
func kindOf(spec *clipperv1.TensorSpec) clipperv1.OutputKind {
	t := spec.GetDataType()
	elements, known := tensor.Elements(spec.GetShape())
	switch {
	case spec == nil:
	case t == clipperv1.DataType_DATA_TYPE_STRING || output.IsInteger(t):
		return clipperv1.OutputKind_OUTPUT_KIND_LABEL
	case output.IsFloat(t) && !spec.GetAnyShape() && known && elements == 1:
		return clipperv1.OutputKind_OUTPUT_KIND_NUMBER
	case output.IsFloat(t) && !spec.GetAnyShape():
		return clipperv1.OutputKind_OUTPUT_KIND_SCORES
	}
	return clipperv1.OutputKind_OUTPUT_KIND_UNSPECIFIED
}

// completeDataType sets the element type of the output; says is the first model's.
func completeDataType(app *clipperv1.Application, says clipperv1.DataType) error {
	o := app.Output
	label := o.Kind == clipperv1.OutputKind_OUTPUT_KIND_LABEL
	allowed := func(t clipperv1.DataType) bool {
		if label {
			return output.IsInteger(t) || t == clipperv1.DataType_DATA_TYPE_STRING
		}
		return t == clipperv1.DataType_DATA_TYPE_FLOAT32 || t == clipperv1.DataType_DATA_TYPE_FLOAT64
	}
	_, text := app.DefaultOutput.GetKind().(*structpb.Value_StringValue)
	switch {
	case o.DataType != clipperv1.DataType_DATA_TYPE_UNSPECIFIED:
	case allowed(says):
		o.DataType = says
	case label && text:
		o.DataType = clipperv1.DataType_DATA_TYPE_STRING
	case label:
		o.DataType = clipperv1.DataType_DATA_TYPE_INT64
	default:
		o.DataType = clipperv1.DataType_DATA_TYPE_FLOAT64
	}
	switch {
	case allowed(o.DataType):
		return nil
	case label:
		return invalid("output.data_type", "%s cannot be a label, want a type of integers, bool or string", tensor.TypeName(o.DataType))
	}
	return invalid("output.data_type", "it is %s, want float32 or float64", tensor.TypeName(o.DataType))
}

func checkRange(o *clipperv1.OutputSpec) error {
	if o.Kind != clipperv1.OutputKind_OUTPUT_KIND_NUMBER {
		if o.Range != nil {
			return invalid("output.range", "only numbers have a range")
		}
		return nil
	}
	if o.Range == nil {
		return missing("output.range", "want the smallest and the largest number, which scale the loss")
	}
	low, high := o.Range.Min, o.Range.Max
	if !(low < high) || math.IsInf(high-low, 0) {
		return invalid("output.range", "it is %v to %v, want two finite numbers, min less than max", low, high)
	}
	return nil
}

// fits says what keeps a model from serving the application, or nil. A signature that is not known fits.
func fits(app *clipperv1.Application, signature *clipperv1.Signature) error {
	if wants := signature.GetInputs(); len(wants) > 0 && len(app.Inputs) > 0 {
		if len(wants) != len(app.Inputs) {
			return fmt.Errorf("takes %d inputs, but the application has %d", len(wants), len(app.Inputs))
		}
		for i, want := range wants {
			have := app.Inputs[i]
			switch {
			case len(wants) > 1 && want.Name != have.Name:
				return fmt.Errorf("takes an input %q where the application has %q", want.Name, have.Name)
			case want.DataType != have.DataType && want.DataType != 0 && have.DataType != 0:
				return fmt.Errorf("takes %s, but the application's input is %s", tensor.TypeName(want.DataType), tensor.TypeName(have.DataType))
			case !shapesMeet(want, have):
				return fmt.Errorf("takes the shape %v, but the application's input has %v", want.Shape, have.Shape)
			}
		}
	}
	if len(signature.GetOutputs()) == 0 {
		return nil
	}
	gives := signature.Outputs[0]
	numeric := output.IsInteger(gives.DataType) || output.IsFloat(gives.DataType)
	text := gives.DataType == clipperv1.DataType_DATA_TYPE_STRING
	wantsText := app.Output.DataType == clipperv1.DataType_DATA_TYPE_STRING
	if gives.DataType != 0 && (wantsText != text || !wantsText && !numeric) {
		return fmt.Errorf("gives %s, but the application's output is %s", tensor.TypeName(gives.DataType), tensor.TypeName(app.Output.DataType))
	}
	if gives.AnyShape {
		return nil
	}
	elements, known := tensor.Elements(gives.Shape)
	switch {
	case !known: // A dimension of any length.
		return nil
	case app.Output.Kind != clipperv1.OutputKind_OUTPUT_KIND_SCORES && elements != 1:
		return fmt.Errorf("gives %d elements, but the application's output is one", elements)
	case len(app.Output.Classes) > 0 && elements != int64(len(app.Output.Classes)):
		return fmt.Errorf("gives %d scores, but the application has %d classes", elements, len(app.Output.Classes))
	}
	return nil
}

// shapesMeet reports whether some tensor fits both.
func shapesMeet(a, b *clipperv1.TensorSpec) bool {
	return a.AnyShape || b.AnyShape || slices.EqualFunc(a.Shape, b.Shape, func(x, y int64) bool { return x < 0 || y < 0 || x == y })
}
