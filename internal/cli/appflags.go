// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

// appFlags are the fields of an application as flags; nil is what is not given.
type appFlags struct {
	File        string             `placeholder:"FILE" help:"The application as JSON or YAML; - for standard input."`
	Description *string            `placeholder:"TEXT" help:"For people."`
	Models      []string           `placeholder:"MODEL[:VERSION]" help:"The models to ask; without a version, the current one at each query."`
	Weight      map[string]float64 `mapsep:"," placeholder:"MODEL=W" help:"Weight of a model in a static policy, or its first weight in one that learns."`
	Shadow      []string           `placeholder:"MODEL" help:"Models that are asked and recorded, and have no part in the answer."`
	Policy      *string            `placeholder:"NAME" complete:"single,static,majority,mean,epsilon-greedy,ucb1,thompson,exp3,exp4,linucb,custom" help:"single, static, majority, mean, epsilon-greedy, ucb1, thompson, exp3, exp4, linucb or custom. Default: single for one model, else exp4."`
	PolicyAt    *string            `name:"policy-address" placeholder:"ADDRESS" help:"Where the service of a policy \"custom\" is: host:port or unix:///path."`
	Param       map[string]float64 `mapsep:"," placeholder:"NAME=X" help:"Parameter of the policy; may be repeated."`
	Default     *string            `placeholder:"OUTPUT" help:"The answer when there is no better one: JSON, or a text as it is. Required for a new application."`
	SLO         *time.Duration     `name:"slo" placeholder:"DURATION" help:"Latency objective: the time within which an answer is given. Default: 100ms."`
	Input       []string           `sep:"none" placeholder:"TYPE[SHAPE]" help:"What an input is, as in float64[64], string, float32[?,3] or image=uint8[28,28]; may be repeated. Default: the first model's."`
	Output      *string            `placeholder:"KIND" complete:"label,number,scores" help:"label, number or scores. Default: the first model's."`
	Range       *string            `placeholder:"MIN:MAX" help:"Range of a number, which scales its loss."`
	Classes     []string           `placeholder:"NAME" help:"Names of the classes of scores, in their order."`
	Loss        *string            `placeholder:"NAME" complete:"zero-one,absolute,log" help:"How an output is compared with the truth: zero-one, absolute or log. Default: by the kind of the output."`
	Confidence  *float64           `placeholder:"X" help:"An answer of less confidence, in [0, 1], is replaced by the default."`
	Refuse      *bool              `name:"refuse-overload" negatable:"" help:"Refuse a query that no model can answer in time for overload, and say when to try again, rather than give the default."`
	Early       *bool              `name:"answer-early" negatable:"" help:"Answer before the deadline as soon as the models that are missing cannot change the answer, whatever they say."`
	Lifetime    *time.Duration     `name:"feedback-lifetime" placeholder:"DURATION" help:"How long feedback to an answer is accepted. Default: 1h."`
	Prior       *float64           `name:"prior-weight" placeholder:"N" help:"How much the shared state counts for a context, as a number of observations; less than 0: not at all. Default: 10."`
	Contexts    *time.Duration     `name:"context-lifetime" placeholder:"DURATION" help:"How long a context is kept after its last feedback; 0 is for ever, the default."`
	Group       map[string]string  `mapsep:"," placeholder:"MODEL=GROUP" help:"Models of a group are one opinion and share its weight."`
	Log         *float64           `name:"decision-log" placeholder:"SHARE" help:"Share of the decisions that is logged for evaluation, in [0, 1]."`
	LogFormat   *string            `name:"decision-log-format" placeholder:"FORMAT" complete:"json-lines,parquet" help:"json-lines or parquet. Default: json-lines."`
	limitFlags
	canaryFlags

	text []byte // The content of File, once it is read.
}

