// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clipperv1 "github.com/clipper-serving/clipper/gen/go/clipper/v1"
	"github.com/clipper-serving/clipper/internal/tensor"
)

type modelCommands struct {
	adminOptions

	Deploy      modelDeploy      `cmd:"" help:"Deploy a version of a model and wait until it is ready."`
	List        modelList        `cmd:"" help:"List models and their versions."`
	Show        modelShow        `cmd:"" help:"Show a model, its versions and replicas."`
	SetVersion  modelSetVersion  `cmd:"" help:"Make a version the current one; also rolls back."`
	SetBatching modelSetBatching `cmd:"" help:"Change how queries are gathered into batches."`
	Explain     modelExplain     `cmd:"" help:"Explain how a version's queries are batched: what was learned, what waits, and why."`
	Scale       modelScale       `cmd:"" help:"Change the number of replicas and wait until they are ready."`
	Repository  modelRepository  `cmd:"" help:"Show what the model repository holds and what has become of it."`
	Delete      modelDelete      `cmd:"" help:"Delete a version, or a model with all its versions."`
}

type modelList struct{}

func (modelList) Help() string {
	return "Examples:\n\n    clipper model list\n    clipper model list --json"
}

func (modelList) Run(c *client) error {
	models, err := c.listModels()
	if err != nil {
		return err
	}
	if c.JSON {
		return c.writeJSON(&clipperv1.ListModelsResponse{Models: models})
	}
	if len(models) == 0 {
		if _, err := fmt.Fprintln(c.Stdout, "No models. `clipper model deploy --help` says how to deploy one."); err != nil {
			return err
		}
	} else if err := c.writeTable(modelTable(models)); err != nil {
		return err
	}
	return c.showRepository("")
}

func (c *client) listModels() ([]*clipperv1.Model, error) {
	service, err := c.models()
	if err != nil {
		return nil, err
	}
	var models []*clipperv1.Model
	for request := (&clipperv1.ListModelsRequest{}); ; {
		page, err := service.ListModels(c.ctx, request)
		if err != nil {
			return nil, err
		}
		models = append(models, page.GetModels()...)
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return models, nil
		}
	}
}

func modelTable(models []*clipperv1.Model) *table {
	t := &table{header: []string{"MODEL", "VERSION", "CURRENT", "STATE", "REPLICAS", "SOURCE", "AGE"}, state: 3}
	for _, m := range models {
		for _, v := range m.GetVersions() {
			current := ""
			if v.GetVersion() == m.GetCurrentVersion() {
				current = "yes"
			}
			t.add(m.GetName(), v.GetVersion(), current, stateOf(v), replicas(v), source(v.GetContainer()), age(v.GetCreateTime()))
		}
	}
	return t
}

func stateOf(v *clipperv1.ModelVersion) string { return enum(v.GetState(), "MODEL_STATE_") }

// replicas returns how many replicas are ready, of how many.
func replicas(v *clipperv1.ModelVersion) string {
	return fmt.Sprintf("%d/%d", ready(v), v.GetReplicas())
}

func ready(v *clipperv1.ModelVersion) (n uint32) {
	for _, r := range v.GetReplicaStatus() {
		if r.GetState() == clipperv1.ReplicaState_REPLICA_STATE_READY {
			n++
		}
	}
	return n
}

// source returns where a container comes from, in a few words.
func source(c *clipperv1.Container) string {
	switch s := c.GetSource().(type) {
	case *clipperv1.Container_Adapter:
		return strings.TrimSpace(s.Adapter.GetFramework() + " " + s.Adapter.GetModelPath())
	case *clipperv1.Container_Command:
		return strings.Join(s.Command.GetArguments(), " ")
	case *clipperv1.Container_Address:
		return "at " + s.Address.GetAddress()
	case *clipperv1.Container_Image:
		return "image " + s.Image.GetReference()
	case *clipperv1.Container_Registered:
		return "registered"
	}
	return ""
}

type modelShow struct {
	Name string `arg:"" complete:"model" help:"The model."`
}

func (modelShow) Help() string { return "Example:\n\n    clipper model show digits" }

func (m modelShow) Run(c *client) error {
	service, err := c.models()
	if err != nil {
		return err
	}
	response, err := service.GetModel(c.ctx, &clipperv1.GetModelRequest{Model: m.Name})
	if err != nil {
		if !c.JSON && status.Code(err) == codes.NotFound {
			_ = c.showRepository(m.Name) // That it is not deployed is the error.
		}
		return err
	}
	if c.JSON {
		return c.writeJSON(response.GetModel())
	}
	if err := c.writeTable(modelTable([]*clipperv1.Model{response.GetModel()})); err != nil {
		return err
	}
	for _, v := range response.GetModel().GetVersions() {
		if err := c.showVersion(v); err != nil {
			return err
		}
	}
	if n := response.GetModel().KeepVersions; n != nil {
		if _, err := fmt.Fprintf(c.Stdout, "\nOld versions that are kept: %d.\n", *n); err != nil {
			return err
		}
	}
	return c.showRepository(m.Name)
}

func (c *client) showVersion(v *clipperv1.ModelVersion) error {
	if _, err := fmt.Fprintf(c.Stdout, "\n%s:%s\n", v.GetModel(), v.GetVersion()); err != nil {
		return err
	}
	facts := &table{}
	facts.add("  inputs", specs(v.GetSignature().GetInputs()))
	facts.add("  outputs", specs(v.GetSignature().GetOutputs()))
	facts.add("  batching", batching(v.GetBatching()))
	facts.add("  cache", map[bool]string{false: "on", true: "off"}[v.GetCache().GetDisabled()])
	if limits := limits(v.GetContainer().GetResources()); limits != "" {
		facts.add("  limits", limits)
	}
	if v.GetHomes() > 1 {
		facts.add("  homes", strconv.Itoa(int(v.GetHomes())))
	}
	if v.GetAutoscaling() != nil {
		facts.add("  scaling", scaling(v.GetAutoscaling()))
	}
	if v.GetStateMessage() != "" {
		facts.add("  message", indent(v.GetStateMessage(), "  "))
	}
	if err := facts.write(c.Stdout, false); err != nil {
		return err
	}
	if len(v.GetReplicaStatus()) == 0 {
		return nil
	}
	c.blankLine()
	t := &table{header: []string{"  REPLICA", "STATE", "SINCE", "RESTARTS", "ADDRESS"}, state: 1}
	several := slices.ContainsFunc(v.GetReplicaStatus(), func(r *clipperv1.Replica) bool { return r.GetInstance() != "" })
	if several {
		t.header = append(t.header, "INSTANCE")
	}
	for _, r := range v.GetReplicaStatus() {
		restarts := strconv.Itoa(int(r.GetRestarts()))
		if r.GetRegistered() {
			restarts = "" // Nobody here starts it.
		}
		row := []string{"  " + r.GetId(), enum(r.GetState(), "REPLICA_STATE_"), age(r.GetStateTime()), restarts, r.GetAddress()}
		if several {
			row = append(row, r.GetInstance())
		}
		t.add(row...)
	}
	if err := c.writeTable(t); err != nil {
		return err
	}
	_, err := fmt.Fprint(c.Stdout, messages(v))
	return err
}

// messages returns what the replicas say that are not well, with the last lines of their logs.
func messages(v *clipperv1.ModelVersion) string {
	var b strings.Builder
	for _, r := range v.GetReplicaStatus() {
		if r.GetMessage() != "" {
			fmt.Fprintf(&b, "\n  replica %s (%s):\n    %s\n", r.GetId(), enum(r.GetState(), "REPLICA_STATE_"), indent(r.GetMessage(), "    "))
		}
	}
	return b.String()
}

// indent puts spaces before every line but the first.
func indent(text, spaces string) string {
	return strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n"+spaces)
}

// specs writes tensor specifications in the form that --input reads.
func specs(specs []*clipperv1.TensorSpec) string {
	texts := make([]string, len(specs))
	for i, s := range specs {
		text := "any"
		if s.GetDataType() != clipperv1.DataType_DATA_TYPE_UNSPECIFIED {
			text = tensor.TypeName(s.GetDataType())
		}
		dims := make([]string, len(s.GetShape()))
		for j, n := range s.GetShape() {
			if dims[j] = strconv.FormatInt(n, 10); n < 0 {
				dims[j] = "?"
			}
		}
		switch {
		case s.GetAnyShape():
			text += "[...]"
		case len(dims) > 0:
			text += "[" + strings.Join(dims, ",") + "]"
		}
		if s.GetName() != "" {
			text = s.GetName() + "=" + text
		}
		texts[i] = text
	}
	return strings.Join(texts, " ")
}

// limits says what one replica may use; it is empty when that is not limited.
func limits(r *clipperv1.Resources) string {
	var parts []string
	if n := r.GetMemoryBytes(); n > 0 {
		parts = append(parts, mebibytes(n)+" of memory")
	}
	if n := r.GetCpus(); n > 0 {
		parts = append(parts, strconv.FormatFloat(n, 'g', -1, 64)+" processors")
	}
	if n := r.GetGpus(); n > 0 {
		parts = append(parts, strconv.Itoa(int(n))+" GPUs")
	}
	return strings.Join(parts, ", ")
}

type modelSetVersion struct {
	Name       string `arg:"" complete:"model" help:"The model."`
	NewVersion string `arg:"" name:"version" help:"The version that becomes the current one."`
}

func (modelSetVersion) Help() string { return "Example:\n\n    clipper model set-version digits 2" }

func (m modelSetVersion) Run(c *client) error {
	service, err := c.models()
	if err != nil {
		return err
	}
	response, err := service.SetCurrentVersion(c.ctx, &clipperv1.SetCurrentVersionRequest{Model: m.Name, Version: m.NewVersion})
	if err != nil {
		return err
	}
	if c.JSON {
		return c.writeJSON(response.GetModel())
	}
	_, err = fmt.Fprintf(c.Stdout, "The current version of %s is %s.\n", m.Name, response.GetModel().GetCurrentVersion())
	return err
}

type modelDelete struct {
	Name       string `arg:"" complete:"model" help:"The model."`
	OldVersion string `name:"version" placeholder:"V" help:"Only this version."`
}

func (modelDelete) Help() string {
	return "Examples:\n\n    clipper model delete digits --version 1\n    clipper model delete digits"
}

func (m modelDelete) Run(c *client) error {
	service, err := c.models()
	if err != nil {
		return err
	}
	name := m.Name
	if m.OldVersion == "" {
		_, err = service.DeleteModel(c.ctx, &clipperv1.DeleteModelRequest{Model: m.Name})
	} else {
		name += ":" + m.OldVersion
		_, err = service.DeleteModelVersion(c.ctx, &clipperv1.DeleteModelVersionRequest{Model: m.Name, Version: m.OldVersion})
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return c.writeJSON(map[string]string{"deleted": name})
	}
	_, err = fmt.Fprintf(c.Stdout, "Deleted %s.\n", name)
	return err
}