// change makes the changes that the flags say, and returns the names of the fields.
func (f *appFlags) change(c *client, app *clipperv1.Application) (mask []string, err error) {
	changed := map[string]bool{}
	if f.File != "" {
		if err := f.changeFromFile(c, app, changed); err != nil {
			return nil, err
		}
	}
	if f.Description != nil {
		app.Description, changed["description"] = *f.Description, true
	}
	if f.SLO != nil {
		app.LatencyObjective, changed["latency_objective"] = durationpb.New(*f.SLO), true
	}
	if f.Lifetime != nil {
		app.FeedbackLifetime, changed["feedback_lifetime"] = durationpb.New(*f.Lifetime), true
	}
	if f.Contexts != nil {
		app.ContextLifetime, changed["context_lifetime"] = durationpb.New(*f.Contexts), true
	}
	if f.Prior != nil {
		app.PriorWeight, changed["prior_weight"] = *f.Prior, true
	}
	if f.Confidence != nil {
		app.ConfidenceThreshold, changed["confidence_threshold"] = *f.Confidence, true
	}
	if f.Refuse != nil {
		app.RefuseOverload, changed["refuse_overload"] = *f.Refuse, true
	}
	if f.Early != nil {
		app.AnswerEarly, changed["answer_early"] = *f.Early, true
	}
	if err := f.changeLog(app, changed); err != nil {
		return nil, err
	}
	if f.Default != nil {
		if app.DefaultOutput, err = parseValue(*f.Default); err != nil {
			return nil, usagef("--default: %s", err)
		}
		changed["default_output"] = true
	}
	if f.Input != nil {
		app.Inputs, changed["inputs"] = nil, true
		for _, text := range f.Input {
			spec, err := parseSpec(text)
			if err != nil {
				return nil, err
			}
			app.Inputs = append(app.Inputs, spec)
		}
	}
	f.changePolicy(app, changed)
	for _, change := range []func(*clipperv1.Application, map[string]bool) error{f.changeModels, f.changeOutput, f.changeLimits, f.changeCanary} {
		if err := change(app, changed); err != nil {
			return nil, err
		}
	}
	return slices.Sorted(maps.Keys(changed)), nil
}

// changePolicy sets the policy; one of another name starts without parameters.
func (f *appFlags) changePolicy(app *clipperv1.Application, changed map[string]bool) {
	if f.Policy == nil && f.PolicyAt == nil && f.Param == nil {
		return
	}
	changed["policy"] = true
	if app.Policy == nil || f.Policy != nil && *f.Policy != app.Policy.Name {
		app.Policy = &clipperv1.Policy{}
	}
	if f.Policy != nil {
		app.Policy.Name = *f.Policy
	}
	if f.PolicyAt != nil {
		app.Policy.Address = *f.PolicyAt
	}
	if app.Policy.Parameters == nil {
		app.Policy.Parameters = map[string]float64{}
	}
	maps.Copy(app.Policy.Parameters, f.Param)
}

// changeModels sets the list of models, and weights and shadows in it. A model that stays keeps
// what is not said anew.
func (f *appFlags) changeModels(app *clipperv1.Application, changed map[string]bool) error {
	if f.Models == nil && f.Weight == nil && f.Shadow == nil && f.Group == nil {
		return nil
	}
	changed["models"] = true
	find := func(name string) *clipperv1.ApplicationModel {
		for _, m := range app.Models {
			if m.GetModel() == name {
				return m
			}
		}
		return nil
	}
	if f.Models != nil {
		var models []*clipperv1.ApplicationModel
		for _, text := range f.Models {
			name, version, pinned := strings.Cut(strings.TrimSpace(text), ":")
			if name == "" || pinned && version == "" {
				return usagef("--models: %q is not MODEL or MODEL:VERSION", text)
			}
			m := &clipperv1.ApplicationModel{Model: name}
			if before := find(name); before != nil {
				m = proto.CloneOf(before)
			}
			m.Version = version
			models = append(models, m)
		}
		app.Models = models
	}
	for name, weight := range f.Weight {
		m := find(name)
		if m == nil {
			return usagef("--weight: %q is not one of the application's models", name)
		}
		m.Weight = weight
	}
	for name, group := range f.Group {
		m := find(name)
		if m == nil {
			return usagef("--group: %q is not one of the application's models", name)
		}
		m.Group = group
	}
	for _, name := range f.Shadow {
		m := find(name)
		if m == nil {
			return usagef("--shadow: %q is not one of the application's models", name)
		}
		m.Shadow = true
	}
	return nil
}

// changeLog sets the decision log.
func (f *appFlags) changeLog(app *clipperv1.Application, changed map[string]bool) error {
	if f.Log == nil && f.LogFormat == nil {
		return nil
	}
	changed["decision_log"] = true
	if app.DecisionLog == nil {
		app.DecisionLog = &clipperv1.DecisionLog{}
	}
	if f.Log != nil {
		app.DecisionLog.SampleRate = *f.Log
	}
	if f.LogFormat != nil {
		format := clipperv1.DecisionLogFormat_value["DECISION_LOG_FORMAT_"+strings.ToUpper(strings.ReplaceAll(*f.LogFormat, "-", "_"))]
		if format == 0 {
			return usagef("--decision-log-format: %q is not json-lines or parquet", *f.LogFormat)
		}
		app.DecisionLog.Format = clipperv1.DecisionLogFormat(format)
	}
	return nil
}

func (f *appFlags) changeOutput(app *clipperv1.Application, changed map[string]bool) error {
	if f.Output == nil && f.Range == nil && f.Classes == nil && f.Loss == nil {
		return nil
	}
	changed["output"] = true
	if app.Output == nil {
		app.Output = &clipperv1.OutputSpec{}
	}
	if f.Output != nil {
		kind, ok := clipperv1.OutputKind_value["OUTPUT_KIND_"+strings.ToUpper(*f.Output)]
		if !ok || kind == 0 {
			return usagef("--output: %q is not label, number or scores", *f.Output)
		}
		if app.Output.Kind != clipperv1.OutputKind(kind) { // The rest belongs to the kind there was.
			app.Output = &clipperv1.OutputSpec{Kind: clipperv1.OutputKind(kind)}
		}
	}
	if f.Range != nil {
		low, high, _ := strings.Cut(*f.Range, ":")
		least, err1 := strconv.ParseFloat(low, 64)
		most, err2 := strconv.ParseFloat(high, 64)
		if err1 != nil || err2 != nil || !(least < most) || math.IsInf(most-least, 0) {
			return usagef("--range: %q is not MIN:MAX, two numbers as in 0:100", *f.Range)
		}
		app.Output.Range = &clipperv1.NumberRange{Min: least, Max: most}
	}
	if f.Classes != nil {
		app.Output.Classes = f.Classes
	}
	if f.Loss != nil {
		loss, ok := clipperv1.Loss_value["LOSS_"+strings.ToUpper(strings.ReplaceAll(*f.Loss, "-", "_"))]
		if !ok || loss == 0 {
			return usagef("--loss: %q is not zero-one, absolute or log", *f.Loss)
		}
		app.Output.Loss = clipperv1.Loss(loss)
	}
	return nil
}

// changeFromFile sets the fields that a file has.
func (f *appFlags) changeFromFile(c *client, app *clipperv1.Application, changed map[string]bool) error {
	path := "@" + f.File
	if f.File == "-" {
		path = f.File
	}
	if f.text == nil { // Standard input can be read only once.
		text, err := c.read(path)
		if err != nil {
			return err
		}
		f.text = text
	}
	var fields map[string]any
	if err := yaml.Unmarshal(f.text, &fields); err != nil { // JSON is YAML.
		return usagef("--file %s: %s", f.File, err)
	}
	encoded, err := json.Marshal(fields)
	if err != nil {
		return usagef("--file %s: %s", f.File, err)
	}
	from := &clipperv1.Application{}
	if err := protojson.Unmarshal(encoded, from); err != nil {
		message := strings.TrimSpace(strings.TrimPrefix(err.Error(), "proto:"))
		if position, rest, ok := strings.Cut(message, "): "); ok && strings.HasPrefix(position, "(line ") {
			message = rest // The position is in the JSON that was made here, not in the file.
		}
		return usagef("--file %s: %s", f.File, message)
	}
	if app.GetName() == "" {
		app.Name = from.GetName()
	}
	descriptors := from.ProtoReflect().Descriptor().Fields()
	for key := range fields {
		field := descriptors.ByJSONName(key)
		if field == nil {
			field = descriptors.ByName(protoreflect.Name(key))
		}
		switch field.Name() {
		case "name", "etag", "create_time", "update_time": // It says which, or is the server's.
			continue
		}
		app.ProtoReflect().Clear(field)
		if from.ProtoReflect().Has(field) {
			app.ProtoReflect().Set(field, from.ProtoReflect().Get(field))
		}
		changed[string(field.Name())] = true
	}
	return nil
}

// parseSpec reads a tensor specification: [NAME=]TYPE[SHAPE].
func parseSpec(text string) (*clipperv1.TensorSpec, error) {
	wrong := func() error {
		return usagef("--input: %q is not TYPE[SHAPE], as in float64[64], string, float32[?,3], any[...] or image=uint8[28,28]", text)
	}
	spec := &clipperv1.TensorSpec{}
	rest := text
	if name, after, named := strings.Cut(text, "="); named {
		if spec.Name, rest = name, after; name == "" {
			return nil, wrong()
		}
	}
	name, shape, shaped := strings.Cut(rest, "[")
	if name != "any" {
		var ok bool
		if spec.DataType, ok = tensor.ParseType(name); !ok {
			return nil, wrong()
		}
	}
	if !shaped {
		return spec, nil
	}
	shape, closed := strings.CutSuffix(shape, "]")
	if !closed {
		return nil, wrong()
	}
	if shape == "..." {
		spec.AnyShape = true
		return spec, nil
	}
	for dim := range strings.SplitSeq(shape, ",") {
		n := int64(-1)
		if dim = strings.TrimSpace(dim); dim != "?" && dim != "-1" {
			var err error
			if n, err = strconv.ParseInt(dim, 10, 64); err != nil || n < 0 {
				return nil, wrong()
			}
		}
		spec.Shape = append(spec.Shape, n)
	}
	return spec, nil
}
